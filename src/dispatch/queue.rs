//! The line of calls that wait for a handler of one function: first come, first served, whoever is woken when.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The line. Its numbers only grow, so they are sorted.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: VecDeque<(u64, State)>,
}

#[derive(Debug)]
enum State {
    /// Whom to wake; nobody while it was not looked at.
    Waits(Option<Waker>),
    /// It has to look for a place again.
    Told,
}

impl Queue {
    /// A number at the end of the line, unless `most` wait already.
    pub(super) fn join(&self, most: usize) -> Option<u64> {
        let mut line = self.line();
        if line.waiting.len() >= most {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.waiting.push_back((number, State::Waits(None)));
        Some(number)
    }

    /// Gives the number back.
    pub(super) fn leave(&self, number: u64) {
        let mut line = self.line();
        if let Ok(at) = line.position(number) {
            line.waiting.remove(at);
        }
        if line.waiting.is_empty() {
            // A burst leaves nothing behind.
            line.waiting = VecDeque::new();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.line().waiting.len()
    }

    /// How many came before the one with this number; all for one that has none.
    pub(super) fn before(&self, number: Option<u64>) -> usize {
        let line = self.line();
        number.map_or(line.waiting.len(), |number| line.position(number).unwrap_or_else(|at| at))
    }

    /// Tells the first `count` of the line that there may be a place.
    pub(super) fn tell(&self, count: usize) {
        for (_, state) in self.line().waiting.iter_mut().take(count) {
            if let State::Waits(Some(waker)) = std::mem::replace(state, State::Told) {
                waker.wake();
            }
        }
    }

    /// Completes when the one with this number was told since this last completed.
    pub(super) async fn told(&self, number: u64) {
        poll_fn(|cx| {
            let mut line = self.line();
            let Ok(at) = line.position(number) else { return Poll::Ready(()) };
            match line.waiting.get_mut(at) {
                Some((_, state @ State::Waits(_))) => {
                    *state = State::Waits(Some(cx.waker().clone()));
                    Poll::Pending
                }
                Some((_, state)) => {
                    *state = State::Waits(None);
                    Poll::Ready(())
                }
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn position(&self, number: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&number, |(number, _)| *number)
    }
}
