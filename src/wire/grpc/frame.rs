//! Length-prefixed messages: one flag byte, four bytes of length in network order, the message.

use std::fmt;

use bytes::{Buf, Bytes};

/// Bytes in front of each message.
pub const PREFIX: usize = 5;

/// A message as it came, perhaps still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whether the message is compressed with the stream's `grpc-encoding`.
    pub compressed: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Why bytes are not a sequence of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The flag byte is neither 0 nor 1.
    Flag(u8),
    /// The announced length in bytes passes the bound.
    TooLarge {
        /// What was announced.
        length: u32,
        /// The bound.
        max: usize,
    },
    /// The stream ended inside a message.
    Cut,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => {
                write!(f, "a message starts with flag byte {flag}: use 0, or 1 for a compressed message")
            }
            Self::TooLarge { length, max } => {
                write!(f, "a message of {length} bytes is too large: send at most {max} bytes")
            }
            Self::Cut => f.write_str("the stream ended inside a message: send all the bytes that its length announces"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Cuts a stream of bytes into messages; fed with pieces of any size.
///
/// It holds at most the bytes that it was fed: an announced length alone costs nothing.
#[derive(Debug)]
pub struct MessageDecoder {
    max: usize,
    prefix: [u8; PREFIX],
    prefix_len: usize,
    body: Vec<u8>,
}

impl MessageDecoder {
    /// A decoder that refuses messages over `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, prefix: [0; PREFIX], prefix_len: 0, body: Vec::new() }
    }

    /// Takes bytes from the front of `piece` up to the end of a message and returns that message; `None` when all of
    /// `piece` was taken and the message is not complete. A message that lies whole in one piece is not copied.
    ///
    /// # Errors
    /// [`FrameError::Flag`] or [`FrameError::TooLarge`]; the rest of the stream has no meaning then.
    pub fn decode(&mut self, piece: &mut Bytes) -> Result<Option<Message>, FrameError> {
        while self.prefix_len < PREFIX {
            let Some(place) = self.prefix.get_mut(self.prefix_len) else { break };
            if piece.is_empty() {
                return Ok(None);
            }
            *place = piece.get_u8();
            self.prefix_len += 1;
        }
        let (compressed, length) = self.parse_prefix()?;
        if self.body.is_empty() && piece.len() >= length {
            self.prefix_len = 0;
            return Ok(Some(Message { compressed, bytes: piece.split_to(length) }));
        }
        let missing = length.saturating_sub(self.body.len());
        let part = piece.split_to(missing.min(piece.len()));
        // Twice what is there, so that many small pieces are not copied each time, but never over what is announced.
        let wanted = self.body.len() + part.len();
        if wanted > self.body.capacity() {
            let capacity = (2 * wanted).min(length);
            self.body.reserve_exact(capacity - self.body.len());
        }
        self.body.extend_from_slice(&part);
        if self.body.len() < length {
            return Ok(None);
        }
        self.prefix_len = 0;
        Ok(Some(Message { compressed, bytes: Bytes::from(std::mem::take(&mut self.body)) }))
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// [`FrameError::Cut`] when a message was under way.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.prefix_len == 0 { Ok(()) } else { Err(FrameError::Cut) }
    }

    fn parse_prefix(&self) -> Result<(bool, usize), FrameError> {
        let [flag, a, b, c, d] = self.prefix;
        let length = u32::from_be_bytes([a, b, c, d]);
        if flag > 1 {
            return Err(FrameError::Flag(flag));
        }
        match usize::try_from(length) {
            Ok(n) if n <= self.max => Ok((flag == 1, n)),
            _ => Err(FrameError::TooLarge { length, max: self.max }),
        }
    }
}

/// The prefix of an uncompressed message of `length` bytes.
pub fn prefix(length: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut MessageDecoder, pieces: &[&[u8]]) -> Result<Vec<Message>, FrameError> {
        let mut messages = Vec::new();
        for piece in pieces {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(message) = decoder.decode(&mut piece)? {
                messages.push(message);
            }
            assert!(piece.is_empty(), "what is not a message yet is kept by the decoder");
        }
        Ok(messages)
    }

    fn plain(bytes: &'static [u8]) -> Message {
        Message { compressed: false, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn messages_come_out_wherever_the_stream_is_cut() {
        let stream = b"\0\0\0\0\x03abc\x01\0\0\0\x02zz\0\0\0\0\0";
        let expected = vec![plain(b"abc"), Message { compressed: true, bytes: Bytes::from_static(b"zz") }, plain(b"")];
        for i in 0..=stream.len() {
            for j in i..=stream.len() {
                let mut decoder = MessageDecoder::new(3);
                let pieces = [&stream[..i], &stream[i..j], &stream[j..]];
                assert_eq!(all(&mut decoder, &pieces), Ok(expected.clone()), "cut at {i} and {j}");
                assert_eq!(decoder.finish(), Ok(()));
            }
        }
    }

    #[test]
    fn a_stream_that_ends_inside_a_message_is_cut() {
        let stream = b"\0\0\0\0\x03abc";
        for end in 1..stream.len() {
            let mut decoder = MessageDecoder::new(3);
            assert_eq!(all(&mut decoder, &[&stream[..end]]), Ok(vec![]));
            assert_eq!(decoder.finish(), Err(FrameError::Cut), "cut at {end}");
        }
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_come() {
        let mut decoder = MessageDecoder::new(3);
        assert_eq!(all(&mut decoder, &[b"\0\0\0\0\x04"]), Err(FrameError::TooLarge { length: 4, max: 3 }));
        let mut decoder = MessageDecoder::new(1 << 20);
        let length = u32::MAX;
        assert_eq!(all(&mut decoder, &[b"\0\xff\xff\xff\xff"]), Err(FrameError::TooLarge { length, max: 1 << 20 }));
    }

    #[test]
    fn an_announced_length_reserves_no_memory() {
        let mut decoder = MessageDecoder::new(1 << 20);
        assert_eq!(all(&mut decoder, &[b"\0\0\x10\0\0", b"ab"]), Ok(vec![]));
        assert!(decoder.body.capacity() <= 8, "{}", decoder.body.capacity());
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let mut decoder = MessageDecoder::new(3);
        assert_eq!(all(&mut decoder, &[b"\x02\0\0\0\0"]), Err(FrameError::Flag(2)));
    }

    #[test]
    fn a_written_prefix_reads_back() {
        let mut decoder = MessageDecoder::new(600);
        let mut stream = prefix(513).to_vec();
        stream.resize(PREFIX + 513, b'x');
        assert_eq!(all(&mut decoder, &[&stream]).map(|m| m[0].bytes.len()), Ok(513));
    }
}
