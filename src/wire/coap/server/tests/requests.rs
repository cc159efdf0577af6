//! RFC 7252 §5: options, methods, discovery; No-Response; calls that nobody waits for; groups.

use super::*;

fn post(id: u16, more: &[(u16, &[u8])], payload: &[u8]) -> Vec<u8> {
    request(Kind::Con, Code::POST, id, "f", more, payload)
}

#[test]
fn a_call_holds_method_path_query_options_and_body() {
    let mut w = World::new(Config::default());
    let more: &[(u16, &[u8])] =
        &[(option::URI_QUERY, b"a=1"), (option::URI_QUERY, b"b"), (option::CONTENT_FORMAT, b"\x32")];
    let job = w.job(&request(Kind::Con, Code::PUT, 1, "f/x/y", more, b"\xff\0body"));
    let task = &job.task;
    assert_eq!((task.method, &*task.name, &*task.path, &*task.query), (Code::PUT, "f", "/x/y", "a=1&b"));
    assert_eq!(task.body.as_bytes(), b"\xff\0body");
    assert_eq!(task.headers.get("coap-content-format"), Some(&b"50"[..]));
}

#[test]
fn every_method_reaches_the_function_and_an_unknown_one_does_not() {
    let mut w = World::new(Config::default());
    for code in 1..=7 {
        assert_eq!(w.job(&request(Kind::Con, Code(code), code.into(), "f", &[], b"")).task.method, Code(code));
    }
    for code in [8, 31] {
        assert_eq!(w.ask(&request(Kind::Con, Code(code), 99, "f", &[], b"")).code, Code::METHOD_NOT_ALLOWED);
    }
}

#[test]
fn an_unknown_name_is_4_04_and_an_unknown_critical_option_4_02() {
    let mut w = World::new(Config::default());
    assert_eq!(w.ask(&get(1, "nosuch")).code, Code::NOT_FOUND);
    assert_eq!(w.ask(&get(2, "")).code, Code::NOT_FOUND);
    let heard = w.ask(&post(3, &[(9, b"oscore")], b""));
    assert_eq!(
        (heard.code, heard.text()),
        (Code::BAD_OPTION, "option 9 is unknown, repeated or has a value that it may not have")
    );
    assert_eq!(w.say(&request(Kind::Non, Code::POST, 4, "f", &[(9, b"")], b"")), [], "rejected in silence");
    w.job(&post(5, &[(2048, b"elective")], b""));
}

#[test]
fn a_proxy_is_not_to_be_had() {
    let mut w = World::new(Config::default());
    assert_eq!(w.ask(&post(1, &[(option::PROXY_URI, b"coap://x/f")], b"")).code, Code::PROXYING_NOT_SUPPORTED);
    assert_eq!(w.ask(&post(2, &[(option::PROXY_SCHEME, b"http")], b"")).code, Code::PROXYING_NOT_SUPPORTED);
}

#[test]
fn what_a_function_says_of_its_answer_leaves_as_options() {
    let mut w = World::new(Config::default());
    let job = w.job(&post(1, &[], b""));
    let etag = Etag::new(b"v1");
    let answer = Answer { code: Code::CHANGED, format: Some(60), max_age: Some(5), etag, ..content(b"cbor") };
    let heard = w.answer(&job, answer);
    assert_eq!(heard.code, Code::CHANGED);
    assert_eq!(
        heard.options,
        [(option::ETAG, b"v1".to_vec()), (option::CONTENT_FORMAT, vec![60]), (option::MAX_AGE, vec![5])]
    );
}

#[test]
fn what_was_created_is_told_by_its_path_and_query() {
    let mut w = World::new(Config::default());
    let job = w.job(&post(1, &[], b""));
    let answer = Answer { code: Code::CREATED, location: Location::parse("/f/17?x=1"), ..content(b"") };
    let heard = w.answer(&job, answer);
    assert_eq!(heard.code, Code::CREATED);
    assert_eq!(
        heard.options,
        [
            (option::LOCATION_PATH, b"f".to_vec()),
            (option::LOCATION_PATH, b"17".to_vec()),
            (option::CONTENT_FORMAT, vec![]),
            (option::LOCATION_QUERY, b"x=1".to_vec())
        ]
    );
    let job = w.job(&post(2, &[], b""));
    let answer = Answer { location: Location::parse("/f/17"), ..Answer::failure(Code::INTERNAL, Held::EMPTY) };
    assert_eq!(w.answer(&job, answer).options, [], "nothing was created");
}

#[test]
fn a_client_that_holds_the_same_version_hears_2_03() {
    let mut w = World::new(Config::default());
    let job = w.job(&request(Kind::Con, Code::GET, 1, "f", &[(option::ETAG, b"v1")], b""));
    let heard = w.answer(&job, Answer { etag: Etag::new(b"v1"), ..content(b"long body") });
    assert_eq!((heard.code, heard.text()), (Code::VALID, ""));
    // What a POST did is no version of what the client holds (RFC 7252 §5.10.6.2).
    let job = w.job(&post(2, &[(option::ETAG, b"v1")], b""));
    let heard = w.answer(&job, Answer { etag: Etag::new(b"v1"), ..content(b"done") });
    assert_eq!((heard.code, heard.text()), (Code::CONTENT, "done"));
}

#[test]
fn the_accept_option_is_kept_or_4_06() {
    let mut w = World::new(Config::default());
    let job = w.job(&post(1, &[(option::ACCEPT, b"\x32")], b""));
    assert_eq!(w.answer(&job, content(b"{}")).uint(option::CONTENT_FORMAT), Some(50), "nothing was said of it");
    let job = w.job(&post(2, &[(option::ACCEPT, b"\x32")], b""));
    let answer = Answer { format: Some(60), format_is_default: false, ..content(b"x") };
    assert_eq!(w.answer(&job, answer).code, Code::NOT_ACCEPTABLE);
}

#[test]
fn discovery_lists_filters_and_cuts_into_blocks() {
    let mut w = World::new(Config::default());
    let heard = w.ask(&get(1, ".well-known/core"));
    assert_eq!((heard.code, heard.uint(option::CONTENT_FORMAT)), (Code::CONTENT, Some(40)));
    assert_eq!(heard.text().split(',').count(), 3);
    assert!(heard.text().starts_with("</echo>;rt=\"tinyfaas.function\";ct=0;title=\"echo\""), "{}", heard.text());
    let filter: &[(u16, &[u8])] = &[(option::URI_QUERY, b"href=/g")];
    assert!(w.ask(&request(Kind::Con, Code::GET, 2, ".well-known/core", filter, b"")).text().starts_with("</g>"));
    let (mut all, mut number) = (String::new(), 0u8);
    loop {
        let heard =
            w.ask(&request(Kind::Con, Code::GET, 10, ".well-known/core", &[(option::BLOCK2, &[number << 4 | 1])], b""));
        all.push_str(heard.text());
        let (n, more, szx) = heard.block(option::BLOCK2).unwrap();
        assert_eq!((n, szx), (number.into(), 1));
        assert!(heard.options[0].0 == option::ETAG);
        number += 1;
        if !more {
            break;
        }
    }
    assert_eq!(all, heard.text());
    assert_eq!(w.ask(&request(Kind::Con, Code::POST, 3, ".well-known/core", &[], b"")).code, Code::METHOD_NOT_ALLOWED);
    let accept: &[(u16, &[u8])] = &[(option::ACCEPT, b"")];
    assert_eq!(w.ask(&request(Kind::Con, Code::GET, 4, ".well-known/core", accept, b"")).code, Code::NOT_ACCEPTABLE);
}

#[test]
fn answers_that_the_client_does_not_want_stay_away() {
    let mut w = World::new(Config::default());
    let no: &[(u16, &[u8])] = &[(option::NO_RESPONSE, b"\x02")];
    let ack = w.call(&post(1, no, b""), b"result");
    assert_eq!((ack.kind, ack.code), (Kind::Ack, Code::EMPTY), "the message is acknowledged all the same");
    assert_eq!(w.ask(&post(1, no, b"")), ack, "and so is a repeated one");
    let bytes = request(Kind::Non, Code::POST, 2, "f", no, b"");
    let job = w.job(&bytes);
    w.server.answer(w.now, &job, content(b"result"), &mut w.sent);
    assert_eq!(w.heard(), []);
    assert_eq!(w.say(&bytes), []);
    let job = w.job(&post(3, no, b""));
    assert_eq!(w.answer(&job, Answer::failure(Code::INTERNAL, Held::EMPTY)).code, Code::INTERNAL);
    assert_eq!(w.say(&request(Kind::Non, Code::GET, 4, "nosuch", &[(option::NO_RESPONSE, b"\x1a")], b"")), []);
}

#[test]
fn an_async_call_is_answered_2_01_at_once_and_runs_once() {
    let mut w = World::new(Config::default());
    let bytes = post(1, &[(option::URI_QUERY, b"async")], b"x");
    let job = w.job(&bytes);
    let heard = w.heard();
    assert_eq!((heard.len(), heard[0].kind, heard[0].code), (1, Kind::Ack, Code::CREATED));
    assert_eq!(w.ask(&bytes), heard[0]);
    w.server.answer(w.now, &job, content(b"result"), &mut w.sent);
    assert_eq!(w.heard(), []);
}

#[test]
fn a_group_hears_what_was_found_after_a_while_and_no_errors() {
    let mut w = World::new(Config::default());
    let feed = |w: &mut World, bytes: &[u8]| {
        let job = w.server.receive(w.now, &Datagram { from: peer(0), group: true, bytes }, &Three, &mut w.sent);
        assert!(job.is_none());
        w.heard()
    };
    let discover = request(Kind::Non, Code::GET, 1, ".well-known/core", &[], b"");
    assert_eq!(feed(&mut w, &discover), []);
    w.wait(5_000);
    let heard = w.heard();
    assert_eq!((heard.len(), heard[0].kind, heard[0].code), (1, Kind::Non, Code::CONTENT));
    let nothing: &[(u16, &[u8])] = &[(option::URI_QUERY, b"rt=temperature")];
    for bytes in [
        request(Kind::Non, Code::GET, 2, ".well-known/core", nothing, b""),
        request(Kind::Non, Code::GET, 3, "nosuch", &[], b""),
        request(Kind::Non, Code::GET, 4, "f", &[], b""),
        request(Kind::Con, Code::GET, 5, ".well-known/core", &[], b""),
        b"\x40\x00\x12\x34".to_vec(),
        b"\x40\x01\x12\x34\xff".to_vec(),
    ] {
        assert_eq!(feed(&mut w, &bytes), []);
        w.wait(10_000);
        assert_eq!(w.heard(), []);
    }
}
