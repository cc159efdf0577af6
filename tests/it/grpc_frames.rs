//! The gRPC front door against frames that are malformed, cut, foolish or out of place.

use tinyfaas::front::grpc::Config;

use crate::grpc_door::{Door, echo, limits};
use crate::grpc_raw::{
    ACK, DATA, END_HEADERS, END_STREAM, End, FRAME_SIZE_ERROR, HEADERS, PING, PROTOCOL_ERROR, Peer, RST_STREAM,
    assert_closed, assert_well, field, frame, open, question, request_block,
};

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
    // Closed or reset, or answered as more than one message: `end_of` panics where there is no end.
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
fn bytes_that_are_no_frames_end_the_connection() {
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
        // What happens to be a frame's beginning is waited for: it does not come.
        let _ = peer.stream.shutdown(std::net::Shutdown::Write);
        assert!(matches!(peer.closed(), End::Closed(_)));
    }
    assert_well(&door);
}
