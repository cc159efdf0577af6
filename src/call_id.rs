//! The id of a call: what its caller, its function and the log know it by.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The header field, and gRPC's metadata, that carries it.
pub use crate::wire::http1::CALL_ID as FIELD;

/// Longest id in bytes: a UUID has 36, a trace's parent (W3C Trace Context) 55.
pub const MAX: usize = 64;

/// An id that may stand in a header field, a line of the log and an environment variable as it is.
#[derive(Clone, Copy)]
pub struct CallId {
    text: [u8; MAX],
    len: u8,
}

impl CallId {
    /// The caller's id where it sent one of 1 to [`MAX`] ASCII letters, digits, `-`, `_` and `.`; else a new one.
    pub fn of(sent: Option<&[u8]>) -> Self {
        sent.and_then(Self::parse).unwrap_or_else(Self::make)
    }

    fn parse(sent: &[u8]) -> Option<Self> {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let mut id = Self { text: [0; MAX], len: u8::try_from(sent.len()).ok()? };
        id.text.get_mut(..sent.len()).filter(|_| !sent.is_empty() && sent.iter().all(allowed))?.copy_from_slice(sent);
        Some(id)
    }

    /// A new id: what tells this process from others, and a number.
    pub fn make() -> Self {
        static PROCESS: OnceLock<u32> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut id = Self { text: [0; MAX], len: 0 };
        id.hex(u64::from(*PROCESS.get_or_init(|| fastrand::u32(..))), 8);
        id.put(b'-');
        id.hex(NEXT.fetch_add(1, Ordering::Relaxed), 1);
        id
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // It holds ASCII alone.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The bytes of that.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Appends a number in as many digits as it has, but at least `least`. Not by `fmt`: this is done for every call.
    fn hex(&mut self, number: u64, least: u32) {
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(least);
        for place in (0..digits).rev() {
            let digit = (number >> (4 * place)) as u8 & 0xf;
            self.put(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }

    fn put(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_of_the_callers_is_taken_as_it_is() {
        for id in [
            "a",
            "550e8400-e29b-41d4-a716-446655440000",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "_.-",
        ] {
            assert_eq!(CallId::of(Some(id.as_bytes())).as_str(), id);
        }
        let longest = "x".repeat(MAX);
        assert_eq!(CallId::of(Some(longest.as_bytes())).as_str(), longest);
    }

    #[test]
    fn an_id_that_could_do_harm_is_replaced() {
        let long = "x".repeat(MAX + 1);
        let longer = "x".repeat(300);
        for id in
            ["", " ", "a b", "a\r\nx: y", "\"", "a,b", "\u{fc}", "<script>", "a=b", "$(id)", "\x1b[2J", &long, &longer]
        {
            let made = CallId::of(Some(id.as_bytes()));
            assert!(CallId::parse(made.as_str().as_bytes()).is_some() && made.as_str().len() >= 10, "{id:?}: {made:?}");
            assert!(id.is_empty() || !made.as_str().contains(id), "{id:?}");
        }
        assert!(!CallId::of(Some(&[0xff, 0xfe])).as_str().is_empty());
    }

    #[test]
    fn ids_that_are_made_differ_and_share_what_tells_the_process() {
        let made: Vec<CallId> = (0..1000).map(|_| CallId::of(None)).collect();
        let texts: HashSet<&str> = made.iter().map(CallId::as_str).collect();
        assert_eq!(texts.len(), 1000);
        let processes: HashSet<&str> = texts.iter().map(|id| id.split_once('-').unwrap().0).collect();
        assert_eq!(processes.len(), 1);
        assert!(processes.iter().all(|p| p.len() == 8), "{processes:?}");
    }

    #[test]
    fn numbers_are_written_as_hexadecimal_digits() {
        let mut id = CallId { text: [0; MAX], len: 0 };
        id.hex(0, 1);
        id.hex(0xab, 8);
        id.hex(0x10, 1);
        id.hex(u64::MAX, 1);
        assert_eq!(id.as_str(), format!("0000000ab10{:x}", u64::MAX));
    }
}
