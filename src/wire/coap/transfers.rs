//! Bodies in blocks (RFC 7959): those that arrive, and those that are fetched.
//!
//! Both belong to one request of one endpoint, told by a keyed hash over its address, method and options.

use std::sync::Arc;

use super::block::Block;
use super::{Answer, Config, Held, Millis};
use crate::budget::Budget;
use crate::client::Client;

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
    /// It is the last one and others are missing, or the body was taken before: 4.08.
    Incomplete,
    /// It contradicts those that came: 4.08.
    Mixed,
    /// More would follow, but it is not as long as it says: 4.00.
    WrongSize,
    /// The body passes [`Config::max_body`]: 4.13.
    TooLarge,
    /// No room now: 5.03.
    Full,
}

/// Bytes of the smallest block: every block but the last of a body is a multiple of it.
const UNIT: usize = 16;

/// A body that arrives, or one that did a short while ago.
#[derive(Debug)]
struct Upload {
    key: RequestKey,
    client: Client,
    /// Message id of the block 0 that it began with.
    first: Option<u16>,
    /// The newest message id among its blocks.
    newest: u16,
    body: Held,
    /// Which units of the body came, a bit each: less than a hundredth of the body.
    came: Vec<u8>,
    /// The whole body's length, once the last block came.
    length: Option<usize>,
    /// Whether it was handed out. What comes late of it then begins no body.
    done: bool,
    heard: Millis,
}

impl Upload {
    fn new((key, client): (RequestKey, Client), id: u16) -> Self {
        Self {
            key,
            client,
            first: None,
            newest: id,
            body: Held::EMPTY,
            came: Vec::new(),
            length: None,
            done: false,
            heard: 0,
        }
    }

    fn has(&self, unit: usize) -> bool {
        self.came.get(unit / 8).is_some_and(|bits| bits & 1 << (unit % 8) != 0)
    }

    /// Whether more of it came than one block.
    fn has_gone_on(&self) -> bool {
        self.newest != self.first.unwrap_or(self.newest)
    }

    /// Whether all of the first `length` bytes came.
    fn is_whole(&self, length: usize) -> bool {
        (0..length.div_ceil(UNIT)).all(|unit| self.has(unit))
    }

    /// Whether a piece can be of the same body as what is here.
    fn fits(&self, start: usize, piece: &[u8], more: bool) -> bool {
        let end = start + piece.len();
        let length_fits = match self.length {
            Some(length) => {
                if more {
                    end < length
                } else {
                    end == length
                }
            }
            None => more || self.body.len() <= end,
        };
        let held = self.body.as_bytes();
        let mut units = (start / UNIT..).zip(piece.chunks(UNIT));
        length_fits
            && units.all(|(unit, chunk)| {
                !self.has(unit) || held.get(unit * UNIT..).is_some_and(|held| held.starts_with(chunk))
            })
    }

    /// Begins anew where a block, which came in message `id`, tells that its body is another one.
    fn meet(&mut self, id: u16, is_first: bool, piece: &[u8]) {
        // Message ids count up (RFC 7252 §4.4), so one that is newer than all of a body that was taken is no copy of its blocks.
        let is_newer = (id.wrapping_sub(self.newest) as i16) > 0;
        let other_first = is_first && self.first.is_some_and(|first| first != id);
        let is_other = match self.done {
            true => is_newer || other_first,
            false => other_first || is_first && !self.fits(0, piece, true),
        };
        if is_other {
            *self = Self::new((self.key, self.client), id);
        }
        if is_first {
            self.first = Some(id);
        }
        if is_newer {
            self.newest = id;
        }
    }

    /// Takes a piece that fits; `false` where the budget has no room.
    fn put(&mut self, start: usize, piece: &[u8], budget: &Budget) -> bool {
        let units = start / UNIT..(start + piece.len()).div_ceil(UNIT);
        if !self.body.put(start, piece, budget) {
            return false;
        }
        self.came.resize(self.came.len().max(units.end.div_ceil(8)), 0);
        for unit in units {
            if let Some(bits) = self.came.get_mut(unit / 8) {
                *bits |= 1 << (unit % 8);
            }
        }
        true
    }

    fn take(&mut self, start: usize, piece: &[u8], more: bool, budget: &Budget) -> Step {
        if !self.fits(start, piece, more) {
            return Step::Mixed;
        }
        if !self.put(start, piece, budget) {
            return Step::Full;
        }
        if more {
            return Step::Continue;
        }
        let length = start + piece.len();
        self.length = Some(length);
        if !self.is_whole(length) {
            return Step::Incomplete;
        }
        (self.done, self.came) = (true, Vec::new());
        Step::Whole(std::mem::replace(&mut self.body, Held::EMPTY))
    }
}

/// Bodies that arrive.
#[derive(Debug)]
pub struct Uploads {
    table: Vec<Upload>,
    bound: usize,
    max_body: usize,
    lifetime: Millis,
    stall: Millis,
    start: Millis,
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
            start: config.transfer_start.min(config.transfer_stall).min(config.transfer_lifetime),
        }
    }

    /// Takes one block, which came in message `id` (RFC 7959 §2.5).
    ///
    /// Blocks may come in any order and more than once. The body is whole when its last block comes and all others are there;
    /// else they can still be sent, and the last one again. A block 0 in another message, or one that contradicts the others,
    /// begins the body anew. Other blocks that contradict each other are of different bodies, and neither is trusted.
    pub fn take(
        &mut self,
        now: Millis,
        whose: (RequestKey, Client),
        id: u16,
        block: Block,
        piece: &[u8],
        budget: &Budget,
    ) -> Step {
        let key = whose.0;
        if block.more && piece.len() != block.size() || piece.len() > block.size() {
            return Step::WrongSize;
        }
        let (start, end) = (block.offset(), block.offset() + piece.len());
        let too_large = end > self.max_body;
        let place = self.table.iter().position(|upload| upload.key == key);
        if too_large || block.number == 0 && !block.more {
            place.map(|place| self.table.swap_remove(place));
            return match too_large {
                true => Step::TooLarge,
                false => Held::copy(piece, budget).map_or(Step::Full, Step::Whole),
            };
        }
        let place = match place {
            Some(place) => place,
            None if !self.make_room(now, whose.1) => return Step::Full,
            None => {
                self.table.push(Upload::new(whose, id));
                self.table.len() - 1
            }
        };
        let Some(upload) = self.table.get_mut(place) else { return Step::Full };
        upload.meet(id, block.number == 0, piece);
        upload.heard = now;
        if upload.done {
            return if block.more { Step::Continue } else { Step::Incomplete };
        }
        let step = upload.take(start, piece, block.more, budget);
        if matches!(step, Step::Mixed | Step::Full) {
            // Half a body that cannot go on only keeps others from growing.
            self.table.swap_remove(place);
        }
        step
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

    /// Gives up the one that was quiet for longest for one of `client`: one that is done, else one that stalled, else one of
    /// a client that still has no fewer then.
    fn make_room(&mut self, now: Millis, client: Client) -> bool {
        if self.table.len() < self.bound {
            return true;
        }
        let count = |of: Client| self.table.iter().filter(|upload| upload.client == of).count();
        let stalled = |upload: &Upload| {
            let patience = if upload.has_gone_on() { self.stall } else { self.start };
            now.saturating_sub(upload.heard) >= patience
        };
        let mine = count(client);
        let spared = |upload: &Upload| upload.done || stalled(upload) || count(upload.client) > mine + 1;
        let candidates = self.table.iter().enumerate().filter(|(_, upload)| spared(upload));
        let oldest = candidates.min_by_key(|(_, upload)| (!upload.done, !stalled(upload), upload.heard));
        let Some(place) = oldest.map(|(place, _)| place) else { return false };
        self.table.swap_remove(place);
        true
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
