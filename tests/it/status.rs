//! `GET /functions` and `tinyfaas list --long`: what is deployed and how it is.

use std::process::Command;

use serde_json::{Value, json};

use crate::board::{Backend, Board, json_of, zip_of};
use crate::watch::{eventually, handlers, signal};

const ECHO: &[(&str, &str)] = &[("fn.py", "def fn(input):\n    return input\n")];

/// What the server says of a function; it has to know it.
pub fn status_of(board: &Board, name: &str) -> Value {
    let answer = board.manage("GET", &format!("/functions/{name}"), b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_slice(&answer.body).unwrap()
}

fn list(board: &Board, flags: &[&str]) -> String {
    let host = board.management.to_string();
    let output =
        Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["list", "--host", &host]).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn functions_are_told_with_limits_and_state_but_never_with_the_values_of_their_variables() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        assert_eq!(board.manage("GET", "/functions", b"").text(), "[]\n");
        let mut json: Value =
            serde_json::from_slice(&json_of("f", "python3", 2, &zip_of(ECHO), &["TOKEN=s3cret", "B=s3cret=x"]))
                .unwrap();
        json["limits"] = json!({"memory": "128Mi", "timeout": "90s", "queue": 7});
        assert_eq!(board.manage("POST", "/upload", json.to_string().as_bytes()).status, 200);
        board.deploy("g", "binary", 1, &[("fn.sh", "cat\n")]);
        for _ in 0..3 {
            assert_eq!(board.call("f", b"x").status, 200);
        }
        let all = board.manage("GET", "/functions", b"");
        assert_eq!((all.status, all.header("content-type")), (200, Some("application/json")));
        assert!(!all.text().contains("s3cret"), "{}", all.text());
        // One function a line, for scripts without a parser.
        assert_eq!(all.text().lines().count(), 4, "{}", all.text());
        let parsed: Value = serde_json::from_slice(&all.body).unwrap();
        assert_eq!(parsed[0], status_of(&board, "f"));
        assert_eq!(parsed[1], status_of(&board, "g"));
        let mut f = status_of(&board, "f");
        let digest = f["digest"].take();
        assert_eq!(digest.as_str().unwrap().len(), 32);
        for handler in f["handlers"].as_array_mut().unwrap() {
            assert!(!handler["id"].take().as_str().unwrap().is_empty());
        }
        let well = json!({"id": null, "state": "healthy", "in_flight": 0, "restarts": 0, "reason": null});
        let expected = json!({
            "name": "f", "env": "python3", "threads": 2, "digest": null, "state": "healthy",
            "calls": 3, "in_flight": 0, "waiting": 0, "envs": ["TOKEN", "B"], "handlers": [well, well],
            "limits": {"memory": "128Mi", "cpu": "0", "pids": 256, "timeout": "90s", "concurrency": 8, "queue": 7},
            "idle": null, "image": null, "network": true, "auth": 0,
        });
        assert_eq!(f, expected, "{backend:?}");
        assert_eq!(list(&board, &["--json"]), all.text());
        assert_eq!(list(&board, &[]), "f\ng\n");
        let table = list(&board, &["--long"]);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 3, "{table}");
        assert_eq!(rows[1][..6], ["f", "python3", "healthy", "2/2", "3", "0"]);
        assert_eq!(rows[1].last(), Some(&"TOKEN,B"));
        assert_eq!(board.manage("GET", "/functions/nobody", b"").status, 404);
        assert_eq!(board.manage("GET", "/functions/no-name", b"").status, 400);
        assert_eq!(board.manage("POST", "/functions/f", b"").status, 405);
        assert_eq!(board.manage("POST", "/functions", b"").status, 405);
    }
}

#[test]
fn calls_in_flight_and_waiting_are_counted() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--concurrency", "1", "--grace", "1s"]);
        let waits = "import time\ndef fn(input):\n    time.sleep(1000)\n";
        board.deploy("f", "python3", 1, &[("fn.py", waits)]);
        let addr = board.http.unwrap();
        let open: Vec<_> = (0..3).map(|_| crate::watch::Client::begin(addr, "f")).collect();
        let counted = || {
            let f = status_of(&board, "f");
            (f["in_flight"] == 1 && f["waiting"] == 2).then_some(f)
        };
        let f = eventually("all three calls to be counted", counted);
        assert_eq!((&f["calls"], &f["handlers"][0]["in_flight"]), (&json!(1), &json!(1)));
        drop(open);
    }
}

#[test]
fn a_handler_that_was_killed_is_told_with_the_reason_when_another_one_runs() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("f", "python3", 1, ECHO);
        let before = status_of(&board, "f")["handlers"][0]["id"].clone();
        signal(handlers(&board, "f")[0], "KILL");
        let replaced = || {
            let handler = status_of(&board, "f")["handlers"][0].clone();
            (handler["state"] == "healthy" && handler["id"] != before).then_some(handler)
        };
        let handler = eventually("another handler", replaced);
        assert_eq!(handler["restarts"], 1, "{handler}");
        assert!(handler["reason"].as_str().unwrap().contains("killed by signal 9"), "{handler}");
        let table = list(&board, &["--long"]);
        assert!(table.contains("  handler 1 (") && table.contains("killed by signal 9"), "{table}");
    }
}
