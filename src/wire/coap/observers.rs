//! Who observes what (RFC 7641): watched tasks, and the observers that are told when their answers change.

use std::sync::Arc;

use super::slots::{Key, Slots};
use super::{Answer, Config, Millis, Peer, Task, Token};
use crate::client::Client;

/// A task that runs again and again for its observers.
#[derive(Debug)]
pub struct Watch {
    /// Tells that two requests ask for the same.
    pub key: u64,
    /// What runs.
    pub task: Arc<Task>,
    /// The only Content-Format that its observers take.
    pub accept: Option<u16>,
    /// When it runs next.
    pub due: Millis,
    /// When its runs so far, spread evenly, would allow the next one.
    pub spread_to: Millis,
    /// Whether it runs now.
    pub running: bool,
    /// The last answer that the observers were told.
    pub answer: Arc<Answer>,
    /// When they were told.
    pub told: Millis,
}

/// A client that is told of changes.
#[derive(Debug)]
pub struct Observer {
    /// What it observes.
    pub watch: Key,
    /// Who it is.
    pub peer: Peer,
    /// The token of its request, which every notification carries.
    pub token: Token,
    /// The key of its request, under which the further blocks of a notification are fetched.
    pub request: super::transfers::RequestKey,
    /// Size exponent of the blocks it asked for.
    pub szx: u8,
    /// Message id of the last notification that was no acknowledgement: a reset of it ends the observation.
    pub last_id: Option<u16>,
    /// Notifications since the last confirmable one.
    pub unconfirmed: u8,
    /// When the last confirmable one left.
    pub confirmed: Millis,
    /// Whether a change came while a confirmable notification was under way.
    pub stale: bool,
}

/// All of them, bounded.
#[derive(Debug)]
pub struct Observers {
    /// What is watched.
    pub watches: Slots<Watch>,
    /// Who observes.
    pub observers: Slots<Observer>,
    bound: usize,
    interval: Millis,
    sequence: u32,
}

/// Observe values are 24 bits long (RFC 7641 §2).
const SEQUENCE_MASK: u32 = 0xff_ffff;
/// One in so many notifications is confirmable, to notice clients that left (RFC 7641 §4.5).
pub const CONFIRM_EACH: u8 = 5;
/// A confirmable one leaves at least once a day (RFC 7641 §4.5).
pub const CONFIRM_AFTER: Millis = 24 * 3600 * 1000;

/// Least time from one run to the next, on average: who does not know the round trip time should not notify more often (RFC 7641
/// §4.5.1). A shorter interval stands in its place.
const SPACING: Millis = 3_000;
/// Runs that changes may bring about one right after the other.
const BURST: Millis = 3;

impl Observers {
    /// At most as many observers as `config` says, each perhaps with a watch of its own.
    pub fn new(config: &Config) -> Self {
        Self {
            watches: Slots::new(config.observers),
            observers: Slots::new(config.observers),
            bound: config.observers,
            interval: config.observe_interval.max(1),
            sequence: 0,
        }
    }

    /// Whether one more of `client` may come; three quarters at most are one's who is not on this machine.
    pub fn has_room_for(&self, client: Client) -> bool {
        let of_client = || self.observers.iter().filter(|(_, o)| o.peer.client() == client).count();
        self.observers.len() < self.bound && (client.is_local() || of_client() < self.bound - self.bound / 4)
    }

    /// The next Observe value.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1) & SEQUENCE_MASK;
        self.sequence
    }

    /// The watch of that key.
    pub fn watch(&self, key: u64) -> Option<Key> {
        self.watches.iter().find(|(_, watch)| watch.key == key).map(|(at, _)| at)
    }

    /// Bytes of the states of all watches but `without`.
    pub fn held(&self, without: Option<Key>) -> usize {
        self.watches.iter().filter(|(at, _)| Some(*at) != without).map(|(_, watch)| watch.answer.body.capacity()).sum()
    }

    /// The observer with that token.
    pub fn find(&self, peer: &Peer, token: &Token) -> Option<Key> {
        self.observers.iter().find(|(_, o)| o.token == *token && o.peer == *peer).map(|(at, _)| at)
    }

    /// The observer whose last notification had that message id.
    pub fn find_notified(&self, peer: &Peer, id: u16) -> Option<Key> {
        self.observers.iter().find(|(_, o)| o.last_id == Some(id) && o.peer == *peer).map(|(at, _)| at)
    }

    /// Whether a change came while a confirmable notification was under way to that observer.
    pub fn is_stale(&self, observer: Key) -> bool {
        self.observers.get(observer).is_some_and(|o| o.stale)
    }

    /// The first observer of a watch behind `after`, in the order of the table.
    pub fn of_watch(&self, watch: Key, after: usize) -> Option<(usize, Key)> {
        self.observers
            .iter()
            .enumerate()
            .skip(after)
            .find(|(_, (_, o))| o.watch == watch)
            .map(|(i, (at, _))| (i + 1, at))
    }

    /// Takes an observer out, and its watch where nobody else observes that.
    pub fn remove(&mut self, observer: Key) {
        let Some(gone) = self.observers.remove(observer) else { return };
        if !self.observers.iter().any(|(_, o)| o.watch == gone.watch) {
            self.watches.remove(gone.watch);
        }
    }

    /// Takes a watch out with all its observers.
    pub fn remove_watch(&mut self, watch: Key) {
        while let Some((_, observer)) = self.of_watch(watch, 0) {
            self.observers.remove(observer);
        }
        self.watches.remove(watch);
    }

    /// Something was changed in the resource `name`: its watches run as soon as may be.
    pub fn touch(&mut self, name: &str, now: Millis) -> Option<Millis> {
        let ahead = self.spacing() * (BURST - 1);
        let touched = self.watches.iter_mut().filter(|(_, watch)| watch.task.name == name);
        touched
            .map(|(_, watch)| {
                watch.due = watch.due.min(now.max(watch.spread_to.saturating_sub(ahead)));
                watch.due
            })
            .min()
    }

    /// Takes a watch that is due and does not run; it is due again an interval later.
    pub fn take_due(&mut self, now: Millis) -> Option<(Key, Arc<Task>)> {
        let (interval, spacing) = (self.interval, self.spacing());
        let (key, watch) = self.watches.iter_mut().find(|(_, watch)| watch.due <= now && !watch.running)?;
        watch.running = true;
        watch.due = now + interval;
        watch.spread_to = watch.spread_to.max(now) + spacing;
        Some((key, watch.task.clone()))
    }

    fn spacing(&self) -> Millis {
        SPACING.min(self.interval)
    }

    /// When the next watch is due.
    pub fn next(&self) -> Option<Millis> {
        self.watches.iter().filter(|(_, watch)| !watch.running).map(|(_, watch)| watch.due).min()
    }
}
