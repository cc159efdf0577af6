//! What a request asks for: its options read, checked and sorted (RFC 7252 §5.4 and §5.10).

use std::hash::Hasher;

use super::block::Block;
use super::message::{Code, Message};
use super::option::{self, Value};
use crate::wire::headers::Headers;

/// A request whose options were understood.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The message it came in.
    pub message: Message<'a>,
    /// The first segment of its path; empty where there is none.
    pub name: &'a str,
    /// Whether the path is `/.well-known/core`.
    pub discovery: bool,
    /// Whether it asks to be passed on as by a proxy.
    pub proxied: bool,
    /// Whether its query holds `async`.
    pub detached: bool,
    /// The Observe option: 0 registers, 1 deregisters.
    pub observe: Option<u32>,
    /// The piece of the request's body that this is.
    pub block1: Option<Block>,
    /// The piece of the answer that is wanted, or the size of the pieces.
    pub block2: Option<Block>,
    /// The request's body in bytes, as the client says.
    pub size1: Option<u32>,
    /// The only Content-Format that the client takes.
    pub accept: Option<u16>,
    /// The classes of answers that the client does not want.
    pub no_response: NoResponse,
    /// Our own Echo value coming back.
    pub echo: Option<&'a [u8]>,
    /// An entity tag that the client holds.
    pub etag: Option<&'a [u8]>,
}

/// Why a request is not served (RFC 7252 §5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A critical option that is unknown, ill-formed or repeated: 4.02 to a confirmable message, silence otherwise.
    BadOption(u16),
    /// A Block option with a reserved size (RFC 7959 §2.2): 4.00.
    BadBlock,
}

/// The No-Response option (RFC 7967 §2): a set bit is a class of codes that the client does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoResponse(pub u8);

impl NoResponse {
    /// Whether an answer of this code is to be left out.
    pub fn suppresses(self, code: Code) -> bool {
        code.class() > 0 && self.0 & 1 << (code.class() - 1) != 0
    }
}

impl<'a> Request<'a> {
    /// Reads the options of a request.
    ///
    /// # Errors
    /// [`Refusal`] names the option that stands in the way.
    pub fn read(message: Message<'a>) -> Result<Self, Refusal> {
        let mut request = Self {
            message,
            name: "",
            discovery: false,
            proxied: false,
            detached: false,
            observe: None,
            block1: None,
            block2: None,
            size1: None,
            accept: None,
            no_response: NoResponse::default(),
            echo: None,
            etag: None,
        };
        let (mut last, mut segments) = (None, 0);
        for (number, value) in message.options {
            let fits = option::definition(number).filter(|d| {
                (d.length.0..=d.length.1).contains(&value.len())
                    && (d.repeatable || last != Some(number))
                    && (d.value != Value::Text || std::str::from_utf8(value).is_ok())
                    // §5.10.1 forbids both, so that a path means the same wherever it is resolved.
                    && !(number == option::URI_PATH && matches!(value, b"." | b".."))
            });
            last = Some(number);
            match fits {
                Some(_) => request.take(number, value, &mut segments)?,
                None if option::is_critical(number) => return Err(Refusal::BadOption(number)),
                None => {}
            }
        }
        request.discovery &= segments == 2;
        Ok(request)
    }

    fn take(&mut self, number: u16, value: &'a [u8], segments: &mut usize) -> Result<(), Refusal> {
        let uint = option::uint(value);
        match number {
            option::URI_PATH => {
                *segments += 1;
                match *segments {
                    1 => self.name = std::str::from_utf8(value).unwrap_or_default(),
                    2 => self.discovery = self.name == ".well-known" && value == b"core",
                    _ => {}
                }
            }
            option::URI_QUERY => self.detached |= value == b"async" || value.starts_with(b"async="),
            option::PROXY_URI | option::PROXY_SCHEME => self.proxied = true,
            option::OBSERVE => self.observe = uint,
            option::BLOCK1 => self.block1 = Some(uint.and_then(Block::from_uint).ok_or(Refusal::BadBlock)?),
            option::BLOCK2 => self.block2 = Some(uint.and_then(Block::from_uint).ok_or(Refusal::BadBlock)?),
            option::SIZE1 => self.size1 = uint,
            option::ACCEPT => self.accept = uint.map(|n| n as u16),
            option::NO_RESPONSE => self.no_response = NoResponse(uint.unwrap_or_default() as u8),
            option::ECHO => self.echo = Some(value),
            option::ETAG if self.etag.is_none() => self.etag = Some(value),
            _ => {}
        }
        Ok(())
    }

    /// Writes to `hasher` what makes two messages parts of one request: method and options, without those that differ from
    /// block to block (RFC 7959 §2.4, RFC 9175 §3.3).
    pub fn hash_key(&self, hasher: &mut impl Hasher) {
        hasher.write_u8(self.message.code.0);
        for (number, value) in self.message.options {
            let varies = matches!(
                number,
                option::BLOCK1 | option::BLOCK2 | option::OBSERVE | option::NO_RESPONSE | option::ETAG
            );
            if !varies && !option::is_no_cache_key(number) {
                hasher.write_u16(number);
                hasher.write_usize(value.len());
                hasher.write(value);
            }
        }
    }

    /// The path behind the name: empty, or each segment behind a `/`, encoded as in a URI (RFC 7252 §6.5).
    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in self.values(option::URI_PATH).skip(1) {
            path.push('/');
            encode(segment, b"-._~!$&'()*+,;=:@", &mut path);
        }
        path
    }

    /// The query, its parts joined by `&` (RFC 7252 §6.5).
    pub fn query(&self) -> String {
        let mut query = String::new();
        for part in self.values(option::URI_QUERY) {
            if !query.is_empty() {
                query.push('&');
            }
            encode(part, b"-._~!$'()*+,;=:@/?", &mut query);
        }
        query
    }

    /// The values of a repeatable option.
    pub fn values(&self, number: u16) -> impl Iterator<Item = &'a [u8]> {
        self.message.options.filter(move |(n, _)| *n == number).map(|(_, value)| value)
    }

    /// The options as header fields: `coap-NAME`, numbers in decimal, opaque values in hexadecimal, unknown ones as
    /// `coap-option-NUMBER`; `content-type` and `accept` as well where the registry knows them.
    ///
    /// What was read already (path, query, blocks, observe) is left out, and so is what a header field cannot hold.
    pub fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        for (number, value) in self.message.options {
            let _ = match option::definition(number) {
                _ if is_ours(number) => Ok(()),
                Some(d) if d.value == Value::Uint => {
                    let n = option::uint(value).unwrap_or_default();
                    let known = match number {
                        option::CONTENT_FORMAT => super::format::media_type(n as u16).map(|m| ("content-type", m)),
                        option::ACCEPT => super::format::media_type(n as u16).map(|m| ("accept", m)),
                        _ => None,
                    };
                    if let Some((name, media_type)) = known {
                        let _ = headers.push(name, media_type.as_bytes());
                    }
                    headers.push(&format!("coap-{}", d.name), n.to_string().as_bytes())
                }
                Some(d) if d.value == Value::Text => headers.push(&format!("coap-{}", d.name), value),
                Some(d) => headers.push(&format!("coap-{}", d.name), hex(value).as_bytes()),
                None => headers.push(&format!("coap-option-{number}"), hex(value).as_bytes()),
            };
        }
        headers
    }
}

/// Options that concern this endpoint, not the function.
fn is_ours(number: u16) -> bool {
    matches!(
        number,
        option::URI_PATH
            | option::URI_QUERY
            | option::BLOCK1
            | option::BLOCK2
            | option::SIZE1
            | option::SIZE2
            | option::OBSERVE
            | option::ECHO
            | option::REQUEST_TAG
            | option::NO_RESPONSE
    )
}

/// Percent-encodes what is neither a letter, a digit nor in `safe`.
fn encode(bytes: &[u8], safe: &[u8], to: &mut String) {
    for &b in bytes {
        if b.is_ascii_alphanumeric() || safe.contains(&b) {
            to.push(b as char);
        } else {
            to.push('%');
            push_hex(b, b"0123456789ABCDEF", to);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    bytes.iter().for_each(|&b| push_hex(b, b"0123456789abcdef", &mut text));
    text
}

fn push_hex(byte: u8, digits: &[u8; 16], to: &mut String) {
    to.push(char::from(digits[usize::from(byte >> 4)]));
    to.push(char::from(digits[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::super::message::{Kind, Token, Writer};
    use super::*;

    fn message(options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut buf = Vec::new();
        let mut w = Writer::new(&mut buf, Kind::Con, Code::POST, 1, &Token::default());
        options.iter().for_each(|(n, v)| {
            w.option(*n, v);
        });
        buf
    }

    fn read(bytes: &[u8]) -> Result<Request<'_>, Refusal> {
        Request::read(Message::parse(bytes).unwrap())
    }

    #[test]
    fn the_first_segment_is_the_name_and_the_rest_is_encoded() {
        let bytes =
            message(&[(11, b"fn"), (11, b"a/b"), (11, b""), (11, "ä".as_bytes()), (15, b"x=1&2"), (15, b"y /?")]);
        let r = read(&bytes).unwrap();
        assert_eq!((r.name, &*r.path(), &*r.query()), ("fn", "/a%2Fb//%C3%A4", "x=1%262&y%20/?"));
        assert!(!r.discovery && !r.detached);
    }

    #[test]
    fn only_well_known_core_is_discovery() {
        let is = |segments: &[&[u8]]| {
            read(&message(&segments.iter().map(|s| (11, *s)).collect::<Vec<_>>())).unwrap().discovery
        };
        assert!(is(&[b".well-known", b"core"]));
        assert!(!is(&[b".well-known"]) && !is(&[b".well-known", b"core", b"x"]) && !is(&[b"a", b"core"]));
    }

    #[test]
    fn critical_options_that_are_unknown_ill_formed_or_repeated_are_refused() {
        for (options, number) in [
            (&[(9, &b"x"[..])][..], 9),
            (&[(19, b"")], 19),
            (&[(65001, b"")], 65001),
            (&[(3, b"")], 3),
            (&[(5, b"x")], 5),
            (&[(17, b"123")], 17),
            (&[(11, b"\xff")], 11),
            (&[(11, b"f"), (11, b"..")], 11),
            (&[(17, b"\x01"), (17, b"\x01")], 17),
            (&[(23, b"\x06"), (23, b"\x06")], 23),
        ] {
            assert_eq!(read(&message(options)).unwrap_err(), Refusal::BadOption(number));
        }
        assert_eq!(read(&message(&[(27, b"\x07")])).unwrap_err(), Refusal::BadBlock);
    }

    #[test]
    fn elective_options_that_are_unknown_ill_formed_or_repeated_are_ignored() {
        let bytes = message(&[(6, b""), (6, b"\x01"), (12, b"abc"), (258, b"ab"), (65000, b"x")]);
        let r = read(&bytes).unwrap();
        assert_eq!((r.observe, r.no_response), (Some(0), NoResponse(0)));
    }

    #[test]
    fn options_reach_the_function_as_header_fields() {
        let bytes = message(&[
            (1, b"\x0a\xff"),
            (3, b"host"),
            (11, b"fn"),
            (12, b"\x32"),
            (17, b""),
            (252, b"e"),
            (2048, b"\x01"),
        ]);
        let lines = read(&bytes).unwrap().headers();
        assert_eq!(
            String::from_utf8_lossy(lines.as_lines()),
            "coap-if-match: 0aff\r\ncoap-uri-host: host\r\ncontent-type: application/json\r\ncoap-content-format: 50\r\n\
             accept: text/plain;charset=utf-8\r\ncoap-accept: 0\r\ncoap-option-2048: 01\r\n"
        );
    }

    #[test]
    fn no_response_names_classes_by_bits() {
        assert!(!NoResponse(0).suppresses(Code::CONTENT));
        assert!(NoResponse(2).suppresses(Code::CONTENT) && !NoResponse(2).suppresses(Code::NOT_FOUND));
        assert!(NoResponse(26).suppresses(Code::CONTENT) && NoResponse(26).suppresses(Code::UNAVAILABLE));
    }
}
