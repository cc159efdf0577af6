//! What handlers wrote: taken from the engine line by line, each bounded, and the tail of a longer text.

use std::time::SystemTime;

use async_channel::Sender;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;

use super::Inner;
use super::engine::Fault;
use crate::backend::{Lines, LogLine};

/// Longest line in bytes; what passes it is cut.
pub const MAX_LINE: usize = 8 * 1024;
/// What a cut line ends with.
const CUT: &[u8] = b" [cut]";

/// Sends those of the lines of the container `id` that are wanted, oldest first.
///
/// # Errors
/// [`Fault`]. A container that is gone wrote nothing, and a receiver that was dropped wants no more.
pub(super) async fn send(inner: &Inner, id: &str, want: Lines, lines: &Sender<LogLine>) -> Result<(), Fault> {
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        timestamps: true,
        tail: want.tail.map_or_else(|| "all".to_string(), |n| n.to_string()),
        // 0 is no bound.
        since: want.since.map_or(0, seconds),
        follow: want.follow,
        ..Default::default()
    };
    inner.engine.negotiate(inner.config.call_timeout).await?;
    let mut items = inner.engine.items(Box::pin(inner.engine.client.logs(id, Some(options))));
    let mut open = [Assembly::default(), Assembly::default()];
    loop {
        let item = match want.follow {
            true => items.wait().await,
            false => items.next(inner.config.call_timeout).await,
        };
        let item = match item {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(fault) if fault.is(404) => break,
            Err(fault) => return Err(fault),
        };
        let [out, err] = &mut open;
        let stream = if matches!(item, LogOutput::StdErr { .. }) { err } else { out };
        if let Some(line) = stream.push(&item.into_bytes())
            && lines.send(line).await.is_err()
        {
            return Ok(());
        }
    }
    for line in open.into_iter().filter_map(|mut rest| rest.take()) {
        if lines.send(line).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A time as the engine is told it, in seconds.
fn seconds(time: SystemTime) -> i32 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// Puts the lines of one stream together: the engine keeps a long line in parts, each with a time.
#[derive(Default)]
pub struct Assembly {
    line: Option<LogLine>,
    cut: bool,
}

impl Assembly {
    /// Takes one part, `TIME TEXT` and an LF where the line ends with it; returns a line that is complete.
    pub fn push(&mut self, part: &[u8]) -> Option<LogLine> {
        let space = part.iter().position(|&b| b == b' ').unwrap_or(part.len());
        let (time, text) = part.split_at_checked(space).unwrap_or((part, &[]));
        let text = text.strip_prefix(b" ").unwrap_or(text);
        let (text, ends) = text.strip_suffix(b"\n").map_or((text, false), |text| (text, true));
        let line = self.line.get_or_insert_with(|| LogLine {
            timestamp: String::from_utf8_lossy(time.trim_ascii()).into_owned(),
            text: Vec::new(),
        });
        let room = MAX_LINE.saturating_sub(line.text.len());
        self.cut |= text.len() > room;
        line.text.extend_from_slice(text.get(..room).unwrap_or(text));
        if ends { self.take() } else { None }
    }

    /// The line so far.
    pub fn take(&mut self) -> Option<LogLine> {
        let mut line = self.line.take()?;
        if std::mem::take(&mut self.cut) {
            line.text.truncate(MAX_LINE - CUT.len());
            line.text.extend_from_slice(CUT);
        }
        if line.text.ends_with(b"\r") {
            line.text.pop();
        }
        Some(line)
    }
}

/// The last bytes of a text that arrives in pieces.
pub struct Tail {
    bytes: Vec<u8>,
    most: usize,
    cut: bool,
}

impl Tail {
    /// Keeps at most `most` bytes, and while it fills up twice that.
    pub fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, cut: false }
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: &[u8]) {
        let piece = piece.get(piece.len().saturating_sub(self.most)..).unwrap_or(piece);
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > 2 * self.most {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let over = self.bytes.len().saturating_sub(self.most);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    /// What was kept, from the start of a line where something is missing before it.
    pub fn text(mut self) -> String {
        self.trim();
        let start = match self.bytes.iter().position(|&b| b == b'\n') {
            Some(end) if self.cut => end + 1,
            _ => 0,
        };
        String::from_utf8_lossy(self.bytes.get(start..).unwrap_or_default()).trim_end().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_apart_and_no_end() {
        let line = Assembly::default().push(b"2026-11-23T05:00:00.1Z two words\r\n").unwrap();
        assert_eq!((line.timestamp.as_str(), line.text.as_slice()), ("2026-11-23T05:00:00.1Z", &b"two words"[..]));
        let empty = Assembly::default().push(b"T \n").unwrap();
        assert_eq!((empty.timestamp.as_str(), empty.text.as_slice()), ("T", &b""[..]));
    }

    #[test]
    fn parts_of_a_line_are_joined_with_the_first_time() {
        let mut a = Assembly::default();
        assert_eq!(a.push(b"T1 abc"), None);
        assert_eq!(a.push(b"T2 def\n"), Some(LogLine { timestamp: "T1".into(), text: b"abcdef".to_vec() }));
        assert_eq!(a.push(b"T3 rest"), None);
        assert_eq!(a.take().unwrap().text, b"rest");
        assert_eq!(a.take(), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_with_a_mark() {
        let mut a = Assembly::default();
        let mut part = b"T ".to_vec();
        part.resize(MAX_LINE + 1, b'x');
        assert_eq!(a.push(&part), None);
        let line = a.push(b"T yy\n").unwrap();
        assert_eq!(line.text.len(), MAX_LINE);
        assert!(line.text.ends_with(b"x [cut]"));
        assert_eq!(a.push(b"T next\n").unwrap().text, b"next");
    }

    #[test]
    fn a_tail_keeps_the_last_lines_within_its_bound() {
        let mut tail = Tail::new(10);
        for i in 0..1000 {
            tail.push(format!("{i}\n").as_bytes());
            assert!(tail.bytes.len() <= 20);
        }
        assert_eq!(tail.text(), "998\n999");
        let mut short = Tail::new(10);
        short.push(b"whole\n");
        assert_eq!(short.text(), "whole");
    }
}
