//! Drives one HTTP/2 connection: accepts its streams, and ends it when it floods, is idle, is silent or has to stop.

use std::future::poll_fn;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use event_listener::EventListener;
use futures_lite::FutureExt;
use h2::server::Connection;
use h2::{Ping, PingPong, Reason};

use super::peer::Peer;
use super::stream::{self, Piece};
use super::{Config, Door};
use crate::h2_socket::Socket;
use crate::net::Stream;
use crate::reactor::{Async, Timer};
use crate::seats::Seat;

/// Streams reset by the peer before we looked at them; `h2` closes the connection at more (CVE-2023-44487). A connection
/// looks at its streams each time it reads, so a client that is well has none.
const UNSEEN_RESETS: usize = 20;
/// Streams that we had to reset for the peer's errors; `h2` closes the connection at more (CVE-2025-8671).
const ERROR_RESETS: usize = 100;
/// Streams that we reset and whose late frames are still passed over.
const REMEMBERED_RESETS: usize = 10;
/// How long those are remembered.
const RESET_MEMORY: Duration = Duration::from_secs(5);
/// How long the last frames may take to leave when a connection is closed at once.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a client says first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub(super) async fn run(socket: Async<TcpStream>, door: &Arc<Door>, peer: &Arc<Peer>) {
    let config = &door.config;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(config.streams)
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_header_list_size(config.header_list)
        .max_send_buffer_size(config.send_buffer)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY);
    let handshake = async {
        let stream = match &door.tls {
            // In a box, as it is needed for a moment only.
            Some(tls) => Box::pin(tls.accept(socket, config.handshake_timeout)).await.map(Stream::from),
            None => Ok(Stream::from(socket)),
        };
        let stream = stream.inspect_err(|e| log::debug!("gRPC: a handshake failed: {e}")).ok()?;
        // Before that nothing is held for it but the socket.
        stream.begins_with(PREFACE).await.ok()?;
        let fresh = door.fresh.take(peer.client).await?;
        let h2 = builder.handshake::<_, Piece>(Socket::new(stream, Arc::clone(peer)));
        let evicted = async {
            fresh.evicted().await;
            None
        };
        let h2 = async { h2.await.ok() }.or(evicted).await?;
        Some((h2, fresh))
    };
    let late = async {
        Timer::after(config.handshake_timeout).await;
        None
    };
    let unwanted = async {
        let wake = peer.wake.listen();
        if !door.shutdown.has_begun() {
            wake.or(peer.seat.evicted()).await;
        }
        None
    };
    let Some((mut h2, fresh)) = handshake.or(unwanted).or(late).await else { return };
    let mut driver = Driver::new(&mut h2, door, peer, fresh);
    let end = poll_fn(|cx| driver.poll(cx)).await;
    if let End::Abrupt(reason) = end {
        h2.abrupt_shutdown(reason);
        let closed = async {
            let _ = poll_fn(|cx| h2.poll_closed(cx)).await;
        };
        let late = async {
            Timer::after(CLOSE_TIMEOUT).await;
        };
        closed.or(late).await;
    }
}

/// How a connection ended.
enum End {
    /// Nothing is left to say.
    Over,
    /// It has to be told why, and closed whatever is in flight.
    Abrupt(Reason),
}

struct Driver<'a> {
    h2: &'a mut Connection<Socket<Arc<Peer>>, Piece>,
    door: &'a Arc<Door>,
    peer: &'a Arc<Peer>,
    wake: EventListener,
    /// Its seat among those that did not call yet.
    fresh: Option<Seat>,
    pings: Option<PingPong>,
    /// When the peer was asked whether it is still there, and when it was heard before that.
    pinged: Option<(Instant, Instant)>,
    /// When the connection was asked to end.
    draining: Option<Instant>,
    /// When to look at the clock.
    due: Instant,
    tick: Timer,
}

impl<'a> Driver<'a> {
    fn new(
        h2: &'a mut Connection<Socket<Arc<Peer>>, Piece>,
        door: &'a Arc<Door>,
        peer: &'a Arc<Peer>,
        fresh: Seat,
    ) -> Self {
        let pings = h2.ping_pong();
        let due = Instant::now() + door.config.keepalive.min(door.config.idle_timeout);
        let tick = Timer::at(due);
        Self {
            h2,
            door,
            peer,
            wake: peer.wake.listen(),
            fresh: Some(fresh),
            pings,
            pinged: None,
            draining: None,
            due,
            tick,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.fresh = None;
                    // Its answer may have to wait for the peer to read on.
                    self.look_by(Instant::now() + self.door.config.body_timeout);
                    let busy = self.peer.busy();
                    let door = Arc::clone(self.door);
                    let task = async move {
                        stream::answer(&door, &busy, request, respond).await;
                        drop(busy);
                    };
                    self.door.executor.spawn(task).detach();
                    continue;
                }
                Poll::Ready(Some(Err(e))) => {
                    log::debug!("gRPC: a connection broke: {e}");
                    return Poll::Ready(End::Over);
                }
                Poll::Ready(None) => return Poll::Ready(End::Over),
                Poll::Pending => {}
            }
            if self.peer.is_flooding() {
                log::warn!("gRPC: closed a connection that sent too many frames that are no calls");
                return Poll::Ready(End::Abrupt(Reason::ENHANCE_YOUR_CALM));
            }
            let fresh = self.fresh.as_ref().is_some_and(|fresh| fresh.poll_evicted(cx).is_ready());
            if fresh || self.peer.seat.poll_evicted(cx).is_ready() {
                return Poll::Ready(End::Abrupt(Reason::NO_ERROR));
            }
            if self.door.shutdown.has_begun() && self.draining.is_none() {
                self.drain();
                // GOAWAY waits in h2 until it is polled again.
                continue;
            }
            if self.wake.poll(cx).is_ready() {
                // Listen before looking again, so that nothing is missed.
                self.wake = self.peer.wake.listen();
                continue;
            }
            if Pin::new(&mut self.tick).poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.look_at_the_clock(cx, Instant::now()) {
                Ok(next) => self.look_at(next),
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// GOAWAY, no new streams, and an end when those in flight are answered (RFC 9113 §6.8).
    fn drain(&mut self) {
        self.draining = Some(Instant::now());
        self.h2.graceful_shutdown();
        self.look_by(Instant::now() + self.door.config.grace);
    }

    fn look_at(&mut self, due: Instant) {
        self.due = due;
        self.tick.set_at(due);
    }

    fn look_by(&mut self, latest: Instant) {
        if latest < self.due {
            self.look_at(latest);
        }
    }

    /// Does what is due and says when to look again.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Instant, End> {
        let Config { idle_timeout, keepalive, body_timeout, grace, .. } = self.door.config;
        // Frames that wait to be sent hold memory, whether or not their streams are still there.
        let unread = self.peer.stalled_since().map(|since| since + body_timeout);
        if unread.is_some_and(|end| now >= end) {
            log::debug!("gRPC: closed a connection whose peer does not read");
            return Err(End::Abrupt(Reason::NO_ERROR));
        }
        let next = match (self.draining, self.peer.idle_since()) {
            (Some(begun), _) if now >= begun + grace => return Err(End::Abrupt(Reason::NO_ERROR)),
            (Some(begun), _) => begun + grace,
            (None, Some(since)) if now >= since + idle_timeout => {
                self.drain();
                now + grace
            }
            (None, Some(since)) => {
                self.pinged = None;
                (since + idle_timeout).min(now + keepalive)
            }
            // An answer may begin to wait at any time.
            (None, None) => self.keep_alive(cx, now)?.min(now + body_timeout),
        };
        Ok(unread.map_or(next, |end| next.min(end)))
    }

    /// Asks a peer that is silent while calls are in flight whether it is still there; says when to look again.
    fn keep_alive(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Instant, End> {
        let Config { idle_timeout, keepalive, keepalive_timeout, .. } = self.door.config;
        if let Some(pings) = &mut self.pings {
            // Makes room for the next one.
            let _ = pings.poll_pong(cx);
        }
        let heard = self.peer.heard();
        match self.pinged {
            Some((asked, before)) if heard == before => {
                if now < asked + keepalive_timeout {
                    return Ok(asked + keepalive_timeout);
                }
                log::debug!("gRPC: closed a connection whose peer is gone");
                Err(End::Abrupt(Reason::NO_ERROR))
            }
            _ if now >= heard + keepalive => {
                self.pinged = Some((now, heard));
                if let Some(pings) = &mut self.pings {
                    let _ = pings.send_ping(Ping::opaque());
                }
                Ok(now + keepalive_timeout)
            }
            _ => {
                self.pinged = None;
                Ok((heard + keepalive).min(now + idle_timeout))
            }
        }
    }
}
