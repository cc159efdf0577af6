//! The last calls that failed, for whoever looks after the server: their callers were told, and nobody else.
//!
//! What is kept is small, and nothing is kept until a call fails: at most [`KEPT`] lines, each of a function that is deployed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::call::Protocol;
use crate::call_id::CallId;

/// Failures that are kept; the oldest one goes for a new one.
pub const KEPT: usize = 16;
/// Bytes of text that are kept of each.
pub const TEXT: usize = 160;

/// The failures, the newest last.
#[derive(Debug, Default)]
pub struct Errors(Mutex<VecDeque<Failed>>);

/// A call that failed, or several in a row in the same way.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The function.
    pub function: Box<str>,
    /// How the last one came.
    pub protocol: Protocol,
    /// The status as HTTP has it: 500 and above.
    pub status: u16,
    /// When the last one did.
    pub at: Instant,
    /// The last one's id.
    pub id: CallId,
    /// How often.
    pub times: u32,
    /// The first line of what the caller was told.
    pub text: Box<str>,
}

impl Errors {
    /// Notes a failure; `text` is what the caller was told, or how that begins.
    pub(super) fn note(&self, function: &str, protocol: Protocol, id: &CallId, status: u16, text: &[u8]) {
        let text = first_line(text);
        let mut all = self.all();
        let same = |f: &Failed| *f.function == *function && f.status == status && *f.text == *text;
        // One function that goes on failing does not push the others out.
        let times = match all.iter().position(same).and_then(|at| all.remove(at)) {
            Some(before) => before.times.saturating_add(1),
            None => 1,
        };
        if all.len() >= KEPT {
            all.pop_front();
        }
        let (function, text) = (function.into(), text.into());
        all.push_back(Failed { function, protocol, status, at: Instant::now(), id: *id, times, text });
    }

    /// Drops those of a function that was deleted.
    pub(super) fn forget(&self, function: &str) {
        self.all().retain(|failed| *failed.function != *function);
    }

    /// All that are kept, the newest first.
    pub fn newest_first(&self) -> Vec<Failed> {
        self.all().iter().rev().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line with something in it, cut, without control characters; a function may have written it.
fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..4 * TEXT).unwrap_or(text));
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut cut = String::new();
    for c in line.chars().filter(|c| !c.is_control()) {
        if cut.len() + c.len_utf8() > TEXT {
            break;
        }
        cut.push(c);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &Errors) -> Vec<(String, String, u32)> {
        errors.newest_first().into_iter().map(|f| (f.function.into(), f.text.into(), f.times)).collect()
    }

    #[test]
    fn the_newest_are_kept_and_the_same_one_is_counted() {
        let (errors, id) = (Errors::default(), CallId::of(Some(b"id")));
        for n in 0..KEPT + 4 {
            errors.note("f", Protocol::Http, &id, 500, format!("error {n}").as_bytes());
        }
        assert_eq!(errors.newest_first().len(), KEPT);
        for _ in 0..3 {
            errors.note("g", Protocol::Coap, &id, 504, b"too late");
            errors.note("f", Protocol::Http, &id, 500, b"error 19");
        }
        let all = texts(&errors);
        assert_eq!(all[..2], [("f".into(), "error 19".into(), 4), ("g".into(), "too late".into(), 3)]);
        assert_eq!((all.len(), all[2].1.as_str()), (KEPT, "error 18"));
        errors.forget("f");
        assert_eq!(texts(&errors), [("g".into(), "too late".into(), 3)]);
    }

    #[test]
    fn of_a_text_the_first_line_is_kept_and_it_is_cut_between_characters() {
        assert_eq!(first_line(b"\r\n  Traceback\x07 <b>\r\nmore"), "Traceback <b>");
        assert_eq!(first_line(b""), "");
        let long = "\u{e9}".repeat(10 * TEXT);
        assert_eq!(first_line(long.as_bytes()), "\u{e9}".repeat(TEXT / 2));
        assert!(first_line(&[0xff; 10_000]).len() <= TEXT);
    }
}
