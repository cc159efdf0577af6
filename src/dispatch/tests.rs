//! The dispatcher against handlers that a test scripts byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use futures_lite::future;

use super::*;
use crate::call::{Body, BodyStream, Method, Protocol};
use crate::call_id::CallId;
use crate::function::Limits;
use crate::net::Address;
use crate::reactor::block_on;
use crate::wire::headers::Headers;

/// A handler that a test scripts: one thread a connection, which runs `script` until it returns false.
struct Fake {
    path: PathBuf,
}

impl Fake {
    fn new(tag: &str, script: impl Fn(&mut BufReader<UnixStream>) -> bool + Send + Sync + 'static) -> Self {
        let path = std::env::temp_dir().join(format!("tinyfaas-test-{}-{tag}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while script(&mut stream) {}
                });
            }
        });
        Self { path }
    }

    fn function(&self, limits: Limits) -> Arc<Function> {
        let function = Function::new(Name::parse("f").unwrap(), limits);
        function.add(Arc::new(Handler::new("h1".into(), Address::Unix(self.path.clone()))));
        Arc::new(function)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn limits() -> Limits {
    Limits { memory: 0, cpu_millis: 0, pids: 0, timeout: Duration::from_secs(20), concurrency: 2, queue: 2 }
}

/// Reads a head; `None` at the end of the connection.
fn head(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(head)
}

fn length(head: &str) -> usize {
    head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap())
}

/// Answers with the request's head and body.
fn mirror(stream: &mut BufReader<UnixStream>) -> bool {
    let Some(head) = head(stream) else { return false };
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body).unwrap();
    let answer = [head.as_bytes(), &body].concat();
    let out = stream.get_mut();
    write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-seen: yes\r\n\r\n", answer.len()).unwrap();
    out.write_all(&answer).unwrap();
    true
}

fn call<'a>(headers: &'a Headers, body: Body<'a>) -> Call<'a> {
    static ID: LazyLock<CallId> = LazyLock::new(|| CallId::of(Some(b"some-id")));
    Call {
        id: &ID,
        function: "f",
        method: Method::Get,
        path: "/deep",
        query: "a=b",
        headers,
        body,
        token: None,
        deadline: None,
        protocol: Protocol::Http,
        client: None,
    }
}

async fn collect(mut reply: Reply<'_>) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        match reply.chunk().await? {
            [] => return Ok(body),
            piece => body.extend_from_slice(piece),
        }
    }
}

fn kind(result: Result<Reply<'_>, Failure>) -> FailureKind {
    result.map(|_| ()).unwrap_err().kind
}

#[test]
fn a_call_reaches_the_handler_with_its_headers_and_the_reply_comes_back() {
    let fake = Fake::new("mirror", mirror);
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(fake.function(limits()));
    let mut headers = Headers::new();
    headers.push("X-A", b"b").unwrap();
    block_on(async {
        let reply = dispatch.call(call(&headers, Body::Bytes(b"hello"))).await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers.get("x-seen"), Some(&b"yes"[..]));
        let body = String::from_utf8(collect(reply).await.unwrap()).unwrap();
        assert!(body.starts_with("POST /fn HTTP/1.1\r\n"), "{body}");
        for line in [
            "X-A: b",
            "X-Call-Id: some-id",
            "X-Tinyfaas-Method: GET",
            "X-Tinyfaas-Path: /deep",
            "X-Tinyfaas-Query: a=b",
        ] {
            assert!(body.contains(&format!("\r\n{line}\r\n")), "{line} in {body}");
        }
        assert!(body.ends_with("\r\n\r\nhello"));
    });
    assert_eq!(dispatch.function("f").unwrap().in_flight(), 0);
}

#[test]
fn connections_are_kept_and_a_closed_one_is_not_used_again() {
    let (accepted, count) = mpsc::channel();
    let fake = Fake::new("keep", move |stream| {
        accepted.send(()).unwrap();
        // Three calls a connection, then it is closed without a word.
        let _ = (0..3).all(|_| mirror(stream));
        false
    });
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(fake.function(limits()));
    let headers = Headers::new();
    block_on(async {
        for n in 1..=9 {
            collect(dispatch.call(call(&headers, Body::Bytes(b""))).await.unwrap()).await.unwrap();
            // The close after each third call is ours to see only when the fake's thread came to it.
            let handler = Arc::clone(&dispatch.function("f").unwrap().snapshot()[0]);
            let mut open = if n % 3 == 0 { handler.idle_connection() } else { None };
            while let Some(stream) = open {
                handler.keep(stream, 1);
                Timer::after(Duration::from_millis(1)).await;
                open = handler.idle_connection();
            }
        }
    });
    assert_eq!(count.try_iter().count(), 3);
}

#[test]
fn an_unknown_function_and_a_stopping_runtime_are_told_apart() {
    let dispatch = Dispatch::new(Buffers::default());
    let headers = Headers::new();
    block_on(async {
        assert_eq!(kind(dispatch.call(call(&headers, Body::Bytes(b""))).await), FailureKind::UnknownFunction);
        dispatch.stop();
        assert_eq!(kind(dispatch.call(call(&headers, Body::Bytes(b""))).await), FailureKind::Unavailable);
    });
}

#[test]
fn a_call_beyond_concurrency_and_queue_is_refused_at_once() {
    let fake = Fake::new("queue", |stream| head(stream).is_some());
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(fake.function(limits()));
    let headers = Headers::new();
    block_on(async {
        let hang = || Box::pin(dispatch.call(call(&headers, Body::Bytes(b""))));
        let mut hanging = [hang(), hang(), hang(), hang()];
        for waits in &mut hanging {
            assert!(future::poll_once(waits).await.is_none());
        }
        let function = dispatch.function("f").unwrap();
        assert_eq!((function.in_flight(), function.waiting()), (2, 2));
        assert_eq!(kind(dispatch.call(call(&headers, Body::Bytes(b""))).await), FailureKind::QueueFull);
        drop(hanging);
        assert_eq!((function.in_flight(), function.waiting()), (0, 0));
    });
}

#[test]
fn the_deadline_ends_waiting_for_a_place_and_for_an_answer() {
    let fake = Fake::new("late", |stream| head(stream).is_some());
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(fake.function(Limits { timeout: Duration::from_millis(50), concurrency: 1, ..limits() }));
    let headers = Headers::new();
    block_on(async {
        let first = dispatch.call(call(&headers, Body::Bytes(b"")));
        let second = dispatch.call(call(&headers, Body::Bytes(b"")));
        let (first, second) = future::zip(first, second).await;
        assert_eq!((kind(first), kind(second)), (FailureKind::TooLate, FailureKind::TooLate));
    });
}

#[test]
fn a_function_that_is_installed_again_goes_on_taking_calls() {
    let fake = Fake::new("again", mirror);
    let dispatch = Dispatch::new(Buffers::default());
    let function = fake.function(limits());
    dispatch.install(Arc::clone(&function));
    dispatch.install(function);
    let headers = Headers::new();
    block_on(async { dispatch.call(call(&headers, Body::Bytes(b"x"))).await.map(drop) }).unwrap();
}

/// More interim responses than anybody needs, and then a whole one.
const INTERIM: &[u8] = concat!(
    "HTTP/1.1 100 A\r\n\r\nHTTP/1.1 100 B\r\n\r\nHTTP/1.1 100 C\r\n\r\n",
    "HTTP/1.1 103 D\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 103 F\r\n\r\n",
    "HTTP/1.1 103 G\r\n\r\nHTTP/1.1 103 H\r\n\r\nHTTP/1.1 103 I\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
)
.as_bytes();

#[test]
fn a_handler_that_breaks_is_one_failure_with_a_reason() {
    let broken: [(&str, &[u8]); 7] = [
        ("b1", b""),
        ("b2", b"HTTP/1.1 200 OK\r\ncontent-le"),
        ("b3", b"rubbish\r\n\r\n"),
        ("b4", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
        ("b5", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("b6", b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("b7", INTERIM),
    ];
    for (tag, answer) in broken {
        let fake = Fake::new(tag, move |stream| {
            head(stream);
            let _ = stream.get_mut().write_all(answer);
            false
        });
        let dispatch = Dispatch::new(Buffers::default());
        dispatch.install(fake.function(limits()));
        let headers = Headers::new();
        let failure = block_on(async {
            match dispatch.call(call(&headers, Body::Bytes(b""))).await {
                Ok(reply) => collect(reply).await.unwrap_err(),
                Err(failure) => failure,
            }
        });
        assert_eq!(failure.kind, FailureKind::HandlerBroke, "{tag}: {failure}");
        assert_eq!(dispatch.function("f").unwrap().in_flight(), 0);
    }
}

#[test]
fn a_handler_where_nobody_listens_is_passed_over_and_reported() {
    let fake = Fake::new("alive", mirror);
    let dispatch = Dispatch::new(Buffers::default());
    let function = fake.function(limits());
    let gone = Arc::new(Handler::new("gone".into(), Address::Unix("/nonexistent/socket".into())));
    function.drop_handler("h1");
    function.add(Arc::clone(&gone));
    function.add(Arc::new(Handler::new("h1".into(), Address::Unix(fake.path.clone()))));
    dispatch.install(function);
    let headers = Headers::new();
    block_on(async {
        collect(dispatch.call(call(&headers, Body::Bytes(b""))).await.unwrap()).await.unwrap();
        gone.broken().await;
    });
    assert!(!gone.is_healthy());
}

#[test]
fn calls_that_wait_go_to_the_version_that_replaces_theirs() {
    let fake = Fake::new("swap", mirror);
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(Arc::new(Function::new(Name::parse("f").unwrap(), limits())));
    let headers = Headers::new();
    block_on(async {
        let mut waits = Box::pin(dispatch.call(call(&headers, Body::Bytes(b""))));
        assert!(future::poll_once(&mut waits).await.is_none());
        let old = dispatch.install(fake.function(limits())).unwrap();
        assert_eq!(waits.await.unwrap().status, 200);
        old.drained().await;
    });
}

/// A body of `left` bytes that comes in pieces.
struct Pieces {
    left: usize,
    known: bool,
}

impl BodyStream for Pieces {
    fn length(&self) -> Option<u64> {
        self.known.then_some(self.left as u64)
    }

    fn poll_read(&mut self, _: &mut std::task::Context<'_>, buf: &mut [u8]) -> std::task::Poll<std::io::Result<usize>> {
        let n = self.left.min(buf.len()).min(5000);
        buf[..n].fill(b'x');
        self.left -= n;
        std::task::Poll::Ready(Ok(n))
    }
}

#[test]
fn a_body_larger_than_all_buffers_flows_both_ways_at_once() {
    const SIZE: usize = 4 << 20;
    for known in [true, false] {
        // Sends each piece back as it reads it, so a sender that does not read meanwhile would never end.
        let fake = Fake::new(if known { "flow-l" } else { "flow-c" }, move |stream| {
            let Some(head) = head(stream) else { return false };
            let chunked = head.contains("transfer-encoding: chunked");
            assert_ne!(chunked, known, "{head}");
            let mut out = stream.get_ref().try_clone().unwrap();
            write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").unwrap();
            let mut left = SIZE;
            while left > 0 {
                let size = if chunked {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    usize::from_str_radix(line.trim_end(), 16).unwrap()
                } else {
                    left.min(3000)
                };
                let mut piece = vec![0; size];
                stream.read_exact(&mut piece).unwrap();
                out.write_all(&piece).unwrap();
                left -= size;
                if chunked {
                    stream.read_line(&mut String::new()).unwrap();
                }
            }
            if chunked {
                let mut last = [0; 5];
                stream.read_exact(&mut last).unwrap();
                assert_eq!(&last, b"0\r\n\r\n");
            }
            true
        });
        let dispatch = Dispatch::new(Buffers::default());
        dispatch.install(fake.function(limits()));
        let headers = Headers::new();
        let mut pieces = Pieces { left: SIZE, known };
        let body = block_on(async {
            collect(dispatch.call(call(&headers, Body::Stream(&mut pieces))).await.unwrap()).await.unwrap()
        });
        assert_eq!(body.len(), SIZE);
        assert!(body.iter().all(|&b| b == b'x'));
    }
}

/// How many bytes of a body were asked for.
struct Counted(Pieces, Arc<std::sync::atomic::AtomicUsize>);

impl BodyStream for Counted {
    fn length(&self) -> Option<u64> {
        self.0.length()
    }

    fn poll_read(
        &mut self,
        cx: &mut std::task::Context<'_>,
        buf: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let read = self.0.poll_read(cx, buf);
        if let std::task::Poll::Ready(Ok(n)) = &read {
            self.1.fetch_add(*n, Ordering::Relaxed);
        }
        read
    }
}

#[test]
fn who_sends_and_takes_without_a_pause_lets_others_have_their_turn() {
    // All of it fits the socket's buffer: without turns one look moves it all.
    const SIZE: usize = 150_000;
    // The last one may be a large one.
    const MOST: usize = 8 * crate::buffers::SIZE + crate::buffers::LARGE;
    let (sent, wait) = mpsc::channel();
    let (go, begin) = mpsc::channel::<()>();
    let begin = Mutex::new(begin);
    let fake = Fake::new("turns", move |stream| {
        let Some(head) = head(stream) else { return false };
        begin.lock().unwrap().recv().unwrap();
        stream.read_exact(&mut vec![0; length(&head)]).unwrap();
        let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").into_bytes(), vec![b'x'; SIZE]];
        stream.get_mut().write_all(&answer.concat()).unwrap();
        sent.send(()).unwrap();
        true
    });
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(fake.function(limits()));
    let headers = Headers::new();
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut body = Counted(Pieces { left: SIZE, known: true }, Arc::clone(&read));
    block_on(async {
        let mut call = Box::pin(dispatch.call(call(&headers, Body::Stream(&mut body))));
        let mut before = 0;
        while before < SIZE {
            assert!(future::poll_once(&mut call).await.is_none());
            let now = read.load(Ordering::Relaxed);
            assert!(now - before <= MOST, "{} bytes at once", now - before);
            before = now;
            future::yield_now().await;
        }
        go.send(()).unwrap();
        let mut reply = call.await.unwrap();
        wait.recv().unwrap();
        let mut taken = 0;
        let all = async {
            while let n @ 1.. = reply.chunk().await.unwrap().len() {
                taken += n;
            }
        };
        assert!(future::poll_once(Box::pin(all)).await.is_none());
        assert!(taken > 0 && taken <= MOST, "{taken} bytes at once");
    });
}

#[test]
fn an_early_answer_is_passed_on_although_the_body_was_not_read() {
    let fake = Fake::new("early", |stream| {
        head(stream);
        let _ = stream.get_mut().write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig");
        false
    });
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(fake.function(limits()));
    let headers = Headers::new();
    let mut pieces = Pieces { left: 64 << 20, known: true };
    let (status, body) = block_on(async {
        let reply = dispatch.call(call(&headers, Body::Stream(&mut pieces))).await.unwrap();
        (reply.status, collect(reply).await.unwrap())
    });
    assert_eq!((status, body.as_slice()), (413, &b"big"[..]));
}

#[test]
fn a_handler_reached_by_tcp_gets_a_small_body_with_its_length_and_a_large_one_in_chunks() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let function = Function::new(Name::parse("f").unwrap(), limits());
    let address = Address::Tcp(listener.local_addr().unwrap());
    function.add(Arc::new(Handler::new("h1".into(), address)));
    let handler = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        [0, 40_000, 200_000].map(|size| {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).unwrap();
            }
            let mut body = vec![0; length(&head)];
            stream.read_exact(&mut body).unwrap();
            let mut decoder = crate::wire::chunked::ChunkDecoder::new();
            while head.contains("transfer-encoding: chunked") && !decoder.is_done() {
                let (used, data) = decoder.decode(stream.fill_buf().unwrap()).unwrap();
                body.extend_from_slice(data);
                stream.consume(used);
            }
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            assert!(body.len() == size && body.iter().all(|&b| b == b'x'), "{size}: {}", body.len());
            head.contains("chunked")
        })
    });
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(Arc::new(function));
    let headers = Headers::new();
    block_on(async {
        for left in [0, 40_000, 200_000] {
            let mut pieces = Pieces { left, known: false };
            let reply = dispatch.call(call(&headers, Body::Stream(&mut pieces))).await.unwrap();
            assert_eq!(collect(reply).await.unwrap(), b"");
        }
    });
    assert_eq!(handler.join().unwrap(), [false, false, true]);
}

/// A body of unknown length of which nothing comes.
struct Silent;

impl BodyStream for Silent {
    fn length(&self) -> Option<u64> {
        None
    }

    fn poll_read(&mut self, _: &mut std::task::Context<'_>, _: &mut [u8]) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Pending
    }
}

#[test]
fn a_body_that_is_held_for_a_handler_reached_by_tcp_has_to_keep_its_pace_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let function = Function::new(Name::parse("f").unwrap(), Limits { concurrency: 1, ..limits() });
    function.add(Arc::new(Handler::new("h1".into(), Address::Tcp(listener.local_addr().unwrap()))));
    let dispatch = Dispatch::new(Buffers::default());
    dispatch.install(Arc::new(function));
    let (headers, mut silent) = (Headers::new(), Silent);
    block_on(async {
        let mut holds = Box::pin(dispatch.call(call(&headers, Body::Stream(&mut silent))));
        assert!(future::poll_once(&mut holds).await.is_none());
        let mut waits = Box::pin(dispatch.call(call(&headers, Body::Bytes(b""))));
        assert!(future::poll_once(&mut waits).await.is_none());
        assert_eq!(holds.await.unwrap_err().kind, FailureKind::BadRequest);
    });
}
