//! The endpoint by the datagram: what goes in, what comes out, and when.

mod blocks;
mod limits;
mod messages;
mod network;
mod network_blocks;
mod observe;
mod requests;

use super::super::message::Writer;
use super::super::{Held, Location, option};
use super::*;

/// Functions `echo`, `f` and `g`.
pub(super) struct Three;

impl Resources for Three {
    fn exists(&self, name: &str) -> bool {
        ["echo", "f", "g"].contains(&name)
    }

    fn list(&self, each: &mut dyn FnMut(&str)) {
        ["echo", "f", "g"].into_iter().for_each(each);
    }
}

/// Datagrams that left, with their receivers.
#[derive(Default)]
pub(super) struct Sent(Vec<(Peer, Vec<u8>)>);

impl Outbox for Sent {
    fn send(&mut self, to: &Peer, datagram: &[u8]) {
        self.0.push((*to, datagram.to_vec()));
    }
}

/// A server, its clock, and what it sent.
pub(super) struct World {
    pub server: Server,
    pub now: Millis,
    pub sent: Sent,
    pub budget: Budget,
}

/// A response as tests read it.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    pub kind: Kind,
    pub code: Code,
    pub id: u16,
    pub token: Vec<u8>,
    pub options: Vec<(u16, Vec<u8>)>,
    pub payload: Vec<u8>,
}

impl Heard {
    pub fn read(datagram: &[u8]) -> Self {
        let m = Message::parse(datagram).unwrap();
        Self {
            kind: m.kind,
            code: m.code,
            id: m.id,
            token: m.token.as_bytes().to_vec(),
            options: m.options.map(|(n, v)| (n, v.to_vec())).collect(),
            payload: m.payload.to_vec(),
        }
    }

    pub fn uint(&self, number: u16) -> Option<u32> {
        self.options.iter().find(|(n, _)| *n == number).and_then(|(_, v)| option::uint(v))
    }

    pub fn block(&self, number: u16) -> Option<(u32, bool, u8)> {
        let block = super::super::block::Block::from_uint(self.uint(number)?).unwrap();
        Some((block.number, block.more, block.szx))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

pub(super) fn peer(n: u16) -> Peer {
    Peer::new(([192, 0, 2, 1], 40000 + n).into(), 0)
}

/// A request to `path` with further options, which are sorted here.
pub(super) fn request(kind: Kind, code: Code, id: u16, path: &str, more: &[(u16, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut options: Vec<(u16, &[u8])> = more.to_vec();
    options.extend(path.split('/').filter(|s| !s.is_empty()).map(|s| (option::URI_PATH, s.as_bytes())));
    options.sort_by_key(|(n, _)| *n);
    let mut buf = Vec::new();
    let mut w = Writer::new(&mut buf, kind, code, id, &Token::new(b"tok").unwrap());
    options.iter().for_each(|(n, v)| {
        w.option(*n, v);
    });
    w.payload(payload);
    buf
}

pub(super) fn get(id: u16, path: &str) -> Vec<u8> {
    request(Kind::Con, Code::GET, id, path, &[], b"")
}

pub(super) fn content(body: &[u8]) -> Answer {
    Answer {
        code: Code::CONTENT,
        format: Some(0),
        format_is_default: true,
        max_age: None,
        etag: None,
        location: None,
        body: Held::line(String::from_utf8(body.to_vec()).unwrap()),
    }
}

impl World {
    pub fn new(config: Config) -> Self {
        let budget = Budget::new(1 << 20);
        let server = Server::new(config, budget.clone(), 1);
        Self { server, now: 1_000_000, sent: Sent::default(), budget }
    }

    /// Feeds one datagram of `from`.
    pub fn feed(&mut self, from: Peer, bytes: &[u8]) -> Option<Job> {
        self.server.receive(self.now, &Datagram { from, group: false, bytes }, &Three, &mut self.sent)
    }

    /// Feeds a datagram that leads to a job.
    pub fn job(&mut self, bytes: &[u8]) -> Job {
        self.feed(peer(0), bytes).expect("a job")
    }

    /// Feeds a datagram that leads to no job, and takes what was sent.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<Heard> {
        assert!(self.feed(peer(0), bytes).is_none(), "a job");
        self.heard()
    }

    /// Feeds a datagram that is answered at once with one.
    pub fn ask(&mut self, bytes: &[u8]) -> Heard {
        let mut heard = self.say(bytes);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// Feeds a request, answers its job, and takes the one response.
    pub fn call(&mut self, bytes: &[u8], body: &[u8]) -> Heard {
        let job = self.job(bytes);
        self.answer(&job, content(body))
    }

    pub fn answer(&mut self, job: &Job, answer: Answer) -> Heard {
        self.server.answer(self.now, job, answer, &mut self.sent);
        let mut heard = self.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// Takes what was sent.
    pub fn heard(&mut self) -> Vec<Heard> {
        self.sent.0.drain(..).map(|(_, datagram)| Heard::read(&datagram)).collect()
    }

    /// Lets time pass, stopping at each timer; returns the jobs that came due.
    pub fn wait(&mut self, millis: Millis) -> Vec<Job> {
        let end = self.now + millis;
        let mut jobs = Vec::new();
        while let Some(at) = self.server.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            match self.server.tick(self.now, &mut self.sent) {
                Some(job) => jobs.push(job),
                None => assert!(self.server.next().is_none_or(|next| next > self.now), "a timer that does not go off"),
            }
        }
        self.now = end;
        jobs
    }
}
