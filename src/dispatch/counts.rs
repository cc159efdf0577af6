//! What is counted of a function's calls, by the protocol they came by: how many, how long, how many bytes.
//!
//! The counts belong to the name: they go on where a version takes another's place, and go when the function is deleted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use super::errors::Errors;
use crate::call::{Failure, FailureKind, Protocol};
use crate::call_id::CallId;
use crate::logging::about_call;

/// How long calls may have taken that one bucket counts, as Prometheus writes it and in microseconds. Few: each costs eight
/// bytes for each function and protocol, and a line in each answer to a scraper.
pub const BUCKETS: [(&str, u64); 7] = [
    ("0.001", 1_000),
    ("0.005", 5_000),
    ("0.025", 25_000),
    ("0.1", 100_000),
    ("0.5", 500_000),
    ("2.5", 2_500_000),
    ("10", 10_000_000),
];

/// The classes of statuses that are told apart, as of-watchdog's label `code` is matched (`5..`).
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// What is recorded where the caller went away before its answer was complete; no client is ever sent it.
const GONE: u16 = 499;

/// Lines of the log about calls of one function that failed, in one [`SPAN`]: callers can make calls fail, and logs are on flash.
const LINES: u32 = 10;
/// How long it takes until as many more are written.
const SPAN: Duration = Duration::from_secs(60);

/// How many lines were written about failed calls.
#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    lines: u32,
    left_out: u32,
}

impl Told {
    /// Whether one more may be written, and then how many were not since the last one.
    fn more(&mut self, now: Instant) -> Option<u32> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The counts of one function. What comes by a protocol takes room from its first call on.
#[derive(Debug, Default)]
pub struct Counts {
    function: Box<str>,
    /// Where calls that fail are noted.
    errors: Arc<Errors>,
    told: Mutex<Told>,
    by_protocol: [OnceLock<Box<Traffic>>; Protocol::ALL.len()],
}

/// What came by one protocol.
#[derive(Debug, Default)]
pub struct Traffic {
    in_flight: AtomicUsize,
    answered: [AtomicU64; CLASSES.len()],
    /// By duration; the last one counts those that took longer than every bound.
    took: [AtomicU64; BUCKETS.len() + 1],
    took_micros: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Counts {
    /// Counts of the function of that name, whose failures are noted in `errors`.
    pub(super) fn new(function: &str, errors: Arc<Errors>) -> Self {
        Self { function: function.into(), errors, told: Mutex::default(), by_protocol: Default::default() }
    }

    /// What came by `protocol`; `None` where nothing did.
    pub fn of(&self, protocol: Protocol) -> Option<&Traffic> {
        self.by_protocol.get(protocol as usize)?.get().map(|traffic| &**traffic)
    }

    /// Whether a line about a call that failed may be written now; then with how many were left out before it.
    fn tell(&self) -> Option<u32> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).more(Instant::now())
    }

    /// A call begins.
    pub(super) fn begin(self: &Arc<Self>, protocol: Protocol) -> Metered {
        let metered = Metered { counts: Arc::clone(self), protocol, begun: Instant::now(), status: GONE, noted: false };
        metered.count(|traffic| _ = traffic.in_flight.fetch_add(1, Ordering::Relaxed));
        metered
    }
}

impl Traffic {
    /// Calls under way, those that wait included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Calls that ended, by [`CLASSES`].
    pub fn answered(&self) -> [u64; CLASSES.len()] {
        self.answered.each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    /// Calls that ended, by [`BUCKETS`], and at the end those that took longer.
    pub fn took(&self) -> [u64; BUCKETS.len() + 1] {
        self.took.each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    /// How long all of them took together.
    pub fn took_together(&self) -> Duration {
        Duration::from_micros(self.took_micros.load(Ordering::Relaxed))
    }

    /// Bytes of bodies that were sent to handlers.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that handlers answered.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    fn ended(&self, status: u16, took: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let class = usize::from(status / 100).saturating_sub(2).min(CLASSES.len() - 1);
        if let Some(n) = self.answered.get(class) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(_, bound)| micros <= *bound).unwrap_or(BUCKETS.len());
        if let Some(n) = self.took.get(bucket) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        self.took_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A call that is counted when this is dropped.
#[derive(Debug)]
pub(super) struct Metered {
    counts: Arc<Counts>,
    protocol: Protocol,
    begun: Instant,
    /// The status that is counted.
    status: u16,
    /// Whether its failure was noted.
    noted: bool,
}

impl Metered {
    /// The call has no answer.
    pub(super) fn failed(&mut self, id: &CallId, failure: &Failure) {
        let status = failure.kind.http_status();
        self.ends_with(status);
        self.answered(id, status, failure.text.as_bytes());
    }

    /// The caller is told so, or this is the first piece of what it is told: noted once, where the status is one of a failure.
    pub(super) fn answered(&mut self, id: &CallId, status: u16, text: &[u8]) {
        if status >= 500 && !std::mem::replace(&mut self.noted, true) {
            self.counts.errors.note(&self.counts.function, self.protocol, id, status, text);
        }
    }

    /// Writes a line of the log about why the call failed. What is no fault of its caller is a warning, a bounded
    /// number of them.
    pub(super) fn log(&self, id: &CallId, failure: &Failure) {
        let function: &str = &self.counts.function;
        if !matches!(failure.kind, FailureKind::HandlerBroke | FailureKind::TooLate) {
            return about_call(Level::Debug, Some(function), id, format_args!("{failure}"));
        }
        let Some(left_out) = self.counts.tell() else { return };
        let more =
            if left_out > 0 { format!(" (calls that failed and are not told of: {left_out})") } else { String::new() };
        about_call(Level::Warn, Some(function), id, format_args!("{failure}{more}"));
    }

    /// It is counted with this status, unless another one is said.
    pub(super) fn ends_with(&mut self, status: u16) {
        self.status = status;
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.count(|traffic| _ = traffic.bytes_in.fetch_add(bytes, Ordering::Relaxed));
    }

    pub(super) fn received(&self, bytes: usize) {
        self.count(|traffic| _ = traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed));
    }

    fn count(&self, count: impl FnOnce(&Traffic)) {
        if let Some(place) = self.counts.by_protocol.get(self.protocol as usize) {
            count(place.get_or_init(Box::default));
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.count(|traffic| traffic.ended(self.status, self.begun.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::FailureKind;

    #[test]
    fn a_call_is_in_flight_until_it_ends_and_then_counted_once() {
        let counts = Arc::new(Counts::default());
        assert!(counts.of(Protocol::Coap).is_none(), "what nobody uses takes no room");
        let mut metered = counts.begin(Protocol::Coap);
        metered.sent(3);
        metered.received(5);
        metered.ends_with(204);
        let traffic = counts.of(Protocol::Coap).unwrap();
        assert_eq!((traffic.in_flight(), traffic.answered()), (1, [0; 4]));
        drop(metered);
        assert_eq!((traffic.in_flight(), traffic.answered()), (0, [1, 0, 0, 0]));
        assert_eq!((traffic.bytes_in(), traffic.bytes_out()), (3, 5));
        assert_eq!(traffic.took().iter().sum::<u64>(), 1);
        assert!(counts.of(Protocol::Http).is_none());
    }

    #[test]
    fn lines_about_failed_calls_are_bounded_and_say_what_they_leave_out() {
        let (mut told, now) = (Told::default(), Instant::now());
        let written = (0..1000).filter(|_| told.more(now).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(told.more(now + SPAN), Some(1000 - LINES));
        assert_eq!(told.more(now + SPAN), Some(0));
    }

    #[test]
    fn failures_and_callers_that_went_away_have_their_class() {
        let counts = Arc::new(Counts::default());
        counts.begin(Protocol::Http).failed(&CallId::make(), &Failure::new(FailureKind::QueueFull, ""));
        drop(counts.begin(Protocol::Http));
        assert_eq!(counts.of(Protocol::Http).unwrap().answered(), [0, 0, 1, 1]);
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let traffic = Traffic::default();
        for micros in [0, 1_000, 1_001, 10_000_000, 10_000_001] {
            traffic.in_flight.fetch_add(1, Ordering::Relaxed);
            traffic.ended(200, Duration::from_micros(micros));
        }
        assert_eq!(traffic.took(), [2, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(traffic.took_together(), Duration::from_micros(20_002_002));
    }
}
