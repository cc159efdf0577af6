//! The options and payload of one response, and how it is written.

use super::Location;
use super::block::Block;
use super::message::{Code, Kind, Token, Writer};
use super::option;

/// A response without type, message id and token.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Its code.
    pub code: Code,
    /// Names this version of the payload (RFC 7252 §5.10.6.1).
    pub etag: Option<Token>,
    /// The place of a notification among others (RFC 7641 §3.4).
    pub observe: Option<u32>,
    /// Where something new is.
    pub location: Option<&'a Location>,
    /// What the payload is.
    pub format: Option<u16>,
    /// For how many seconds it may be used.
    pub max_age: Option<u32>,
    /// Which piece of the answer the payload is.
    pub block2: Option<Block>,
    /// Which piece of the request's body this answers.
    pub block1: Option<Block>,
    /// The whole answer's length in bytes.
    pub size2: Option<usize>,
    /// The longest body of a request in bytes.
    pub size1: Option<usize>,
    /// An Echo value to send back (RFC 9175 §2.2).
    pub echo: Option<&'a [u8]>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// A response of nothing but a code.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            etag: None,
            observe: None,
            location: None,
            format: None,
            max_age: None,
            block2: None,
            block1: None,
            size2: None,
            size1: None,
            echo: None,
            payload: &[],
        }
    }

    /// A code with a line for a person (RFC 7252 §5.5.2).
    pub const fn text(code: Code, text: &'a str) -> Self {
        Self { payload: text.as_bytes(), ..Self::new(code) }
    }

    /// Writes it as a message into `buf`.
    pub fn write(&self, buf: &mut Vec<u8>, kind: Kind, id: u16, token: &Token) {
        let uint = |w: &mut Writer<'_>, number, value: Option<u32>| {
            if let Some(value) = value {
                w.uint(number, value);
            }
        };
        let mut w = Writer::new(buf, kind, self.code, id, token);
        if let Some(etag) = &self.etag {
            w.option(option::ETAG, etag.as_bytes());
        }
        uint(&mut w, option::OBSERVE, self.observe);
        for segment in self.location.into_iter().flat_map(Location::path) {
            w.option(option::LOCATION_PATH, segment.as_bytes());
        }
        uint(&mut w, option::CONTENT_FORMAT, self.format.map(u32::from));
        uint(&mut w, option::MAX_AGE, self.max_age);
        for part in self.location.into_iter().flat_map(Location::query) {
            w.option(option::LOCATION_QUERY, part.as_bytes());
        }
        uint(&mut w, option::BLOCK2, self.block2.map(Block::to_uint));
        uint(&mut w, option::BLOCK1, self.block1.map(Block::to_uint));
        uint(&mut w, option::SIZE2, self.size2.map(|n| n as u32));
        uint(&mut w, option::SIZE1, self.size1.map(|n| n as u32));
        if let Some(echo) = self.echo {
            w.option(option::ECHO, echo);
        }
        w.payload(self.payload);
    }
}
