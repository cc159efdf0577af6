//! How fast the gRPC front door answers, beside nginx's `grpc_pass` in the same run, and what a million calls cost it.
//!
//! `benches/grpc/run` on an idle machine. Ours passes each call to an HTTP/1 handler on a unix socket, nginx to a trivial
//! HTTP/2 server on loopback: both are one process on one thread with a backend that does nothing. The load is h2load's.
//! Each server is a child of its own, so its processor time and memory can be told. Everything is bounded and on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backends;
#[path = "../server/mod.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use server::{Server, warn_if_busy};
use tinyfaas::wire::grpc::message::{Data, framed};

const METHOD: &str = "openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";
/// Connections, and calls at once on each.
const PATTERNS: [(usize, usize); 3] = [(1, 1), (16, 1), (1, 32)];
/// Calls of the memory test.
const MILLION: usize = 1_000_000;
/// Connections at once that each make one call, and how often.
const SHORT: usize = 200;
const SHORT_ROUNDS: usize = 500;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("door") => backends::door(Path::new(&args[2])),
        Some("upstream") => backends::upstream(),
        Some("million") => million(&Stage::new()),
        _ => {
            warn_if_busy();
            let stage = Stage::new();
            compare(&stage);
            million(&stage);
        }
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |n| n.parse().unwrap())
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// nginx with one worker that passes gRPC calls on; `None` where it is not there.
fn nginx(folder: &Path, upstream: SocketAddr) -> Option<Server> {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {at}/{what};\n"))
        .collect();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {at}/pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {temporary} keepalive_requests 100000000; http2_max_concurrent_streams 128;\n\
         upstream up {{ server {upstream}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen {addr} http2; location / {{ grpc_pass grpc://up; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let child = Command::new("nginx").arg("-p").arg(folder).arg("-c").arg(file).spawn().ok()?;
    for _ in 0..500 {
        if TcpStream::connect(addr).is_ok() {
            return Some(Server { child, addr });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nginx does not listen");
}

/// What one measurement found.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50: u64,
    p99: u64,
    cpu: f64,
}

/// Makes `calls` calls and measures them; all have to succeed.
fn load(server: &Server, folder: &Path, calls: usize, (connections, streams): (usize, usize)) -> Figures {
    let log = folder.join("h2load.log");
    let _ = std::fs::remove_file(&log);
    let before = server.cpu();
    let mut h2load = Command::new("h2load");
    h2load.args(["-n", &calls.to_string(), "-c", &connections.to_string(), "-m", &streams.to_string()]);
    h2load.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(folder.join("question"));
    let out =
        h2load.arg(format!("--log-file={}", log.display())).arg(format!("http://{}/{METHOD}", server.addr)).output();
    let out = String::from_utf8(out.unwrap().stdout).unwrap();
    let cpu = (server.cpu() - before) * 1e6 / calls as f64;
    assert!(out.contains(&format!("{calls} succeeded, 0 failed, 0 errored")), "{out}");
    let finished = out.lines().find(|line| line.starts_with("finished in")).unwrap();
    let rate = finished.split(", ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    // Start, status and microseconds of each call.
    let text = std::fs::read_to_string(&log).unwrap();
    let mut times: Vec<u64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    assert_eq!(times.len(), calls);
    times.sort_unstable();
    Figures { rate, p50: times[calls / 2], p99: times[calls * 99 / 100], cpu }
}

fn median(mut of: Vec<Figures>) -> Figures {
    of.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    of[of.len() / 2]
}

/// What both parts of the benchmark need: the question that h2load sends, and the handler behind our front door.
struct Stage {
    folder: Folder,
    handler: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let folder = Folder(std::env::temp_dir().join(format!("tinyfaas-bench-grpc-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0).unwrap();
        let data = Data { function_identifier: "echo".into(), data: "x".repeat(100).into(), payload: None };
        std::fs::write(folder.0.join("question"), framed(&data)).unwrap();
        let handler = folder.0.join("handler");
        backends::handler(&handler);
        Self { folder, handler }
    }

    fn door(&self) -> Server {
        Server::role(&["door", self.handler.to_str().unwrap()])
    }

    fn load(&self, server: &Server, calls: usize, pattern: (usize, usize)) -> Figures {
        load(server, &self.folder.0, calls, pattern)
    }
}

/// Speed beside nginx. Ours and nginx take turns, so that what else the machine does meets both.
fn compare(stage: &Stage) {
    let ours = stage.door();
    let upstream = Server::role(&["upstream"]);
    let nginx = nginx(&stage.folder.0, upstream.addr);
    let (calls, rounds) = (number("CALLS", 20_000), number("ROUNDS", 5));
    println!("{rounds} rounds of {calls} calls of 100 bytes each, in turn: the median round by rate, the median ratio");
    println!(
        "| connections × streams | ours /s | p50 µs | p99 µs | CPU µs | nginx /s | p50 µs | p99 µs | CPU µs | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for pattern in PATTERNS {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            a.push(stage.load(&ours, calls, pattern));
            b.extend(nginx.as_ref().map(|nginx| stage.load(nginx, calls, pattern)));
        }
        let mut ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a.rate / b.rate).collect();
        ratios.sort_by(f64::total_cmp);
        let a = median(a);
        print!("| {} × {} | {:.0} | {} | {} | {:.1} ", pattern.0, pattern.1, a.rate, a.p50, a.p99, a.cpu);
        match ratios.get(ratios.len() / 2) {
            None => println!("| – | – | – | – | – |"),
            Some(ratio) => {
                let b = median(b);
                println!("| {:.0} | {} | {} | {:.1} | {ratio:.2} |", b.rate, b.p50, b.p99, b.cpu);
            }
        }
    }
}

/// Memory of a front door of its own: idle, with idle connections, in the course of a million calls, and after
/// connections that each made one call.
fn million(stage: &Stage) {
    let server = stage.door();
    let say = |when: &str| {
        let (resident, anonymous) = server.memory();
        println!("| {when} | {resident} | {anonymous} | {} |", resident - anonymous);
    };
    println!("\n| ours | resident kB | anonymous kB | of files kB |\n| --- | --- | --- | --- |");
    say("idle");
    let connections: Vec<TcpStream> = (0..100).map(|_| say_hello(server.addr)).collect();
    say("with 100 connections");
    drop(connections);
    for pattern in [(1, 32), (16, 8)] {
        let mut made = 0;
        for total in [10_000, 100_000, 300_000, MILLION] {
            stage.load(&server, total - made, pattern);
            made = total;
            say(&format!("after {made} calls on {} × {}", pattern.0, pattern.1));
        }
    }
    for round in 1..=SHORT_ROUNDS {
        stage.load(&server, SHORT, (SHORT, 1));
        if [SHORT_ROUNDS / 100, SHORT_ROUNDS / 10, SHORT_ROUNDS].contains(&round) {
            say(&format!("after {} connections of one call each", round * SHORT));
        }
    }
}

/// A connection that has shaken hands and then waits.
fn say_hello(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"tinyfaas"].concat();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(&ping).unwrap();
    // Its answer says that all before it was read.
    let mut seen = Vec::new();
    while !seen.windows(8).any(|bytes| bytes == b"tinyfaas") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream
}
