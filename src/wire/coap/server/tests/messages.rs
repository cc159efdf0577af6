//! RFC 7252 §4 and §5.2: confirmable and non-confirmable, piggybacked and separate, duplicates, resets.

use super::*;

const CON: Kind = Kind::Con;
const NON: Kind = Kind::Non;

#[test]
fn a_ping_is_answered_with_a_reset() {
    let mut w = World::new(Config::default());
    let rst = w.ask(b"\x40\x00\x12\x34");
    assert_eq!((rst.kind, rst.code, rst.id), (Kind::Rst, Code::EMPTY, 0x1234));
}

#[test]
fn format_errors_are_reset_or_ignored() {
    let mut w = World::new(Config::default());
    assert_eq!(w.ask(b"\x40\x01\x12\x34\xff").kind, Kind::Rst);
    for bytes in [&b"\x50\x01\x12\x34\xff"[..], b"", b"\x40", b"\x80\x01\x12\x34", b"\x50\x00\x12\x34", b"garbage!"] {
        assert_eq!(w.say(bytes), [], "{bytes:02x?}");
    }
}

#[test]
fn responses_and_acknowledgements_that_nobody_waits_for_run_nothing() {
    let mut w = World::new(Config::default());
    assert_eq!(w.ask(b"\x40\x45\x12\x34").kind, Kind::Rst);
    for bytes in [&b"\x50\x45\x12\x34"[..], b"\x60\x00\x12\x34", b"\x60\x45\x12\x34", b"\x70\x00\x12\x34"] {
        assert_eq!(w.say(bytes), []);
    }
    // A request inside an acknowledgement is none (§4.2).
    assert_eq!(w.say(b"\x60\x01\x12\x34\xb1f"), []);
}

#[test]
fn a_quick_answer_rides_on_the_acknowledgement() {
    let mut w = World::new(Config::default());
    let heard = w.call(&get(7, "f"), b"hello");
    assert_eq!((heard.kind, heard.code, heard.id), (Kind::Ack, Code::CONTENT, 7));
    assert_eq!((&heard.token[..], heard.text()), (&b"tok"[..], "hello"));
    assert_eq!(heard.options, [(option::CONTENT_FORMAT, vec![])]);
    assert_eq!(w.wait(300_000).len(), 0);
    assert_eq!(w.heard(), []);
}

#[test]
fn duplicate_confirmable_is_answered_from_cache() {
    let mut w = World::new(Config::default());
    let first = w.call(&get(7, "f"), b"hello");
    for _ in 0..3 {
        w.now += 60_000;
        assert_eq!(w.ask(&get(7, "f")), first);
    }
    // Another endpoint's message id is another message.
    assert!(w.feed(peer(1), &get(7, "f")).is_some());
    // After EXCHANGE_LIFETIME the id names a new message.
    w.now += 247_000;
    w.job(&get(7, "f"));
}

#[test]
fn duplicate_non_confirmable_is_answered_from_cache_with_the_same_message_id() {
    let mut w = World::new(Config::default());
    let bytes = request(NON, Code::POST, 9, "f", &[], b"x");
    let first = w.call(&bytes, b"hello");
    assert_eq!((first.kind, first.code), (NON, Code::CONTENT));
    assert_eq!(w.ask(&bytes), first);
    w.now += 145_000;
    w.job(&bytes);
}

#[test]
fn a_slow_answer_is_acknowledged_first_and_then_sent_until_it_is_acknowledged() {
    let mut w = World::new(Config::default());
    let job = w.job(&get(7, "f"));
    w.wait(499);
    assert_eq!(w.heard(), []);
    w.wait(1);
    let ack = w.heard();
    assert_eq!((ack.len(), ack[0].kind, ack[0].code, ack[0].id), (1, Kind::Ack, Code::EMPTY, 7));
    w.wait(60_000);
    assert_eq!(w.heard(), []);
    let separate = w.answer(&job, content(b"late"));
    assert_eq!((separate.kind, separate.code, separate.text()), (CON, Code::CONTENT, "late"));
    assert_eq!(separate.token, b"tok");
    w.wait(3_000);
    assert_eq!(w.heard(), [separate], "sent again");
    // Whoever repeats the request hears the acknowledgement only.
    let again = w.ask(&get(7, "f"));
    assert_eq!((again.kind, again.code), (Kind::Ack, Code::EMPTY));
}

#[test]
fn an_acknowledgement_or_a_reset_stops_a_separate_answer() {
    for kind in [Kind::Ack, Kind::Rst] {
        let mut w = World::new(Config::default());
        let job = w.job(&get(7, "f"));
        w.wait(500);
        w.heard();
        let separate = w.answer(&job, content(b"late"));
        assert_eq!(w.say(&message::empty(kind, separate.id)), []);
        w.wait(300_000);
        assert_eq!(w.heard(), []);
    }
}

#[test]
fn a_separate_answer_that_nobody_acknowledges_is_sent_five_times_and_given_up() {
    let mut w = World::new(Config::default());
    let job = w.job(&get(7, "f"));
    w.wait(500);
    w.heard();
    let first = w.answer(&job, content(b"late"));
    w.wait(93_000);
    assert_eq!(w.heard().iter().filter(|again| **again == first).count(), 4);
    assert_eq!(w.server.unacknowledged(), 0);
}

#[test]
fn a_repeated_request_is_acknowledged_at_once_while_it_is_at_work() {
    let mut w = World::new(Config::default());
    let job = w.job(&get(7, "f"));
    let ack = w.ask(&get(7, "f"));
    assert_eq!((ack.kind, ack.code, ack.id), (Kind::Ack, Code::EMPTY, 7));
    assert_eq!(w.answer(&job, content(b"x")).kind, CON);
}

#[test]
fn a_repeated_non_confirmable_request_at_work_is_ignored() {
    let mut w = World::new(Config::default());
    let bytes = request(NON, Code::GET, 7, "f", &[], b"");
    let job = w.job(&bytes);
    assert_eq!(w.say(&bytes), []);
    assert_eq!(w.answer(&job, content(b"x")).kind, NON);
    w.wait(300_000);
    assert_eq!(w.heard(), []);
}

#[test]
fn our_message_ids_differ_for_one_endpoint() {
    let mut w = World::new(Config { rate: 0, ..Config::default() });
    let mut ids = std::collections::HashSet::new();
    for id in 0..2000 {
        ids.insert(w.call(&request(NON, Code::GET, id, "f", &[], b""), b"x").id);
    }
    assert_eq!(ids.len(), 2000);
}

#[test]
fn a_request_whose_answer_is_no_longer_remembered_does_not_run_again() {
    let mut w = World::new(Config { replies: 64, ..Config::default() });
    w.call(&get(1, "f"), b"an answer of some length, so that few fit");
    w.call(&get(2, "f"), b"an answer of some length, so that few fit");
    let heard = w.ask(&get(1, "f"));
    assert_eq!((heard.kind, heard.code), (Kind::Ack, Code::INTERNAL));
    w.call(&request(NON, Code::GET, 3, "f", &[], b""), b"a");
    for id in 4..8 {
        w.call(&get(id, "f"), b"an answer of some length, so that few fit");
    }
    assert_eq!(w.say(&request(NON, Code::GET, 3, "f", &[], b"")), []);
}

#[test]
fn in_the_end_everything_is_forgotten_and_no_timer_is_left() {
    let mut w = World::new(Config::default());
    w.call(&get(1, "f"), b"x");
    w.call(&request(NON, Code::GET, 2, "f", &[], b""), b"x");
    assert!(!w.server.duplicates.is_empty() && w.server.next().is_some());
    w.wait(600_000);
    assert_eq!((w.server.duplicates.len(), w.server.peers.next()), (0, None), "{:?}", w.server.next());
    assert_eq!(w.server.next(), None);
}
