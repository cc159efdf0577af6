//! Printing: results to standard output, everything else to standard error.
//!
//! A reader that went away (`| head`) ends a command without an error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use super::error::Error;

/// Milliseconds between two updates of a progress line.
const UPDATE: u64 = 100;
/// Time between two updates of a line that says how long something takes.
const SECOND: Duration = Duration::from_secs(1);

/// What is read from the answer at once, in bytes.
const PIECE: usize = 16 * 1024;

/// Prints `text` to standard output.
pub(super) fn print(text: &str) -> Result<(), Error> {
    write_out(text.as_bytes()).map(drop)
}

/// Prints `value` as JSON on a line of its own.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(value).map_err(|e| Error::failed(e.to_string()))?;
    print(&(line + "\n"))
}

/// Prints all that `read` gives, piece by piece as it comes.
pub(super) fn copy(mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>) -> Result<(), Error> {
    let mut buf = vec![0; PIECE];
    loop {
        let n = read(&mut buf)?;
        if n == 0 || !write_out(buf.get(..n).unwrap_or_default())? {
            return Ok(());
        }
    }
}

/// Whether there is still a reader.
fn write_out(bytes: &[u8]) -> Result<bool, Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::failed(format!("cannot write to standard output: {e}"))),
    }
}

/// Prints an error's line to standard error.
pub(super) fn tell(error: &Error) {
    // Nobody is left to tell when standard error is closed.
    let _ = io::stderr().write_all(format!("tinyfaas: {error}\n").as_bytes());
}

/// Text from elsewhere as it may be shown on a terminal: no control characters but line ends and tabs.
pub(super) fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect()
}

/// Columns of the terminal that standard output is, as `COLUMNS` says, else the terminal itself; `None` where it is none, or neither
/// knows.
pub(super) fn columns() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let known = || tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    Some(said.unwrap_or_else(known)).filter(|&columns| columns > 0)
}

/// The lines of `text`, each cut so that it is no wider than `columns`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match line.char_indices().nth(columns) {
            None => out.push_str(line),
            Some(_) => {
                out.extend(line.chars().take(columns.saturating_sub(1)));
                out.push('\u{2026}');
            }
        }
        out.push('\n');
    }
    out
}

/// How far what is waited for is, by who does it.
pub(super) struct Told {
    /// What is done now.
    pub(super) step: String,
    /// What is to be shown above it, and stays.
    pub(super) lines: Vec<String>,
}

/// Asks for it; `None` where nothing is known.
pub(super) type Ask = Box<dyn FnMut() -> Option<Told> + Send>;

/// A line on a terminal that says how far something is.
pub(super) struct Progress {
    shown: bool,
    start: Instant,
    /// When the line was last written, in milliseconds since `start`.
    last: AtomicU64,
    /// Whether it is over.
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Progress {
    /// Shows itself only where standard error is a terminal, and never if `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            shown: !quiet && io::stderr().is_terminal(),
            start: Instant::now(),
            last: AtomicU64::new(0),
            ended: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Shows how many bytes were sent, but not too often.
    pub(super) fn sent(&self, bytes: u64) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A body may still be sent when the answer is there.
        if now >= self.last.load(Ordering::Relaxed) + UPDATE
            && !*self.ended.lock().unwrap_or_else(PoisonError::into_inner)
        {
            self.last.store(now, Ordering::Relaxed);
            self.show(&format!("sent {} KiB", bytes / 1024));
        }
    }

    /// Shows what is waited for from now on, and how long already, until the end; what `ask` tells instead, each second.
    pub(super) fn wait(self: &Arc<Self>, what: &'static str, mut ask: Ask) {
        if !self.shown {
            return;
        }
        self.show(what);
        let progress = Arc::clone(self);
        let begin = Instant::now();
        let count = move || {
            let mut step = what.to_owned();
            let mut ended = progress.ended.lock().unwrap_or_else(PoisonError::into_inner);
            while !*ended {
                progress.show(&format!("{step}, {} s", begin.elapsed().as_secs()));
                let wait = progress.changed.wait_timeout(ended, SECOND);
                drop(wait.unwrap_or_else(PoisonError::into_inner).0);
                let told = ask();
                // What is over is not shown any more.
                ended = progress.ended.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(told) = told.filter(|_| !*ended) {
                    told.lines.iter().for_each(|line| progress.show(&format!("{line}\n")));
                    step = told.step;
                }
            }
        };
        // Without a thread nothing is counted, which is no error.
        let _ = std::thread::Builder::new().spawn(count);
    }

    /// Ends it, and the line goes.
    pub(super) fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
        self.show("");
    }

    /// Shows `text` in place of what was shown.
    fn show(&self, text: &str) {
        if self.shown {
            let _ = io::stderr().write_all(format!("\r\x1b[K{text}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        assert_eq!(cut("12345\n123456\n\n", 5), "12345\n1234\u{2026}\n\n");
        assert_eq!(cut("\u{e9}\u{e9}\u{e9}\n", 2), "\u{e9}\u{2026}\n");
        assert_eq!(cut("ab\n", 1), "\u{2026}\n");
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_a_terminal() {
        assert_eq!(harmless(b"\x1b[2Jred\r\nnext\tcell\x07\n\n"), "[2Jred\nnext\tcell");
        assert_eq!(harmless(b"caf\xc3\xa9 \xff"), "caf\u{e9} \u{fffd}");
        assert_eq!(harmless("a\u{9b}31mb".as_bytes()), "a31mb");
    }
}
