//! Any bytes as the JSON of an upload: what is kept is bounded and is JSON, however the stream is cut.
//!
//! The first byte chooses how the rest is cut.

use tinyfaas::wire::upload::{MAX_REST, Parsed, Parser};

/// Largest archive in bytes.
const MOST: u64 = 512;

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let (&step, bytes) = input.split_first().unwrap_or((&1, input));
    let whole = parse(bytes, bytes.len().max(1));
    assert_eq!(whole, parse(bytes, usize::from(step).max(1)), "an upload does not depend on where the stream is cut");
    let Ok((parsed, zip)) = whole else { return };
    assert!(parsed.rest.len() <= MAX_REST && zip.len() as u64 <= MOST);
    assert_eq!(parsed.zip.unwrap_or_default(), zip.len() as u64);
    // Halves of surrogate pairs are JSON (RFC 8259 §8.2), though not text: that is found out when the fields are read.
    assert!(
        serde_json::from_str::<serde::de::IgnoredAny>(&parsed.rest).is_ok()
            && parsed.rest.trim_start().starts_with('{'),
        "{:?}",
        parsed.rest
    );
}

fn parse(bytes: &[u8], step: usize) -> Result<(Parsed, Vec<u8>), String> {
    let (mut parser, mut zip) = (Parser::new(MOST), Vec::new());
    for piece in bytes.chunks(step) {
        parser.feed(piece, &mut zip).map_err(|e| e.to_string())?;
    }
    parser.finish().map(|parsed| (parsed, zip)).map_err(|e| e.to_string())
}
