//! The JSON of the management API, fed in pieces of any size: the archive goes out as it comes in, the rest is kept.
//!
//! Of `{"name": …, "zip": "BASE64"}` the value of the top-level key `zip` is decoded straight into a writer; everything
//! else is collected, bounded by [`MAX_REST`], as the *rest*: the same JSON with an empty string for `zip`. Whether the
//! rest has the right fields is judged by `crate::upload_request`; here it is JSON of bounded depth and nothing more.
//!
//! Base64 is the standard alphabet of RFC 4648 §4. Padding may be there or not. Line ends are skipped wherever they
//! stand (`base64` without `-w0` writes them, and the Go program skips them too), as `\n` and `\r` and as raw bytes;
//! all other white space is refused.

use std::fmt;
use std::io::{self, Write};

use serde::de::IgnoredAny;

/// Most bytes of JSON beside the archive: a stranger chooses them and they are held whole.
pub const MAX_REST: usize = 64 * 1024;
/// Deepest nesting of objects and lists, the outermost included: the API needs three.
pub const MAX_DEPTH: usize = 32;
/// Decoded bytes collected before they are written.
const OUTPUT: usize = 3 * 512;

/// Why a body was refused.
#[derive(Debug)]
pub enum Error {
    /// It is not what the API takes: what was expected, and at which byte of the body. HTTP 400.
    Bad(String),
    /// It passes a bound: which one. HTTP 413.
    TooLarge(String),
    /// The writer failed.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(text) | Self::TooLarge(text) => f.write_str(text),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// A body that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The JSON object with an empty string for `zip`.
    pub rest: String,
    /// Decoded bytes of `zip`; `None` where the key is absent.
    pub zip: Option<u64>,
}

/// Reads one body. [`Parser::feed`] it, then [`Parser::finish`].
pub struct Parser {
    state: State,
    rest: Vec<u8>,
    depth: usize,
    /// Whether a string at depth 1 would be a key.
    key_next: bool,
    /// Where in `rest` the current top-level key begins.
    key_start: usize,
    /// Whether the last top-level key was `zip`.
    key_is_zip: bool,
    /// Bytes of the body before the current one.
    offset: u64,
    base64: Base64,
    /// Where in `rest` the empty string for `zip` is, and how many bytes of the body are not in `rest`.
    zip_at: Option<(usize, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first `{`.
    Start,
    /// Between tokens.
    Outside,
    /// Inside a string that goes to the rest.
    Text,
    /// After a backslash there.
    TextEscape,
    /// After the colon that follows `zip`.
    ZipStart,
    /// Inside of the archive's string.
    Zip,
    /// After a backslash there.
    ZipEscape,
    /// After `\u` there: digits seen, and their value.
    ZipUnicode(u8, u16),
    /// After the last `}`.
    End,
}

impl Parser {
    /// A parser that takes an archive of up to `most` bytes.
    pub fn new(most: u64) -> Self {
        Self {
            state: State::Start,
            rest: Vec::new(),
            depth: 0,
            key_next: false,
            key_start: 0,
            key_is_zip: false,
            offset: 0,
            base64: Base64 { most, ..Base64::default() },
            zip_at: None,
        }
    }

    /// Reads the next piece of the body; the archive's bytes in it go to `zip`, at most three quarters of the piece
    /// and two bytes more.
    ///
    /// # Errors
    /// [`Error`]; the parser cannot be used any more.
    pub fn feed(&mut self, piece: &[u8], zip: &mut dyn Write) -> Result<(), Error> {
        let mut bytes = piece;
        while let Some((&b, next)) = bytes.split_first() {
            if self.state == State::Zip {
                let run = self.base64.run(bytes, zip, self.offset)?;
                if run > 0 {
                    self.offset += run as u64;
                    bytes = bytes.get(run..).unwrap_or_default();
                    continue;
                }
            }
            self.byte(b)?;
            self.offset += 1;
            bytes = next;
        }
        self.base64.flush(zip)
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`Error::Bad`] where it is not complete or is not JSON.
    pub fn finish(self) -> Result<Parsed, Error> {
        match self.state {
            State::Start => return Err(bad(self.offset, "the body is empty; a JSON object is needed")),
            State::End => {}
            _ => return Err(bad(self.offset, "the body ends in the middle of the JSON object")),
        }
        let zip = self.zip_at.map(|_| self.base64.written);
        let rest = String::from_utf8(self.rest)
            .map_err(|e| bad(in_body(e.utf8_error().valid_up_to(), self.zip_at), "the text is not UTF-8"))?;
        if let Err(e) = serde_json::from_str::<IgnoredAny>(&rest) {
            let at = in_body(position(&rest, e.line(), e.column()), self.zip_at);
            // The text of serde_json names positions in the rest, which the client never saw, after " at line".
            let text = e.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            return Err(bad(at, &format!("not JSON: {what}")));
        }
        Ok(Parsed { rest, zip })
    }

    fn byte(&mut self, b: u8) -> Result<(), Error> {
        match self.state {
            State::Start => match b {
                b'{' => {
                    (self.state, self.depth, self.key_next) = (State::Outside, 1, true);
                    self.keep(b)
                }
                b' ' | b'\t' | b'\r' | b'\n' => self.keep(b),
                _ => Err(bad(self.offset, "the body has to be a JSON object, which begins with {")),
            },
            State::End => match b {
                b' ' | b'\t' | b'\r' | b'\n' => self.keep(b),
                _ => Err(bad(self.offset, "something follows the JSON object; only white space may")),
            },
            State::Outside => self.outside(b),
            State::Text => {
                match b {
                    b'"' => self.end_of_text()?,
                    b'\\' => self.state = State::TextEscape,
                    _ => {}
                }
                self.keep(b)
            }
            State::TextEscape => {
                self.state = State::Text;
                self.keep(b)
            }
            State::ZipStart => match b {
                b'"' => {
                    self.state = State::Zip;
                    self.zip_at = Some((self.rest.len(), self.offset));
                    self.keep(b)
                }
                b' ' | b'\t' | b'\r' | b'\n' => self.keep(b),
                _ => Err(bad(self.offset, "\"zip\" has to be a string: the archive in base64")),
            },
            State::Zip | State::ZipEscape | State::ZipUnicode(..) => self.zip_byte(b),
        }
    }

    fn outside(&mut self, b: u8) -> Result<(), Error> {
        match b {
            b'"' => {
                self.state = State::Text;
                self.key_start = self.rest.len();
            }
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(bad(self.offset, "the JSON is nested deeper than 32 levels"));
                }
            }
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::End;
                }
            }
            b',' if self.depth == 1 => self.key_next = true,
            b':' if self.depth == 1 => {
                self.key_next = false;
                if std::mem::take(&mut self.key_is_zip) {
                    self.state = State::ZipStart;
                }
            }
            _ => {}
        }
        self.keep(b)
    }

    /// A string ends: is it the key `zip`, however it is escaped?
    fn end_of_text(&mut self) -> Result<(), Error> {
        self.state = State::Outside;
        if self.depth != 1 || !self.key_next {
            return Ok(());
        }
        let key = self.rest.get(self.key_start + 1..).unwrap_or_default();
        // No escape is longer than six bytes a character; a key that cannot be decoded is refused in the end.
        self.key_is_zip = key == b"zip"
            || key.len() <= 18 && key.contains(&b'\\') && {
                let quoted = [b"\"", key, b"\""].concat();
                serde_json::from_slice::<String>(&quoted).is_ok_and(|key| key == "zip")
            };
        if self.key_is_zip && self.zip_at.is_some() {
            return Err(bad(self.offset, "\"zip\" is there twice; send one archive"));
        }
        Ok(())
    }

    /// A byte of the archive's string that is not plain base64.
    fn zip_byte(&mut self, b: u8) -> Result<(), Error> {
        let wrong = "\"zip\" has to be standard base64 (A-Z a-z 0-9 + / =)";
        self.state = match (self.state, b) {
            (State::Zip, b'"') => {
                self.base64.end(self.offset)?;
                // The opening quote is kept; now the rest says "".
                if let Some((at, opened)) = self.zip_at {
                    self.zip_at = Some((at, self.offset - opened - 1));
                }
                self.state = State::Outside;
                return self.keep(b);
            }
            (State::Zip, b'\\') => State::ZipEscape,
            (State::ZipEscape, b'n' | b'r') => State::Zip,
            (State::ZipEscape, b'/') => {
                self.base64.push(b, self.offset)?;
                State::Zip
            }
            (State::ZipEscape, b'u') => State::ZipUnicode(0, 0),
            (State::ZipUnicode(digits, value), b) => {
                let digit = char::from(b).to_digit(16).ok_or_else(|| bad(self.offset, wrong))?;
                let value = value << 4 | digit as u16;
                if digits < 3 {
                    State::ZipUnicode(digits + 1, value)
                } else {
                    let b = u8::try_from(value).map_err(|_| bad(self.offset, wrong))?;
                    if b != b'\n' && b != b'\r' {
                        self.base64.push(b, self.offset)?;
                    }
                    State::Zip
                }
            }
            (State::Zip, b'-' | b'_') => {
                return Err(bad(
                    self.offset,
                    "\"zip\" is in the URL form of base64; send the standard form, with + and /",
                ));
            }
            (State::Zip, b' ' | b'\t') => {
                return Err(bad(self.offset, "\"zip\" holds white space; of that, base64 may hold line ends only"));
            }
            _ => return Err(bad(self.offset, wrong)),
        };
        Ok(())
    }

    fn keep(&mut self, b: u8) -> Result<(), Error> {
        if self.rest.len() >= MAX_REST {
            return Err(Error::TooLarge(format!(
                "the JSON beside \"zip\" is larger than {MAX_REST} bytes (at byte {}); only \"zip\" may be large",
                self.offset
            )));
        }
        self.rest.push(b);
        Ok(())
    }
}

fn bad(offset: u64, what: &str) -> Error {
    Error::Bad(format!("{what} (at byte {offset} of the body)"))
}

/// The place in the body of a place in the rest.
fn in_body(at: usize, zip_at: Option<(usize, u64)>) -> u64 {
    at as u64 + zip_at.filter(|&(quote, _)| at > quote).map_or(0, |(_, cut)| cut)
}

/// The byte offset of serde_json's line and column, both from 1.
fn position(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

/// Base64 as it comes in, four characters to three bytes.
#[derive(Default)]
struct Base64 {
    /// Six bits of each character since the last full group, and how many.
    bits: u32,
    count: u8,
    padding: u8,
    out: Vec<u8>,
    /// Bytes decoded, and how many may be.
    written: u64,
    most: u64,
}

impl Base64 {
    /// Decodes plain characters and skips line ends at the front of `bytes`: how many it took.
    fn run(&mut self, bytes: &[u8], to: &mut dyn Write, offset: u64) -> Result<usize, Error> {
        let mut at = 0;
        while let Some(&b) = bytes.get(at) {
            if self.out.len() >= OUTPUT {
                self.flush(to)?;
            }
            if self.count == 0 && self.padding == 0 {
                let taken = self.groups(bytes.get(at..).unwrap_or_default())?;
                at += taken;
                if taken > 0 {
                    continue;
                }
            }
            match sextet(b) {
                Some(six) if self.padding == 0 => self.six(six)?,
                None if b == b'\n' || b == b'\r' => {}
                None if b != b'=' => return Ok(at),
                _ => self.push(b, offset + at as u64)?,
            }
            at += 1;
        }
        Ok(at)
    }

    /// Decodes whole groups at the front of `bytes`, up to a full output: how many bytes it took.
    fn groups(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let most = (OUTPUT.saturating_sub(self.out.len())).div_ceil(3);
        let mut taken = 0;
        for group in bytes.as_chunks::<4>().0.iter().take(most) {
            let [a, b, c, d] = group.map(|b| SEXTETS[usize::from(b)]);
            if (a | b | c | d) & NONE != 0 {
                break;
            }
            let bits = u32::from(a) << 18 | u32::from(b) << 12 | u32::from(c) << 6 | u32::from(d);
            let [_, x, y, z] = bits.to_be_bytes();
            self.out.extend_from_slice(&[x, y, z]);
            taken += 4;
        }
        self.count_written(taken / 4 * 3)?;
        Ok(taken)
    }

    /// One character.
    fn push(&mut self, b: u8, offset: u64) -> Result<(), Error> {
        match sextet(b) {
            Some(six) if self.padding == 0 => self.six(six),
            None if b == b'=' && self.count + self.padding >= 2 && self.count + self.padding < 4 => {
                self.padding += 1;
                Ok(())
            }
            None if b == b'=' => Err(bad(offset, "\"zip\" has base64 padding (=) where none belongs")),
            Some(_) => Err(bad(offset, "\"zip\" goes on after the base64 padding (=)")),
            None => Err(bad(offset, "\"zip\" has to be standard base64 (A-Z a-z 0-9 + / =)")),
        }
    }

    fn six(&mut self, six: u8) -> Result<(), Error> {
        self.bits = self.bits << 6 | u32::from(six);
        self.count += 1;
        if self.count == 4 {
            let [_, a, b, c] = self.bits.to_be_bytes();
            (self.bits, self.count) = (0, 0);
            self.emit(&[a, b, c])?;
        }
        Ok(())
    }

    /// The string ends: what is left of a group.
    fn end(&mut self, offset: u64) -> Result<(), Error> {
        if self.padding != 0 && self.count + self.padding != 4 || self.count == 1 {
            return Err(bad(offset, "\"zip\" is cut: its base64 ends within a group of four characters"));
        }
        // Left-aligned in 24 bits.
        let [_, a, b, _] = (self.bits << (6 * (4 - u32::from(self.count.min(4))))).to_be_bytes();
        match self.count {
            2 => self.emit(&[a])?,
            3 => self.emit(&[a, b])?,
            _ => {}
        }
        self.count = 0;
        Ok(())
    }

    fn emit(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.extend_from_slice(bytes);
        self.count_written(bytes.len())
    }

    fn count_written(&mut self, n: usize) -> Result<(), Error> {
        self.written += n as u64;
        if self.written > self.most {
            return Err(Error::TooLarge(format!("the zip archive is larger than {} bytes", self.most)));
        }
        Ok(())
    }

    fn flush(&mut self, to: &mut dyn Write) -> Result<(), Error> {
        if !self.out.is_empty() {
            to.write_all(&self.out).map_err(Error::Io)?;
            self.out.clear();
        }
        Ok(())
    }
}

/// The six bits of a character of RFC 4648 table 1.
const fn sextet(b: u8) -> Option<u8> {
    match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Marks bytes that are no character of the alphabet.
const NONE: u8 = 0xc0;

/// [`sextet`] of every byte, or [`NONE`].
static SEXTETS: [u8; 256] = {
    let mut table = [NONE; 256];
    let mut b = 0;
    while b < 256 {
        if let Some(six) = sextet(b as u8) {
            table[b] = six;
        }
        b += 1;
    }
    table
};

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
