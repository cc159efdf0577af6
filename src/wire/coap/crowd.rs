//! Who is let in while more requests come than can be answered.
//!
//! Anybody can write any address into a datagram. So while it is crowded an address that was proved (RFC 9175) counts for itself, one
//! that came back after a while has a part of its own, and all others share one part. The parts grow and shrink until what is
//! let in can be answered. While it is not, or while nobody else asks, nobody is kept out, and who asks is only remembered.

use super::Millis;
use crate::client::Client;

/// Clients that are remembered: each has four places in the table that it may be in, of which an unproved newcomer takes only
/// one that is not of a better kind while such is left. 32 bytes each.
const SETS: usize = 64;
const WAYS: usize = 4;
/// Who comes again after so long came back: a flood of made-up addresses hardly does, and its first datagrams do not either.
const CAME_BACK: u32 = 1_000;
/// How long it stays crowded after the last sign of it.
const CROWDED_FOR: Millis = 3_000;
/// How often the parts are changed, while it is crowded.
const STEP: Millis = 100;
/// Milliseconds between two requests of one part, at first and at most.
const FIRST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 1_000;
/// Of 256 strangers that were not let in, those that are asked to prove their addresses, and milliseconds from one time that who came
/// back is asked to the next.
const CHALLENGED: u8 = 64;
const CHALLENGED_EACH: u32 = 20;
/// Requests that may be let in in one step, of who was proved and of all others: fewer are not what is too much to read.
const FEW: u32 = 200;
/// Requests of one part that may come at once.
const BURST: u32 = 4;

/// What says that more comes than can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// More datagrams come than can be read, those included that are dropped.
    Unread,
    /// More calls are at work than handlers get done.
    Calls,
}

/// What is known of who asked, and for how long everybody has to pause.
#[derive(Debug)]
pub struct Crowd {
    /// Taken when the first one asks.
    places: Vec<Place>,
    /// Nobody outside can tell which clients share places.
    key: u64,
    /// The last sign counts before this time.
    until: Millis,
    /// Who asked last and when, and before what time not only he is there.
    last: Option<(Client, Millis)>,
    mixed: Millis,
    /// When the parts are changed next, and which signs there were since they last were.
    step: Millis,
    unread: bool,
    calls: bool,
    /// Milliseconds between two requests of one part, and how many requests were let in in this step.
    pause: u32,
    let_in: u32,
    /// The same for who was proved.
    proved_pause: u32,
    proved: u32,
    /// When those who share one may ask again.
    strangers: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    client: Option<Client>,
    /// When it was first and last let in, and when it may ask again; milliseconds that begin anew after 49 days.
    first: u32,
    last: u32,
    next: u32,
    /// When it was last asked to prove its address.
    challenged: u32,
    proved: bool,
}

impl Place {
    fn came_back(&self) -> bool {
        self.proved || self.last.wrapping_sub(self.first) >= CAME_BACK
    }
}

impl Crowd {
    /// Nobody is known.
    pub fn new(key: u64) -> Self {
        Self {
            places: Vec::new(),
            key: key | 1,
            until: 0,
            last: None,
            mixed: 0,
            step: 0,
            unread: false,
            calls: false,
            pause: FIRST_PAUSE,
            let_in: 0,
            proved_pause: 1,
            proved: 0,
            strangers: 0,
        }
    }

    /// A sign that more comes than can be answered.
    pub fn press(&mut self, now: Millis, sign: Sign) {
        if !self.is_crowded(now) {
            (self.pause, self.step, self.strangers) = (FIRST_PAUSE, now + STEP, now as u32);
        }
        self.until = now + CROWDED_FOR;
        match sign {
            Sign::Unread => self.unread = true,
            Sign::Calls => self.calls = true,
        }
    }

    /// Whether there was a sign of late.
    pub fn is_pressed(&self, now: Millis) -> bool {
        now < self.until
    }

    /// Whether it is crowded: one client alone keeps nobody out, and may have all there is.
    pub fn is_crowded(&self, now: Millis) -> bool {
        self.is_pressed(now) && now < self.mixed
    }

    /// Whether the client proved that it is where it says.
    pub fn is_proved(&self, client: Client) -> bool {
        self.set(client).any(|place| place.client == Some(client) && place.proved)
    }

    /// Notes that it did.
    pub fn prove(&mut self, now: Millis, client: Client) {
        if let Some(place) = self.enter(now, client, true) {
            place.proved = true;
        }
    }

    /// A request of `client` came. Whether it is let in; always, where it is not crowded.
    pub fn admit(&mut self, now: Millis, client: Client) -> bool {
        let at = now as u32;
        // Who asks again and again is looked for once a step.
        if self.last.is_some_and(|(last, then)| last == client && now < then + STEP) && !self.is_crowded(now) {
            return true;
        }
        if self.last.replace((client, now)).is_some_and(|(last, then)| last != client && now < then + CROWDED_FOR) {
            self.mixed = now + CROWDED_FOR;
        }
        if !self.is_crowded(now) {
            if let Some(place) = self.enter(now, client, false) {
                place.last = at;
            }
            return true;
        }
        self.adapt(now);
        let (pause, proved_pause) = (self.pause, self.proved_pause);
        let known = self.set_mut(client).iter_mut().find(|place| place.client == Some(client) && place.came_back());
        let (next, pause, proved) = match known {
            Some(place) if place.proved => (&mut place.next, proved_pause, true),
            Some(place) => (&mut place.next, pause, false),
            None => (&mut self.strangers, pause, false),
        };
        if !take(next, at, pause) {
            return false;
        }
        *(if proved { &mut self.proved } else { &mut self.let_in }) += 1;
        if let Some(place) = self.enter(now, client, false) {
            place.last = at;
        }
        true
    }

    /// Whether a client that was not let in is to be asked to prove its address. Who came back is, now and then; of the others some, by
    /// `chance`: of what is dropped in silence a client sends the next copy soon (RFC 7252 §4.2), so not each is worth an answer.
    pub fn is_challenged(&mut self, now: Millis, client: Client, chance: u8) -> bool {
        let at = now as u32;
        match self.set_mut(client).iter_mut().find(|place| place.client == Some(client) && place.came_back()) {
            Some(place) if place.proved => false,
            Some(place) if at.wrapping_sub(place.challenged) >= CHALLENGED_EACH => {
                place.challenged = at;
                true
            }
            Some(_) => false,
            None => chance < CHALLENGED,
        }
    }

    /// Shrinks the parts quickly where there were signs, and lets them grow slowly where not.
    fn adapt(&mut self, now: Millis) {
        if now < self.step {
            return;
        }
        self.step = now + STEP;
        let (unread, calls) = (std::mem::take(&mut self.unread), std::mem::take(&mut self.calls));
        let changed = |pause: u32, shrinks: bool| match shrinks {
            true => (pause * 3 / 2 + 1).min(LONGEST_PAUSE),
            false => (pause - pause / 8).saturating_sub(1).max(1),
        };
        // What is dropped has to be read as well: where little is let in, that is what is too much, and no part makes it less.
        let many = std::mem::take(&mut self.let_in) >= FEW;
        self.pause = changed(self.pause, calls || unread && many);
        // They are no strangers, so it has to be they who are too many.
        let many = std::mem::take(&mut self.proved) >= FEW;
        self.proved_pause = changed(self.proved_pause, (calls || unread) && many);
    }

    /// The client's place; a new one in place of who is of least use there. `None` where all others are of more use.
    fn enter(&mut self, now: Millis, client: Client, proved: bool) -> Option<&mut Place> {
        if self.places.is_empty() {
            self.places = vec![Place::default(); SETS * WAYS];
        }
        let at = now as u32;
        let set = self.set_mut(client);
        let place = match set.iter().position(|place| place.client == Some(client)) {
            Some(place) => place,
            None => {
                let worth = |place: &Place| {
                    (place.client.is_some(), place.proved, place.came_back(), u32::MAX - at.wrapping_sub(place.last))
                };
                let (place, victim) = set.iter().enumerate().min_by_key(|(_, place)| worth(place))?;
                // The last place is for newcomers, or nobody could ever come back.
                if victim.proved && !proved {
                    return None;
                }
                *set.get_mut(place)? = Place {
                    client: Some(client),
                    first: at,
                    last: at,
                    next: at,
                    challenged: at.wrapping_sub(CHALLENGED_EACH),
                    proved,
                };
                place
            }
        };
        set.get_mut(place)
    }

    fn range(&self, client: Client) -> std::ops::Range<usize> {
        let set = (client.hash(self.key) % SETS as u64) as usize;
        set * WAYS..(set + 1) * WAYS
    }

    fn set(&self, client: Client) -> impl Iterator<Item = &Place> {
        self.places.get(self.range(client)).unwrap_or_default().iter()
    }

    fn set_mut(&mut self, client: Client) -> &mut [Place] {
        let range = self.range(client);
        self.places.get_mut(range).unwrap_or_default()
    }
}

/// Takes one request out of a part of which `next` says when it is whole again (a leaky bucket).
fn take(next: &mut u32, now: u32, pause: u32) -> bool {
    // Where pauses got shorter, what was taken before counts as much less.
    let early = (next.wrapping_sub(now) as i32).clamp(0, (pause * BURST) as i32);
    let taken = early <= (pause * (BURST - 1)) as i32;
    *next = now.wrapping_add(early as u32 + if taken { pause } else { 0 });
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> Client {
        Client::of(std::net::Ipv4Addr::from_bits(10 << 24 | n).into())
    }

    /// Requests of `client` that are let in within a second, of one each millisecond beside `flood`.
    fn let_in(crowd: &mut Crowd, now: &mut Millis, who: Client, mut flood: impl FnMut(&mut Crowd, Millis)) -> usize {
        let mut n = 0;
        for _ in 0..1000 {
            *now += 1;
            flood(crowd, *now);
            n += usize::from(crowd.admit(*now, who));
        }
        n
    }

    #[test]
    fn nobody_is_kept_out_while_it_is_not_crowded() {
        let mut crowd = Crowd::new(7);
        assert!((0..100_000).all(|n| crowd.admit(u64::from(n / 1000), client(n))));
        assert_eq!(crowd.places.len(), SETS * WAYS);
    }

    #[test]
    fn who_came_back_has_a_part_that_made_up_addresses_do_not_take() {
        let (mut crowd, mut now, mut made_up) = (Crowd::new(7), 10_000, 1000);
        assert!(crowd.admit(now, client(1)) && crowd.admit(now + 2_000, client(1)));
        now += 2_000;
        let mut flood = |crowd: &mut Crowd, now| {
            crowd.press(now, Sign::Calls);
            (0..100).for_each(|_| {
                made_up += 1;
                crowd.admit(now, client(made_up));
            });
        };
        (0..5).for_each(|_| _ = let_in(&mut crowd, &mut now, client(2), &mut flood));
        let back = let_in(&mut crowd, &mut now, client(1), &mut flood);
        assert!(back >= 1, "{back}");
        let new = let_in(&mut crowd, &mut now, client(3), &mut flood);
        assert_eq!(new, 0, "one of a hundred thousand");
        crowd.prove(now, client(3));
        let proved = let_in(&mut crowd, &mut now, client(3), &mut flood);
        assert_eq!(proved, 1000, "all of it");
    }

    #[test]
    fn who_was_proved_is_held_back_where_it_is_they_who_are_too_many() {
        let (mut crowd, mut now) = (Crowd::new(7), 10_000);
        let many: Vec<Client> = (0..20).map(client).collect();
        many.iter().for_each(|one| crowd.prove(now, *one));
        let mut others = 0;
        let mut flood = |crowd: &mut Crowd, now| {
            crowd.press(now, Sign::Calls);
            others += many.iter().skip(1).filter(|one| crowd.admit(now, **one)).count();
        };
        (0..3).for_each(|_| _ = let_in(&mut crowd, &mut now, many[0], &mut flood));
        assert!((1_000..15_000).contains(&others), "{others} of 57,000");
    }

    /// Handlers do not get done what two ask for.
    fn busy(crowd: &mut Crowd, now: Millis) {
        crowd.press(now, Sign::Calls);
        crowd.admit(now, client(999));
    }

    #[test]
    fn parts_grow_again_and_in_the_end_nobody_is_kept_out() {
        let (mut crowd, mut now) = (Crowd::new(7), 10_000);
        (0..20).for_each(|_| _ = let_in(&mut crowd, &mut now, client(1), busy));
        assert_eq!(crowd.pause, LONGEST_PAUSE);
        let least = let_in(&mut crowd, &mut now, client(1), busy);
        assert!(least <= 2, "{least}");
        (0..2).for_each(|_| _ = let_in(&mut crowd, &mut now, client(1), |_, _| ()));
        let more = let_in(&mut crowd, &mut now, client(1), |_, _| ());
        assert!(more > 20, "{more}");
        now += CROWDED_FOR;
        assert_eq!(let_in(&mut crowd, &mut now, client(1), |_, _| ()), 1000);
    }

    #[test]
    fn who_is_alone_is_not_kept_out() {
        let (mut crowd, mut now) = (Crowd::new(7), 10_000);
        let alone = |crowd: &mut Crowd, now| {
            crowd.press(now, Sign::Unread);
            crowd.press(now, Sign::Calls);
        };
        (0..5).for_each(|_| assert_eq!(let_in(&mut crowd, &mut now, client(1), alone), 1000));
        // Another one finds room at once, for it counts for itself only who came back.
        assert!(crowd.admit(now, client(2)));
        let beside = let_in(&mut crowd, &mut now, client(1), alone);
        assert!(beside < 100, "{beside}");
        assert!(crowd.admit(now, client(2)));
        now += CROWDED_FOR;
        (0..5).for_each(|_| assert_eq!(let_in(&mut crowd, &mut now, client(1), alone), 1000));
    }

    #[test]
    fn parts_do_not_shrink_for_what_is_dropped() {
        let (mut crowd, mut now) = (Crowd::new(7), 10_000);
        let mut others = 0;
        let mut flood = |crowd: &mut Crowd, now| {
            crowd.press(now, Sign::Unread);
            others += (0..20).filter(|n| crowd.admit(now, client(*n))).count();
        };
        (0..10).for_each(|_| _ = let_in(&mut crowd, &mut now, client(30), &mut flood));
        assert!((10_000..30_000).contains(&others), "{others} of 200,000 in ten seconds");
    }

    #[test]
    fn who_was_proved_is_not_forgotten_for_who_was_not() {
        let (mut crowd, now) = (Crowd::new(7), 10_000);
        crowd.prove(now, client(1));
        (0..100_000).for_each(|n| _ = crowd.admit(now + u64::from(n), client(100 + n % 5000)));
        assert!(crowd.is_proved(client(1)) && !crowd.is_proved(client(101)));
    }
}
