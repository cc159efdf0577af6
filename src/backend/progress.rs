//! How far a deployment is, for whoever waits for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_channel::Receiver;

use super::{Boxed, LogLine};

/// Bytes of text that are kept of what an installation or a build writes, and what a line costs beside its text.
const KEPT: usize = 4 * 1024;
const OVERHEAD: usize = 16;
/// Longest line in bytes; longer ones are cut.
const LINE: usize = 256;

/// The step that a deployment is at, and the last lines of what is installed or built for it.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    step: Cow<'static, str>,
    lines: VecDeque<Box<str>>,
    bytes: usize,
    /// How many lines there were in all.
    count: u64,
}

/// What [`Progress`] tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Since it began.
    pub since: Duration,
    /// What is done now, in words.
    pub step: Cow<'static, str>,
    /// How many lines were written in all, and the last ones of them.
    pub count: u64,
    /// Oldest first.
    pub lines: Vec<Box<str>>,
}

impl Progress {
    /// It begins now, with that step.
    pub fn new(step: &'static str) -> Self {
        Self(Arc::new(Mutex::new(State {
            begun: Instant::now(),
            step: step.into(),
            lines: VecDeque::new(),
            bytes: 0,
            count: 0,
        })))
    }

    /// The next step.
    pub fn step(&self, step: impl Into<Cow<'static, str>>) {
        self.lock().step = step.into();
    }

    /// Takes a line, or several. Those that say nothing are left out.
    pub fn write(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let mut state = self.lock();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let cut = (0..=LINE.min(line.len())).rev().find(|&end| line.is_char_boundary(end));
            let line: Box<str> = line.get(..cut.unwrap_or_default()).unwrap_or_default().into();
            state.bytes += line.len() + OVERHEAD;
            state.count += 1;
            state.lines.push_back(line);
            while state.bytes > KEPT {
                let Some(oldest) = state.lines.pop_front() else { break };
                state.bytes -= oldest.len() + OVERHEAD;
            }
        }
    }

    /// Takes the lines that `log` sends to what it is given, until `done` completes, and returns what that does.
    pub async fn beside<'a, T>(
        &self,
        log: impl FnOnce(async_channel::Sender<LogLine>) -> Boxed<'a, ()>,
        done: impl Future<Output = T>,
    ) -> T {
        let (sender, lines) = async_channel::bounded(8);
        let told = async {
            futures_lite::future::zip(log(sender), self.take(lines)).await;
            futures_lite::future::pending().await
        };
        futures_lite::future::or(done, told).await
    }

    async fn take(&self, lines: Receiver<LogLine>) {
        while let Ok(line) = lines.recv().await {
            self.write(&line.text);
        }
    }

    /// How far it is now.
    pub fn seen(&self) -> Seen {
        let state = self.lock();
        Seen {
            since: state.begun.elapsed(),
            step: state.step.clone(),
            count: state.count,
            lines: state.lines.iter().cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    /// For work that nobody waits for.
    fn default() -> Self {
        Self::new("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_a_bound_and_all_are_counted() {
        let progress = Progress::new("waiting");
        progress.step("installing");
        progress.write(b"one\r\n\n  two  \n");
        let seen = progress.seen();
        assert_eq!((&*seen.step, seen.count), ("installing", 2));
        assert_eq!(seen.lines, ["one".into(), "  two".into()] as [Box<str>; 2]);
        (0..1000).for_each(|n| progress.write(format!("line {n}").as_bytes()));
        let seen = progress.seen();
        assert_eq!(seen.count, 1002);
        assert_eq!(seen.lines.last().map(|line| &**line), Some("line 999"));
        let held = seen.lines.iter().map(|line| line.len() + OVERHEAD).sum::<usize>();
        assert!((KEPT - 64..=KEPT).contains(&held), "{held}");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let progress = Progress::new("");
        progress.write("\u{20ac}".repeat(1000).as_bytes());
        assert_eq!(*progress.seen().lines[0], *"\u{20ac}".repeat(LINE / 3));
        // What is broken becomes longer as text.
        progress.write(&[b'\xff'; 10_000]);
        assert!(progress.seen().lines[1].len() <= LINE);
    }
}
