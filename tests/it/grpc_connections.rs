//! How long a connection of the gRPC front door lives: handshakes, pauses, peers that do not read, silence, idleness, the end.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use tinyfaas::front::grpc::Config;

use crate::board::{Backend, Board};
use crate::grpc_door::{BUDGET, Door, call, echo, http, limits};
use crate::grpc_raw::{
    ACK, END_STREAM, End, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    assert_closed, assert_well, frame, question,
};
use crate::watch::eventually;

#[test]
fn a_peer_that_never_reads_holds_bounded_memory_and_loses_its_calls() {
    let mut door = Door::open(Config { body_timeout: Duration::from_millis(200), ..Config::default() });
    door.install("echo", limits(), echo);
    door.install("large", limits(), |_| http(200, "", &vec![b'x'; 1 << 20]));
    let mut peer = Peer::mute(&door);
    // A window of nothing (SETTINGS_INITIAL_WINDOW_SIZE 0).
    peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
    for number in 0..8 {
        peer.call(2 * number + 1, &question("large", b""));
    }
    let ends: Vec<_> = (0..8)
        .map(|_| {
            loop {
                let frame = peer.frame().expect("the connection goes on");
                if frame.kind == RST_STREAM || frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
                    break frame.kind;
                }
            }
        })
        .collect();
    // Eight answers of a mebibyte pass the budget: some are RESOURCE_EXHAUSTED, those that got memory are reset.
    assert!(ends.contains(&RST_STREAM), "{ends:?}");
    assert_well(&door);
}

#[test]
fn a_peer_that_opens_its_window_wide_and_never_reads_is_closed() {
    let mut door = Door::open(Config { body_timeout: Duration::from_secs(1), ..Config::default() });
    door.install("echo", limits(), echo);
    door.install("large", limits(), |_| http(200, "", &vec![b'x'; 1 << 20]));
    let mut peer = Peer::mute(&door);
    let wide = [&[0, 4][..], &0x7fff_ffffu32.to_be_bytes()].concat();
    let more = frame(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
    peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &wide), &more].concat());
    for number in 0..30 {
        peer.call(2 * number + 1, &question("large", b""));
    }
    while door.budget.left() == BUDGET {
        std::thread::sleep(Duration::from_millis(1));
    }
    door.settled();
    assert_closed(&peer.closed(), NO_ERROR);
    assert_well(&door);
}

#[test]
fn half_open_handshakes_are_closed() {
    let door = Door::open(Config { handshake_timeout: Duration::from_millis(100), ..Config::default() });
    for said in
        [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc"]
    {
        let mut peer = Peer::mute(&door);
        let _ = peer.try_send(said);
        assert!(matches!(peer.closed(), End::Closed(_)), "{said:?}");
    }
}

#[test]
fn who_leaves_in_the_middle_of_the_first_line_is_gone_at_once() {
    let board = Board::start(Backend::Process, &["--head-timeout", "10m"]);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", board.pid())).unwrap().count();
    let before = files();
    let begun: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(board.grpc.unwrap()).unwrap();
            stream.write_all(&PREFACE[..10]).unwrap();
            stream
        })
        .collect();
    eventually("all to be accepted", || (files() >= before + 20).then_some(()));
    drop(begun);
    eventually("all to be gone", || (files() <= before).then_some(()));
}

#[test]
fn half_open_handshakes_make_room_for_those_who_speak() {
    let mut door = Door::open(Config { connections: 4, ..Config::default() });
    door.install("echo", limits(), echo);
    let peers: Vec<_> = (0..20).map(|_| Peer::mute(&door)).collect();
    assert_well(&door);
    drop(peers);
}

#[test]
fn connections_whose_questions_do_not_come_make_room_for_those_who_ask() {
    let long = Duration::from_secs(600);
    let mut door = Door::open(Config { connections: 4, body_timeout: long, ..Config::default() });
    door.install("echo", limits(), echo);
    let peers: Vec<_> = (0..12)
        .map(|_| {
            let mut peer = Peer::connect(&door);
            peer.begin_call(1, &[0, 0, 0x0f, 0, 0, 1]);
            peer
        })
        .collect();
    assert_eq!(call(&door.client(), "echo", b"x").payload().unwrap(), "x");
    drop(peers);
    assert_well(&door);
}

#[test]
fn a_connection_with_a_call_at_work_is_kept_and_new_ones_wait() {
    let mut door = Door::open(Config { connections: 1, ..Config::default() });
    door.install("echo", limits(), echo);
    let held = door.install_held("held", limits());
    let mut busy = Peer::connect(&door);
    busy.call(1, &question("held", b""));
    held.begun();
    let mut waiting = Peer::mute(&door);
    waiting.send(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
    waiting.call(1, &question("echo", b"x"));
    held.release();
    assert_eq!(busy.end_of(1), End::Answered);
    assert_eq!(waiting.end_of(1), End::Answered);
}

#[test]
fn a_question_that_pauses_for_too_long_is_given_up() {
    let mut door = Door::open(Config { body_timeout: Duration::from_millis(500), ..Config::default() });
    door.install("echo", limits(), echo);
    let mut peer = Peer::connect(&door);
    peer.begin_call(1, &[0, 0, 1, 0, 0, 1, 2, 3]);
    assert_eq!(peer.end_of(1), End::Answered);
    assert_well(&door);
}

#[test]
fn a_silent_peer_with_a_call_in_flight_is_asked_and_closed_without_an_answer() {
    let keepalive = Duration::from_millis(100);
    let mut door = Door::open(Config { keepalive, keepalive_timeout: keepalive, ..Config::default() });
    door.install("echo", limits(), echo);
    let held = door.install_held("held", limits());
    let mut peer = Peer::connect(&door);
    peer.call(1, &question("held", b""));
    held.begun();
    assert_eq!(peer.frame_of(PING).flags, 0);
    assert_closed(&peer.closed(), NO_ERROR);
    assert!(held.given_up(), "the call goes with the connection");
    assert_well(&door);
}

#[test]
fn a_silent_peer_that_answers_the_servers_pings_keeps_its_call() {
    let (keepalive, keepalive_timeout) = (Duration::from_millis(20), Duration::from_secs(2));
    let mut door = Door::open(Config { keepalive, keepalive_timeout, ..Config::default() });
    let held = door.install_held("held", limits());
    let mut peer = Peer::connect(&door);
    peer.call(1, &question("held", b""));
    held.begun();
    for _ in 0..3 {
        let ping = peer.frame_of(PING);
        peer.send(&frame(PING, ACK, 0, &ping.payload));
    }
    held.release();
    assert_eq!(peer.end_of(1), End::Answered);
}

#[test]
fn an_idle_connection_is_closed_and_one_with_a_call_is_not() {
    let short = Duration::from_millis(50);
    let mut door = Door::open(Config { idle_timeout: short, grace: short, ..Config::default() });
    let held = door.install_held("held", limits());
    let mut busy = Peer::connect(&door);
    busy.call(1, &question("held", b""));
    held.begun();
    // Each of these takes the whole time that a connection may be idle.
    for _ in 0..3 {
        assert_eq!(Peer::connect(&door).closed(), End::Closed(Some(NO_ERROR)));
    }
    held.release();
    assert_eq!(busy.end_of(1), End::Answered);
    assert_eq!(busy.closed(), End::Closed(Some(NO_ERROR)));
}

#[test]
fn goaway_comes_first_when_the_runtime_stops_then_new_calls_are_unavailable_and_those_in_flight_answered() {
    let mut door = Door::open(Config::default());
    let held = door.install_held("held", limits());
    let mut peer = Peer::connect(&door);
    peer.call(1, &question("held", b""));
    held.begun();
    door.begin_stop();
    let first = loop {
        let frame = peer.frame().expect("the call is in flight");
        if !matches!(frame.kind, SETTINGS | WINDOW_UPDATE) {
            break frame;
        }
    };
    assert_eq!((first.kind, &first.payload[4..8]), (GOAWAY, &NO_ERROR.to_be_bytes()[..]));
    // A call that crosses it on its way: this peer did not say yet that it saw the GOAWAY (by answering the PING behind it).
    peer.call(3, &question("held", b""));
    let answer = peer.frame_of(HEADERS);
    assert_eq!((answer.stream, answer.flags & END_STREAM), (3, END_STREAM));
    // The field's value "14", Huffman-coded (RFC 7541, appendix B).
    assert!(answer.payload.windows(3).any(|bytes| bytes == [0x82, 0x0b, 0x5f]), "{answer:?}");
    held.release();
    assert_eq!(peer.end_of(1), End::Answered);
    drop(peer);
    door.stop();
}
