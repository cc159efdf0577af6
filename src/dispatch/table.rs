//! A function's handlers and the bookkeeping of who uses them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use super::handler::Handler;
use super::queue::Queue;
use super::sleep::Sleep;
use crate::client::Client;
use crate::function::{Limits, Name};
use crate::tokens::{self, Digest};

/// How often a call whose body is still to come gets a place though whole ones wait: it may be a large one.
pub(super) const TURN: Duration = Duration::from_secs(2);

/// One version of a function and the handlers that serve it.
#[derive(Debug)]
pub struct Function {
    name: Name,
    limits: Limits,
    /// The tokens that calls need; empty where anybody may call.
    auth: Vec<Digest>,
    handlers: Mutex<Vec<Arc<Handler>>>,
    /// Calls that wait. As many are told as there are places, or all when they have to look for something else.
    queue: Queue,
    /// Calls that wait for a handler while their bodies are still to come: whole ones do not wait for them.
    coming: Queue,
    /// Places of handlers that such calls have.
    unfinished: AtomicUsize,
    /// One more than the number of the call in `coming` that gets the next place, and when one last did.
    owed: AtomicU64,
    turn: Mutex<Option<Instant>>,
    refused: AtomicU64,
    calls: AtomicU64,
    retired: AtomicBool,
    /// Whether a call may have changed something since somebody asked.
    changed: AtomicBool,
    sleep: Sleep,
    /// Notified when the last call in flight ends.
    idle: Event,
}

/// A handler taken for one call; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    function: Arc<Function>,
    handler: Arc<Handler>,
    /// Whether the call's body is still to come.
    coming: AtomicBool,
}

/// Where a call waits for a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it is here.
    Whole,
    /// Its body is still to come.
    Coming,
}

/// A place in a function's queue: its number. Given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Function>, Line, u64);

impl Function {
    /// A function without handlers: calls wait until [one comes](Self::add).
    pub fn new(name: Name, limits: Limits) -> Self {
        Self {
            name,
            limits,
            auth: Vec::new(),
            handlers: Mutex::default(),
            queue: Queue::default(),
            coming: Queue::default(),
            unfinished: AtomicUsize::new(0),
            owed: AtomicU64::new(0),
            turn: Mutex::default(),
            refused: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            sleep: Sleep::new(),
            idle: Event::new(),
        }
    }

    /// The same, but calls need one of these tokens; none of them where the list is empty.
    pub fn guarded(self, auth: Vec<Digest>) -> Self {
        Self { auth, ..self }
    }

    /// Whether who sent this token may call.
    pub(super) fn admits(&self, token: Option<&str>) -> bool {
        self.auth.is_empty() || token.is_some_and(|token| tokens::is_one_of(token, &self.auth))
    }

    /// The function's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Adds a healthy handler; calls that wait go to it.
    pub fn add(&self, handler: Arc<Handler>) {
        // Whoever woke it and did not wait has its time to come again.
        self.sleep.touch();
        self.handlers().push(handler);
        self.tell_of_places();
    }

    /// A handler of this function that was [doubted](Handler::doubted) said that it is well: it gets calls again.
    pub fn readmit(&self, handler: &Handler) {
        handler.held.store(false, Ordering::Release);
        self.tell_of_places();
    }

    /// Takes a handler out: it gets no new calls.
    pub fn drop_handler(&self, id: &str) {
        self.handlers().retain(|h| h.id != id);
    }

    /// The handlers there are now.
    pub fn snapshot(&self) -> Vec<Arc<Handler>> {
        self.handlers().clone()
    }

    /// Whether a call would find a handler that is well, or get one.
    pub fn is_serving(&self) -> bool {
        self.sleep.would_wake() || self.handlers().iter().any(|h| h.is_healthy())
    }

    /// Takes all handlers out, as long as nobody called for `idle` and no call waits; from now on calls wait.
    ///
    /// # Errors
    /// It is too early: how long it is worth waiting before the next try.
    pub fn fall_asleep(&self, idle: Duration) -> Result<(), Duration> {
        // Under the table's lock nobody gets a handler.
        let mut handlers = self.handlers();
        if self.waiting() > 0 || handlers.iter().any(|h| h.in_flight() > 0) {
            return Err(idle);
        }
        let left = idle.saturating_sub(self.sleep.quiet_for());
        if !left.is_zero() {
            return Err(left);
        }
        handlers.clear();
        self.sleep.set(true);
        Ok(())
    }

    /// It has no handlers, and the next call wakes it.
    pub fn sleep(&self) {
        self.sleep.set(true);
    }

    /// Its handlers are being started.
    pub fn wake(&self) {
        self.sleep.set(false);
    }

    /// Completes when a call waits, or was refused only because none may.
    pub async fn until_wanted(&self) {
        let refused = self.refused();
        // Those that are refused right now may still have their places.
        let wanted = || self.refusal().is_none() && (self.waiting() > 0 || self.refused() != refused);
        self.sleep.until_wanted(wanted).await;
    }

    /// Calls that wait, and those that come within `pause`, fail with `why`.
    pub fn refuse(&self, why: &str, pause: Duration) {
        self.sleep.refuse(why, pause);
        self.wake_waiting();
    }

    /// Why calls do not wait now.
    pub(super) fn refusal(&self) -> Option<String> {
        self.sleep.refusal()
    }

    /// Calls that were refused because too many waited.
    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Calls that handlers work on now.
    pub fn in_flight(&self) -> usize {
        self.handlers().iter().map(|h| h.in_flight()).sum()
    }

    /// Calls that wait for a handler now.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.coming.len()
    }

    /// Calls that were given to a handler so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Completes when no call is in flight; no new one comes once the function was replaced or removed.
    pub async fn drained(&self) {
        self.until(|| self.in_flight() == 0).await;
    }

    /// Completes when the handler, which was [taken out](Self::drop_handler), has no call.
    pub async fn handler_drained(&self, handler: &Handler) {
        self.until(|| handler.in_flight() == 0).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            let idle = self.idle.listen();
            if done() {
                return;
            }
            idle.await;
        }
    }

    pub(super) fn mark_changed(&self) {
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// No call gets a handler of this version any more; those that wait look for another version.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.wake_waiting();
    }

    pub(super) fn wake_waiting(&self) {
        self.queue.tell(usize::MAX);
        self.coming.tell(usize::MAX);
    }

    /// Takes the least busy handler with a place free, when there is one left over for each call that came before: all of
    /// those that wait, or those that stand before `place`.
    pub(super) fn try_lease(self: &Arc<Self>, line: Line, place: Option<&Place>) -> Option<Lease> {
        if self.retired.load(Ordering::Acquire) {
            return None;
        }
        let handlers = self.handlers();
        let number = place.map(|place| place.2);
        match line {
            Line::Whole => {
                let owed = usize::from(self.owed.load(Ordering::Acquire) != 0);
                let before = self.queue.before(number) + owed;
                if before > 0 && handlers.iter().map(|h| self.free_of(h)).sum::<usize>() <= before {
                    return None;
                }
            }
            Line::Coming => {
                if self.open_to_coming(&handlers, number) <= self.coming.before(number) {
                    return None;
                }
            }
        }
        let free = handlers.iter().filter(|h| self.free_of(h) > 0).min_by_key(|h| h.in_flight())?;
        // Under the table's lock, so two callers cannot both take the last place.
        free.in_flight.fetch_add(1, Ordering::AcqRel);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let coming = line == Line::Coming;
        if coming {
            self.unfinished.fetch_add(1, Ordering::AcqRel);
            if number.is_some_and(|number| self.is_owed(number)) {
                self.owed.store(0, Ordering::Release);
            }
        }
        Some(Lease { function: Arc::clone(self), handler: Arc::clone(free), coming: coming.into() })
    }

    /// How many calls whose bodies are still to come may have a place now: of all places three quarters, since others would
    /// have to wait for who may never go on. While whole calls wait, the first one, now and then.
    fn open_to_coming(&self, handlers: &[Arc<Handler>], number: Option<u64>) -> usize {
        let (mut all, mut free) = (0, 0);
        for handler in handlers.iter().filter(|h| h.takes_calls()) {
            all += self.limits.concurrency;
            free += self.free_of(handler);
        }
        let left = (all * 3 / 4).max(1).saturating_sub(self.unfinished.load(Ordering::Acquire));
        if self.queue.len() == 0 || left == 0 {
            return free.min(left);
        }
        let Some(number) = number.filter(|&number| self.coming.before(Some(number)) == 0) else { return 0 };
        if self.is_owed(number) {
            return free.min(1);
        }
        let (mut turn, now) = (self.turn.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if turn.is_some_and(|turn| now.saturating_duration_since(turn) < TURN) {
            return 0;
        }
        *turn = Some(now);
        self.owed.store(number + 1, Ordering::Release);
        free.min(1)
    }

    fn is_owed(&self, number: u64) -> bool {
        self.owed.load(Ordering::Acquire) == number + 1
    }

    /// Tells those who wait longest, as many as there are places, those included who were told and did not come yet.
    fn tell_of_places(&self) {
        let places = self.handlers().iter().map(|h| self.free_of(h)).sum::<usize>();
        self.queue.tell(places);
        if places > self.queue.len() || self.owed.load(Ordering::Acquire) != 0 {
            self.coming.tell(places);
        }
    }

    /// Places for calls that a handler has free.
    fn free_of(&self, handler: &Handler) -> usize {
        match handler.takes_calls() {
            true => self.limits.concurrency.saturating_sub(handler.in_flight()),
            false => 0,
        }
    }

    fn line(&self, line: Line) -> &Queue {
        match line {
            Line::Whole => &self.queue,
            Line::Coming => &self.coming,
        }
    }

    pub(super) fn queue(self: &Arc<Self>, line: Line, client: Option<Client>) -> Option<Place> {
        let number = self.line(line).join(self.limits.queue, client);
        if number.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.sleep.call_waits();
        number.map(|number| Place(Arc::clone(self), line, number))
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Arc<Handler>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The handler that was taken.
    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    pub(super) fn function(&self) -> &Function {
        &self.function
    }

    /// All of the call's body was sent.
    pub(super) fn body_came(&self) {
        if self.coming.swap(false, Ordering::AcqRel) {
            self.function.unfinished.fetch_sub(1, Ordering::AcqRel);
            self.function.tell_of_places();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.function.sleep.touch();
        if *self.coming.get_mut() {
            self.function.unfinished.fetch_sub(1, Ordering::AcqRel);
        }
        let before = self.handler.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.function.tell_of_places();
        if before == 1 {
            self.function.idle.notify(usize::MAX);
        }
    }
}

impl Place {
    /// Whether this is a place in that line of `function`, the very version.
    pub(super) fn is_in(&self, function: &Arc<Function>, line: Line) -> bool {
        Arc::ptr_eq(&self.0, function) && self.1 == line
    }

    /// Whether it was taken for a call of another client.
    pub(super) fn gave_way(&self) -> bool {
        self.0.line(self.1).gave_way(self.2)
    }

    /// Completes when its call has to look for a handler again.
    pub(super) async fn told(&self) {
        self.0.line(self.1).told(self.2).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.line(self.1).leave(self.2);
        if self.1 == Line::Coming && self.0.is_owed(self.2) {
            self.0.owed.store(0, Ordering::Release);
        }
        // Whoever gave up may have been told of a place that is another's now.
        self.0.tell_of_places();
    }
}
