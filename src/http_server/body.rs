//! The body of a request, read from its connection piece by piece.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::AsyncRead;

use super::Shape;
use super::input::Input;
use crate::call::BodyStream;
use crate::net::Stream;
use crate::reactor::Timer;
use crate::seats::Seat;
use crate::wire::chunked::ChunkDecoder;
use crate::wire::http1::Framing;

/// What of a request's body was not read yet.
pub(crate) struct Left {
    framing: FramingLeft,
    /// Bytes that may still come before the bound.
    allowed: u64,
    expects_continue: bool,
}

enum FramingLeft {
    Length(u64),
    Chunks(ChunkDecoder),
}

impl Left {
    pub(super) fn new(shape: &Shape, max_body: u64) -> Self {
        let framing = match shape.framing {
            Framing::Length(n) => FramingLeft::Length(n),
            Framing::Chunked | Framing::UntilClose => FramingLeft::Chunks(ChunkDecoder::new()),
        };
        Self { framing, allowed: max_body, expects_continue: shape.expects_continue }
    }

    fn is_done(&self) -> bool {
        match &self.framing {
            FramingLeft::Length(n) => *n == 0,
            FramingLeft::Chunks(decoder) => decoder.is_done(),
        }
    }

    /// Passes over what nobody read, as far as it is here; `false` when more would have to come.
    pub(super) fn skip_buffered(&mut self, input: &mut Input) -> bool {
        match &mut self.framing {
            FramingLeft::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.end - input.start);
                input.start += here;
                *left -= here as u64;
            }
            FramingLeft::Chunks(decoder) => {
                while !decoder.is_done() && input.start < input.end {
                    match decoder.decode(input.bytes()) {
                        Ok((used, _)) => input.start += used,
                        Err(_) => return false,
                    }
                }
            }
        }
        self.is_done()
    }
}

/// Bytes of a body after a pause that make up for it: fewer are no reason to keep its connection for others' sake.
const MAKES_UP: usize = 1024;

/// The body of a request. Reading it answers `Expect: 100-continue`.
pub struct RequestBody<'c> {
    stream: &'c Stream,
    seat: &'c Seat,
    /// Bytes that are still to come until a pause is made up for.
    behind: usize,
    input: &'c mut Input,
    left: &'c mut Left,
    patience: Duration,
    pause: Option<Timer>,
}

impl<'c> RequestBody<'c> {
    pub(super) fn new(
        stream: &'c Stream,
        seat: &'c Seat,
        input: &'c mut Input,
        left: &'c mut Left,
        patience: Duration,
    ) -> Self {
        Self { stream, seat, behind: 0, input, left, patience, pause: None }
    }

    /// Notes that so many bytes came; `false` where the connection was given to another one.
    fn is_kept(&mut self, came: usize) -> bool {
        if self.behind > 0 {
            self.behind = if self.left.is_done() { 0 } else { self.behind.saturating_sub(came) };
            if self.behind == 0 {
                return self.seat.busy();
            }
        }
        true
    }

    /// Reads the next piece; 0 is the end.
    ///
    /// # Errors
    /// As [`BodyStream::poll_read`].
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Bounds what still comes, beside the server's own bound, to so many bytes.
    pub(crate) fn bound(&mut self, max: u64) {
        self.left.allowed = self.left.allowed.min(max);
    }

    /// Whether the sender said that it is larger than `max` bytes.
    pub fn is_longer_than(&self, max: u64) -> bool {
        self.length().is_some_and(|n| n > max)
    }

    fn say_continue(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.left.expects_continue) && self.input.start == self.input.end {
            const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            let mut socket: &Stream = self.stream;
            // Nothing was written before it, so there is room for these few bytes.
            return WriteNow(&mut socket).write_all(CONTINUE);
        }
        Ok(())
    }

    fn poll_receive(stream: &Stream, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut stream = stream;
        match futures_lite::ready!(Pin::new(&mut stream).poll_read(cx, buf)) {
            Ok(0) => Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early"))),
            other => Poll::Ready(other),
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.left.framing {
            FramingLeft::Length(0) => Poll::Ready(Ok(0)),
            FramingLeft::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                let space = buf.get_mut(..most).unwrap_or_default();
                let here = self.input.bytes();
                let n = if here.is_empty() {
                    futures_lite::ready!(Self::poll_receive(self.stream, cx, space))?
                } else {
                    let n = here.len().min(space.len());
                    copy(here, space, n);
                    self.input.start += n;
                    self.input.rest();
                    n
                };
                *left -= n as u64;
                Poll::Ready(Ok(n))
            }
            FramingLeft::Chunks(decoder) => loop {
                if decoder.is_done() {
                    return Poll::Ready(Ok(0));
                }
                if self.input.start == self.input.end {
                    self.input.end = 0;
                    self.input.start = 0;
                    self.input.buf.fill();
                    let received = Self::poll_receive(self.stream, cx, &mut self.input.buf);
                    if received.is_pending() {
                        self.input.buf.give_back();
                    }
                    self.input.end = futures_lite::ready!(received)?;
                }
                // No more than fits `buf`: what the decoder hands out cannot be put back.
                let here = self.input.bytes();
                let here = here.get(..here.len().min(buf.len())).unwrap_or_default();
                let (used, data) = decoder.decode(here).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.0))?;
                copy(data, buf, data.len());
                let n = data.len();
                self.input.start += used;
                if n > 0 {
                    return Poll::Ready(Ok(n));
                }
            },
        }
    }
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly while others waited for a connection")
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the body is too large")
}

fn copy(from: &[u8], to: &mut [u8], n: usize) {
    if let (Some(from), Some(to)) = (from.get(..n), to.get_mut(..n)) {
        to.copy_from_slice(from);
    }
}

impl RequestBody<'_> {
    /// Nothing came: an error where that is for too long, or where somebody else needs the connection.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let patience = self.patience;
        let pause = self.pause.get_or_insert_with(|| Timer::after(patience));
        if Pin::new(pause).poll(cx).is_ready() {
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time"));
        }
        self.behind = MAKES_UP;
        self.seat.stall();
        self.seat.poll_evicted(cx).map(|()| given_up())
    }
}

impl BodyStream for RequestBody<'_> {
    fn is_whole(&self) -> bool {
        if self.is_longer_than(self.left.allowed) {
            return true;
        }
        let mut here = self.input.bytes();
        match &self.left.framing {
            FramingLeft::Length(left) => *left <= here.len() as u64,
            FramingLeft::Chunks(decoder) => {
                let mut decoder = decoder.clone();
                while !decoder.is_done() && !here.is_empty() {
                    // What is wrong with it is told to who reads.
                    let Ok((used, _)) = decoder.decode(here) else { return true };
                    here = here.get(used..).unwrap_or_default();
                }
                decoder.is_done()
            }
        }
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_whole() {
            self.say_continue()?;
            self.input.compact();
            let room = self.input.buf.get_mut(self.input.end..).unwrap_or_default();
            if room.is_empty() {
                return Poll::Pending;
            }
            let Poll::Ready(received) = Self::poll_receive(self.stream, cx, room) else {
                return self.poll_pause(cx).map(Err);
            };
            let n = received?;
            self.input.end += n;
            self.pause = None;
            if !self.is_kept(n) {
                return Poll::Ready(Err(given_up()));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn length(&self) -> Option<u64> {
        match self.left.framing {
            FramingLeft::Length(n) => Some(n),
            FramingLeft::Chunks(_) => None,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        // A body that says it is too large is not asked for.
        if self.is_longer_than(self.left.allowed) {
            return Poll::Ready(Err(too_large()));
        }
        self.say_continue()?;
        match self.poll_more(cx, buf) {
            Poll::Ready(Ok(n)) => {
                self.pause = None;
                if !self.is_kept(n) {
                    return Poll::Ready(Err(given_up()));
                }
                let Some(allowed) = self.left.allowed.checked_sub(n as u64) else {
                    return Poll::Ready(Err(too_large()));
                };
                self.left.allowed = allowed;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => self.poll_pause(cx).map(Err),
        }
    }
}

/// Writes what fits now.
struct WriteNow<'a, 's>(&'a mut &'s Stream);

impl Write for WriteNow<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
