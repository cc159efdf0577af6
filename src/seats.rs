//! Who has a seat at a bounded table.
//!
//! At the bound a seat is made free at the cost of the client that has most of them, and of its seats the one that was of
//! no use for longest: one stranger pays for his own flood, and many strangers for each other's slowness.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::FutureExt;

use crate::client::Client;
use crate::reactor::{Timer, recently};

/// How long a seat whose holder waits for its client in the middle of something is left alone.
const STALLED_FOR: Duration = Duration::from_secs(1);
/// How often it is looked for such a one while somebody waits for a seat.
const LOOK: Duration = Duration::from_millis(100);
/// How often a client that gets no seat is worth a line of the log.
const TELL_EACH: Duration = Duration::from_secs(60);

/// A table with a bounded number of seats.
#[derive(Debug)]
pub struct Seats {
    table: Mutex<Table>,
    /// Notified when a seat becomes free, or could be made free.
    changed: Event,
    bound: usize,
    each: usize,
    began: Instant,
}

#[derive(Debug, Default)]
struct Table {
    seats: Vec<Option<Taken>>,
    free: Vec<u32>,
    /// How many seats each client has; one that has none is written over.
    clients: Vec<(Client, u32)>,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Taken {
    /// Its place among the clients.
    client: u32,
    use_: Use,
    /// Milliseconds after the table was made since when it is so.
    since: u32,
    evicted: bool,
    waker: Option<Waker>,
}

/// What a seat is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Something is done for the client.
    Busy,
    /// Something is, but it does not go on before the client does something.
    Stalled,
    /// Nothing is.
    Rest,
}

/// A seat; free again when dropped. It begins at rest.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    number: u32,
}

impl Seats {
    /// A table of `bound` seats, of which a client that is not on this machine has at most `each`; 0 for no such bound.
    pub fn new(bound: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), changed: Event::new(), bound, each, began: Instant::now() })
    }

    /// Takes a seat, at the cost of another one where none is free. While all are busy it waits, but `None` where the
    /// client has as many as it may and all of them are busy.
    pub async fn take(self: &Arc<Self>, client: Client) -> Option<Seat> {
        let mut late = false;
        loop {
            let changed = self.changed.listen();
            {
                let mut table = self.table();
                let over = self.is_over(&table, client);
                if !over && table.taken() < self.bound {
                    return Some(table.seat(self, client));
                }
                let only = over.then_some(client);
                // Who was told to leave does so at once, but for one that still has to say something.
                let leaves = table.leaves(only);
                let made = (!leaves || late) && table.make_room(self.millis(), only);
                if over && !leaves && !made {
                    return None;
                }
            }
            let changed = async {
                changed.await;
                false
            };
            let again = async {
                Timer::after(LOOK).await;
                true
            };
            late = changed.or(again).await;
        }
    }

    /// Takes a seat at once. At the bound somebody is told to leave for it, who does so when his task has its turn.
    pub fn take_over(self: &Arc<Self>, client: Client) -> Seat {
        let mut table = self.table();
        if table.taken() >= self.bound {
            table.make_room(self.millis(), None);
        }
        table.seat(self, client)
    }

    /// Takes a seat if one is free for the client.
    pub fn try_take(self: &Arc<Self>, client: Client) -> Option<Seat> {
        let mut table = self.table();
        let over = self.is_over(&table, client);
        (!over && table.taken() < self.bound).then(|| table.seat(self, client))
    }

    fn is_over(&self, table: &Table, client: Client) -> bool {
        self.each > 0 && !client.is_local() && table.count_of(client) >= self.each
    }

    /// Takes a seat if one is free, whoever the client is.
    pub fn take_free(self: &Arc<Self>, client: Client) -> Option<Seat> {
        let mut table = self.table();
        (table.taken() < self.bound).then(|| table.seat(self, client))
    }

    /// Has everybody look at what [`Seat::evicted`] depends on, for a reason of the owner's.
    pub fn wake_all(&self) {
        self.table().seats.iter_mut().flatten().filter_map(|taken| taken.waker.take()).for_each(Waker::wake);
    }

    /// Completes when no seat is taken.
    pub async fn empty(&self) {
        loop {
            let changed = self.changed.listen();
            if self.table().taken() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Whether that a client got no seat is worth a line of the log: a flood must not fill it.
    pub fn refusal_is_news(&self) -> bool {
        let (mut table, now) = (self.table(), Instant::now());
        let news = table.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EACH);
        if news {
            table.told = Some(now);
        }
        news
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole even if a thread died while it held the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u32 {
        // After 49 days it begins anew, and for once the order is wrong.
        recently().saturating_duration_since(self.began).as_millis() as u32
    }
}

impl Table {
    fn taken(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    fn count_of(&self, client: Client) -> usize {
        self.clients.iter().find(|(c, n)| *c == client && *n > 0).map_or(0, |(_, n)| *n as usize)
    }

    fn seat(&mut self, seats: &Arc<Seats>, client: Client) -> Seat {
        let place = self.clients.iter().position(|(c, n)| *c == client && *n > 0);
        let place = place.or_else(|| self.clients.iter().position(|(_, n)| *n == 0)).unwrap_or(self.clients.len());
        match self.clients.get_mut(place) {
            Some(entry) => *entry = (client, entry.1 + 1),
            None => self.clients.push((client, 1)),
        }
        let taken = Taken { client: place as u32, use_: Use::Rest, since: seats.millis(), evicted: false, waker: None };
        let number = self.free.pop().unwrap_or(self.seats.len() as u32);
        match self.seats.get_mut(number as usize) {
            Some(seat) => *seat = Some(taken),
            None => self.seats.push(Some(taken)),
        }
        Seat { seats: Arc::clone(seats), number }
    }

    /// Whether a holder, one of `only` where that is said, was told to leave and is still there.
    fn leaves(&self, only: Option<Client>) -> bool {
        let mut told = self.seats.iter().flatten().filter(|taken| taken.evicted);
        told.any(|taken| only.is_none_or(|only| owner(&self.clients, taken).is_some_and(|(owner, _)| owner == only)))
    }

    /// Tells one holder to leave, where one can be spared; one of `only`, where that is said.
    fn make_room(&mut self, now: u32, only: Option<Client>) -> bool {
        let clients = &self.clients;
        let spared = |taken: &&mut Taken| match taken.use_ {
            _ if taken.evicted => false,
            Use::Busy => false,
            Use::Stalled => u128::from(now.wrapping_sub(taken.since)) >= STALLED_FOR.as_millis(),
            Use::Rest => true,
        };
        let owner = |taken: &Taken| owner(clients, taken);
        // Of those that are as old, the last one counts.
        let candidates = self.seats.iter_mut().rev().flatten().filter(spared);
        let candidates =
            candidates.filter(|taken| only.is_none_or(|only| owner(taken).is_some_and(|(owner, _)| owner == only)));
        let victim = candidates
            .max_by_key(|taken| (taken.use_, owner(taken).map(|(_, count)| count), now.wrapping_sub(taken.since)));
        let Some(victim) = victim else { return false };
        victim.evicted = true;
        if let Some(waker) = victim.waker.take() {
            waker.wake();
        }
        true
    }
}

/// Whose seat it is, and how many he has.
fn owner(clients: &[(Client, u32)], taken: &Taken) -> Option<(Client, u32)> {
    clients.get(taken.client as usize).copied()
}

impl Seat {
    /// Something is done for the client from now on; `false` where the seat was given to another, and the holder leaves.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.set(Use::Busy)
    }

    /// It goes on when the client does something.
    pub fn stall(&self) {
        self.set(Use::Stalled);
    }

    /// Nothing is done for the client from now on.
    pub fn rest(&self) {
        self.set(Use::Rest);
        self.seats.changed.notify(1);
    }

    fn set(&self, use_: Use) -> bool {
        let mut table = self.seats.table();
        let Some(taken) = table.seats.get_mut(self.number as usize).and_then(Option::as_mut) else { return false };
        // Who stalls again and again in between does not look younger for it than he is.
        if taken.use_ != use_ {
            (taken.use_, taken.since) = (use_, self.seats.millis());
        }
        !taken.evicted
    }

    /// Completes when the holder has to leave.
    pub async fn evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    /// As [`Self::evicted`]; one task at a time may wait.
    pub fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut table = self.seats.table();
        match table.seats.get_mut(self.number as usize).and_then(Option::as_mut) {
            Some(taken) if !taken.evicted => {
                if !taken.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    taken.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        if let Some(gone) = table.seats.get_mut(self.number as usize).and_then(Option::take) {
            if let Some(entry) = table.clients.get_mut(gone.client as usize) {
                entry.1 -= 1;
            }
            table.free.push(self.number);
        }
        if table.taken() == 0 {
            // What a burst took is given back.
            (table.seats, table.free, table.clients) = Default::default();
        }
        drop(table);
        self.seats.changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    fn take(seats: &Arc<Seats>, of: &str) -> Seat {
        block_on(seats.take(client(of))).unwrap()
    }

    /// Whether the holder was told to leave.
    fn is_out(seat: &Seat) -> bool {
        block_on(poll_once(seat.evicted())).is_some()
    }

    /// Takes a seat that somebody of `sitting` has to leave for; returns who it was.
    fn displace(seats: &Arc<Seats>, of: &str, sitting: &mut Vec<(&'static str, Seat)>) -> &'static str {
        block_on(async {
            let mut taking = std::pin::pin!(seats.take(client(of)));
            assert!(poll_once(&mut taking).await.is_none(), "no seat is free");
            let out = sitting.iter().position(|(_, seat)| is_out(seat)).expect("somebody leaves");
            let (name, seat) = sitting.remove(out);
            assert!(!sitting.iter().any(|(_, seat)| is_out(seat)), "only one");
            assert!(!seat.busy(), "it is too late");
            drop(seat);
            sitting.push(("new", taking.await.unwrap()));
            name
        })
    }

    #[test]
    fn whoever_has_most_seats_pays_for_a_new_one_and_with_the_oldest() {
        let seats = Seats::new(4, 0);
        let mut sitting = Vec::new();
        for (name, of) in [("lone", "10.0.0.1"), ("first", "10.0.0.9"), ("second", "10.0.0.9"), ("third", "10.0.0.9")] {
            sitting.push((name, take(&seats, of)));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(displace(&seats, "10.0.0.2", &mut sitting), "first");
        assert_eq!(displace(&seats, "10.0.0.3", &mut sitting), "second");
    }

    #[test]
    fn a_busy_seat_is_kept_and_one_at_rest_goes_before_one_that_stalls() {
        let seats = Seats::new(3, 0);
        let mut sitting: Vec<_> = ["busy", "stalled", "rests"].map(|name| (name, take(&seats, "10.0.0.1"))).into();
        assert!(sitting[0].1.busy());
        sitting[1].1.stall();
        std::thread::sleep(STALLED_FOR + Duration::from_millis(10));
        assert_eq!(displace(&seats, "10.0.0.2", &mut sitting), "rests");
        assert!(sitting.last().unwrap().1.busy());
        assert_eq!(displace(&seats, "10.0.0.4", &mut sitting), "stalled");
    }

    #[test]
    fn while_all_are_busy_a_new_one_waits_until_one_rests() {
        let seats = Seats::new(1, 0);
        let seat = take(&seats, "10.0.0.1");
        assert!(seat.busy());
        block_on(async {
            let mut taking = std::pin::pin!(seats.take(client("10.0.0.2")));
            assert!(poll_once(&mut taking).await.is_none());
            assert!(!is_out(&seat));
            seat.rest();
            assert!(poll_once(&mut taking).await.is_none());
            assert!(is_out(&seat));
            drop(seat);
            assert!(taking.await.is_some());
        });
    }

    #[test]
    fn a_client_has_no_more_than_its_part_unless_it_is_on_this_machine() {
        let seats = Seats::new(8, 2);
        let mut sitting: Vec<_> = ["a", "b"].map(|name| (name, take(&seats, "10.0.0.1"))).into();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(displace(&seats, "10.0.0.1", &mut sitting), "a", "its own makes room");
        let sitting: Vec<_> = (0..2).map(|_| take(&seats, "10.0.0.2")).collect();
        assert!(sitting.iter().all(Seat::busy));
        assert!(block_on(seats.take(client("10.0.0.2"))).is_none(), "there are free ones, but not for it");
        assert!(seats.try_take(client("10.0.0.2")).is_none() && seats.try_take(client("10.0.0.3")).is_some());
        let local: Vec<_> = (0..4).map(|_| take(&seats, "127.0.0.1")).collect();
        assert_eq!(local.len(), 4);
    }

    #[test]
    fn who_takes_over_does_not_wait_for_who_leaves() {
        let seats = Seats::new(2, 0);
        let sitting: Vec<_> = ["10.0.0.9", "10.0.0.9"].map(|of| seats.take_over(client(of))).into();
        assert!(!sitting.iter().any(is_out));
        let third = seats.take_over(client("10.0.0.1"));
        assert_eq!(sitting.iter().filter(|seat| is_out(seat)).count(), 1);
        assert!(!is_out(&third));
    }

    #[test]
    fn the_table_is_bounded_by_the_seats_and_given_back() {
        let seats = Seats::new(16, 0);
        for round in 0..1000_u32 {
            let taken: Vec<_> = (0..16)
                .map(|n| block_on(seats.take(Client::of((round * 16 + n).to_be_bytes().into()))).unwrap())
                .collect();
            let table = seats.table();
            assert!(table.clients.len() <= 16 && table.seats.len() <= 16);
            drop(table);
            assert!(seats.take_free(client("10.0.0.1")).is_none());
            drop(taken);
        }
        let table = seats.table();
        assert_eq!((table.clients.capacity(), table.seats.capacity()), (0, 0));
    }

    #[test]
    fn a_flood_is_one_line_of_the_log() {
        let seats = Seats::new(1, 0);
        assert!(seats.refusal_is_news());
        assert!(!seats.refusal_is_news());
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Taken>>() <= 32, "{}", size_of::<Option<Taken>>());
    }
}
