//! Functions without handlers: how long nobody called, that somebody calls again, and why there is no answer then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::reactor::recently;

/// What a function knows of its sleep.
#[derive(Debug)]
pub(super) struct Sleep {
    born: Instant,
    /// When it was last of use, in milliseconds since `born`.
    used: AtomicU64,
    asleep: AtomicBool,
    /// Notified when a call has to wait.
    wanted: Event,
    /// Until when calls are refused since the function could not be woken, and why.
    refusal: Mutex<Option<(Instant, Box<str>)>>,
}

impl Sleep {
    /// A function that is awake.
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            used: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            wanted: Event::new(),
            refusal: Mutex::default(),
        }
    }

    /// A call ended, or a handler came.
    pub(super) fn touch(&self) {
        self.used.store(self.now(), Ordering::Relaxed);
    }

    /// How long ago that was.
    pub(super) fn quiet_for(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    /// A call has to wait: [`Self::until_wanted`] looks again.
    pub(super) fn call_waits(&self) {
        self.wanted.notify(usize::MAX);
    }

    /// Completes when `wanted` holds, which is looked at whenever a call has to wait.
    pub(super) async fn until_wanted(&self, wanted: impl Fn() -> bool) {
        loop {
            let call = self.wanted.listen();
            if wanted() {
                return;
            }
            call.await;
        }
    }

    pub(super) fn set(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Release);
    }

    /// Whether the next call wakes it.
    pub(super) fn would_wake(&self) -> bool {
        self.asleep.load(Ordering::Acquire) && self.refusal().is_none()
    }

    /// From now on and for so long calls that would wait fail with `why`.
    pub(super) fn refuse(&self, why: &str, pause: Duration) {
        *self.lock() = Some((Instant::now() + pause, why.into()));
    }

    /// Why a call does not wait now.
    pub(super) fn refusal(&self) -> Option<String> {
        let mut refusal = self.lock();
        if refusal.as_ref().is_some_and(|(until, _)| *until <= Instant::now()) {
            *refusal = None;
        }
        refusal.as_ref().map(|(_, why)| why.to_string())
    }

    fn now(&self) -> u64 {
        u64::try_from(recently().saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Box<str>)>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
