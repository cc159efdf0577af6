//! Handlers that break, as `/functions` tells it: out of memory, hung, crashing again and again.

use std::fs;
use std::thread;

use serde_json::{Value, json};

use crate::board::{Backend, Board, docker, json_of, zip_of};
use crate::status::status_of;
use crate::watch::{Client, containers, eventually, handlers, signal};

const ECHO: &[(&str, &str)] = &[("fn.py", "def fn(input):\n    return input\n")];

fn handler_of(board: &Board, name: &str) -> Value {
    status_of(board, name)["handlers"][0].clone()
}

/// Stops a process and its children where they are: they neither answer nor end. A container's first process only waits.
fn freeze(pid: i32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().for_each(|child| signal(child.parse().unwrap(), "STOP"));
    signal(pid, "STOP");
}

#[test]
fn a_handler_that_needs_more_memory_than_its_limit_is_replaced_and_the_reason_is_told() {
    let grows =
        "def fn(input):\n    if input == 'grow':\n        return str(len(bytearray(300 << 20)))\n    return input\n";
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let zip = zip_of(&[("fn.py", grows)]);
        let mut json: Value = serde_json::from_slice(&json_of("f", "python3", 1, &zip, &[])).unwrap();
        json["limits"] = json!({"memory": "64Mi"});
        assert_eq!(board.manage("POST", "/upload", json.to_string().as_bytes()).status, 200);
        let answer = board.call("f", b"grow");
        if backend == Backend::Process {
            // An rlimit: Python is refused the memory, and lives on.
            assert_eq!((answer.status, answer.text().contains("MemoryError")), (500, true), "{}", answer.text());
            assert_eq!(handler_of(&board, "f")["restarts"], 0);
        } else {
            assert_eq!(answer.status, 502, "{}", answer.text());
            let handler = eventually("another handler", || {
                Some(handler_of(&board, "f")).filter(|h| h["state"] == "healthy" && h["restarts"] == 1)
            });
            assert_eq!(handler["reason"], "it was killed: out of memory");
        }
        assert_eq!(board.call("f", b"next").text(), "next");
    }
}

#[test]
fn a_handler_that_hangs_is_doubted_then_replaced_and_others_answer_meanwhile() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--timeout", "1s"]);
        board.deploy("f", "python3", 2, ECHO);
        let before: Vec<Value> = status_of(&board, "f")["handlers"].as_array().unwrap().clone();
        freeze(handlers(&board, "f")[0]);
        let addr = board.http.unwrap();
        // Several at once: one alone might be given to the handler that is well.
        eventually("a call to meet it", || {
            let statuses: Vec<u16> = thread::scope(|scope| {
                let calls: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| Client::connect(addr).call("f", b"x").unwrap().status)).collect();
                calls.into_iter().map(|call| call.join().unwrap()).collect()
            });
            assert!(statuses.iter().all(|s| [200, 504].contains(s)), "{statuses:?}");
            statuses.contains(&504).then_some(())
        });
        let handlers = || status_of(&board, "f")["handlers"].as_array().unwrap().clone();
        eventually("doubt", || handlers().iter().any(|h| h["state"] == "doubtful").then_some(()));
        let replaced = eventually("another handler", || {
            let now = handlers();
            let well = now.iter().all(|h| h["state"] == "healthy") && now.iter().any(|h| h["restarts"] == 1);
            well.then_some(now)
        });
        let kept = replaced.iter().filter(|h| before.iter().any(|b| b["id"] == h["id"])).count();
        assert_eq!(kept, 1, "{backend:?}: the other one is left alone");
        let new = replaced.iter().find(|h| h["restarts"] == 1).unwrap();
        assert_eq!(new["reason"], "it does not answer /health any more");
        assert_eq!(board.call("f", b"next").text(), "next");
    }
}

#[test]
fn a_crash_loop_backs_off_and_is_seen() {
    let crashes =
        "import os, threading\nthreading.Timer(0.3, lambda: os._exit(9)).start()\ndef fn(input):\n    return input\n";
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("f", "python3", 1, &[("fn.py", crashes)]);
        let seen = eventually("three restarts", || {
            let f = status_of(&board, "f");
            let handler = &f["handlers"][0];
            (handler["state"] == "backing off" && handler["restarts"].as_u64() >= Some(3)).then_some(f)
        });
        assert_eq!(seen["state"], "backing off");
        assert_eq!(seen["handlers"][0]["id"], Value::Null);
        assert!(seen["handlers"][0]["reason"].as_str().unwrap().contains("status 9"), "{backend:?} {seen}");
    }
}

#[test]
fn a_container_that_comes_late_for_a_server_that_was_killed_is_removed() {
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let board = Board::start(Backend::Docker, &[]);
    board.deploy("f", "binary", 1, &[("fn.sh", "cat\n")]);
    let board = board.power_cut();
    assert_eq!(board.call("f", b"taken over").text(), "taken over");
    let kept = containers(&board.state_dir, "f");
    let instance = fs::read_to_string(board.state_dir.join("instance")).unwrap();
    let labels = [format!("tinyFaaS={}", instance.trim()), "tinyfaas-function=f".into(), "tinyfaas-run=earlier".into()];
    let mut create = vec!["create"];
    labels.iter().for_each(|label| create.extend(["--label", label]));
    create.extend(["tinyfaas-test/binary", "/bin/true"]);
    let late = docker(&create);
    eventually("what came late to go", || {
        let left = docker(&["ps", "-aq", "--no-trunc", "--filter", &format!("label={}", labels[0])]);
        (!left.contains(late.trim())).then_some(())
    });
    assert_eq!(containers(&board.state_dir, "f"), kept, "what was taken over stays");
    assert_eq!(board.call("f", b"still").text(), "still");
}
