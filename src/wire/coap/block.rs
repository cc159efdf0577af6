//! The value of the Block options (RFC 7959 §2.2).

/// One block: which, whether more follow, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number, counted in blocks of its own size; 20 bits.
    pub number: u32,
    /// Whether more follow.
    pub more: bool,
    /// Its size as an exponent: 0 is 16 bytes, 6 is 1024.
    pub szx: u8,
}

impl Block {
    /// The largest size exponent: 1024 bytes.
    pub const MAX_SZX: u8 = 6;
    /// The highest number: 20 bits.
    pub const MAX_NUMBER: u32 = 0xf_ffff;

    /// Takes an option's value; `None` for the reserved size 7.
    pub fn from_uint(value: u32) -> Option<Self> {
        let szx = (value & 7) as u8;
        (szx <= Self::MAX_SZX && value >> 4 <= Self::MAX_NUMBER).then_some(Self {
            number: value >> 4,
            more: value & 8 != 0,
            szx,
        })
    }

    /// The option's value.
    pub fn to_uint(self) -> u32 {
        self.number << 4 | u32::from(self.more) << 3 | u32::from(self.szx)
    }

    /// Its size in bytes: 16 to 1024.
    pub fn size(self) -> usize {
        16 << self.szx.min(Self::MAX_SZX)
    }

    /// Where it begins in the body, in bytes.
    pub fn offset(self) -> usize {
        self.number as usize * self.size()
    }

    /// The block of at most `1 << szx + 4` bytes that begins where this one does.
    pub fn at_most(self, szx: u8) -> Self {
        if szx >= self.szx {
            return self;
        }
        Self { number: self.number << (self.szx - szx), szx, ..self }
    }

    /// This block of `body`, with its `more` set right; `None` where it begins behind the end.
    pub fn cut(self, body: &[u8]) -> Option<(Self, &[u8])> {
        let rest = body.get(self.offset()..).filter(|rest| !rest.is_empty() || self.number == 0)?;
        let piece = rest.get(..self.size()).unwrap_or(rest);
        Some((Self { more: piece.len() < rest.len(), ..self }, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_number_more_and_size() {
        let b = Block::from_uint(0x1a).unwrap();
        assert_eq!((b.number, b.more, b.szx, b.size(), b.offset()), (1, true, 2, 64, 64));
        assert_eq!(b.to_uint(), 0x1a);
        assert_eq!(Block::from_uint(7), None);
        assert_eq!(Block::from_uint(0x0100_0000), None);
    }

    #[test]
    fn a_smaller_size_keeps_the_place_in_the_body() {
        let b = Block { number: 3, more: true, szx: 6 };
        assert_eq!(b.at_most(4), Block { number: 12, more: true, szx: 4 });
        assert_eq!(b.at_most(4).offset(), b.offset());
        assert_eq!(b.at_most(6), b);
    }

    #[test]
    fn a_body_is_cut_into_blocks_and_nothing_lies_behind_its_end() {
        let body = [7u8; 33];
        let block = |number| Block { number, more: false, szx: 0 }.cut(&body).map(|(b, piece)| (b.more, piece.len()));
        assert_eq!(
            [block(0), block(1), block(2), block(3)],
            [Some((true, 16)), Some((true, 16)), Some((false, 1)), None]
        );
        assert_eq!(Block { number: 0, more: false, szx: 6 }.cut(b"").unwrap().1, b"");
        assert_eq!(Block { number: 2, more: false, szx: 0 }.cut(&body[..32]), None);
    }
}
