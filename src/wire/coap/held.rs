//! Bytes that a stranger made us hold, counted against a budget.

use crate::budget::{Budget, Share};

/// A buffer whose capacity is taken from a [`Budget`], and given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: Vec<u8>,
    share: Option<Share>,
}

impl Held {
    /// Nothing, which costs nothing.
    pub const EMPTY: Self = Self { bytes: Vec::new(), share: None };

    /// A line of our own making, which needs no budget: it is short and soon sent.
    pub fn line(text: String) -> Self {
        Self { bytes: text.into_bytes(), share: None }
    }

    /// A copy of `bytes`, or `None` when the budget has no room.
    pub fn copy(bytes: &[u8], budget: &Budget) -> Option<Self> {
        let mut held = Self::EMPTY;
        held.extend(bytes, budget).then_some(held)
    }

    /// Appends `more`; `false`, and nothing done, when the budget has no room.
    #[must_use]
    pub fn extend(&mut self, more: &[u8], budget: &Budget) -> bool {
        let ok = self.make_room(self.bytes.len() + more.len(), budget);
        if ok {
            self.bytes.extend_from_slice(more);
        }
        ok
    }

    /// Puts `piece` at `start`, over what is there; a gap before it is filled with zeros. `false`, and nothing done, when the
    /// budget has no room.
    #[must_use]
    pub fn put(&mut self, start: usize, piece: &[u8], budget: &Budget) -> bool {
        let end = start + piece.len();
        if !self.make_room(end, budget) {
            return false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(start..end) {
            place.copy_from_slice(piece);
        }
        true
    }

    /// Makes room for `needed` bytes in all.
    fn make_room(&mut self, needed: usize, budget: &Budget) -> bool {
        // Twice as much as before saves moves; just enough has to do when the budget is nearly used up.
        needed <= self.bytes.capacity()
            || self.reserve(needed.max(self.bytes.capacity() * 2), budget)
            || self.reserve(needed, budget)
    }

    fn reserve(&mut self, capacity: usize, budget: &Budget) -> bool {
        let more = capacity.saturating_sub(self.bytes.capacity());
        let taken = match &mut self.share {
            Some(share) => share.grow(more),
            none => {
                *none = budget.take(more);
                none.is_some()
            }
        };
        if taken {
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        taken
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes its memory has room for.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_bounds_what_is_held_and_gets_it_back() {
        let budget = Budget::new(100);
        let mut a = Held::copy(&[1; 40], &budget).unwrap();
        assert!(a.extend(&[2; 30], &budget));
        assert!(!a.extend(&[3; 31], &budget));
        assert_eq!((a.len(), Held::copy(&[0; 31], &budget).is_none()), (70, true));
        drop(a);
        assert_eq!(budget.left(), 100);
    }

    #[test]
    fn pieces_may_come_in_any_order() {
        let budget = Budget::new(100);
        let mut a = Held::EMPTY;
        assert!(a.put(3, b"de", &budget));
        assert_eq!(a.as_bytes(), b"\0\0\0de");
        assert!(a.put(0, b"abcD", &budget));
        assert_eq!(a.as_bytes(), b"abcDe");
        assert!(!a.put(99, b"xy", &budget));
        assert_eq!(a.len(), 5);
    }
}
