//! The central directory: where it is, and one record of it at a time.
//!
//! Only the directory says what an archive holds: archives written to a pipe have no sizes in their local headers.

use std::io::{self, Read, Seek, SeekFrom};

use super::{Bounds, Error, le, refused};

/// The end record without its comment, APPNOTE 4.3.16.
const END: usize = 22;
/// The zip64 end record in its usual length, APPNOTE 4.3.14.
const END64: usize = 56;
/// The zip64 end record's locator, APPNOTE 4.3.15.
const LOCATOR: usize = 20;
/// A directory record without its names, APPNOTE 4.3.12.
const RECORD: usize = 46;
/// A local header without its names, APPNOTE 4.3.7.
const LOCAL: usize = 30;

/// Where the directory is, and how far all offsets in it are off because of bytes before the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) entries: u64,
    shift: u64,
}

/// What the directory says of one entry.
#[derive(Debug)]
pub(super) struct Record {
    /// As it stands there.
    pub(super) name: Vec<u8>,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc: u32,
    /// Bytes in the archive.
    pub(super) packed: u64,
    /// Bytes once unpacked.
    pub(super) size: u64,
    /// Where the local header is in the file.
    pub(super) start: u64,
    /// `st_mode` where the archive was made on a unix.
    pub(super) mode: Option<u32>,
    /// Where the next record begins.
    pub(super) next: u64,
}

/// Reads exactly `buf` at `at`, which must end before `limit`.
pub(super) fn read_at<R: Read + Seek>(file: &mut R, at: u64, limit: u64, buf: &mut [u8]) -> Result<(), Error> {
    let cut = || Error::Refused("the zip archive is cut short or damaged; send the whole file".into());
    if at.checked_add(buf.len() as u64).is_none_or(|end| end > limit) {
        return Err(cut());
    }
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(buf).map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { cut() } else { Error::Io(e) })
}

/// Finds the directory of the archive in the first `len` bytes of `file`.
pub(super) fn find<R: Read + Seek>(file: &mut R, len: u64, bounds: &Bounds) -> Result<Directory, Error> {
    let (at, end) = find_end(file, len)?;
    // All ones in a zip64 archive, which says it in its own record.
    if ![(0, 0), (0xffff, 0xffff)].contains(&(le::<2>(&end, 4), le::<2>(&end, 6))) {
        return Err(split());
    }
    let (mut limit, mut entries, mut size, mut offset) = (at, le::<2>(&end, 10), le::<4>(&end, 12), le::<4>(&end, 16));
    let mut on_this_disk = le::<2>(&end, 8);
    if let Some((at64, end64)) = find_end64(file, at)? {
        limit = at64;
        on_this_disk = le::<8>(&end64, 24);
        (entries, size, offset) = (le::<8>(&end64, 32), le::<8>(&end64, 40), le::<8>(&end64, 48));
    }
    if on_this_disk != entries {
        return Err(split());
    }
    if entries > bounds.entries {
        return Err(Error::TooLarge(format!(
            "the zip archive has {entries} entries; at most {} are taken",
            bounds.entries
        )));
    }
    let damaged = || Error::Refused("the zip archive's directory is damaged or cut off; send the whole file".into());
    let start = limit.checked_sub(size).ok_or_else(damaged)?;
    let shift = start.checked_sub(offset).ok_or_else(damaged)?;
    if entries * RECORD as u64 > size {
        return Err(damaged());
    }
    Ok(Directory { start, end: limit, entries, shift })
}

fn split() -> Error {
    Error::Refused("the zip archive is split over several files; make a single one".into())
}

/// The end record, and where it is: the last one whose comment reaches exactly to the end.
fn find_end<R: Read + Seek>(file: &mut R, len: u64) -> Result<(u64, [u8; END]), Error> {
    let longest = (END + usize::from(u16::MAX)) as u64;
    // Nearly always there is no comment: look there before reading 64 KiB.
    for tail in [END as u64, longest] {
        let tail = tail.min(len);
        let from = len - tail;
        let mut bytes = vec![0; usize::try_from(tail).unwrap_or(0)];
        read_at(file, from, len, &mut bytes)?;
        for at in (0..(bytes.len() + 1).saturating_sub(END)).rev() {
            let Some(end) = bytes.get(at..).and_then(|rest| rest.first_chunk::<END>()) else { continue };
            if end.starts_with(b"PK\x05\x06") && at + END + le::<2>(end, 20) as usize == bytes.len() {
                return Ok((from + at as u64, *end));
            }
        }
    }
    let mut head = [0; 4];
    let head = head.get_mut(..len.min(4) as usize).unwrap_or_default();
    read_at(file, 0, len, head)?;
    Err(Error::Refused(match head {
        [] => "the zip archive is empty".into(),
        [b'P', b'K', ..] => "the zip archive is cut short: its directory is missing; send the whole file".into(),
        [0x1f, 0x8b, ..] => "this is a gzip file; send a zip archive".into(),
        _ => "this is not a zip archive; make one with `zip -r fn.zip .`".to_string(),
    }))
}

/// The zip64 end record in front of the end record at `end`, where there is one.
fn find_end64<R: Read + Seek>(file: &mut R, end: u64) -> Result<Option<(u64, [u8; END64])>, Error> {
    let Some(at) = end.checked_sub((LOCATOR + END64) as u64) else { return Ok(None) };
    let mut locator = [0; LOCATOR];
    read_at(file, at + END64 as u64, end, &mut locator)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let mut end64 = [0; END64];
    read_at(file, at, end, &mut end64)?;
    if !end64.starts_with(b"PK\x06\x06") || le::<8>(&end64, 4) != (END64 - 12) as u64 {
        return Err(Error::Refused(
            "the zip archive's zip64 directory is damaged; make the archive without zip64".into(),
        ));
    }
    if le::<4>(&locator, 16) > 1 || le::<4>(&end64, 16) != 0 || le::<4>(&end64, 20) != 0 {
        return Err(split());
    }
    Ok(Some((at, end64)))
}

/// The record at `at`.
pub(super) fn record<R: Read + Seek>(file: &mut R, directory: &Directory, at: u64) -> Result<Record, Error> {
    let mut fixed = [0; RECORD];
    read_at(file, at, directory.end, &mut fixed)?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return Err(Error::Refused("the zip archive's directory is damaged; make the archive again".into()));
    }
    let (name_len, extra_len) = (le::<2>(&fixed, 28) as usize, le::<2>(&fixed, 30) as usize);
    let mut name = vec![0; name_len + extra_len];
    read_at(file, at + RECORD as u64, directory.end, &mut name)?;
    let extra = name.split_off(name_len);
    let mut wide = Wide { values: zip64_field(&extra) };
    // The order is that of APPNOTE 4.5.3: a field is in the extra only where the fixed one is all ones.
    let size = wide.take(le::<4>(&fixed, 24));
    let packed = wide.take(le::<4>(&fixed, 20));
    let offset = wide.take(le::<4>(&fixed, 42));
    let (Some(size), Some(packed), Some(offset)) = (size, packed, offset) else {
        return Err(refused(&name, "its zip64 sizes are missing; make the archive again"));
    };
    if ![0, 0xffff].contains(&le::<2>(&fixed, 34)) {
        return Err(refused(&name, "it is in another part of a split archive; make a single one"));
    }
    let made_on = fixed[5];
    let start = offset.checked_add(directory.shift).filter(|&s| s < directory.start);
    Ok(Record {
        flags: le::<2>(&fixed, 8) as u16,
        method: le::<2>(&fixed, 10) as u16,
        crc: le::<4>(&fixed, 16) as u32,
        packed,
        size,
        start: start.ok_or_else(|| refused(&name, "it lies outside of the archive; make the archive again"))?,
        // 3 is unix, 19 is macOS (APPNOTE 4.4.2).
        mode: [3, 19].contains(&made_on).then(|| le::<2>(&fixed, 40) as u32).filter(|&mode| mode != 0),
        next: at + (RECORD + name_len + extra_len) as u64 + le::<2>(&fixed, 32),
        name,
    })
}

/// The numbers of the zip64 extra field that were not taken yet.
struct Wide<'a> {
    values: &'a [u8],
}

impl Wide<'_> {
    fn take(&mut self, narrow: u64) -> Option<u64> {
        if narrow != u64::from(u32::MAX) {
            return Some(narrow);
        }
        let (value, rest) = self.values.split_first_chunk::<8>()?;
        self.values = rest;
        Some(u64::from_le_bytes(*value))
    }
}

/// The body of the extra field with id 1, APPNOTE 4.5.3; empty where there is none.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_first_chunk::<4>() {
        let len = le::<2>(head, 2) as usize;
        let Some((body, rest)) = rest.split_at_checked(len) else { break };
        if le::<2>(head, 0) == 1 {
            return body;
        }
        extra = rest;
    }
    &[]
}

/// Where the entry's data begins: after the local header, which must belong to the same entry.
pub(super) fn data_start<R: Read + Seek>(file: &mut R, record: &Record, limit: u64) -> Result<u64, Error> {
    let mut fixed = [0; LOCAL];
    read_at(file, record.start, limit, &mut fixed)?;
    let name_len = le::<2>(&fixed, 26) as usize;
    if !fixed.starts_with(b"PK\x03\x04") || name_len != record.name.len() {
        return Err(refused(&record.name, "its header does not match the directory; make the archive again"));
    }
    let mut name = vec![0; name_len];
    read_at(file, record.start + LOCAL as u64, limit, &mut name)?;
    if name != record.name || le::<2>(&fixed, 6) & 1 != u64::from(record.flags & 1) {
        return Err(refused(&record.name, "its header does not match the directory; make the archive again"));
    }
    Ok(record.start + (LOCAL + name_len) as u64 + le::<2>(&fixed, 28))
}
