//! A function observed over CoAP hears of calls over every door.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use tinyfaas::wire::coap::message::{Code, Kind, Message, Token, Writer};

use crate::board::{Backend, Board};

/// A function that counts what changes it.
const COUNTER: &str = "
count = 0
def fn(input, headers):
    global count
    if input == 'fail':
        raise ValueError('no')
    if headers['X-Tinyfaas-Method'] not in ('GET', 'FETCH'):
        count += 1
    return str(count)
";

/// The next notification's text; a confirmable one is acknowledged.
fn notified(socket: &UdpSocket) -> String {
    let mut buf = [0; 2048];
    let n = socket.recv(&mut buf).expect("a notification");
    let message = Message::parse(&buf[..n]).unwrap();
    assert_eq!((message.code, message.token.as_bytes()), (Code::CONTENT, &b"watch"[..]));
    if message.kind == Kind::Con {
        let [a, b] = message.id.to_be_bytes();
        socket.send(&[0x60, 0, a, b]).unwrap();
    }
    String::from_utf8(message.payload.to_vec()).unwrap()
}

#[test]
fn a_call_that_changes_something_is_notified_by_whatever_door_it_comes() {
    // Only changes make it run: the interval is far beyond the test.
    let board = Board::start(Backend::Process, &["--coap-observe-interval", "1h"]);
    board.deploy("counter", "python3", 1, &[("fn.py", COUNTER)]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(board.coap.unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut register = Vec::new();
    Writer::new(&mut register, Kind::Con, Code::GET, 1, &Token::new(b"watch").unwrap())
        .option(6, b"")
        .option(11, b"counter");
    socket.send(&register).unwrap();
    assert_eq!(notified(&socket), "0");

    let invoke = |url: &str, args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).arg("invoke").arg(url).args(args).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let urls = [
        format!("http://{}/counter", board.http.unwrap()),
        format!("grpc://{}/counter", board.grpc.unwrap()),
        format!("coap://{}/counter", board.coap.unwrap()),
    ];
    for (count, url) in (1..).zip(&urls) {
        // Neither a failure nor a call that only reads is news.
        assert_eq!(invoke(url, &["--data", "fail"]).0, Some(1), "{url}");
        assert_eq!(invoke(url, &["--data", "set"]), (Some(0), count.to_string()), "{url}");
        assert_eq!(notified(&socket), count.to_string(), "{url}");
    }
    assert_eq!(invoke(&urls[0], &["--async", "--data", "set"]).0, Some(0));
    assert_eq!(notified(&socket), "4");
}
