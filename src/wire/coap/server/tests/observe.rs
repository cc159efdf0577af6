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
fn a_change_runs_the_watch_at_once_and_one_of_another_function_does_not() {
    let (mut w, _) = observed();
    w.server.changed(w.now, "g");
    assert_eq!(w.wait(0).len(), 0);
    w.server.changed(w.now, "f");
    let jobs = w.wait(0);
    assert_eq!(jobs.len(), 1);
    assert_eq!(w.answer(&jobs[0], content(b"new")).text(), "new");
}

#[test]
fn a_change_while_the_watch_runs_runs_it_once_more() {
    let (mut w, _) = observed();
    w.server.changed(w.now, "f");
    let jobs = w.wait(0);
    (0..5).for_each(|_| w.server.changed(w.now, "f"));
    assert_eq!(w.wait(0).len(), 0, "one at a time");
    assert_eq!(w.answer(&jobs[0], content(b"1")).text(), "1");
    assert_eq!(w.wait(0).len(), 1);
}

/// RFC 7641 §4.5.1.
#[test]
fn a_thousand_changes_a_second_make_one_notification_in_three_seconds() {
    let mut w = World::new(Config::default());
    w.call(&observe(1, b""), b"0");
    let (mut told, mut state) = (Vec::new(), 0);
    let begun = w.now;
    while w.now < begun + 30_000 {
        state += 1;
        w.server.changed(w.now, "f");
        for job in w.wait(1) {
            w.server.answer(w.now, &job, content(state.to_string().as_bytes()), &mut w.sent);
            told.push(w.now - begun);
        }
        for heard in w.heard().iter().filter(|heard| heard.kind == Kind::Con) {
            w.say(&message::empty(Kind::Ack, heard.id));
        }
    }
    assert!((11..=13).contains(&told.len()), "{told:?}");
    assert!(told[..3].iter().all(|at| *at < 10), "the first ones at once: {told:?}");
    w.server.changed(w.now, "f");
    assert_eq!(w.wait(3_000).len(), 1, "what was changed last is told in the end");
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

/// The first confirmable notification, of state 5.
fn confirmable(w: &mut World) -> Heard {
    (1..=5).map(|i| run(w, i.to_string().as_bytes()).remove(0)).last().unwrap()
}

#[test]
fn the_newest_state_goes_when_the_one_under_way_is_acknowledged() {
    let (mut w, _) = observed();
    let con = confirmable(&mut w);
    // It is overdue after two seconds at the earliest.
    assert_eq!(run(&mut w, b"6"), []);
    assert_eq!(w.ask(&message::empty(Kind::Ack, con.id)).text(), "6");
}

/// RFC 7641 §4.5.2.
#[test]
fn the_newest_state_takes_the_place_of_an_older_one_that_would_be_sent_again() {
    let (mut w, _) = observed();
    let mut last = confirmable(&mut w);
    let mut sent = vec![w.now];
    for state in 6..200 {
        for job in w.wait(1_000) {
            w.server.answer(w.now, &job, content(state.to_string().as_bytes()), &mut w.sent);
        }
        for heard in w.heard() {
            assert_eq!((heard.kind, heard.id == last.id), (Kind::Con, false), "another message");
            assert!(heard.text().parse::<u32>().unwrap() + 1 >= state, "the newest state");
            assert!(heard.uint(option::OBSERVE) > last.uint(option::OBSERVE));
            last = heard;
            sent.push(w.now);
        }
        if w.server.observers.observers.is_empty() {
            break;
        }
    }
    // As often, and as far apart, as one message that is sent again (RFC 7252 §4.2).
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(sent.len(), 5, "{pauses:?}");
    assert!(pauses.windows(2).all(|pair| pair[1] + 1_000 >= 2 * pair[0] - 1_000), "{pauses:?}");
    assert!(w.server.observers.observers.is_empty(), "then it is given up");
}

#[test]
fn an_acknowledgement_of_a_newer_state_ends_the_transmission() {
    let (mut w, _) = observed();
    let con = confirmable(&mut w);
    let newer = (6..).find_map(|state| run(&mut w, state.to_string().as_bytes()).pop()).unwrap();
    assert_eq!(w.say(&message::empty(Kind::Ack, con.id)), [], "the older one is no longer under way");
    assert_eq!(w.server.unacknowledged(), 1);
    w.say(&message::empty(Kind::Ack, newer.id));
    assert_eq!(w.server.unacknowledged(), 0);
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
    w.say(&message::empty(Kind::Ack, heard.id));
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

/// RFC 7641 §4.2: notifications have the format of the first answer.
#[test]
fn notifications_keep_the_format_that_was_wanted() {
    let mut w = World::new(Config { observe_interval: 1_000, ..Config::default() });
    let wants_json = request(Kind::Con, Code::GET, 1, "f", &[(option::OBSERVE, b""), (option::ACCEPT, b"\x32")], b"");
    assert_eq!(w.call(&wants_json, b"0").uint(option::CONTENT_FORMAT), Some(50));
    assert_eq!(run(&mut w, b"0"), [], "nothing changed");
    let heard = run(&mut w, b"1");
    assert_eq!((heard[0].text(), heard[0].uint(option::CONTENT_FORMAT)), ("1", Some(50)));
}

#[test]
fn a_function_that_changes_its_format_ends_the_observation_with_4_06() {
    let json = |body: &[u8]| Answer { format: Some(50), format_is_default: false, ..content(body) };
    for accept in [&[(option::ACCEPT, &b""[..])][..], &[]] {
        let mut w = World::new(Config { observe_interval: 1_000, ..Config::default() });
        let options = [&[(option::OBSERVE, &b""[..])], accept].concat();
        w.call(&request(Kind::Con, Code::GET, 1, "f", &options, b""), b"0");
        let jobs = w.wait(1_000);
        let heard = w.answer(&jobs[0], json(b"{}"));
        assert_eq!((heard.code, heard.uint(option::OBSERVE)), (Code::NOT_ACCEPTABLE, None));
        assert_eq!(w.wait(10_000).len(), 0);
    }
}

#[test]
fn what_a_second_observer_is_told_first_the_others_hear_as_well() {
    let mut w = World::new(Config { observe_interval: 1_000, ..Config::default() });
    w.call(&observe(1, b""), b"a");
    let job = w.feed(peer(1), &observe(1, b"")).unwrap();
    w.server.answer(w.now, &job, content(b"b"), &mut w.sent);
    let heard: Vec<_> = w.sent.0.drain(..).map(|(to, bytes)| (to, Heard::read(&bytes))).collect();
    assert!(heard.iter().any(|(to, h)| *to == peer(0) && h.text() == "b"), "{heard:?}");
    assert_eq!((heard.len(), run(&mut w, b"b")), (2, vec![]));
    assert_eq!(run(&mut w, b"a").len(), 2, "neither is left with the old state");
}

/// RFC 7641 §3.6 and §4.5: the answer to the registration is a notification as well.
#[test]
fn an_observer_that_rejects_or_never_acknowledges_its_first_notification_is_forgotten() {
    let config = || Config { observe_interval: 1_000, ..Config::default() };
    let is_observed = |w: &World| w.server.is_observed();
    let mut w = World::new(config());
    let first = w.call(&request(Kind::Non, Code::GET, 1, "f", &[(option::OBSERVE, b"")], b""), b"0");
    w.say(&message::empty(Kind::Rst, first.id));
    assert!(!is_observed(&w), "a reset of a non-confirmable one");

    let separate = || {
        let mut w = World::new(config());
        let job = w.job(&observe(1, b""));
        w.wait(1_000);
        w.heard();
        let first = w.answer(&job, content(b"0"));
        assert_eq!((first.kind, first.uint(option::OBSERVE).is_some()), (Kind::Con, true));
        (w, first)
    };
    let (mut w, first) = separate();
    w.say(&message::empty(Kind::Rst, first.id));
    assert!(!is_observed(&w), "a reset of a confirmable one");

    let (mut w, _) = separate();
    for _ in 0..100 {
        for job in w.wait(1_000) {
            w.server.answer(w.now, &job, content(b"0"), &mut w.sent);
        }
    }
    assert!(!is_observed(&w), "it was given up");

    let (mut w, first) = separate();
    w.say(&message::empty(Kind::Ack, first.id));
    assert_eq!(run(&mut w, b"1")[0].text(), "1", "it was acknowledged");
}

#[test]
fn a_registration_that_is_renewed_and_fails_ends() {
    let (mut w, _) = observed();
    let job = w.job(&observe(2, b""));
    w.answer(&job, Answer::failure(Code::INTERNAL, Held::EMPTY));
    assert_eq!(w.wait(10_000).len(), 0);
}

#[test]
fn the_last_word_takes_the_place_of_the_notification_under_way_and_is_confirmable() {
    let (mut w, _) = observed();
    let old = confirmable(&mut w);
    let jobs = w.wait(1_000);
    let last = w.answer(&jobs[0], Answer::failure(Code::NOT_FOUND, Held::EMPTY));
    assert_eq!((last.kind, last.code), (Kind::Con, Code::NOT_FOUND));
    w.wait(100_000);
    let heard = w.heard();
    assert!(heard.len() == 4 && heard.iter().all(|h| h.id == last.id && h.id != old.id), "{heard:?}");
    assert_eq!(w.server.unacknowledged(), 0);
}

#[test]
fn what_is_observed_takes_a_bounded_part_of_the_memory_for_bodies() {
    let bounds = || Config { observe_interval: 1_000, observed: 3_000, ..Config::default() };
    let of = |id, query: &'static [u8]| {
        request(Kind::Con, Code::GET, id, "f", &[(option::OBSERVE, b""), (option::URI_QUERY, query)], b"")
    };
    let mut w = World::new(bounds());
    assert!(w.call(&of(1, b"a"), &[b'x'; 2_000]).uint(option::OBSERVE).is_some());
    let job = w.feed(peer(1), &of(1, b"b")).unwrap();
    assert_eq!(w.answer(&job, content(&[b'x'; 2_000])).uint(option::OBSERVE), None, "a plain answer");
    let job = w.feed(peer(1), &of(2, b"a")).unwrap();
    assert!(w.answer(&job, content(&[b'x'; 2_000])).uint(option::OBSERVE).is_some(), "the same state is there once");

    let mut w = World::new(bounds());
    w.call(&of(1, b"a"), b"0");
    assert_eq!(run(&mut w, &[b'x'; 3_000])[0].code, Code::CONTENT);
    let heard = run(&mut w, &[b'x'; 3_001]);
    assert_eq!((heard[0].code, heard[0].uint(option::MAX_AGE)), (Code::UNAVAILABLE, Some(5)));
    assert!(!w.server.is_observed());
}
