//! Status codes, their messages, and which answer of a function has which code.

/// A gRPC status code (public document `statuscodes.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It worked.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// A failure of no other kind.
    Unknown = 2,
    /// The caller's argument is wrong whatever the state of the system.
    InvalidArgument = 3,
    /// Too late.
    DeadlineExceeded = 4,
    /// No such thing.
    NotFound = 5,
    /// The caller may not.
    PermissionDenied = 7,
    /// A bound is reached: queue, budget or size.
    ResourceExhausted = 8,
    /// No such method, encoding or number of messages.
    Unimplemented = 12,
    /// Broken: the function failed, or a message is not what the protocol says.
    Internal = 13,
    /// Not now: trying again may help.
    Unavailable = 14,
    /// The caller did not say who it is.
    Unauthenticated = 16,
}

/// How a stream ends: a code, and a message where the code is not [`Code::Ok`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// One line for a person, not yet percent-encoded.
    pub message: String,
}

/// Longest status message in bytes before encoding: a header list holds it three times as long.
pub const MESSAGE_MAX: usize = 1024;

impl Code {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Ok, "OK"),
        (Self::Cancelled, "CANCELLED"),
        (Self::Unknown, "UNKNOWN"),
        (Self::InvalidArgument, "INVALID_ARGUMENT"),
        (Self::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Self::NotFound, "NOT_FOUND"),
        (Self::PermissionDenied, "PERMISSION_DENIED"),
        (Self::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Self::Unimplemented, "UNIMPLEMENTED"),
        (Self::Internal, "INTERNAL"),
        (Self::Unavailable, "UNAVAILABLE"),
        (Self::Unauthenticated, "UNAUTHENTICATED"),
    ];

    /// The code for a `grpc-status` value; unknown ones become [`Code::Unknown`], as the protocol says.
    pub fn from_header(value: &[u8]) -> Self {
        Self::ALL.into_iter().map(|(code, _)| code).find(|c| c.digits().as_bytes() == value).unwrap_or(Self::Unknown)
    }

    /// The code's number, as `grpc-status` spells it.
    pub const fn digits(self) -> &'static str {
        match self {
            Self::Ok => "0",
            Self::Cancelled => "1",
            Self::Unknown => "2",
            Self::InvalidArgument => "3",
            Self::DeadlineExceeded => "4",
            Self::NotFound => "5",
            Self::PermissionDenied => "7",
            Self::ResourceExhausted => "8",
            Self::Unimplemented => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        }
    }

    /// The code's name, for people.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(code, _)| *code == self).map_or("UNKNOWN", |(_, name)| name)
    }

    /// The code for an HTTP status of 400 or more that the function itself answered.
    ///
    /// Where the public table `http-grpc-status-mapping.md` helps a caller it is followed: who may not, and what may
    /// work when tried again. It makes 404 UNIMPLEMENTED, which would claim that the method is missing; all else is the
    /// function's own failure.
    pub const fn of_function(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Internal,
        }
    }

    /// The code for an HTTP status of an answer that is no gRPC at all (public table `http-grpc-status-mapping.md`).
    pub const fn of_foreign(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl Status {
    /// A status with its line of text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Percent-encodes a `grpc-message`: what is not printable ASCII, and `%` itself. Cuts at [`MESSAGE_MAX`] bytes, at the
/// start of a character where it is UTF-8.
pub fn encode_message(message: &[u8]) -> String {
    let mut end = message.len().min(MESSAGE_MAX);
    if end < message.len() {
        // A continuation byte starts with 10: step back to the start of its character, which is near.
        for _ in 0..3 {
            if message.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
                end -= 1;
            }
        }
    }
    let hex = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase();
    let mut text = String::with_capacity(end);
    for &b in message.iter().take(end) {
        if (0x20..=0x7e).contains(&b) && b != b'%' {
            text.push(char::from(b));
        } else {
            text.extend(['%', hex(b >> 4), hex(b & 15)]);
        }
    }
    text
}

/// Undoes [`encode_message`]; what is not a valid escape stays as it is, and what is not UTF-8 is replaced, as the
/// protocol asks.
pub fn decode_message(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&b, after)) = rest.split_first() {
        let digit =
            |i: usize| after.get(i).and_then(|&d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (b, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(b);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_codes_number_and_read_back() {
        for (code, _) in Code::ALL {
            assert_eq!(code.digits(), (code as u8).to_string());
            assert_eq!(Code::from_header(code.digits().as_bytes()), code);
        }
        assert_eq!(Code::from_header(b"99"), Code::Unknown);
        assert_eq!(Code::from_header(b""), Code::Unknown);
        assert_eq!(Code::ResourceExhausted.name(), "RESOURCE_EXHAUSTED");
    }

    #[test]
    fn messages_are_percent_encoded_and_read_back() {
        for (plain, encoded) in [
            ("no such function", "no such function"),
            ("100%", "100%25"),
            ("a\r\nb", "a%0D%0Ab"),
            ("\u{e9}~\u{7f}", "%C3%A9~%7F"),
            ("", ""),
        ] {
            assert_eq!(encode_message(plain.as_bytes()), encoded);
            assert_eq!(decode_message(encoded.as_bytes()), plain);
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decode_message(b"%"), "%");
        assert_eq!(decode_message(b"%4"), "%4");
        assert_eq!(decode_message(b"%zz%41"), "%zzA");
        assert_eq!(decode_message(b"%FF"), "\u{fffd}");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "\u{e9}".repeat(MESSAGE_MAX);
        let cut = decode_message(encode_message(long.as_bytes()).as_bytes());
        assert_eq!(cut.len(), MESSAGE_MAX);
        let cut = decode_message(encode_message(format!("a{long}").as_bytes()).as_bytes());
        assert_eq!(cut.len(), MESSAGE_MAX - 1);
        assert_eq!(encode_message(&[0xff; 2000]).len(), 3 * MESSAGE_MAX);
    }

    #[test]
    fn a_functions_own_404_is_not_a_missing_function() {
        assert_eq!(Code::of_function(404), Code::Internal);
        assert_eq!(Code::of_function(500), Code::Internal);
        assert_eq!(Code::of_function(403), Code::PermissionDenied);
        assert_eq!(Code::of_function(503), Code::Unavailable);
    }
}
