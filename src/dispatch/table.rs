//! A function's handlers and the bookkeeping of who uses them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use super::queue::Queue;
use super::sleep::Sleep;
use crate::client::Client;
use crate::function::{Limits, Name};
use crate::net::{Address, Stream};
use crate::reactor::Timer;
use crate::tokens::{self, Digest};

/// Idle connections kept to one handler, and no more than it takes calls at once. A new connection costs more than a call.
const IDLE_CONNECTIONS: usize = 64;
/// How long a connection is kept that no call needs. One stays: the next call seldom needs more.
const KEPT_FOR: Duration = Duration::from_secs(10);

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
    refused: AtomicU64,
    calls: AtomicU64,
    retired: AtomicBool,
    /// Whether a call may have changed something since somebody asked.
    changed: AtomicBool,
    sleep: Sleep,
    /// Notified when the last call in flight ends.
    idle: Event,
}

/// A handler that calls can be sent to.
#[derive(Debug)]
pub struct Handler {
    id: String,
    address: Address,
    healthy: AtomicBool,
    in_flight: AtomicUsize,
    /// Connections that no call uses, and since when, the longest unused first.
    idle: Mutex<Vec<(Stream, Instant)>>,
    /// Notified when one is kept.
    kept: Event,
    /// Notified when a call found nobody listening.
    broken: Event,
    /// Whether a call made it doubtful that the handler is well; whether it gets no calls until that is known.
    doubtful: AtomicBool,
    held: AtomicBool,
    /// Notified when it becomes doubtful.
    doubt: Event,
}

/// A handler taken for one call; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    function: Arc<Function>,
    handler: Arc<Handler>,
}

/// A place in a function's queue: its number. Given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Function>, u64);

impl Function {
    /// A function without handlers: calls wait until [one comes](Self::add).
    pub fn new(name: Name, limits: Limits) -> Self {
        Self {
            name,
            limits,
            auth: Vec::new(),
            handlers: Mutex::default(),
            queue: Queue::default(),
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
        self.queue.len()
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
    }

    /// Takes the least busy handler with a place free, when there is one left over for each call that came before: all of
    /// those that wait, or those that stand before `place`.
    pub(super) fn try_lease(self: &Arc<Self>, place: Option<&Place>) -> Option<Lease> {
        if self.retired.load(Ordering::Acquire) {
            return None;
        }
        let handlers = self.handlers();
        let before = self.queue.before(place.map(|place| place.1));
        if before > 0 && handlers.iter().map(|h| self.free_of(h)).sum::<usize>() <= before {
            return None;
        }
        let free = handlers.iter().filter(|h| self.free_of(h) > 0).min_by_key(|h| h.in_flight())?;
        // Under the table's lock, so two callers cannot both take the last place.
        free.in_flight.fetch_add(1, Ordering::AcqRel);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Some(Lease { function: Arc::clone(self), handler: Arc::clone(free) })
    }

    /// Tells those who wait longest, as many as there are places, those included who were told and did not come yet.
    fn tell_of_places(&self) {
        let places = self.handlers().iter().map(|h| self.free_of(h)).sum::<usize>();
        self.queue.tell(places);
    }

    /// Places for calls that a handler has free.
    fn free_of(&self, handler: &Handler) -> usize {
        match handler.takes_calls() {
            true => self.limits.concurrency.saturating_sub(handler.in_flight()),
            false => 0,
        }
    }

    pub(super) fn queue(self: &Arc<Self>, client: Option<Client>) -> Option<Place> {
        let number = self.queue.join(self.limits.queue, client);
        if number.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.sleep.call_waits();
        number.map(|number| Place(Arc::clone(self), number))
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Arc<Handler>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler {
    /// A handler whose `/health` answered at `address`.
    pub fn new(id: String, address: Address) -> Self {
        Self {
            id,
            address,
            healthy: AtomicBool::new(true),
            in_flight: AtomicUsize::new(0),
            idle: Mutex::default(),
            kept: Event::new(),
            broken: Event::new(),
            doubtful: AtomicBool::new(false),
            held: AtomicBool::new(false),
            doubt: Event::new(),
        }
    }

    /// The backend's id for it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether calls may be sent to it.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    fn takes_calls(&self) -> bool {
        self.is_healthy() && !self.held.load(Ordering::Acquire)
    }

    /// Calls it works on now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// From now on it gets no calls; whoever waits on [`Handler::broken`] learns of it.
    pub fn mark_unhealthy(&self) {
        self.healthy.store(false, Ordering::Release);
        self.idle_connections().clear();
        self.broken.notify(usize::MAX);
    }

    /// Completes when the handler was marked unhealthy.
    pub async fn broken(&self) {
        loop {
            let broken = self.broken.listen();
            if !self.is_healthy() {
                return;
            }
            broken.await;
        }
    }

    /// A call made it doubtful that the handler is well; `broke` when it closed the connection without an answer. It may
    /// be ending then, so it gets no calls until it was [asked](Self::doubted) and [readmitted](Function::readmit). A
    /// function that did not answer in time may only be slow: its handler still gets calls meanwhile.
    pub fn doubt(&self, broke: bool) {
        if broke {
            self.held.store(true, Ordering::Release);
        }
        self.doubtful.store(true, Ordering::Release);
        self.doubt.notify(usize::MAX);
    }

    /// Completes when a call made it doubtful that the handler is well since this last completed.
    pub async fn doubted(&self) {
        loop {
            let doubt = self.doubt.listen();
            if self.doubtful.swap(false, Ordering::AcqRel) {
                return;
            }
            doubt.await;
        }
    }

    /// An open connection that no call uses and the handler did not close.
    pub(super) fn idle_connection(&self) -> Option<Stream> {
        loop {
            let (stream, _) = self.idle_connections().pop()?;
            // Nothing may come on an idle connection: bytes or an end mean that it cannot be used.
            if matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection for the next call; `most` calls it takes at once.
    pub(super) fn keep(&self, stream: Stream, most: usize) {
        let mut idle = self.idle_connections();
        if idle.len() < IDLE_CONNECTIONS.min(most) && self.is_healthy() {
            idle.push((stream, Instant::now()));
            drop(idle);
            self.kept.notify(1);
        }
    }

    /// Closes connections that no call needed for a while, for ever.
    pub async fn close_unused(&self) {
        loop {
            let kept = self.kept.listen();
            if self.idle_connections().len() <= 1 {
                kept.await;
            } else {
                Timer::after(KEPT_FOR).await;
                self.close_unused_since(Instant::now().checked_sub(KEPT_FOR));
            }
        }
    }

    pub(super) fn close_unused_since(&self, then: Option<Instant>) {
        let mut idle = self.idle_connections();
        let unused = idle.iter().take_while(|(_, since)| then.is_some_and(|then| *since <= then)).count();
        let most = idle.len().saturating_sub(1);
        idle.drain(..unused.min(most));
        idle.shrink_to_fit();
    }

    pub(super) fn idle_connections(&self) -> MutexGuard<'_, Vec<(Stream, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.function.sleep.touch();
        let before = self.handler.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.function.tell_of_places();
        if before == 1 {
            self.function.idle.notify(usize::MAX);
        }
    }
}

impl Place {
    /// Whether this is a place in the queue of `function`, the very version.
    pub(super) fn is_in(&self, function: &Arc<Function>) -> bool {
        Arc::ptr_eq(&self.0, function)
    }

    /// Whether it was taken for a call of another client.
    pub(super) fn gave_way(&self) -> bool {
        self.0.queue.gave_way(self.1)
    }

    /// Completes when its call has to look for a handler again.
    pub(super) async fn told(&self) {
        self.0.queue.told(self.1).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queue.leave(self.1);
        // Whoever gave up may have been told of a place that is another's now.
        self.0.tell_of_places();
    }
}
