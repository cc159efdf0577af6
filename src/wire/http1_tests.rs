//! HTTP/1 heads as byte strings.

use super::*;

fn request(bytes: &[u8]) -> Request<'_> {
    parse_request(bytes).unwrap().unwrap()
}

fn refused(bytes: &[u8]) -> u16 {
    match parse_request(bytes) {
        Err(r) => r.status,
        Ok(parsed) => panic!("not refused: {parsed:?}"),
    }
}

#[test]
fn a_plain_request_is_read() {
    let r = request(b"POST /sieve?n=3 HTTP/1.1\r\nHost: board:8000\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello");
    assert_eq!((r.method, r.target, r.framing), ("POST", "/sieve?n=3", Framing::Length(5)));
    assert!(r.keep_alive && !r.expects_continue && !r.http10);
    assert_eq!(r.headers.as_lines(), b"Host: board:8000\r\nX-A: b\r\n");
    assert_eq!(r.len, 73);
}

#[test]
fn a_head_that_is_cut_is_waited_for() {
    let whole = b"GET /f HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
    for cut in 0..whole.len() {
        // A cut right between CR and LF is a head that goes on, not a lone CR.
        assert_eq!(parse_request(&whole[..cut]), Ok(None), "cut at {cut}");
    }
    assert!(parse_request(whole).unwrap().is_some());
}

#[test]
fn a_body_after_the_head_may_hold_anything() {
    let r = request(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\n\r\0\n");
    assert_eq!(r.framing, Framing::Length(4));
}

#[test]
fn hop_by_hop_fields_and_those_named_by_connection_stay_here() {
    let r = request(
        b"GET /f HTTP/1.1\r\nHost: h\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\n",
    );
    assert_eq!(r.headers.as_lines(), b"Host: h\r\nX-Kept: 1\r\n");
    assert!(!r.keep_alive);
}

#[test]
fn framing_that_two_parsers_could_read_differently_is_refused() {
    let with = |fields: &str| format!("POST /f HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n").into_bytes();
    assert_eq!(refused(&with("Content-Length: 5\r\nTransfer-Encoding: chunked")), 400);
    assert_eq!(refused(&with("Content-Length: 5\r\nContent-Length: 5")), 400);
    for length in ["+5", "-5", "5, 5", "0x5", "5 5", "", "18446744073709551616", "5;a"] {
        assert_eq!(refused(&with(&format!("Content-Length: {length}"))), 400, "{length:?}");
    }
    assert_eq!(refused(&with("Transfer-Encoding: gzip, chunked")), 501);
    assert_eq!(refused(&with("Transfer-Encoding: xchunked")), 501);
    assert_eq!(refused(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")), 400);
    assert_eq!(refused(&with("Transfer-Encoding : chunked")), 400);
    assert_eq!(refused(&with("A: b\r\n folded")), 400);
    assert_eq!(refused(b"POST /f HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn lone_line_ends_are_refused() {
    assert_eq!(refused(b"GET /f HTTP/1.1\nHost: h\n\n"), 400);
    assert_eq!(refused(b"GET /f HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n"), 400);
    assert_eq!(refused(b"GET /f HTTP/1.1\r\nHost: h\r\nA: b\nX: y\r\n\r\n"), 400);
}

#[test]
fn hosts_versions_targets_and_expectations_are_checked() {
    assert_eq!(refused(b"GET /f HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(refused(b"GET /f HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(refused(b"GET /f\r\n\r\n"), 400);
    assert_eq!(refused(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    assert_eq!(refused(b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    assert_eq!(refused(b"GET /f HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n"), 417);
    assert_eq!(refused(b"GET /f HTTP/1.1\r\nHost: h\r\nA: \0\r\n\r\n"), 400);
    let many = format!("GET /f HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS));
    assert_eq!(refused(many.as_bytes()), 431);
}

#[test]
fn the_absolute_form_is_the_same_as_the_origin_form() {
    assert_eq!(request(b"GET http://board:8000/f?x HTTP/1.1\r\nHost: board:8000\r\n\r\n").target, "/f?x");
    assert_eq!(request(b"GET HTTP://board HTTP/1.1\r\nHost: BOARD\r\n\r\n").target, "/");
    assert_eq!(request(b"GET http://[::1]:80?x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").target, "?x");
    assert_eq!(request(b"GET http://board/f HTTP/1.0\r\n\r\n").target, "/f");
    for target in
        ["http:///f", "http://other/f", "http://h:80/f", "http://u@h/f", "https://h/f", "h/f", "//h#/f", "/f#g"]
    {
        assert_eq!(refused(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()), 400, "{target}");
    }
    assert_eq!(refused(b"GET http://u@h/f HTTP/1.0\r\n\r\n"), 400);
}

#[test]
fn a_host_field_holds_one_host() {
    let with = |host: &str| format!("GET /f HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    for host in
        ["", "h", "h:", "h:80", "my_board.local", "192.0.2.1:8000", "[::1]", "[2001:db8::1]:80", "[::ffff:1.2.3.4]"]
    {
        assert_eq!(request(&with(host)).headers.get("host"), Some(host.as_bytes()));
    }
    for host in [
        "a b", "a,b", "a, b", "a/b", "u@h", "h:80a", "h:-1", "h:80:80", "::1", "[::1", "[]", "[::1]x", "[g]", "h?",
        "ä", "h\t\"x\"",
    ] {
        assert_eq!(refused(&with(host)), 400, "{host}");
    }
    assert_eq!(refused(b"GET /f HTTP/1.0\r\nHost: a b\r\n\r\n"), 400);
}

#[test]
fn http10_closes_unless_asked_to_stay() {
    assert!(!request(b"GET /f HTTP/1.0\r\n\r\n").keep_alive);
    assert!(request(b"GET /f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
    assert!(!request(b"GET /f HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue);
}

#[test]
fn a_response_says_where_its_body_ends() {
    let r = |b: &[u8]| parse_response(b, false).unwrap().unwrap();
    assert_eq!(r(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").framing, Framing::Length(3));
    assert_eq!(r(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").framing, Framing::Chunked);
    let until_close = r(b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!((until_close.framing, until_close.keep_alive), (Framing::UntilClose, false));
    assert_eq!(r(b"HTTP/1.1 204 No Content\r\n\r\n").framing, Framing::Length(0));
    assert_eq!(r(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").framing, Framing::Length(0));
    assert!(!r(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n").keep_alive);
    assert_eq!(parse_response(b"HTTP/1.1 200 OK\r\nContent-Le", false), Ok(None));
    assert!(
        parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false).is_err()
    );
    assert!(parse_response(b"HTTP/1.1 999 Odd\r\n\r\n", false).is_err());
    assert!(parse_response(b"\x16\x03\x01\x02\x00", false).is_err());
}

#[test]
fn heads_are_written_as_the_rfc_has_them() {
    let mut headers = Headers::new();
    headers.push("content-type", b"text/plain").unwrap();
    let write = |status, framing, keep_alive, http10| {
        let mut out = Vec::new();
        ResponseHead { status, headers: &headers, framing, keep_alive, http10, call: None }.write(&mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        write(200, Framing::Length(2), true, false),
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n"
    );
    assert_eq!(
        write(502, Framing::Chunked, false, false),
        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    assert!(write(200, Framing::Length(0), true, true).contains("connection: keep-alive\r\n"));
    for status in [204, 304] {
        assert!(!write(status, Framing::Length(0), true, false).contains("content-length"), "{status}");
    }
}

#[test]
fn an_invocation_carries_the_callers_fields() {
    let mut headers = Headers::new();
    headers.push("X-A", b"b").unwrap();
    headers.push("x-tinyfaas-METHOD", b"forged").unwrap();
    let mut out = Vec::new();
    write_invocation(
        &mut out,
        &headers,
        &[("X-Tinyfaas-Method", b"GET"), ("X-Tinyfaas-Path", b""), ("X-Tinyfaas-Query", b"a\r\nb: c")],
        Framing::Length(0),
    );
    assert_eq!(
        out,
        b"POST /fn HTTP/1.1\r\nhost: tinyfaas\r\nX-A: b\r\nX-Tinyfaas-Method: GET\r\nX-Tinyfaas-Query: a%0D%0Ab:%20c\r\ncontent-length: 0\r\n\r\n"
    );
}

#[test]
fn percent_escapes_are_decoded_or_refused() {
    assert_eq!(percent_decode("a%2Fb%c3%a9").as_deref(), Some("a/b\u{e9}"));
    for broken in ["%", "%2", "%zz", "%ff"] {
        assert_eq!(percent_decode(broken), None, "{broken}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut seed = fastrand::Rng::with_seed(7);
    let alphabet = b"GET POST/f HTTP/1.1\r\nHost:Content-Length chunked Transfer-Encoding0123\0\xff";
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..seed.usize(..200)).map(|_| alphabet[seed.usize(..alphabet.len())]).collect();
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes, seed.bool());
    }
}
