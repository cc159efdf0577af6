//! The last lines that a handler wrote, in bounded memory: nothing of a log is written to flash.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_channel::Sender;
use event_listener::Event;

use crate::backend::{Lines, LogLine};

/// Bytes of text kept of one handler; a handler that writes nothing costs nothing.
const KEPT: usize = 16 * 1024;
/// Longest line in bytes; longer ones are cut.
const LINE: usize = 4 * 1024;
/// What a kept line costs beside its text.
const OVERHEAD: usize = 48;

/// Lines that are copied at once for who reads them.
const BATCH: usize = 64;

/// A bounded tail of lines.
#[derive(Debug, Default)]
pub(super) struct Tail {
    inner: Mutex<Inner>,
    /// Told of lines, and of the end.
    grown: Event,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<Kept>,
    bytes: usize,
    /// A line whose end did not come yet.
    partial: Vec<u8>,
    /// Whether the rest of the line is passed over, because it was cut.
    cut: bool,
    /// The number of the first line that is kept.
    first: u64,
    /// Whether no line follows.
    closed: bool,
}

/// Lines from a place on.
struct Batch {
    lines: Vec<LogLine>,
    /// Lines before them that are not kept any more.
    lost: u64,
    /// The number of the line after them.
    next: u64,
    /// Whether no line follows.
    last: bool,
}

impl Tail {
    /// Takes what was written, in pieces of any size.
    pub(super) fn write(&self, piece: &[u8]) {
        let mut inner = self.lock();
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
                self.grown.notify(usize::MAX);
            }
        }
    }

    /// Ends a last line that has no line end, and the log.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if !inner.partial.is_empty() {
            inner.end_line();
        }
        inner.closed = true;
        self.grown.notify(usize::MAX);
    }

    /// The last `count` lines, oldest first.
    pub(super) fn last(&self, count: usize) -> Vec<LogLine> {
        self.lock().last(count).map(shown).collect()
    }

    /// Sends the lines that are wanted until nobody takes them.
    pub(super) async fn send(&self, want: Lines, lines: &Sender<LogLine>) {
        let mut next = self.lock().start(want);
        loop {
            let grown = self.grown.listen();
            let batch = self.lock().from(next);
            next = batch.next;
            let lost = batch.lines.first().filter(|_| batch.lost > 0).map(|line| LogLine {
                timestamp: line.timestamp.clone(),
                text: format!("[{} lines were left out: they came faster than they were read]", batch.lost).into(),
            });
            let is_empty = batch.lines.is_empty();
            for line in lost.into_iter().chain(batch.lines) {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
            if batch.last || is_empty && !want.follow {
                return;
            }
            if is_empty {
                grown.await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Kept = (SystemTime, Box<[u8]>);

fn shown((time, text): &Kept) -> LogLine {
    LogLine { timestamp: humantime::format_rfc3339_micros(*time).to_string(), text: text.to_vec() }
}

impl Inner {
    fn last(&self, count: usize) -> impl Iterator<Item = &Kept> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }

    /// The number of the first line that is wanted.
    fn start(&self, want: Lines) -> u64 {
        let wanted = self.last(want.tail.unwrap_or(usize::MAX));
        let wanted = wanted.filter(|(time, _)| want.since.is_none_or(|since| *time >= since)).count();
        self.first + (self.lines.len() - wanted) as u64
    }

    /// A few lines from that number on.
    fn from(&self, number: u64) -> Batch {
        let lost = self.first.saturating_sub(number);
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let lines: Vec<_> = self.lines.iter().skip(skip).take(BATCH).map(shown).collect();
        let next = number + lost + lines.len() as u64;
        let last = self.closed && next >= self.first + self.lines.len() as u64;
        Batch { lines, lost, next, last }
    }

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
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tail: &Tail, count: Option<usize>) -> Vec<Vec<u8>> {
        tail.last(count.unwrap_or(usize::MAX)).into_iter().map(|l| l.text).collect()
    }

    /// What is sent until the log ends; it is written to by `between` after each line that was taken.
    fn sent(tail: &Tail, want: Lines, mut between: impl FnMut(&str)) -> Vec<String> {
        let (sender, lines) = async_channel::bounded(1);
        let send = async {
            tail.send(want, &sender).await;
            drop(sender);
        };
        let take = async {
            let mut taken = Vec::new();
            while let Ok(line) = lines.recv().await {
                let text = String::from_utf8(line.text).unwrap();
                between(&text);
                taken.push(text);
            }
            taken
        };
        futures_lite::future::block_on(futures_lite::future::zip(send, take)).1
    }

    #[test]
    fn the_lines_that_are_wanted_are_sent() {
        let tail = Tail::default();
        (0..200).for_each(|n| tail.write(format!("{n}\n").as_bytes()));
        assert_eq!(sent(&tail, Lines::default(), |_| {}).len(), 200);
        assert_eq!(sent(&tail, Lines::last(2), |_| {}), ["198", "199"]);
        assert!(sent(&tail, Lines::last(0), |_| {}).is_empty());
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 40);
        assert!(sent(&tail, Lines { since: Some(later), ..Lines::default() }, |_| {}).is_empty());
        let before = Lines { since: Some(SystemTime::UNIX_EPOCH), tail: Some(3), follow: false };
        assert_eq!(sent(&tail, before, |_| {}).len(), 3);
    }

    #[test]
    fn who_follows_gets_lines_as_they_come_until_the_end() {
        let tail = Tail::default();
        tail.write(b"0\n1\n");
        let want = Lines { tail: Some(1), since: None, follow: true };
        let lines = sent(&tail, want, |text| match text {
            "1" => tail.write(b"2\n3\n"),
            "3" => {
                tail.write(b"rest");
                tail.close();
            }
            _ => {}
        });
        assert_eq!(lines, ["1", "2", "3", "rest"]);
    }

    #[test]
    fn who_reads_slowly_is_told_how_many_lines_are_lost() {
        let tail = Tail::default();
        tail.write(b"first\n");
        let lines = sent(&tail, Lines { follow: true, ..Lines::default() }, |text| {
            if text == "first" {
                (0..10_000).for_each(|n| tail.write(format!("line {n:05}\n").as_bytes()));
                tail.close();
            }
        });
        let kept = KEPT / ("line 00000".len() + OVERHEAD);
        assert_eq!(lines[0], "first");
        assert_eq!(lines[1], format!("[{} lines were left out: they came faster than they were read]", 10_000 - kept));
        assert_eq!(lines.len(), 2 + kept);
        assert_eq!(lines.last().unwrap(), "line 09999");
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
