//! Confirmable messages of ours that were not acknowledged yet (RFC 7252 §4.2).

use super::slots::{Key, Slots};
use super::{Config, Millis, Outbox, Peer};

/// One message under way.
#[derive(Debug)]
pub struct Transmission {
    /// Whom it goes to.
    pub peer: Peer,
    /// Its message id.
    pub id: u16,
    /// The observer it tells, where it is a notification.
    pub observer: Option<Key>,
    datagram: Vec<u8>,
    due: Millis,
    timeout: Millis,
    left: u8,
}

impl Transmission {
    /// It is sent once more now.
    fn repeat_after(&mut self, now: Millis) {
        self.left = self.left.saturating_sub(1);
        self.timeout *= 2;
        self.due = now + self.timeout;
    }
}

/// A message that was not acknowledged in time and is not just sent again.
#[derive(Debug)]
pub enum Overdue {
    /// It was sent often enough.
    GivenUp(Transmission),
    /// There is a newer state to tell in its place.
    Stale(Transmission),
}

/// All of them.
#[derive(Debug)]
pub struct Confirmables {
    table: Slots<Transmission>,
    ack_timeout: Millis,
    max_retransmit: u8,
    rng: fastrand::Rng,
}

impl Confirmables {
    /// A table of at most [`Config::exchanges`]; `seed` spreads the timeouts.
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            table: Slots::new(config.exchanges),
            ack_timeout: config.ack_timeout.max(1),
            max_retransmit: config.max_retransmit,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over a message that was just sent; says when it is due again. Does nothing when the table is full, and then it
    /// is sent only once.
    pub fn sent(&mut self, now: Millis, peer: Peer, id: u16, datagram: &[u8], observer: Option<Key>) -> Millis {
        // Between ACK_TIMEOUT and half as much again (§4.2, ACK_RANDOM_FACTOR).
        let timeout = self.ack_timeout + self.rng.u64(0..=self.ack_timeout / 2);
        let due = now + timeout;
        let datagram = datagram.to_vec();
        self.table.insert(Transmission { peer, id, observer, datagram, due, timeout, left: self.max_retransmit });
        due
    }

    /// An acknowledgement or a reset came: takes the message out.
    pub fn end(&mut self, peer: &Peer, id: u16) -> Option<Transmission> {
        let (key, _) = self.table.iter().find(|(_, t)| t.id == id && t.peer == *peer)?;
        self.table.remove(key)
    }

    /// Takes out the notification that is under way to an observer.
    pub fn end_observer(&mut self, observer: Key) {
        let found = self.table.iter().find(|(_, t)| t.observer == Some(observer)).map(|(key, _)| key);
        if let Some(key) = found {
            self.table.remove(key);
        }
    }

    /// Gives up the answer that has been sent most often, and least lately, of those that were sent more than once and whose
    /// receivers `may_go`; `false` where there is none such (RFC 7252 §4.2: for lack of resources).
    pub fn give_up(&mut self, may_go: impl Fn(&Peer) -> bool) -> bool {
        let again = |t: &Transmission| t.left < self.max_retransmit;
        let unheard = self.table.iter().filter(|(_, t)| again(t) && t.observer.is_none() && may_go(&t.peer));
        let victim = unheard.min_by_key(|(_, t)| (t.left, t.due)).map(|(key, _)| key);
        victim.and_then(|key| self.table.remove(key)).is_some()
    }

    /// Whether a notification is under way to an observer.
    pub fn busy(&self, observer: Key) -> bool {
        self.table.iter().any(|(_, t)| t.observer == Some(observer))
    }

    /// Sends again what is due, with the timeout doubled. Takes out one that needs more than that: see [`Overdue`].
    pub fn tick(&mut self, now: Millis, out: &mut dyn Outbox, stale: impl Fn(Key) -> bool) -> Option<Overdue> {
        let mut found = None;
        for (key, t) in self.table.iter_mut().filter(|(_, t)| t.due <= now) {
            if t.left == 0 || t.observer.is_some_and(&stale) {
                found = Some(key);
                continue;
            }
            out.send(&t.peer, &t.datagram);
            t.repeat_after(now);
        }
        let t = self.table.remove(found?)?;
        Some(if t.left == 0 { Overdue::GivenUp(t) } else { Overdue::Stale(t) })
    }

    /// Takes over a message that was just sent in place of another one to the same peer, whose timeout and number of
    /// repetitions go on (RFC 7641 §4.5.2). Returns when it is due again.
    pub fn replaced(&mut self, now: Millis, mut old: Transmission, id: u16, datagram: &[u8]) -> Millis {
        old.id = id;
        old.datagram.clear();
        old.datagram.extend_from_slice(datagram);
        old.repeat_after(now);
        let due = old.due;
        self.table.insert(old);
        due
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Millis> {
        self.table.iter().map(|(_, t)| t.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(usize);

    impl Outbox for Count {
        fn send(&mut self, _: &Peer, datagram: &[u8]) {
            assert_eq!(datagram, b"message");
            self.0 += 1;
        }
    }

    /// RFC 7252 §4.8.2: MAX_TRANSMIT_SPAN is 45 s and MAX_TRANSMIT_WAIT 93 s with the default parameters.
    #[test]
    fn a_message_is_sent_again_with_growing_pauses_and_then_given_up() {
        for seed in 0..50 {
            let mut table = Confirmables::new(&Config::default(), seed);
            let peer = Peer::new("[2001:db8::1]:5683".parse().unwrap(), 0);
            let mut due = table.sent(0, peer, 7, b"message", None);
            let (mut out, mut times) = (Count(0), vec![0]);
            loop {
                assert!(table.tick(due - 1, &mut out, |_| false).is_none());
                if let Some(Overdue::GivenUp(_)) = table.tick(due, &mut out, |_| false) {
                    break;
                }
                times.push(due);
                assert_eq!(out.0, times.len() - 1);
                due = table.next().unwrap();
            }
            assert_eq!(times.len(), 5);
            assert!((2_000..=3_000).contains(&times[1]) && times[4] <= 45_000 && due <= 93_000, "{times:?} {due}");
            assert!(table.is_empty());
        }
    }

    #[test]
    fn an_acknowledgement_of_the_right_endpoint_ends_it() {
        let mut table = Confirmables::new(&Config::default(), 0);
        let (a, b) = (Peer::new("192.0.2.1:1".parse().unwrap(), 0), Peer::new("192.0.2.1:2".parse().unwrap(), 0));
        table.sent(0, a, 7, b"message", None);
        assert!(table.end(&b, 7).is_none() && table.end(&a, 8).is_none());
        assert!(table.end(&a, 7).is_some() && table.end(&a, 7).is_none());
    }
}
