//! A small HTTP/1.1 client: blocking, one request a connection, bodies streamed both ways at once.
//!
//! The body is written by a thread of its own: a function may answer while it is still being sent to, and neither side waits then.

use std::io::{self, Read, Write};
use std::sync::mpsc;

use super::error::{Error, ErrorKind};
use super::output::harmless;
use super::url::bracketed;
use super::wire::{Wire, broke};
use crate::tls;
use crate::wire::chunked::{self, ChunkDecoder};
use crate::wire::headers::Headers;
use crate::wire::http1::{self, Framing};

/// Body bytes in one chunk.
const CHUNK: usize = 16 * 1024;

/// Bytes read ahead: the largest head of an answer fits.
const BUFFER: usize = 2 * Headers::MAX_BYTES;

/// What is shown of a refusal's text, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// Most bytes of an answer that is read whole: far more than the list of all functions that a server takes.
const MAX_WHOLE: usize = 64 << 20;

/// Writes a body to where it is told, and says what on this side was wrong.
pub(super) type Produce = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// The body of a request.
pub(super) enum Body {
    /// None at all.
    None,
    /// A short one.
    Bytes(Vec<u8>),
    /// One of a known length in bytes.
    Sized(u64, Produce),
    /// One whose length shows at its end.
    Chunked(Produce),
}

/// A request.
pub(super) struct Request<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// What TLS is made with, where the server speaks it.
    pub(super) tls: Option<&'a tls::Client>,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) body: Body,
}

/// An answer whose body still arrives.
pub(super) struct Response {
    pub(super) status: u16,
    stream: Wire,
    /// Read ahead: `buf[at..end]`.
    buf: Vec<u8>,
    at: usize,
    end: usize,
    left: Left,
    producer: mpsc::Receiver<io::Error>,
    peer: String,
}

/// What of the body is still to come.
enum Left {
    Bytes(u64),
    Chunks(ChunkDecoder),
    UntilClose,
}

impl Request<'_> {
    /// Sends the request and reads the head of the answer.
    pub(super) fn send(self) -> Result<Response, Error> {
        let peer = format!("{}:{}", bracketed(self.host), self.port);
        let stream = Wire::connect(self.host, self.port, self.tls)?;
        let head_only = self.method == "HEAD";
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {peer}\r\nUser-Agent: tinyfaas/{}\r\nConnection: close\r\n",
            self.method,
            self.target,
            env!("CARGO_PKG_VERSION"),
        )
        .into_bytes();
        head.extend_from_slice(self.headers.as_lines());
        match &self.body {
            Body::None => {}
            Body::Bytes(b) => head.extend(format!("Content-Length: {}\r\n", b.len()).bytes()),
            Body::Sized(n, _) => head.extend(format!("Content-Length: {n}\r\n").bytes()),
            Body::Chunked(_) => head.extend(b"Transfer-Encoding: chunked\r\n"),
        }
        head.extend(b"\r\n");
        let (failed, producer) = mpsc::channel();
        write_in_background(&stream, head, self.body, failed).map_err(|e| broke(&peer, &e))?;
        Response::read_head(stream, head_only, producer, peer)
    }
}

/// Writes head and body from a thread. The thread is left behind where the answer comes first: it may wait for standard
/// input, and ends with the process. An error of this side goes to `failed`, and then the connection is closed.
fn write_in_background(
    stream: &Wire,
    mut head: Vec<u8>,
    body: Body,
    failed: mpsc::Sender<io::Error>,
) -> io::Result<()> {
    let produce = match body {
        Body::None => return write_all_unless_refused(stream, &head),
        Body::Bytes(bytes) => {
            head.extend(bytes);
            return write_all_unless_refused(stream, &head);
        }
        Body::Sized(n, produce) => (Some(n), produce),
        Body::Chunked(produce) => (None, produce),
    };
    let stream = stream.clone();
    let write = move || {
        let mut out = BodyWriter::new(&stream, head, produce.0);
        let result = produce.1(&mut out).and_then(|()| out.finish());
        // Where the network failed, the answer may still say why: it is read until it ends.
        if let (Err(e), false) = (result, out.broken) {
            let _ = failed.send(e);
            stream.shutdown();
        }
    };
    std::thread::Builder::new().name("body".into()).spawn(write).map(drop)
}

/// A server may answer and close before it has read all: the answer says why, so that is no error yet.
fn write_all_unless_refused(mut stream: &Wire, bytes: &[u8]) -> io::Result<()> {
    match stream.write_all(bytes) {
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        other => other,
    }
}

/// Gathers body bytes and writes them as chunks, or as they are where the length is known.
struct BodyWriter<'a> {
    stream: &'a Wire,
    /// The request's head at first, then one chunk's bytes.
    buf: Vec<u8>,
    /// Where the prefix of the chunk in `buf` starts.
    start: usize,
    /// Bytes that are still announced.
    left: Option<u64>,
    /// Whether an error came from the network.
    broken: bool,
}

impl<'a> BodyWriter<'a> {
    fn new(stream: &'a Wire, head: Vec<u8>, left: Option<u64>) -> Self {
        let mut writer = Self { stream, start: head.len(), buf: head, left, broken: false };
        writer.begin();
        writer
    }

    /// Makes room for a chunk's prefix.
    fn begin(&mut self) {
        self.start = self.buf.len();
        if self.left.is_none() {
            self.buf.extend([0; chunked::PREFIX]);
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.left.is_none() {
            let data = self.start + chunked::PREFIX;
            let size = self.buf.len().saturating_sub(data);
            if size == 0 {
                self.buf.truncate(self.start);
            } else {
                if let Some(place) = self.buf.get_mut(self.start..data) {
                    place.copy_from_slice(&chunked::write_prefix(size));
                }
                self.buf.extend(chunked::SUFFIX);
            }
        }
        self.write_buf()?;
        self.begin();
        Ok(())
    }

    fn write_buf(&mut self) -> io::Result<()> {
        let mut stream = self.stream;
        let result = stream.write_all(&self.buf);
        self.broken |= result.is_err();
        self.buf.clear();
        result
    }

    fn finish(&mut self) -> io::Result<()> {
        self.send()?;
        match self.left {
            Some(0) => Ok(()),
            Some(_) => Err(io::Error::other("the file became shorter while it was sent")),
            None => {
                self.buf.truncate(self.start);
                self.buf.extend(chunked::LAST);
                self.write_buf()
            }
        }
    }
}

impl Write for BodyWriter<'_> {
    /// Always takes all of `bytes`: base64's encoder cannot go on after a part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = CHUNK.saturating_sub(self.buf.len().saturating_sub(self.start)).max(1);
            let (piece, more) = rest.split_at(room.min(rest.len()));
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or_else(|| io::Error::other("the file became longer while it was sent"))?;
            }
            self.buf.extend_from_slice(piece);
            if self.buf.len() - self.start >= CHUNK {
                self.send()?;
            }
            rest = more;
        }
        Ok(bytes.len())
    }

    /// Sends what is there: a sensor's readings should not wait for a full chunk.
    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Response {
    fn read_head(
        stream: Wire,
        head_only: bool,
        producer: mpsc::Receiver<io::Error>,
        peer: String,
    ) -> Result<Self, Error> {
        let (buf, left) = (vec![0; BUFFER], Left::UntilClose);
        let mut response = Self { status: 0, stream, buf, at: 0, end: 0, left, producer, peer };
        loop {
            let seen = response.buf.get(response.at..response.end).unwrap_or_default();
            let head = http1::parse_response(seen, head_only)
                .map_err(|e| Error::failed(format!("{} does not speak HTTP/1: {}", response.peer, e.text)))?;
            let Some(head) = head else {
                response.fill()?;
                continue;
            };
            response.at += head.len;
            // Interim answers, RFC 9110 §15.2: the real one follows.
            if head.status >= 200 {
                response.status = head.status;
                response.left = match head.framing {
                    Framing::Length(n) => Left::Bytes(n),
                    Framing::Chunked => Left::Chunks(ChunkDecoder::new()),
                    Framing::UntilClose => Left::UntilClose,
                };
                return Ok(response);
            }
        }
    }

    /// Reads more behind what is there; a connection that ends here broke.
    fn fill(&mut self) -> Result<(), Error> {
        if self.end == self.buf.len() && self.at == 0 {
            return Err(Error::failed(format!("{} answered with too large a head", self.peer)));
        }
        self.buf.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.fill_or_end()? { Ok(()) } else { Err(self.broke(&io::ErrorKind::UnexpectedEof.into())) }
    }

    fn fill_or_end(&mut self) -> Result<bool, Error> {
        loop {
            match (&self.stream).read(self.buf.get_mut(self.end..).unwrap_or_default()) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broke(&e)),
            }
        }
    }

    /// Why the connection ended: our own side may have closed it.
    fn broke(&self, e: &io::Error) -> Error {
        match self.producer.try_recv() {
            Ok(own) => Error::usage(own.to_string()),
            Err(_) => broke(&self.peer, e),
        }
    }

    /// The next piece of the body; 0 at its end.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        loop {
            if matches!(&self.left, Left::Bytes(0)) || matches!(&self.left, Left::Chunks(d) if d.is_done()) {
                return Ok(0);
            }
            if self.at == self.end {
                (self.at, self.end) = (0, 0);
                if !self.fill_or_end()? {
                    return match self.left {
                        Left::UntilClose => Ok(0),
                        _ => Err(self.broke(&io::ErrorKind::UnexpectedEof.into())),
                    };
                }
            }
            let n = self.take(out)?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    /// Moves body bytes from what was read ahead to `out`.
    fn take(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let ahead = self.buf.get(self.at..self.end).unwrap_or_default();
        let most = ahead.len().min(out.len());
        let (used, data) = match &mut self.left {
            Left::UntilClose => (most, ahead.get(..most).unwrap_or_default()),
            Left::Bytes(left) => {
                let n = most.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                (n, ahead.get(..n).unwrap_or_default())
            }
            Left::Chunks(decoder) => decoder
                .decode(ahead.get(..most).unwrap_or_default())
                .map_err(|e| Error::failed(format!("{} does not speak HTTP/1: {}", self.peer, e.0)))?,
        };
        if let Some(place) = out.get_mut(..data.len()) {
            place.copy_from_slice(data);
        }
        self.at += used;
        Ok(data.len())
    }

    /// All that is left of the body.
    ///
    /// # Errors
    /// The connection broke, or the body does not end.
    pub(super) fn whole(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            match self.read(&mut piece)? {
                0 => return Ok(bytes),
                n if bytes.len() + n > MAX_WHOLE => {
                    return Err(Error::failed(format!("the answer of {} does not end", self.peer)));
                }
                n => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
            }
        }
    }

    /// From now on the body may pause for as long as it likes; only a server that is gone ends it.
    pub(super) fn wait_for_ever(&mut self) -> Result<(), Error> {
        self.stream.wait_for_ever().map_err(|e| broke(&self.peer, &e))
    }

    /// The answer, or an error with its text where its status is none of 2xx.
    pub(super) fn ok(mut self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        // What came before a break is still worth showing.
        while let Ok(n @ 1..) = self.read(&mut piece) {
            text.extend_from_slice(piece.get(..n).unwrap_or_default());
            if text.len() >= MAX_REFUSAL {
                break;
            }
        }
        let kind = if self.status == 404 { ErrorKind::NotFound } else { ErrorKind::Failed };
        let text = harmless(&text);
        Err(Error::new(kind, if text.is_empty() { self.bare() } else { format!("HTTP {}: {text}", self.status) }))
    }

    fn bare(&self) -> String {
        format!("{} answered HTTP {} without a word", self.peer, self.status)
    }
}
