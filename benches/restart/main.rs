//! What callers notice when the server starts again, and when a function or the program is replaced. See `run`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/it/board.rs"]
mod board;
mod callers;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use board::{Backend, PATIENCE, TempDir, request, upload_json};
use callers::Callers;

const TINYFAAS: &str = env!("CARGO_BIN_EXE_tinyfaas");
/// Functions that are stored.
const STORED: [usize; 2] = [3, 30];
/// Starts of each sort; the median counts.
const ROUNDS: usize = 5;
/// Callers at once.
const CALLERS: usize = 4;

fn main() {
    let calls = std::env::var("CALLS").map_or(100_000, |n| n.parse().unwrap());
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wants = |what: &str| asked.is_empty() || asked.iter().any(|arg| arg == what);
    if wants("start") {
        starts();
    }
    if wants("redeploy") {
        redeployments(calls);
    }
    if wants("upgrade") && Backend::available().contains(&Backend::Docker) {
        upgrades(calls, false);
        upgrades(calls, true);
    }
}

/// A server whose ports stay the same from start to start.
struct Site {
    backend: Backend,
    dir: TempDir,
    http: SocketAddr,
    management: SocketAddr,
    /// The socket of the HTTP door where a service manager holds it.
    held: Option<TcpListener>,
    server: Option<Child>,
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Site {
    fn new(backend: Backend, held: bool) -> Self {
        let held = held.then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let http = held.as_ref().map_or_else(free_address, |listener| listener.local_addr().unwrap());
        Self { backend, dir: TempDir::new(), http, management: free_address(), held, server: None }
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.0.join("state")
    }

    fn start(&mut self, program: &str) {
        let mut command = Command::new("/bin/sh");
        // The socket comes as standard input, since nothing else can be handed over without unsafe code.
        let script = match self.held {
            Some(_) => "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES=http LISTEN_PID=$$; exec \"$@\"",
            None => "exec </dev/null; exec \"$@\"",
        };
        let stdin = self.held.as_ref().map_or_else(Stdio::null, |l| Stdio::from(OwnedFd::from(l.try_clone().unwrap())));
        command.args(["-c", script, "sh", program, "serve", "--backend", self.backend.name(), "--log", "error"]);
        command.args(["--coap", "off", "--grpc", "off", "--http", &self.http.to_string()]);
        command.args(["--management", &self.management.to_string(), "--state-dir"]).arg(self.state_dir());
        if self.backend == Backend::Docker {
            command.arg("--keep-handlers");
            for env in ["python3", "nodejs", "binary"] {
                command.args(["--runtime-base", &format!("{env}=tinyfaas-test/{env}")]);
            }
        }
        self.server = Some(command.stdin(stdin).stdout(Stdio::null()).spawn().unwrap());
    }

    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(self.management).is_err() {
            assert!(Instant::now() < end, "the server does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn deploy(&self, name: &str, version: usize) {
        let text = format!("def fn(input):\n    return '{version}'\n");
        let json = upload_json(name, "python3", 1, &[("fn.py", &text)], &[]);
        let answer = request(self.management, "POST", "/upload", "", &json);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
        assert!(server.wait().unwrap().success());
    }

    fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Removes the containers, as if the whole machine had lost power.
    fn remove_handlers(&self) {
        if self.backend == Backend::Docker {
            let id = fs::read_to_string(self.state_dir().join("instance")).unwrap();
            let filter = format!("label=tinyFaaS={}", id.trim());
            let list = board::docker(&["ps", "-aq", "--filter", &filter]);
            let ids: Vec<&str> = list.lines().collect();
            if !ids.is_empty() {
                board::docker(&[&["rm", "-f"], &ids[..]].concat());
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        let id = fs::read_to_string(self.state_dir().join("instance"));
        if let (Backend::Docker, Ok(id)) = (self.backend, id) {
            let _ = Command::new(TINYFAAS).args(["clean", "--instance", id.trim()]).output();
        }
    }
}

/// Calls until there is an answer.
fn first_answer(http: SocketAddr, name: &str) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(http).is_err() {
        assert!(Instant::now() < end, "nobody listens");
        std::thread::sleep(Duration::from_micros(200));
    }
    let answer = request(http, "POST", &format!("/{name}"), "", b"x");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn starts() {
    println!(
        "From the start of the server to the first answered call, and until all functions answered; ms, median of {ROUNDS}\n"
    );
    println!("| handlers | functions | first answer | all answered |\n| --- | --- | --- | --- |");
    for backend in Backend::available() {
        for stored in STORED {
            let mut site = Site::new(backend, false);
            site.start(TINYFAAS);
            site.wait();
            (0..stored).for_each(|n| site.deploy(&format!("f{n}"), n));
            for anew in [false, true] {
                // Processes end with the server.
                if backend == Backend::Process && !anew {
                    continue;
                }
                let mut times: Vec<(Duration, Duration)> =
                    (0..ROUNDS).map(|_| restart(&mut site, stored, anew)).collect();
                times.sort();
                let (first, all) = times[ROUNDS / 2];
                let how = if anew { "started anew" } else { "taken over" };
                println!("| {}, {how} | {stored} | {} | {} |", backend.name(), first.as_millis(), all.as_millis());
            }
        }
    }
    println!();
}

fn restart(site: &mut Site, stored: usize, anew: bool) -> (Duration, Duration) {
    site.kill();
    if anew {
        site.remove_handlers();
    }
    let begun = Instant::now();
    site.start(TINYFAAS);
    first_answer(site.http, "f0");
    let first = begun.elapsed();
    (1..stored).for_each(|n| first_answer(site.http, &format!("f{n}")));
    (first, begun.elapsed())
}

fn redeployments(calls: usize) {
    for backend in Backend::available() {
        let mut site = Site::new(backend, false);
        site.start(TINYFAAS);
        site.wait();
        site.deploy("f", 0);
        let callers = Callers::start(site.http, "f", CALLERS, calls);
        let mut version = 0;
        while !callers.are_done() {
            version += 1;
            site.deploy("f", version);
        }
        println!("redeployments, {}: {version} in the course of {}\n", backend.name(), callers.end());
    }
}

fn upgrades(calls: usize, held: bool) {
    let mut site = Site::new(Backend::Docker, held);
    site.start(TINYFAAS);
    site.wait();
    site.deploy("f", 0);
    let callers = Callers::start(site.http, "f", CALLERS, calls);
    let mut upgrades = 0;
    while !callers.are_done() {
        // Two builds take turns: what they do is the same, their bytes are not.
        upgrades += 1;
        let build = other_build(&site.dir.0, upgrades % 2);
        site.stop();
        site.start(&build);
        site.wait();
        callers.some(calls / 50);
    }
    let socket = if held { "the socket held by a service manager" } else { "a socket of its own" };
    println!("upgrades, docker, {socket}: {upgrades} in the course of {}\n", callers.end());
}

/// Our program as another build.
fn other_build(dir: &Path, number: usize) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(format!("tinyfaas-{number}"));
    if !path.exists() {
        let mut bytes = fs::read(TINYFAAS).unwrap();
        bytes.extend_from_slice(format!("build {number}").as_bytes());
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path.to_str().unwrap().to_owned()
}
