//! Memory of the release build against `size-report/budgets.toml`: idle, while much passes through, and afterwards.
//!
//! A debug build would say nothing, so these tests run the binary that `TINYFAAS_RELEASE_BIN` names, or build one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use crate::attacks::{self, Ask};
use crate::board::{Backend, Board, TempDir, noise};
use crate::watch::{Client, pass_through};

const MIB: usize = 1 << 20;

/// How often memory is looked at while something runs.
const LOOK: Duration = Duration::from_millis(2);

/// What glibc says of itself, in every program that it is linked into.
const GLIBC: &[u8] = b"GNU C Library";

/// Memory that was not less for so long gets no less: longer than connections linger.
const QUIET: Duration = Duration::from_millis(1500);

/// By when all is given back that is.
const SETTLED: Duration = Duration::from_secs(10);

/// The release build, as it is after a board has booted: read from its disk. The kernel maps a file in pieces as large as it keeps
/// them, and one that was just written it keeps in larger ones: up to a tenth more would be resident, by chance.
fn release() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tinyfaas-measured");
        let _ = fs::remove_file(&path);
        fs::copy(built(), &path).unwrap();
        let file = fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

fn built() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Ok(path) = std::env::var("TINYFAAS_RELEASE_BIN") {
            return path;
        }
        let cargo = Command::new(env!("CARGO")).args(["build", "--release", "--quiet"]).output().unwrap();
        assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
        // Beside the debug build that cargo gave us.
        let path = PathBuf::from(env!("CARGO_BIN_EXE_tinyfaas").replace("/debug/", "/release/"));
        path.to_str().unwrap().to_owned()
    })
}

/// The budgets for the C library that the release build has: their allocators differ.
fn budget(key: &str) -> u64 {
    static BUDGETS: OnceLock<HashMap<String, u64>> = OnceLock::new();
    let budgets = BUDGETS.get_or_init(|| {
        let binary = fs::read(release()).unwrap();
        let libc = if binary.windows(GLIBC.len()).any(|w| w == GLIBC) { "glibc" } else { "musl" };
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/size-report/budgets.toml")).unwrap();
        let section = text.split("\n[").find_map(|part| part.strip_prefix(libc)?.strip_prefix("]\n")).unwrap();
        let pair = |line: &str| {
            let (key, value) = line.split('#').next()?.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().parse().expect("a whole number")))
        };
        section.lines().filter_map(pair).collect()
    });
    *budgets.get(key).unwrap_or_else(|| panic!("no budget for {key}"))
}

fn check(key: &str, measured: u64) {
    let most = budget(key);
    println!("{key} = {measured} of {most}");
    assert!(measured <= most, "{key} = {measured}, and the budget in size-report/budgets.toml is {most}");
}

/// Waits until memory that is given back within moments is within its budget.
fn check_settled(key: &str, measure: impl Fn() -> u64) {
    let (most, end) = (budget(key), Instant::now() + SETTLED);
    let mut measured = measure();
    while measured > most && Instant::now() < end {
        thread::sleep(LOOK);
        measured = measure();
    }
    check(key, measured);
}

/// A server of the release build. Its state goes with the test.
struct Release {
    board: Board,
    _dir: TempDir,
}

impl Release {
    fn start(flags: &[&str]) -> Self {
        let dir = TempDir::new();
        let board = Board::start_as(&[release()], Backend::available()[0], flags, dir.0.join("state"));
        Self { board, _dir: dir }
    }

    /// `Rss` or `Anonymous` in kB. The kernel counts here; the numbers of `status` may be some pages off.
    fn memory(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.board.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// RSS in kB once nothing more of what was before is given back.
    fn settled(&self) -> u64 {
        let mut least = (self.memory("Rss"), Instant::now());
        while least.1.elapsed() < QUIET {
            thread::sleep(LOOK);
            let now = self.memory("Rss");
            if now < least.0 {
                least = (now, Instant::now());
            }
        }
        least.0
    }

    /// How much more RSS there is at the peak while `work` runs, in kB.
    fn peak_of(&self, work: impl FnOnce()) -> u64 {
        let before = self.settled();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let (mut most, mut looks) = (0, 0);
                while !done.load(Ordering::Acquire) {
                    most = most.max(self.memory("Rss"));
                    looks += 1;
                    thread::sleep(LOOK);
                }
                assert!(looks > 10, "{looks} looks say nothing");
                most
            });
            let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            done.store(true, Ordering::Release);
            let most = sampler.join().unwrap();
            work.unwrap();
            most.saturating_sub(before)
        })
    }
}

#[test]
fn the_file_and_the_idle_server_are_within_their_budgets() {
    check("file_bytes", fs::metadata(release()).unwrap().len());
    let server = Release::start(&[]);
    let board = &server.board;
    board.deploy("sh", "binary", 1, &[("fn.sh", "cat\n")]);
    board.deploy("py", "python3", 1, &[("fn.py", "def fn(input):\n    return input\n")]);
    board.deploy("js", "nodejs", 1, &[("index.js", "module.exports = (req, res) => res.send(req.body);\n")]);
    for name in ["sh", "py", "js"] {
        assert_eq!(board.call(name, b"x").text(), "x");
    }
    check_settled("idle_rss_kb", || server.memory("Rss"));
    check_settled("idle_anonymous_kb", || server.memory("Anonymous"));
    check_settled("threads", || fs::read_dir(format!("/proc/{}/task", board.pid())).unwrap().count() as u64);
}

#[test]
fn an_upload_of_20_mib_and_bodies_of_100_mib_pass_through_little_memory() {
    let server = Release::start(&[]);
    let board = &server.board;
    board.deploy("cat", "binary", 1, &[("fn.sh", "exec cat\n")]);
    // A part of it is lost to the packing.
    let zip = crate::board::zip_of(&[("fn.sh", "cat\n"), ("data", &noise(25 * MIB))]);
    assert!(zip.len() > 20 * MIB, "{}", zip.len());
    let more = server.peak_of(|| {
        let answer = board.upload("big", "binary", 1, &zip);
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    check("upload_more_kb", more);
    assert_eq!(board.delete("big").status, 200);
    let more = server.peak_of(|| assert_eq!(pass_through(board.http.unwrap(), "cat", 100 * MIB), 100 * MIB));
    check("body_more_kb", more);
}

#[test]
fn idle_connections_cost_little_and_a_burst_is_given_back() {
    const CONNECTIONS: usize = 1000;
    let server = Release::start(&["--max-connections", "1100", "--head-timeout", "10m", "--idle-timeout", "10m"]);
    let board = &server.board;
    board.deploy("f", "python3", 1, &[("fn.py", "def fn(input):\n    return input\n")]);
    let addr = board.http.unwrap();
    // What the first call makes once is not the connections'.
    assert_eq!(Client::connect(addr).call("f", b"x").unwrap().status, 200);
    let before = server.memory("Anonymous");
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(addr)).collect();
    for client in &mut clients {
        assert_eq!(client.call("f", b"x").unwrap().text(), "x");
    }
    let each = || server.memory("Anonymous").saturating_sub(before) * 1024 / CONNECTIONS as u64;
    check_settled("idle_connection_bytes", each);
    drop(clients);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Client::connect(addr);
                for _ in 0..100 {
                    assert_eq!(client.call("f", b"x").unwrap().text(), "x");
                }
            });
        }
    });
    check_settled("after_load_more_kb", || server.memory("Anonymous").saturating_sub(before));
}

#[test]
fn floods_take_little_memory() {
    const CLIENTS: usize = 100;
    attacks::raise_file_limit();
    let server = Release::start(&[]);
    let board = &server.board;
    board.deploy("f", "python3", 1, &[("fn.py", "def fn(input):\n    return input\n")]);
    assert_eq!(board.call("f", b"x").text(), "x");
    let (http, coap, grpc) = (board.http.unwrap(), board.coap.unwrap(), board.grpc.unwrap());
    let floods: [(&str, &dyn Fn()); 6] = [
        ("slow_heads_more_kb", &|| _ = attacks::hold(http, attacks::SLOW_HEAD, CLIENTS, 10_000, |n| n < 10_000)),
        ("long_heads_more_kb", &|| _ = attacks::hold(http, &attacks::long_head(), CLIENTS, 3_000, |n| n < 3_000)),
        ("half_open_more_kb", &|| _ = attacks::hold(grpc, attacks::HALF_PREFACE, CLIENTS, 2_000, |n| n < 2_000)),
        ("no_call_more_kb", &|| _ = attacks::hold(grpc, &attacks::preface(), CLIENTS, 2_000, |n| n < 2_000)),
        ("no_bodies_more_kb", &|| _ = attacks::hold(http, attacks::NO_BODY, CLIENTS, 1_000, |n| n < 3_000)),
        ("datagrams_more_kb", &|| {
            for ask in [Ask::NonConfirmable, Ask::Confirmable, Ask::FirstBlock, Ask::Observe] {
                attacks::coap(coap, ask, CLIENTS, |n| n < 5_000);
            }
        }),
    ];
    for (key, flood) in floods {
        check(key, server.peak_of(flood));
    }
}
