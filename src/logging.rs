//! The logger: one line a record to standard error, `LEVEL message`.
//!
//! There is no time in it: the journal, Docker and syslog each add their own.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// Longest line in bytes, its end included; what passes it is cut. It lives on the stack.
const MAX_LINE: usize = 1024;

/// What a cut line ends with.
const CUT: &[u8] = b"...";

struct Stderr;

/// Sends records up to `level` to standard error; a second call only changes the level.
pub fn init(level: LevelFilter) {
    // An error means that a logger is set already, which is then this one or a test's.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(level);
}

/// Takes a level's name: `off`, `error`, `warn`, `info`, `debug` or `trace`.
///
/// # Errors
/// One line that names them.
pub fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| format!("unknown log level {text:?}: use off, error, warn, info, debug or trace"))
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Crates below us (hyper, h2, rustls) are of interest only to who hunts a fault in them. bollard never: it logs what
        // it sends, and that holds the secrets of functions.
        let target = metadata.target();
        let others = log::max_level() == LevelFilter::Trace && !target.starts_with("bollard");
        others || target.starts_with("tinyfaas")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut line = Line::new();
            // A line that is full says so in its end.
            let _ = write!(line, "{} {}", record.level(), record.args());
            // One write a line: lines of several threads do not mix. Nobody is left to tell of an error.
            let _ = std::io::stderr().write_all(line.finish());
        }
    }

    fn flush(&self) {}
}

/// A line of text with a bound.
struct Line {
    bytes: [u8; MAX_LINE],
    len: usize,
    cut: bool,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; MAX_LINE], len: 0, cut: false }
    }

    /// The line with its end.
    fn finish(&mut self) -> &[u8] {
        let end: &[u8] = if self.cut { CUT } else { b"" };
        for &b in end.iter().chain(b"\n") {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = b;
                self.len += 1;
            }
        }
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for b in text.bytes() {
            if self.len >= MAX_LINE - CUT.len() - 1 {
                self.cut = true;
                return Err(fmt::Error);
            }
            if let Some(place) = self.bytes.get_mut(self.len) {
                // A stranger's text must not forge a line or move a terminal's cursor.
                *place = if b < b' ' || b == 0x7f { b' ' } else { b };
                self.len += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<u8> {
        let mut line = Line::new();
        let _ = write!(line, "INFO {text}");
        line.finish().to_vec()
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        assert_eq!(line("hello"), b"INFO hello\n");
        assert_eq!(line("a\r\nERROR forged\x1b[2J\t."), b"INFO a  ERROR forged [2J .\n");
    }

    #[test]
    fn a_long_record_is_cut_and_says_so() {
        let long = line(&"x".repeat(5000));
        assert_eq!(long.len(), MAX_LINE);
        assert!(long.ends_with(b"xxx...\n"));
    }

    #[test]
    fn levels_are_plain_words() {
        assert_eq!(level("info"), Ok(LevelFilter::Info));
        assert_eq!(level("OFF"), Ok(LevelFilter::Off));
        assert!(level("tinyfaas=debug").unwrap_err().contains("use off, error"));
    }
}
