//! A CoAP server endpoint told a story by bytes nobody chose with care: datagrams of a few peers, answers, time.
//!
//! Whatever the story, the endpoint does not panic, sends only well-formed messages, at most one for a datagram, keeps its
//! bounds, and in the end gives back everything. Runs under libFuzzer and as a seeded test (tests/it/coap_fuzz.rs).

use tinyfaas::budget::Budget;
use tinyfaas::wire::coap::message::{Kind, Message};
use tinyfaas::wire::coap::{
    Answer, Code, Config, Datagram, Etag, Held, Job, Location, Outbox, Peer, Resources, Server,
};

/// Bytes of bodies that the endpoint may hold; few, so that it runs out.
const BUDGET: usize = 8 * 1024;
/// The longest response: what fits a link of 1280 bytes beside the heads of IPv6 and UDP.
const LONGEST: usize = 1280 - 48;

struct Functions;

impl Resources for Functions {
    fn exists(&self, name: &str) -> bool {
        name == "f" || name == "g"
    }

    fn list(&self, each: &mut dyn FnMut(&str)) {
        each("f");
        each("g");
    }
}

/// Looks at what is sent.
#[derive(Default)]
struct Watched {
    sent: usize,
}

impl Outbox for Watched {
    fn send(&mut self, _: &Peer, datagram: &[u8]) {
        let message = Message::parse(datagram).expect("a well-formed message");
        assert!(!message.code.is_request() && datagram.len() <= LONGEST);
        assert!(message.kind != Kind::Rst || datagram.len() == 4);
        self.sent += 1;
    }
}

/// An endpoint with small tables, and the jobs it handed out.
pub struct Story {
    server: Server,
    budget: Budget,
    jobs: Vec<Job>,
    now: u64,
}

impl Default for Story {
    fn default() -> Self {
        let config = Config {
            exchanges: 4,
            duplicates: 8,
            replies: 512,
            endpoints: 4,
            rate: 0,
            uploads: 3,
            results: 3,
            max_body: 4096,
            observers: 3,
            observe_interval: 700,
            delayed: 2,
            ..Config::default()
        };
        let budget = Budget::new(BUDGET);
        Self { server: Server::new(config, budget.clone(), 1), budget, jobs: Vec::new(), now: 0 }
    }
}

impl Story {
    /// One datagram of one of eight peers.
    pub fn datagram(&mut self, peer: u8, group: bool, bytes: &[u8]) {
        let from = Peer::new(([192, 0, 2, 1], 5683 + u16::from(peer % 8)).into(), 0);
        let mut out = Watched::default();
        let job = self.server.receive(self.now, &Datagram { from, group, bytes }, &Functions, &mut out);
        assert!(out.sent <= 1, "{} messages for one", out.sent);
        self.jobs.extend(job);
        assert!(self.server.at_work() <= 4 && self.server.unacknowledged() <= 4 + 3);
    }

    /// An answer to the oldest job, if there is one.
    pub fn answer(&mut self, code: u8, length: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let job = self.jobs.remove(0);
        let mut body = Held::EMPTY;
        // Without room it stays empty, as a front door would answer with an error.
        let _ = body.extend(&vec![code; length], &self.budget);
        let code = Code([69, 68, 132, 160, 67, 163][usize::from(code % 6)]);
        let etag = Etag::new(&[code.0; 3]).filter(|_| length.is_multiple_of(3));
        let answer = Answer {
            etag,
            location: Location::parse(&format!("/{:a<94}", "")).filter(|_| length.is_multiple_of(5)),
            format: Some(0),
            format_is_default: length.is_multiple_of(2),
            ..Answer::failure(code, body)
        };
        if answer.code.is_success() && job.task.method == Code::POST {
            self.server.changed(self.now, &job.task.name);
        }
        self.server.answer(self.now, &job, answer, &mut Watched::default());
    }

    /// Lets so many milliseconds pass.
    pub fn wait(&mut self, millis: u64) {
        self.now += millis;
        let mut rounds = 0;
        while let Some(job) = self.server.tick(self.now, &mut Watched::default()) {
            self.jobs.push(job);
            rounds += 1;
            assert!(rounds <= 3, "one run for each observed function at a time");
        }
        assert!(self.server.next().is_none_or(|next| next > self.now), "a timer that does not go off");
    }

    /// Answers all, waits for all to expire, and looks at what is left.
    pub fn end(mut self) {
        for _ in 0..1000 {
            if self.jobs.is_empty() && self.server.next().is_none() {
                break;
            }
            while !self.jobs.is_empty() {
                // An error ends an observation.
                self.answer(3, 0);
            }
            self.wait(10_000);
        }
        assert!(self.jobs.is_empty() && self.server.next().is_none(), "something goes on for ever");
        assert_eq!((self.server.at_work(), self.server.unacknowledged()), (0, 0));
        assert_eq!(self.budget.left(), BUDGET, "bodies that nobody holds");
    }
}

/// Tells the story that `bytes` spell: a step's byte, its peer or length, and for a datagram its length and bytes.
pub fn run(mut bytes: &[u8]) {
    let mut story = Story::default();
    while let [step, argument, rest @ ..] = bytes {
        bytes = rest;
        match step % 8 {
            0 => story.answer(*argument, usize::from(*argument) * 17),
            1 => story.wait(u64::from(*argument) * 50),
            2 => story.wait(u64::from(*argument) * 2_000),
            kind => {
                let [length, rest @ ..] = rest else { break };
                let (datagram, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                bytes = rest;
                story.datagram(*argument, kind == 3, datagram);
            }
        }
    }
    story.end();
}
