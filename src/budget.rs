//! A shared allowance of bytes: what a stranger can make us hold counts against one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that several holders share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

/// Bytes taken from a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// Takes `bytes`, or nothing and `None` when fewer are left.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).ok()?;
        Some(Share { budget: self.clone(), bytes })
    }

    /// How many bytes nobody holds.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }
}

impl Share {
    /// Takes `bytes` more into this share; `false`, and nothing taken, when fewer are left.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        match self.budget.take(bytes) {
            Some(mut more) => {
                self.bytes += more.bytes;
                more.bytes = 0;
                true
            }
            None => false,
        }
    }

    /// How many bytes this share holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_comes_back_when_dropped_and_never_passes_the_budget() {
        let budget = Budget::new(10);
        let mut a = budget.take(4).unwrap();
        assert!(budget.take(7).is_none());
        assert!(a.grow(6));
        assert!(!a.grow(1));
        assert_eq!((a.bytes(), budget.left()), (10, 0));
        drop(a);
        assert_eq!(budget.left(), 10);
    }
}
