//! Scale to zero: handlers of functions that nobody calls go, and come back with the next call.

use std::fs;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::board::{Backend, Board, TempDir, json_of, request, zip_of};
use crate::status::status_of;
use crate::watch::{eventually, handlers};

const ECHO: &[(&str, &str)] = &[("fn.py", "def fn(input):\n    return input\n")];

fn deploy(board: &Board, name: &str, idle: &str, files: &[(&str, &str)]) {
    let mut json: Value = serde_json::from_slice(&json_of(name, "python3", 2, &zip_of(files), &[])).unwrap();
    json["idle"] = json!(idle);
    let answer = board.manage("POST", "/upload", json.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn sleeps(board: &Board, name: &str) {
    eventually("sleep", || (status_of(board, name)["state"] == "idle").then_some(()));
    assert!(handlers(board, name).is_empty(), "their memory is given back");
}

#[test]
fn a_function_that_nobody_calls_gives_its_memory_back_and_wakes_for_the_next_call() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        deploy(&board, "f", "1s", ECHO);
        board.deploy("awake", "python3", 1, ECHO);
        for round in 0..2 {
            sleeps(&board, "f");
            let f = status_of(&board, "f");
            assert_eq!(f["idle"], "1s");
            let gone = json!({"id": null, "state": "idle", "in_flight": 0, "restarts": 0, "reason": null});
            assert_eq!(f["handlers"], json!([gone, gone]), "{backend:?}");
            assert_eq!(board.manage("GET", "/list", b"").text(), "awake\nf\n");
            // Several at once: all wait for the same start.
            thread::scope(|scope| {
                let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| board.call("f", b"up"))).collect();
                for call in calls {
                    let answer = call.join().unwrap();
                    assert_eq!((answer.status, answer.text().as_str()), (200, "up"), "{backend:?} {round}");
                }
            });
        }
        assert_eq!(handlers(&board, "awake").len(), 1);
    }
}

#[test]
fn after_a_restart_a_function_that_may_sleep_costs_nothing_until_it_is_called() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--idle", "1h"]);
        board.deploy("f", "python3", 1, ECHO);
        deploy(&board, "never", "off", ECHO);
        let board = board.restart();
        eventually("the other function", || (status_of(&board, "never")["state"] == "healthy").then_some(()));
        sleeps(&board, "f");
        assert_eq!(status_of(&board, "never")["idle"], Value::Null);
        assert_eq!(board.call("f", b"up").text(), "up");
        assert_eq!(status_of(&board, "f")["state"], "healthy");
    }
}

#[test]
fn a_call_that_cannot_wake_its_function_is_told_why_at_once() {
    let marks = TempDir::new();
    let mark = marks.0.join("broken");
    let code = format!(
        "import os, sys\nif os.path.exists({:?}):\n    print('no sensor'); sys.exit(3)\ndef fn(input):\n    return input\n",
        mark.to_str().unwrap()
    );
    // Only children share this machine's files; containers that cannot start are met by a unit test.
    let board = Board::start(Backend::Process, &[]);
    deploy(&board, "f", "1s", &[("fn.py", &code)]);
    sleeps(&board, "f");
    fs::write(&mark, "").unwrap();
    let answer = board.call("f", b"x");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        answer.text().contains("f could not be started") && answer.text().contains("status 3"),
        "{}",
        answer.text()
    );
    let f = status_of(&board, "f");
    assert!(f["handlers"][0]["reason"].as_str().unwrap().contains("status 3"), "{f}");
    fs::remove_file(&mark).unwrap();
    let answer = eventually("the function to wake", || Some(board.call("f", b"up")).filter(|a| a.status != 503));
    assert_eq!((answer.status, answer.text().as_str()), (200, "up"));
}

#[test]
fn no_call_is_lost_while_a_function_falls_asleep_and_wakes() {
    const SLEEPS: usize = 3;
    let board = Board::start(Backend::Process, &[]);
    deploy(&board, "f", "1s", ECHO);
    for n in 0..SLEEPS {
        // The first calls come the very moment at which it is seen to sleep, its handlers still ending.
        eventually("sleep", || (status_of(&board, "f")["state"] == "idle").then_some(()));
        let before = status_of(&board, "f")["calls"].as_u64().unwrap();
        for _ in 0..5 {
            let answer = request(board.http.unwrap(), "POST", "/f", "", b"x");
            assert_eq!((answer.status, answer.text().as_str()), (200, "x"), "{n}");
        }
        assert_eq!(status_of(&board, "f")["calls"].as_u64().unwrap(), before + 5);
    }
}

#[test]
fn deploy_has_a_flag_for_it() {
    let folder = TempDir::new();
    fs::write(folder.0.join("fn.sh"), "cat\n").unwrap();
    let board = Board::start(Backend::Process, &["--idle", "10m"]);
    let host = board.management.to_string();
    for (flags, idle) in
        [(&["--idle", "90s"][..], json!("90s")), (&["--idle", "off"], Value::Null), (&[], json!("10m"))]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
        let dir = folder.0.to_str().unwrap();
        let output = command.args(["deploy", dir, "--name", "f", "--host", &host]).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(status_of(&board, "f")["idle"], idle);
    }
}
