//! The runtime is killed at any moment of deployments, deletions and calls: what it accepted is there after the next start, what
//! it was told to delete is not, and nothing else is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::board::{Answer, Backend, Board, PATIENCE, left_of, left_on_engine, parse, upload_json};
use crate::watch::{containers, eventually, is_alive, parent_of};

/// Kills in an ordinary run, on processes and on Docker; `TINYFAAS_KILLS=N` asks for N, and a fifth of them on Docker.
const KILLS: (usize, usize) = (40, 8);
/// Clients that deploy, delete and call, and names that each has for itself: so it knows what has to be there.
const CLIENTS: usize = 2;
const NAMES: usize = 3;

/// What a function answers; `None` where there is no such function.
type Version = Option<u64>;

/// What a client knows of one function.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// What was accepted last.
    accepted: Version,
    /// What was asked for and not answered before the kill.
    asked: Option<Version>,
}

struct Client {
    known: BTreeMap<String, Known>,
    random: fastrand::Rng,
    next: u64,
    counts: Counts,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    deployed: usize,
    deleted: usize,
    called: usize,
    /// Deployments and deletions whose answer the kill took, and those of them that were done all the same.
    cut: usize,
    done: usize,
}

/// One request; `None` where the connection broke before the answer was there whole.
fn ask(addr: SocketAddr, method: &str, target: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: board\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let whole = bytes.windows(4).any(|end| end == b"\r\n\r\n")
        && (!bytes.to_ascii_lowercase().windows(7).any(|word| word == b"chunked") || bytes.ends_with(b"0\r\n\r\n"));
    let answer = whole.then(|| parse(&bytes))?;
    let length = answer.header("content-length").map(|n| n.parse::<usize>().unwrap());
    length.is_none_or(|n| n == answer.body.len()).then_some(answer)
}

/// What a function answers now; `None` where the server is gone.
fn version(http: SocketAddr, name: &str) -> Option<Version> {
    let answer = ask(http, "POST", &format!("/{name}"), b"x")?;
    match answer.status {
        200 => Some(Some(answer.text().parse().unwrap())),
        404 => Some(None),
        other => panic!("{name} answered {other}: {}", answer.text()),
    }
}

impl Client {
    fn new(number: usize, seed: u64) -> Self {
        let names = (0..NAMES).map(|n| (format!("f{number}n{n}"), Known::default()));
        let random = fastrand::Rng::with_seed(seed + number as u64);
        Self { known: names.collect(), random, next: 1, counts: Counts::default() }
    }

    /// Asks for one thing after the other until the server is gone.
    fn work(&mut self, management: SocketAddr, http: SocketAddr, stop: &AtomicBool, changes: &AtomicUsize) {
        while !stop.load(Ordering::Relaxed) {
            let name = format!("{}{}", self.prefix(), self.random.usize(..NAMES));
            let accepted = self.known[&name].accepted;
            let wanted = match self.random.u8(..8) {
                0..3 => Some(Some(self.next)),
                3 if accepted.is_some() => Some(None),
                _ => None,
            };
            match wanted {
                None => {
                    let Some(now) = version(http, &name) else { return };
                    assert_eq!(now, accepted, "{name}");
                    self.counts.called += 1;
                }
                Some(wanted) => {
                    self.next += 1;
                    self.known.get_mut(&name).unwrap().asked = Some(wanted);
                    let Some(()) = change(management, &name, wanted) else { return };
                    self.known.insert(name, Known { accepted: wanted, asked: None });
                    changes.fetch_add(1, Ordering::Relaxed);
                    match wanted {
                        Some(_) => self.counts.deployed += 1,
                        None => self.counts.deleted += 1,
                    }
                }
            }
        }
    }

    fn prefix(&self) -> String {
        let first = self.known.keys().next().unwrap();
        first[..first.len() - 1].to_owned()
    }

    /// After a start: each function is what was accepted, or what was asked for and not answered.
    fn check(&mut self, http: SocketAddr) {
        for (name, known) in &mut self.known {
            let now = version(http, name).expect("the server runs");
            match known.asked.take() {
                Some(asked) => {
                    self.counts.cut += 1;
                    self.counts.done += usize::from(now == asked);
                    assert!(
                        now == known.accepted || now == asked,
                        "{name}: {now:?}, {known:?} and {asked:?} was asked for"
                    );
                    known.accepted = now;
                }
                None => assert_eq!(now, known.accepted, "{name}"),
            }
        }
    }

    fn there(&self) -> impl Iterator<Item = &str> {
        self.known.iter().filter(|(_, known)| known.accepted.is_some()).map(|(name, _)| name.as_str())
    }
}

/// Deploys a version or deletes; `None` where the server was gone before it said that it is done.
fn change(management: SocketAddr, name: &str, wanted: Version) -> Option<()> {
    let answer = match wanted {
        Some(version) => {
            let files = [("fn.sh", &*format!("printf %s {version}\n"))];
            ask(management, "POST", "/upload", &upload_json(name, "binary", 1, &files, &[]))?
        }
        None => ask(management, "POST", "/delete", format!(r#"{{"name":"{name}"}}"#).as_bytes())?,
    };
    assert_eq!(answer.status, 200, "{name} {wanted:?}: {}", answer.text());
    Some(())
}

/// Processes that run in folders of handlers and are not the server's: those of one that was killed.
fn strays(board: &Board) -> Vec<i32> {
    let run = board.state_dir.join("run");
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|pid: &i32| {
        let is_handler = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&run));
        is_handler && is_alive(*pid) && !descends(*pid, board.pid())
    })
    .collect()
}

fn descends(pid: i32, from: u32) -> bool {
    let mut pid = pid;
    while pid > 1 && pid.cast_unsigned() != from {
        // One that ended meanwhile is nobody's.
        pid = parent_of(pid).unwrap_or(1);
    }
    pid.cast_unsigned() == from
}

/// What the board has is what belongs to these functions and nothing else.
fn check_left(board: &Board, names: &[&str]) {
    let mut stored: Vec<String> = names.iter().map(|name| format!("functions/{name}.fn")).collect();
    stored.sort();
    eventually("the folders to be tidy", || {
        let left = left_of(&board.state_dir);
        let mut files: Vec<String> = left.iter().filter(|l| !l.starts_with("run/")).cloned().collect();
        files.sort();
        let folders = left.len() - files.len();
        (files == stored && folders <= 2 * names.len()).then_some(())
    });
    if board.backend() == Backend::Docker {
        eventually("the containers to be those of the functions", || {
            let running: usize = names.iter().map(|name| containers(&board.state_dir, name).len()).sum();
            let left = left_on_engine(&board.state_dir);
            let count = |kind: &str| left.iter().filter(|what| what.starts_with(kind)).count();
            // All functions share one network, and none of these needs an image of its own.
            let others = (count("image"), count("network") <= 1);
            (running == names.len() && count("container") == names.len() && others == (0, true)).then_some(())
        });
    }
}

fn kill_again_and_again(backend: Backend, kills: usize, seed: u64) {
    let mut board = Board::start(backend, &[]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, seed)).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    // As long as a deployment may take: on Docker ten times as long.
    let longest = if backend == Backend::Docker { 1500 } else { 150 };
    for kill in 0..kills {
        let (management, http) = (board.management, board.http.unwrap());
        let (stop, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
        board = thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| client.work(management, http, &stop, &changes));
            }
            // The machine may be slow; at last it is chance that decides.
            let after = random.usize(..3);
            eventually("changes", || (changes.load(Ordering::Relaxed) >= after).then_some(()));
            thread::sleep(Duration::from_millis(random.u64(..longest)));
            let again = board.power_cut();
            stop.store(true, Ordering::Relaxed);
            again
        });
        eventually("the processes of the killed one to end with it", || strays(&board).is_empty().then_some(()));
        for client in &mut clients {
            client.check(board.http.unwrap());
        }
        let names: Vec<&str> = clients.iter().flat_map(Client::there).collect();
        check_left(&board, &names);
        let log = board.log();
        assert!(!log.contains("ERROR") && !log.contains("damaged"), "after kill {kill}:\n{log}");
    }
    let counts = clients.iter().map(|client| client.counts);
    println!("{backend:?}: {kills} kills, {:?}", counts.collect::<Vec<_>>());
    assert!(clients.iter().all(|c| c.counts.deployed > 0 && c.counts.called > 0));
    for name in clients.iter().flat_map(Client::there) {
        assert_eq!(board.delete(name).status, 200);
    }
    check_left(&board, &[]);
    assert!(board.stop(), "{}", board.log());
}

/// How many kills were asked for.
fn kills(usual: usize, share: usize) -> usize {
    std::env::var("TINYFAAS_KILLS").map_or(usual, |n| n.parse::<usize>().unwrap() / share)
}

#[test]
fn a_runtime_of_processes_that_is_killed_at_any_moment_keeps_what_it_accepted() {
    kill_again_and_again(Backend::Process, kills(KILLS.0, 1), 1);
}

#[test]
fn a_runtime_of_containers_that_is_killed_at_any_moment_keeps_what_it_accepted() {
    if Backend::available().contains(&Backend::Docker) {
        kill_again_and_again(Backend::Docker, kills(KILLS.1, 5), 2);
    }
}
