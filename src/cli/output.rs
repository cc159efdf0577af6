//! Printing: results to standard output, everything else to standard error.
//!
//! A reader that went away (`| head`) ends a command without an error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::error::Error;

/// Milliseconds between two updates of a progress line.
const UPDATE: u64 = 100;

/// What is read from the answer at once, in bytes.
const PIECE: usize = 16 * 1024;

/// Prints `text` to standard output.
pub(super) fn print(text: &str) -> Result<(), Error> {
    write_out(text.as_bytes()).map(drop)
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

/// A line on a terminal that says how far something is.
pub(super) struct Progress {
    shown: bool,
    start: Instant,
    /// When the line was last written, in milliseconds since `start`.
    last: AtomicU64,
}

impl Progress {
    /// Shows itself only where standard error is a terminal.
    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal(), start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Shows how many bytes were sent, but not too often.
    pub(super) fn sent(&self, bytes: u64) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= self.last.load(Ordering::Relaxed) + UPDATE {
            self.last.store(now, Ordering::Relaxed);
            self.show(&format!("sent {} KiB", bytes / 1024));
        }
    }

    /// Shows `text` in place of what was shown.
    pub(super) fn show(&self, text: &str) {
        if self.shown {
            let _ = io::stderr().write_all(format!("\r\x1b[K{text}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_a_terminal() {
        assert_eq!(harmless(b"\x1b[2Jred\r\nnext\tcell\x07\n\n"), "[2Jred\nnext\tcell");
        assert_eq!(harmless(b"caf\xc3\xa9 \xff"), "caf\u{e9} \u{fffd}");
        assert_eq!(harmless("a\u{9b}31mb".as_bytes()), "a31mb");
    }
}
