//! The gRPC front door against peers that send much that is cheap to send: each flood ends with the connection closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::attacks;
use crate::grpc_door::call;
use crate::grpc_raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, HEADERS, PING, PRIORITY, Peer, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, assert_closed, assert_well, field, frame, open, question, request_block,
};

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
fn others_are_answered_while_calls_are_taken_back_at_once_and_handshakes_stay_half_open() {
    attacks::raise_file_limit();
    let door = open();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| attacks::rapid_reset(door.address, 10, &stop));
        scope.spawn(|| {
            attacks::hold(door.address, attacks::HALF_PREFACE, 30, 1000, |_| !stop.load(Ordering::Relaxed));
        });
        for _ in 0..30 {
            assert_eq!(call(&door.client(), "echo", b"x").payload().unwrap(), "x");
        }
        stop.store(true, Ordering::Relaxed);
    });
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
fn a_flood_of_empty_data_frames_is_closed() {
    let door = open();
    let mut peer = Peer::connect(&door);
    peer.begin_call(1, &[0, 0, 0x0f, 0, 0]);
    assert!(matches!(peer.flood(&frame(DATA, 0, 1, b"")), End::Closed(_)));
    assert_well(&door);
}

#[test]
fn tiny_data_frames_without_end_are_no_way_past_the_bounds() {
    let door = open();
    let mut peer = Peer::connect(&door);
    // A million bytes are announced, so that a byte a frame is a question that goes on. h2 closes a connection that is
    // ahead of us with more of them than its window is worth; what was taken ends with the message that is too large.
    peer.begin_call(1, &[0, 0, 0x0f, 0, 0]);
    let end = peer.flood(&frame(DATA, 0, 1, b"\0"));
    assert!(matches!(end, End::Closed(_)), "{end:?}");
    assert_well(&door);
}
