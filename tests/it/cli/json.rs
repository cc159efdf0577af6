//! `--json`: one object on a line of standard output, of the shape that docs/cli.md has; errors stay lines on standard error.

use serde_json::{Value, json};

use super::*;
use crate::board::{Backend, Board, TempDir};

fn object(output: &Output) -> Value {
    let printed = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(DONE), ""), "{printed}");
    assert!(printed.ends_with('\n') && printed.lines().count() == 1, "{printed}");
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn what_commands_did_is_an_object() {
    let dir = TempDir::new();
    let board = Board::start(Backend::Process, &[]);
    let host = board.management.to_string();
    let run = |args: &[&str]| object(&tinyfaas(args).arg("--json").output().unwrap());
    let folder = dir.0.join("hello");
    let path = folder.to_str().unwrap();

    let made = run(&["new", "python3", path]);
    let next = [format!("tinyfaas deploy {path}"), "tinyfaas invoke hello --data world".to_owned()];
    assert_eq!(made, json!({"env": "python3", "dir": path, "files": ["fn.py"], "next": next}));
    let port = |door: Option<std::net::SocketAddr>| door.unwrap().port();
    let urls = [("http", port(board.http)), ("coap", port(board.coap)), ("grpc", port(board.grpc))]
        .map(|(scheme, port)| format!("{scheme}://127.0.0.1:{port}/hello"));
    let deployed = run(&["deploy", path, "--host", &host]);
    assert_eq!(deployed, json!({"name": "hello", "env": "python3", "urls": urls}));
    let listed = tinyfaas(&["list", "--json", "--host", &host]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["state"]), (&json!("hello"), &json!("healthy")));
    assert_eq!(run(&["delete", "hello", "--host", &host]), json!({"deleted": "hello"}));
    assert_eq!(run(&["wipe", "--yes", "--host", &host]), json!({"wiped": true}));
    assert_eq!(run(&["clean", "--instance", "there-is-none"]), json!({"removed": []}));

    let version = run(&["--version"]);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["build"].is_string());
    let token = run(&["token", "new", "ci"]);
    assert_eq!(token["name"], "ci");
    assert!(token["token"].is_string() && token["line"].as_str().unwrap().starts_with("ci"), "{token}");

    let output = tinyfaas(&["delete", "hello", "--json", "--host", &host]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(NOT_FOUND), ""));
    assert!(text(&output.stderr).starts_with("tinyfaas: HTTP 404: "));
}
