//! `deploy --watch`: what is saved is deployed.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use super::*;
use crate::board::{Backend, Board, TempDir};

#[test]
fn each_saved_change_is_deployed_and_a_broken_one_does_not_end_it() {
    let dir = TempDir::new();
    let board = Board::start(Backend::Process, &[]);
    let folder = dir.0.join("hello");
    fs::create_dir(&folder).unwrap();
    // As editors save: a new file takes the name.
    let save = |code: &str| {
        fs::write(folder.join("fn.py~"), code).unwrap();
        fs::rename(folder.join("fn.py~"), folder.join("fn.py")).unwrap();
    };
    save("fn = lambda input: 'first'\n");
    // A shell that started the tests in the background has its children ignore ctrl-C, and so would this one.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_tinyfaas"), "deploy", folder.to_str().unwrap()]);
    command.args(["--watch", "--host", &board.management.to_string()]);
    command.env_remove("TINYFAAS_TOKEN").env_remove("TINYFAAS_TOKEN_FILE").env("XDG_CONFIG_HOME", "/nonexistent");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    for scheme in ["http", "coap", "grpc"] {
        assert!(said.next().unwrap().unwrap().starts_with(&format!("{scheme}://")));
    }
    assert_eq!(board.call("hello", b"").text(), "first");

    save("fn = lambda input: 'second'\n");
    assert_eq!(said.next().unwrap().unwrap(), "hello is deployed again");
    assert_eq!(board.call("hello", b"").text(), "second");

    save("def fn(:\n");
    let error = errors.next().unwrap().unwrap();
    assert!(error.starts_with("tinyfaas: HTTP 422: "), "{error}");
    assert_eq!(board.call("hello", b"").text(), "second", "the one before stays");

    save("fn = lambda input: 'third'\n");
    assert_eq!(said.next().unwrap().unwrap(), "hello is deployed again");
    assert_eq!(board.call("hello", b"").text(), "third");

    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("ctrl-C does not end it");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(said.next().is_none(), "nothing more was deployed");
}

#[test]
fn what_no_edit_mends_ends_it() {
    let (code, error) = refused(&["deploy", "--watch", "--url", "http://a/b.zip", "--name", "a", "--env", "python3"]);
    assert!(code == USAGE && error.contains("--watch needs a folder"), "{error}");
    let (code, error) = refused(&["deploy", "--watch", "/nonexistent/folder"]);
    assert!(code == USAGE && error.contains("cannot deploy /nonexistent/folder"), "{error}");
}
