//! Which requests were seen, and what was said to them (RFC 7252 §4.5).
//!
//! Only requests that ran something, or a body's last block, are remembered: asking the others again does no harm. An answer's bytes go into one ring,
//! where new ones write over the oldest; a request is remembered longer than its answer.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::slots::Key;
use super::{Millis, Peer};

/// A request's endpoint and message id as one keyed hash: 64 bits that nobody outside can aim at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// What to do about a request that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is at work.
    Running(Key),
    /// Send the same answer again: [`Duplicates::answer`] has it.
    Answered(Bytes),
    /// It was acknowledged, and its answer travels on its own.
    Acknowledged,
    /// Nothing was said, since the client wanted it so.
    Silent,
}

/// Where in the ring an answer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    start: u32,
    len: u16,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// Second of the clock from which on the message id may be used anew.
    expires: u32,
}

/// The table of requests seen, bounded in number and in bytes.
#[derive(Debug)]
pub struct Duplicates {
    entries: HashMap<Fingerprint, Entry, BuildHasherDefault<AsItIs>>,
    /// Those that are no longer at work, the first one done first.
    done: VecDeque<Fingerprint>,
    ring: Vec<u8>,
    /// Bytes ever written to the ring, gaps included, modulo 2^32.
    written: u32,
    /// When the last of those that are done is forgotten.
    latest: Millis,
    /// How many are at work.
    running: usize,
    bound: usize,
    ring_bound: usize,
    keys: RandomState,
}

impl Duplicates {
    /// A table of at most `bound` requests whose answers take at most `ring` bytes, rounded up to a power of two.
    pub fn new(bound: usize, ring: usize) -> Self {
        Self {
            entries: HashMap::default(),
            done: VecDeque::new(),
            ring: Vec::new(),
            written: 0,
            latest: 0,
            running: 0,
            bound: bound.max(1),
            ring_bound: ring.clamp(1, 1 << 30).next_power_of_two(),
            keys: RandomState::new(),
        }
    }

    /// Names the request with message id `id` of `peer`.
    pub fn fingerprint(&self, peer: &Peer, id: u16) -> Fingerprint {
        Fingerprint(self.keys.hash_one((peer, id)))
    }

    /// Whether the request was seen, and what became of it.
    pub fn find(&mut self, now: Millis, request: Fingerprint) -> Option<Seen> {
        let entry = self.entries.get(&request)?;
        if !matches!(entry.seen, Seen::Running(_)) && u64::from(entry.expires) <= now / 1000 {
            self.entries.remove(&request);
            return None;
        }
        Some(entry.seen)
    }

    /// Remembers a request that begins to be at work; `false` when all that are remembered are at work as well.
    #[must_use]
    pub fn begin(&mut self, request: Fingerprint, key: Key) -> bool {
        let taken = self.take_place(request, Seen::Running(key));
        self.running += usize::from(taken);
        taken
    }

    /// Remembers until `expires` that the request was answered with `datagram` and ran nothing, where there is room for that.
    pub fn refused(&mut self, request: Fingerprint, expires: Millis, datagram: &[u8]) {
        if self.take_place(request, Seen::Silent) {
            self.answered(request, expires, datagram);
        }
    }

    /// Remembers until `expires` that the request was answered with `datagram`.
    pub fn answered(&mut self, request: Fingerprint, expires: Millis, datagram: &[u8]) {
        match self.store(datagram) {
            Some(bytes) => self.end(request, expires, Seen::Answered(bytes)),
            None => self.end(request, expires, Seen::Answered(Bytes { start: self.written, len: u16::MAX })),
        }
    }

    /// Remembers until `expires` that the request was done with: [`Seen::Acknowledged`] or [`Seen::Silent`].
    pub fn end(&mut self, request: Fingerprint, expires: Millis, seen: Seen) {
        let Some(entry) = self.entries.get_mut(&request) else { return };
        if matches!(entry.seen, Seen::Running(_)) {
            self.running -= 1;
        }
        self.latest = self.latest.max(expires);
        *entry = Entry { seen, expires: u32::try_from(expires.div_ceil(1000)).unwrap_or(u32::MAX) };
        // An expired entry that was used anew stands twice in the queue; the bound holds all the same.
        if self.done.len() >= self.bound
            && let Some(oldest) = self.done.pop_front()
            && oldest != request
        {
            self.forget_done(oldest);
        }
        self.done.push_back(request);
    }

    /// The datagram; `None` where newer ones were written over it.
    pub fn answer(&self, bytes: Bytes) -> Option<&[u8]> {
        if self.written.wrapping_sub(bytes.start) as usize > self.ring_bound {
            return None;
        }
        let start = bytes.start as usize % self.ring_bound;
        self.ring.get(start..start + usize::from(bytes.len))
    }

    /// Gives all memory back once nothing that is remembered matters any more.
    pub fn expire(&mut self, now: Millis) {
        if self.next().is_some_and(|at| at <= now) {
            (self.entries, self.done, self.ring, self.written) = Default::default();
        }
    }

    /// When [`Duplicates::expire`] has something to do; `None` while a request is at work, or none is remembered.
    pub fn next(&self) -> Option<Millis> {
        (self.running == 0 && !self.done.is_empty()).then_some(self.latest)
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a place for a request, at the cost of the one that was done first; `false` where all are at work.
    fn take_place(&mut self, request: Fingerprint, seen: Seen) -> bool {
        while self.entries.len() >= self.bound {
            let Some(oldest) = self.done.pop_front() else { return false };
            self.forget_done(oldest);
        }
        self.entries.insert(request, Entry { seen, expires: 0 });
        true
    }

    fn forget_done(&mut self, request: Fingerprint) {
        if self.entries.get(&request).is_some_and(|entry| !matches!(entry.seen, Seen::Running(_))) {
            self.entries.remove(&request);
        }
    }

    /// Writes `datagram` into the ring in one piece; `None` where it can never fit.
    fn store(&mut self, datagram: &[u8]) -> Option<Bytes> {
        let len = u16::try_from(datagram.len()).ok().filter(|&len| len < u16::MAX)?;
        let mut start = self.written as usize % self.ring_bound;
        if start + datagram.len() > self.ring_bound {
            if datagram.len() > self.ring_bound {
                return None;
            }
            self.written = self.written.wrapping_add((self.ring_bound - start) as u32);
            start = 0;
        }
        let end = start + datagram.len();
        if self.ring.len() < end {
            self.ring.resize(end, 0);
        }
        self.ring.get_mut(start..end)?.copy_from_slice(datagram);
        let bytes = Bytes { start: self.written, len };
        self.written = self.written.wrapping_add(u32::from(len));
        Some(bytes)
    }
}

/// Takes a fingerprint, which is a hash already, as its own hash.
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = self.0 << 8 | u64::from(b);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::Slots;
    use super::*;

    fn key() -> Key {
        Slots::new(1).insert(()).unwrap()
    }

    fn peer() -> Peer {
        Peer::new("192.0.2.1:5683".parse().unwrap(), 0)
    }

    /// Answers request `id` with `datagram`.
    fn done(table: &mut Duplicates, id: u16, datagram: &[u8]) -> Fingerprint {
        let request = table.fingerprint(&peer(), id);
        assert!(table.begin(request, key()));
        table.answered(request, 247_000, datagram);
        request
    }

    fn answer(table: &mut Duplicates, request: Fingerprint) -> Option<Vec<u8>> {
        match table.find(0, request)? {
            Seen::Answered(bytes) => table.answer(bytes).map(<[u8]>::to_vec),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_remembered_until_its_message_id_may_be_used_anew() {
        let mut table = Duplicates::new(8, 64);
        let request = done(&mut table, 1, b"answer");
        assert_eq!(answer(&mut table, request).unwrap(), b"answer");
        assert!(table.find(246_999, request).is_some());
        assert_eq!(table.find(247_000, request), None);
        assert_eq!(table.find(0, table.fingerprint(&peer(), 2)), None);
    }

    #[test]
    fn all_is_given_back_in_the_end_but_never_while_a_request_is_at_work() {
        let mut table = Duplicates::new(8, 64);
        let request = done(&mut table, 1, b"answer");
        table.expire(246_999);
        assert_eq!(table.len(), 1);
        // The same message id again, after its time.
        assert_eq!(table.find(300_000, request), None);
        assert!(table.begin(request, key()));
        table.expire(300_000);
        assert_eq!((table.len(), table.next()), (1, None));
        table.answered(request, 547_000, b"answer");
        table.expire(547_000);
        assert_eq!((table.len(), table.ring.capacity(), table.next()), (0, 0, None));
    }

    #[test]
    fn the_one_answered_first_is_forgotten_first_and_one_at_work_never() {
        let mut table = Duplicates::new(3, 1024);
        let running = table.fingerprint(&peer(), 100);
        assert!(table.begin(running, key()));
        let (a, b) = (done(&mut table, 1, b"a"), done(&mut table, 2, b"b"));
        let c = done(&mut table, 3, b"c");
        assert_eq!(table.find(0, a), None);
        assert_eq!(answer(&mut table, b).unwrap(), b"b");
        assert_eq!(answer(&mut table, c).unwrap(), b"c");
        assert!(matches!(table.find(u64::MAX, running), Some(Seen::Running(_))));
    }

    #[test]
    fn when_all_are_at_work_no_more_is_taken() {
        let mut table = Duplicates::new(2, 1024);
        for id in 0..2 {
            assert!(table.begin(table.fingerprint(&peer(), id), key()));
        }
        assert!(!table.begin(table.fingerprint(&peer(), 2), key()));
    }

    #[test]
    fn a_request_is_known_longer_than_its_answer() {
        let mut table = Duplicates::new(100, 16);
        let first = done(&mut table, 1, b"0123456789");
        let second = done(&mut table, 2, b"abcdefghij");
        assert!(table.find(0, first).is_some());
        assert_eq!(answer(&mut table, first), None);
        assert_eq!(answer(&mut table, second).unwrap(), b"abcdefghij");
        let large = done(&mut table, 3, &[1; 17]);
        assert_eq!(answer(&mut table, large), None);
    }

    /// Against a model that keeps every answer: what the ring still has is right, and the newest are always there.
    #[test]
    fn the_ring_never_gives_another_answer() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut table = Duplicates::new(1000, 256);
        table.written = u32::MAX - 1000;
        table.written -= table.written % 256;
        let mut all = Vec::new();
        for id in 0..500 {
            let datagram: Vec<u8> = (0..rng.usize(0..60)).map(|_| rng.u8(..)).collect();
            all.push((done(&mut table, id, &datagram), datagram));
            for (request, datagram) in &all {
                assert!(answer(&mut table, *request).is_none_or(|found| found == *datagram));
            }
            for (request, datagram) in all.iter().rev().take(2) {
                assert_eq!(answer(&mut table, *request).as_ref(), Some(datagram));
            }
        }
        assert!(table.ring.len() <= 256);
    }
}
