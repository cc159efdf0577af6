//! Unpacking of gzip messages (RFC 1952) with a bound on what comes out.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// Why a gzip message was not unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GzipError {
    /// It is not gzip, or its checksum or length does not match.
    Broken(&'static str),
    /// It unpacks to more than so many bytes.
    TooLarge(usize),
    /// The budget has no room for what comes out.
    NoRoom,
}

impl fmt::Display for GzipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(what) => write!(f, "a compressed message is not gzip (RFC 1952): {what}"),
            Self::TooLarge(max) => write!(f, "a compressed message unpacks to more than {max} bytes: send less"),
            Self::NoRoom => f.write_str("no memory left for a compressed message: try again later"),
        }
    }
}

impl std::error::Error for GzipError {}

/// Size in bytes of the first piece of output, and the least by which it grows.
const STEP: usize = 4096;

/// Bits of the header's flag byte, RFC 1952 §2.3.1.
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Unpacks one or more gzip members that follow each other, to at most `max` bytes. `room` is asked before memory for
/// so many more bytes of output is taken.
///
/// # Errors
/// [`GzipError`]; nothing is kept then.
pub fn unpack(input: &[u8], max: usize, room: &mut dyn FnMut(usize) -> bool) -> Result<Vec<u8>, GzipError> {
    let mut out = Vec::new();
    let mut rest = skip_header(input)?;
    let mut inflater = Box::<DecompressorOxide>::default();
    loop {
        let start = out.len();
        inflater.init();
        let (used, filled) = inflate(&mut inflater, rest, &mut out, start, max, room)?;
        if filled > max {
            return Err(GzipError::TooLarge(max));
        }
        out.truncate(filled);
        rest = check_trailer(rest.get(used..).unwrap_or_default(), out.get(start..).unwrap_or_default())?;
        if rest.is_empty() {
            return Ok(out);
        }
        rest = skip_header(rest)?;
    }
}

/// Inflates one deflate stream behind `out[..start]`; returns how much input it took and where the output ends.
fn inflate(
    inflater: &mut DecompressorOxide,
    input: &[u8],
    out: &mut Vec<u8>,
    start: usize,
    max: usize,
    room: &mut dyn FnMut(usize) -> bool,
) -> Result<(usize, usize), GzipError> {
    let (mut used, mut filled) = (0, start);
    loop {
        if filled == out.len() {
            grow(out, max, room)?;
        }
        let from = input.get(used..).unwrap_or_default();
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        // A member may refer back only into itself.
        let Some(own) = out.get_mut(start..) else { return Err(GzipError::Broken("no output")) };
        let (status, read, wrote) = decompress(inflater, from, own, filled - start, flags);
        used += read;
        filled += wrote;
        match status {
            TINFLStatus::Done => return Ok((used, filled)),
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                return Err(GzipError::Broken("it is cut short"));
            }
            _ => return Err(GzipError::Broken("its data is corrupt")),
        }
    }
}

/// Makes `out` longer: twice as long, one byte over `max` at most, which a message within the bound never fills.
fn grow(out: &mut Vec<u8>, max: usize, room: &mut dyn FnMut(usize) -> bool) -> Result<(), GzipError> {
    let more = out.len().max(STEP).min((max + 1).saturating_sub(out.len()));
    if more == 0 {
        return Err(GzipError::TooLarge(max));
    }
    // What a member before this one left unused is paid for already.
    let new = (out.len() + more).saturating_sub(out.capacity());
    if new > 0 {
        if !room(new) {
            return Err(GzipError::NoRoom);
        }
        out.reserve_exact(more);
    }
    out.resize(out.len() + more, 0);
    Ok(())
}

fn skip_header(input: &[u8]) -> Result<&[u8], GzipError> {
    const CUT: GzipError = GzipError::Broken("its header is cut short");
    let (head, mut rest) = input.split_first_chunk::<10>().ok_or(CUT)?;
    let &[id1, id2, method, flags, ..] = head;
    if (id1, id2, method) != (0x1f, 0x8b, 8) {
        return Err(GzipError::Broken("it does not start with 1f 8b 08"));
    }
    if flags & RESERVED != 0 {
        return Err(GzipError::Broken("its header has reserved flags"));
    }
    if flags & FEXTRA != 0 {
        let (len, after) = rest.split_first_chunk::<2>().ok_or(CUT)?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..).ok_or(CUT)?;
    }
    for field in [FNAME, FCOMMENT] {
        if flags & field != 0 {
            let end = rest.iter().position(|&b| b == 0).ok_or(CUT)?;
            rest = rest.get(end + 1..).ok_or(CUT)?;
        }
    }
    if flags & FHCRC != 0 {
        let (crc, after) = rest.split_first_chunk::<2>().ok_or(CUT)?;
        let covered = input.get(..input.len() - rest.len()).unwrap_or_default();
        let [a, b, ..] = crc32fast::hash(covered).to_le_bytes();
        if *crc != [a, b] {
            return Err(GzipError::Broken("its header's checksum does not match"));
        }
        rest = after;
    }
    Ok(rest)
}

fn check_trailer<'a>(input: &'a [u8], output: &[u8]) -> Result<&'a [u8], GzipError> {
    let (trailer, rest) = input.split_first_chunk::<8>().ok_or(GzipError::Broken("its end is missing"))?;
    let [a, b, c, d, e, f, g, h] = *trailer;
    if u32::from_le_bytes([a, b, c, d]) != crc32fast::hash(output) {
        return Err(GzipError::Broken("its checksum does not match"));
    }
    // Modulo 2^32 by definition (RFC 1952 §2.3.1).
    #[allow(clippy::cast_possible_truncation)]
    if u32::from_le_bytes([e, f, g, h]) != output.len() as u32 {
        return Err(GzipError::Broken("its length does not match"));
    }
    Ok(rest)
}

/// Packs `data` into one gzip member.
pub fn pack(data: &[u8]) -> Vec<u8> {
    // No flags, no time, no extra flags, unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend(miniz_oxide::deflate::compress_to_vec(data, 6));
    out.extend(crc32fast::hash(data).to_le_bytes());
    #[allow(clippy::cast_possible_truncation)]
    out.extend((data.len() as u32).to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(input: &[u8], max: usize) -> Result<Vec<u8>, GzipError> {
        unpack(input, max, &mut |_| true)
    }

    #[test]
    fn what_was_packed_unpacks() {
        for size in [0, 1, STEP - 1, STEP, STEP + 1, 100_000] {
            let data: Vec<u8> = (0..size).map(|i| (i * i / 7) as u8).collect();
            assert_eq!(plain(&pack(&data), size).as_deref(), Ok(&data[..]), "{size}");
        }
    }

    #[test]
    fn a_gzip_of_another_make_with_all_header_fields_unpacks() {
        // "hello" stored; FTEXT, FEXTRA, FNAME, FCOMMENT and FHCRC set, put together by hand from RFC 1952.
        let mut file = b"\x1f\x8b\x08\x1f\0\0\0\0\0\x03\x03\0abcname\0comment\0".to_vec();
        let crc = crc32fast::hash(&file).to_le_bytes();
        file.extend(&crc[..2]);
        file.extend(b"\x01\x05\0\xfa\xffhello");
        file.extend(0x3610_a686u32.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        assert_eq!(plain(&file, 5).as_deref(), Ok(&b"hello"[..]));
        file[28] ^= 1;
        assert_eq!(plain(&file, 5), Err(GzipError::Broken("its header's checksum does not match")));
    }

    #[test]
    fn members_that_follow_each_other_are_one_message() {
        let mut two = pack(b"hello ");
        two.extend(pack(b"world"));
        assert_eq!(plain(&two, 11).as_deref(), Ok(&b"hello world"[..]));
        assert_eq!(plain(&two, 10), Err(GzipError::TooLarge(10)));
    }

    #[test]
    fn a_bomb_stops_at_the_bound_and_takes_no_more_memory_than_it() {
        let bomb = pack(&vec![0; 1 << 24]);
        let mut taken = 0;
        let result = unpack(&bomb, 1 << 20, &mut |n| {
            taken += n;
            true
        });
        assert_eq!(result, Err(GzipError::TooLarge(1 << 20)));
        assert!(taken <= (1 << 20) + 1, "{taken}");
    }

    #[test]
    fn no_memory_is_taken_that_the_budget_refuses() {
        assert_eq!(unpack(&pack(b"x"), 10, &mut |_| false), Err(GzipError::NoRoom));
    }

    #[test]
    fn every_cut_and_every_changed_trailer_is_noticed() {
        let whole = pack(b"hello hello hello");
        for end in 0..whole.len() {
            assert!(matches!(plain(&whole[..end], 100), Err(GzipError::Broken(_))), "cut at {end}");
        }
        for at in (0..4).chain(whole.len() - 8..whole.len()) {
            let mut bad = whole.clone();
            bad[at] ^= 0x41;
            assert!(plain(&bad, 100).is_err(), "changed at {at}");
        }
        let mut more = whole.clone();
        more.push(0);
        assert!(matches!(plain(&more, 100), Err(GzipError::Broken(_))));
    }
}
