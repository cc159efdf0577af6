//! A [`Stream`] under the traits that `h2` speaks, for the gRPC front door and our own client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// Bytes read at once at first: a call's frames are smaller.
const READ_MIN: usize = 1024;
/// Bytes read at once at most: the largest frame.
const READ_MAX: usize = 16 * 1024;

/// Sees what passes through a socket.
pub trait Meter {
    /// Whether more may be read; `false` leaves the reader waiting for good.
    fn may_read(&self) -> bool;
    /// These bytes came.
    fn received(&self, bytes: &[u8]);
    /// So many bytes were sent.
    fn sent(&self, n: usize);
    /// Bytes wait until the peer reads on.
    fn stalled(&self);
}

/// Sees nothing.
impl Meter for () {
    fn may_read(&self) -> bool {
        true
    }

    fn received(&self, _: &[u8]) {}

    fn sent(&self, _: usize) {}

    fn stalled(&self) {}
}

/// A connection's socket.
#[derive(Debug)]
pub struct Socket<M> {
    stream: Stream,
    meter: M,
    /// Bytes to ask for next: `h2`'s buffer has to be zeroed before each read, so it follows what comes.
    read: usize,
    /// What was written waits for the peer to read on.
    waits: bool,
}

impl<M> Socket<M> {
    /// A socket whose traffic `meter` sees.
    pub fn new(stream: impl Into<Stream>, meter: M) -> Self {
        Self { stream: stream.into(), meter, read: READ_MIN, waits: false }
    }
}

impl<M: Meter> Socket<M> {
    fn count(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(n)) => self.meter.sent(*n),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.meter.stalled(),
        }
    }
}

impl<M: Meter + Unpin> AsyncRead for Socket<M> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.meter.may_read() {
            return Poll::Pending;
        }
        let room = buf.initialize_unfilled_to(this.read.min(buf.remaining()));
        let n = futures_lite::ready!(Pin::new(&mut &this.stream).poll_read(cx, room))?;
        this.meter.received(room.get(..n).unwrap_or_default());
        if n == this.read {
            this.read = (2 * this.read).min(READ_MAX);
        } else if n < this.read / 4 {
            this.read = (this.read / 2).max(READ_MIN);
        }
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<M: Meter + Unpin> AsyncWrite for Socket<M> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut &this.stream).poll_write(cx, buf);
        this.count(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut &this.stream).poll_write_vectored(cx, bufs);
        this.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut &this.stream).poll_flush(cx);
        // Over TLS what was written may still wait.
        if flushed.is_pending() {
            this.meter.stalled();
        } else if this.waits {
            this.meter.sent(0);
        }
        this.waits = flushed.is_pending();
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &self.stream).poll_close(cx)
    }
}
