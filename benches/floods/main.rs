//! The load of `benches/floods/run`, which says more: what strangers could do to a server, and callers beside them.
//!
//! Prints one JSON object. Everything is bounded and stays on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/it/attacks.rs"]
mod attacks;
mod callers;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attacks::Ask;

/// Addresses from which floods come.
const CLIENTS: usize = 100;

/// `flood NAME ADDRESS MILLISECONDS` floods; `call PROTOCOL ADDRESS MILLISECONDS` measures a caller's answers.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["flood", name, addr, milliseconds] => {
            let count = flood(name, addr.parse().unwrap(), Duration::from_millis(milliseconds.parse().unwrap()));
            println!(r#"{{"count": {count}}}"#);
        }
        ["call", protocol, addr, milliseconds] => {
            callers::run(protocol, addr.parse().unwrap(), Duration::from_millis(milliseconds.parse().unwrap())).print();
        }
        // `cargo test --all-targets` runs benches without arguments.
        [] => {}
        _ => panic!("what? {args:?}"),
    }
}

/// Floods for so long; returns how much there was of it.
fn flood(name: &str, to: SocketAddr, span: Duration) -> usize {
    attacks::raise_file_limit();
    let end = Instant::now() + span;
    let looked = Cell::new(false);
    // The clock is asked now and then.
    let more = |n: usize| {
        if n.is_multiple_of(64) && Instant::now() >= end {
            looked.set(true);
        }
        !looked.get()
    };
    match name {
        "heads" => attacks::hold(to, attacks::SLOW_HEAD, CLIENTS, 10_000, more),
        "bodies" => attacks::hold(to, attacks::NO_BODY, CLIENTS, 1_000, more),
        "churn" => attacks::hold(to, b"", CLIENTS, 1, more),
        "handshakes" => attacks::hold(to, attacks::HALF_PREFACE, CLIENTS, 5_000, more),
        "reset" => {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let resets = scope.spawn(|| attacks::rapid_reset(to, CLIENTS, &stop));
                thread::sleep(span);
                stop.store(true, Ordering::Relaxed);
                resets.join().unwrap()
            })
        }
        "non" => attacks::coap(to, Ask::NonConfirmable, CLIENTS, more),
        "con" => attacks::coap(to, Ask::Confirmable, CLIENTS, more),
        "alone" => attacks::coap(to, Ask::Confirmable, 1, more),
        "forged" => attacks::forged(to, Ask::Confirmable, more),
        _ => panic!("no such flood: {name}"),
    }
}
