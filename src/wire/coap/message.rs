//! CoAP messages on the wire: reading one without copying it, and writing one into a buffer that is reused.
//!
//! Layout and format errors are RFC 7252 §3 and §4. What a message means is not decided here. The crate `coap-lite`
//! reads messages too, but it allocates for each option and lets some format errors pass; the tests compare with it.

use std::fmt;

/// Type of a message (RFC 7252 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Confirmable: the peer acknowledges it, or it is sent again.
    Con,
    /// Non-confirmable.
    Non,
    /// Acknowledgement.
    Ack,
    /// Reset: the message could not be made use of.
    Rst,
}

/// A request's method or a response's status: class in the upper three bits, detail in the lower five (RFC 7252 §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u8);

#[allow(missing_docs)] // The names are the registry's own (RFC 7252 §12.1; RFC 7959, 8132, 8516).
impl Code {
    pub const EMPTY: Self = Self(0);
    pub const GET: Self = Self(1);
    pub const POST: Self = Self(2);
    pub const PUT: Self = Self(3);
    pub const DELETE: Self = Self(4);
    pub const FETCH: Self = Self(5);
    pub const PATCH: Self = Self(6);
    pub const IPATCH: Self = Self(7);
    pub const CREATED: Self = Self::new(2, 1);
    pub const DELETED: Self = Self::new(2, 2);
    pub const VALID: Self = Self::new(2, 3);
    pub const CHANGED: Self = Self::new(2, 4);
    pub const CONTENT: Self = Self::new(2, 5);
    pub const CONTINUE: Self = Self::new(2, 31);
    pub const BAD_REQUEST: Self = Self::new(4, 0);
    pub const UNAUTHORIZED: Self = Self::new(4, 1);
    pub const BAD_OPTION: Self = Self::new(4, 2);
    pub const FORBIDDEN: Self = Self::new(4, 3);
    pub const NOT_FOUND: Self = Self::new(4, 4);
    pub const METHOD_NOT_ALLOWED: Self = Self::new(4, 5);
    pub const NOT_ACCEPTABLE: Self = Self::new(4, 6);
    pub const INCOMPLETE: Self = Self::new(4, 8);
    pub const CONFLICT: Self = Self::new(4, 9);
    pub const PRECONDITION_FAILED: Self = Self::new(4, 12);
    pub const TOO_LARGE: Self = Self::new(4, 13);
    pub const UNSUPPORTED_FORMAT: Self = Self::new(4, 15);
    pub const UNPROCESSABLE: Self = Self::new(4, 22);
    pub const TOO_MANY_REQUESTS: Self = Self::new(4, 29);
    pub const INTERNAL: Self = Self::new(5, 0);
    pub const NOT_IMPLEMENTED: Self = Self::new(5, 1);
    pub const BAD_GATEWAY: Self = Self::new(5, 2);
    pub const UNAVAILABLE: Self = Self::new(5, 3);
    pub const GATEWAY_TIMEOUT: Self = Self::new(5, 4);
    pub const PROXYING_NOT_SUPPORTED: Self = Self::new(5, 5);
}

impl Code {
    /// The code `class.detail`; `detail` is at most 31.
    pub const fn new(class: u8, detail: u8) -> Self {
        Self(class << 5 | detail & 0x1f)
    }

    /// The class: 0 request, 2 success, 4 client error, 5 server error.
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// Whether it is the code of a request.
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether it is 2.xx.
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }

    /// Reads `c.dd`, as in `2.05`.
    pub fn parse(text: &str) -> Option<Self> {
        let &[class @ b'2'..=b'5', b'.', tens @ b'0'..=b'3', ones @ b'0'..=b'9'] = text.as_bytes() else { return None };
        let detail = (tens - b'0') * 10 + (ones - b'0');
        (class != b'3' && detail < 32).then(|| Self::new(class - b'0', detail))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.0 & 0x1f)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What ties a response to its request: 0 to 8 bytes that the client chose (RFC 7252 §5.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Token {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Token {
    /// Longest token in bytes.
    pub const MAX: usize = 8;

    /// A token; `None` where it is too long.
    pub fn new(token: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        Some(Self { bytes, len: token.len() as u8 })
    }

    /// The token's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// One message, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Message<'a> {
    /// Its type.
    pub kind: Kind,
    /// Method, status, or [`Code::EMPTY`].
    pub code: Code,
    /// Ties acknowledgement and reset to it, and tells duplicates.
    pub id: u16,
    /// Ties a response to its request.
    pub token: Token,
    /// Its options, in ascending order of their numbers.
    pub options: Options<'a>,
    /// What follows the payload marker; empty where there is none.
    pub payload: &'a [u8],
}

/// Why a datagram is no message, and what is to be done about it (RFC 7252 §3, §4.2, §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Say nothing: too short, another version, or a format error in a message that asks for no reset.
    Ignore,
    /// A confirmable message with a format error: reject it with a reset of this message id.
    Reset(u16),
}

impl<'a> Message<'a> {
    /// Bytes before the token.
    pub const HEADER: usize = 4;

    /// Reads one datagram.
    ///
    /// # Errors
    /// [`Malformed`] says how the datagram is to be answered.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let Some((&[first, code, id0, id1], rest)) = datagram.split_first_chunk() else {
            return Err(Malformed::Ignore);
        };
        if first >> 6 != 1 {
            return Err(Malformed::Ignore);
        }
        let kind = match first >> 4 & 3 {
            0 => Kind::Con,
            1 => Kind::Non,
            2 => Kind::Ack,
            _ => Kind::Rst,
        };
        let (code, id) = (Code(code), u16::from_be_bytes([id0, id1]));
        let bad = if kind == Kind::Con { Malformed::Reset(id) } else { Malformed::Ignore };
        // An empty message is four bytes and nothing more (§4.1); classes 1, 6 and 7 are reserved (§4.2).
        if (code == Code::EMPTY && (datagram.len() > Self::HEADER || first & 15 != 0))
            || matches!(code.class(), 1 | 6 | 7)
        {
            return Err(bad);
        }
        let (token, rest) = rest.split_at_checked(usize::from(first & 15)).ok_or(bad)?;
        let token = Token::new(token).ok_or(bad)?;
        let (options, payload) = Options::split(rest).ok_or(bad)?;
        Ok(Self { kind, code, id, token, options, payload })
    }
}

/// The options of a message as they stand in the datagram; iterating yields number and value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Options<'a> {
    rest: &'a [u8],
    number: u16,
}

impl<'a> Options<'a> {
    /// Checks the options at the start of `bytes` and splits them from the payload; `None` is a format error.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut walk = Self { rest: bytes, number: 0 };
        loop {
            match walk.rest {
                [] => return Some((Self { rest: bytes, number: 0 }, &[])),
                // A marker without a payload is a format error (§3).
                [0xff] => return None,
                [0xff, payload @ ..] => {
                    let options = bytes.get(..bytes.len() - payload.len() - 1)?;
                    return Some((Self { rest: options, number: 0 }, payload));
                }
                _ => walk.step()?,
            };
        }
    }

    /// The next option; `None` at the end, or where it does not fit.
    fn step(&mut self) -> Option<(u16, &'a [u8])> {
        let (&first, rest) = self.rest.split_first()?;
        let (delta, rest) = extended(first >> 4, rest)?;
        let (length, rest) = extended(first & 15, rest)?;
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        self.number = self.number.checked_add(delta)?;
        self.rest = rest;
        Some((self.number, value))
    }

    /// The first value of the option `number`.
    pub fn first(mut self, number: u16) -> Option<&'a [u8]> {
        self.find(|&(n, _)| n == number).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.step()
    }
}

/// A delta or a length: its four bits, or the one or two bytes that follow (§3.1).
fn extended(nibble: u8, rest: &[u8]) -> Option<(u16, &[u8])> {
    match (nibble, rest) {
        (13, [a, rest @ ..]) => Some((u16::from(*a) + 13, rest)),
        (14, [a, b, rest @ ..]) => Some((u16::from_be_bytes([*a, *b]).checked_add(269)?, rest)),
        (0..=12, _) => Some((u16::from(nibble), rest)),
        _ => None,
    }
}

/// Writes one message into a buffer; options go in ascending order.
#[derive(Debug)]
pub struct Writer<'b> {
    buf: &'b mut Vec<u8>,
    number: u16,
}

impl<'b> Writer<'b> {
    /// Clears `buf` and begins a message in it.
    pub fn new(buf: &'b mut Vec<u8>, kind: Kind, code: Code, id: u16, token: &Token) -> Self {
        buf.clear();
        let kind = match kind {
            Kind::Con => 0,
            Kind::Non => 1,
            Kind::Ack => 2,
            Kind::Rst => 3,
        };
        let [id0, id1] = id.to_be_bytes();
        buf.extend_from_slice(&[0x40 | kind << 4 | token.len, code.0, id0, id1]);
        buf.extend_from_slice(token.as_bytes());
        Self { buf, number: 0 }
    }

    /// Appends an option. One whose number is below the last one's cannot be written, and is left out.
    pub fn option(&mut self, number: u16, value: &[u8]) -> &mut Self {
        let Some(delta) = number.checked_sub(self.number) else {
            debug_assert!(false, "option {number} after {}", self.number);
            return self;
        };
        let Ok(length) = u16::try_from(value.len()) else { return self };
        self.number = number;
        let (delta, delta_more) = shortened(delta);
        let (length, length_more) = shortened(length);
        self.buf.push(delta << 4 | length);
        for (nibble, more) in [(delta, delta_more), (length, length_more)] {
            match nibble {
                13 => self.buf.push(more as u8),
                14 => self.buf.extend_from_slice(&more.to_be_bytes()),
                _ => {}
            }
        }
        self.buf.extend_from_slice(value);
        self
    }

    /// Appends an option whose value is a number, without leading zero bytes (§3.2).
    pub fn uint(&mut self, number: u16, value: u32) -> &mut Self {
        let bytes = value.to_be_bytes();
        let skip = value.leading_zeros() as usize / 8;
        self.option(number, bytes.get(skip..).unwrap_or_default())
    }

    /// Ends the message with its payload.
    pub fn payload(&mut self, payload: &[u8]) {
        if !payload.is_empty() {
            self.buf.push(0xff);
            self.buf.extend_from_slice(payload);
        }
    }
}

/// The four bits for a delta or a length, and what the bytes after them hold.
fn shortened(value: u16) -> (u8, u16) {
    match value {
        0..=12 => (value as u8, 0),
        13..=268 => (13, value - 13),
        _ => (14, value - 269),
    }
}

/// The four bytes of an empty message: an acknowledgement or a reset.
pub fn empty(kind: Kind, id: u16) -> [u8; Message::HEADER] {
    let first = match kind {
        Kind::Con => 0x40,
        Kind::Non => 0x50,
        Kind::Ack => 0x60,
        Kind::Rst => 0x70,
    };
    let [id0, id1] = id.to_be_bytes();
    [first, 0, id0, id1]
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
