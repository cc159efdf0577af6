//! Functions in Go, with Debian's compiler: one image and two builds, since each takes its time.

use std::process::Command;

use crate::board::{Backend, Board, docker_is_ready, request, zip_of};

const FUNCTION: &str = r#"package main

import (
	"errors"
	"strings"
)

func fn(data string, headers map[string]string) (string, error) {
	switch data {
	case "fail":
		return "", errors.New("failed as asked")
	case "panic":
		panic("at the disco")
	}
	return strings.ToUpper(data) + greeting + headers["X-Who"], nil
}
"#;

#[test]
fn a_go_function_is_compiled_once_and_keeps_the_contract() {
    if !docker_is_ready() {
        return;
    }
    let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images/go")).output().unwrap();
    assert!(made.status.success(), "tests/images/go failed:\n{}", String::from_utf8_lossy(&made.stderr));
    let board = Board::start(Backend::Docker, &["--runtime-base", "go=tinyfaas-test/go"]);

    // With the compiler's own words.
    let answer = board.upload("f", "go", 1, &zip_of(&[("fn.go", FUNCTION)]));
    assert_eq!(answer.status, 422, "{}", answer.text());
    for what in ["the build failed: ", "fn.go:15:", "undefined: greeting"] {
        assert!(answer.text().contains(what), "{}", answer.text());
    }
    assert_eq!(board.manage("GET", "/list", b"").text(), "");
    let answer = board.upload("f", "go", 1, &zip_of(&[("main.go", FUNCTION)]));
    assert!(answer.status == 422 && answer.text().contains("env go needs fn.go"), "{}", answer.text());

    let module = "module example.org/f\n\ngo 1.19\n";
    let files =
        [("fn.go", FUNCTION), ("greeting.go", "package main\n\nconst greeting = \" by \"\n"), ("go.mod", module)];
    board.deploy("f", "go", 2, &files);
    let http = board.http.unwrap();
    let call = |fields: &str, body: &[u8]| request(http, "POST", "/f", fields, body);
    assert_eq!(call("x-who: me\r\n", b"hello").text(), "HELLO by me");
    assert_eq!(call("x-who: a\r\nx-who: b\r\n", b"").text(), " by a, b");
    for (body, why) in [("fail", "failed as asked"), ("panic", "panic: at the disco")] {
        let answer = call("", body.as_bytes());
        assert_eq!((answer.status, answer.text().trim_end()), (500, why));
    }
    // The handler lives on, and bodies of any length come whole.
    let body = "go ".repeat(200_000);
    assert_eq!(call("", body.as_bytes()).text(), body.to_uppercase() + " by ");
    let restarts = board.manage("GET", "/functions/f", b"").text().matches(r#""restarts":0"#).count();
    assert_eq!(restarts, 2);
    assert!(board.manage("GET", "/logs?name=f", b"").text().contains("failed as asked"));

    // So it is with what `tinyfaas new go` makes.
    board.deploy("made", "go", 1, &[("fn.go", include_str!("../../templates/go/fn.go"))]);
    assert_eq!(board.call("made", b"world").text(), "hello world\n");
    assert_eq!(board.call("made", b"").text(), "hello nobody\n");

    // What was compiled is kept: no second build.
    let board = board.power_cut();
    assert_eq!(board.call("f", b"again").text(), "AGAIN by ");
}
