//! The program is replaced by another build while functions are called: `--keep-handlers`, and how the doors close.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::board::{Answer, Backend, Board, PATIENCE, TempDir, parse};
use crate::status::status_of;
use crate::watch::{Client, containers, eventually, handlers, signal};

const ECHO: &[(&str, &str)] = &[("fn.py", "def fn(input):\n    return input\n")];

/// An address where nobody listens yet.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Our program as another build: its bytes differ, what it does does not.
fn other_build(dir: &TempDir, number: usize) -> String {
    let path = dir.0.join(format!("tinyfaas-{number}"));
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_tinyfaas")).unwrap();
    bytes.extend_from_slice(format!("build {number}").as_bytes());
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What clients met while nobody listened.
#[derive(Default, Debug)]
struct Met {
    calls: AtomicUsize,
    /// Connections that were refused, and tried again.
    refused: AtomicUsize,
    /// Connections that were made in the very moment in which the listener went, and tried again: no system gives them
    /// to anybody.
    reset: AtomicUsize,
}

/// Connects as soon as somebody listens.
fn connect(addr: SocketAddr, met: &Met) -> TcpStream {
    eventually("somebody to listen", || {
        let error = match TcpStream::connect(addr) {
            Ok(stream) => return Some(stream),
            Err(error) => error.kind(),
        };
        match error {
            io::ErrorKind::ConnectionRefused => met.refused.fetch_add(1, Ordering::Relaxed),
            io::ErrorKind::ConnectionReset => met.reset.fetch_add(1, Ordering::Relaxed),
            other => panic!("{other}"),
        };
        None
    })
}

/// One call on a connection of its own.
fn call(addr: SocketAddr, name: &str, met: &Met) -> Answer {
    let head = format!("POST /{name} HTTP/1.1\r\nHost: board\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    loop {
        let mut stream = connect(addr, met);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        match stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_end(&mut bytes)) {
            Ok(_) => return parse(&bytes),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset && bytes.is_empty() => {
                met.reset.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => panic!("{e} after {} bytes", bytes.len()),
        }
    }
}

/// When each container was started, by its id.
fn started(board: &Board, name: &str) -> Vec<(String, String)> {
    let at = |id: String| {
        let out = Command::new("docker").args(["inspect", "--format", "{{.State.StartedAt}}", &id]).output().unwrap();
        (id, String::from_utf8(out.stdout).unwrap())
    };
    containers(&board.state_dir, name).into_iter().map(at).collect()
}

#[test]
fn an_upgrade_of_the_program_under_load_loses_no_call_and_restarts_no_handler() {
    const CLIENTS: usize = 2;
    const UPGRADES: usize = 3;
    const CALLS: usize = 300;
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let builds = TempDir::new();
    let addr = free_address();
    let http = addr.to_string();
    let board = Board::start(Backend::Docker, &["--http", &http, "--keep-handlers"]);
    board.deploy("f", "python3", 2, ECHO);
    board.deploy("sh", "binary", 1, &[("fn.sh", "cat\n")]);
    let before = [started(&board, "f"), started(&board, "sh")];
    assert_eq!((before[0].len(), before[1].len()), (2, 1));
    let (stop, met) = (AtomicBool::new(false), Met::default());
    let calls = |after: usize| {
        let at = met.calls.load(Ordering::Relaxed);
        eventually("calls", || (met.calls.load(Ordering::Relaxed) >= at + after).then_some(()));
    };
    let board = thread::scope(|scope| {
        let mut board = board;
        for name in ["f", "sh"] {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = call(addr, name, &met);
                        assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
                        met.calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        // One that keeps its connection for as long as the server does.
        scope.spawn(|| {
            let mut client = Client::from(connect(addr, &met));
            let mut is_new = true;
            while !stop.load(Ordering::Relaxed) {
                let answer = match client.call("f", b"kept") {
                    Ok(answer) => answer,
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset && is_new => {
                        met.reset.fetch_add(1, Ordering::Relaxed);
                        client = Client::from(connect(addr, &met));
                        continue;
                    }
                    Err(e) => panic!("{e}"),
                };
                assert_eq!((answer.status, answer.text().as_str()), (200, "kept"));
                met.calls.fetch_add(1, Ordering::Relaxed);
                is_new = answer.header("connection") == Some("close");
                if is_new {
                    client = Client::from(connect(addr, &met));
                }
            }
        });
        for number in 0..UPGRADES {
            calls(CALLS);
            let build = other_build(&builds, number);
            board = board.upgrade(&build);
            assert!(board.log().contains("http listens on"), "{}", board.log());
        }
        calls(CALLS);
        stop.store(true, Ordering::Relaxed);
        board
    });
    println!("{UPGRADES} upgrades: {met:?}");
    assert!(met.reset.into_inner() <= UPGRADES);
    assert_eq!([started(&board, "f"), started(&board, "sh")], before, "no handler was started again");
    assert_eq!(status_of(&board, "f")["state"], "healthy");
    // A handler of the first build that ends is replaced by one of the present build.
    signal(handlers(&board, "sh")[0], "KILL");
    eventually("another container", || {
        let now = started(&board, "sh");
        (now.len() == 1 && now != before[1]).then_some(())
    });
    assert_eq!(board.call("sh", b"after").text(), "after");
}

#[test]
fn handlers_that_were_left_running_and_are_not_wanted_any_more_are_removed_at_the_next_start() {
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let mut board = Board::start(Backend::Docker, &["--keep-handlers"]);
    board.deploy("f", "binary", 2, &[("fn.sh", "cat\n")]);
    board.deploy("gone", "binary", 1, &[("fn.sh", "cat\n")]);
    assert!(board.stop(), "{}", board.log());
    assert_eq!((containers(&board.state_dir, "f").len(), containers(&board.state_dir, "gone").len()), (2, 1));
    let kept = containers(&board.state_dir, "f");
    fs::remove_file(board.state_dir.join("functions/gone.fn")).unwrap();
    let mut board = board.upgrade(env!("CARGO_BIN_EXE_tinyfaas"));
    board.wait_for("the start to be done", |b| b.log().contains("restored f: 2 of 2").then_some(()));
    eventually("what is not wanted to go", || containers(&board.state_dir, "gone").is_empty().then_some(()));
    assert_eq!(containers(&board.state_dir, "f"), kept);
    assert_eq!(board.call("f", b"x").text(), "x");
}

#[test]
fn processes_cannot_be_left_running_and_the_start_says_so() {
    let args = ["serve", "--backend", "process", "--keep-handlers"];
    let output = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(args).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("--keep-handlers: processes end with the server"), "{error}");
}

/// Says that it began, then takes a while.
const SLOW: &[(&str, &str)] = &[(
    "fn.py",
    "import time\ndef fn(input):\n    print('begun', flush=True)\n    time.sleep(1.5)\n    return 'done ' + input\n",
)];

fn begun(board: &Board) -> bool {
    board.manage("GET", "/logs?name=f", b"").text().contains("begun")
}

#[test]
fn both_signals_close_the_doors_let_calls_in_flight_finish_and_exit_0() {
    for backend in Backend::available() {
        for (name, word) in [("INT", "SIGINT"), ("TERM", "SIGTERM")] {
            let mut board = Board::start(backend, &[]);
            board.deploy("f", "python3", 1, SLOW);
            let addr = board.http.unwrap();
            let call = thread::spawn(move || Client::connect(addr).call("f", b"x").unwrap());
            board.wait_for("the call to begin", |b| begun(b).then_some(()));
            let idle = TcpStream::connect(addr).unwrap();
            signal(i32::try_from(board.pid()).unwrap(), name);
            eventually("the door to close", || {
                matches!(TcpStream::connect(addr), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused).then_some(())
            });
            assert!(!call.is_finished(), "the door closes while the call still runs");
            let answer = call.join().unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "done x"), "{backend:?} {name}");
            assert!(board.stop(), "exit code 0\n{}", board.log());
            assert!(board.log().contains(&format!("stopping: {word}")), "{}", board.log());
            drop(idle);
        }
    }
}

#[test]
fn a_call_that_outlives_the_grace_is_cut_off_and_the_exit_is_still_0() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &["--grace", "500ms"]);
        board.deploy(
            "f",
            "python3",
            1,
            &[("fn.py", "import time\ndef fn(input):\n    print('begun', flush=True)\n    time.sleep(1000)\n")],
        );
        let addr = board.http.unwrap();
        let call = thread::spawn(move || Client::connect(addr).call("f", b"x"));
        board.wait_for("the call to begin", |b| begun(b).then_some(()));
        assert!(board.stop(), "exit code 0\n{}", board.log());
        assert!(board.log().contains("took longer than --grace"), "{}", board.log());
        // Its connection ends, with or without a word.
        if let Ok(answer) = call.join().unwrap() {
            assert!(answer.status >= 500, "{answer:?}");
        }
    }
}
