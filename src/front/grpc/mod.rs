//! The gRPC front door: HTTP/2 with prior knowledge, or over TLS, the TinyFaaS service, health and reflection.
//!
//! HTTP/2 is the `h2` crate's, gRPC on top of it is in [`crate::wire::grpc`]. Here connections are accepted and bounded;
//! [`connection`] drives one of them, [`stream`] answers one call. `docs/grpc.md` tells what callers see.

mod calls;
mod connection;
mod health;
mod peer;
mod question;
mod reflection;
mod stream;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_executor::StaticExecutor;
use event_listener::Event;
use futures_lite::FutureExt;

use crate::budget::Budget;
use crate::client::Client;
use crate::dispatch::Dispatch;
use crate::reactor::{Async, Timer};
use crate::seats::Seats;
use crate::shutdown::Shutdown;
use crate::tls::Acceptor;
use peer::Peer;

/// Bounds of the front door. A connection holds at most `connection_window` bytes of questions that nobody looked at
/// yet, the header lists of `streams` streams, and about 25 KiB of its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connections at once. At the bound one is closed for a new one: of the client that has most of them the one that is
    /// idle for longest, or else whose questions do not come or whose answers are not read. While all are busy, new ones wait.
    pub connections: usize,
    /// Connections of one client that is not on this machine; 0 for no such bound.
    pub connections_each: usize,
    /// Calls at once on one connection (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    pub streams: u32,
    /// Bytes that a peer may send ahead on one stream.
    pub stream_window: u32,
    /// Bytes that a peer may send ahead on all streams of a connection.
    pub connection_window: u32,
    /// Bytes of a question's header list (`SETTINGS_MAX_HEADER_LIST_SIZE`, RFC 9113 §6.5.2).
    pub header_list: u32,
    /// Bytes of one message, in either direction, after it was unpacked. All messages together are bounded by the budget.
    pub message: usize,
    /// Bytes of one answer that wait in a connection until the peer reads on.
    pub send_buffer: usize,
    /// How long a peer may take to say that it speaks HTTP/2.
    pub handshake_timeout: Duration,
    /// How long a connection may be without a call.
    pub idle_timeout: Duration,
    /// How long a peer with calls in flight may be silent until it is asked whether it is still there (PING).
    pub keepalive: Duration,
    /// How long it may take to answer that.
    pub keepalive_timeout: Duration,
    /// How long a peer may pause within a question or in reading an answer.
    pub body_timeout: Duration,
    /// How long a question may take in all.
    pub question_timeout: Duration,
    /// How long calls in flight may still take after the wish to stop.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_each: 0,
            streams: 32,
            stream_window: 32 * 1024,
            connection_window: 64 * 1024,
            header_list: 8 * 1024,
            message: 1024 * 1024,
            send_buffer: 32 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            keepalive: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(30),
            question_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// Connections that began HTTP/2 and did not call yet, each of which takes some 20 KiB. At the bound one is closed for a new
/// one: of the client that has most of them the one that waits for longest.
const FRESH: usize = 128;

/// What all connections share.
#[derive(Debug)]
struct Door {
    config: Config,
    tls: Option<Arc<Acceptor>>,
    executor: &'static StaticExecutor,
    dispatch: Arc<Dispatch>,
    /// Pays for every message that is held.
    budget: Budget,
    shutdown: Shutdown,
    peers: Mutex<Vec<Arc<Peer>>>,
    /// Connections that began HTTP/2 and did not call yet.
    fresh: Arc<Seats>,
    /// Notified when a connection ended.
    ended: Event,
}

/// Accepts connections until `shutdown`, over TLS where that is given; then lets calls in flight finish, within
/// `config.grace`, and returns.
pub async fn serve(
    listener: Async<TcpListener>,
    tls: Option<Arc<Acceptor>>,
    config: Config,
    executor: &'static StaticExecutor,
    dispatch: Arc<Dispatch>,
    budget: Budget,
    shutdown: Shutdown,
) {
    let peers = Mutex::default();
    let fresh = Seats::new(FRESH, 0);
    let seats = Seats::new(config.connections, config.connections_each);
    let door = Arc::new(Door { config, tls, executor, dispatch, budget, shutdown, peers, fresh, ended: Event::new() });
    loop {
        let accepted = async { Some(listener.accept().await) };
        let stop = async {
            door.shutdown.begun().await;
            None
        };
        match accepted.or(stop).await {
            Some(Ok((stream, address))) => {
                // Answers are written whole: waiting for more would only delay them.
                let _ = stream.get_ref().set_nodelay(true);
                let client = Client::of(address.ip());
                let Some(seat) = seats.take(client).await else {
                    let level = if seats.refusal_is_news() { log::Level::Warn } else { log::Level::Debug };
                    let each = door.config.connections_each;
                    log::log!(level, "gRPC: no connection for {}: it has {each}, and all are busy", address.ip());
                    continue;
                };
                let peer = Arc::new(Peer::new(client, seat));
                door.peers().push(Arc::clone(&peer));
                let admitted = Admitted { door: Arc::clone(&door), peer };
                executor
                    .spawn(async move {
                        connection::run(stream, &admitted.door, &admitted.peer).await;
                        drop(admitted);
                    })
                    .detach();
            }
            Some(Err(e)) => {
                // No file descriptor or no memory left: accepting again at once would only spin.
                log::warn!("gRPC: cannot accept a connection: {e}");
                Timer::after(Duration::from_millis(100)).await;
            }
            None => break,
        }
    }
    drop(listener);
    for peer in door.peers().iter() {
        peer.wake.notify(usize::MAX);
    }
    loop {
        let ended = door.ended.listen();
        if door.peers().is_empty() {
            return;
        }
        ended.await;
    }
}

impl Door {
    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        // The list is whole even if a thread died while it held the lock.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among [`Config::connections`]; given back when dropped.
struct Admitted {
    door: Arc<Door>,
    peer: Arc<Peer>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.door.peers().retain(|peer| !Arc::ptr_eq(peer, &self.peer));
        self.door.ended.notify(usize::MAX);
    }
}
