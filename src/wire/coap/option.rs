//! Option numbers, and what RFC 7252 §5.4 says of each: may it be ignored, how long is it, may it be repeated.

#![allow(missing_docs)] // The names are the registry's own (RFC 7252 §12.2).

pub const IF_MATCH: u16 = 1;
pub const URI_HOST: u16 = 3;
pub const ETAG: u16 = 4;
pub const IF_NONE_MATCH: u16 = 5;
pub const OBSERVE: u16 = 6;
pub const URI_PORT: u16 = 7;
pub const LOCATION_PATH: u16 = 8;
pub const URI_PATH: u16 = 11;
pub const CONTENT_FORMAT: u16 = 12;
pub const MAX_AGE: u16 = 14;
pub const URI_QUERY: u16 = 15;
pub const HOP_LIMIT: u16 = 16;
pub const ACCEPT: u16 = 17;
pub const LOCATION_QUERY: u16 = 20;
pub const BLOCK2: u16 = 23;
pub const BLOCK1: u16 = 27;
pub const SIZE2: u16 = 28;
pub const PROXY_URI: u16 = 35;
pub const PROXY_SCHEME: u16 = 39;
pub const SIZE1: u16 = 60;
pub const ECHO: u16 = 252;
pub const NO_RESPONSE: u16 = 258;
pub const REQUEST_TAG: u16 = 292;

/// What is known of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The name after `coap-` of the header field that carries it to a function.
    pub name: &'static str,
    /// Shortest and longest value in bytes.
    pub length: (usize, usize),
    /// Whether it may stand more than once.
    pub repeatable: bool,
    /// How its value is written in a header field.
    pub value: Value,
}

/// The form of an option's value (RFC 7252 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Empty,
    Opaque,
    Uint,
    Text,
}

/// Whether a recipient that does not understand it must refuse the message (RFC 7252 §5.4.6).
pub const fn is_critical(number: u16) -> bool {
    number & 1 == 1
}

/// Whether it is no part of what makes two requests the same (RFC 7252 §5.4.6).
pub const fn is_no_cache_key(number: u16) -> bool {
    number & 0x1e == 0x1c
}

/// The options this endpoint understands; `None` for any other.
pub const fn definition(number: u16) -> Option<Definition> {
    use Value::{Empty, Opaque, Text, Uint};
    let (name, length, repeatable, value) = match number {
        IF_MATCH => ("if-match", (0, 8), true, Opaque),
        URI_HOST => ("uri-host", (1, 255), false, Text),
        ETAG => ("etag", (1, 8), true, Opaque),
        IF_NONE_MATCH => ("if-none-match", (0, 0), false, Empty),
        OBSERVE => ("observe", (0, 3), false, Uint),
        URI_PORT => ("uri-port", (0, 2), false, Uint),
        LOCATION_PATH => ("location-path", (0, 255), true, Text),
        URI_PATH => ("uri-path", (0, 255), true, Text),
        CONTENT_FORMAT => ("content-format", (0, 2), false, Uint),
        MAX_AGE => ("max-age", (0, 4), false, Uint),
        URI_QUERY => ("uri-query", (0, 255), true, Text),
        HOP_LIMIT => ("hop-limit", (1, 1), false, Uint),
        ACCEPT => ("accept", (0, 2), false, Uint),
        LOCATION_QUERY => ("location-query", (0, 255), true, Text),
        BLOCK2 => ("block2", (0, 3), false, Uint),
        BLOCK1 => ("block1", (0, 3), false, Uint),
        SIZE2 => ("size2", (0, 4), false, Uint),
        PROXY_URI => ("proxy-uri", (1, 1034), false, Text),
        PROXY_SCHEME => ("proxy-scheme", (1, 255), false, Text),
        SIZE1 => ("size1", (0, 4), false, Uint),
        ECHO => ("echo", (1, 40), false, Opaque),
        NO_RESPONSE => ("no-response", (0, 1), false, Uint),
        REQUEST_TAG => ("request-tag", (0, 8), true, Opaque),
        _ => return None,
    };
    Some(Definition { name, length, repeatable, value })
}

/// A number as an option's value: big endian, leading zero bytes allowed; `None` over four bytes.
pub fn uint(value: &[u8]) -> Option<u32> {
    (value.len() <= 4).then(|| value.iter().fold(0, |sum, &b| sum << 8 | u32::from(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_says_whether_an_option_is_critical_and_part_of_the_cache_key() {
        assert!(is_critical(URI_PATH) && is_critical(BLOCK1) && is_critical(PROXY_URI));
        assert!(!is_critical(ETAG) && !is_critical(NO_RESPONSE) && !is_critical(ECHO));
        assert!(is_no_cache_key(SIZE1) && is_no_cache_key(SIZE2) && is_no_cache_key(ECHO));
        assert!(!is_no_cache_key(URI_QUERY) && !is_no_cache_key(REQUEST_TAG));
    }

    #[test]
    fn numbers_may_have_leading_zero_bytes_but_at_most_four_bytes() {
        assert_eq!(uint(b""), Some(0));
        assert_eq!(uint(b"\0\0\x01"), Some(1));
        assert_eq!(uint(b"\xff\xff\xff\xff"), Some(u32::MAX));
        assert_eq!(uint(b"\0\0\0\0\0"), None);
    }
}
