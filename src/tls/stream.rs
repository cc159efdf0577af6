//! TLS over a TCP socket, read and written through `&self` as the socket itself.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use crate::client::Client;
use crate::reactor::Async;
use crate::seats::Seats;
use futures_lite::{AsyncRead, AsyncWrite};

use super::session::{RECORD, Session};

/// A connection over TLS. What was written is on its way when [`Self::poll_flush`] is done.
pub struct TlsStream {
    socket: Async<TcpStream>,
    session: Mutex<Session>,
    /// Where who holds a part of a record takes a seat, and whose connection it is; `None` where nobody else needs the room.
    parts: Option<(Arc<Seats>, Client)>,
}

/// Bytes of a record that each connection may have here while it waits for the rest.
const PART: usize = 1024;

impl TlsStream {
    pub(super) fn new(socket: Async<TcpStream>, session: Session) -> Self {
        Self { socket, session: Mutex::new(session), parts: None }
    }

    /// The same, which shares `parts` with other connections from now on.
    pub(super) fn among(self, parts: &Arc<Seats>, client: Client) -> Self {
        Self { parts: Some((Arc::clone(parts), client)), ..self }
    }

    /// The socket below.
    pub fn socket(&self) -> &Async<TcpStream> {
        &self.socket
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the handshake until it is done, and all of ours was sent.
    ///
    /// # Errors
    /// The peer does not speak TLS, or is not let in; it was told, where that was possible at once.
    pub(super) fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        loop {
            let looked = session.look();
            let flushed = self.send(&mut session, cx);
            looked.map_err(broken)?;
            ready!(flushed)?;
            if !session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.receive(&mut session, cx))?;
        }
    }

    /// Waits until there is something to read, something more came, or the connection ended. What came may be a part of a
    /// record: then reading waits.
    ///
    /// # Errors
    /// When the socket cannot be polled.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        let mut came = false;
        // What breaks the connection is told to who reads.
        while session.look().is_ok() && !session.is_readable() && !(came && session.has_part()) {
            if ready!(self.receive(&mut session, cx)).is_err() {
                break;
            }
            came = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads plaintext.
    ///
    /// # Errors
    /// The peer broke the protocol, or the connection ended without the peer's word that all was sent.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut session = self.session();
        loop {
            let read = session.read(buf);
            if !session.unsent().is_empty() {
                // An alert, or an answer to new keys. Nobody waits for it.
                let _ = self.send(&mut session, cx);
            }
            if matches!(read, Ok(n) if n > 0) {
                // A record came whole: a next one has its own time.
                session.seat = None;
            }
            match read.map_err(broken)? {
                0 if !session.has_ended() && !buf.is_empty() => ready!(self.receive(&mut session, cx))?,
                n => return Poll::Ready(Ok(n)),
            }
        }
    }

    /// Writes plaintext: one record, which is sent together with what is written before it was.
    ///
    /// # Errors
    /// As [`Self::poll_read`], or the socket takes nothing any more.
    pub fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut session = self.session();
        ready!(self.send(&mut session, cx))?;
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        let Some(first) = filled.next() else { return Poll::Ready(Ok(0)) };
        let mut gathered = Vec::new();
        let plaintext = if filled.next().is_none() {
            first.get(..first.len().min(RECORD)).unwrap_or_default()
        } else {
            gathered.reserve_exact(parts.iter().map(|part| part.len()).sum::<usize>().min(RECORD));
            for part in parts {
                let room = RECORD - gathered.len();
                gathered.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
            }
            &gathered
        };
        session.write(plaintext).map_err(broken)?;
        // Taken, whether or not the socket takes all of it now.
        match self.send(&mut session, cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(plaintext.len())),
        }
    }

    /// Waits until the socket has taken all that was written.
    ///
    /// # Errors
    /// The socket takes nothing any more.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send(&mut self.session(), cx)
    }

    /// Tells the peer that nothing more comes, and closes this direction.
    ///
    /// # Errors
    /// The socket takes nothing any more.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        session.close();
        let sent = ready!(self.send(&mut session, cx));
        sent.and_then(|()| self.socket.get_ref().shutdown(Shutdown::Write)).into()
    }

    /// Reads what nobody wants to know, undecrypted.
    ///
    /// # Errors
    /// As read(2).
    pub fn poll_discard(&self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.socket).poll_read(cx, scratch)
    }

    fn send(&self, session: &mut Session, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !session.unsent().is_empty() {
            match ready!(Pin::new(&mut &self.socket).poll_write(cx, session.unsent()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => session.sent(n),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn receive(&self, session: &mut Session, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = session.room();
        if room.is_empty() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "TLS: a message is too long")));
        }
        let n = match Pin::new(&mut &self.socket).poll_read(cx, room) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(n)) => {
                session.received(n);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(e)) => Err(e),
            Poll::Pending => {
                session.give_back();
                return self.hold_part(session, cx);
            }
        };
        session.give_back();
        Poll::Ready(n)
    }
}

impl TlsStream {
    /// Nothing more is there now. A long part of a record is held for a while, but not when too many others hold such.
    fn hold_part(&self, session: &mut Session, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((parts, client)) = self.parts.as_ref().filter(|_| session.part() > PART) else {
            session.seat = None;
            return Poll::Pending;
        };
        let seat = session.seat.get_or_insert_with(|| parts.take_over(*client));
        let gone = || io::Error::new(io::ErrorKind::TimedOut, "TLS: a record came too slowly while others came");
        seat.poll_evicted(cx).map(|()| Err(gone()))
    }
}

fn broken(e: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
