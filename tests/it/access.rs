//! Who may use the management API: tokens, and browsers that show another site's page.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::board::{Backend, Board, TempDir, parse, request};
use crate::coap::coap_client;
use crate::watch::signal;

const CAT: &[(&str, &str)] = &[("fn.sh", "cat\n")];

/// Runs a command without a token of the one who runs the tests.
fn tinyfaas(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
    command.args(args).stdin(Stdio::null()).env_remove("TINYFAAS_TOKEN").env_remove("TINYFAAS_TOKEN_FILE");
    command.env("XDG_CONFIG_HOME", "/nonexistent").envs(vars.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A new token whose line is in `file` then.
pub fn new_token(name: &str, file: &Path) -> String {
    let out = tinyfaas(&["token", "new", name, "--file", file.to_str().unwrap()], &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout).trim().to_owned()
}

fn status(board: &Board, method: &str, target: &str, fields: &str) -> u16 {
    request(board.management, method, target, fields, b"").status
}

#[test]
fn management_beyond_this_machine_needs_tokens_or_the_word_that_it_is_insecure() {
    let dir = TempDir::new();
    let serve = |more: &[&str]| {
        let state = dir.0.join("state");
        let args = ["serve", "--backend", "process", "--state-dir", state.to_str().unwrap()];
        tinyfaas(&[&args[..], more].concat(), &[])
    };
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let out = serve(&["--management", addr]);
        assert_eq!(out.status.code(), Some(2), "{addr}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains("--token-file"), "{}", text(&out.stderr));
    }
    let file = dir.0.join("tokens");
    fs::write(&file, "ci nothing\n").unwrap();
    let out = serve(&["--token-file", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("tokens: line 1: no SHA-256"), "{}", text(&out.stderr));

    let board = Board::start(Backend::Process, &["--management", "0.0.0.0:0", "--insecure-management"]);
    assert!(board.log().contains("--insecure-management"), "{}", board.log());
}

#[test]
fn who_has_a_token_deploys_and_who_has_none_does_not() {
    let dir = TempDir::new();
    let file = dir.0.join("tokens");
    let (ann, ci) = (new_token("ann", &file), new_token("ci", &file));
    let kept = fs::read_to_string(&file).unwrap();
    assert!(!kept.contains(&ann) && !kept.contains(&ci), "only digests are kept: {kept}");
    let mut board = Board::start(Backend::Process, &["--token-file", file.to_str().unwrap()]);

    let host = board.management.to_string();
    let function = dir.0.join("hello");
    fs::create_dir(&function).unwrap();
    fs::write(function.join("fn.sh"), "cat\n").unwrap();
    let deploy = ["deploy", function.to_str().unwrap(), "--host", &host];
    let refused = tinyfaas(&deploy, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("this needs a token"), "{}", text(&refused.stderr));
    let token_file = dir.0.join("token");
    fs::write(&token_file, format!("{ci}\n")).unwrap();
    let done = tinyfaas(&deploy, &[("TINYFAAS_TOKEN_FILE", token_file.to_str().unwrap())]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(board.log().contains("POST /upload by the token ci from 127.0.0.1"), "{}", board.log());
    let listed = tinyfaas(&["list", "--host", &host], &[("TINYFAAS_TOKEN", &ann)]);
    assert_eq!(text(&listed.stdout), "hello\n");
    for target in ["/list", "/functions", "/functions/hello", "/logs"] {
        assert_eq!(status(&board, "GET", target, ""), 401, "{target}");
        assert_eq!(status(&board, "GET", target, &format!("authorization: Bearer {ann}\r\n")), 200, "{target}");
    }
    for target in ["/upload", "/uploadURL", "/delete", "/wipe", "/nothing"] {
        assert_eq!(status(&board, "POST", target, ""), 401, "{target}");
    }
    let answer = request(board.management, "GET", "/list", "", b"");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tinyfaas\""));
    // Calls are everybody's all the same.
    assert_eq!(board.call("hello", b"x").body, b"x");
    assert!(!board.log().contains(&ann) && !board.log().contains(&ci));

    // A token that is taken away, and a new one.
    fs::write(&file, kept.lines().last().unwrap()).unwrap();
    let bob = new_token("bob", &file);
    signal(board.pid().cast_signed(), "HUP");
    board.wait_for("the new tokens", |b| {
        (status(b, "GET", "/list", &format!("authorization: Bearer {bob}\r\n")) == 200).then_some(())
    });
    assert_eq!(status(&board, "GET", "/list", &format!("authorization: Bearer {ci}\r\n")), 200);
    assert_eq!(status(&board, "GET", "/list", &format!("authorization: Bearer {ann}\r\n")), 401);
    fs::write(&file, "").unwrap();
    signal(board.pid().cast_signed(), "HUP");
    board.wait_for("the refusal", |b| b.log().contains("the tokens stay as they were").then_some(()));
    assert_eq!(status(&board, "GET", "/list", &format!("authorization: Bearer {bob}\r\n")), 200);
}

#[test]
fn who_guesses_has_to_wait() {
    let dir = TempDir::new();
    let file = dir.0.join("tokens");
    let token = new_token("ann", &file);
    let board = Board::start(Backend::Process, &["--token-file", file.to_str().unwrap()]);
    let statuses: Vec<u16> =
        (0..11).map(|n| status(&board, "GET", "/list", &format!("authorization: Bearer guess{n}\r\n"))).collect();
    assert_eq!(statuses, [[401; 10].as_slice(), &[429]].concat());
    let answer = request(board.management, "GET", "/list", &format!("authorization: Bearer {token}\r\n"), b"");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("6")));
}

#[test]
fn a_page_of_another_site_cannot_use_the_browser_of_who_is_on_the_board() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "binary", 1, CAT);
    let ask = |request: &str, fields: &str| {
        let mut stream = TcpStream::connect(board.management).unwrap();
        write!(stream, "{request} HTTP/1.1\r\n{fields}content-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        parse(&bytes).status
    };
    for (fields, expected) in [
        ("host: localhost\r\norigin: https://evil.example\r\n", 403),
        ("host: localhost\r\nsec-fetch-site: cross-site\r\n", 403),
        ("host: evil.example\r\norigin: http://evil.example\r\n", 421),
    ] {
        assert_eq!(ask("POST /wipe", fields), expected, "{fields}");
        assert_eq!(ask("GET /functions", fields), expected, "{fields}");
    }
    assert_eq!(board.call("f", b"x").body, b"x");
    let own = format!("host: {0}\r\norigin: http://{0}\r\nsec-fetch-site: same-origin\r\n", board.management);
    assert_eq!(ask("POST /wipe", &own), 200);
}

#[test]
fn a_function_with_tokens_is_called_by_who_has_one_over_every_door() {
    let dir = TempDir::new();
    let file = dir.0.join("callers");
    let token = new_token("sensor", &file);
    let function = dir.0.join("f");
    fs::create_dir(&function).unwrap();
    fs::write(function.join("fn.sh"), "cat\n").unwrap();
    let board = Board::start(Backend::Process, &[]);
    let host = board.management.to_string();
    let done = tinyfaas(
        &["deploy", function.to_str().unwrap(), "--auth", file.to_str().unwrap(), "--host", &host, "--idle", "1s"],
        &[],
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    let board = board.restart();
    assert!(board.manage("GET", "/functions/f", b"").text().contains(r#""auth":1"#));

    let (http, coap, grpc) = (board.http.unwrap(), board.coap.unwrap(), board.grpc.unwrap());
    let invoke = |url: String, more: &[&str]| {
        let out = tinyfaas(&[&["invoke", &url, "--data", "x"], more].concat(), &[]);
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let field = format!("authorization: Bearer {token}");
    for (url, wrong, refusal, right) in [
        (format!("http://{http}/f"), ["--header", "authorization: Bearer tinyfaas_x"], "401", ["--header", &field]),
        (format!("grpc://{grpc}/f"), ["--header", "authorization: Bearer x"], "UNAUTHENTICATED", ["--header", &field]),
        (format!("coap://{coap}/f"), ["--query", "token=x"], "4.01", ["--query", &format!("token={token}")]),
    ] {
        for more in [&[][..], &wrong] {
            let (code, out, err) = invoke(url.clone(), more);
            assert_eq!((code, &*out), (Some(1), ""), "{url} {more:?}");
            assert!(err.contains(refusal) && err.contains("wants a token"), "{url} {more:?}: {err}");
        }
        assert_eq!(invoke(url.clone(), &right), (Some(0), "x".into(), String::new()), "{url}");
    }
    // Clients of other makes.
    let (body, _) = coap_client(&["-m", "post", "-e", "x", &format!("coap://{coap}/f?token={token}")]);
    assert_eq!(body.trim_end(), "x");
    let (body, error) = coap_client(&["-m", "post", "-e", "x", &format!("coap://{coap}/f?token=x")]);
    assert!(format!("{body}{error}").contains("4.01"), "{body}{error}");
    let url = format!("http://{http}/f");
    let out = Command::new("curl").args(["-s", "--data", "x", "--oauth2-bearer", &token, &url]).output().unwrap();
    assert_eq!(text(&out.stdout), "x");
    let later = request(http, "POST", "/f", "x-tinyfaas-async: 1\r\n", b"x");
    assert_eq!((later.status, later.header("www-authenticate")), (401, Some("Bearer realm=\"tinyfaas\"")));
}

#[test]
fn a_token_in_a_coap_query_does_not_reach_the_function() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "binary", 1, &[("fn.sh", "printf %s \"$QUERY_STRING\"\n")]);
    let url = format!("coap://{}/f", board.coap.unwrap());
    let out = tinyfaas(&["invoke", &url, "--query", "a=1&token=secret&b=2"], &[]);
    assert_eq!(text(&out.stdout), "a=1&b=2", "{}", text(&out.stderr));
}
