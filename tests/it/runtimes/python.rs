//! What is Python's own: what `fn` is given, what it may return.

use super::*;

#[test]
fn python_gives_none_for_an_empty_body_and_headers_to_who_takes_them() {
    let text = "def fn(input, headers):\n    print('called')\n    return repr((input, headers.get('x-one'), headers['X-ONE'], 'x-two' in headers, isinstance(headers, dict), headers.get('X-Tinyfaas-Query')))\n";
    let handler = Handler::start(Runtime::PYTHON3, &[("fn.py", text)]);
    let reply = handler.connect().call("X-One: 1\r\nX-Tinyfaas-Query: a=b\r\n", b"");
    assert_eq!(reply.text(), "(None, '1', '1', False, True, 'a=b')");
    assert!(handler.log().contains("called\n"), "print reaches the log at once");
}

#[test]
fn python_returns_text_bytes_nothing_or_a_status_with_headers() {
    let text = "import decorated\n@decorated.twice\ndef fn(input):\n    return eval(input)\n";
    let decorated =
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n    return g\n";
    let handler = Handler::start(Runtime::PYTHON3, &[("fn.py", text), (".deps/decorated.py", decorated)]);
    let call = |text: &str| handler.call(text.as_bytes());
    assert_eq!(call("'grün'").text(), "grün");
    assert!(call("'a'").head.contains("content-type: text/plain; charset=utf-8"));
    assert_eq!(call("b'\\xff'").body, b"\xff");
    assert_eq!((call("None").status, call("None").body), (200, vec![]));
    assert_eq!((call("('a', 404)").status, call("('a', 404)").text()), (404, "a".into()));
    let full = call("('{}', 201, {'Content-Type': 'application/json', 'X-A': 1, 'Content-Length': 9})");
    assert_eq!((full.status, full.text().as_str()), (201, "{}"));
    assert!(full.head.contains("content-type: application/json\nx-a: 1\n"), "{full:?}");
    for wrong in ["{}", "('a', 99)", "('a', 200, {'A': 'b\\r\\nc: d'})", "('a',)", "exit(3)", "[].x"] {
        assert_eq!(call(wrong).status, 500, "{wrong}");
    }
    assert_eq!(call("'fine'").text(), "fine");
}

#[test]
fn python_bodies_that_are_not_utf8_survive() {
    let handler = Handler::start(Runtime::PYTHON3, &[("fn.py", "def fn(input): return input\n")]);
    assert_eq!(handler.call(b"a\xff\xfe\x80b").body, b"a\xff\xfe\x80b");
}

#[test]
fn python_works_on_as_many_calls_at_once_as_it_may() {
    // Each call waits until all four are there: fewer threads would never answer.
    let text = "import threading\nall = threading.Barrier(4)\ndef fn(input):\n    all.wait(60)\n    return 'met'\n";
    let mut handler = Handler::spawn(Runtime::PYTHON3, &[("fn.py", text)], &[("TINYFAAS_CONCURRENCY", "4")]);
    handler.wait_for("the handler listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(handler.call(b"x").text(), "met"));
        }
    });
}

#[test]
fn python_says_what_may_be_returned() {
    let handler = Handler::start(Runtime::PYTHON3, &[("fn.py", "def fn(input): return 3\n")]);
    let reply = handler.call(b"");
    let expected = "TypeError: fn returned int: return str, bytes, None or a tuple (body, status, headers)";
    assert_eq!((reply.status, reply.text().as_str()), (500, expected));
}
