//! A handler as calls see it: whether it takes them, and the connections to it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::net::{Address, Stream};
use crate::reactor::{Timer, recently};

/// Idle connections kept to one handler, and no more than it takes calls at once. A new connection costs more than a call.
const IDLE_CONNECTIONS: usize = 64;
/// An idle connection that was used in this time is not asked whether it still stands: the reactor would know.
const JUST_NOW: Duration = Duration::from_secs(1);
/// How long a connection is kept that no call needs. One stays: the next call seldom needs more.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// A handler that calls can be sent to.
#[derive(Debug)]
pub struct Handler {
    pub(super) id: String,
    address: Address,
    healthy: AtomicBool,
    pub(super) in_flight: AtomicUsize,
    /// Connections that no call uses, and since when, the longest unused first.
    idle: Mutex<Vec<(Stream, Instant)>>,
    /// Notified when there is more than one.
    kept: Event,
    /// Notified when a call found nobody listening.
    broken: Event,
    /// Whether a call made it doubtful that the handler is well; whether it gets no calls until that is known.
    doubtful: AtomicBool,
    pub(super) held: AtomicBool,
    /// Notified when it becomes doubtful.
    doubt: Event,
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

    pub(super) fn takes_calls(&self) -> bool {
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
            let (stream, since) = self.idle_connections().pop()?;
            // Nothing may come on an idle connection: bytes or an end mean that it cannot be used. Of one that was used
            // just now it is enough that the reactor knows of none; who is reached by TCP is of another make, and may
            // close after each answer without a word.
            if stream.is_silent() && recently().saturating_duration_since(since) < JUST_NOW {
                return Some(stream);
            }
            if matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection for the next call; `most` calls it takes at once.
    pub(super) fn keep(&self, stream: Stream, most: usize) {
        let mut idle = self.idle_connections();
        if idle.len() < IDLE_CONNECTIONS.min(most) && self.is_healthy() {
            idle.push((stream, recently()));
            // Only then there is something to do for who waits for this, who would be woken by each call.
            let more = idle.len() == 2;
            drop(idle);
            if more {
                self.kept.notify(1);
            }
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
