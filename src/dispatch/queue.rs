//! The line of calls that wait for a handler of one function: first come, first served, whoever is woken when. Calls from
//! addresses that may be made up let others pass.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::client::Client;

/// The line, sorted by its numbers. Those of strangers are odd.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: Mutex<Line>,
    /// How many wait: mostly nobody does, and then the lock is not needed. Who joins looks for a handler again afterwards, and
    /// who frees one looks here afterwards, both under the lock of the handlers, so that one of them sees the other.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: VecDeque<(u64, Option<Client>, State)>,
}

#[derive(Debug)]
enum State {
    /// Whom to wake; nobody while it was not looked at.
    Waits(Option<Waker>),
    /// It has to look for a place again.
    Told,
}

impl Queue {
    /// A number at the end of the line for a call of `client`, and behind those that come next where that is strangers. Where `most` wait already, the last call of the client that
    /// has most of them gives way, if it still has no fewer than this one then.
    pub(super) fn join(&self, most: usize, client: Option<Client>) -> Option<u64> {
        let mut line = self.line();
        if line.waiting.len() >= most && !line.make_room(client) {
            return None;
        }
        // Who may be nobody lets as many pass as may wait, and no more: so nobody waits for ever.
        let behind = if client == Some(Client::STRANGERS) { 2 * most as u64 + 1 } else { 0 };
        let number = 2 * line.next + behind;
        line.next += 1;
        let at = line.position(number).unwrap_or_else(|at| at);
        line.waiting.insert(at, (number, client, State::Waits(None)));
        self.len.store(line.waiting.len(), Ordering::Release);
        Some(number)
    }

    /// Gives the number back.
    pub(super) fn leave(&self, number: u64) {
        let mut line = self.line();
        if let Ok(at) = line.position(number) {
            line.waiting.remove(at);
        }
        self.len.store(line.waiting.len(), Ordering::Release);
        if line.waiting.is_empty() {
            // A burst leaves nothing behind.
            line.waiting = VecDeque::new();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// How many came before the one with this number; all for one that has none.
    pub(super) fn before(&self, number: Option<u64>) -> usize {
        number.map_or_else(|| self.len(), |number| self.line().position(number).unwrap_or_else(|at| at))
    }

    /// Tells the first `count` of the line that there may be a place.
    pub(super) fn tell(&self, count: usize) {
        if self.len() == 0 {
            return;
        }
        for (_, _, state) in self.line().waiting.iter_mut().take(count) {
            if let State::Waits(Some(waker)) = std::mem::replace(state, State::Told) {
                waker.wake();
            }
        }
    }

    /// Whether the one with this number had to give way.
    pub(super) fn gave_way(&self, number: u64) -> bool {
        self.line().position(number).is_err()
    }

    /// Completes when the one with this number was told since this last completed.
    pub(super) async fn told(&self, number: u64) {
        poll_fn(|cx| {
            let mut line = self.line();
            let Ok(at) = line.position(number) else { return Poll::Ready(()) };
            match line.waiting.get_mut(at) {
                Some((_, _, state @ State::Waits(_))) => {
                    *state = State::Waits(Some(cx.waker().clone()));
                    Poll::Pending
                }
                Some((_, _, state)) => {
                    *state = State::Waits(None);
                    Poll::Ready(())
                }
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Takes one out for a call of `client`, where that makes it fairer.
    fn make_room(&mut self, client: Option<Client>) -> bool {
        let count = |of: Option<Client>| self.waiting.iter().filter(|(_, c, _)| *c == of).count();
        // The last one counts where several clients have as many.
        let most = self.waiting.iter().enumerate().map(|(at, (_, c, _))| (count(*c), at)).max();
        let Some((_, at)) = most.filter(|(n, _)| *n > count(client) + 1) else { return false };
        if let Some((_, _, State::Waits(Some(waker)))) = self.waiting.remove(at) {
            waker.wake();
        }
        true
    }

    fn position(&self, number: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&number, |(number, _, _)| *number)
    }
}
