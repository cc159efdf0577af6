//! What is known of other endpoints: the next message id towards them, how fast they ask, whether their address was proved.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, RandomState};

use super::duplicates::AsItIs;
use super::{Millis, Peer};

/// One endpoint, known by a keyed hash of its address.
#[derive(Debug)]
struct Entry {
    name: u64,
    refilled: Millis,
    /// Thousandths of a request that it may still make.
    tokens: u32,
    next_id: u16,
    proved: bool,
    /// Whether it was heard since the hand last passed.
    heard: bool,
}

/// A bounded table of endpoints; the hand of a clock goes over it for one that was quiet.
#[derive(Debug)]
pub struct Peers {
    entries: Vec<Entry>,
    places: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    hand: usize,
    /// When one of them was last heard.
    heard: Millis,
    bound: usize,
    rate: u32,
    keys: RandomState,
}

/// Milliseconds after which a message id may be used anew (EXCHANGE_LIFETIME, RFC 7252 §4.8.2).
const ID_LIFETIME: Millis = 247_000;
/// Least number of requests at once, however low the rate.
const LEAST_BURST: u32 = 8;

impl Peers {
    /// A table for `bound` endpoints, each with `rate` requests a second; 0 for no limit.
    pub fn new(bound: usize, rate: u32) -> Self {
        Self {
            entries: Vec::new(),
            places: HashMap::default(),
            hand: 0,
            heard: 0,
            bound: bound.max(1),
            rate: rate.min(1_000_000),
            keys: RandomState::new(),
        }
    }

    /// The next message id towards `peer` (RFC 7252 §4.4).
    ///
    /// An endpoint that is new here, or was forgotten, begins at a place that moves on by all 65536 ids in a lifetime: so an id
    /// comes back too early only if it was forgotten after more than 265 messages a second.
    pub fn next_id(&mut self, now: Millis, peer: &Peer) -> u16 {
        let entry = self.entry(now, peer);
        let id = entry.next_id;
        entry.next_id = id.wrapping_add(1);
        id
    }

    /// Counts one request; `false` where the endpoint is over its rate.
    pub fn allow(&mut self, now: Millis, peer: &Peer) -> bool {
        let rate = self.rate;
        if rate == 0 {
            return true;
        }
        let entry = self.entry(now, peer);
        let more = now.saturating_sub(entry.refilled).saturating_mul(u64::from(rate));
        entry.tokens = u64::from(entry.tokens).saturating_add(more).min(u64::from(burst(rate))) as u32;
        entry.refilled = now;
        match entry.tokens.checked_sub(1000) {
            Some(left) => {
                entry.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Whether it was proved that the endpoint is where it says.
    pub fn proved(&mut self, now: Millis, peer: &Peer) -> bool {
        self.entry(now, peer).proved
    }

    /// Notes that it is.
    pub fn prove(&mut self, now: Millis, peer: &Peer) {
        self.entry(now, peer).proved = true;
    }

    /// Gives all memory back once nobody was heard for so long that nothing known matters any more.
    pub fn expire(&mut self, now: Millis) {
        if self.next().is_some_and(|at| at <= now) {
            (self.entries, self.places, self.hand) = Default::default();
        }
    }

    /// When [`Peers::expire`] has something to do.
    pub fn next(&self) -> Option<Millis> {
        (!self.entries.is_empty()).then_some(self.heard + ID_LIFETIME)
    }

    fn entry(&mut self, now: Millis, peer: &Peer) -> &mut Entry {
        self.heard = now;
        let name = self.keys.hash_one(peer);
        let place = match self.places.get(&name) {
            Some(&place) => place as usize,
            None => self.place_for(now, name),
        };
        // Every place in the map is one in the list, so there always is an entry.
        let place = place.min(self.entries.len() - 1);
        let entry = &mut self.entries[place];
        entry.heard = true;
        entry
    }

    fn place_for(&mut self, now: Millis, name: u64) -> usize {
        let moved = now % ID_LIFETIME * 65536 / ID_LIFETIME;
        let next_id = (name ^ name >> 32).wrapping_add(moved) as u16;
        let entry = Entry { name, refilled: now, tokens: burst(self.rate), next_id, proved: false, heard: true };
        if self.entries.len() < self.bound {
            self.entries.push(entry);
            self.places.insert(name, self.entries.len() as u32 - 1);
            return self.entries.len() - 1;
        }
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            let old = &mut self.entries[place];
            if old.heard {
                old.heard = false;
                continue;
            }
            self.places.remove(&old.name);
            *old = entry;
            self.places.insert(name, place as u32);
            return place;
        }
    }
}

/// Thousandths of a request that may come at once.
fn burst(rate: u32) -> u32 {
    rate.max(LEAST_BURST) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer::new(([192, 0, 2, 1], port).into(), 0)
    }

    #[test]
    fn message_ids_follow_each_other_for_each_endpoint() {
        let mut peers = Peers::new(10, 0);
        let (a, b) = (peers.next_id(0, &peer(1)), peers.next_id(0, &peer(2)));
        assert_eq!(peers.next_id(9, &peer(1)), a.wrapping_add(1));
        assert_eq!(peers.next_id(9, &peer(2)), b.wrapping_add(1));
    }

    #[test]
    fn a_forgotten_endpoint_does_not_get_the_same_message_ids_soon() {
        let mut peers = Peers::new(1, 0);
        let first = peers.next_id(1_000, &peer(1));
        for other in 2..100 {
            peers.next_id(1_000, &peer(other));
        }
        let again = peers.next_id(11_000, &peer(1));
        assert_eq!(again.wrapping_sub(first), (11_000 * 65536 / ID_LIFETIME - 1_000 * 65536 / ID_LIFETIME) as u16);
    }

    #[test]
    fn an_endpoint_over_its_rate_waits_and_others_do_not() {
        let mut peers = Peers::new(10, 10);
        let allowed = (0..100).filter(|_| peers.allow(0, &peer(1))).count();
        assert_eq!(allowed, 10);
        assert!(peers.allow(0, &peer(2)));
        assert!(!peers.allow(99, &peer(1)));
        assert!(peers.allow(100, &peer(1)));
        assert!(!peers.allow(100, &peer(1)));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quiet_ones() {
        let mut peers = Peers::new(4, 0);
        (0..4).for_each(|port| peers.prove(0, &peer(port)));
        for port in 4..1000 {
            peers.next_id(0, &peer(port));
            assert!(peers.proved(0, &peer(0)) || port < 6, "{port}");
            if !peers.proved(0, &peer(0)) {
                peers.prove(0, &peer(0));
            }
        }
        assert_eq!((peers.entries.len(), peers.places.len()), (4, 4));
        assert!(!peers.proved(0, &peer(1)));
    }
}
