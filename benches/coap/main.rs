//! How fast the CoAP front door answers, beside libcoap's `coap-server` in the same run, and what a million requests cost it.
//!
//! `cargo bench --bench coap` on an idle machine; benches/coap/run says more. The parent makes the load and is the handler of
//! the function; the front door is a child of its own, so its memory can be told. Everything stays on loopback and is bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/it/fake_handler.rs"]
#[allow(dead_code)]
mod fake_handler;
mod load;
#[path = "../server/mod.rs"]
mod server;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_executor::StaticExecutor;
use tinyfaas::budget::Budget;
use tinyfaas::front::coap::{Coap, Config};
use tinyfaas::shutdown::Shutdown;

use fake_handler::Fake;
use load::{Outcome, Pattern};
use server::{Server, warn_if_busy};

/// Time of one measurement.
const SPAN: Duration = Duration::from_secs(3);
/// Endpoints of the memory test, and requests of all together.
const ENDPOINTS: usize = 10_000;
const REQUESTS: usize = 1_000_000;
/// EXCHANGE_LIFETIME (RFC 7252 §4.8.2) and a little: what is remembered of requests is given back then.
const QUIET: Duration = Duration::from_secs(250);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("serve") => serve(&args[2], args[3].parse().unwrap()),
        Some("million") => million(&Fake::new(&["echo"], 64)),
        _ => compare(),
    }
}

/// The child: a front door for function `echo` of the handler at a unix socket.
fn serve(socket: &str, rate: u32) {
    let fake = Fake::client_of(socket, &["echo"], 64);
    let mut config = Config::new("127.0.0.1:0".parse().unwrap());
    config.endpoint.rate = rate;
    let coap = Coap::bind(config, None).unwrap();
    println!("{}", coap.port());
    std::io::stdout().flush().unwrap();
    let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
    let serve = coap.serve(executor, fake, Budget::new(2 << 20), Shutdown::new());
    tinyfaas::reactor::block_on(executor.run(serve));
}

fn ours(fake: &Fake, rate: u32) -> Server {
    Server::role(&["serve", fake.socket.to_str().unwrap(), &rate.to_string()])
}

/// libcoap's server, if Debian's libcoap3-bin is there.
fn libcoap() -> Option<Server> {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let port = addr.port().to_string();
    let child = Command::new("coap-server-notls")
        .args(["-A", "127.0.0.1", "-p", &port, "-v", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let server = Server { child, addr };
    load::until_it_answers(addr);
    Some(server)
}

fn compare() {
    warn_if_busy();
    let fake = Fake::new(&["echo"], 64);
    let tinyfaas = ours(&fake, 0);
    let theirs = libcoap();
    println!(
        "| what | endpoints | ours /s | p50 µs | p99 µs | CPU µs each | libcoap /s | p50 µs | p99 µs | CPU µs each | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, pattern, their_pattern) in [
        // libcoap 4.3 leaves pings that follow each other unanswered for a second: no peer to compare with.
        ("ping", Pattern::Ping, None),
        ("discovery", Pattern::Discovery, Some(Pattern::Discovery)),
        ("call (ours: a handler on a unix socket; theirs: /time)", Pattern::Call, Some(Pattern::Time)),
    ] {
        for endpoints in [1, 64] {
            let (a, a_cpu) = measure(&tinyfaas, pattern, endpoints);
            let b = theirs.as_ref().zip(their_pattern).map(|(theirs, pattern)| measure(theirs, pattern, endpoints));
            let b_text = b.as_ref().map_or("| – | – | – | – | – |".into(), |(b, cpu)| {
                format!("| {:.0} | {} | {} | {cpu:.1} | {:.2} |", b.rate(), b.p(50), b.p(99), a.rate() / b.rate())
            });
            println!("| {name} | {endpoints} | {:.0} | {} | {} | {a_cpu:.1} {b_text}", a.rate(), a.p(50), a.p(99));
        }
    }
    drop((tinyfaas, theirs));
    million(&fake);
}

fn measure(server: &Server, pattern: Pattern, endpoints: usize) -> (Outcome, f64) {
    load::run(server.addr, pattern, endpoints, SPAN / 10);
    let before = server.cpu();
    let outcome = load::run(server.addr, pattern, endpoints, SPAN);
    let cpu = (server.cpu() - before) * 1e6 / outcome.count() as f64;
    (outcome, cpu)
}

/// Two million calls from ten thousand endpoints, with the bounds as by default, and the quiet after them.
fn million(fake: &Fake) {
    let server = ours(fake, 1000);
    load::run(server.addr, Pattern::Ping, 1, Duration::from_millis(100));
    let say = |when: &str| {
        let (resident, anonymous) = server.memory();
        println!("| {when} | {resident} | {anonymous} |");
    };
    println!("\n| calls of {ENDPOINTS} endpoints | resident kB | anonymous kB |\n| --- | --- | --- |");
    say("none");
    // So few endpoints at once that they stay below the bound on exchanges together with those of the phase before, whose last
    // requests may still be at work.
    let phases = 100;
    let mut again = 0;
    for total in [REQUESTS / 10, REQUESTS - REQUESTS / 10, REQUESTS] {
        for phase in 0..phases {
            again += load::phase(server.addr, phase, ENDPOINTS / phases, total / phases);
        }
        say(&format!("{total} more"));
    }
    std::thread::sleep(QUIET);
    say("none for 250 s");
    println!("\n{again} requests were sent again.");
}
