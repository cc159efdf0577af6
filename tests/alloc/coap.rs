//! What a CoAP datagram that runs nothing allocates: nothing.

use stats_alloc::Region;
use tinyfaas::budget::Budget;
use tinyfaas::buffers::Buffers;
use tinyfaas::dispatch::{Dispatch, Function};
use tinyfaas::function::{Limits, Name};
use tinyfaas::wire::coap::{Answer, Code, Config, Datagram, Held, Outbox, Peer, Resources, Server};

use crate::ALLOCATOR;

/// As the front door asks the dispatcher.
struct Functions(Dispatch);

impl Resources for Functions {
    fn exists(&self, name: &str) -> bool {
        self.0.function(name).is_some()
    }

    fn list(&self, each: &mut dyn FnMut(&str)) {
        self.0.each_name(each);
    }
}

struct Bytes(usize);

impl Outbox for Bytes {
    fn send(&mut self, _: &Peer, datagram: &[u8]) {
        self.0 += datagram.len();
    }
}

/// Pings, duplicates, discovery and refusals.
pub fn datagrams_that_run_nothing_allocate_nothing() {
    let functions = Functions(Dispatch::new(Buffers::default()));
    for name in ["echo", "f", "g"] {
        let timeout = std::time::Duration::from_secs(1);
        let limits = Limits { memory: 0, cpu_millis: 0, pids: 0, timeout, concurrency: 1, queue: 1 };
        functions.0.install(Function::new(Name::parse(name).expect("a name"), limits).into());
    }
    let mut server = Server::new(Config { rate: 0, ..Config::default() }, Budget::new(1 << 20), 1);
    let from = Peer::new(([192, 0, 2, 1], 5683).into(), 0);
    let datagrams: [(&str, &[u8]); 5] = [
        ("ping", b"\x40\0\x12\x34"),
        ("duplicate", b"\x41\x02\x00\x01t\xb1f\xffbody"),
        ("discovery", b"\x41\x01\x00\x02t\xbb.well-known\x04core"),
        ("filtered discovery", b"\x41\x01\x00\x03t\xbb.well-known\x04core\x47href=/g"),
        ("unknown function", b"\x51\x01\x00\x04t\xb6nosuch"),
    ];
    let mut out = Bytes(0);
    let mut feed = |bytes| server.receive(5, &Datagram { from, group: false, bytes }, &functions, &mut out);
    // The first of each makes its buffers; the call is answered.
    let jobs: Vec<_> = datagrams.iter().filter_map(|(_, bytes)| feed(bytes)).collect();
    let [job] = &jobs[..] else { panic!("one of them is a call") };
    server.answer(5, job, Answer::failure(Code::CONTENT, Held::EMPTY), &mut out);
    for (what, bytes) in datagrams {
        let sent = out.0;
        let region = Region::new(ALLOCATOR);
        for _ in 0..1000 {
            let job = server.receive(6, &Datagram { from, group: false, bytes }, &functions, &mut out);
            assert!(job.is_none());
        }
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{what}");
        assert!(out.0 > sent, "{what} is answered");
        println!("1000 x {what}: no allocation");
    }
}
