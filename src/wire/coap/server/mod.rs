//! The server endpoint: the message layer (RFC 7252 §4) and its timers. What a request asks for is in [`serve`], how its
//! answer leaves in [`finish`].

mod finish;
mod serve;

use std::hash::RandomState;

use super::confirmables::{Confirmables, Overdue, Transmission};
use super::crowd::{Crowd, Sign};
use super::duplicates::{Duplicates, Fingerprint, Seen};
use super::echo::Echo;
use super::message::{self, Code, Kind, Malformed, Message, Token};
use super::observers::Observers;
use super::peers::Peers;
use super::reply::Reply;
use super::request::NoResponse;
use super::slots::{Key, Slots};
use super::transfers::{RequestKey, Results, Uploads};
use super::{Answer, Config, Datagram, Etag, Job, JobId, Millis, Outbox, Peer, Resources};
use crate::budget::Budget;
use crate::client::Client;

/// A server endpoint.
#[derive(Debug)]
pub struct Server {
    config: Config,
    budget: Budget,
    duplicates: Duplicates,
    peers: Peers,
    crowd: Crowd,
    open: Slots<Open>,
    /// Jobs whose client was told 2.01 already.
    detached: usize,
    confirmables: Confirmables,
    uploads: Uploads,
    results: Results,
    observers: Observers,
    delayed: Vec<Delayed>,
    echo: Echo,
    keys: RandomState,
    rng: fastrand::Rng,
    /// A datagram being written; kept, so that writing one allocates nothing.
    scratch: Vec<u8>,
    /// The same for the list of links.
    links: Vec<u8>,
    /// No timer is due before this time.
    wake: Millis,
    /// Requests that came again.
    repeated: u64,
}

/// What is needed to answer a message.
#[derive(Debug, Clone, Copy)]
struct Origin {
    peer: Peer,
    kind: Kind,
    id: u16,
    token: Token,
    /// Tells its repetitions.
    fingerprint: Fingerprint,
    /// Whether it came to a multicast group.
    group: bool,
    /// Bytes of its datagram.
    size: usize,
    no_response: NoResponse,
}

/// A request at work.
#[derive(Debug)]
struct Open {
    origin: Origin,
    /// When an empty acknowledgement leaves; `None` where it did, or none is due.
    ack_at: Option<Millis>,
    wish: Wish,
}

/// How the client wants its answer.
#[derive(Debug, Clone, Copy)]
struct Wish {
    request: RequestKey,
    block1: Option<super::block::Block>,
    block2: Option<super::block::Block>,
    accept: Option<u16>,
    etag: Option<Etag>,
    /// Whether it wants to observe; names what, whoever asks.
    observe: Option<u64>,
}

/// An answer to a multicast request that waits for its time.
#[derive(Debug)]
struct Delayed {
    peer: Peer,
    due: Millis,
    datagram: Vec<u8>,
}

/// Whether a datagram is a request, or one of the `pings`, by its header: something that wants an answer.
fn asks(datagram: &[u8], pings: bool) -> bool {
    matches!(datagram, [first, code, ..] if first & 0x20 == 0 && code >> 5 == 0 && (pings || *code != 0))
}

/// One step's surroundings.
struct Scene<'s> {
    now: Millis,
    out: &'s mut dyn Outbox,
}

impl Server {
    /// An endpoint; its bodies count against `budget`. `seed` spreads what the RFCs want random and predictable to nobody but
    /// tests.
    pub fn new(config: Config, budget: Budget, seed: u64) -> Self {
        Self {
            duplicates: Duplicates::new(config.duplicates.max(config.exchanges + 1), config.replies),
            peers: Peers::new(config.endpoints, config.rate),
            crowd: Crowd::new(fastrand::Rng::with_seed(seed.wrapping_add(2)).u64(..)),
            open: Slots::new(config.exchanges),
            detached: 0,
            confirmables: Confirmables::new(&config, seed),
            uploads: Uploads::new(&config),
            results: Results::new(&config),
            observers: Observers::new(&config),
            delayed: Vec::new(),
            echo: Echo::default(),
            keys: RandomState::new(),
            rng: fastrand::Rng::with_seed(seed.wrapping_add(1)),
            scratch: Vec::new(),
            links: Vec::new(),
            wake: Millis::MAX,
            repeated: 0,
            config,
            budget,
        }
    }

    /// Its times and bounds.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many requests came that had come before: none of them ran anything.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Takes one datagram. Answers leave through `out`; a job that is handed out must come back to [`Server::answer`].
    pub fn receive(
        &mut self,
        now: Millis,
        datagram: &Datagram<'_>,
        resources: &dyn Resources,
        out: &mut dyn Outbox,
    ) -> Option<Job> {
        let mut scene = Scene { now, out };
        let peer = &datagram.from;
        // Before anything is read but the header: there may be more of them than can be looked at.
        if asks(datagram.bytes, self.crowd.is_pressed(now))
            && !self.crowd.admit(now, peer.client())
            && !self.is_let_in_late(&mut scene, datagram)
        {
            return None;
        }
        let message = match Message::parse(datagram.bytes) {
            Ok(message) => message,
            Err(Malformed::Reset(id)) if !datagram.group => {
                scene.out.send(peer, &message::empty(Kind::Rst, id));
                return None;
            }
            Err(_) => return None,
        };
        match message.kind {
            Kind::Ack => self.acknowledged(&mut scene, peer, message.id),
            Kind::Rst => self.reset(peer, message.id),
            // A confirmable message must not be sent to a group (RFC 7252 §8.1).
            Kind::Con if datagram.group => {}
            Kind::Con | Kind::Non if message.code.is_request() => {
                let fingerprint = self.duplicates.fingerprint(peer, message.id);
                let origin = Origin {
                    peer: *peer,
                    kind: message.kind,
                    id: message.id,
                    token: message.token,
                    fingerprint,
                    group: datagram.group,
                    size: datagram.bytes.len(),
                    no_response: NoResponse::default(),
                };
                if let Some(seen) = self.duplicates.find(now, fingerprint) {
                    self.repeat(&mut scene, &origin, seen);
                    return None;
                }
                // What is remembered from here on is forgotten in the end.
                self.wake = self.wake.min(now + self.config.exchange_lifetime);
                return self.request(&mut scene, origin, message, resources);
            }
            // An empty message is a ping (§4.3); a response is one that nobody here waits for (§4.2).
            Kind::Con => scene.out.send(peer, &message::empty(Kind::Rst, message.id)),
            Kind::Non => {}
        }
        None
    }

    /// More comes than can be answered: the owner cannot read all of it.
    pub fn press(&mut self, now: Millis) {
        self.crowd.press(now, Sign::Unread);
    }

    /// A request for which there is no room: it was let in if it proves its address. One that is confirmable is asked to.
    fn is_let_in_late(&mut self, scene: &mut Scene<'_>, datagram: &Datagram<'_>) -> bool {
        let peer = &datagram.from;
        let Ok(message) = Message::parse(datagram.bytes) else { return false };
        if datagram.group || message.kind != Kind::Con || !message.code.is_request() {
            return false;
        }
        let mut options = message.options;
        if let Some((_, value)) = options.find(|(number, _)| *number == super::option::ECHO)
            && self.echo.is_fresh(scene.now, peer, value)
            && !self.crowd.is_proved(peer.client())
        {
            self.crowd.prove(scene.now, peer.client());
            return self.crowd.admit(scene.now, peer.client());
        }
        if self.crowd.is_challenged(scene.now, peer.client(), self.rng.u8(..)) {
            let value = self.echo.value(scene.now, peer);
            let reply = Reply { echo: Some(&value), ..Reply::new(Code::UNAUTHORIZED) };
            reply.write(&mut self.scratch, Kind::Ack, message.id, &message.token);
            scene.out.send(peer, &self.scratch);
        }
        false
    }

    /// Takes back what became of a job. Whoever waits for it is told.
    pub fn answer(&mut self, now: Millis, job: &Job, answer: Answer, out: &mut dyn Outbox) {
        let mut scene = Scene { now, out };
        match job.id {
            JobId::Exchange(key) => self.finish(&mut scene, key, job, answer),
            JobId::Detached => self.detached -= 1,
            JobId::Watch(key) => self.notify(&mut scene, key, answer),
        }
    }

    /// Something was changed in the resource `name`, by whomever: it runs soon for those that observe it.
    pub fn changed(&mut self, now: Millis, name: &str) {
        if let Some(due) = self.observers.touch(name, now) {
            self.wake = self.wake.min(due);
        }
    }

    /// Whether anything is observed.
    pub fn is_observed(&self) -> bool {
        !self.observers.watches.is_empty()
    }

    /// When [`Server::tick`] has something to do; `None` where nothing is due. It may change with every call.
    pub fn next(&self) -> Option<Millis> {
        (self.wake != Millis::MAX).then_some(self.wake)
    }

    /// Does what is due: acknowledgements, retransmissions, expiry, and a watch that has to run. Call it again while it hands
    /// out a job.
    pub fn tick(&mut self, now: Millis, out: &mut dyn Outbox) -> Option<Job> {
        if now < self.wake {
            return None;
        }
        let mut scene = Scene { now, out };
        self.acknowledge_late(&mut scene);
        while let Some(overdue) = self.confirmables.tick(now, scene.out, |observer| self.observers.is_stale(observer)) {
            match overdue {
                Overdue::GivenUp(lost) => self.lost(&lost),
                Overdue::Stale(old) => self.supersede(&mut scene, old),
            }
        }
        for delayed in self.delayed.extract_if(.., |delayed| delayed.due <= now) {
            scene.out.send(&delayed.peer, &delayed.datagram);
        }
        self.uploads.expire(now);
        self.results.expire(now);
        self.duplicates.expire(now);
        self.peers.expire(now);
        let job = self.observers.take_due(now).map(|(key, task)| Job { id: JobId::Watch(key), client: None, task });
        self.wake = self.next_due();
        job
    }

    /// How many jobs are handed out and not answered.
    pub fn at_work(&self) -> usize {
        self.open.len() + self.detached
    }

    /// How many confirmable messages of ours wait for an acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.confirmables.len()
    }

    /// Forgets one body that is kept for its client; `false` where there is none. For an owner that needs room in the budget.
    pub fn make_room(&mut self) -> bool {
        self.results.evict()
    }

    fn next_due(&self) -> Millis {
        let acks = self.open.iter().filter_map(|(_, open)| open.ack_at).min();
        let delayed = self.delayed.iter().map(|delayed| delayed.due).min();
        let timers = [
            acks,
            delayed,
            self.confirmables.next(),
            self.uploads.next(),
            self.results.next(),
            self.observers.next(),
            self.duplicates.next(),
            self.peers.next(),
        ];
        timers.into_iter().flatten().min().unwrap_or(Millis::MAX)
    }

    /// Sends the empty acknowledgements of requests that take long (RFC 7252 §5.2.2).
    fn acknowledge_late(&mut self, scene: &mut Scene<'_>) {
        for (_, open) in self.open.iter_mut() {
            if open.ack_at.is_some_and(|at| at <= scene.now) {
                open.ack_at = None;
                scene.out.send(&open.origin.peer, &message::empty(Kind::Ack, open.origin.id));
            }
        }
    }

    /// A request came again (RFC 7252 §4.5): nothing runs.
    fn repeat(&mut self, scene: &mut Scene<'_>, origin: &Origin, seen: Seen) {
        self.repeated += 1;
        let confirmable = origin.kind == Kind::Con;
        match seen {
            Seen::Answered(bytes) => match self.duplicates.answer(bytes) {
                Some(datagram) => scene.out.send(&origin.peer, datagram),
                None if confirmable => {
                    let text = "answered before; the answer is no longer remembered";
                    self.send(scene, origin, &Reply::text(Code::INTERNAL, text));
                }
                None => {}
            },
            Seen::Running(key) => {
                if let Some(open) = self.open.get_mut(key) {
                    open.ack_at = None;
                }
                if confirmable {
                    scene.out.send(&origin.peer, &message::empty(Kind::Ack, origin.id));
                }
            }
            Seen::Acknowledged if confirmable => {
                scene.out.send(&origin.peer, &message::empty(Kind::Ack, origin.id));
            }
            Seen::Acknowledged | Seen::Silent => {}
        }
    }

    /// A confirmable message of ours arrived.
    fn acknowledged(&mut self, scene: &mut Scene<'_>, peer: &Peer, id: u16) {
        if let Some(Transmission { observer: Some(observer), .. }) = self.confirmables.end(peer, id) {
            self.catch_up(scene, observer);
        }
    }

    /// The peer could make nothing of a message of ours: it is not sent again, and an observation ends (RFC 7641 §3.6).
    fn reset(&mut self, peer: &Peer, id: u16) {
        if let Some(Transmission { observer: Some(observer), .. }) = self.confirmables.end(peer, id) {
            self.observers.remove(observer);
        }
        if let Some(observer) = self.observers.find_notified(peer, id) {
            self.confirmables.end_observer(observer);
            self.observers.remove(observer);
        }
    }

    /// A confirmable message of ours was given up: an observer that does not acknowledge is gone (RFC 7641 §4.5).
    fn lost(&mut self, lost: &Transmission) {
        if let Some(observer) = lost.observer {
            self.observers.remove(observer);
        }
    }

    /// Sends the response to a message at once, and remembers nothing of it.
    fn send(&mut self, scene: &mut Scene<'_>, origin: &Origin, reply: &Reply<'_>) {
        // Nothing but success is said to a group (RFC 7252 §8.2).
        if origin.group && !reply.code.is_success() {
            return;
        }
        if origin.no_response.suppresses(reply.code) {
            if origin.kind == Kind::Con {
                scene.out.send(&origin.peer, &message::empty(Kind::Ack, origin.id));
            }
            return;
        }
        self.write(scene, origin, reply);
        if self.amplifies(scene.now, origin, self.scratch.len()) {
            self.challenge(scene, origin);
        } else if origin.group {
            self.delay(scene.now, origin.peer);
        } else {
            scene.out.send(&origin.peer, &self.scratch);
        }
    }

    /// Writes the response to a message: piggybacked, or as a message of its own (RFC 7252 §5.2).
    fn write(&mut self, scene: &mut Scene<'_>, origin: &Origin, reply: &Reply<'_>) {
        let (kind, id) = match origin.kind {
            Kind::Con => (Kind::Ack, origin.id),
            _ => (Kind::Non, self.peers.next_id(scene.now, &origin.peer)),
        };
        reply.write(&mut self.scratch, kind, id, &origin.token);
    }

    /// Whether `bytes` are too many for an endpoint that has not proved its address (RFC 9175 §2.3).
    fn amplifies(&mut self, now: Millis, origin: &Origin, bytes: usize) -> bool {
        self.config.echo && bytes > 3 * origin.size && !self.peers.proved(now, &origin.peer)
    }

    /// Asks an endpoint to prove its address (RFC 9175 §2.3).
    fn challenge(&mut self, scene: &mut Scene<'_>, origin: &Origin) {
        if origin.group {
            return;
        }
        let value = self.echo.value(scene.now, &origin.peer);
        self.write(scene, origin, &Reply { echo: Some(&value), ..Reply::new(Code::UNAUTHORIZED) });
        scene.out.send(&origin.peer, &self.scratch);
    }

    /// Keeps the answer to a multicast request for a random time (RFC 7252 §8.2).
    fn delay(&mut self, now: Millis, peer: Peer) {
        if self.delayed.len() < self.config.delayed {
            let due = now + self.rng.u64(0..=self.config.leisure);
            self.delayed.push(Delayed { peer, due, datagram: self.scratch.clone() });
            self.wake = self.wake.min(due);
        }
    }

    /// How long the message id of such a request is remembered.
    fn lifetime(&self, kind: Kind) -> Millis {
        if kind == Kind::Con { self.config.exchange_lifetime } else { self.config.non_lifetime }
    }

    /// Whether three quarters of the exchanges are at work: the rest is for who is not a stranger.
    fn is_nearly_full(&self) -> bool {
        self.open.len() >= self.config.exchanges - self.config.exchanges / 4
    }

    /// Whether one client, who is not on this machine, has three quarters of the exchanges at work.
    fn is_full_of(&self, client: Client) -> bool {
        let most = self.config.exchanges - self.config.exchanges / 4;
        // Else nobody has so many, and it need not be counted.
        self.open.len() >= most
            && !client.is_local()
            && self.open.iter().filter(|(_, open)| open.origin.peer.client() == client).count() >= most
    }

    /// Makes room for a request by giving up an answer that nobody acknowledges, to an address that may be made up.
    fn make_room_for_exchange(&mut self) -> bool {
        let Self { confirmables, crowd, .. } = self;
        confirmables.give_up(|peer| !crowd.is_proved(peer.client()))
    }

    /// Whether as many exchanges are at work, or answers under way, as may be.
    fn is_full(&self) -> bool {
        self.open.len() + self.detached + self.confirmables.len() >= self.config.exchanges
    }
}

#[cfg(test)]
mod tests;
