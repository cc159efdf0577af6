//! Bearer tokens (RFC 6750): who may do what.
//!
//! A server never has a token itself, only its SHA-256: a file of them that is read by the wrong people lets nobody in. A
//! token is 256 random bits, so a plain digest is enough.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};

use crate::text_file;

/// What a token of ours starts with, so that people and scanners of secrets know one when they see it.
const PREFIX: &str = "tinyfaas_";
/// Random bytes of a token.
const RANDOM: usize = 32;
/// Tokens of one file.
const MAX_TOKENS: usize = 256;
/// Longest name of a token in bytes.
const MAX_NAME: usize = 63;
/// Largest file of tokens in bytes.
pub const MAX_FILE: u64 = 64 * 1024;

/// The SHA-256 of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of `token`.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// One line that says what would be right. It does not repeat the text, which may be a token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "no SHA-256 of a token: use 64 hexadecimal digits (tinyfaas token new makes one)".to_owned();
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (i, byte) in digest.iter_mut().enumerate() {
            let pair = text.get(2 * i..2 * i + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }

    /// Whether both are the same; takes as long whether or not they are.
    fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// Tokens that are let in, each with a name for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens(Vec<(Box<str>, Digest)>);

impl Tokens {
    /// Reads a file of lines `NAME DIGEST`; empty ones and those that start with `#` are passed over.
    ///
    /// # Errors
    /// One line that names the line of the file and what would be right. A file without a token is one too: it would let
    /// nobody in.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<(Box<str>, Digest)> = Vec::new();
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        for (n, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (name, digest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let name = check_name(name).map_err(|e| format!("line {n}: {e}"))?;
            let digest = Digest::parse(digest.trim()).map_err(|e| format!("line {n}: {e}"))?;
            if tokens.iter().any(|(other, _)| **other == *name) {
                return Err(format!("line {n}: there is a token {name} already: give each its own name"));
            }
            if tokens.len() == MAX_TOKENS {
                return Err(format!("line {n}: too many tokens: use {MAX_TOKENS} at most"));
            }
            tokens.push((name.into(), digest));
        }
        match tokens.is_empty() {
            true => Err("there is no token in it: tinyfaas token new NAME --file FILE adds one".into()),
            false => Ok(Self(tokens)),
        }
    }

    /// Reads the file `path`. Blocking.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = text_file::read(path, MAX_FILE).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The digests alone.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter().map(|(_, digest)| digest)
    }

    /// The name of `token`, if it is let in. Takes as long for each.
    pub fn name_of(&self, token: &str) -> Option<&str> {
        let digest = Digest::of(token);
        self.0.iter().fold(None, |found, (name, known)| if known.is(&digest) { Some(&**name) } else { found })
    }
}

/// Whether one of `known` is the digest of `token`. Takes as long for each.
pub fn is_one_of(token: &str, known: &[Digest]) -> bool {
    let digest = Digest::of(token);
    known.iter().fold(false, |found, known| found | known.is(&digest))
}

/// A name that a line of the file may have.
///
/// # Errors
/// One line that says what would be right.
pub fn check_name(name: &str) -> Result<&str, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    match !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed) {
        true => Ok(name),
        // Not repeated: somebody may have written the token itself there.
        false => Err("no name of a token: use 1 to 63 ASCII letters, digits and -_.@".into()),
    }
}

/// A new token.
///
/// # Errors
/// The kernel has no random bytes for us.
pub fn generate() -> io::Result<String> {
    let mut random = [0; RANDOM];
    // Short requests are never cut (getrandom(2)).
    if getrandom(&mut random, GetRandomFlags::empty())? < RANDOM {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// The line of the file that lets `token` in.
pub fn line(name: &str, token: &str) -> String {
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(line, "{name} {}", Digest::of(token));
    line
}

/// The token of an `Authorization` field (RFC 6750 §2.1); the scheme's case does not matter (RFC 9110 §11.1).
pub fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the text `secret`, by sha256sum.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_token_is_known_by_its_digest() {
        let tokens = Tokens::parse(&format!("# who\n\nci {SECRET}\nann\t{}\n", Digest::of("other"))).unwrap();
        assert_eq!(tokens.name_of("secret"), Some("ci"));
        assert_eq!(tokens.name_of("other"), Some("ann"));
        for wrong in ["", "Secret", "secret ", SECRET] {
            assert_eq!(tokens.name_of(wrong), None, "{wrong:?}");
        }
        assert_eq!(Digest::of("secret").to_string(), SECRET);
        let digests: Vec<Digest> = tokens.digests().cloned().collect();
        assert!(is_one_of("secret", &digests) && is_one_of("other", &digests) && !is_one_of("third", &digests));
        assert_eq!(Tokens::parse(&format!("ci {}", SECRET.to_uppercase())).unwrap().name_of("secret"), Some("ci"));
    }

    #[test]
    fn a_file_that_is_wrong_says_where_and_does_not_repeat_what_may_be_a_token() {
        let twice = format!("a {SECRET}\na {SECRET}");
        let many: String = (0..=MAX_TOKENS).map(|n| format!("n{n} {SECRET}\n")).collect();
        for (text, said) in [
            ("", "no token in it"),
            ("# nothing\n", "no token in it"),
            ("ci", "line 1: no SHA-256"),
            ("\nci tinyfaas_AAAA", "line 2: no SHA-256"),
            ("tinyfaas_AA+AA x", "line 1: no name"),
            (&twice, "line 2: there is a token a already"),
            (&many, "line 257: too many tokens"),
        ] {
            let error = Tokens::parse(text).unwrap_err();
            assert!(error.starts_with(said) || error.contains(said), "{error}");
            assert!(!error.contains("AAAA"), "{error}");
        }
    }

    #[test]
    fn a_new_token_is_let_in_by_its_line_and_each_is_another() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), PREFIX.len() + 43);
        let tokens = Tokens::parse(&[line("a", &a), line("b", &b)].concat()).unwrap();
        assert_eq!((tokens.name_of(&a), tokens.name_of(&b)), (Some("a"), Some("b")));
    }

    #[test]
    fn the_token_of_a_field() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(wrong), None, "{wrong:?}");
        }
    }
}
