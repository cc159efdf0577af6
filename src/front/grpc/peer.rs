//! What is known of one connection outside the task that drives it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::client::Client;
use crate::h2_socket::Meter;
use crate::seats::Seat;
use crate::wire::grpc::flood::FloodMeter;

/// One connection as its socket, its streams and the door see it.
#[derive(Debug)]
pub(super) struct Peer {
    accepted: Instant,
    meter: Mutex<FloodMeter>,
    /// The meter's credit is used up: nothing more is read.
    flooded: AtomicBool,
    /// Microseconds after `accepted` at which bytes came last.
    heard: AtomicU64,
    /// Microseconds after `accepted` since when nothing can be sent; [`FLOWING`] while bytes leave.
    stalled: AtomicU64,
    /// Microseconds after `accepted` at which the last stream ended.
    idle_since: AtomicU64,
    /// Streams that are being answered.
    streams: AtomicUsize,
    /// Those of them whose question did not come whole yet.
    asking: AtomicUsize,
    pub(super) client: Client,
    /// Its place among the connections.
    pub(super) seat: Seat,
    /// Notified when the connection has to look at the wish to stop.
    pub(super) wake: Event,
}

/// Bytes can be sent.
const FLOWING: u64 = u64::MAX;

/// A stream that is being answered; ends when dropped.
#[derive(Debug)]
pub(super) struct Busy {
    peer: Arc<Peer>,
    asking: AtomicBool,
}

impl Peer {
    pub(super) fn new(client: Client, seat: Seat) -> Self {
        let accepted = Instant::now();
        Self {
            accepted,
            meter: Mutex::new(FloodMeter::new(accepted)),
            flooded: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            stalled: AtomicU64::new(FLOWING),
            idle_since: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            client,
            seat,
            wake: Event::new(),
        }
    }

    /// Whether the peer sent too much that is no call.
    pub(super) fn is_flooding(&self) -> bool {
        self.flooded.load(Ordering::Acquire)
    }

    /// When bytes came last.
    pub(super) fn heard(&self) -> Instant {
        self.accepted + Duration::from_micros(self.heard.load(Ordering::Relaxed))
    }

    /// Since when bytes wait for the peer to read on; `None` while they leave.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let stalled = self.stalled.load(Ordering::Relaxed);
        (stalled != FLOWING).then(|| self.accepted + Duration::from_micros(stalled))
    }

    /// Since when there is no stream; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.streams.load(Ordering::Acquire) == 0;
        idle.then(|| self.accepted + Duration::from_micros(self.idle_since.load(Ordering::Acquire)))
    }

    /// Counts one more stream, whose question begins.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.streams.fetch_add(1, Ordering::AcqRel);
        self.asking.fetch_add(1, Ordering::AcqRel);
        self.tell_seat();
        Busy { peer: Arc::clone(self), asking: AtomicBool::new(true) }
    }

    /// Whether the connection may make room for another one, and how easily.
    fn tell_seat(&self) {
        let streams = self.streams.load(Ordering::Acquire);
        if streams == 0 {
            self.seat.rest();
        } else if streams == self.asking.load(Ordering::Acquire) || self.stalled_since().is_some() {
            self.seat.stall();
        } else {
            // Whether it has to go, its task sees.
            let _ = self.seat.busy();
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.accepted).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Meter for Arc<Peer> {
    /// The connection's task sees a flood too, and closes.
    fn may_read(&self) -> bool {
        !self.is_flooding()
    }

    fn received(&self, bytes: &[u8]) {
        let now = Instant::now();
        self.heard.store(self.micros(now), Ordering::Relaxed);
        if !self.meter.lock().unwrap_or_else(PoisonError::into_inner).received(bytes, now) {
            self.flooded.store(true, Ordering::Release);
        }
    }

    fn sent(&self, n: usize) {
        if self.stalled.swap(FLOWING, Ordering::Relaxed) != FLOWING {
            self.tell_seat();
        }
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).sent(n);
    }

    fn stalled(&self) {
        let now = self.micros(Instant::now());
        // Where it was stalled already, the first time counts.
        if self.stalled.compare_exchange(FLOWING, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.tell_seat();
        }
    }
}

impl Busy {
    /// Whose stream it is.
    pub(super) fn client(&self) -> Client {
        self.peer.client
    }

    /// Its question came whole: from here on it is for us to go on.
    pub(super) fn asked(&self) {
        if self.asking.swap(false, Ordering::AcqRel) {
            self.peer.asking.fetch_sub(1, Ordering::AcqRel);
            self.peer.tell_seat();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let peer = &self.peer;
        peer.idle_since.store(peer.micros(Instant::now()), Ordering::Release);
        if self.asking.swap(false, Ordering::AcqRel) {
            peer.asking.fetch_sub(1, Ordering::AcqRel);
        }
        peer.streams.fetch_sub(1, Ordering::AcqRel);
        peer.tell_seat();
    }
}
