//! Floods from one client and from many: others are answered meanwhile. What memory floods take is in `memory.rs`.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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
