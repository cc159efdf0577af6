//! A CoAP client for `tinyfaas invoke coap://…`: blocking, one request, bodies in blocks both ways (RFC 7252, RFC 7959).
//!
//! Useful on boards that have no other client, and small: the wire format is the server's own.

use std::fmt;
use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use crate::wire::coap::block::Block;
use crate::wire::coap::message::{self, Code, Kind, Message, Token, Writer};
use crate::wire::coap::option;
use crate::wire::http1::percent_decode;

/// The port of a `coap://` URL without one (RFC 7252 §6.1).
pub const PORT: u16 = 5683;
/// ACK_TIMEOUT and MAX_RETRANSMIT (RFC 7252 §4.8).
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_RETRANSMIT: u32 = 4;
/// How long a separate answer is waited for after its request was acknowledged: longer than any function is let run by default.
const SILENCE: Duration = Duration::from_secs(300);
/// Longest answer that is taken, in bytes; it is held whole.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Longest datagram that is understood, in bytes.
const MAX_DATAGRAM: usize = 8 * 1024;
/// Size exponent of the blocks that are sent: 1024 bytes, until the server wants less.
const SZX: u8 = Block::MAX_SZX;

/// A call of a function.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Name or address of the server.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The method.
    pub method: Code,
    /// Path and query, starting with `/`, percent-encoded.
    pub target: &'a str,
    /// What the body is.
    pub format: Option<u16>,
    /// What the answer shall be.
    pub accept: Option<u16>,
    /// The body.
    pub body: &'a [u8],
}

/// A server's answer, whatever its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The code.
    pub code: Code,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The request cannot be sent as it is.
    Usage(String),
    /// Nobody answers, or not to the end.
    Unreachable(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Unreachable(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for ClientError {}

/// Sends a request and waits for the whole answer.
///
/// # Errors
/// [`ClientError`] when there is none.
pub fn invoke(request: &Request<'_>) -> Result<Answer, ClientError> {
    let options = Target::parse(request)?;
    let unknown = |e: io::Error| ClientError::Unreachable(format!("cannot find {}: {e}", request.host));
    let mut last = ClientError::Unreachable(format!("{} has no address", request.host));
    for addr in (request.host, request.port).to_socket_addrs().map_err(unknown)? {
        let bind = if addr.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(bind).and_then(|socket| socket.connect(addr).map(|()| socket));
        let result = match socket {
            Ok(socket) => Client::new(socket, request, &options).run(),
            Err(e) => Err(io_error(request, &e)),
        };
        match result {
            // The next address of the same name may be the one that listens.
            Err(ClientError::Unreachable(text)) => last = ClientError::Unreachable(text),
            other => return other,
        }
    }
    Err(last)
}

fn io_error(request: &Request<'_>, e: &io::Error) -> ClientError {
    let (host, port) = (request.host, request.port);
    ClientError::Unreachable(format!("cannot reach {host}:{port} over CoAP: {e} (is tinyfaas running there?)"))
}

/// The options that the URL makes (RFC 7252 §6.4).
struct Target {
    path: Vec<String>,
    query: Vec<String>,
}

impl Target {
    fn parse(request: &Request<'_>) -> Result<Self, ClientError> {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let split = |text: &str, at: char| -> Result<Vec<String>, ClientError> {
            let parts: Option<Vec<_>> = text.split(at).map(percent_decode).collect();
            let wrong = || ClientError::Usage(format!("{text:?} has a % without two digits, or is not UTF-8"));
            let parts = parts.ok_or_else(wrong)?;
            match parts.iter().find(|part| part.len() > 255) {
                Some(_) => Err(ClientError::Usage("CoAP takes at most 255 bytes in a part of a path or query".into())),
                None => Ok(parts),
            }
        };
        let path = split(path.trim_start_matches('/'), '/')?;
        Ok(Self { path, query: if query.is_empty() { Vec::new() } else { split(query, '&')? } })
    }
}

/// One request under way.
struct Client<'r> {
    socket: UdpSocket,
    request: &'r Request<'r>,
    target: &'r Target,
    next_id: u16,
    /// Tells this body from others to the same path (RFC 9175 §3).
    tag: [u8; 4],
    /// What the server wants to hear again (RFC 9175 §2).
    echo: Option<Vec<u8>>,
    datagram: Vec<u8>,
    buf: Vec<u8>,
}

/// A response to one message.
struct Reply {
    code: Code,
    block1: Option<Block>,
    block2: Option<Block>,
    etag: Option<Vec<u8>>,
    echo: Option<Vec<u8>>,
    payload: Vec<u8>,
}

impl<'r> Client<'r> {
    fn new(socket: UdpSocket, request: &'r Request<'r>, target: &'r Target) -> Self {
        let tag = fastrand::u32(..).to_be_bytes();
        let (datagram, buf) = (Vec::new(), vec![0; MAX_DATAGRAM]);
        Self { socket, request, target, next_id: fastrand::u16(..), tag, echo: None, datagram, buf }
    }

    fn run(mut self) -> Result<Answer, ClientError> {
        let first = self.send_body()?;
        let mut answer = Answer { code: first.code, body: first.payload };
        let mut block = first.block2;
        while let Some(Block { more: true, szx, .. }) = block {
            let size = 16 << szx;
            if !answer.body.len().is_multiple_of(size) || answer.body.len() >= MAX_ANSWER {
                return Err(self.broke("it sent blocks of a wrong length, or too many"));
            }
            let next = Block { number: (answer.body.len() / size) as u32, more: false, szx };
            let reply = self.exchange(None, Some(next), &[])?;
            let fits = reply.block2.is_some_and(|got| got.offset() == answer.body.len());
            if reply.code != answer.code || reply.etag != first.etag || !fits {
                return Err(self.broke("its answer changed while it was fetched: try again"));
            }
            answer.body.extend_from_slice(&reply.payload);
            block = reply.block2;
        }
        Ok(answer)
    }

    /// Sends the body, in blocks where it is long, and returns the response to its last message.
    fn send_body(&mut self) -> Result<Reply, ClientError> {
        let body = self.request.body;
        let (mut start, mut szx) = (0, SZX);
        if body.len() <= 16 << SZX {
            let reply = self.exchange_echo(None, body)?;
            // A server may want smaller pieces (RFC 7959 §2.9.3).
            match (reply.code, reply.block1) {
                (Code::TOO_LARGE, Some(hint)) if hint.size() < body.len() => szx = hint.szx,
                _ => return Ok(reply),
            }
        }
        loop {
            let size = 16usize << szx;
            let end = body.len().min(start + size);
            let block = Block { number: (start / size) as u32, more: end < body.len(), szx };
            let reply = self.exchange_echo(Some(block), body.get(start..end).unwrap_or_default())?;
            if reply.code != Code::CONTINUE || !block.more {
                return Ok(reply);
            }
            start = end;
            szx = reply.block1.map_or(szx, |wanted| wanted.szx.min(szx));
        }
    }

    /// One exchange; once more with its Echo value where the server asks for that.
    fn exchange_echo(&mut self, block1: Option<Block>, payload: &[u8]) -> Result<Reply, ClientError> {
        let reply = self.exchange(block1, None, payload)?;
        if reply.code == Code::UNAUTHORIZED && reply.echo.is_some() && self.echo.is_none() {
            self.echo = reply.echo;
            return self.exchange(block1, None, payload);
        }
        Ok(reply)
    }

    /// One confirmable message and its response (RFC 7252 §4.2, §5.2).
    fn exchange(&mut self, block1: Option<Block>, block2: Option<Block>, payload: &[u8]) -> Result<Reply, ClientError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let token = Token::new(&fastrand::u32(..).to_be_bytes()).unwrap_or_default();
        self.write(id, &token, block1, block2, payload);
        let mut timeout = ACK_TIMEOUT.mul_f32(1.0 + fastrand::f32() / 2.0);
        for _ in 0..=MAX_RETRANSMIT {
            self.socket.send(&self.datagram).map_err(|e| io_error(self.request, &e))?;
            let until = Instant::now() + timeout;
            if let Some(reply) = self.listen(until, id, &token)? {
                return Ok(reply);
            }
            timeout *= 2;
        }
        Err(io_error(self.request, &io::Error::from(io::ErrorKind::TimedOut)))
    }

    /// Waits for the response until the time is over, or much longer once the request was acknowledged.
    fn listen(&mut self, mut until: Instant, id: u16, token: &Token) -> Result<Option<Reply>, ClientError> {
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(None);
            }
            let received = self.socket.set_read_timeout(Some(wait)).and_then(|()| self.socket.recv(&mut self.buf));
            let n = match received {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(io_error(self.request, &e)),
            };
            let Ok(m) = Message::parse(self.buf.get(..n).unwrap_or_default()) else { continue };
            match m.kind {
                Kind::Rst if m.id == id => return Err(self.broke("it refuses the message")),
                Kind::Ack if m.id == id && m.code == Code::EMPTY => {
                    until = Instant::now() + SILENCE;
                    continue;
                }
                Kind::Ack if m.id != id => continue,
                Kind::Rst => continue,
                _ if m.code.class() < 2 => continue,
                _ => {}
            }
            let ours = m.token == *token;
            if m.kind == Kind::Con {
                // What was asked long ago is acknowledged as well, else it comes again and again.
                let kind = if ours { Kind::Ack } else { Kind::Rst };
                let _ = self.socket.send(&message::empty(kind, m.id));
            }
            if ours {
                return Ok(Some(Reply::read(&m)));
            }
        }
    }

    fn write(&mut self, id: u16, token: &Token, block1: Option<Block>, block2: Option<Block>, payload: &[u8]) {
        let request = self.request;
        let mut w = Writer::new(&mut self.datagram, Kind::Con, request.method, id, token);
        self.target.path.iter().for_each(|segment| {
            w.option(option::URI_PATH, segment.as_bytes());
        });
        if let Some(format) = request.format.filter(|_| !request.body.is_empty()) {
            w.uint(option::CONTENT_FORMAT, format.into());
        }
        self.target.query.iter().for_each(|part| {
            w.option(option::URI_QUERY, part.as_bytes());
        });
        if let Some(accept) = request.accept {
            w.uint(option::ACCEPT, accept.into());
        }
        if let Some(block) = block2 {
            w.uint(option::BLOCK2, block.to_uint());
        }
        if let Some(block) = block1 {
            w.uint(option::BLOCK1, block.to_uint());
            if block.number == 0 {
                w.uint(option::SIZE1, request.body.len() as u32);
            }
        }
        if let Some(echo) = &self.echo {
            w.option(option::ECHO, echo);
        }
        if request.body.len() > 16 << SZX {
            w.option(option::REQUEST_TAG, &self.tag);
        }
        w.payload(payload);
    }

    fn broke(&self, why: &str) -> ClientError {
        ClientError::Unreachable(format!("{}:{}: {why}", self.request.host, self.request.port))
    }
}

impl Reply {
    fn read(m: &Message<'_>) -> Self {
        let block = |number| m.options.first(number).and_then(option::uint).and_then(Block::from_uint);
        let bytes = |number| m.options.first(number).map(<[u8]>::to_vec);
        Self {
            code: m.code,
            block1: block(option::BLOCK1),
            block2: block(option::BLOCK2),
            etag: bytes(option::ETAG),
            echo: bytes(option::ECHO),
            payload: m.payload.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(target: &'a str, body: &'a [u8], port: u16) -> Request<'a> {
        Request { host: "127.0.0.1", port, method: Code::POST, target, format: None, accept: None, body }
    }

    /// A server that answers each datagram with what `script` says, until that is nothing.
    fn server(mut script: impl FnMut(&Message<'_>) -> Vec<Vec<u8>> + Send + 'static) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok((n, from)) = socket.recv_from(&mut buf) {
                for answer in script(&Message::parse(&buf[..n]).unwrap()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        port
    }

    fn reply(kind: Kind, code: Code, id: u16, token: &Token, options: &[(u16, u32)], payload: &[u8]) -> Vec<u8> {
        let mut buf = Vec::new();
        let mut w = Writer::new(&mut buf, kind, code, id, token);
        options.iter().for_each(|(number, value)| {
            w.uint(*number, *value);
        });
        w.payload(payload);
        buf
    }

    #[test]
    fn a_url_becomes_path_and_query_options() {
        let t = Target::parse(&request("/f/a%2Fb/?x=1&y%26", b"", 1)).unwrap();
        assert_eq!(t.path, ["f", "a/b", ""]);
        assert_eq!(t.query, ["x=1", "y&"]);
        let long = format!("/{}", "x".repeat(256));
        assert!(matches!(Target::parse(&request(&long, b"", 1)), Err(ClientError::Usage(_))));
    }

    #[test]
    fn a_separate_answer_is_acknowledged_and_strangers_are_not_believed() {
        let (acks, heard) = std::sync::mpsc::channel();
        let port = server(move |m| match m.kind {
            Kind::Con => vec![
                reply(Kind::Ack, Code::CONTENT, m.id.wrapping_add(1), &m.token, &[], b"another message"),
                reply(Kind::Con, Code::CONTENT, 76, &Token::default(), &[], b"another request"),
                message::empty(Kind::Ack, m.id).to_vec(),
                reply(Kind::Con, Code::CONTENT, 77, &m.token, &[], b"late"),
            ],
            kind => {
                let _ = acks.send((kind, m.id));
                Vec::new()
            }
        });
        let answer = invoke(&request("/f", b"x", port)).unwrap();
        assert_eq!((answer.code, &answer.body[..]), (Code::CONTENT, &b"late"[..]));
        assert_eq!([heard.recv().unwrap(), heard.recv().unwrap()], [(Kind::Rst, 76), (Kind::Ack, 77)]);
    }

    #[test]
    fn a_server_may_ask_for_smaller_blocks_and_an_echo() {
        let (sender, bodies) = std::sync::mpsc::channel();
        let port = server(move |m| {
            let block = m.options.first(option::BLOCK1).and_then(option::uint).and_then(Block::from_uint).unwrap();
            let ack = |code, options: &[(u16, u32)]| vec![reply(Kind::Ack, code, m.id, &m.token, options, b"")];
            if m.options.first(option::ECHO).is_none() {
                return ack(Code::UNAUTHORIZED, &[(option::ECHO, 0x01020304)]);
            }
            let _ = sender.send((block.offset(), m.payload.len()));
            let wanted = Block { szx: 5, ..block };
            ack(if block.more { Code::CONTINUE } else { Code::CHANGED }, &[(option::BLOCK1, wanted.to_uint())])
        });
        assert_eq!(invoke(&request("/f", &[0; 2000], port)).unwrap().code, Code::CHANGED);
        assert_eq!(bodies.try_iter().collect::<Vec<_>>(), [(0, 1024), (1024, 512), (1536, 464)]);
    }

    #[test]
    fn nobody_there_is_said_at_once() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Err(ClientError::Unreachable(text)) = invoke(&request("/f", b"", port)) else { panic!("an answer") };
        assert!(text.contains("is tinyfaas running there?"), "{text}");
    }
}
