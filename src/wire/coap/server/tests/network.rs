//! A simulated network that loses, repeats and reorders, with clients that follow RFC 7252 §4.2.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::*;

/// What happens at a time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A datagram reaches the server.
    ToServer(u16, Vec<u8>),
    /// A datagram reaches a client.
    ToClient(u16, Vec<u8>),
    /// A client's retransmission timer.
    Retransmit(u32, u8, u64),
    /// A client begins its next exchange.
    Begin(u16),
    /// A job is done.
    Done(u64),
}

/// An exchange of a client.
struct Exchange {
    client: u16,
    datagram: Vec<u8>,
    confirmable: bool,
    acknowledged: bool,
    answered: bool,
}

/// The network and all on it.
struct Simulation {
    world: World,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    order: u64,
    exchanges: Vec<Exchange>,
    jobs: HashMap<u64, Job>,
    /// How often the function ran for each exchange.
    runs: Vec<u32>,
    next_ids: Vec<u16>,
}

const CLIENTS: u16 = 50;
/// Percent of the datagrams that are lost, and that come twice.
const LOSS: u32 = 30;
const TWICE: u32 = 10;
/// A client repeats itself more often than the RFC's four times: at 30 % loss each way one in 34 exchanges would end
/// without an answer otherwise, whatever the server does.
const RETRIES: u8 = 24;

impl Simulation {
    fn new(seed: u64) -> Self {
        let config = Config { rate: 0, max_retransmit: RETRIES, ..Config::default() };
        Self {
            world: World::new(config),
            rng: fastrand::Rng::with_seed(seed),
            events: BinaryHeap::new(),
            order: 0,
            exchanges: Vec::new(),
            jobs: HashMap::new(),
            runs: Vec::new(),
            next_ids: (0..CLIENTS).map(|c| c.wrapping_mul(977)).collect(),
        }
    }

    fn at(&mut self, time: Millis, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    /// Puts a datagram on the network.
    fn transmit(&mut self, event: impl Fn() -> Event) {
        let copies = if self.rng.u32(0..100) < TWICE { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.u32(0..100) >= LOSS {
                // So wide a spread that later datagrams overtake earlier ones.
                let delay = self.rng.u64(1..400);
                self.at(self.world.now + delay, event());
            }
        }
    }

    fn begin(&mut self, client: u16) {
        let index = self.exchanges.len() as u32;
        let id = self.next_ids[usize::from(client)];
        self.next_ids[usize::from(client)] = id.wrapping_add(1);
        let confirmable = self.rng.bool();
        let kind = if confirmable { Kind::Con } else { Kind::Non };
        let mut datagram = Vec::new();
        Writer::new(&mut datagram, kind, Code::POST, id, &Token::new(&index.to_be_bytes()).unwrap())
            .option(option::URI_PATH, b"f")
            .payload(&index.to_be_bytes());
        self.runs.push(0);
        self.exchanges.push(Exchange { client, datagram, confirmable, acknowledged: false, answered: false });
        self.retransmit(index, RETRIES, 2_000);
    }

    /// A confirmable request is sent until it is acknowledged; a non-confirmable one in copies until it is answered, which is
    /// the client's own business (RFC 7252 §4.3).
    fn retransmit(&mut self, index: u32, left: u8, timeout: u64) {
        let exchange = &self.exchanges[index as usize];
        if exchange.answered || (exchange.acknowledged && exchange.confirmable) {
            return;
        }
        let (client, datagram) = (exchange.client, exchange.datagram.clone());
        self.transmit(|| Event::ToServer(client, datagram.clone()));
        if left > 0 {
            // The pause stops growing, so that all copies fall into the message id's lifetime.
            self.at(self.world.now + timeout, Event::Retransmit(index, left - 1, (timeout * 2).min(8_000)));
        }
    }

    fn reach_client(&mut self, client: u16, datagram: &[u8]) {
        let heard = Heard::read(datagram);
        match heard.kind {
            Kind::Ack if heard.code == Code::EMPTY => {
                let exchange = self
                    .exchanges
                    .iter_mut()
                    .rev()
                    .find(|e| e.client == client && e.confirmable && e.datagram[2..4] == heard.id.to_be_bytes());
                exchange.expect("an acknowledgement of a request").acknowledged = true;
                return;
            }
            Kind::Con => {
                let ack = message::empty(Kind::Ack, heard.id).to_vec();
                self.transmit(|| Event::ToServer(client, ack.clone()));
            }
            _ => {}
        }
        assert_eq!(heard.code, Code::CONTENT, "{heard:?}");
        let index = u32::from_be_bytes(heard.token[..].try_into().unwrap());
        assert_eq!(heard.text(), format!("answer {index}"));
        let exchange = &mut self.exchanges[index as usize];
        assert_eq!(exchange.client, client);
        if !std::mem::replace(&mut exchange.answered, true) {
            self.at(self.world.now + 10, Event::Begin(client));
        }
    }

    fn reach_server(&mut self, client: u16, datagram: &[u8]) {
        if let Some(job) = self.world.feed(peer(client), datagram) {
            let index = u32::from_be_bytes(job.task.body.as_bytes().try_into().unwrap());
            self.runs[index as usize] += 1;
            // Some are quick, some need an acknowledgement first.
            let takes = if self.rng.u8(..4) == 0 { self.rng.u64(500..20_000) } else { self.rng.u64(1..400) };
            self.order += 1;
            self.jobs.insert(self.order, job);
            self.at(self.world.now + takes, Event::Done(self.order));
        }
    }

    fn run(&mut self, total: usize) {
        (0..CLIENTS).for_each(|client| self.at(self.world.now, Event::Begin(client)));
        loop {
            let timer = self.world.server.next().unwrap_or(Millis::MAX);
            match self.events.peek().map(|Reverse((at, ..))| *at) {
                Some(at) if at <= timer => {
                    let Some(Reverse((at, _, event))) = self.events.pop() else { break };
                    self.world.now = self.world.now.max(at);
                    match event {
                        Event::Begin(client) if self.exchanges.len() < total => self.begin(client),
                        Event::Begin(_) => {}
                        Event::Retransmit(index, left, timeout) => self.retransmit(index, left, timeout),
                        Event::ToServer(client, datagram) => self.reach_server(client, &datagram),
                        Event::ToClient(client, datagram) => self.reach_client(client, &datagram),
                        Event::Done(key) => {
                            let job = self.jobs.remove(&key).unwrap();
                            let index = u32::from_be_bytes(job.task.body.as_bytes().try_into().unwrap());
                            let answer = content(format!("answer {index}").as_bytes());
                            self.world.server.answer(self.world.now, &job, answer, &mut self.world.sent);
                        }
                    }
                }
                _ if timer == Millis::MAX => break,
                _ => {
                    self.world.now = self.world.now.max(timer);
                    assert!(self.world.server.tick(self.world.now, &mut self.world.sent).is_none());
                }
            }
            for (to, datagram) in std::mem::take(&mut self.world.sent.0) {
                let client = to.addr().port() - 40000;
                self.transmit(|| Event::ToClient(client, datagram.clone()));
            }
        }
    }
}

#[test]
fn ten_thousand_exchanges_at_30_percent_loss_are_answered_and_run_exactly_once() {
    let mut simulation = Simulation::new(7252);
    simulation.run(10_000);
    assert_eq!(simulation.exchanges.len(), 10_000);
    let unanswered = simulation.exchanges.iter().filter(|e| !e.answered).count();
    let not_once = simulation.runs.iter().filter(|&&n| n != 1).count();
    assert_eq!((unanswered, not_once), (0, 0));
    assert!(simulation.world.server.open.is_empty() && simulation.world.server.confirmables.is_empty());
    assert_eq!(simulation.world.budget.left(), 1 << 20);
}
