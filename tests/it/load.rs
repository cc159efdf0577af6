//! Many calls, many functions, many clients: nothing is lost, nothing is left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::board::{Backend, Board, TempDir, left_on_engine, request};
use crate::watch::{Client, containers, eventually, handlers};

/// Calls `f` until `stop`; each answer has to be that of a version. Returns how many calls were made.
fn call_until(stop: &AtomicBool, done: &AtomicUsize, mut call: impl FnMut() -> (u16, String)) {
    while !stop.load(Ordering::Relaxed) {
        let (status, text) = call();
        assert_eq!(status, 200, "{text}");
        assert!(text.starts_with('v'), "{text}");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_redeployment_under_load_loses_no_call() {
    const KEPT: usize = 2;
    const NEW: usize = 2;
    const VERSIONS: usize = 4;
    const CALLS_A_VERSION: usize = 500;
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let deploy = |version: usize| {
            let code = format!("def fn(input):\n    return 'v{version} ' + input\n");
            board.deploy("f", "python3", 2, &[("fn.py", &code)]);
        };
        deploy(0);
        let addr = board.http.unwrap();
        let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..KEPT {
                scope.spawn(|| {
                    let mut client = Client::connect(addr);
                    call_until(&stop, &done, || {
                        let answer = client.call("f", b"kept").unwrap();
                        (answer.status, answer.text())
                    });
                });
            }
            for _ in 0..NEW {
                scope.spawn(|| {
                    call_until(&stop, &done, || {
                        let answer = request(addr, "POST", "/f", "", b"new");
                        (answer.status, answer.text())
                    });
                });
            }
            for version in 1..=VERSIONS {
                deploy(version);
                let mut client = Client::connect(addr);
                let answer = client.call("f", b"x").unwrap();
                assert_eq!(answer.text(), format!("v{version} x"), "{backend:?}");
                let at = done.load(Ordering::Relaxed);
                eventually("calls", || (done.load(Ordering::Relaxed) >= at + CALLS_A_VERSION).then_some(()));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(done.into_inner() >= VERSIONS * CALLS_A_VERSION);
        eventually("the old handlers to go", || (handlers(&board, "f").len() == 2).then_some(()));
    }
}

#[test]
fn sixty_functions_run_on_one_engine_and_wipe_leaves_nothing() {
    const FUNCTIONS: usize = 60;
    const AT_ONCE: usize = 4;
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let mut board = Board::start(Backend::Docker, &[]);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= FUNCTIONS {
                        return;
                    }
                    board.deploy(&format!("f{n}"), "binary", 1, &[("fn.sh", &format!("echo {n}\n"))]);
                }
            });
        }
    });
    for n in 0..FUNCTIONS {
        assert_eq!(board.call(&format!("f{n}"), b"").text(), format!("{n}\n"));
    }
    assert_eq!(board.manage("GET", "/list", b"").text().lines().count(), FUNCTIONS);
    assert_eq!(board.manage("POST", "/wipe", b"").status, 200);
    assert_eq!(board.manage("GET", "/list", b"").text(), "");
    let left = left_on_engine(&board.state_dir);
    // What all functions share is kept: it costs a build. Another test's server may have built the same image at the same
    // time and taken its name; `clean` removes both.
    let shared = |what: &String| {
        ["image tinyfaas-binary:", "image <none>:<none>", "network "].iter().any(|start| what.starts_with(start))
    };
    assert!(left.iter().all(shared), "{left:?}");
    assert_eq!(containers(&board.state_dir, "f0"), [""; 0]);
    assert!(board.stop(), "{}", board.log());
}

#[test]
fn a_large_body_on_its_way_does_not_keep_small_calls_waiting() {
    const LARGE: usize = 64 << 20;
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("cat", "binary", 1, &[("fn.sh", "exec cat\n")]);
        board.deploy("small", "python3", 1, &[("fn.py", "def fn(input):\n    return input\n")]);
        let addr = board.http.unwrap();
        let (large, small) = (AtomicBool::new(true), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let sent = crate::watch::pass_through(addr, "cat", LARGE);
                large.store(false, Ordering::Relaxed);
                assert_eq!(sent, LARGE);
            });
            scope.spawn(|| {
                let mut client = Client::connect(addr);
                while large.load(Ordering::Relaxed) {
                    assert_eq!(client.call("small", b"x").unwrap().text(), "x");
                    small.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        // One that has to wait for the large one would be answered once.
        let small = small.into_inner();
        assert!(small > 10, "{backend:?}: {small} small calls beside the large one");
    }
}

#[test]
fn more_connections_are_served_than_the_soft_limit_of_files_allows() {
    let dir = TempDir::new();
    let limited = ["prlimit", "--nofile=64:4096", env!("CARGO_BIN_EXE_tinyfaas")];
    let board = Board::start_as(&limited, Backend::Process, &[], dir.0.join("state"));
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(board.http.unwrap())).collect();
    for client in &mut clients {
        assert_eq!(client.call("nobody", b"").unwrap().status, 404);
    }
}
