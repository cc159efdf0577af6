//! What happens at each bound, and when an address is not proved.

use super::*;

#[test]
fn when_all_exchanges_are_at_work_others_hear_5_03_and_may_try_again() {
    let mut w = World::new(Config { exchanges: 2, ..Config::default() });
    let jobs = [w.job(&get(1, "f")), w.job(&get(2, "f"))];
    let heard = w.ask(&get(3, "f"));
    assert_eq!((heard.code, heard.uint(option::MAX_AGE)), (Code::UNAVAILABLE, Some(5)));
    w.answer(&jobs[0], content(b"x"));
    w.job(&get(3, "f"));
    assert_eq!(w.answer(&jobs[1], content(b"y")).text(), "y", "what was at work is answered");
}

#[test]
fn answers_that_are_not_acknowledged_count_as_exchanges() {
    let mut w = World::new(Config { exchanges: 1, ..Config::default() });
    let job = w.job(&get(1, "f"));
    w.wait(500);
    w.heard();
    let separate = w.answer(&job, content(b"x"));
    assert_eq!(w.ask(&get(2, "f")).code, Code::UNAVAILABLE);
    w.say(&message::empty(Kind::Ack, separate.id));
    w.job(&get(2, "f"));
}

#[test]
fn async_calls_count_as_exchanges() {
    let mut w = World::new(Config { exchanges: 1, ..Config::default() });
    let job = w.job(&request(Kind::Con, Code::GET, 1, "f", &[(option::URI_QUERY, b"async")], b""));
    w.heard();
    assert_eq!(w.ask(&get(2, "f")).code, Code::UNAVAILABLE);
    w.server.answer(w.now, &job, content(b""), &mut w.sent);
    w.job(&get(2, "f"));
}

#[test]
fn an_endpoint_over_its_rate_hears_4_29() {
    let mut w = World::new(Config { rate: 10, ..Config::default() });
    for id in 0..10 {
        w.call(&get(id, "f"), b"x");
    }
    let heard = w.ask(&get(10, "f"));
    assert_eq!((heard.code, heard.uint(option::MAX_AGE)), (Code::TOO_MANY_REQUESTS, Some(5)));
    assert_eq!(w.ask(&get(0, "f")).code, Code::CONTENT, "a repeated one is no new request");
    w.now += 100;
    w.call(&get(11, "f"), b"x");
}

#[test]
fn a_body_without_room_in_the_budget_is_5_03() {
    let mut w = World::new(Config::default());
    w.server.budget = Budget::new(1500);
    let job = w.job(&request(Kind::Con, Code::POST, 1, "f", &[], &[b'x'; 1000]));
    let post = request(Kind::Con, Code::POST, 2, "f", &[], &[b'x'; 1000]);
    assert_eq!(w.ask(&post).code, Code::UNAVAILABLE);
    w.answer(&job, content(b""));
    drop(job);
    w.job(&post);
}

#[test]
fn a_kept_answer_gives_way_to_a_new_body() {
    let mut w = World::new(Config::default());
    w.server.budget = Budget::new(4000);
    let job = w.job(&get(1, "f"));
    let body = Held::copy(&[b'x'; 3500], &w.server.budget).unwrap();
    w.answer(&job, Answer { body, ..content(b"") });
    assert_eq!(w.server.results.len(), 1);
    w.job(&request(Kind::Con, Code::POST, 2, "f", &[], &[b'x'; 1000]));
    assert!(w.server.results.is_empty());
}

#[test]
fn too_long_a_datagram_is_4_13() {
    let mut w = World::new(Config::default());
    let heard = w.ask(&request(Kind::Con, Code::POST, 1, "f", &[], &[0; 2100]));
    assert_eq!((heard.code, heard.uint(option::SIZE1)), (Code::TOO_LARGE, Some(65536)));
}

#[test]
fn with_echo_a_large_answer_needs_a_proved_address_and_then_no_longer() {
    let mut w = World::new(Config { echo: true, ..Config::default() });
    let challenge = w.ask(&get(1, "f"));
    assert_eq!(challenge.code, Code::UNAUTHORIZED);
    let (number, value) = challenge.options[0].clone();
    assert_eq!(number, option::ECHO);
    let with = |id, value: &[u8]| request(Kind::Con, Code::GET, id, "f", &[(option::ECHO, value)], b"");
    assert_eq!(w.ask(&with(2, b"forged")).code, Code::UNAUTHORIZED);
    w.call(&with(3, &value), b"x");
    w.call(&get(4, "f"), b"the address is known");
    assert!(w.feed(peer(1), &with(5, &value)).is_none(), "another endpoint's value");
    assert_eq!(w.heard()[0].code, Code::UNAUTHORIZED);
}

#[test]
fn with_echo_small_answers_and_large_requests_need_no_proof() {
    let mut w = World::new(Config { echo: true, ..Config::default() });
    assert_eq!(w.ask(b"\x40\x00\x12\x34").kind, Kind::Rst);
    w.job(&request(Kind::Con, Code::POST, 1, "f", &[], &[0; 400]));
    let small: &[(u16, &[u8])] = &[(option::BLOCK2, b"\x00")];
    w.job(&request(Kind::Con, Code::POST, 2, "f", small, &[0; 50]));
    let challenge = w.ask(&get(3, ".well-known/core"));
    assert_eq!(challenge.code, Code::UNAUTHORIZED);
    assert!(challenge.payload.is_empty());
}

/// A client of its own.
fn other(n: u16) -> Peer {
    let [a, b] = n.to_be_bytes();
    Peer::new(([10, 0, a, b], 40000).into(), 0)
}

/// More comes than can be answered: from so many addresses, once each.
fn press(w: &mut World, from: std::ops::Range<u16>) -> Vec<Job> {
    w.server.press(w.now);
    let jobs = from.filter_map(|n| w.feed(other(n), &get(n, "f"))).collect();
    w.heard();
    jobs
}

#[test]
fn while_it_is_crowded_addresses_that_were_never_heard_share_one_part_and_non_confirmable_ones_get_no_answer() {
    let mut w = World::new(Config::default());
    let jobs = press(&mut w, 0..1000);
    // The first one was alone.
    assert!((2..=5).contains(&jobs.len()), "{}", jobs.len());
    assert!(jobs.iter().skip(1).all(|job| job.client() == Some(Client::STRANGERS)));
    for n in 0..1000 {
        assert!(w.feed(other(n), &request(Kind::Non, Code::GET, n, "f", &[], b"")).is_none());
        assert!(w.feed(other(n), b"\x40\x00\x12\x34").is_none());
    }
    assert!(w.heard().is_empty());
    w.now += 10_000;
    assert!(w.feed(other(7), &get(9, "f")).is_some_and(|job| job.client() == Some(other(7).client())));
}

#[test]
fn while_it_is_crowded_who_proves_its_address_is_served() {
    let mut w = World::new(Config::default());
    press(&mut w, 0..1000);
    // A client sends it again until it is answered; hardly any answer is longer than three times what was asked.
    let challenge = (0..100).find_map(|id| {
        let question = get(2000 + id, "f");
        assert!(w.feed(other(5000), &question).is_none());
        let sent = w.sent.0.pop()?.1;
        assert!(sent.len() <= 3 * question.len(), "{} for {}", sent.len(), question.len());
        Some(Heard::read(&sent))
    });
    let challenge = challenge.expect("one of four is asked");
    assert_eq!((challenge.kind, challenge.code), (Kind::Ack, Code::UNAUTHORIZED));
    let value = &challenge.options[0].1;
    let with = |id, value: &[u8]| request(Kind::Con, Code::GET, id, "f", &[(option::ECHO, value)], b"");
    assert!(w.feed(other(5001), &with(1, value)).is_none(), "another's");
    let job = w.feed(other(5000), &with(2, value)).expect("it is let in");
    assert_eq!(job.client(), Some(other(5000).client()));
    for id in 3..20 {
        w.now += 100;
        press(&mut w, 0..100);
        assert!(w.feed(other(5000), &get(id, "f")).is_some(), "and from here on without it");
    }
}

#[test]
fn a_crowd_of_strangers_leaves_exchanges_to_others() {
    let mut w = World::new(Config { exchanges: 16, ..Config::default() });
    let mut jobs = Vec::new();
    for n in 0..1000 {
        w.now += 10;
        jobs.extend(w.feed(other(n), &get(n, "f")));
    }
    assert_eq!(jobs.len(), 12);
    let client = other(5000);
    w.server.crowd.prove(w.now, client.client());
    assert!(w.feed(client, &get(1, "f")).is_some());
}

#[test]
fn an_answer_that_nobody_acknowledges_makes_room_once_it_was_sent_again() {
    let mut w = World::new(Config { exchanges: 1, ..Config::default() });
    let job = w.job(&get(1, "f"));
    w.wait(500);
    w.heard();
    w.answer(&job, content(b"x"));
    assert_eq!(w.ask(&get(2, "f")).code, Code::UNAVAILABLE);
    w.wait(3_000);
    assert_eq!(w.heard().len(), 1, "it was sent again");
    w.job(&get(3, "f"));
    assert_eq!(w.server.unacknowledged(), 0);
}
