//! `serve --functions DIR`: what is in a folder is deployed at the start and on SIGHUP.

use std::fs;
use std::path::Path;

use crate::board::{Backend, Board, TempDir, zip_of};
use crate::status::status_of;
use crate::watch::{handlers, signal};

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Waits until the folder was looked through so often, and returns what was told of the last time.
fn looked(board: &mut Board, times: usize) -> String {
    let told =
        |b: &Board| b.log().lines().filter(|l| l.contains(" functions deployed, ")).nth(times - 1).map(str::to_owned);
    let line = board.wait_for("the folder to be looked through", told);
    line.split_once(": ").unwrap().1.to_owned()
}

fn hang_up(board: &Board) {
    signal(board.pid().cast_signed(), "HUP");
}

#[test]
fn a_board_has_the_functions_that_it_was_flashed_with() {
    for backend in Backend::available() {
        let dir = TempDir::new();
        write(
            &dir.0,
            &[
                ("hello/fn.py", "import os\ndef fn(input): return os.environ['WHO'] + ' ' + str(input)\n"),
                ("hello/function.json", r#"{"threads":2,"envs":["WHO=board"],"limits":{"timeout":"9s"},"idle":"1h"}"#),
                ("echo/fn.sh", "cat\n"),
                ("bad/fn.py", "import sys\nsys.exit('no sensor')\n"),
                ("unclear/readme", "?"),
                (".hidden/fn.sh", "cat\n"),
                ("notes.txt", "no function"),
                ("packed.json", r#"{"name":"zipped","subfolder_path":"in/it"}"#),
            ],
        );
        fs::write(dir.0.join("packed.zip"), zip_of(&[("in/it/fn.sh", "echo zipped\n")])).unwrap();
        let mut board = Board::start(backend, &["--functions", dir.0.to_str().unwrap(), "--timeout", "50s"]);
        assert_eq!(looked(&mut board, 1), "3 functions deployed, 0 unchanged, 0 deleted, 2 failed", "{}", board.log());
        assert_eq!(board.manage("GET", "/list", b"").text(), "echo\nhello\nzipped\n");
        assert_eq!(board.call("hello", b"x").text(), "board x");
        assert_eq!(board.call("echo", b"x").text(), "x");
        assert_eq!(board.call("zipped", b"").text(), "zipped\n");
        let hello = status_of(&board, "hello");
        assert_eq!((&hello["threads"], &hello["limits"]["timeout"]), (&2.into(), &"9s".into()));
        assert_eq!(status_of(&board, "echo")["limits"]["timeout"], "50s");
        let log = board.log();
        assert!(log.contains("bad is not deployed: ") && log.contains("no sensor"), "{log}");
        assert!(log.contains("unclear is not deployed: ") && log.contains("no fn.py"), "{log}");
    }
}

#[test]
fn sighup_deploys_what_changed_leaves_what_did_not_and_deletes_what_is_gone_but_nothing_that_was_uploaded() {
    let dir = TempDir::new();
    write(
        &dir.0,
        &[("same/fn.sh", "cat\n"), ("new/fn.sh", "echo 1\n"), ("gone/fn.sh", "cat\n"), ("up/fn.sh", "echo folder\n")],
    );
    let mut board = Board::start(Backend::Process, &["--functions", dir.0.to_str().unwrap()]);
    assert!(looked(&mut board, 1).starts_with("4 functions deployed"), "{}", board.log());
    board.deploy("mine", "binary", 1, &[("fn.sh", "echo mine\n")]);
    board.deploy("up", "binary", 1, &[("fn.sh", "echo uploaded\n")]);
    let before = handlers(&board, "same");
    let stored = |board: &Board| fs::metadata(board.state_dir.join("functions/same.fn")).unwrap().modified().unwrap();
    let written = stored(&board);

    fs::remove_dir_all(dir.0.join("gone")).unwrap();
    write(&dir.0, &[("new/fn.sh", "echo 2\n")]);
    hang_up(&board);
    assert_eq!(looked(&mut board, 2), "1 functions deployed, 1 unchanged, 1 deleted, 1 failed", "{}", board.log());
    assert!(board.log().contains("a function named up was uploaded and stays"), "{}", board.log());
    assert_eq!(board.manage("GET", "/list", b"").text(), "mine\nnew\nsame\nup\n");
    assert_eq!(board.call("new", b"").text(), "2\n");
    assert_eq!(board.call("up", b"").text(), "uploaded\n");
    assert_eq!((handlers(&board, "same"), stored(&board)), (before, written));

    // While it is not known what one of them is, it may be the one that seems to be gone.
    fs::remove_dir_all(dir.0.join("new")).unwrap();
    write(&dir.0, &[("same/function.json", "{")]);
    hang_up(&board);
    assert_eq!(looked(&mut board, 3), "0 functions deployed, 0 unchanged, 0 deleted, 2 failed", "{}", board.log());
    assert_eq!(board.call("new", b"").text(), "2\n");
    assert_eq!(board.call("same", b"x").text(), "x");
    // Nor is a folder that cannot be read an empty one: its disk may be missing.
    let aside = dir.0.with_extension("aside");
    fs::rename(&dir.0, &aside).unwrap();
    hang_up(&board);
    board.wait_for("the refusal", |b| b.log().contains("so all stays as it is").then_some(()));
    fs::rename(&aside, &dir.0).unwrap();
    fs::remove_file(dir.0.join("same/function.json")).unwrap();

    // After a restart it is as after SIGHUP, and what was deployed is known to be from the folder still.
    let mut board = board.restart();
    assert_eq!(looked(&mut board, 1), "0 functions deployed, 1 unchanged, 1 deleted, 1 failed", "{}", board.log());
    assert_eq!(board.manage("GET", "/list", b"").text(), "mine\nsame\nup\n");
    assert_eq!(stored(&board), written);
    assert_eq!(board.delete("up").status, 200);
    hang_up(&board);
    assert_eq!(looked(&mut board, 2), "1 functions deployed, 1 unchanged, 0 deleted, 0 failed", "{}", board.log());
    assert_eq!(board.call("up", b"").text(), "folder\n");
}

#[test]
fn a_description_with_a_typing_error_a_second_of_a_name_and_an_archive_too_large_are_refused_by_name() {
    let dir = TempDir::new();
    write(
        &dir.0,
        &[
            ("a/fn.sh", "cat\n"),
            ("b/fn.sh", "cat\n"),
            ("b/function.json", r#"{"name":"a"}"#),
            ("big/fn.sh", "cat\n"),
            ("my-function/fn.sh", "cat\n"),
            ("typo/fn.sh", "cat\n"),
            ("typo/function.json", r#"{"limts":{}}"#),
        ],
    );
    fs::write(dir.0.join("big/data"), crate::board::noise(200_000)).unwrap();
    let mut board = Board::start(Backend::Process, &["--functions", dir.0.to_str().unwrap(), "--max-upload", "64Ki"]);
    assert_eq!(looked(&mut board, 1), "1 functions deployed, 0 unchanged, 0 deleted, 4 failed", "{}", board.log());
    let log = board.log();
    for told in [
        "/b is not deployed: another one in this folder is named a already",
        "/big is not deployed: its archive is larger than --max-upload allows",
        "function.json: name: bad function name \"my-function\"",
        "function.json: \"limts\" is unknown: there are name, env, image, threads, envs, limits, idle, auth, network, subfolder_path",
    ] {
        assert!(log.contains(told), "{told}\n{log}");
    }
    assert_eq!(fs::read_dir(board.state_dir.join("spool")).unwrap().count(), 0);
}
