//! Bodies in blocks (RFC 7959): those that arrive, and those that are fetched.
//!
//! Both belong to one request of one endpoint, told by a keyed hash over its address, method and options.

use std::sync::Arc;

use super::block::Block;
use super::{Answer, Config, Held, Millis};
use crate::budget::Budget;

/// Names a request of an endpoint: the same for all its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey(pub u64);

/// What became of one block of a request's body.
#[derive(Debug)]
pub enum Step {
    /// It was taken, or was there already: 2.31 Continue.
    Continue,
    /// It was the last one: the whole body.
    Whole(Held),
    /// Blocks before it are missing: 4.08.
    Incomplete,
    /// More would follow, but it is not as long as it says: 4.00.
    WrongSize,
    /// The body passes [`Config::max_body`]: 4.13.
    TooLarge,
    /// No room now: 5.03.
    Full,
}

#[derive(Debug)]
struct Upload {
    key: RequestKey,
    body: Held,
    heard: Millis,
}

/// Bodies that arrive.
#[derive(Debug)]
pub struct Uploads {
    table: Vec<Upload>,
    bound: usize,
    max_body: usize,
    lifetime: Millis,
    stall: Millis,
}

impl Uploads {
    /// As many, as long and for as long as `config` says.
    pub fn new(config: &Config) -> Self {
        Self {
            table: Vec::new(),
            bound: config.uploads,
            max_body: config.max_body,
            lifetime: config.transfer_lifetime,
            stall: config.transfer_stall.min(config.transfer_lifetime),
        }
    }

    /// Takes one block (RFC 7959 §2.5).
    ///
    /// Blocks come in order; one that is there already counts as taken, so a repeated one does no harm. A first block that
    /// differs from the one that is there begins the body anew, any other that differs does not belong to it.
    pub fn take(&mut self, now: Millis, key: RequestKey, block: Block, payload: &[u8], budget: &Budget) -> Step {
        if block.more && payload.len() != block.size() || payload.len() > block.size() {
            return Step::WrongSize;
        }
        let (start, end) = (block.offset(), block.offset() + payload.len());
        if end > self.max_body {
            self.table.retain(|upload| upload.key != key);
            return Step::TooLarge;
        }
        let place = match self.table.iter().position(|upload| upload.key == key) {
            Some(place) => place,
            None if block.number > 0 => return Step::Incomplete,
            None if !self.make_room(now) => return Step::Full,
            None => {
                self.table.push(Upload { key, body: Held::EMPTY, heard: now });
                self.table.len() - 1
            }
        };
        let Some(upload) = self.table.get_mut(place) else { return Step::Full };
        upload.heard = now;
        let held = upload.body.as_bytes();
        if start == 0 && held.get(..end) != Some(payload) {
            upload.body = Held::EMPTY;
        } else if start > held.len() {
            return Step::Incomplete;
        }
        let known = upload.body.len();
        if start < known {
            let same = upload.body.as_bytes().get(start..end) == Some(payload);
            return match (same, block.more) {
                (true, true) => Step::Continue,
                (true, false) if end == known => Step::Whole(self.table.swap_remove(place).body),
                _ => Step::Incomplete,
            };
        }
        if !upload.body.extend(payload, budget) {
            // Half a body that cannot grow keeps others from growing.
            self.table.swap_remove(place);
            return Step::Full;
        }
        if block.more { Step::Continue } else { Step::Whole(self.table.swap_remove(place).body) }
    }

    /// Drops bodies whose next block is overdue.
    pub fn expire(&mut self, now: Millis) {
        let lifetime = self.lifetime;
        self.table.retain(|upload| now.saturating_sub(upload.heard) < lifetime);
        if self.table.is_empty() {
            self.table = Vec::new();
        }
    }

    /// When the next one is overdue.
    pub fn next(&self) -> Option<Millis> {
        self.table.iter().map(|upload| upload.heard + self.lifetime).min()
    }

    /// How many are arriving.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn make_room(&mut self, now: Millis) -> bool {
        if self.table.len() < self.bound {
            return true;
        }
        let oldest = self.table.iter().enumerate().min_by_key(|(_, upload)| upload.heard);
        match oldest {
            Some((place, upload)) if now.saturating_sub(upload.heard) >= self.stall => {
                self.table.swap_remove(place);
                true
            }
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Stored {
    key: RequestKey,
    answer: Arc<Answer>,
    heard: Millis,
    /// Whether its last block was fetched.
    fetched: bool,
}

/// Answers whose further blocks are fetched.
#[derive(Debug)]
pub struct Results {
    table: Vec<Stored>,
    bound: usize,
    lifetime: Millis,
}

impl Results {
    /// As many and for as long as `config` says.
    pub fn new(config: &Config) -> Self {
        Self { table: Vec::new(), bound: config.results.max(1), lifetime: config.transfer_lifetime }
    }

    /// Keeps an answer in place of an older one to the same request.
    pub fn keep(&mut self, now: Millis, key: RequestKey, answer: Arc<Answer>) {
        self.table.retain(|stored| stored.key != key);
        if self.table.len() >= self.bound {
            self.evict();
        }
        self.table.push(Stored { key, answer, heard: now, fetched: false });
    }

    /// The answer to that request, of which `block` is fetched now.
    pub fn fetch(&mut self, now: Millis, key: RequestKey, block: Block) -> Option<Arc<Answer>> {
        let stored = self.table.iter_mut().find(|stored| stored.key == key)?;
        stored.heard = now;
        stored.fetched |= block.offset() + block.size() >= stored.answer.body.len();
        Some(stored.answer.clone())
    }

    /// Forgets one: one that was fetched to its end before others, the oldest first. `false` when there is none.
    pub fn evict(&mut self) -> bool {
        let oldest = self.table.iter().enumerate().min_by_key(|(_, stored)| (!stored.fetched, stored.heard));
        let Some((place, _)) = oldest else { return false };
        self.table.swap_remove(place);
        true
    }

    /// Forgets those that nobody fetches any more.
    pub fn expire(&mut self, now: Millis) {
        let lifetime = self.lifetime;
        self.table.retain(|stored| now.saturating_sub(stored.heard) < lifetime);
        if self.table.is_empty() {
            self.table = Vec::new();
        }
    }

    /// When the next one is forgotten.
    pub fn next(&self) -> Option<Millis> {
        self.table.iter().map(|stored| stored.heard + self.lifetime).min()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
#[path = "transfers_tests.rs"]
mod tests;
