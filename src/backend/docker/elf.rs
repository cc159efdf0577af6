//! Whether an executable needs nothing but the kernel: ours is copied into images that hold any C library, or none.

/// A program header that names a dynamic loader.
const PT_INTERP: u32 = 3;

/// How much of an executable's start is enough for [`needs_loader`]; linkers put the program headers there.
pub const HEAD: usize = 4096;

/// Whether the ELF executable that starts with `head` needs a dynamic loader; `None` where it is no ELF executable.
pub fn needs_loader(head: &[u8]) -> Option<bool> {
    let wide = match head.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, 1] => false,
        [0x7f, b'E', b'L', b'F', 2, 1] => true,
        // Big-endian machines are not built for.
        _ => return None,
    };
    let (offset, size, count) = if wide {
        (le(head, 32, 8)?, le(head, 54, 2)?, le(head, 56, 2)?)
    } else {
        (le(head, 28, 4)?, le(head, 42, 2)?, le(head, 44, 2)?)
    };
    for i in 0..count {
        if le(head, offset.checked_add(i * size)?, 4)? == u64::from(PT_INTERP) {
            return Some(true);
        }
    }
    Some(false)
}

/// The little-endian number of `len` bytes at `at`.
fn le(bytes: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(len)?)?;
    Some(field.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(wide: bool, kinds: &[u32]) -> Vec<u8> {
        let mut head = vec![0; 256];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1]);
        let (offset, size, count, entry) = if wide { (32, 54, 56, 56) } else { (28, 42, 44, 32) };
        head[offset] = 64;
        head[size] = entry;
        head[count] = kinds.len() as u8;
        for (i, kind) in kinds.iter().enumerate() {
            head[64 + i * usize::from(entry)] = *kind as u8;
        }
        head
    }

    #[test]
    fn an_interpreter_is_found_in_32_and_64_bit_files() {
        for wide in [false, true] {
            assert_eq!(needs_loader(&elf(wide, &[6, 3, 1])), Some(true));
            assert_eq!(needs_loader(&elf(wide, &[6, 1, 2])), Some(false));
        }
    }

    #[test]
    fn what_is_no_elf_or_is_cut_is_not_judged() {
        assert_eq!(needs_loader(b"#!/bin/sh\n"), None);
        assert_eq!(needs_loader(b""), None);
        assert_eq!(needs_loader(&elf(true, &[1, 1])[..100]), None);
    }
}
