//! Bodies in chunks, RFC 9112 §7.1: a decoder fed with pieces of any size, and the prefix that the encoder writes.

/// Longest line of a chunk's size with its extensions, and all trailer fields together, in bytes:
/// a stranger chooses both and neither means anything here.
const MAX_OVERHEAD: usize = 4096;

/// A chunked body that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkError(pub &'static str);

/// Where the decoder stands; it holds no bytes of the body.
#[derive(Debug, Clone)]
pub struct ChunkDecoder {
    state: State,
    /// Bytes left in this chunk, or its size so far while the size is read.
    left: u64,
    /// Bytes of size line or trailer seen, against [`MAX_OVERHEAD`].
    overhead: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDecoder {
    /// A decoder at the start of a body.
    pub const fn new() -> Self {
        Self { state: State::SizeStart, left: 0, overhead: 0 }
    }

    /// Whether the last chunk and the trailer were read: what follows is the next message.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads from the front of `input` up to the end of the next run of body bytes.
    ///
    /// Returns how many bytes were consumed and the body bytes among them, which are the last ones consumed. An empty
    /// run means that all of `input` was consumed without reaching one, or that the body [is done](Self::is_done).
    ///
    /// # Errors
    /// The body is not chunks; the connection cannot be read any further.
    pub fn decode<'i>(&mut self, input: &'i [u8]) -> Result<(usize, &'i [u8]), ChunkError> {
        let mut at = 0;
        while let Some(&b) = input.get(at) {
            match self.state {
                State::Data => {
                    let rest = input.get(at..).unwrap_or_default();
                    let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    self.left -= take as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((at + take, rest.get(..take).unwrap_or_default()));
                }
                State::Done => break,
                _ => self.framing_byte(b)?,
            }
            at += 1;
        }
        Ok((at, &[]))
    }

    fn framing_byte(&mut self, b: u8) -> Result<(), ChunkError> {
        self.overhead += 1;
        if self.overhead > MAX_OVERHEAD {
            return Err(ChunkError("chunk extensions or trailer fields are too long"));
        }
        self.state = match (self.state, b) {
            (State::SizeStart | State::Size, b) if b.is_ascii_hexdigit() => {
                let digit = char::from(b).to_digit(16).unwrap_or(0);
                if self.left >> 59 != 0 {
                    return Err(ChunkError("a chunk's size is too large"));
                }
                self.left = self.left * 16 + u64::from(digit);
                State::Size
            }
            (State::SizeStart, _) => return Err(ChunkError("a chunk starts with its size in hexadecimal")),
            (State::Size, b';') => State::Extension,
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b) if b >= 0x20 && b != 0x7f || b == b'\t' => State::Extension,
            (State::SizeLf, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => {
                self.overhead = 0;
                State::Data
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, b) if b >= 0x20 && b != 0x7f || b == b'\t' => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(ChunkError("a chunk's size line, data and trailer each end with CR LF")),
        };
        Ok(())
    }
}

/// Bytes of the prefix that [`write_prefix`] writes.
pub const PREFIX: usize = 6;

/// What ends a chunk.
pub const SUFFIX: &[u8; 2] = b"\r\n";

/// What ends a body: the chunk of size 0 and an empty trailer.
pub const LAST: &[u8; 5] = b"0\r\n\r\n";

/// The prefix of a chunk of `size` bytes, at most 65535: always [`PREFIX`] bytes, so that it can be written before data
/// that is already in place.
pub fn write_prefix(size: usize) -> [u8; PREFIX] {
    let hex = |shift: usize| b"0123456789abcdef".get((size >> shift) & 15).copied().unwrap_or(b'0');
    [hex(12), hex(8), hex(4), hex(0), b'\r', b'\n']
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_in_pieces(input: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let (mut decoder, mut body, mut used) = (ChunkDecoder::new(), Vec::new(), 0);
        for part in input.chunks(piece) {
            let mut part = part;
            while !part.is_empty() && !decoder.is_done() {
                let (n, data) = decoder.decode(part)?;
                body.extend_from_slice(data);
                part = &part[n..];
                used += n;
            }
        }
        Ok((body, used, decoder.is_done()))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let input = b"5\r\nhello\r\n00006;name=\"v\"\r\n world\r\n0\r\nTrailer: x\r\nB: y\r\n\r\nGET /";
        for piece in 1..input.len() {
            let (body, used, done) = decode_in_pieces(input, piece).unwrap();
            assert_eq!((body.as_slice(), done), (&b"hello world"[..], true), "pieces of {piece}");
            assert_eq!(used, input.len() - 5, "the next request is left alone");
        }
    }

    #[test]
    fn a_cut_body_is_not_done() {
        let input = b"5\r\nhello\r\n0\r\n\r\n";
        for cut in 0..input.len() {
            assert!(!decode_in_pieces(&input[..cut], 3).unwrap().2, "cut at {cut}");
        }
    }

    #[test]
    fn broken_framing_is_refused() {
        let broken: [&[u8]; 12] = [
            b"\r\n",
            b"g\r\n",
            b"-5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n",
            b"5;\x00\r\nhello\r\n",
            b"ffffffffffffffffff\r\n",
            b"0\r\nA\nB\r\n\r\n",
        ];
        for input in broken {
            assert!(decode_in_pieces(input, 2).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
        let long = [b"5;".as_slice(), &[b'a'; MAX_OVERHEAD], b"\r\nhello\r\n0\r\n\r\n"].concat();
        assert!(decode_in_pieces(&long, 100).is_err());
        let endless = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(MAX_OVERHEAD)].concat();
        assert!(decode_in_pieces(&endless, 100).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for size in [1usize, 15, 4096, 65_535] {
            let data = vec![b'x'; size];
            let wire = [&write_prefix(size)[..], &data, SUFFIX, LAST].concat();
            assert_eq!(decode_in_pieces(&wire, 1000).unwrap(), (data, wire.len(), true));
        }
    }
}
