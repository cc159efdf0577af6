//! A shared allowance of bytes: what a stranger can make us hold counts against one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::Client;

/// A number of bytes that several holders share. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
    /// Who pays, where that is bounded.
    client: Option<Client>,
}

#[derive(Debug)]
struct Inner {
    left: AtomicUsize,
    /// Bytes of one client.
    each: usize,
    /// What clients hold; no more entries than there are shares.
    held: Mutex<Vec<(Client, usize)>>,
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
        Self::with_parts(bytes, bytes)
    }

    /// A budget of `bytes`, of which a client that is not on this machine may hold `each`.
    pub fn with_parts(bytes: usize, each: usize) -> Self {
        let inner = Inner { left: AtomicUsize::new(bytes), each, held: Mutex::default() };
        Self { inner: Arc::new(inner), client: None }
    }

    /// The same budget, from which `client` takes its part.
    pub fn of(&self, client: Client) -> Self {
        Self { inner: Arc::clone(&self.inner), client: (!client.is_local()).then_some(client) }
    }

    /// Takes `bytes`, or nothing and `None` when fewer are left.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let pay = || {
            let left = &self.inner.left;
            left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).ok()
        };
        match self.client {
            None => _ = pay()?,
            Some(client) => {
                let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
                let mine = held.iter_mut().find(|(c, _)| *c == client);
                if bytes > self.inner.each.saturating_sub(mine.as_ref().map_or(0, |(_, n)| *n)) {
                    return None;
                }
                pay()?;
                match mine {
                    Some(entry) => entry.1 += bytes,
                    None if bytes > 0 => held.push((client, bytes)),
                    None => {}
                }
            }
        }
        Some(Share { budget: self.clone(), bytes })
    }

    fn give_back(&self, bytes: usize) {
        self.inner.left.fetch_add(bytes, Ordering::AcqRel);
        let Some(client) = self.client else { return };
        let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|(c, _)| *c == client)
            && let Some(entry) = held.get_mut(at)
        {
            entry.1 = entry.1.saturating_sub(bytes);
            if entry.1 == 0 {
                held.swap_remove(at);
            }
        }
    }

    /// How many bytes nobody holds.
    pub fn left(&self) -> usize {
        self.inner.left.load(Ordering::Acquire)
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
        self.budget.give_back(self.bytes);
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

    #[test]
    fn a_client_takes_its_part_and_leaves_the_rest_to_others() {
        let client = |last| Client::of([10, 0, 0, last].into());
        let budget = Budget::with_parts(10, 6);
        let mut a = budget.of(client(1)).take(4).unwrap();
        assert!(!a.grow(3), "there is more, but not for it");
        assert!(a.grow(2));
        assert!(budget.of(client(1)).take(1).is_none());
        assert!(budget.of(client(2)).take(4).is_some());
        assert!(budget.of(Client::of([127, 0, 0, 1].into())).take(4).is_some());
        drop(a);
        assert_eq!((budget.left(), budget.inner.held.lock().unwrap().len()), (10, 0));
        assert!(Budget::new(10).of(client(1)).take(10).is_some());
    }
}
