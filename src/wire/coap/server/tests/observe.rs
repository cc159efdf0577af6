//! RFC 7641.

use super::*;

fn observe(id: u16, value: &[u8]) -> Vec<u8> {
    request(Kind::Con, Code::GET, id, "f", &[(option::OBSERVE, value)], b"")
}

/// A world with one observer, and the interval at one second.
fn observed() -> (World, Heard) {
    let mut w = World::new(Config { observe_interval: 1_000, ..Config::default() });
    let first = w.call(&observe(1, b""), b"0");
    (w, first)
}

/// Lets one interval pass and answers the watch's job.
fn run(w: &mut World, body: &[u8]) -> Vec<Heard> {
    let jobs = w.wait(1_000);
    assert_eq!(jobs.len(), 1);
    w.server.answer(w.now, &jobs[0], content(body), &mut w.sent);
    w.heard()
}

#[test]
fn an_observer_hears_of_changes_in_order_and_of_nothing_else() {
    let (mut w, first) = observed();
    let mut last = first.uint(option::OBSERVE).unwrap();
    assert_eq!(run(&mut w, b"0"), []);
    for body in ["1", "2"] {
        let heard = run(&mut w, body.as_bytes());
        assert_eq!((heard.len(), heard[0].text(), &heard[0].token[..]), (1, body, &b"tok"[..]));
        let sequence = heard[0].uint(option::OBSERVE).unwrap();
        assert!(sequence > last);
        last = sequence;
    }
}

#[test]
fn a_successful_post_runs_the_watch_at_once() {
    let (mut w, _) = observed();
    let put = request(Kind::Con, Code::POST, 2, "f", &[], b"new");
    w.call(&put, b"ok");
    let jobs = w.wait(0);
    assert_eq!(jobs.len(), 1);
    assert_eq!(w.answer(&jobs[0], content(b"new")).text(), "new");
    let job = w.job(&request(Kind::Con, Code::POST, 3, "f", &[], b"new"));
    w.answer(&job, Answer::failure(Code::INTERNAL, Held::EMPTY));
    assert_eq!(w.wait(0).len(), 0, "a failed one does not");
}

#[test]
fn the_same_state_is_told_again_before_it_grows_old() {
    let (mut w, _) = observed();
    let told: Vec<usize> = (1..=60).filter(|_| !run(&mut w, b"0").is_empty()).collect();
    assert_eq!(told, [59]);
}

#[test]
fn one_notification_in_five_is_confirmable_and_an_observer_that_is_gone_is_forgotten() {
    let (mut w, _) = observed();
    let kinds: Vec<Kind> = (1..=5).map(|i| run(&mut w, i.to_string().as_bytes())[0].kind).collect();
    assert_eq!(kinds, [Kind::Non, Kind::Non, Kind::Non, Kind::Non, Kind::Con]);
    // It is never acknowledged.
    let mut runs = 0;
    for _ in 0..93 {
        for job in w.wait(1_000) {
            runs += 1;
            w.server.answer(w.now, &job, content(b"5"), &mut w.sent);
        }
    }
    assert!(runs > 40);
    w.heard();
    assert_eq!((w.wait(100_000).len(), w.heard()), (0, vec![]));
    assert!(w.server.observers.observers.is_empty() && w.server.observers.watches.is_empty());
}

#[test]
fn while_one_is_under_way_the_newest_state_waits_for_its_acknowledgement() {
    let (mut w, _) = observed();
    let con = (1..=5).map(|i| run(&mut w, i.to_string().as_bytes()).remove(0)).last().unwrap();
    for body in ["6", "7"] {
        assert!(run(&mut w, body.as_bytes()).iter().all(|again| *again == con));
    }
    let heard = w.ask(&message::empty(Kind::Ack, con.id));
    assert_eq!(heard.text(), "7");
}

#[test]
fn a_reset_or_a_get_with_1_ends_it() {
    let (mut w, _) = observed();
    let heard = run(&mut w, b"1");
    w.say(&message::empty(Kind::Rst, heard[0].id));
    assert_eq!(w.wait(10_000).len(), 0);
    let (mut w, _) = observed();
    assert_eq!(w.call(&observe(2, b"\x01"), b"0").uint(option::OBSERVE), None);
    assert_eq!(w.wait(10_000).len(), 0);
}

#[test]
fn an_error_is_the_last_notification() {
    let (mut w, _) = observed();
    let jobs = w.wait(1_000);
    let heard = w.answer(&jobs[0], Answer::failure(Code::INTERNAL, Held::EMPTY));
    assert_eq!((heard.code, heard.uint(option::OBSERVE)), (Code::INTERNAL, None));
    assert_eq!(w.wait(10_000).len(), 0);
    let job = w.job(&observe(2, b""));
    let heard = w.answer(&job, Answer::failure(Code::INTERNAL, Held::EMPTY));
    assert_eq!(heard.uint(option::OBSERVE), None);
    assert_eq!(w.wait(10_000).len(), 0, "nor does one begin");
}

#[test]
fn observers_of_the_same_share_one_run_and_their_number_is_bounded() {
    let mut w = World::new(Config { observe_interval: 1_000, observers: 3, ..Config::default() });
    for n in 0..4 {
        let job = w.feed(peer(n), &observe(1, b"")).unwrap();
        let heard = w.answer(&job, content(b"0"));
        assert_eq!(heard.uint(option::OBSERVE).is_some(), n < 3);
    }
    assert_eq!(run(&mut w, b"1").len(), 3);
    // The same client again takes its own place.
    let job = w.job(&observe(2, b""));
    assert!(w.answer(&job, content(b"1")).uint(option::OBSERVE).is_some());
}

#[test]
fn a_long_notification_is_fetched_in_blocks() {
    let (mut w, _) = observed();
    let body = [b'x'; 1500];
    let heard = run(&mut w, &body);
    assert_eq!(heard[0].block(option::BLOCK2), Some((0, true, 6)));
    let rest = w.ask(&request(Kind::Con, Code::GET, 3, "f", &[(option::BLOCK2, b"\x16")], b""));
    assert_eq!((rest.payload.len(), rest.uint(option::OBSERVE)), (476, None));
}
