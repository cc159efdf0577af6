//! The contract's HTTP front door, with curl, Python's urllib and raw sockets as clients.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::board::{Answer, Backend, Board, PATIENCE, TempDir, parse, request};

/// Answers what it sees of its call.
const MIRROR: &str = r"
module.exports = (req, res) => {
  if (req.query.status) res.status(Number(req.query.status));
  if (req.query.echo !== undefined) return res.set('Content-Type', 'text/csv').set('X-Unit', 'C').send(req.body);
  res.json({ method: req.method, path: req.path, query: req.query, headers: req.headers, body: req.body });
};
";

fn mirror(backend: Backend, flags: &[&str]) -> Board {
    let board = Board::start(backend, flags);
    board.deploy("mirror", "nodejs", 1, &[("index.js", MIRROR)]);
    board
}

fn seen(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn method_path_query_and_headers_reach_the_function_and_its_answer_passes() {
    for backend in Backend::available() {
        let board = mirror(backend, &[]);
        let http = board.http.unwrap();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let call = seen(&request(http, method, "//mirror/deeper/still?a=1&b=x%20y", "X-One: 1\r\n", b"body"));
            assert_eq!(call["method"], method);
            assert_eq!((&call["path"], &call["body"]), (&"/deeper/still".into(), &"body".into()));
            assert_eq!(call["headers"]["x-tinyfaas-path"], "/deeper/still");
            assert_eq!(call["headers"]["x-tinyfaas-query"], "a=1&b=x%20y");
            assert_eq!(call["headers"]["x-one"], "1");
        }
        let head = request(http, "HEAD", "/mirror?echo", "", b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{}", head.head);
        for method in ["OPTIONS", "TRACE", "BREW"] {
            let answer = request(http, method, "/mirror", "", b"");
            assert_eq!(answer.status, 405, "{method}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
            assert_eq!(answer.text(), "call a function with GET, HEAD, POST, PUT, PATCH or DELETE\n");
        }
        // What a caller may not say: fields of its own connection, and those that are the runtime's.
        let fields = "Connection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nX-Tinyfaas-Path: /forged\r\n";
        let call = seen(&request(http, "POST", "/mirror", fields, b""));
        for gone in ["x-secret", "keep-alive", "te", "proxy-connection"] {
            assert!(call["headers"].get(gone).is_none(), "{gone}: {call}");
        }
        assert_ne!(call["headers"]["x-tinyfaas-path"], "/forged");
        let answer = request(http, "POST", "/mirror?echo&status=418", "", b"1,2");
        assert_eq!((answer.status, answer.text().as_str()), (418, "1,2"));
        assert!(answer.header("content-type").unwrap().starts_with("text/csv"), "{}", answer.head);
        assert_eq!((answer.header("x-unit"), answer.header("keep-alive")), (Some("C"), None));
    }
}

/// A connection of bytes.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn to(board: &Board) -> Self {
        let stream = TcpStream::connect(board.http.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The status of the next answer, and its body by its length.
    fn answer(&mut self) -> (String, String) {
        let status = self.line();
        let mut length = 0;
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

#[test]
fn a_connection_is_kept_and_takes_requests_before_it_gave_answers() {
    let board = mirror(Backend::Process, &[]);
    let mut raw = Raw::to(&board);
    let post = |body: &str| {
        format!("POST /mirror?echo HTTP/1.1\r\nHost: board\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    raw.send(post("one") + &post("two") + "GET /nobody HTTP/1.1\r\nHost: board\r\n\r\n" + &post("three"));
    assert_eq!(raw.answer(), ("HTTP/1.1 200 OK".into(), "one".into()));
    assert_eq!(raw.answer(), ("HTTP/1.1 200 OK".into(), "two".into()));
    let (status, text) = raw.answer();
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert_eq!(text, "no function named \"nobody\": GET /list shows those deployed\n");
    assert_eq!(raw.answer(), ("HTTP/1.1 200 OK".into(), "three".into()));
    raw.send(post("four"));
    assert_eq!(raw.answer(), ("HTTP/1.1 200 OK".into(), "four".into()));
}

#[test]
fn bodies_in_chunks_go_both_ways() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        // Long enough that its length is not known when its first bytes come.
        board.deploy("long", "binary", 1, &[("fn.sh", "cat; head -c 200000 /dev/zero | tr '\\0' z\n")]);
        let mut raw = Raw::to(&board);
        raw.send("POST /long HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        raw.send("5\r\nhello\r\n");
        raw.send("1;ext=1\r\n,\r\n0\r\nX-Trailer: dropped\r\n\r\n");
        let mut bytes = Vec::new();
        raw.0.read_to_end(&mut bytes).unwrap();
        let answer = parse(&bytes);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{}", answer.head);
        assert_eq!((&answer.body[..8], answer.body.len()), (&b"hello,zz"[..], 200_006));
    }
}

#[test]
fn a_client_that_expects_100_is_asked_for_its_body_only_where_it_is_wanted() {
    let board = mirror(Backend::Process, &["--max-body", "1000"]);
    let mut raw = Raw::to(&board);
    raw.send("POST /mirror?echo HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((raw.line().as_str(), raw.line().as_str()), ("HTTP/1.1 100 Continue", ""));
    raw.send("hello");
    assert_eq!(raw.answer(), ("HTTP/1.1 200 OK".into(), "hello".into()));
    for (name, length, status) in
        [("nobody", 5, "HTTP/1.1 404 Not Found"), ("mirror", 1001, "HTTP/1.1 413 Content Too Large")]
    {
        let mut raw = Raw::to(&board);
        raw.send(format!(
            "POST /{name} HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ));
        assert_eq!(raw.answer().0, status);
    }
}

#[test]
fn an_asynchronous_call_is_accepted_at_once_and_happens() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        board.deploy("later", "python3", 1, &[("fn.py", "def fn(input):\n    print('called with', input)\n")]);
        let answer = request(board.http.unwrap(), "POST", "/later", "X-tinyFaaS-Async: anything\r\n", b"23.5");
        assert_eq!((answer.status, answer.text().as_str()), (202, "accepted\n"));
        board.wait_for("the call", |board| {
            board.manage("GET", "/logs?name=later", b"").text().contains("called with 23.5").then_some(())
        });
        let answer = request(board.http.unwrap(), "POST", "/nobody", "X-tinyFaaS-Async: 1\r\n", b"");
        assert_eq!(answer.status, 404);
        let long = vec![b'x'; 65_537];
        assert_eq!(request(board.http.unwrap(), "POST", "/later", "X-tinyFaaS-Async: 1\r\n", &long).status, 413);
    }
}

/// Hangs, dies, or echoes.
const TROUBLE: &str = r#"
import os, threading
def fn(input):
    if input == "hang":
        print("hangs", flush=True)
        threading.Event().wait()
    if input == "die": os._exit(3)
    return input
"#;

#[test]
fn each_failure_has_its_status_and_a_line() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &["--max-body", "1000"]);
        let zip = crate::board::zip_of(&[("fn.py", TROUBLE)]);
        let upload = |name: &str, limits: &str| {
            let json = crate::board::json_of(name, "python3", 1, &zip, &[]);
            let text = String::from_utf8(json).unwrap();
            let text = format!("{},\"limits\":{limits}}}", text.strip_suffix('}').unwrap());
            let answer = board.manage("POST", "/upload", text.as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        upload("late", r#"{"timeout":"200ms"}"#);
        upload("full", r#"{"concurrency":1,"queue":0,"timeout":"1h"}"#);
        let answer = board.call("late", b"hang");
        assert_eq!((answer.status, answer.text().as_str()), (504, "function late did not answer in time\n"));

        let answer = board.call("late", b"die");
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().ends_with('\n') && answer.text().lines().count() == 1, "{}", answer.text());
        board.wait_for("a handler in its place", |b| (b.call("late", b"x").text() == "x").then_some(()));

        let mut hanging = Raw::to(&board);
        hanging.send("POST /full HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\n\r\nhang");
        board.wait_for("the call that hangs", |board| {
            board.manage("GET", "/logs?name=full", b"").text().contains("hangs").then_some(())
        });
        let answer = board.call("full", b"x");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(answer.text(), "all handlers of full are busy and 0 calls wait already: try again later\n");

        let answer = board.call("late", &[b'x'; 1001]);
        assert_eq!((answer.status, answer.text().lines().count()), (413, 1), "{}", answer.text());
        let mut raw = Raw::to(&board);
        raw.send("POST /late HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n");
        raw.send(format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)));
        assert_eq!(raw.answer().0, "HTTP/1.1 413 Content Too Large");
        assert_eq!(board.call("", b"").status, 404);
        assert_eq!(request(board.http.unwrap(), "GET", "/%zz", "", b"").status, 400);
    }
}

#[test]
fn curl_calls_functions() {
    let board = mirror(Backend::Process, &[]);
    let curl = |args: &[&str]| {
        let target = format!("http://{}/mirror?echo", board.http.unwrap());
        let out = Command::new("curl").args(["-sS", "--max-time", "100"]).args(args).arg(target).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let dir = TempDir::new();
    let file = dir.0.join("body");
    // Above a mebibyte curl waits for 100 Continue.
    let long = "0123456789abcdef".repeat(1 << 17);
    fs::write(&file, &long).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(curl(&[]), "");
    assert_eq!(curl(&["--data", "a=b"]), "a=b");
    assert_eq!(curl(&["--data-binary", &format!("@{file}")]), long);
    assert_eq!(curl(&["-T", file]), long);
    assert_eq!(curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &format!("@{file}")]), long);
    let head = curl(&["--head"]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/csv"), "{head}");
    assert_eq!(curl(&["-0", "--data", "old"]), "old", "HTTP/1.0");
}

const URLLIB: &str = r#"
import sys, urllib.error, urllib.request
base = sys.argv[1]
def call(*args, **more):
    with urllib.request.urlopen(urllib.request.Request(*args, **more), timeout=100) as answer:
        return answer.status, answer.headers.get("X-Unit"), answer.read()
assert call(base + "/mirror?echo", data=b"x", method="PUT") == (200, "C", b"x")
assert call(base + "/mirror?echo") == (200, "C", b"")
assert call(base + "/mirror?echo", data=iter([b"in ", b"pieces"]), method="POST") == (200, "C", b"in pieces")
try:
    call(base + "/nobody")
except urllib.error.HTTPError as error:
    assert (error.code, error.read()) == (404, b'no function named "nobody": GET /list shows those deployed\n')
else:
    raise AssertionError("nobody answered")
"#;

#[test]
fn urllib_calls_functions() {
    let board = mirror(Backend::Process, &[]);
    let base = format!("http://{}", board.http.unwrap());
    let out = Command::new("python3").args(["-c", URLLIB, &base]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn port_variables_turn_front_doors_off_and_choose_the_backend() {
    let vars = [("HTTP_PORT", "0"), ("COAP_PORT", "-1"), ("GRPC_PORT", "-1"), ("TF_BACKEND", "process")];
    let board = Board::from_environment(&vars);
    assert_eq!((board.coap, board.grpc), (None, None));
    let answer = board.upload("only", "binary", 1, &crate::board::zip_of(&[("fn.sh", "cat")]));
    let port = board.http.unwrap().port();
    assert_eq!(answer.text(), format!("http://board:{port}/only\n"));
}
