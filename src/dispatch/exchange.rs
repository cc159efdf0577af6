//! One call on one connection to a handler: HTTP/1.1, both directions at once.
//!
//! The body of the call is sent while the reply is already read, so a handler that answers as it reads never blocks us
//! and is never blocked by us.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;

use super::counts::Metered;
use super::pump::{Pump, PumpError, TURN, hold};
use super::table::Lease;
use crate::buffers::{Buffer, Buffers, SIZE};
use crate::call::{Body, Call, Failure, FailureKind};
use crate::call_id::CallId;
use crate::net::Stream;
use crate::reactor::Timer;
use crate::wire::chunked::ChunkDecoder;
use crate::wire::headers::Headers;
use crate::wire::http1::{self, Framing};

/// What a handler answered: the head is here, the body still comes.
pub struct Reply<'a> {
    /// The handler's status.
    pub status: u16,
    /// Its header fields, without those that concern our connection to it.
    pub headers: Headers,
    length: Option<u64>,
    exchange: Exchange<'a>,
}

impl std::fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Reply<'_> {
    /// The body's length in bytes where the handler said it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Notes that the function may have changed something.
    pub(super) fn mark_changed(&self) {
        if let Some(lease) = &self.exchange.lease {
            lease.function().mark_changed();
        }
    }

    /// The next piece of the body; empty at its end.
    ///
    /// # Errors
    /// The handler broke off, or the deadline passed. Nothing more can be read then.
    pub async fn chunk(&mut self) -> Result<&[u8], Failure> {
        let piece = poll_fn(|cx| self.exchange.poll_body(cx)).await;
        self.took(piece)
    }

    /// The next piece of the body if it is here already: lets a front door send the head and a small body at once.
    ///
    /// # Errors
    /// As [`Reply::chunk`].
    pub async fn chunk_if_ready(&mut self) -> Result<Option<&[u8]>, Failure> {
        let ready = poll_fn(|cx| match self.exchange.poll_body(cx) {
            Poll::Ready(range) => Poll::Ready(range.map(Some)),
            Poll::Pending => Poll::Ready(Ok(None)),
        });
        match ready.await {
            Ok(None) => Ok(None),
            Ok(Some(piece)) => self.took(Ok(piece)).map(Some),
            Err(failure) => self.took(Err(failure)).map(Some),
        }
    }

    /// Its front door makes another answer of it: that is what is counted.
    pub fn refused(&mut self, status: u16) {
        if let Some(metered) = &mut self.exchange.metered {
            metered.ends_with(status);
        }
    }

    /// Takes note of a piece of the body, or of what became of it.
    fn took(&mut self, piece: Result<(usize, usize), Failure>) -> Result<&[u8], Failure> {
        let (from, to) = match piece {
            Ok(range) => range,
            Err(failure) => {
                if let Some(metered) = &mut self.exchange.metered {
                    metered.failed(self.exchange.id, &failure);
                    metered.log(self.exchange.id, &failure);
                }
                return Err(failure);
            }
        };
        if let Some(metered) = &mut self.exchange.metered {
            metered.answered(self.exchange.id, self.status, self.exchange.buf.get(from..to).unwrap_or_default());
        }
        if from == to {
            self.refused(self.status);
            self.exchange.finish();
        } else if let Some(metered) = &self.exchange.metered {
            metered.received(to - from);
        }
        Ok(self.exchange.buf.get(from..to).unwrap_or_default())
    }
}

/// A connection to the handler of `lease`: an idle one, or a new one. `None` when nobody listens there.
pub(super) async fn connect(lease: &Lease, deadline: Instant) -> Result<Option<Stream>, Failure> {
    let handler = lease.handler();
    if let Some(stream) = handler.idle_connection() {
        return Ok(Some(stream));
    }
    let late = async {
        Timer::at(deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    match Stream::connect(handler.address()).or(late).await {
        Ok(stream) => Ok(Some(stream)),
        Err(e) => match e.kind() {
            io::ErrorKind::TimedOut => Err(too_late(lease)),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::HostUnreachable => {
                log::debug!("handler {} at {}: {e}", handler.id(), handler.address());
                Ok(None)
            }
            // Ours, not the handler's: no file descriptor or no memory left.
            _ => Err(Failure::new(FailureKind::Unavailable, format!("cannot connect to the handler: {e}"))),
        },
    }
}

/// Interim responses (1xx) before the real one.
const MAX_INTERIM: u8 = 8;

/// Sends `call` over `stream` and reads the head of the reply.
pub(super) async fn run<'a>(
    stream: Stream,
    lease: Lease,
    mut call: Call<'a>,
    deadline: Instant,
    buffers: &Buffers,
    metered: &mut Option<Metered>,
) -> Result<Reply<'a>, Failure> {
    // Our own handlers listen on sockets and know chunks; one that is reached by TCP may be of another make.
    let held = match (&mut call.body, &stream) {
        (Body::Stream(source), Stream::Tcp(_)) if source.length().is_none() => {
            let late = async {
                Timer::at(deadline).await;
                Err(too_late(&lease))
            };
            let came = AtomicU64::new(0);
            let slow = async {
                loop {
                    let before = came.load(Ordering::Relaxed);
                    Timer::after(PACE).await;
                    if lease.function().waiting() > 0 && came.load(Ordering::Relaxed) - before < PACE_BYTES {
                        return Err(too_slow());
                    }
                }
            };
            // Boxed: most calls need none of it, and each call pays for what its future may hold.
            Some(Box::pin(hold(&mut **source, &came).or(late).or(slow)).await?)
        }
        _ => None,
    };
    let mut exchange = Exchange {
        id: call.id,
        pump: Some(Pump::new(call, held, buffers)),
        stream: Some(stream),
        lease: Some(lease),
        buf: buffers.promise(),
        start: 0,
        end: 0,
        left: BodyLeft::Done,
        deadline: Timer::at(deadline),
        pace: None,
        reusable: true,
        full: false,
        moved: 0,
        interim: 0,
        metered: metered.take(),
    };
    let head = match poll_fn(|cx| exchange.poll_head(cx)).await {
        Ok(head) => head,
        Err(failure) => {
            // Whoever called tells it what the failure was.
            end(&mut exchange.pump, exchange.metered.as_ref());
            *metered = exchange.metered.take();
            return Err(failure);
        }
    };
    // An error may be told by its head alone; of another answer it matters whether the caller took it whole.
    if let Some(metered) = exchange.metered.as_mut().filter(|_| head.status >= 400) {
        metered.ends_with(head.status);
    }
    let length = match head.framing {
        Framing::Length(n) => Some(n),
        _ => None,
    };
    Ok(Reply { status: head.status, headers: head.headers, length, exchange })
}

/// How much of a body has to come in which time while other calls wait for a handler.
const PACE: Duration = Duration::from_secs(1);
const PACE_BYTES: u64 = 1024;

fn too_slow() -> Failure {
    let text = "the body came too slowly while other calls waited: send it faster, or try again later";
    Failure::new(FailureKind::BadRequest, text)
}

fn too_late(lease: &Lease) -> Failure {
    let name = lease.function().name();
    Failure::new(FailureKind::TooLate, format!("function {name} did not answer in time"))
}

/// What is left of the reply's body.
enum BodyLeft {
    Length(u64),
    Chunks(ChunkDecoder),
    UntilClose,
    Done,
}

impl BodyLeft {
    /// Whether more than so many bytes are still to come, or may be.
    fn is_more_than(&self, bytes: u64) -> bool {
        match self {
            Self::Length(left) => *left > bytes,
            Self::Chunks(_) | Self::UntilClose => true,
            Self::Done => false,
        }
    }
}

/// The connection while the call is under way.
struct Exchange<'a> {
    id: &'a CallId,
    pump: Option<Pump<'a>>,
    stream: Option<Stream>,
    lease: Option<Lease>,
    /// Without memory while nothing comes.
    buf: Buffer,
    /// Bytes of `buf` that were received and not yet handed out.
    start: usize,
    end: usize,
    left: BodyLeft,
    deadline: Timer,
    /// While the caller's body does not come: when to look, and how much of it was here before.
    pace: Option<(Timer, u64)>,
    /// Whether the connection can serve another call once the reply was read.
    reusable: bool,
    /// Whether what was received last filled `buf`.
    full: bool,
    /// Buffers of [`SIZE`] received in this turn.
    moved: usize,
    /// Interim responses so far.
    interim: u8,
    /// Counts the call; the caller of [`run`] has it where there is no reply.
    metered: Option<Metered>,
}

impl Exchange<'_> {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http1::Response, Failure>> {
        loop {
            if let Some(bytes) = self.buf.get(self.start..self.end).filter(|b| !b.is_empty()) {
                match http1::parse_response(bytes, false) {
                    Ok(Some(head)) if head.status == 101 => {
                        return Poll::Ready(Err(self.broke("it changed to another protocol, which nobody asked for")));
                    }
                    // An interim response (RFC 9110 §15.2) says nothing to us.
                    Ok(Some(head)) if head.status < 200 => {
                        self.start += head.len;
                        self.full = false;
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Poll::Ready(Err(self.broke("it sent more than 8 interim responses")));
                        }
                        continue;
                    }
                    Ok(Some(head)) => {
                        self.start += head.len;
                        self.reusable &= head.keep_alive;
                        self.left = match head.framing {
                            Framing::Length(0) => BodyLeft::Done,
                            Framing::Length(n) => BodyLeft::Length(n),
                            Framing::Chunked => BodyLeft::Chunks(ChunkDecoder::new()),
                            Framing::UntilClose => BodyLeft::UntilClose,
                        };
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) if self.end == self.buf.len() && self.start == 0 => {
                        return Poll::Ready(Err(self.broke("its answer's head is over 8192 bytes")));
                    }
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Err(self.broke(refusal.text))),
                }
            }
            if self.start > 0 {
                self.buf.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            match futures_lite::ready!(self.poll_receive(cx)) {
                Ok(0) => return Poll::Ready(Err(self.broke("it closed the connection before it answered"))),
                Ok(_) => {}
                Err(failure) => return Poll::Ready(Err(failure)),
            }
        }
    }

    /// The next run of body bytes in `buf`; an empty run is the end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(usize, usize), Failure>> {
        loop {
            if matches!(self.left, BodyLeft::Done) {
                return Poll::Ready(Ok((0, 0)));
            }
            if self.start < self.end {
                match self.take_body() {
                    Ok((from, to)) if from < to => return Poll::Ready(Ok((from, to))),
                    Ok(_) => continue,
                    Err(text) => return Poll::Ready(Err(self.broke(text))),
                }
            }
            (self.start, self.end) = (0, 0);
            match futures_lite::ready!(self.poll_receive(cx)) {
                Ok(0) if matches!(self.left, BodyLeft::UntilClose) => self.left = BodyLeft::Done,
                Ok(0) => return Poll::Ready(Err(self.broke("it closed the connection in the middle of its answer"))),
                Ok(_) => {}
                Err(failure) => return Poll::Ready(Err(failure)),
            }
        }
    }

    /// Takes body bytes from the front of what was received.
    fn take_body(&mut self) -> Result<(usize, usize), &'static str> {
        let here = self.end - self.start;
        let from = self.start;
        match &mut self.left {
            BodyLeft::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(here);
                *left -= take as u64;
                if *left == 0 {
                    self.left = BodyLeft::Done;
                }
                self.start += take;
                Ok((from, from + take))
            }
            BodyLeft::Chunks(decoder) => {
                let (used, data) = decoder.decode(self.buf.get(from..self.end).unwrap_or_default()).map_err(|e| e.0)?;
                let range = (from + used - data.len(), from + used);
                if decoder.is_done() {
                    self.left = BodyLeft::Done;
                }
                self.start += used;
                Ok(range)
            }
            BodyLeft::UntilClose => {
                self.start = self.end;
                Ok((from, self.end))
            }
            BodyLeft::Done => Ok((from, from)),
        }
    }

    /// Receives more bytes at the end of `buf` while it sends what is left of the call.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        let Some(stream) = self.stream.as_ref() else { return Poll::Ready(Ok(0)) };
        if let Some(pump) = &mut self.pump {
            match pump.poll(stream, cx) {
                Poll::Ready(Ok(())) => {
                    end(&mut self.pump, self.metered.as_ref());
                    if let Some(lease) = &self.lease {
                        lease.body_came();
                    }
                }
                // It may have answered before it closed, without reading all that we send.
                Poll::Ready(Err(PumpError::Handler(_))) => {
                    end(&mut self.pump, self.metered.as_ref());
                    self.reusable = false;
                }
                Poll::Ready(Err(PumpError::Caller(failure))) => {
                    self.reusable = false;
                    return Poll::Ready(Err(failure));
                }
                Poll::Pending => {
                    if let Some(failure) = self.look_at_pace(cx) {
                        self.reusable = false;
                        return Poll::Ready(Err(failure));
                    }
                }
            }
        }
        let turn_is_over = self.moved >= TURN;
        let Some(stream) = self.stream.as_ref() else { return Poll::Ready(Ok(0)) };
        let read = if turn_is_over {
            cx.waker().wake_by_ref();
            Poll::Pending
        } else {
            // Nothing of it is needed any more, and there was more than fits.
            if self.full && self.start == self.end && self.left.is_more_than(SIZE as u64) {
                self.buf.grow();
            }
            let read = stream.poll_read_into(cx, &mut self.buf, self.end);
            self.full = matches!(&read, Poll::Ready(Ok(n)) if self.end + n == self.buf.len());
            if read.is_pending() && self.start == self.end {
                // A function may take its time, and there may be many calls.
                (self.start, self.end) = (0, 0);
                self.buf.give_back();
            }
            read
        };
        if read.is_pending() {
            self.moved = 0;
        }
        match read {
            Poll::Ready(Ok(n)) => {
                self.moved += n.div_ceil(SIZE).max(1);
                self.end += n;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Ok(0)),
            Poll::Pending => match Pin::new(&mut self.deadline).poll(cx) {
                Poll::Ready(()) => {
                    self.reusable = false;
                    if let Some(lease) = &self.lease {
                        lease.handler().doubt(false);
                    }
                    let text = "the function did not answer in time";
                    let failure = self.lease.as_ref().map_or(Failure::new(FailureKind::TooLate, text), too_late);
                    Poll::Ready(Err(failure))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    /// Where the caller's body comes too slowly while others wait for its place: the end of the call.
    fn look_at_pace(&mut self, cx: &mut Context<'_>) -> Option<Failure> {
        let (Some(pump), Some(lease)) = (&self.pump, &self.lease) else { return None };
        if !pump.waits_for_caller() {
            self.pace = None;
            return None;
        }
        loop {
            let (timer, before) = self.pace.get_or_insert_with(|| (Timer::after(PACE), pump.read));
            if Pin::new(timer).poll(cx).is_pending() {
                return None;
            }
            if lease.function().waiting() > 0 && pump.read - *before < PACE_BYTES {
                return Some(too_slow());
            }
            self.pace = None;
        }
    }

    /// The reply was read whole: the connection may serve another call, and the handler has a place free.
    fn finish(&mut self) {
        // Bytes after the reply, or a body it did not read: the next reply could not be told from them.
        let clean = self.reusable && self.pump.is_none() && self.start == self.end;
        if let (Some(stream), Some(lease), true) = (self.stream.take(), &self.lease, clean) {
            lease.handler().keep(stream, lease.function().limits().concurrency);
        }
        self.lease = None;
        end(&mut self.pump, self.metered.as_ref());
        self.metered = None;
    }

    fn broke(&mut self, text: &str) -> Failure {
        self.reusable = false;
        if let Some(lease) = &self.lease {
            lease.handler().doubt(true);
        }
        let name = self.lease.as_ref().map_or("?", |lease| lease.function().name().as_str());
        Failure::new(FailureKind::HandlerBroke, format!("the handler of {name} broke: {text}"))
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        end(&mut self.pump, self.metered.as_ref());
    }
}

/// Nothing more of the call is sent: what was of its body is counted.
fn end(pump: &mut Option<Pump<'_>>, metered: Option<&Metered>) {
    // Where it is, as moving it away costs more than this.
    if let (Some(pump), Some(metered)) = (pump.as_ref(), metered) {
        metered.sent(pump.read);
    }
    *pump = None;
}
