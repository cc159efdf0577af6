//! The gRPC front door against peers that mean ill: raw HTTP/2 frames (RFC 9113) written by the test itself.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tinyfaas::front::grpc::Config;
use tinyfaas::wire::grpc::message::{Data, framed};

use crate::grpc_door::{Door, call, echo, http, limits};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A peer that writes the bytes it likes.
struct Peer {
    stream: TcpStream,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// How a connection or a stream ended, as the peer saw it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// GOAWAY with this error, or the connection was closed without a word.
    Closed(Option<u32>),
    /// RST_STREAM with this error.
    Reset(u32),
    /// Trailers or trailers-only; the header block as it came.
    Answered,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header field as HPACK's literal without indexing (RFC 7541 §6.2.2), never Huffman-coded.
fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        if text.len() < 127 {
            block.push(text.len() as u8);
        } else {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
        block.extend(text);
    }
}

fn request_block(more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        field(&mut block, name.as_bytes(), value.as_bytes());
    }
    for (name, value) in more {
        field(&mut block, name.as_bytes(), value);
    }
    block
}

fn question(function: &str, body: &[u8]) -> Vec<u8> {
    let function_identifier = function.to_owned().into();
    framed(&Data { function_identifier, data: Default::default(), payload: Some(body.to_vec().into()) }).to_vec()
}

impl Peer {
    /// Connects and says only what RFC 9113 §3.4 asks for.
    fn connect(door: &Door) -> Self {
        let mut peer = Self::mute(door);
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        peer
    }

    /// Connects and says nothing.
    fn mute(door: &Door) -> Self {
        let stream = TcpStream::connect(door.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    /// Sends; `false` when the server closed.
    fn try_send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(e) => panic!("{e}"),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the server closed");
    }

    /// The next frame; `None` when the server closed.
    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    fn read(&mut self, buf: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buf) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(e) => panic!("the server neither answers nor closes: {e}"),
        }
    }

    /// Reads until the connection ends.
    fn closed(&mut self) -> End {
        let mut error = None;
        while let Some(frame) = self.frame() {
            if frame.kind == GOAWAY {
                error = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        End::Closed(error)
    }

    /// Reads until the stream or the connection ends.
    fn end_of(&mut self, stream: u32) -> End {
        while let Some(frame) = self.frame() {
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                GOAWAY => return End::Closed(Some(code(4))),
                RST_STREAM if frame.stream == stream => return End::Reset(code(0)),
                HEADERS if frame.stream == stream && frame.flags & END_STREAM != 0 => return End::Answered,
                _ => {}
            }
        }
        End::Closed(None)
    }

    fn call(&mut self, stream: u32, question: &[u8]) {
        let head = frame(HEADERS, END_HEADERS, stream, &request_block(&[]));
        self.send(&[head, frame(DATA, END_STREAM, stream, question)].concat());
    }

    /// Sends `bytes` until the server closes, a million times at most.
    fn flood(&mut self, bytes: &[u8]) -> End {
        let many = bytes.repeat((8192 / bytes.len()).max(1));
        for _ in 0..1_000_000 / (8192 / bytes.len()).max(1) {
            if !self.try_send(&many) {
                break;
            }
        }
        self.closed()
    }
}

/// Closed, and where a word came before, it was this one. A word can be lost when the server closes while bytes that it
/// did not read are under way: TCP then resets the connection.
fn assert_closed(end: &End, error: u32) {
    assert!(matches!(end, End::Closed(None)) || *end == End::Closed(Some(error)), "{end:?}");
}

fn open() -> Door {
    let mut door = Door::open(Config::default());
    door.install("echo", limits(), echo);
    door
}

/// Another client is served as ever, and nothing is held.
fn assert_well(door: &Door) {
    assert_eq!(call(&door.client(), "echo", b"still here").payload().unwrap(), "still here");
    door.settled();
}

#[test]
fn a_raw_call_is_answered() {
    let door = open();
    let mut peer = Peer::connect(&door);
    peer.call(1, &question("echo", b"x"));
    assert_eq!(peer.end_of(1), End::Answered);
    peer.call(3, &question("nobody", b"x"));
    assert_eq!(peer.end_of(3), End::Answered);
}

#[test]
fn pings_are_answered() {
    let door = open();
    let mut peer = Peer::connect(&door);
    peer.send(&frame(PING, 0, 0, b"12345678"));
    while let Some(frame) = peer.frame() {
        if frame.kind == PING {
            assert_eq!((frame.flags, &frame.payload[..]), (ACK, &b"12345678"[..]));
            return;
        }
    }
    panic!("closed");
}

#[test]
fn a_ping_flood_is_closed() {
    let door = open();
    assert_closed(&Peer::connect(&door).flood(&frame(PING, 0, 0, &[0; 8])), ENHANCE_YOUR_CALM);
    assert_well(&door);
}

#[test]
fn a_ping_flood_from_a_peer_that_never_reads_the_answers_is_closed() {
    let door = open();
    let mut peer = Peer::connect(&door);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
    // 30 million bytes of answers: more than the sockets hold.
    let closed = (0..20_000).any(|_| !peer.try_send(&pings));
    assert!(closed);
    assert_well(&door);
}

#[test]
fn a_settings_flood_is_closed() {
    let door = open();
    assert_closed(&Peer::connect(&door).flood(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])), ENHANCE_YOUR_CALM);
    assert_well(&door);
}

#[test]
fn floods_of_priority_window_and_unknown_frames_are_closed() {
    let door = open();
    for bytes in
        [frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 7]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), frame(0x42, 0, 0, b"what")]
    {
        let end = Peer::connect(&door).flood(&bytes);
        assert!(matches!(end, End::Closed(_)), "{end:?}");
    }
    assert_well(&door);
}

#[test]
fn rapid_reset_is_closed() {
    let door = open();
    let mut peer = Peer::connect(&door);
    let block = request_block(&[]);
    for number in 0..100_000u32 {
        let stream = 2 * number + 1;
        let head = frame(HEADERS, END_HEADERS, stream, &block);
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        if !peer.try_send(&[head, reset].concat()) {
            break;
        }
        assert!(number < 50_000, "streams can be opened and reset without end");
    }
    assert_closed(&peer.closed(), ENHANCE_YOUR_CALM);
    assert_well(&door);
}

#[test]
fn rapid_reset_of_calls_under_way_is_closed_and_their_places_are_free() {
    let door = open();
    let mut peer = Peer::connect(&door);
    let mut number = 0u32;
    'flood: loop {
        // Thirty calls, so that each is begun, and only then their resets.
        for kind in [HEADERS, RST_STREAM] {
            for i in 0..30 {
                let stream = 2 * (number + i) + 1;
                let bytes = if kind == HEADERS {
                    let head = frame(HEADERS, END_HEADERS, stream, &request_block(&[]));
                    [head, frame(DATA, END_STREAM, stream, &question("echo", b"x"))].concat()
                } else {
                    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
                };
                if !peer.try_send(&bytes) {
                    break 'flood;
                }
            }
        }
        number += 30;
        assert!(number < 100_000, "calls can be begun and reset without end");
    }
    assert_well(&door);
}

#[test]
fn a_continuation_flood_is_closed() {
    let door = open();
    let mut peer = Peer::connect(&door);
    peer.send(&frame(HEADERS, 0, 1, &request_block(&[])));
    assert!(matches!(peer.flood(&frame(CONTINUATION, 0, 1, &[])), End::Closed(_)));
    let mut peer = Peer::connect(&door);
    peer.send(&frame(HEADERS, 0, 1, &request_block(&[])));
    let mut block = Vec::new();
    field(&mut block, b"x-more", &[b'v'; 1000]);
    assert!(matches!(peer.flood(&frame(CONTINUATION, 0, 1, &block)), End::Closed(_)));
    assert_well(&door);
}

#[test]
fn a_header_list_over_the_bound_is_refused() {
    let door = open();
    // A little over: HTTP status 431 or a reset for the stream. Far over: the connection is closed.
    for (bytes, far) in [(9_000, false), (15_000, false), (100_000, true)] {
        let mut peer = Peer::connect(&door);
        let value = vec![b'v'; bytes];
        let block = request_block(&[("x-large", &value)]);
        let (first, rest) = block.split_at(block.len().min(16_000));
        let last = if rest.is_empty() { END_HEADERS } else { 0 };
        let mut bytes = frame(HEADERS, last | END_STREAM, 1, first);
        let mut pieces = rest.chunks(16_000).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, flags, 1, piece));
        }
        let sent = peer.try_send(&bytes);
        let end = peer.end_of(1);
        assert!(sent && end == End::Answered && !far || matches!(end, End::Closed(_) | End::Reset(_)), "{end:?}");
    }
    assert_well(&door);
}

#[test]
fn a_compressed_header_bomb_is_refused() {
    let door = open();
    let mut peer = Peer::connect(&door);
    // One field of 3,000 bytes into the table (RFC 7541 §6.2.1), then referred to 4,000 times, a byte each.
    let mut block = request_block(&[]);
    let at = block.len();
    field(&mut block, b"x-bomb", &[b'v'; 3000]);
    block[at] = 0x40;
    block.extend(vec![0x80 | 62; 4000]);
    let _ = peer.try_send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    let end = peer.end_of(1);
    assert!(!matches!(end, End::Answered), "{end:?}");
    assert_well(&door);
}

#[test]
fn floods_of_empty_and_tiny_data_frames_are_closed() {
    let door = open();
    for payload in [&b""[..], b"\0"] {
        let mut peer = Peer::connect(&door);
        // A million bytes are announced, so that tiny frames are a question that never ends.
        let head = frame(HEADERS, END_HEADERS, 1, &request_block(&[]));
        peer.send(&[head, frame(DATA, 0, 1, &[0, 0, 0x0f, 0, 0])].concat());
        if payload.is_empty() {
            assert!(matches!(peer.flood(&frame(DATA, 0, 1, payload)), End::Closed(_)));
        } else {
            // Legal, if foolish: within the window they are taken; nothing is held but what came.
            // h2 closes a connection that is ahead of us with more of them than its window is worth.
            let _ = (0..1000).all(|_| peer.try_send(&frame(DATA, 0, 1, payload)));
            drop(peer);
        }
    }
    assert_well(&door);
}

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
    let mut door = Door::open(Config {
        body_timeout: Duration::from_millis(200),
        keepalive: Duration::from_millis(200),
        keepalive_timeout: Duration::from_millis(200),
        ..Config::default()
    });
    door.install("echo", limits(), echo);
    door.install("large", limits(), |_| http(200, "", &vec![b'x'; 1 << 20]));
    let mut peer = Peer::mute(&door);
    let wide = [&[0, 4][..], &0x7fff_ffffu32.to_be_bytes()].concat();
    let more = frame(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
    peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &wide), &more].concat());
    for number in 0..30 {
        peer.call(2 * number + 1, &question("large", b""));
    }
    // It does not read, and so never answers the server's PING.
    let begun = Instant::now();
    while door.budget.left() < crate::grpc_door::BUDGET || begun.elapsed() < Duration::from_millis(500) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} bytes left", door.budget.left());
        std::thread::sleep(Duration::from_millis(10));
    }
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
fn half_open_handshakes_make_room_for_those_who_speak() {
    let mut door = Door::open(Config { connections: 4, ..Config::default() });
    door.install("echo", limits(), echo);
    let peers: Vec<_> = (0..20).map(|_| Peer::mute(&door)).collect();
    assert_well(&door);
    drop(peers);
}

#[test]
fn an_oversized_frame_is_refused() {
    let door = open();
    let mut peer = Peer::connect(&door);
    peer.send(&frame(HEADERS, END_HEADERS, 1, &request_block(&[])));
    let _ = peer.try_send(&frame(DATA, 0, 1, &[0; 16_385]));
    assert_closed(&peer.closed(), FRAME_SIZE_ERROR);
    assert_well(&door);
}

#[test]
fn data_past_the_window_holds_nothing() {
    let door = open();
    let mut peer = Peer::connect(&door);
    peer.send(&frame(HEADERS, END_HEADERS, 1, &request_block(&[])));
    // Sent in one go: far over what any window update can have allowed by then.
    let _ = peer.try_send(&frame(DATA, 0, 1, &[0; 16_384]).repeat(200));
    // Closed or reset, or answered as more than one message: but there is an end.
    let _: End = peer.end_of(1);
    assert_well(&door);
}

#[test]
fn a_question_cut_at_every_byte_holds_nothing() {
    let door = open();
    let question = question("echo", b"hello");
    for end in 0..question.len() {
        let mut peer = Peer::connect(&door);
        let head = frame(HEADERS, END_HEADERS, 1, &request_block(&[]));
        peer.send(&[head, frame(DATA, 0, 1, &question[..end])].concat());
        drop(peer);
    }
    assert_well(&door);
}

#[test]
fn a_question_in_pieces_of_one_byte_is_answered() {
    let door = open();
    let mut peer = Peer::connect(&door);
    let question = question("echo", b"hello");
    peer.send(&frame(HEADERS, END_HEADERS, 1, &request_block(&[])));
    for (at, byte) in question.iter().enumerate() {
        let flags = if at + 1 == question.len() { END_STREAM } else { 0 };
        peer.send(&frame(DATA, flags, 1, &[*byte]));
    }
    assert_eq!(peer.end_of(1), End::Answered);
}

#[test]
fn a_question_that_pauses_for_too_long_is_given_up() {
    let mut door = Door::open(Config { body_timeout: Duration::from_millis(100), ..Config::default() });
    door.install("echo", limits(), echo);
    let mut peer = Peer::connect(&door);
    let head = frame(HEADERS, END_HEADERS, 1, &request_block(&[]));
    peer.send(&[head, frame(DATA, 0, 1, &[0, 0, 1, 0, 0, 1, 2, 3])].concat());
    assert_eq!(peer.end_of(1), End::Answered);
    assert_well(&door);
}

#[test]
fn trailers_of_a_question_are_passed_over_and_bad_ones_refused() {
    let door = open();
    let mut peer = Peer::connect(&door);
    let head = frame(HEADERS, END_HEADERS, 1, &request_block(&[]));
    let mut block = Vec::new();
    field(&mut block, b"x-late", b"1");
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    peer.send(&[head, frame(DATA, 0, 1, &question("echo", b"x")), trailers].concat());
    assert_eq!(peer.end_of(1), End::Answered);

    // Trailers that do not end the stream, and a pseudo header field behind others: RFC 9113 §8.1 and §8.3.
    let mut pseudo = block.clone();
    field(&mut pseudo, b":path", b"/elsewhere");
    for (flags, block) in [(END_HEADERS, &block), (END_HEADERS | END_STREAM, &pseudo)] {
        let mut peer = Peer::connect(&door);
        let head = frame(HEADERS, END_HEADERS, 1, &request_block(&[]));
        let data = frame(DATA, 0, 1, &question("echo", b"x"));
        peer.send(&[head, data, frame(HEADERS, flags, 1, block)].concat());
        let end = peer.end_of(1);
        assert!(matches!(end, End::Reset(PROTOCOL_ERROR) | End::Closed(Some(PROTOCOL_ERROR))), "{end:?}");
    }
    assert_well(&door);
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_answered() {
    let mut door = Door::open(Config { streams: 4, ..Config::default() });
    door.install("echo", limits(), echo);
    let mut peer = Peer::connect(&door);
    for number in 0..8 {
        peer.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &request_block(&[])));
    }
    peer.send(&frame(DATA, END_STREAM, 1, &question("echo", b"x")));
    let mut refused = 0;
    loop {
        let frame = peer.frame().unwrap();
        match frame.kind {
            // REFUSED_STREAM: safe to try again.
            RST_STREAM => {
                assert_eq!(frame.payload, 7u32.to_be_bytes());
                refused += 1;
            }
            HEADERS if frame.stream == 1 && frame.flags & END_STREAM != 0 => break,
            _ => {}
        }
    }
    assert_eq!(refused, 4);
    drop(peer);
    assert_well(&door);
}

#[test]
fn bytes_that_are_no_frames_are_refused() {
    let door = open();
    let mut seed = 1u32;
    for _ in 0..200 {
        let mut peer = Peer::connect(&door);
        let noise: Vec<u8> = (0..2000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        let _ = peer.try_send(&noise);
        drop(peer);
    }
    assert_well(&door);
}
