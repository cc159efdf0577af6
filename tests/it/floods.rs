//! Floods from one client and from many: others are answered meanwhile. What memory floods take is in `memory.rs`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures_lite::FutureExt;
use tinyfaas::cli::coap_client::{self, Request};
use tinyfaas::cli::grpc_client::Client as GrpcClient;
use tinyfaas::reactor::Async;
use tinyfaas::wire::coap::Code;
use tinyfaas::wire::headers::Headers;

use crate::attacks;
use crate::board::{Backend, Board, request};
use crate::watch::Client;

/// Connections of a flood, from so many addresses.
const CONNECTIONS: usize = 3000;
const ADDRESSES: usize = 30;
/// Times out of which nothing comes to help.
const PATIENT: [&str; 6] = ["--head-timeout", "10m", "--body-timeout", "10m", "--idle-timeout", "10m"];

fn board(flags: &[&str]) -> Board {
    attacks::raise_file_limit();
    let board = Board::start(Backend::Process, &[&PATIENT[..], flags].concat());
    board.deploy("f", "python3", 1, &[("fn.py", "def fn(input):\n    return input\n")]);
    board
}

fn ask(addr: SocketAddr) {
    let answer = request(addr, "POST", "/f", "", b"hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{}", answer.head);
}

/// Others ask while connections that say `bytes` come, and one that was there before is there afterwards.
fn others_are_served_beside(bytes: &[u8]) {
    let board = board(&["--max-connections", "256"]);
    let addr = board.http.unwrap();
    let mut kept = Client::connect(addr);
    assert_eq!(kept.call("f", b"before").unwrap().text(), "before");
    let more = |made: usize| {
        if made.is_multiple_of(300) {
            ask(addr);
        }
        made < CONNECTIONS
    };
    assert_eq!(attacks::hold(addr, bytes, ADDRESSES, CONNECTIONS, more), CONNECTIONS);
    assert_eq!(kept.call("f", b"after").unwrap().text(), "after", "it has one connection, they have many");
}

#[test]
fn slow_heads_keep_nobody_out() {
    others_are_served_beside(attacks::SLOW_HEAD);
}

#[test]
fn long_heads_without_an_end_keep_nobody_out() {
    others_are_served_beside(&attacks::long_head());
}

#[test]
fn heads_that_are_too_long_keep_nobody_out() {
    others_are_served_beside(&attacks::too_long_head());
}

#[test]
fn bodies_that_never_come_keep_no_handler() {
    let board = board(&["--concurrency", "1", "--queue", "8", "--timeout", "10m"]);
    let addr = board.http.unwrap();
    let held: Vec<_> = (0..3).map(|n| attacks::connect_from(attacks::address(n), addr).unwrap()).collect();
    held.iter().for_each(|mut stream| stream.write_all(attacks::NO_BODY).unwrap());
    ask(addr);
}

#[test]
fn bodies_that_never_come_leave_places_to_others() {
    let board = board(&["--concurrency", "8", "--queue", "8", "--timeout", "10m"]);
    let addr = board.http.unwrap();
    let more = |made: usize| {
        if made.is_multiple_of(100) {
            ask(addr);
            ask_grpc(board.grpc.unwrap());
        }
        made < 1000
    };
    assert_eq!(attacks::hold(addr, attacks::NO_BODY, 100, 500, more), 1000);
}

#[test]
fn a_function_answers_before_its_callers_body_is_there() {
    let board = Board::start(Backend::Process, &PATIENT);
    board.deploy("early", "binary", 1, &[("fn.sh", "echo answer\n")]);
    let mut stream = std::net::TcpStream::connect(board.http.unwrap()).unwrap();
    stream.write_all(b"POST /early HTTP/1.1\r\nHost: b\r\nContent-Length: 20\r\n\r\n0123456789").unwrap();
    let mut answer = String::new();
    while !answer.contains("answer\n") {
        let mut piece = [0; 512];
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "no answer but {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..n]).unwrap());
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Ends what goes on beside a test when that ends, also where it fails: else both would wait for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Callers by every protocol are answered beside datagrams as fast as they go. That by CoAP knows Echo, as libcoap's does.
fn others_are_served_beside_datagrams(asked: attacks::Ask, clients: usize) {
    let board = board(&[]);
    let (http, coap, grpc) = (board.http.unwrap(), board.coap.unwrap(), board.grpc.unwrap());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let flood = scope.spawn(|| attacks::coap(coap, asked, clients, |_| !stop.load(Ordering::Relaxed)));
        for _ in 0..10 {
            ask(http);
            ask_grpc(grpc);
            ask_coap(coap);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(flood.join().unwrap() > 1000, "that was no flood");
    });
    // Who is no part of it and knows nothing of Echo is served again.
    ask_coap(coap);
}

fn ask_grpc(addr: SocketAddr) {
    let stream = std::net::TcpStream::connect(addr).unwrap();
    let answer = tinyfaas::reactor::block_on(async {
        let (client, connection) = GrpcClient::new(Async::new(stream).unwrap(), "b").await.unwrap();
        let headers = Headers::new();
        let call = async { client.call("f", (&b"hello"[..]).into(), &headers, None).await };
        let moving = async { Err(connection.await.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into())) };
        call.or(moving).await
    });
    assert_eq!(answer.unwrap().payload().unwrap(), "hello");
}

/// Asks until it is answered, within the times of CoAP. That a datagram of ours is lost among others is no failure.
fn ask_coap(addr: SocketAddr) {
    let host = addr.ip().to_string();
    let mut last = None;
    for _ in 0..5 {
        let request = Request {
            host: &host,
            port: addr.port(),
            method: Code::POST,
            target: "/f",
            format: None,
            accept: None,
            body: b"hello",
        };
        match coap_client::invoke(&request) {
            Ok(answer) if answer.code == Code::CONTENT => return assert_eq!(answer.body, b"hello"),
            other => last = Some(other),
        }
    }
    panic!("{last:?}");
}

#[test]
fn confirmable_requests_at_the_rate_of_the_wire_keep_nobody_out() {
    others_are_served_beside_datagrams(attacks::Ask::Confirmable, 200);
}

#[test]
fn one_that_asks_at_the_rate_of_the_wire_keeps_nobody_out() {
    others_are_served_beside_datagrams(attacks::Ask::Confirmable, 1);
}

#[test]
fn non_confirmable_requests_at_the_rate_of_the_wire_keep_nobody_out() {
    others_are_served_beside_datagrams(attacks::Ask::NonConfirmable, 200);
}

#[test]
fn connections_that_began_http2_and_do_not_call_keep_nobody_out() {
    let board = board(&[]);
    let addr = board.grpc.unwrap();
    let more = |made: usize| {
        if made.is_multiple_of(200) {
            ask_grpc(addr);
        }
        made < 2000
    };
    assert_eq!(attacks::hold(addr, &attacks::preface(), ADDRESSES, 1000, more), 2000);
}

#[test]
fn asynchronous_calls_keep_nobody_out() {
    let board = board(&[]);
    let addr = board.http.unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| attacks::ask_again(addr, &attacks::async_call(), 8, &stop));
        for _ in 0..50 {
            ask(addr);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    others_are_served_beside(b"");
}
