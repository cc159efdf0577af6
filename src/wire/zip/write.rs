//! Writes an archive as a stream: nothing is sought, sizes follow the data in descriptors (APPNOTE 4.3.9).
//!
//! The same files give the same bytes: there is no time in it, and nothing depends on what was written before.

use std::io::{self, Read, Write};

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{MZError, MZFlush, MZStatus};

/// Bytes read from a file at once, and packed bytes written at once.
const BUFFER: usize = 16 * 1024;
/// zlib's default: nearly the best size at half the time of the best.
const LEVEL: i32 = 6;
/// 1980-01-01, the earliest date of the format: with a real one no two archives would be alike.
const DATE: u16 = 1 << 5 | 1;
/// Names are UTF-8 (APPNOTE 4.4.4, bit 11).
const UTF8: u16 = 1 << 11;
/// Sizes and checksum follow the data (bit 3).
const DESCRIPTOR: u16 = 1 << 3;
/// Made on a unix, by version 2.0 of the format.
const MADE_BY: u16 = 3 << 8 | VERSION;
const VERSION: u16 = 20;

/// Writes one archive to `W`. The directory grows in memory, some 60 bytes and the name for each entry.
pub struct Writer<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    entries: u16,
    packer: Option<Packer>,
    input: Box<[u8]>,
}

/// What deflating needs, some 300 kB.
struct Packer {
    compressor: Box<CompressorOxide>,
    output: Box<[u8]>,
}

/// What headers say of an entry.
struct Header<'a> {
    name: &'a str,
    mode: u32,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    size: u32,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        // The window's sign asks for raw deflate.
        let flags = create_comp_flags_from_zip_params(LEVEL, -15, 0);
        let compressor = Box::new(CompressorOxide::new(flags));
        let packer = Packer { compressor, output: vec![0; BUFFER].into_boxed_slice() };
        Self { packer: Some(packer), ..Self::stored(out) }
    }

    /// Starts an archive whose files are not packed: it costs little time and memory to make.
    pub fn stored(out: W) -> Self {
        let input = vec![0; BUFFER].into_boxed_slice();
        Self { out, at: 0, directory: Vec::new(), entries: 0, packer: None, input }
    }

    /// Adds a folder; `name` is without a trailing `/`.
    ///
    /// # Errors
    /// When `W` fails, or the archive passes what the format can say without zip64.
    pub fn directory(&mut self, name: &str, mode: u32) -> io::Result<()> {
        let name = format!("{name}/");
        self.ready(&name, 0o040_000 | mode & 0o7777, b"")
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Writer::directory`].
    pub fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.ready(name, 0o120_777, target.as_bytes())
    }

    /// Adds a file with what `content` has until its end.
    ///
    /// # Errors
    /// As [`Writer::directory`], and when `content` fails or has 4 GiB or more.
    pub fn file(&mut self, name: &str, mode: u32, content: &mut dyn Read) -> io::Result<()> {
        let flags = UTF8 | DESCRIPTOR;
        let (mode, method) = (0o100_000 | mode & 0o7777, if self.packer.is_some() { 8 } else { 0 });
        let mut header = Header { name, mode, flags, method, crc: 0, packed: 0, size: 0 };
        let start = self.local(&header)?;
        (header.crc, header.packed, header.size) = self.content(content)?;
        let mut descriptor = b"PK\x07\x08".to_vec();
        for value in [header.crc, header.packed, header.size] {
            descriptor.extend(value.to_le_bytes());
        }
        self.write(&descriptor)?;
        self.remember(&header, start)
    }

    /// Writes the directory and gives `W` back.
    ///
    /// # Errors
    /// As [`Writer::directory`].
    pub fn finish(mut self) -> io::Result<W> {
        let start = narrow(self.at)?;
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(self.entries.to_le_bytes());
        end.extend(self.entries.to_le_bytes());
        end.extend(narrow(directory.len() as u64)?.to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend([0, 0]);
        self.write(&end)?;
        Ok(self.out)
    }

    /// Adds an entry whose little content is known; it is stored.
    fn ready(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let size = narrow(content.len() as u64)?;
        let crc = crc32fast::hash(content);
        let header = Header { name, mode, flags: UTF8, method: 0, crc, packed: size, size };
        let start = self.local(&header)?;
        self.write(content)?;
        self.remember(&header, start)
    }

    fn local(&mut self, header: &Header<'_>) -> io::Result<u32> {
        let start = narrow(self.at)?;
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend(VERSION.to_le_bytes());
        header.common(&mut bytes)?;
        bytes.extend(header.name.as_bytes());
        self.write(&bytes)?;
        Ok(start)
    }

    fn remember(&mut self, header: &Header<'_>, start: u32) -> io::Result<()> {
        self.entries =
            self.entries.checked_add(1).ok_or_else(|| io::Error::other("more than 65535 files and folders"))?;
        let out = &mut self.directory;
        out.extend(b"PK\x01\x02");
        out.extend(MADE_BY.to_le_bytes());
        out.extend(VERSION.to_le_bytes());
        header.common(out)?;
        // No comment, first disk, no internal attributes.
        out.extend([0; 6]);
        // Bit 4 is the directory attribute of DOS.
        let dos = if header.name.ends_with('/') { 0x10 } else { 0 };
        out.extend((header.mode << 16 | dos).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend(header.name.as_bytes());
        Ok(())
    }

    /// Writes `content`: checksum, packed size and size.
    fn content(&mut self, content: &mut dyn Read) -> io::Result<(u32, u32, u32)> {
        if let Some(packer) = &mut self.packer {
            packer.compressor.reset();
        }
        let mut crc = crc32fast::Hasher::new();
        let (start, mut size) = (self.at, 0u64);
        let mut input = std::mem::take(&mut self.input);
        let mut done = false;
        while !done {
            let n = match content.read(&mut input) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let piece = input.get(..n).unwrap_or_default();
            crc.update(piece);
            size += n as u64;
            done = n == 0;
            self.at += match &mut self.packer {
                Some(packer) => {
                    packer.deflate(&mut self.out, piece, if done { MZFlush::Finish } else { MZFlush::None })?
                }
                None => self.out.write_all(piece).map(|()| n as u64)?,
            };
        }
        self.input = input;
        Ok((crc.finalize(), narrow(self.at - start)?, narrow(size)?))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl Packer {
    /// Packs the next piece of a file; how many bytes that gave.
    fn deflate(&mut self, out: &mut impl Write, mut piece: &[u8], flush: MZFlush) -> io::Result<u64> {
        let mut written = 0;
        loop {
            let result = deflate(&mut self.compressor, piece, &mut self.output, flush);
            piece = piece.get(result.bytes_consumed..).unwrap_or_default();
            let packed = self.output.get(..result.bytes_written).unwrap_or_default();
            out.write_all(packed)?;
            written += packed.len() as u64;
            match result.status {
                Ok(MZStatus::StreamEnd) => return Ok(written),
                Ok(_) if flush != MZFlush::Finish && piece.is_empty() && packed.len() < self.output.len() => {
                    return Ok(written);
                }
                Ok(_) => {}
                Err(MZError::Buf) if flush != MZFlush::Finish && piece.is_empty() => return Ok(written),
                Err(_) => return Err(io::Error::other("the compressor failed")),
            }
        }
    }
}

impl Header<'_> {
    /// The fields that local header and directory share, up to the length of the extra field, which is empty.
    fn common(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let name_len = u16::try_from(self.name.len()).map_err(|_| io::Error::other("a name over 65535 bytes"))?;
        for value in [self.flags, self.method, 0, DATE] {
            out.extend(value.to_le_bytes());
        }
        for value in [self.crc, self.packed, self.size] {
            out.extend(value.to_le_bytes());
        }
        out.extend(name_len.to_le_bytes());
        out.extend([0, 0]);
        Ok(())
    }
}

fn narrow(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| io::Error::other("the archive passes 4 GiB; leave files out"))
}
