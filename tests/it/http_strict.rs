//! What two parsers of HTTP/1 could read differently: raw bytes to the front door, and what of them a handler receives; raw
//! bytes from a function, and what of them its caller receives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_executor::StaticExecutor;
use base64::Engine as _;
use tinyfaas::budget::Budget;
use tinyfaas::buffers::Buffers;
use tinyfaas::front::http::Front;
use tinyfaas::http_server::{self, Bounds};
use tinyfaas::reactor::{Async, block_on};
use tinyfaas::shutdown::Shutdown;

use crate::board::{Answer, Backend, Board, PATIENCE, TempDir, parse};
use crate::fake_handler::Fake;

/// What comes of a request: the very bytes that the handler receives, or the status of the refusal.
type Outcome = Result<&'static str, u16>;

/// The head that each of the requests below starts with, and the one that a handler gets for it.
const POST: &str = "POST /f HTTP/1.1\r\nHost: h\r\n";
const SENT: &str = "POST /fn HTTP/1.1\r\nHost: h\r\nX-Tinyfaas-Method: POST\r\n";

/// Requests with a head of [`POST`] and the rest as given. Of an outcome too [`SENT`] is left out.
const AFTER_THE_HOST: &[(&str, Outcome)] = &[
    ("\r\n", Ok("content-length: 0\r\n\r\n")),
    ("Content-Length: 5\r\n\r\nhello", Ok("content-length: 5\r\n\r\nhello")),
    ("Content-Length: 005\r\n\r\nhello", Ok("content-length: 5\r\n\r\nhello")),
    ("Content-Length:\t5 \t\r\n\r\nhello", Ok("content-length: 5\r\n\r\nhello")),
    (
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Ok("transfer-encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n"),
    ),
    ("Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", Ok("transfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
    // Both, whichever comes first.
    ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Err(400)),
    // Duplicates, lists, signs, and what is no number.
    ("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Err(400)),
    ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Err(400)),
    ("Content-Length: 5, 5\r\n\r\nhello", Err(400)),
    ("Content-Length: 5,\r\n\r\nhello", Err(400)),
    ("Content-Length: +5\r\n\r\nhello", Err(400)),
    ("Content-Length: -5\r\n\r\nhello", Err(400)),
    ("Content-Length: 0x5\r\n\r\nhello", Err(400)),
    ("Content-Length: 5.0\r\n\r\nhello", Err(400)),
    ("Content-Length: 5 5\r\n\r\nhello", Err(400)),
    ("Content-Length:\r\n\r\nhello", Err(400)),
    ("Content-Length: 18446744073709551616\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Err(501)),
    ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Err(501)),
    ("Transfer-Encoding: identity\r\n\r\n", Err(501)),
    ("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Err(501)),
    ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Err(501)),
    ("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Err(501)),
    ("Transfer-Encoding:\r\n\r\n0\r\n\r\n", Err(501)),
    ("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Err(400)),
    // Other names are other fields.
    ("Content_Length: 5\r\n\r\n", Ok("Content_Length: 5\r\ncontent-length: 0\r\n\r\n")),
    // Space before the colon, folded lines, names and lines that are none.
    ("Content-Length : 0\r\n\r\n", Err(400)),
    ("Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", Err(400)),
    (" X-A: b\r\n\r\n", Err(400)),
    ("X-A: b\r\n folded\r\n\r\n", Err(400)),
    ("X-A: b\r\n\tContent-Length: 5\r\n\r\nhello", Err(400)),
    ("X-A\r\n\r\n", Err(400)),
    (": b\r\n\r\n", Err(400)),
    ("X A: b\r\n\r\n", Err(400)),
    ("X\u{e4}: b\r\n\r\n", Err(400)),
    ("(X): b\r\n\r\n", Err(400)),
    // Line ends that are not CR LF, and control characters.
    ("X-A: b\n\r\n", Err(400)),
    ("X-A: b\r\n\n", Err(400)),
    ("X-A: b\rContent-Length: 5\r\n\r\n", Err(400)),
    ("X-A: b\r\r\n\r\n", Err(400)),
    ("X-A: b\nContent-Length: 5\r\n\r\nhello", Err(400)),
    ("X-A: b\0c\r\n\r\n", Err(400)),
    ("X-A: b\x1b[2J\r\n\r\n", Err(400)),
    ("X\0A: b\r\n\r\n", Err(400)),
    ("X-A: b\tc\r\n\r\n", Ok("X-A: b\tc\r\ncontent-length: 0\r\n\r\n")),
    ("X-A: \u{e4}\r\n\r\n", Ok("X-A: \u{e4}\r\ncontent-length: 0\r\n\r\n")),
    // Chunks: extensions and trailers stay here, sizes that overflow or are no numbers end the call.
    (
        "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5;a=\"b\"\r\nhello\r\n0;c\r\nX-T: forged\r\nContent-Length: 9\r\n\r\n",
        Ok("transfer-encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n"),
    ),
    (
        "Transfer-Encoding: chunked\r\n\r\n000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        Ok("transfer-encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n"),
    ),
    ("Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", Err(400)),
    // Fields of this connection, also those that it names, and those that are the runtime's.
    ("Connection: X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n\r\n", Ok("content-length: 0\r\n\r\n")),
    ("Connection: Host, Content-Length\r\nContent-Length: 2\r\n\r\nhi", Ok("content-length: 2\r\n\r\nhi")),
    ("X-tinyFaaS-Path: /forged\r\nx-tinyfaas-method: GET\r\n\r\n", Ok("content-length: 0\r\n\r\n")),
    // No protocol is changed to.
    (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        Ok("Sec-WebSocket-Version: 13\r\ncontent-length: 0\r\n\r\n"),
    ),
    (
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        Ok("content-length: 0\r\n\r\n"),
    ),
    ("Expect: 200-ok\r\n\r\n", Err(417)),
    // A second host, however it is spelt.
    ("Host: h\r\n\r\n", Err(400)),
    ("hOST: other\r\n\r\n", Err(400)),
];

/// Whole requests.
const WHOLE: &[(&str, Outcome)] = &[
    ("POST /f HTTP/1.1\r\n\r\n", Err(400)),
    ("POST /f HTTP/1.1\r\nHost: a b\r\n\r\n", Err(400)),
    ("POST /f HTTP/1.1\r\nHost: a, b\r\n\r\n", Err(400)),
    ("POST /f HTTP/1.1\r\nHost: u@h\r\n\r\n", Err(400)),
    ("POST /f HTTP/1.1\r\nHost: h/f\r\n\r\n", Err(400)),
    (
        "POST /f HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
        Ok("POST /fn HTTP/1.1\r\nhost: tinyfaas\r\nX-Tinyfaas-Method: POST\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    ("POST /f HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Err(400)),
    // Forms of the target.
    (
        "POST http://h/f HTTP/1.1\r\nHost: h\r\n\r\n",
        Ok("POST /fn HTTP/1.1\r\nHost: h\r\nX-Tinyfaas-Method: POST\r\ncontent-length: 0\r\n\r\n"),
    ),
    ("POST http://h:80/f/a?b#c HTTP/1.1\r\nHost: h:80\r\n\r\n", Err(400)),
    ("POST http://other/f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST http://u@h/f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST https://h/f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST h:80 HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", Err(400)),
    ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST /f#a HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST /f\0 HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    (
        "POST /f/a\u{e4}?b\u{e4} HTTP/1.1\r\nHost: h\r\n\r\n",
        Ok(
            "POST /fn HTTP/1.1\r\nHost: h\r\nX-Tinyfaas-Method: POST\r\nX-Tinyfaas-Path: /a%C3%A4\r\nX-Tinyfaas-Query: b%C3%A4\r\ncontent-length: 0\r\n\r\n",
        ),
    ),
    (
        "POST /%66/a%0d%0a?b%00 HTTP/1.1\r\nHost: h\r\n\r\n",
        Ok(
            "POST /fn HTTP/1.1\r\nHost: h\r\nX-Tinyfaas-Method: POST\r\nX-Tinyfaas-Path: /a%0d%0a\r\nX-Tinyfaas-Query: b%00\r\ncontent-length: 0\r\n\r\n",
        ),
    ),
    // Request lines.
    ("post /f HTTP/1.1\r\nHost: h\r\n\r\n", Err(405)),
    ("PO ST /f HTTP/1.1\r\nHost: h\r\n\r\n", Err(505)),
    ("POST  /f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST /f  HTTP/1.1\r\nHost: h\r\n\r\n", Err(505)),
    ("POST /f HTTP/1.1 \r\nHost: h\r\n\r\n", Err(400)),
    ("POST\t/f\tHTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    (" POST /f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    ("POST /f HTTP/1.1\nHost: h\n\n", Err(400)),
    (
        "\r\n\r\nPOST /f HTTP/1.1\r\nHost: h\r\n\r\n",
        Ok("POST /fn HTTP/1.1\r\nHost: h\r\nX-Tinyfaas-Method: POST\r\ncontent-length: 0\r\n\r\n"),
    ),
    ("\n\nPOST /f HTTP/1.1\r\nHost: h\r\n\r\n", Err(400)),
    // Other versions and protocols.
    ("GET /f\r\n", Err(400)),
    ("GET /f\r\n\r\n", Err(400)),
    ("GET /f HTTP/0.9\r\n\r\n", Err(505)),
    ("GET /f HTTP/1.2\r\nHost: h\r\n\r\n", Err(505)),
    ("GET /f HTTP/2.0\r\nHost: h\r\n\r\n", Err(505)),
    ("GET /f HTTP/11\r\nHost: h\r\n\r\n", Err(505)),
    ("GET /f http/1.1\r\nHost: h\r\n\r\n", Err(505)),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(505)),
    ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", Err(400)),
];

/// All of them as they go on the wire, with those at the bounds of lines and heads.
fn requests() -> Vec<(String, Result<String, u16>)> {
    let mut all: Vec<(String, Result<String, u16>)> = AFTER_THE_HOST
        .iter()
        .map(|(rest, outcome)| {
            // Our own fields come after the caller's.
            let sent = outcome.map(|sent| {
                let own = sent.find("content-length: ").or_else(|| sent.find("transfer-encoding: ")).unwrap();
                let (theirs, ours) = sent.split_at(own);
                SENT.replacen("X-Tiny", &format!("{theirs}X-Tiny"), 1) + ours
            });
            (format!("{POST}{rest}"), sent)
        })
        .chain(WHOLE.iter().map(|(request, outcome)| ((*request).to_owned(), outcome.map(str::to_owned))))
        .collect();
    let head = POST.len() + "X-A: \r\n\r\n".len();
    all.push((format!("{POST}X-A: {}\r\n\r\n", "b".repeat(8193 - head)), Err(431)));
    all.push((format!("{POST}{}\r\n", "A: b\r\n".repeat(64)), Err(431)));
    all.push((format!("POST /{} HTTP/1.1\r\nHost: h\r\n\r\n", "f".repeat(8192)), Err(414)));
    let long = format!("X-A: {}\r\n", "b".repeat(8192 - head));
    all.push((
        format!("{POST}{long}\r\n"),
        Ok(SENT.replacen("X-Tiny", &format!("{long}X-Tiny"), 1) + "content-length: 0\r\n\r\n"),
    ));
    let many: String = (0..60).map(|n| format!("X-{n}: b\r\n")).collect();
    all.push((
        format!("{POST}{many}\r\n"),
        Ok(SENT.replacen("X-Tiny", &format!("{many}X-Tiny"), 1) + "content-length: 0\r\n\r\n"),
    ));
    all
}

/// Sends `request` and reads one answer.
fn ask(addr: SocketAddr, request: &[u8]) -> Answer {
    parse(&bytes_of(addr, request))
}

/// Sends `request` and reads one answer by its length, or to the end.
fn bytes_of(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut piece).unwrap_or(0);
        bytes.extend_from_slice(&piece[..n]);
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
        let text = String::from_utf8_lossy(&bytes[..head.unwrap_or(0)]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let whole = head.zip(length).is_some_and(|(head, length)| bytes.len() >= head + length);
        if whole || head.is_some() && text.starts_with("http/1.1 204") || n == 0 {
            return bytes;
        }
    }
}

/// A front door in this process, and a handler that tells which bytes it received. Incomplete requests it tells as `Err`.
struct Door {
    addr: SocketAddr,
    received: mpsc::Receiver<Result<Vec<u8>, Vec<u8>>>,
    _socket: TempDir,
}

impl Door {
    fn open() -> Self {
        let dir = TempDir::new();
        let socket = dir.0.join("s");
        let handlers = UnixListener::bind(&socket).unwrap();
        let (tell, received) = mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in handlers.incoming().flatten() {
                let (mut bytes, mut piece) = (Vec::new(), [0; 16384]);
                while !is_whole(&bytes) {
                    match stream.read(&mut piece).unwrap_or(0) {
                        0 => break,
                        n => bytes.extend_from_slice(&piece[..n]),
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let told = tell.send(if is_whole(&bytes) { Ok(bytes) } else { Err(bytes) });
                if told.is_err() {
                    return;
                }
            }
        });
        let dispatch = Fake::client_of(socket.to_str().unwrap(), &["f"], 8);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
            let front = Front::new(dispatch, executor, 1, Budget::new(1 << 20));
            let long = Duration::from_secs(100);
            let bounds = Bounds {
                connections: 64,
                connections_each: 0,
                head_timeout: long,
                idle_timeout: long,
                body_timeout: long,
                max_body: 1 << 20,
            };
            let listener = Async::new(listener).unwrap();
            let server = http_server::run(
                listener,
                None,
                Arc::new(front),
                bounds,
                Buffers::default(),
                executor,
                Shutdown::new(),
            );
            block_on(executor.run(server));
        });
        Self { addr, received, _socket: dir }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]);
    match text.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => request.len() >= head + 4 + length.parse::<usize>().unwrap(),
        None => request.ends_with(b"0\r\n\r\n"),
    }
}

/// A head without the call's id, which is another one each time; it has exactly one.
fn without_id(head: &str) -> String {
    let is_id = |line: &&str| line.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("x-call-id:"));
    assert_eq!(head.split_inclusive("\r\n").filter(is_id).count(), 1, "{head:?}");
    head.split_inclusive("\r\n").filter(|line| !is_id(line)).collect()
}

#[test]
fn what_is_ambiguous_is_refused_and_of_the_rest_a_handler_gets_what_the_front_door_read() {
    let door = Door::open();
    for (request, outcome) in requests() {
        let answer = ask(door.addr, request.as_bytes());
        match outcome {
            Ok(sent) => {
                assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
                // The rest of what broke off may come first.
                let received = (0..).find_map(|_| door.received.recv_timeout(PATIENCE).unwrap().ok()).unwrap();
                assert_eq!(without_id(&String::from_utf8_lossy(&received)), sent, "{request:?}");
            }
            Err(status) => {
                assert_eq!(answer.status, status, "{request:?}: {}", answer.text());
                assert_eq!(answer.text().lines().count(), 1, "{request:?}");
                assert!(status == 405 || answer.header("connection") == Some("close"), "{request:?}: {}", answer.head);
            }
        }
        // Of a body that breaks off a handler may have seen the beginning, but never a whole request.
        while let Ok(received) = door.received.try_recv() {
            let whole = received.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert_eq!(whole, None, "{request:?}");
        }
    }
}

#[test]
fn a_function_of_the_server_sees_the_same_through_the_parser_of_another_make() {
    const MIRROR: &str = "module.exports = (req, res) => res.json({ headers: req.headers, body: req.body });\n";
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "nodejs", 1, &[("index.js", MIRROR)]);
    for (request, outcome) in requests() {
        let answer = ask(board.http.unwrap(), request.as_bytes());
        let Ok(sent) = outcome else {
            assert_eq!(Some(answer.status), outcome.err(), "{request:?}: {}", answer.text());
            continue;
        };
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
        let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        let body =
            if head.contains("chunked") { body.split("\r\n").skip(1).step_by(2).collect() } else { body.to_owned() };
        assert_eq!(seen["body"], body, "{request:?}");
        let fields: Vec<(String, &str)> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        for (name, value) in &fields {
            // Node reads values as Latin-1.
            let latin: String = value.bytes().map(char::from).collect();
            assert_eq!(seen["headers"][name], latin, "{request:?}: {name}");
        }
        assert!(seen["headers"]["x-call-id"].is_string(), "{seen}");
        assert_eq!(seen["headers"].as_object().unwrap().len(), fields.len() + 1, "{request:?}: {seen}");
    }
    assert_eq!(board.call("f", b"").status, 200);
}

/// Answers of functions that are refused: the caller gets a 502 and nothing of them.
const BROKEN_ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nX-A: b\nX-Evil: 1\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nX-A: b\rX-Evil: 1\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\r\nX-A: b\0\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nand its bytes",
    "hello",
    "",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nhi\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n",
];

#[test]
fn answers_that_could_be_read_as_others_are_not_passed_on() {
    // What it is sent is what it answers, on its bare socket.
    const RAW: &str = "module.exports = (req, res) => res.socket.end(Buffer.from(req.body, 'base64'));\n";
    let board = Board::start(Backend::Process, &[]);
    board.deploy("raw", "nodejs", 1, &[("index.js", RAW)]);
    let addr = board.http.unwrap();
    let bytes_of = |bytes: &str| {
        let body = base64::engine::general_purpose::STANDARD.encode(bytes);
        let head = format!("POST /raw HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes_of(addr, (head + &body).as_bytes())
    };
    let raw = |bytes: &str| parse(&bytes_of(bytes));
    let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "b".repeat(8192));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(65));
    let interim = format!("{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n".repeat(50));
    for bytes in BROKEN_ANSWERS.iter().copied().chain([&*long, &*many, &*interim]) {
        let answer = raw(bytes);
        assert_eq!(answer.status, 502, "{bytes:?}: {}\n{}", answer.head, answer.text());
        assert!(!answer.head.contains("X-Evil") && answer.text().lines().count() == 1, "{bytes:?}: {}", answer.text());
    }
    // Once the head is out only a connection that breaks off says that the body is not whole.
    for bytes in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    ] {
        let answer = bytes_of(bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && !text.ends_with("0\r\n\r\n"), "{bytes:?}: {text}");
    }
    let answer = raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi");
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("9"), 2));
    // Fields of the handler's connection stay there, and of what follows the answer nobody sees anything.
    let answer = raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nUpgrade: x\r\nTrailer: x\r\nX-Kept: 1\r\n\r\n\
         hiHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
    );
    assert_eq!(answer.text(), "hi");
    assert_eq!(without_id(&answer.head), "HTTP/1.1 200 OK\r\nX-Kept: 1\r\ncontent-length: 2\r\n\r\n");
    let answer = raw("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged");
    assert_eq!(without_id(&answer.head), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").text(), "hi");
}

#[test]
fn a_function_cannot_split_its_answer() {
    const SPLIT: &str =
        "module.exports = (req, res) => res.set('X-A', 'b\\r\\nX-Evil: 1\\r\\n\\r\\nforged').send('hi');\n";
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("f", "nodejs", 1, &[("index.js", SPLIT)]);
        let answer = board.call("f", b"");
        assert_eq!((answer.status, answer.header("x-evil")), (500, None), "{}", answer.text());
    }
}
