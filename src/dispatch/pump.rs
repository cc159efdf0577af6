//! The way of a call to its handler: the head, then the body as it comes, in as few writes as can be.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_lite::AsyncWrite;

use crate::buffers::{Buffer, Buffers, JOINED, SIZE};
use crate::call::{Body, BodyStream, Call, Failure, FailureKind};
use crate::net::Stream;
use crate::wire::chunked;
use crate::wire::http1::{self, Framing};

/// Bytes of a body of unknown length that are held for a handler that may know no chunks, so that its length can be told.
/// At most as many such bodies are held as handlers have places.
const HELD: usize = 64 * 1024;

/// Buffers of [`SIZE`] that one call moves in either direction before others get their turn: who sends and takes without a pause would
/// have the executor, and its own deadline, for itself.
pub(super) const TURN: usize = 8;

/// The start of a body that was read before it is sent.
pub(super) struct Held {
    bytes: Vec<u8>,
    complete: bool,
}

pub(super) async fn hold(source: &mut (dyn BodyStream + Send), came: &AtomicU64) -> Result<Held, Failure> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    while bytes.len() < HELD {
        let n = poll_fn(|cx| source.poll_read(cx, &mut piece)).await.map_err(|e| caller_failure(&e))?;
        if n == 0 {
            return Ok(Held { bytes, complete: true });
        }
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
        came.store(bytes.len() as u64, Ordering::Relaxed);
    }
    Ok(Held { bytes, complete: false })
}

pub(super) fn caller_failure(e: &io::Error) -> Failure {
    let kind = match e.kind() {
        io::ErrorKind::FileTooLarge => FailureKind::TooLarge,
        _ => FailureKind::BadRequest,
    };
    Failure::new(kind, e.to_string())
}

pub(super) enum PumpError {
    /// The handler takes no more bytes.
    Handler(#[allow(dead_code, reason = "kept for the debugger")] io::Error),
    /// The caller's body broke off.
    Caller(Failure),
}

/// Sends a call: the head, then the body, coalesced into as few writes as can be.
pub(super) struct Pump<'a> {
    /// With the start of the body, where that is short.
    head: Vec<u8>,
    sent: usize,
    /// Whether something was to be sent before.
    begun: bool,
    body: PumpBody<'a>,
    /// Bytes of the body that were read so far.
    pub(super) read: u64,
}

enum PumpBody<'a> {
    Bytes(&'a [u8]),
    Stream {
        source: &'a mut (dyn BodyStream + Send),
        /// Without memory while the caller sends nothing.
        buf: Buffer,
        /// Bytes of `buf` to send.
        start: usize,
        end: usize,
        chunked: bool,
        done: bool,
        /// Whether the last piece filled `buf`.
        full: bool,
        /// What was read of the body before and not yet put into `buf`.
        held: Vec<u8>,
    },
}

impl<'a> Pump<'a> {
    pub(super) fn new(call: Call<'a>, held: Option<Held>, buffers: &Buffers) -> Self {
        let framing = match (&call.body, &held) {
            (Body::Bytes(bytes), _) => Framing::Length(bytes.len() as u64),
            (_, Some(Held { bytes, complete: true })) => Framing::Length(bytes.len() as u64),
            (Body::Stream(source), _) => source.length().map_or(Framing::Chunked, Framing::Length),
        };
        let extra = [
            ("X-Call-Id", call.id.as_bytes()),
            ("X-Tinyfaas-Method", call.method.name().as_bytes()),
            ("X-Tinyfaas-Path", call.path.as_bytes()),
            ("X-Tinyfaas-Query", call.query.as_bytes()),
        ];
        let mut head = Vec::new();
        http1::write_invocation(&mut head, call.headers, &extra, framing);
        let body = match call.body {
            Body::Bytes(bytes) => PumpBody::Bytes(bytes),
            Body::Stream(_) if framing == Framing::Length(0) => PumpBody::Bytes(&[]),
            Body::Stream(source) => PumpBody::Stream {
                source,
                buf: buffers.promise(),
                start: 0,
                end: 0,
                chunked: framing == Framing::Chunked,
                full: false,
                done: held.as_ref().is_some_and(|held| held.complete),
                held: held.map_or(Vec::new(), |held| held.bytes),
            },
        };
        let read = if let PumpBody::Bytes(bytes) = &body { bytes.len() as u64 } else { 0 };
        Self { head, sent: 0, begun: false, body, read }
    }

    /// Whether it is for the caller to go on, and not for the handler.
    pub(super) fn waits_for_caller(&self) -> bool {
        let PumpBody::Stream { start, end, done, held, .. } = &self.body else { return false };
        self.sent >= self.head.len() && start >= end && !*done && held.is_empty()
    }

    /// Sends until all is sent, neither side moves, or its turn is over.
    pub(super) fn poll(&mut self, mut stream: &Stream, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let mut moved = 0;
        while moved < TURN {
            // Once, or it would grow while the handler takes nothing.
            if !std::mem::replace(&mut self.begun, true) {
                self.join(cx)?;
            }
            let more = self.body.poll_fill(cx, &mut self.read)?;
            let head = self.head.get(self.sent..).unwrap_or_default();
            let data = self.body.pending();
            if head.is_empty() && data.is_empty() {
                return more.map(Ok);
            }
            let write = match data {
                [] => Pin::new(&mut stream).poll_write(cx, head),
                _ => Pin::new(&mut stream).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(data)]),
            };
            let n = match futures_lite::ready!(write) {
                Ok(0) => return Poll::Ready(Err(PumpError::Handler(io::ErrorKind::WriteZero.into()))),
                Ok(n) => n,
                Err(e) => return Poll::Ready(Err(PumpError::Handler(e))),
            };
            moved += n.div_ceil(SIZE).max(1);
            let of_head = n.min(head.len());
            self.sent += of_head;
            self.body.advance(n - of_head);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Puts a short body behind the head, as far as it is here.
    fn join(&mut self, cx: &mut Context<'_>) -> Result<(), PumpError> {
        match &mut self.body {
            PumpBody::Bytes(bytes) if bytes.len() <= JOINED => {
                self.head.extend_from_slice(bytes);
                *bytes = &[];
            }
            PumpBody::Stream { source, chunked: false, held, .. } if held.is_empty() => {
                let head = self.head.len();
                let short = source.length().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= JOINED);
                let Some(short) = short else { return Ok(()) };
                self.head.resize(head + short, 0);
                let read = source.poll_read(cx, self.head.get_mut(head..).unwrap_or_default());
                let n = match read {
                    Poll::Ready(Ok(n)) => n,
                    Poll::Ready(Err(e)) => return Err(PumpError::Caller(caller_failure(&e))),
                    Poll::Pending => 0,
                };
                self.head.truncate(head + n);
                self.read += n as u64;
            }
            _ => {}
        }
        Ok(())
    }
}

impl PumpBody<'_> {
    /// Makes sure that there are bytes to send, where the body has more. `Ready` when it has no more.
    fn poll_fill(&mut self, cx: &mut Context<'_>, total: &mut u64) -> Result<Poll<()>, PumpError> {
        let Self::Stream { source, buf, start, end, chunked, done, full, held } = self else {
            return Ok(Poll::Ready(()));
        };
        if start < end || (*done && held.is_empty()) {
            return Ok(if *done && held.is_empty() { Poll::Ready(()) } else { Poll::Pending });
        }
        if !*chunked && held.is_empty() && source.length() == Some(0) {
            *done = true;
            return Ok(Poll::Ready(()));
        }
        // Room for the chunk's prefix before the data and its end after it.
        let (before, after) = if *chunked { (chunked::PREFIX, chunked::SUFFIX.len()) } else { (0, 0) };
        if *full && source.length().is_none_or(|left| left > SIZE as u64) {
            buf.grow();
        }
        buf.fill();
        let room = buf.len().saturating_sub(before + after);
        let Some(space) = buf.get_mut(before..before + room) else { return Ok(Poll::Pending) };
        let read = if held.is_empty() {
            source.poll_read(cx, space)
        } else {
            let n = held.len().min(space.len());
            space.iter_mut().zip(held.drain(..n)).for_each(|(to, from)| *to = from);
            Poll::Ready(Ok(n))
        };
        let n = match read {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(e)) => return Err(PumpError::Caller(caller_failure(&e))),
            Poll::Pending => {
                (*start, *end, *full) = (0, 0, false);
                buf.give_back();
                return Ok(Poll::Pending);
            }
        };
        *done |= n == 0;
        *full = n == room;
        *total += n as u64;
        (*start, *end) = (0, before + n + after);
        let filled: &[(usize, &[u8])] = match (*chunked, n) {
            (true, 0) => {
                *end = chunked::LAST.len();
                &[(0, chunked::LAST)]
            }
            (true, n) => &[(0, &chunked::write_prefix(n)), (before + n, chunked::SUFFIX)],
            (false, _) => &[],
        };
        for (at, bytes) in filled {
            if let Some(place) = buf.get_mut(*at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        Ok(if *done && held.is_empty() { Poll::Ready(()) } else { Poll::Pending })
    }

    fn pending(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Stream { buf, start, end, .. } => buf.get(*start..*end).unwrap_or_default(),
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Bytes(bytes) => *bytes = bytes.get(n..).unwrap_or_default(),
            Self::Stream { start, .. } => *start += n,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::LazyLock;

    use super::*;
    use crate::call::{Method, Protocol};
    use crate::call_id::CallId;
    use crate::reactor::{Async, block_on};
    use crate::wire::headers::Headers;

    /// A body of known length that comes in pieces, and waits before each.
    struct Slow {
        pieces: Vec<Vec<u8>>,
        waited: bool,
    }

    impl BodyStream for Slow {
        fn length(&self) -> Option<u64> {
            Some(self.pieces.iter().map(Vec::len).sum::<usize>() as u64)
        }

        fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let Some(piece) = self.pieces.first_mut() else { return Poll::Ready(Ok(0)) };
            self.waited = !self.waited;
            if self.waited {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = piece.len().min(buf.len());
            buf[..n].copy_from_slice(&piece.drain(..n).collect::<Vec<_>>());
            if piece.is_empty() {
                self.pieces.remove(0);
            }
            Poll::Ready(Ok(n))
        }
    }

    /// What a handler gets of a call with that body.
    fn sent(body: Body<'_>) -> (u64, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = Stream::Unix(Async::new(ours).unwrap());
        static HEADERS: Headers = Headers::new();
        static ID: LazyLock<CallId> = LazyLock::new(|| CallId::of(Some(b"i")));
        let call = Call {
            id: &ID,
            function: "f",
            method: Method::Post,
            path: "",
            query: "",
            headers: &HEADERS,
            body,
            token: None,
            deadline: None,
            protocol: Protocol::Http,
            client: None,
        };
        let mut pump = Pump::new(call, None, &Buffers::default());
        assert!(block_on(poll_fn(|cx| pump.poll(&stream, cx))).is_ok());
        drop(stream);
        let mut all = String::new();
        theirs.read_to_string(&mut all).unwrap();
        (pump.read, all.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[test]
    fn short_bodies_arrive_whole_however_they_come() {
        for sizes in
            [vec![], vec![1], vec![3, 2], vec![1; 20], vec![JOINED], vec![JOINED + 1], vec![JOINED, 1], vec![1, SIZE]]
        {
            let pieces: Vec<Vec<u8>> = sizes.iter().zip(b'a'..).map(|(n, byte)| vec![byte; *n]).collect();
            let whole = String::from_utf8(pieces.concat()).unwrap();
            let expected = (whole.len() as u64, whole.clone());
            assert!(sent(Body::Bytes(whole.as_bytes())) == expected, "{sizes:?}");
            for waited in [true, false] {
                let mut slow = Slow { pieces: pieces.clone(), waited };
                assert!(sent(Body::Stream(&mut slow)) == expected, "{sizes:?}, {waited}");
            }
        }
    }
}
