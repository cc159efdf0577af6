//! Zip archives (PKWARE's APPNOTE 6.3): a reader that trusts nothing, and a streaming writer.
//!
//! - `path`: which entry names and link targets are acceptable
//! - `directory`: the central directory, record by record
//! - `paths`: what the duplicate check keeps of each path
//! - `content`: one entry's bytes, inflated and checked while they are read
//! - [`read`]: the archive as a whole
//! - [`write`]: the other direction
//!
//! Where files go is not known here: the reader tells a [`Sink`], and `crate::unpack` and [`crate::wire::tar`] are two.

use std::fmt;
use std::io::{self, Read};

mod content;
mod directory;
pub mod path;
mod paths;
pub mod read;
#[cfg(test)]
mod tests;
pub mod write;

pub use read::Archive;
pub use write::Writer;

/// What an archive may cost. The defaults suit a function with its libraries on a small board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Entries in the directory, and as many different paths (folders that are only implied count). About 60 bytes
    /// of memory each while the archive is open.
    pub entries: u64,
    /// Bytes of all files that are unpacked together.
    pub unpacked: u64,
    /// How many times larger than its packed form a file may be, once it passes [`Bounds::RATIO_FLOOR`].
    pub ratio: u64,
}

impl Bounds {
    /// Files up to this many bytes may have any ratio: small files of zeros are common and harmless.
    pub const RATIO_FLOOR: u64 = 1024 * 1024;
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 4096, unpacked: 256 * 1024 * 1024, ratio: 200 }
    }
}

/// Why an archive was not read to its end.
#[derive(Debug)]
pub enum Error {
    /// The archive is broken or hostile: what is wrong, in which entry, and what to do.
    Refused(String),
    /// The archive passes one of [`Bounds`]: which one.
    TooLarge(String),
    /// The archive's file could not be read, or the sink failed.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) | Self::TooLarge(text) => f.write_str(text),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Receives what an archive holds. Paths are relative to the function's root, without `.`, `..` and empty segments,
/// and a folder comes before what is in it, once.
pub trait Sink {
    /// A folder.
    ///
    /// # Errors
    /// Ends the visit.
    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()>;

    /// A file of exactly `size` bytes; what is not read of `content` is read, and checked, afterwards.
    ///
    /// # Errors
    /// Ends the visit. An error that `content` returned may be passed on.
    fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> io::Result<()>;

    /// A symbolic link; its target is relative and stays inside the root.
    ///
    /// # Errors
    /// Ends the visit.
    fn symlink(&mut self, path: &str, target: &str) -> io::Result<()>;
}

/// An entry's name for a message: escaped, and cut at 80 characters.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let cut: String = text.chars().take(80).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}

fn refused(name: &[u8], why: &str) -> Error {
    Error::Refused(format!("zip entry {}: {why}", shown(name)))
}

/// A little-endian number of `N` bytes at `at`; bytes past the end count as zero.
fn le<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    (0..N).rev().fold(0, |value, i| (value << 8) | u64::from(bytes.get(at + i).copied().unwrap_or(0)))
}
