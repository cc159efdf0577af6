//! How fast the CoAP front door answers, beside libcoap's `coap-server` in the same run, and what a million requests cost it.
//!
//! `cargo bench --bench coap` on an idle machine; benches/coap/run says more. The parent makes the load and is the handler of
//! the function; the front door is a child of its own, so its memory can be told. Everything stays on loopback and is bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/it/fake_handler.rs"]
#[allow(dead_code)]
mod fake_handler;
mod load;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_executor::StaticExecutor;
use tinyfaas::budget::Budget;
use tinyfaas::front::coap::{Coap, Config};
use tinyfaas::shutdown::Shutdown;

use fake_handler::Fake;
use load::{Outcome, Pattern};

/// Time of one measurement.
const SPAN: Duration = Duration::from_secs(3);
/// Endpoints of the memory test, and requests of all together.
const ENDPOINTS: usize = 10_000;
const REQUESTS: usize = 1_000_000;

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
    let coap = Coap::bind(config).unwrap();
    println!("{}", coap.port());
    std::io::stdout().flush().unwrap();
    let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
    let serve = coap.serve(executor, fake, Budget::new(2 << 20), Shutdown::new());
    async_io::block_on(executor.run(serve));
}

/// A server under test; ended with it.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn ours(fake: &Fake, rate: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", fake.socket.to_str().unwrap(), &rate.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap())) }
    }

    /// libcoap's server, if Debian's libcoap3-bin is there.
    fn libcoap() -> Option<Self> {
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
        let server = Self { child, addr };
        load::until_it_answers(addr);
        Some(server)
    }

    /// Resident and anonymous memory in kB.
    fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    /// Seconds of processor time used so far, at 100 ticks a second.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

fn compare() {
    let fake = Fake::new(&["echo"], 64);
    let ours = Server::ours(&fake, 0);
    let theirs = Server::libcoap();
    println!(
        "| what | endpoints | ours /s | p50 µs | p99 µs | CPU µs each | libcoap /s | p50 µs | p99 µs | CPU µs each | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, pattern, their_pattern) in [
        ("ping", Pattern::Ping, Pattern::Ping),
        ("discovery", Pattern::Discovery, Pattern::Discovery),
        ("call (ours: a handler on a unix socket; theirs: /time)", Pattern::Call, Pattern::Time),
    ] {
        for endpoints in [1, 64] {
            let (a, a_cpu) = measure(&ours, pattern, endpoints);
            let b = theirs.as_ref().map(|theirs| measure(theirs, their_pattern, endpoints));
            let b_text = b.as_ref().map_or("| – | – | – | – | – |".into(), |(b, cpu)| {
                format!("| {:.0} | {} | {} | {cpu:.1} | {:.2} |", b.rate(), b.p(50), b.p(99), a.rate() / b.rate())
            });
            println!("| {name} | {endpoints} | {:.0} | {} | {} | {a_cpu:.1} {b_text}", a.rate(), a.p(50), a.p(99));
        }
    }
    drop((ours, theirs));
    million(&fake);
}

fn measure(server: &Server, pattern: Pattern, endpoints: usize) -> (Outcome, f64) {
    load::run(server.addr, pattern, endpoints, SPAN / 10);
    let before = server.cpu();
    let outcome = load::run(server.addr, pattern, endpoints, SPAN);
    let cpu = (server.cpu() - before) * 1e6 / outcome.count() as f64;
    (outcome, cpu)
}

/// A million calls from ten thousand endpoints, with the bounds as by default.
fn million(fake: &Fake) {
    let server = Server::ours(fake, 1000);
    load::run(server.addr, Pattern::Ping, 1, Duration::from_millis(100));
    let idle = server.memory();
    let mut peak = idle;
    // So few at once that they stay below the bound on exchanges together with those of the phase before, whose last requests
    // may still be at work.
    let phases = 100;
    let mut lost = 0;
    for phase in 0..phases {
        lost += load::phase(server.addr, phase, ENDPOINTS / phases, REQUESTS / phases);
        let now = server.memory();
        peak = (peak.0.max(now.0), peak.1.max(now.1));
    }
    let after = server.memory();
    println!("\n{REQUESTS} calls from {ENDPOINTS} endpoints, {lost} of them sent again; kB resident (anonymous):");
    println!("idle {} ({}), peak {} ({}), after {} ({})", idle.0, idle.1, peak.0, peak.1, after.0, after.1);
}
