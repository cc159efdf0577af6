//! The last lines that a handler wrote, in bounded memory: nothing of a log is written to flash.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::backend::LogLine;

/// Bytes of text kept of one handler; a handler that writes nothing costs nothing.
const KEPT: usize = 16 * 1024;
/// Longest line in bytes; longer ones are cut.
const LINE: usize = 4 * 1024;
/// What a kept line costs beside its text.
const OVERHEAD: usize = 48;

/// A bounded tail of lines.
#[derive(Debug, Default)]
pub(super) struct Tail {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<(SystemTime, Box<[u8]>)>,
    bytes: usize,
    /// A line whose end did not come yet.
    partial: Vec<u8>,
    /// Whether the rest of the line is passed over, because it was cut.
    cut: bool,
}

impl Tail {
    /// Takes what was written, in pieces of any size.
    pub(super) fn write(&self, piece: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for part in piece.split_inclusive(|&b| b == b'\n') {
            let (text, ended) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE.saturating_sub(inner.partial.len());
            if !inner.cut {
                inner.partial.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
            }
            if text.len() > room && !inner.cut {
                inner.partial.extend_from_slice(b"...");
                inner.cut = true;
            }
            if ended {
                inner.end_line();
            }
        }
    }

    /// Ends a last line that has no line end.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.partial.is_empty() {
            inner.end_line();
        }
    }

    /// The last `count` lines, oldest first.
    pub(super) fn lines(&self, count: Option<usize>) -> Vec<LogLine> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = inner.lines.len().saturating_sub(count.unwrap_or(usize::MAX));
        let line = |(time, text): &(SystemTime, Box<[u8]>)| LogLine {
            timestamp: humantime::format_rfc3339_micros(*time).to_string(),
            text: text.to_vec(),
        };
        inner.lines.iter().skip(skip).map(line).collect()
    }
}

impl Inner {
    fn end_line(&mut self) {
        let line: Box<[u8]> = std::mem::take(&mut self.partial).into();
        self.cut = false;
        self.bytes += line.len() + OVERHEAD;
        #[expect(clippy::disallowed_methods, reason = "only shown to people")]
        let now = SystemTime::now();
        self.lines.push_back((now, line));
        while self.bytes > KEPT {
            let Some((_, oldest)) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tail: &Tail, count: Option<usize>) -> Vec<Vec<u8>> {
        tail.lines(count).into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let tail = Tail::default();
        for piece in [&b"on"[..], b"e\ntwo\n\nthr", b"ee"] {
            tail.write(piece);
        }
        assert_eq!(texts(&tail, None), [&b"one"[..], b"two", b""]);
        tail.close();
        assert_eq!(texts(&tail, Some(2)), [&b""[..], b"three"]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let tail = Tail::default();
        for _ in 0..3 {
            tail.write(&[b'x'; LINE]);
        }
        tail.write(b"\nnext\n");
        let lines = texts(&tail, None);
        assert_eq!((lines[0].len(), lines[1].as_slice()), (LINE + 3, &b"next"[..]));
    }

    #[test]
    fn megabytes_leave_a_bounded_tail() {
        let tail = Tail::default();
        for n in 0..100_000 {
            tail.write(format!("line {n}\n").as_bytes());
        }
        let lines = texts(&tail, None);
        assert_eq!(lines.last().unwrap(), b"line 99999");
        assert!(lines.iter().map(|l| l.len() + OVERHEAD).sum::<usize>() <= KEPT);
    }
}
