//! The server against raw bytes on a real socket: the front door's service with handlers that the test plays.

use std::io::{Read, Write};
use std::net::{Shutdown as Close, TcpStream};

use super::*;

/// Answers with what it was asked, or as the target says.
struct Echo;

impl Service for Echo {
    async fn serve<'c>(&'c self, head: Head, mut body: RequestBody<'c>, respond: Responder<'c>) -> io::Result<()> {
        if head.target == "/early" {
            return respond.text(200, "early").await;
        }
        let mut buf = [0; 100];
        let length = if head.target == "/chunks" { None } else { body_length(&body) };
        let mut pieces = respond.pieces(200, &Headers::new(), length);
        loop {
            match body.read(&mut buf).await {
                Ok(0) => return pieces.finish().await,
                Ok(n) => pieces.send(&buf[..n]).await?,
                Err(e) if pieces.is_unsent() => {
                    let mut respond = pieces.into_responder();
                    respond.close_after();
                    return respond.text(400, &e.to_string()).await;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

fn body_length(body: &RequestBody<'_>) -> Option<u64> {
    use crate::call::BodyStream;
    body.length()
}

struct Running {
    addr: SocketAddr,
    shutdown: Shutdown,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn bounds() -> Bounds {
    Bounds {
        connections: 8,
        connections_each: 0,
        head_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        body_timeout: Duration::from_secs(20),
        max_body: 1 << 20,
    }
}

fn start(bounds: Bounds) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let thread = std::thread::spawn(move || {
        let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
        let listener = Async::new(listener).unwrap();
        let server = run(listener, None, Arc::new(Echo), bounds, Buffers::default(), executor, stop);
        crate::reactor::block_on(executor.run(server));
    });
    Running { addr, shutdown, thread: Some(thread) }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends `request` and reads until the server closes.
    fn talk(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn read_exactly(stream: &mut TcpStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

const OK_HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let server = start(bounds());
    let one = "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let last = "GET /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answer = server.talk([one, chunked, one, last].concat().as_bytes());
    let pieces = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0003\r\nhel\r\n0002\r\nlo\r\n0\r\n\r\n";
    let end = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(answer, [OK_HELLO, pieces, OK_HELLO, end].concat());
}

#[test]
fn a_request_cut_anywhere_is_put_together() {
    let server = start(bounds());
    let request = b"POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n";
    let mut stream = server.connect();
    for cut in 1..request.len() {
        stream.write_all(&request[..cut]).unwrap();
        std::thread::yield_now();
        stream.write_all(&request[cut..]).unwrap();
        read_exactly(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            body.push(char::from(byte[0]));
        }
        let text: String = body.split("\r\n").skip(1).step_by(2).collect();
        assert_eq!(text, "hello", "cut at {cut}: {body:?}");
    }
}

#[test]
fn expect_continue_is_answered_before_the_body_is_sent() {
    let server = start(bounds());
    let mut stream = server.connect();
    stream.write_all(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    read_exactly(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    read_exactly(&mut stream, OK_HELLO);
}

#[test]
fn http10_without_a_length_reads_until_the_connection_closes() {
    let server = start(bounds());
    let answer = server.talk(b"POST /chunks HTTP/1.0\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello");
}

#[test]
fn head_gets_the_head_alone() {
    let server = start(bounds());
    let answer = server.talk(b"HEAD /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 6\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn a_refused_request_is_answered_and_the_connection_closed() {
    let server = start(bounds());
    for (request, status) in [
        (&b"GET /f HTTP/1.1\r\n\r\n"[..], "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        (b"POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
        (&[b"GET /f HTTP/1.1\r\nHost: h\r\nA: ".as_slice(), &[b'x'; 9000], b"\r\n\r\n"].concat(), "431"),
    ] {
        let answer = server.talk(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

#[test]
fn a_body_beyond_the_bound_is_refused() {
    let server = start(Bounds { max_body: 10, ..bounds() });
    let answer = server.talk(b"POST /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n");
    assert!(answer.ends_with("the body is too large\n"), "{answer}");
}

#[test]
fn a_body_nobody_reads_does_not_become_the_next_request() {
    let server = start(bounds());
    let smuggled =
        "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let last = "GET /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answer = server.talk([smuggled, last].concat().as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    // More than is here already: the connection closes after the answer instead of reading it all.
    let answer = server.talk(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 400\r\n\r\nhello");
    assert!(answer.contains("early"), "{answer}");
}

#[test]
fn slow_heads_and_slow_bodies_time_out() {
    let short = Duration::from_millis(50);
    let server = start(Bounds { head_timeout: short, body_timeout: short, ..bounds() });
    assert!(server.talk(b"GET /f HT").starts_with("HTTP/1.1 408 "));
    assert_eq!(server.talk(b""), "");
    let answer = server.talk(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    assert!(answer.contains("did not arrive in time"), "{answer}");
}

#[test]
fn at_the_bound_the_connection_that_is_idle_for_longest_makes_room() {
    let server = start(Bounds { connections: 2, ..bounds() });
    let request = b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect();
        stream.write_all(request).unwrap();
        read_exactly(&mut stream, OK_HELLO);
        streams.push(stream);
    }
    assert_eq!(streams[0].read(&mut [0]).unwrap(), 0, "the oldest was closed");
    streams[1].write_all(request).unwrap();
    read_exactly(&mut streams[1], OK_HELLO);
}

/// Times out of which nothing that a test waits for can come.
fn patient(connections: usize) -> Bounds {
    let long = Duration::from_secs(600);
    Bounds { connections, head_timeout: long, idle_timeout: long, body_timeout: long, ..bounds() }
}

const ASK_AND_CLOSE: &[u8] = b"POST /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn connections_whose_heads_dribble_make_room_for_those_that_ask() {
    let server = start(patient(4));
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..8 {
        for _ in 0..8 {
            slow.push(server.connect());
            slow.iter_mut().for_each(|s| drop(s.write_all(b"G")));
        }
        assert!(server.talk(ASK_AND_CLOSE).ends_with("hello"));
    }
}

#[test]
fn connections_whose_bodies_do_not_come_make_room_for_those_that_ask() {
    let server = start(patient(2));
    let mut slow: Vec<TcpStream> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhello").unwrap();
        read_exactly(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nhello");
    }
    assert!(server.talk(ASK_AND_CLOSE).ends_with("hello"));
}

#[test]
fn connections_whose_answers_are_not_read_make_room_for_those_that_ask() {
    let server = start(Bounds { max_body: u64::MAX, ..patient(1) });
    let mut slow = server.connect();
    slow.set_nonblocking(true).unwrap();
    slow.write_all(b"POST /chunks HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    // Until neither its buffers nor ours take more.
    let mut full = 0;
    while full < 100 {
        if slow.write(&[b'x'; 8192]).is_ok_and(|n| n > 0) {
            full = 0;
        } else {
            full += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(server.talk(ASK_AND_CLOSE).ends_with("hello"));
}

#[test]
fn a_connection_that_becomes_idle_makes_room_for_one_that_waits() {
    let server = start(patient(1));
    let mut busy = server.connect();
    busy.write_all(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel").unwrap();
    read_exactly(&mut busy, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel");
    let mut waiting = server.connect();
    waiting.write_all(ASK_AND_CLOSE).unwrap();
    busy.write_all(b"lo").unwrap();
    read_exactly(&mut busy, "lo");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[test]
fn stopping_lets_a_busy_connection_finish_and_closes_idle_ones() {
    let server = start(bounds());
    let mut idle = server.connect();
    let mut busy = server.connect();
    busy.write_all(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel").unwrap();
    read_exactly(&mut busy, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel");
    server.shutdown.begin();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    busy.write_all(b"lo").unwrap();
    read_exactly(&mut busy, "lo");
    busy.shutdown(Close::Write).unwrap();
}

#[test]
fn whoever_connected_and_asked_before_the_door_closed_is_answered() {
    for round in 0..20 {
        let server = start(bounds());
        let mut streams: Vec<_> = (0..bounds().connections).map(|_| server.connect()).collect();
        for stream in &mut streams {
            stream.write_all(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        server.shutdown.begin();
        for mut stream in streams {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{round}: {}", String::from_utf8_lossy(&answer));
        }
    }
}

#[test]
fn the_task_of_an_idle_connection_is_small() {
    fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    let size = size(Server::<Echo>::connection);
    assert!(size <= 320, "{size} bytes, and there may be a thousand of them");
}
