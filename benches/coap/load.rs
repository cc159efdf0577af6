//! The load: endpoints that each have one request under way.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tinyfaas::wire::coap::message::{Code, Kind, Message, Token, Writer};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Pattern {
    Ping,
    Discovery,
    /// Function `small`, 16 bytes there.
    Call,
    /// libcoap's resource.
    Time,
}

/// How it went.
pub struct Outcome {
    span: Duration,
    /// Microseconds of each request, sorted.
    times: Vec<u32>,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.span.as_secs_f64()
    }

    pub fn count(&self) -> usize {
        self.times.len().max(1)
    }

    pub fn p(&self, percent: usize) -> u32 {
        self.times.get(self.times.len() * percent / 100).copied().unwrap_or_default()
    }
}

struct Endpoint {
    socket: UdpSocket,
    id: u16,
    sent: Instant,
    /// Whether its request has no answer yet.
    waits: bool,
    buf: Vec<u8>,
    pattern: Pattern,
    /// What proves its address, where it was asked to (RFC 9175 §2.3).
    echo: Vec<u8>,
}

/// Options (RFC 7252 §12.2, RFC 9175 §2.2.1).
const URI_PATH: u16 = 11;
const ECHO: u16 = 252;

/// After so long a request is sent again, as the network may lose one.
const AGAIN: Duration = Duration::from_secs(1);

impl Endpoint {
    fn new(bind: SocketAddr, to: SocketAddr, id: u16) -> Self {
        let socket = UdpSocket::bind(bind).unwrap();
        socket.connect(to).unwrap();
        let (buf, echo) = (Vec::with_capacity(64), Vec::new());
        Self { socket, id, sent: Instant::now(), waits: false, buf, pattern: Pattern::Ping, echo }
    }

    /// Sends the next request.
    fn ask(&mut self, pattern: Pattern) {
        self.id = self.id.wrapping_add(1);
        let token = Token::new(&self.id.to_be_bytes()).unwrap();
        let (code, path): (_, &[&[u8]]) = match pattern {
            Pattern::Ping => (Code::EMPTY, &[]),
            Pattern::Discovery => (Code::GET, &[b".well-known", b"core"]),
            Pattern::Call => (Code::POST, &[b"small"]),
            Pattern::Time => (Code::GET, &[b"time"]),
        };
        if code == Code::EMPTY {
            self.ping();
        } else {
            let mut request = Writer::new(&mut self.buf, Kind::Con, code, self.id, &token);
            for segment in path {
                request.option(URI_PATH, segment);
            }
            if !self.echo.is_empty() {
                request.option(ECHO, &self.echo);
            }
            if code == Code::POST {
                request.payload(b"0123456789abcdef");
            }
        }
        self.pattern = pattern;
        self.sent = Instant::now();
        self.waits = true;
        self.socket.send(&self.buf).unwrap();
    }

    fn ping(&mut self) {
        Writer::new(&mut self.buf, Kind::Con, Code::EMPTY, self.id, &Token::default());
    }

    /// Whether a datagram is the answer; a separate one is acknowledged, and who is asked to prove its address does.
    fn is_answer(&mut self, datagram: &[u8]) -> bool {
        let m = Message::parse(datagram).expect("a message");
        match m.kind {
            Kind::Rst => m.id == self.id,
            Kind::Ack if m.code == Code::EMPTY => false,
            _ => {
                if m.kind == Kind::Con {
                    let [a, b] = m.id.to_be_bytes();
                    self.socket.send(&[0x60, 0, a, b]).unwrap();
                }
                if let Some((_, echo)) =
                    m.options.clone().find(|(number, _)| *number == ECHO && m.code == Code::UNAUTHORIZED)
                {
                    self.echo = echo.to_vec();
                    let sent = self.sent;
                    self.ask(self.pattern);
                    self.sent = sent;
                    return false;
                }
                assert_eq!(m.code, Code::CONTENT, "{:?}", String::from_utf8_lossy(m.payload));
                m.token.as_bytes() == self.id.to_be_bytes()
            }
        }
    }
}

/// As many requests as go in `span`, one under way for each of `count` endpoints.
pub fn run(addr: SocketAddr, pattern: Pattern, count: usize, span: Duration) -> Outcome {
    let base = std::process::id() as u16;
    let mut endpoints: Vec<Endpoint> = (0..count)
        .map(|n| {
            Endpoint::new("127.0.0.1:0".parse().unwrap(), addr, base.wrapping_mul(31).wrapping_add(n as u16 * 997))
        })
        .collect();
    let mut times = Vec::with_capacity(1 << 20);
    let begun = Instant::now();
    if count == 1 {
        blocking(&mut endpoints[0], pattern, begun + span, &mut times);
    } else {
        polling(&mut endpoints, pattern, |_| Instant::now() < begun + span, &mut times);
    }
    let span = begun.elapsed();
    times.sort_unstable();
    Outcome { span, times }
}

/// One endpoint waits in the kernel, as a client does.
fn blocking(endpoint: &mut Endpoint, pattern: Pattern, until: Instant, times: &mut Vec<u32>) {
    let mut buf = [0; 2048];
    endpoint.socket.set_read_timeout(Some(AGAIN)).unwrap();
    while Instant::now() < until {
        endpoint.ask(pattern);
        loop {
            match endpoint.socket.recv(&mut buf) {
                Ok(n) if endpoint.is_answer(&buf[..n]) => break,
                Ok(_) => {}
                Err(_) => drop(endpoint.socket.send(&endpoint.buf)),
            }
        }
        times.push(endpoint.sent.elapsed().as_micros() as u32);
    }
}

/// Many endpoints are looked at in turn, until each has its last answer: a server keeps one that nobody acknowledges. Returns
/// how many requests were sent again.
fn polling(
    endpoints: &mut [Endpoint],
    pattern: Pattern,
    mut more: impl FnMut(usize) -> bool,
    times: &mut Vec<u32>,
) -> usize {
    let mut buf = [0; 2048];
    let (mut again, mut done) = (0, 0);
    for endpoint in endpoints.iter_mut() {
        endpoint.socket.set_nonblocking(true).unwrap();
        endpoint.ask(pattern);
    }
    while endpoints.iter().any(|endpoint| endpoint.waits) {
        let mut idle = true;
        for endpoint in endpoints.iter_mut() {
            match endpoint.socket.recv(&mut buf) {
                Ok(n) if endpoint.is_answer(&buf[..n]) && endpoint.waits => {
                    idle = false;
                    done += 1;
                    times.push(endpoint.sent.elapsed().as_micros() as u32);
                    endpoint.waits = false;
                    if more(done) {
                        endpoint.ask(pattern);
                    }
                }
                Ok(_) => idle = false,
                Err(_) if endpoint.waits && endpoint.sent.elapsed() > AGAIN => {
                    again += 1;
                    endpoint.sent = Instant::now();
                    endpoint.socket.send(&endpoint.buf).unwrap();
                }
                Err(_) => {}
            }
        }
        if idle {
            std::thread::yield_now();
        }
    }
    again
}

/// `requests` calls of `count` endpoints of their own addresses 127.0.PHASE.x; how many were sent again.
pub fn phase(addr: SocketAddr, phase: usize, count: usize, requests: usize) -> usize {
    let mut endpoints: Vec<Endpoint> = (0..count)
        .map(|n| {
            let ip = [127, 0, 1 + phase as u8, 1 + (n % 250) as u8];
            Endpoint::new(SocketAddr::from((ip, 0)), addr, (n * 131) as u16)
        })
        .collect();
    polling(&mut endpoints, Pattern::Call, |done| done < requests, &mut Vec::new())
}
