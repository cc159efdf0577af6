//! One connection to the `binary` handler: requests are read, told apart, and answered one after the other.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::exchange::Exchange;
use super::{Shared, Slot};
use crate::wire::chunked::ChunkDecoder;
use crate::wire::headers::Headers;
use crate::wire::http1::{self, Framing, Refusal, Request, ResponseHead};

/// Bytes of a connection's buffer while no longer head or body is on it.
const SMALL: usize = 4 * 1024;
/// Bytes of the buffer while a body streams through.
const LARGE: usize = 16 * 1024;
/// Longest request head in bytes: the front doors' bound of 16 KiB, and room for the fields that the runtime adds.
const MAX_HEAD: usize = 20 * 1024;

/// A connected socket of either kind.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    pub(super) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Unix(s) => s.set_nonblocking(on),
            Self::Tcp(s) => s.set_nonblocking(on),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(s) => s.as_fd(),
            Self::Tcp(s) => s.as_fd(),
        }
    }

    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => (&*s).read(buf),
            Self::Tcp(s) => (&*s).read(buf),
        }
    }

    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => (&*s).write_vectored(parts),
            Self::Tcp(s) => (&*s).write_vectored(parts),
        }
    }

    /// Writes all of a short answer; the socket is blocking.
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(s) => (&*s).write_all(bytes),
            Self::Tcp(s) => (&*s).write_all(bytes),
        }
    }

    fn shutdown_write(&self) {
        // It may be closed already.
        let _ = match self {
            Self::Unix(s) => s.shutdown(std::net::Shutdown::Write),
            Self::Tcp(s) => s.shutdown(std::net::Shutdown::Write),
        };
    }
}

/// What was received and not yet used.
pub(super) struct Received {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Received {
    fn new() -> Self {
        Self { buf: vec![0; SMALL], start: 0, end: 0 }
    }

    /// The bytes that wait.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes `n` of the bytes that wait.
    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Moves what waits to the front and reads more behind it. 0 is the connection's end.
    pub(super) fn fill(&mut self, socket: &Socket) -> io::Result<usize> {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let n = socket.read(self.buf.get_mut(self.end..).unwrap_or_default())?;
        self.end += n;
        Ok(n)
    }

    fn is_full(&self) -> bool {
        self.end - self.start == self.buf.len()
    }

    fn resize(&mut self, size: usize) {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.buf.resize(size.max(self.end), 0);
        self.buf.shrink_to_fit();
    }
}

/// The body of a request as it arrives.
pub(super) enum BodyLeft {
    Length(u64),
    Chunks(ChunkDecoder),
}

impl BodyLeft {
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(decoder) => decoder.is_done(),
        }
    }

    /// Takes from the front of `received` up to the next body bytes; returns how many of those come next in it.
    ///
    /// # Errors
    /// The chunks are broken.
    pub(super) fn next(&mut self, received: &mut Received) -> Result<usize, Refusal> {
        match self {
            Self::Length(left) => {
                let n = received.bytes().len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                Ok(n)
            }
            Self::Chunks(decoder) => {
                let (used, data) = decoder.decode(received.bytes()).map_err(|e| Refusal { status: 400, text: e.0 })?;
                let n = data.len();
                received.consume(used - n);
                Ok(n)
            }
        }
    }
}

/// Serves a connection until it ends.
pub(super) fn serve(socket: Socket, shared: &Arc<Shared>) {
    let mut received = Received::new();
    // An error here is a peer that went away: there is nobody to tell.
    while let Ok(true) = serve_one(&socket, &mut received, shared) {
        received.resize(SMALL);
    }
    socket.shutdown_write();
}

/// Serves one request; whether the connection stays open.
fn serve_one(socket: &Socket, received: &mut Received, shared: &Arc<Shared>) -> io::Result<bool> {
    loop {
        match http1::parse_request(received.bytes()) {
            Ok(Some(request)) if request.http10 => {
                return answer(socket, 505, "a handler speaks HTTP/1.1\n", false).map(|()| false);
            }
            Ok(Some(request)) => {
                let len = request.len;
                let route = Route::of(&request);
                let Request { method, headers, framing, keep_alive, expects_continue, .. } = request;
                let method = headers.get_str("x-tinyfaas-method").unwrap_or(method).to_owned();
                received.consume(len);
                if expects_continue && received.bytes().is_empty() {
                    socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                if let Route::Other(status, text) = route {
                    // A body that nobody reads ends the connection.
                    let keep = keep_alive && framing == Framing::Length(0);
                    answer(socket, status, text, keep)?;
                    return Ok(keep);
                }
                return invoke(socket, received, shared, &Invocation { method, headers, framing, keep_alive });
            }
            Ok(None) if received.is_full() && received.bytes().len() >= MAX_HEAD => {
                return answer(socket, 431, "the head of a request is at most 20480 bytes\n", false).map(|()| false);
            }
            Ok(None) if received.is_full() => received.resize(MAX_HEAD),
            Ok(None) => {}
            Err(refusal) => {
                return answer(socket, refusal.status, &format!("{}\n", refusal.text), false).map(|()| false);
            }
        }
        if received.fill(socket)? == 0 {
            return Ok(false);
        }
    }
}

enum Route {
    Invoke,
    Other(u16, &'static str),
}

impl Route {
    fn of(request: &Request<'_>) -> Self {
        let path = request.target.split('?').next().unwrap_or_default();
        match (request.method, path) {
            ("POST", "/fn") => Self::Invoke,
            ("GET", "/health") => Self::Other(200, "ok\n"),
            (_, "/fn" | "/health") => Self::Other(405, "use GET /health or POST /fn\n"),
            _ => Self::Other(404, "there is only /health and /fn\n"),
        }
    }
}

/// What one call brings, without its body.
pub(super) struct Invocation {
    /// The caller's own method.
    pub(super) method: String,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

fn invoke(socket: &Socket, received: &mut Received, shared: &Arc<Shared>, invocation: &Invocation) -> io::Result<bool> {
    let body = match invocation.framing {
        Framing::Chunked => BodyLeft::Chunks(ChunkDecoder::new()),
        Framing::Length(n) => BodyLeft::Length(n),
        Framing::UntilClose => BodyLeft::Length(0),
    };
    let _slot = Slot::take(shared, |s| &s.calls);
    let child = match shared.program.start(invocation, &shared.children) {
        Ok(child) => child,
        Err(e) => {
            let text = format!("cannot start the function: {e}\n");
            // Standard error is the function's log.
            let _ = io::stderr().write_all(text.as_bytes());
            let keep = invocation.keep_alive && body.is_done();
            return answer(socket, 500, &text, keep).map(|()| keep);
        }
    };
    if !body.is_done() {
        received.resize(LARGE);
    }
    socket.set_nonblocking(true)?;
    let call = invocation.headers.get_str(http1::CALL_ID).unwrap_or("without an id");
    let keep = Exchange::new(call, socket, received, body, child, invocation.keep_alive).run()?;
    socket.set_nonblocking(false)?;
    Ok(keep)
}

fn answer(socket: &Socket, status: u16, text: &str, keep_alive: bool) -> io::Result<()> {
    let mut out = Vec::new();
    head(&mut out, status, TEXT, Framing::Length(text.len() as u64), keep_alive);
    out.extend_from_slice(text.as_bytes());
    socket.write_all(&out)
}

/// Content type of text.
pub(super) const TEXT: &[u8] = b"text/plain; charset=utf-8";

/// Appends the head of a response to `out`.
pub(super) fn head(out: &mut Vec<u8>, status: u16, content_type: &[u8], framing: Framing, keep_alive: bool) {
    let mut headers = Headers::new();
    // Constants that are valid.
    let _ = headers.push("content-type", content_type);
    ResponseHead { status, headers: &headers, framing, keep_alive, http10: false, call: None }.write(out);
}
