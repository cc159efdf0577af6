//! The answer to a request: one head, then a body whole or in pieces, in as few writes as can be.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWrite, future};

use super::{State, within};
use crate::buffers::JOINED;
use crate::call_id::CallId;
use crate::net::Stream;
use crate::seats::Seat;
use crate::wire::chunked;
use crate::wire::headers::Headers;
use crate::wire::http1::{Framing, ResponseHead, text_line};

/// Answers one request.
pub struct Responder<'c> {
    stream: &'c Stream,
    seat: &'c Seat,
    state: &'c mut State,
    is_head: bool,
    http10: bool,
    patience: Duration,
    call: Option<CallId>,
}

/// An answer whose head was decided; the body follows in pieces.
pub struct Pieces<'c> {
    responder: Responder<'c>,
    head: Vec<u8>,
    framing: Framing,
    bodyless: bool,
}

impl<'c> Responder<'c> {
    pub(super) fn new(
        stream: &'c Stream,
        seat: &'c Seat,
        state: &'c mut State,
        is_head: bool,
        http10: bool,
        patience: Duration,
    ) -> Self {
        Self { stream, seat, state, is_head, http10, patience, call: None }
    }

    /// The answer says that it is that of this call.
    pub fn answers(&mut self, call: &CallId) {
        self.call = Some(*call);
    }

    /// The connection is closed after this answer.
    pub fn close_after(&mut self) {
        self.state.keep_alive = false;
    }

    /// Answers with one line of text.
    ///
    /// # Errors
    /// The peer takes no bytes.
    pub async fn text(self, status: u16, text: &str) -> io::Result<()> {
        self.text_with(status, &Headers::new(), text).await
    }

    /// Answers with one line of text and further header fields.
    ///
    /// # Errors
    /// The peer takes no bytes.
    pub async fn text_with(self, status: u16, headers: &Headers, text: &str) -> io::Result<()> {
        let mut headers = headers.clone();
        // Two constants: they cannot be refused.
        let _ = headers.push("content-type", b"text/plain; charset=utf-8");
        self.whole(status, &headers, text_line(text).as_bytes()).await
    }

    /// Answers with a body that is here whole.
    ///
    /// # Errors
    /// The peer takes no bytes.
    pub async fn whole(self, status: u16, headers: &Headers, body: &[u8]) -> io::Result<()> {
        let mut pieces = self.pieces(status, headers, Some(body.len() as u64));
        pieces.send(body).await?;
        pieces.finish().await
    }

    /// Begins an answer whose body comes in pieces; `length` where it is known.
    pub fn pieces(self, status: u16, headers: &Headers, length: Option<u64>) -> Pieces<'c> {
        let bodyless = self.is_head || status == 204 || status == 304;
        let framing = match length {
            Some(n) => Framing::Length(n),
            None if bodyless => Framing::UntilClose,
            None if self.http10 => {
                self.state.keep_alive = false;
                Framing::UntilClose
            }
            None => Framing::Chunked,
        };
        let mut head = Vec::new();
        let keep_alive = self.state.keep_alive;
        let call = self.call.as_ref().map(CallId::as_bytes);
        ResponseHead { status, headers, framing, keep_alive, http10: self.http10, call }.write(&mut head);
        Pieces { responder: self, head, framing, bodyless }
    }

    async fn write(&self, parts: [&[u8]; 4]) -> io::Result<()> {
        let mut parts = parts;
        let mut stream = self.stream;
        let (mut stalled, mut flushed) = (false, false);
        loop {
            let slices = parts.map(IoSlice::new);
            let written = slices.iter().all(|s| s.is_empty());
            // Over TLS it may still wait.
            if written && (flushed || !matches!(stream, Stream::Tls(_))) {
                return if !stalled || self.seat.busy() { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
            }
            let write = poll_fn(|cx| {
                let progress = match written {
                    true => Pin::new(&mut stream).poll_flush(cx).map_ok(|()| 0),
                    false => match parts {
                        [one, [], [], []] => Pin::new(&mut stream).poll_write(cx, one),
                        _ => Pin::new(&mut stream).poll_write_vectored(cx, &slices),
                    },
                };
                if progress.is_pending() {
                    // From here on the peer is too slow, even where it takes a little now and then.
                    stalled = true;
                    self.seat.stall();
                    ready!(self.seat.poll_evicted(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                progress
            });
            let mut n = within(write, self.patience).await?;
            flushed = written;
            if n == 0 && !flushed {
                return Err(io::ErrorKind::WriteZero.into());
            }
            for part in &mut parts {
                let of_this = n.min(part.len());
                *part = part.get(of_this..).unwrap_or_default();
                n -= of_this;
            }
        }
    }
}

impl<'c> Pieces<'c> {
    /// Whether nothing of the answer went out yet.
    pub fn is_unsent(&self) -> bool {
        !self.head.is_empty()
    }

    /// Gives the answer up, as long as it [is unsent](Self::is_unsent), for another one.
    pub fn into_responder(self) -> Responder<'c> {
        self.responder
    }

    /// Whether no body is sent, whatever is in it.
    pub fn has_no_body(&self) -> bool {
        self.bodyless
    }

    /// Sends the head, if it was not sent yet: the body may take long to come. A peer that is gone by then without a word is found out.
    ///
    /// # Errors
    /// The peer takes no bytes.
    pub async fn begin(&mut self) -> io::Result<()> {
        self.responder.stream.probe_when_idle()?;
        let head = std::mem::take(&mut self.head);
        self.responder.write([&head, &[], &[], &[]]).await
    }

    /// Completes when the peer has closed the connection. What it sends meanwhile is dropped: for an answer with which the
    /// connection ends.
    pub async fn gone(&self) {
        let mut dropped = [0; 64];
        while let Ok(1..) = (&mut &*self.responder.stream).read(&mut dropped).await {
            // One who sends on and on has no turn but his own.
            future::yield_now().await;
        }
    }

    /// Sends a piece of the body, together with the head if that was not sent yet.
    ///
    /// # Errors
    /// The peer takes no bytes.
    pub async fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.bodyless || piece.is_empty() {
            return Ok(());
        }
        let mut head = std::mem::take(&mut self.head);
        match self.framing {
            Framing::Length(_) if !head.is_empty() && piece.len() <= JOINED => {
                head.extend_from_slice(piece);
                self.responder.write([&head, &[], &[], &[]]).await
            }
            Framing::Chunked => {
                for piece in piece.chunks(usize::from(u16::MAX)) {
                    let prefix = chunked::write_prefix(piece.len());
                    self.responder.write([&head, &prefix, piece, chunked::SUFFIX]).await?;
                    head.clear();
                }
                Ok(())
            }
            _ => self.responder.write([&head, piece, &[], &[]]).await,
        }
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// The peer takes no bytes.
    pub async fn finish(self) -> io::Result<()> {
        let last: &[u8] = if self.framing == Framing::Chunked && !self.bodyless { chunked::LAST } else { &[] };
        self.responder.write([&self.head, last, &[], &[]]).await?;
        self.responder.state.answered = true;
        Ok(())
    }
}
