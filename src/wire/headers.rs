//! A list of header fields in the form they travel in: `name: value\r\n` lines in one buffer.
//!
//! What goes in was checked, so the lines can be copied to a socket as they are.

use std::fmt;

use memchr::memchr;

/// Header fields of a call or a reply, in order, bounded by [`Headers::MAX_BYTES`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    lines: Vec<u8>,
}

/// Why a header field was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The name is empty or has a byte that is not a token character (RFC 9110 §5.6.2).
    Name,
    /// The value has a CR, LF, NUL or another control character (RFC 9110 §5.5).
    Value,
    /// All fields together would pass [`Headers::MAX_BYTES`].
    TooLarge,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a header name may hold only letters, digits and !#$%&'*+-.^_`|~",
            Self::Value => "a header value may not hold control characters",
            Self::TooLarge => "the header fields are larger than 16384 bytes together",
        })
    }
}

impl std::error::Error for HeaderError {}

impl Headers {
    /// All header fields of one call or reply together, in bytes: a stranger chooses them.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// An empty list; allocates nothing.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// An empty list with memory for so many bytes, of which no more than it may have are taken.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { lines: Vec::with_capacity(bytes.min(Self::MAX_BYTES)) }
    }

    /// Appends a field; white space around the value is dropped.
    ///
    /// # Errors
    /// [`HeaderError`] when the field could change the meaning of the message that carries it, or the list is full.
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), HeaderError> {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HeaderError::Name);
        }
        let value = value.trim_ascii();
        if !value.iter().copied().all(is_field_byte) {
            return Err(HeaderError::Value);
        }
        let size = name.len() + value.len() + 4;
        if self.lines.len() + size > Self::MAX_BYTES {
            return Err(HeaderError::TooLarge);
        }
        self.lines.reserve(size);
        for part in &[name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
        Ok(())
    }

    /// The first value of the field `name`, whatever its case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let [value] = self.find([name]);
        value
    }

    /// The first values of these fields, as [`Headers::get`], looked for at once.
    pub fn find<const N: usize>(&self, names: [&str; N]) -> [Option<&[u8]>; N] {
        let mut found = [None; N];
        let mut lines = Lines(&self.lines);
        while let Some(line) = lines.next().filter(|_| found.contains(&None)) {
            for (name, found) in names.iter().zip(&mut found) {
                if found.is_none() {
                    *found = value_of(line, name);
                }
            }
        }
        found
    }

    /// Takes all fields of that name out.
    pub fn remove(&mut self, name: &str) {
        let mut at = 0;
        while let Some(line) = Lines(self.lines.get(at..).unwrap_or_default()).next() {
            let end = at + line.len();
            match value_of(line, name) {
                Some(_) => drop(self.lines.drain(at..end)),
                None => at = end,
            }
        }
    }

    /// The first value of the field `name` as text; `None` where it is absent or not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        Lines(&self.lines).filter_map(|line| {
            let line = line.strip_suffix(b"\r\n")?;
            let colon = memchr(b':', line)?;
            let name = std::str::from_utf8(line.get(..colon)?).ok()?;
            Some((name, line.get(colon + 2..)?))
        })
    }

    /// Each field as it goes on the wire, ended by CR LF, in order.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        Lines(&self.lines)
    }

    /// The fields as they go on the wire, each ended by CR LF, without the empty line.
    pub fn as_lines(&self) -> &[u8] {
        &self.lines
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Lines, each with its end.
struct Lines<'l>(&'l [u8]);

impl<'l> Iterator for Lines<'l> {
    type Item = &'l [u8];

    fn next(&mut self) -> Option<&'l [u8]> {
        let (line, rest) = self.0.split_at_checked(memchr(b'\n', self.0)? + 1)?;
        self.0 = rest;
        Some(line)
    }
}

/// The value in a line where it is a field of that name.
fn value_of<'l>(line: &'l [u8], name: &str) -> Option<&'l [u8]> {
    let (before, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b": ")?.strip_suffix(b"\r\n")?;
    before.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(n, v)| (n, String::from_utf8_lossy(v)))).finish()
    }
}

/// A token character of RFC 9110 §5.6.2.
pub fn is_token(b: u8) -> bool {
    TOKEN.get(usize::from(b)).is_some_and(|token| *token)
}

/// Looked up, as each byte of each name is.
static TOKEN: [bool; 256] = {
    let (mut table, mut b) = ([false; 256], 0);
    while b < table.len() {
        table[b] = (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    let (others, mut at) = (b"!#$%&'*+-.^_`|~", 0);
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// A byte that a field value may hold: RFC 9110 §5.5 (visible, space, tab, obs-text).
pub fn is_field_byte(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_whatever_the_case_of_the_name() {
        let mut h = Headers::new();
        h.push("Content-Type", b" text/plain ").unwrap();
        h.push("x-a", b"").unwrap();
        h.push("X-Bytes", &[0xff, b':', b'!']).unwrap();
        assert_eq!(h.get("content-type"), Some(&b"text/plain"[..]));
        assert_eq!(h.get("X-A"), Some(&b""[..]));
        assert_eq!(h.get("x-bytes"), Some(&[0xff, b':', b'!'][..]));
        assert_eq!((h.get("absent"), h.get("content"), h.get("x"), h.get("")), (None, None, None, None));
        assert_eq!(h.iter().count(), 3);
        assert_eq!(h.as_lines(), b"Content-Type: text/plain\r\nx-a: \r\nX-Bytes: \xff:!\r\n");
    }

    #[test]
    fn several_fields_are_found_at_once() {
        let mut h = Headers::with_capacity(usize::MAX);
        for (name, value) in [("B", "1"), ("a", "2"), ("b", "3"), ("ab", "4")] {
            h.push(name, value.as_bytes()).unwrap();
        }
        assert_eq!(h.find(["a", "b", "c", "A"]), [Some(&b"2"[..]), Some(b"1"), None, Some(b"2")]);
        assert_eq!(h.lines().collect::<Vec<_>>(), [&b"B: 1\r\n"[..], b"a: 2\r\n", b"b: 3\r\n", b"ab: 4\r\n"]);
        assert_eq!(Headers::new().find(["a"]), [None]);
    }

    #[test]
    fn names_are_tokens() {
        let tokens: Vec<u8> = (0..=255).filter(|b| is_token(*b)).collect();
        assert_eq!(tokens, b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
    }

    #[test]
    fn all_fields_of_a_name_are_taken_out() {
        let mut h = Headers::new();
        for (name, value) in [("A", "1"), ("b", "2"), ("a", "3"), ("ab", "4"), ("a", "")] {
            h.push(name, value.as_bytes()).unwrap();
        }
        h.remove("a");
        assert_eq!(h.as_lines(), b"b: 2\r\nab: 4\r\n");
        h.remove("absent");
        h.remove("AB");
        assert_eq!(h.as_lines(), b"b: 2\r\n");
    }

    #[test]
    fn a_field_that_would_split_a_message_is_refused() {
        let mut h = Headers::new();
        assert_eq!(h.push("a", b"b\r\nc: d"), Err(HeaderError::Value));
        assert_eq!(h.push("a", b"b\0"), Err(HeaderError::Value));
        assert_eq!(h.push("a b", b"c"), Err(HeaderError::Name));
        assert_eq!(h.push("", b"c"), Err(HeaderError::Name));
        assert_eq!(h.push("a\r\n", b"c"), Err(HeaderError::Name));
        assert!(h.is_empty());
    }

    #[test]
    fn the_list_has_a_bound() {
        let mut h = Headers::new();
        assert_eq!(h.push("a", &[b'x'; Headers::MAX_BYTES]), Err(HeaderError::TooLarge));
        h.push("a", &[b'x'; Headers::MAX_BYTES - 5]).unwrap();
        assert_eq!(h.push("a", b""), Err(HeaderError::TooLarge));
    }
}
