//! Callers that ask, wait for the answer, and pause for a millisecond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use tinyfaas::cli::grpc_client::Client;
use tinyfaas::reactor::{Async, block_on};
use tinyfaas::wire::headers::Headers;

/// Longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// ACK_TIMEOUT (RFC 7252 §4.8), without its random factor.
const AGAIN: Duration = Duration::from_secs(2);

/// What a caller met.
#[derive(Default)]
pub struct Outcome {
    took: Vec<Duration>,
    failed: usize,
    span: Duration,
}

impl Outcome {
    /// As one JSON object.
    pub fn print(mut self) {
        self.took.sort_unstable();
        let p = |percent: usize| {
            self.took.get(self.took.len() * percent / 100).map_or("null".into(), |t| t.as_micros().to_string())
        };
        let rate = self.took.len() as f64 / self.span.as_secs_f64();
        let (failed, p50, p99) = (self.failed, p(50), p(99));
        println!(r#"{{"rate": {rate:.1}, "p50_us": {p50}, "p99_us": {p99}, "failed": {failed}}}"#);
    }
}

/// Calls `f` for so long.
pub fn run(protocol: &str, to: SocketAddr, span: Duration) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let mut call: Box<dyn FnMut() -> bool> = match protocol {
        "http" => Box::new(http(to)),
        "coap" => Box::new(coap(to)),
        "grpc" => Box::new(grpc(to)),
        _ => panic!("no such protocol: {protocol}"),
    };
    while begun.elapsed() < span {
        let asked = Instant::now();
        match call() {
            true => outcome.took.push(asked.elapsed()),
            false => outcome.failed += 1,
        }
        thread::sleep(Duration::from_millis(1));
    }
    outcome.span = begun.elapsed();
    outcome
}

fn http(to: SocketAddr) -> impl FnMut() -> bool {
    let mut kept: Option<TcpStream> = None;
    move || {
        let Some(mut stream) = kept.take().or_else(|| TcpStream::connect(to).ok()) else { return false };
        let _ = (stream.set_nodelay(true), stream.set_read_timeout(Some(PATIENCE)));
        if stream.write_all(b"POST /f HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhello").is_err() {
            return false;
        }
        let (mut buf, mut len) = ([0; 4096], 0);
        while !buf[..len].ends_with(b"hello") {
            match stream.read(&mut buf[len..]) {
                Ok(n) if n > 0 => len += n,
                _ => return false,
            }
        }
        let served = buf.starts_with(b"HTTP/1.1 200");
        kept = served.then_some(stream);
        served
    }
}

/// A client that knows retransmission (RFC 7252 §4.2), separate answers (§5.2.2) and Echo (RFC 9175).
fn coap(to: SocketAddr) -> impl FnMut() -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    let (mut id, mut echo) = (fastrand::u16(..), Vec::new());
    move || {
        let asked = Instant::now();
        let mut again = AGAIN;
        'ask: while asked.elapsed() < PATIENCE {
            id = id.wrapping_add(1);
            let [a, b] = id.to_be_bytes();
            let mut datagram = vec![0x42, 2, a, b, a, b, 0xb1, b'f'];
            if !echo.is_empty() {
                // Option 252, after 11.
                datagram.extend([0xd0 | echo.len() as u8, (252 - 11 - 13) as u8]);
                datagram.extend(&echo);
            }
            datagram.extend(b"\xffhello");
            let mut sent = false;
            let mut due = Instant::now();
            while asked.elapsed() < PATIENCE {
                let wait = due.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    if sent {
                        again *= 2;
                    }
                    (sent, due) = (true, Instant::now() + again);
                    let _ = socket.send(&datagram);
                    continue;
                }
                let mut buf = [0; 512];
                socket.set_read_timeout(Some(wait)).unwrap();
                let Ok(n) = socket.recv(&mut buf) else { continue };
                // An empty acknowledgement says that the answer comes by itself; others' tokens are old.
                if n < 6 || buf[1] == 0 || buf[4..6] != [a, b] {
                    if n >= 4 && buf[0] & 0x30 == 0x20 && buf[2..4] == [a, b] {
                        due = asked + PATIENCE;
                    }
                    continue;
                }
                if buf[0] & 0x30 == 0 {
                    let _ = socket.send(&[0x60, 0, buf[2], buf[3]]);
                }
                match buf[1] {
                    0x45 => return true,
                    // Unauthorized, with nothing but an Echo option: 252 - 13 = 239 fits one byte.
                    0x81 if buf[6] >> 4 == 13 && buf[7] == 239 => {
                        let len = usize::from(buf[6] & 15);
                        echo = buf[8..8 + len].to_vec();
                        continue 'ask;
                    }
                    _ => return false,
                }
            }
        }
        false
    }
}

fn grpc(to: SocketAddr) -> impl FnMut() -> bool {
    let authority = to.to_string();
    let connect = move || {
        let authority = authority.clone();
        block_on(async move {
            let stream = Async::<TcpStream>::connect(to).await?;
            stream.get_ref().set_nodelay(true)?;
            let (client, connection) = Client::new(stream, &authority).await?;
            Ok::<_, std::io::Error>((client, Box::pin(connection)))
        })
    };
    let mut kept = None;
    move || {
        let Some((client, mut connection)) = kept.take().or_else(|| connect().ok()) else { return false };
        let answered = block_on(async {
            let moving = async {
                let _ = (&mut connection).await;
                None
            };
            let headers = Headers::new();
            let call = async { client.call("f", (&b"hello"[..]).into(), &headers, Some(PATIENCE)).await.ok() };
            call.or(moving).await
        });
        let served = answered.is_some_and(|answer| answer.payload().is_ok());
        if served {
            kept = Some((client, connection));
        }
        served
    }
}
