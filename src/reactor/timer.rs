//! Moments to wait for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::{Reactor, lock, recently};

/// Completes at a moment. It costs nothing before it is polled.
#[derive(Debug)]
pub struct Timer {
    /// `None` never comes.
    at: Option<Instant>,
    /// Its number among those that are waited for; 0 while it is not.
    number: u64,
}

impl Timer {
    /// Completes at `at`.
    pub const fn at(at: Instant) -> Self {
        Self { at: Some(at), number: 0 }
    }

    /// Completes when `span` has passed; never, where no clock can hold that.
    pub fn after(span: Duration) -> Self {
        Self { at: Instant::now().checked_add(span), number: 0 }
    }

    /// Never completes.
    pub const fn never() -> Self {
        Self { at: None, number: 0 }
    }

    /// Completes at `at` instead. To be polled again by who waits for it.
    pub fn set_at(&mut self, at: Instant) {
        self.forget();
        self.at = Some(at);
    }

    fn forget(&mut self) {
        if let (Some(at), true) = (self.at, self.number != 0) {
            // Dropped when the lock is free: with it may go what holds timers itself.
            let _waker = lock(&Reactor::get().timers.0).waiting.remove(&(at, self.number));
            self.number = 0;
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        // One that is due since then is found when sockets are next looked at.
        if at <= recently() {
            self.forget();
            return Poll::Ready(());
        }
        let reactor = Reactor::get();
        let mut timers = lock(&reactor.timers.0);
        if self.number == 0 {
            timers.last += 1;
            self.number = timers.last;
        }
        let key = (at, self.number);
        let _old = match timers.waiting.entry(key) {
            Entry::Occupied(known) if known.get().will_wake(cx.waker()) => return Poll::Pending,
            Entry::Occupied(mut known) => Some(known.insert(cx.waker().clone())),
            Entry::Vacant(place) => {
                place.insert(cx.waker().clone());
                None
            }
        };
        if reactor.asleep.load(Ordering::SeqCst)
            && timers.waiting.first_key_value().is_some_and(|(first, _)| *first == key)
        {
            // Another thread sleeps for longer.
            reactor.ring();
        }
        drop(timers);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}

/// All timers that are waited for.
#[derive(Debug)]
pub(super) struct Timers(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// In the order in which they are due; the number tells those apart that are due at once.
    waiting: BTreeMap<(Instant, u64), Waker>,
    last: u64,
    /// When those that were due were last woken, if that was just now.
    fired: Option<Instant>,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Waiting { waiting: BTreeMap::new(), last: 0, fired: None }))
    }

    /// Wakes who waits for what is due; returns the time. Without timers it does not ask for that.
    pub(super) fn fire(&self) -> Option<Instant> {
        let mut timers = lock(&self.0);
        timers.fired = None;
        if timers.waiting.is_empty() {
            return None;
        }
        let now = Instant::now();
        timers.fired = Some(now);
        while let Some(first) = timers.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let waker = first.remove();
            drop(timers);
            waker.wake();
            timers = lock(&self.0);
        }
        Some(now)
    }

    /// How long it is until the next one is due, from when they last fired.
    pub(super) fn next(&self) -> Option<Timespec> {
        let timers = lock(&self.0);
        let (at, _) = timers.waiting.first_key_value()?.0;
        let now = timers.fired.unwrap_or_else(Instant::now);
        let left = at.saturating_duration_since(now);
        // Days hence is soon enough to look again: the kernel takes milliseconds in 31 bits.
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX).min(86_400);
        Some(Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() })
    }
}

#[cfg(test)]
impl Timers {
    /// How many such are waited for.
    pub(super) fn count(&self, which: impl Fn(&Instant) -> bool) -> usize {
        lock(&self.0).waiting.keys().filter(|(at, _)| which(at)).count()
    }
}
