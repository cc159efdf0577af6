//! What is done with any bytes that a peer may send as HTTP/1: heads, chunks, and the call that a handler is sent for them.
//!
//! The first byte chooses how the rest is cut.

use tinyfaas::wire::chunked::{ChunkDecoder, LAST, SUFFIX, write_prefix};
use tinyfaas::wire::http1::{Framing, parse_request, parse_response, write_invocation};

/// Fields beyond which our own may find no room beside the caller's.
const FIELDS: usize = 40;

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let (&step, bytes) = input.split_first().unwrap_or((&1, input));
    let step = usize::from(step).max(1);
    assert_eq!(
        decode(bytes, bytes.len().max(1)),
        decode(bytes, step),
        "a body does not depend on where the stream is cut"
    );
    if let Ok(Some(response)) = parse_response(bytes, false) {
        assert!(response.len <= bytes.len());
    }
    let Ok(Some(request)) = parse_request(bytes) else { return };
    assert!(request.len <= bytes.len() && request.target.starts_with(['/', '?', '*']), "{:?}", request.target);
    for cut in (0..request.len).step_by(step) {
        assert_eq!(parse_request(&bytes[..cut]), Ok(None), "a head is not complete before its end");
    }
    if request.headers.iter().count() > FIELDS {
        return;
    }
    let mut call = Vec::new();
    let own = [("X-Tinyfaas-Method", request.method.as_bytes()), ("X-Tinyfaas-Path", request.target.as_bytes())];
    write_invocation(&mut call, &request.headers, &own, request.framing);
    let sent = parse_request(&call).unwrap_or_else(|e| panic!("{e:?}: {}", String::from_utf8_lossy(&call)));
    let sent = sent.expect("a whole head");
    assert_eq!((sent.len, sent.method, sent.target), (call.len(), "POST", "/fn"), "one message and no other");
    assert_eq!(sent.framing, request.framing, "the body ends where its caller says");
    assert_ne!(sent.framing, Framing::UntilClose);
    assert_eq!(sent.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-tinyfaas-method")).count(), 1);
    assert_eq!(sent.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count(), 1);
    if request.framing == Framing::Chunked {
        let (body, done, _) = decode(&bytes[request.len..], step);
        // What is passed on says the same, whole or not.
        let again: Vec<u8> = body.chunks(4096).flat_map(|c| [&write_prefix(c.len())[..], c, SUFFIX].concat()).collect();
        let again = if done { [&again[..], LAST].concat() } else { again };
        assert_eq!(decode(&again, step), (body, done, false), "a handler gets the body that came");
    }
}

/// The body that chunks make, whether it ended, and whether it was refused.
fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, bool, bool) {
    let (mut decoder, mut body) = (ChunkDecoder::new(), Vec::new());
    for mut piece in bytes.chunks(step) {
        while !piece.is_empty() && !decoder.is_done() {
            match decoder.decode(piece) {
                Ok((used, data)) => {
                    assert!(used > 0 && data.len() <= used, "something is read");
                    body.extend_from_slice(data);
                    piece = &piece[used..];
                }
                Err(_) => return (body, false, true),
            }
        }
    }
    (body, decoder.is_done(), false)
}
