//! What gRPC calls leave behind in memory: nothing. An allocator may keep pages that nobody uses, so the resident set
//! cannot tell a leak from that.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future;
use tinyfaas::cli::grpc_client::Client;
use tinyfaas::front::grpc::Config;
use tinyfaas::reactor::block_on;
use tinyfaas::wire::grpc::status::Code;

use crate::ALLOCATOR;
use crate::grpc_door::{Door, NO_METADATA, call, echo, limits};

/// Bytes that may stay: tables that are a little larger this time. A few bytes of each call would be more.
const MORE: usize = 16 * 1024;
/// By when what a call held is given back.
const SETTLED: Duration = Duration::from_secs(30);

/// Bytes that are allocated now, in the whole program.
fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

pub fn calls_and_connections_leave_nothing_behind() {
    let mut door = Door::open(Config::default());
    door.install("echo", limits(), echo);
    let client = door.client();
    check(&door, "calls on one connection", 5000, || {
        assert_eq!(call(&client, "echo", b"x").payload().unwrap(), "x");
    });
    check(&door, "calls of no function", 5000, || {
        assert_eq!(call(&client, "nobody", b"").status.code, Code::NotFound);
    });
    door.install("held", limits(), |asked| {
        assert!(asked.given_up());
        Vec::new()
    });
    check(&door, "calls given up", 1000, || give_up(&client));
    check(&door, "connections of one call", 1000, || {
        assert_eq!(call(&door.client(), "echo", b"x").payload().unwrap(), "x");
    });
}

/// A call that is cancelled while it is under way: it went ahead of another one that is answered.
fn give_up(client: &Client) {
    let mut held = Box::pin(client.call("held", Bytes::from_static(b"x"), &NO_METADATA, None));
    assert!(block_on(future::poll_once(&mut held)).is_none());
    assert_eq!(call(client, "echo", b"x").payload().unwrap(), "x");
}

/// Does `work` so often that all tables have the size they need, then so often again, and compares.
fn check(door: &Door, what: &str, times: usize, work: impl Fn()) {
    (0..times).for_each(|_| work());
    door.settled();
    let before = settle(0);
    (0..times).for_each(|_| work());
    door.settled();
    let after = settle(before + MORE);
    assert!(after <= before + MORE, "{times} {what} left {} bytes", after - before);
    println!("{times} x {what}: {} bytes more", after.saturating_sub(before));
}

/// Waits until no more than `most` bytes are live, or their number stays the same.
fn settle(most: usize) -> usize {
    let (mut least, mut since) = (live(), Instant::now());
    let end = since + SETTLED;
    while least > most && since.elapsed() < Duration::from_secs(1) && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
        let now = live();
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    least
}
