//! The load of `benches/coap/run`, which says more: requests of many endpoints, as fast as they are answered.
//!
//! Prints one JSON object. Everything is bounded and stays on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod load;

use std::net::SocketAddr;
use std::time::Duration;

use load::Pattern;

/// Endpoints of the memory test, and in how many parts they take turns: so few at once that they stay below the bound on
/// exchanges.
const ENDPOINTS: usize = 10_000;
const PARTS: usize = 100;

/// `span ADDRESS PATTERN ENDPOINTS MILLISECONDS` measures; `calls ADDRESS NUMBER` only makes that many.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    match args[..] {
        ["span", addr, pattern, endpoints, milliseconds] => {
            let pattern = match pattern {
                "ping" => Pattern::Ping,
                "discovery" => Pattern::Discovery,
                "call" => Pattern::Call,
                "time" => Pattern::Time,
                _ => panic!("no such pattern: {pattern}"),
            };
            let span = Duration::from_millis(milliseconds.parse().unwrap());
            let outcome = load::run(address(addr), pattern, endpoints.parse().unwrap(), span);
            println!(
                r#"{{"rate": {:.1}, "p50_us": {}, "p99_us": {}, "count": {}}}"#,
                outcome.rate(),
                outcome.p(50),
                outcome.p(99),
                outcome.count()
            );
        }
        ["calls", addr, number] => {
            let (addr, number) = (address(addr), number.parse::<usize>().unwrap());
            let again: usize = (0..PARTS).map(|part| load::phase(addr, part, ENDPOINTS / PARTS, number / PARTS)).sum();
            println!(r#"{{"again": {again}}}"#);
        }
        // `cargo test --all-targets` runs benches without arguments.
        [] => {}
        _ => panic!("what? {args:?}"),
    }
}
