//! `serve --config FILE`: settings from a file, and SIGHUP.

use std::fs;
use std::process::{Command, Stdio};

use crate::board::{Backend, Board, TempDir};
use crate::status::status_of;
use crate::watch::{eventually, signal};

const CAT: &[(&str, &str)] = &[("fn.sh", "cat\n")];

fn hang_up(board: &Board) {
    signal(board.pid().cast_signed(), "HUP");
}

#[test]
fn sighup_takes_over_what_can_change_tells_what_cannot_and_keeps_all_where_the_file_is_wrong() {
    let dir = TempDir::new();
    let file = dir.0.join("tinyfaas.json");
    fs::write(&file, r#"{"timeout": "7s", "max-functions": 1, "max-body": "1Ki"}"#).unwrap();
    let mut board = Board::start(Backend::Process, &["--config", file.to_str().unwrap(), "--queue", "5"]);
    board.deploy("f", "binary", 1, CAT);
    let limits = status_of(&board, "f")["limits"].clone();
    assert_eq!((&limits["timeout"], &limits["queue"]), (&"7s".into(), &5.into()));
    assert_eq!(board.call("f", &[b'x'; 2048]).status, 413);
    assert_eq!(board.upload("g", "binary", 1, &crate::board::zip_of(CAT)).status, 409);

    fs::write(&file, r#"{"timeout": "8s", "queue": 6, "max-body": "4Ki", "log": "debug"}"#).unwrap();
    hang_up(&board);
    board.wait_for("what needs a restart", |b| b.log().contains("WARN max-body is other").then_some(()));
    for told in ["INFO timeout was changed", "INFO max-functions was changed", "INFO log was changed"] {
        assert!(board.log().contains(told), "{told}\n{}", board.log());
    }
    assert!(!board.log().contains("queue"), "the flag wins\n{}", board.log());
    board.deploy("g", "binary", 1, CAT);
    let limits = status_of(&board, "g")["limits"].clone();
    assert_eq!((&limits["timeout"], &limits["queue"]), (&"8s".into(), &5.into()));
    assert_eq!(status_of(&board, "f")["limits"]["timeout"], "7s", "what is deployed stays as it was asked for");
    assert_eq!(board.call("f", &[b'x'; 2048]).status, 413);

    fs::write(&file, "{\"timeout\": \"9s\",\n\n\"qeue\": 1}").unwrap();
    hang_up(&board);
    board.wait_for("the refusal", |b| b.log().contains("the settings stay as they were").then_some(()));
    assert!(board.log().contains("line 3: qeue is no setting"), "{}", board.log());
    board.deploy("h", "binary", 1, CAT);
    assert_eq!(status_of(&board, "h")["limits"]["timeout"], "8s");
}

#[test]
fn a_wrong_file_is_one_line_and_the_server_does_not_start() {
    let dir = TempDir::new();
    let file = dir.0.join("tinyfaas.json");
    fs::write(&file, "{\"grpc\": \"off\",\n\"timeout\": 60}").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas"))
        .arg("serve")
        .arg("--config")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.starts_with(&format!("tinyfaas: {}: line 2: timeout", file.display())), "{text}");
}

#[test]
fn without_anything_to_read_again_sighup_stops_the_server_in_order() {
    let mut board = Board::start(Backend::Process, &[]);
    hang_up(&board);
    eventually("the end to begin", || board.log().contains("stopping: SIGHUP").then_some(()));
    // Nothing is left to stop: what is asked for is its exit code.
    assert!(board.stop(), "{}", board.log());
}
