//! What is done with any bytes that a gRPC caller may send: framing in pieces, protobuf, gzip, header values.
//!
//! The first two bytes choose how the rest is cut.

use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use tinyfaas::wire::grpc::descriptor::File;
use tinyfaas::wire::grpc::flood::FloodMeter;
use tinyfaas::wire::grpc::frame::{FrameError, Message, MessageDecoder};
use tinyfaas::wire::grpc::message::{Data, HealthCheckRequest, Response, ServerReflectionRequest, framed};
use tinyfaas::wire::grpc::{gzip, metadata, status, timeout};

/// Largest message in bytes.
const MAX: usize = 4096;

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let (&[step, shift], bytes) = input.split_first_chunk::<2>().unwrap_or((&[1, 0], input));
    let whole = decode([bytes].into_iter());
    let first = usize::from(shift).min(bytes.len());
    let pieces = decode([&bytes[..first]].into_iter().chain(bytes[first..].chunks(usize::from(step).max(1))));
    assert_eq!(whole, pieces, "messages do not depend on where the stream is cut");
    for message in &whole.0 {
        assert!(message.bytes.len() <= MAX);
        look_at(&message.bytes);
    }
    look_at(bytes);

    let now = Instant::now();
    let (mut one, mut other) = (FloodMeter::new(now), FloodMeter::new(now));
    let well = one.received(bytes, now);
    let mut last = true;
    bytes.chunks(usize::from(step).max(1)).for_each(|piece| last = other.received(piece, now));
    assert_eq!(well, last, "what is counted does not depend on where the bytes are cut");
}

type Decoded = (Vec<Message>, Result<(), FrameError>);

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = MessageDecoder::new(MAX);
    let mut messages = Vec::new();
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(e) => return (messages, Err(e)),
            }
        }
    }
    (messages, decoder.finish())
}

fn look_at(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    if let Ok(data) = Data::decode(shared.clone()) {
        let again = Data::decode(framed(&data).slice(5..)).map(|again| again == data);
        assert_eq!(again, Ok(true), "what is written reads back");
    }
    let _ = Response::decode(shared.clone());
    let _ = HealthCheckRequest::decode(shared.clone());
    let _ = ServerReflectionRequest::decode(shared);

    let mut taken = 0;
    let unpacked = gzip::unpack(bytes, MAX, &mut |more| {
        taken += more;
        true
    });
    assert!(taken <= MAX + 1, "a bomb takes no more than the bound");
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.len() <= MAX);
        assert_eq!(gzip::unpack(&gzip::pack(&unpacked), MAX, &mut |_| true), Ok(unpacked));
    }

    let _ = timeout::parse(bytes);
    let encoded = status::encode_message(bytes);
    assert!(encoded.bytes().all(|b| (0x20..=0x7e).contains(&b)));
    if bytes.len() <= status::MESSAGE_MAX && std::str::from_utf8(bytes).is_ok() {
        assert_eq!(status::decode_message(encoded.as_bytes()).as_bytes(), bytes);
    }
    let _ = status::decode_message(bytes);
    let _ = metadata::is_metadata("trace-bin", bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (metadata::is_metadata(text, b"v"), File::with_symbol(text), File::by_name(text));
    }
}
