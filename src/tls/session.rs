//! One TLS connection without its socket: what the peer sends goes in, plaintext comes out, and the other way round.
//!
//! rustls's unbuffered interface leaves the buffers to us, so a connection that is idle has none. What it holds at most: a
//! record that did not come whole yet, the plaintext of one, and records that the socket has not taken.

use std::sync::Arc;

use crate::seats::Seat;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, Error, ServerConfig};

/// Bytes asked for at once while it is not known how long a record is.
const READ: usize = 4 * 1024;
/// Longest record with its header (RFC 5246 §6.2.3), and so the longest message of a handshake as well.
const MAX_INCOMING: usize = HEADER + (1 << 14) + 2048;
/// Bytes before a record's content: its kind, version and length.
const HEADER: usize = 5;
/// Most plaintext of one record that is sent: a lent buffer of a body with an answer's head before it.
pub(super) const RECORD: usize = 9 * 1024;
/// What a record of application data needs beside its plaintext; rustls says where it is more.
const OVERHEAD: usize = 64;

/// A connection's state and its buffers.
pub(super) struct Session {
    side: Side,
    /// What the peer sent and was not understood yet is `incoming[start..end]`.
    incoming: Vec<u8>,
    start: usize,
    end: usize,
    /// What nobody has read yet is `plain[taken..]`.
    plain: Vec<u8>,
    taken: usize,
    /// What the socket has not taken yet is `outgoing[sent..]`.
    outgoing: Vec<u8>,
    sent: usize,
    /// The peer said that nothing more comes.
    ended: bool,
    /// We said so.
    closed: bool,
    failed: Option<Error>,
    /// Its seat among those that hold a part of a record.
    pub(super) seat: Option<Seat>,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What is to be done once the connection can send.
#[derive(Clone, Copy)]
enum Wish<'a> {
    Nothing,
    Send(&'a [u8]),
    Close,
}

/// What came of one step.
enum Step {
    /// There may be more to do.
    Again,
    /// Plaintext is there.
    Data,
    /// Nothing can be done until the peer sends more.
    Blocked,
    /// The wish was fulfilled.
    Done,
    Failed(Error),
}

/// Where plaintext goes: first to who reads, then to where it waits.
struct Sink<'a> {
    read: &'a mut [u8],
    n: usize,
    rest: Vec<u8>,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.read.get_mut(self.n..).unwrap_or_default();
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        if let Some(room) = room.get_mut(..now.len()) {
            room.copy_from_slice(now);
        }
        self.n += now.len();
        self.rest.extend_from_slice(later);
    }
}

impl Session {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(|connection| Self::new(Side::Server(connection)))
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        UnbufferedClientConnection::new(config, name).map(|connection| Self::new(Side::Client(connection)))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            incoming: Vec::new(),
            start: 0,
            end: 0,
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            ended: false,
            closed: false,
            failed: None,
            seat: None,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Client(connection) => connection.is_handshaking(),
            Side::Server(connection) => connection.is_handshaking(),
        }
    }

    /// Whether the peer said that nothing more comes (RFC 8446 §6.1).
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether there is something for who reads: plaintext, the end, or a failure.
    pub(super) fn is_readable(&self) -> bool {
        self.taken < self.plain.len() || self.ended || self.failed.is_some()
    }

    /// Whether there is a part of a record.
    pub(super) fn has_part(&self) -> bool {
        self.start < self.end
    }

    /// Bytes of what came and was not understood yet.
    pub(super) fn part(&self) -> usize {
        self.end - self.start
    }

    /// Room for what the peer sends; none where a message is too long.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let announced = match self.incoming.get(..self.end) {
            Some([_, _, _, high, low, ..]) => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        // A message of the handshake may span records: then the first of them is whole, and more has to come behind it.
        let wanted = if announced > self.end { announced.max(READ) } else { self.end + READ };
        let wanted = wanted.min(MAX_INCOMING);
        if wanted > self.incoming.len() {
            self.incoming.reserve_exact(wanted - self.incoming.len());
            self.incoming.resize(wanted, 0);
        }
        self.incoming.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes were put into the room.
    pub(super) fn received(&mut self, n: usize) {
        self.end = (self.end + n).min(self.incoming.len());
    }

    /// Gives back the room that is not needed while nothing comes.
    pub(super) fn give_back(&mut self) {
        if self.start == self.end {
            (self.incoming, self.start, self.end) = (Vec::new(), 0, 0);
        } else {
            // The rest of a record may take long.
            self.incoming.truncate(self.end);
            self.incoming.shrink_to_fit();
        }
        if self.taken == self.plain.len() {
            (self.plain, self.taken) = (Vec::new(), 0);
        }
    }

    /// Takes plaintext of what came; 0 where more has to come first, and at the end.
    ///
    /// # Errors
    /// The peer broke the protocol, or is not let in. What it is told of that is in [`Self::unsent`].
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let waiting = self.plain.get(self.taken..).unwrap_or_default();
        let n = waiting.len().min(out.len());
        if n > 0 {
            if let (Some(out), Some(waiting)) = (out.get_mut(..n), waiting.get(..n)) {
                out.copy_from_slice(waiting);
            }
            self.taken += n;
            self.give_back();
            return Ok(n);
        }
        let n = self.advance(Wish::Nothing, out);
        self.give_back();
        n
    }

    /// Decrypts what came, as far as nobody has to read first.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn look(&mut self) -> Result<(), Error> {
        if self.taken == self.plain.len() {
            self.advance(Wish::Nothing, &mut [])?;
            self.give_back();
        }
        Ok(())
    }

    /// Makes a record of `plaintext`, which is not longer than [`RECORD`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn write(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        self.advance(Wish::Send(plaintext), &mut []).map(drop)
    }

    /// Tells the peer, once, that nothing more comes.
    pub(super) fn close(&mut self) {
        if !self.closed && self.failed.is_none() && !self.is_handshaking() {
            self.closed = true;
            // Where it fails, there is nobody to tell.
            let _ = self.advance(Wish::Close, &mut []);
        }
    }

    /// Bytes for the peer.
    pub(super) fn unsent(&self) -> &[u8] {
        self.outgoing.get(self.sent..).unwrap_or_default()
    }

    /// So many of them were sent.
    pub(super) fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent >= self.outgoing.len() {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
    }

    /// Goes on until there is plaintext, the wish is fulfilled, or the peer has to send more.
    fn advance(&mut self, wish: Wish<'_>, read: &mut [u8]) -> Result<usize, Error> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        let mut read = Sink { read, n: 0, rest: Vec::new() };
        let step = loop {
            match (self.step(wish, &mut read), wish) {
                (Step::Again, _) | (Step::Data, Wish::Send(_) | Wish::Close) => {}
                (step, _) => break step,
            }
        };
        if self.plain.is_empty() {
            self.plain = std::mem::take(&mut read.rest);
        } else {
            self.plain.append(&mut read.rest);
        }
        match (step, wish) {
            (Step::Failed(e), _) => {
                // What the peer is told of it. rustls may not look at anything else after an error.
                while self.has_more_to_say() {
                    if let Step::Failed(_) =
                        self.step(Wish::Nothing, &mut Sink { read: &mut [], n: 0, rest: Vec::new() })
                    {
                        break;
                    }
                }
                self.failed = Some(e.clone());
                Err(e)
            }
            (Step::Blocked, Wish::Send(_)) => Err(Error::HandshakeNotComplete),
            _ => Ok(read.n),
        }
    }

    #[cfg(test)]
    pub(super) fn incoming_capacity(&self) -> usize {
        self.incoming.capacity()
    }

    fn step(&mut self, wish: Wish<'_>, sink: &mut Sink<'_>) -> Step {
        let input = self.incoming.get_mut(self.start..self.end).unwrap_or_default();
        let (out, ended) = (&mut self.outgoing, &mut self.ended);
        let (used, step) = match &mut self.side {
            Side::Client(connection) => turn(connection.process_tls_records(input), wish, out, sink, ended),
            Side::Server(connection) => turn(connection.process_tls_records(input), wish, out, sink, ended),
        };
        self.start += used;
        step
    }

    fn has_more_to_say(&self) -> bool {
        match &self.side {
            Side::Client(connection) => connection.wants_write(),
            Side::Server(connection) => connection.wants_write(),
        }
    }
}

/// One step of either side's connection, and how many bytes of the input it used.
fn turn<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wish: Wish<'_>,
    out: &mut Vec<u8>,
    sink: &mut Sink<'_>,
    ended: &mut bool,
) -> (usize, Step) {
    let mut used = status.discard;
    let step = match status.state {
        Err(e) => Step::Failed(e),
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    used += record.discard;
                    sink.put(record.payload);
                }
                Some(Err(e)) => break Step::Failed(e),
                None => break Step::Data,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut message)) => encode(out, 0, |room| match message.encode(room) {
            Ok(n) => Ok(n),
            Err(EncodeError::InsufficientSize(e)) => Err(e.required_size),
            Err(EncodeError::AlreadyEncoded) => Ok(0),
        })
        .map_or_else(Step::Failed, |()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(message)) => {
            // It is in `out`, which is sent in its order.
            message.done();
            Step::Again
        }
        Ok(ConnectionState::WriteTraffic(mut writer)) => {
            let fits = |result: Result<usize, EncryptError>| match result {
                Ok(n) => Ok(n),
                Err(EncryptError::InsufficientSize(e)) => Err(e.required_size),
                Err(EncryptError::EncryptExhausted) => Err(usize::MAX),
            };
            let written = match wish {
                Wish::Nothing => return (used, Step::Blocked),
                Wish::Send(bytes) => encode(out, bytes.len() + OVERHEAD, |room| fits(writer.encrypt(bytes, room))),
                Wish::Close => encode(out, OVERHEAD, |room| fits(writer.queue_close_notify(room))),
            };
            written.map_or_else(Step::Failed, |()| Step::Done)
        }
        Ok(ConnectionState::PeerClosed) => {
            *ended = true;
            Step::Again
        }
        // Blocked in the handshake, or closed by both.
        Ok(_) => Step::Blocked,
    };
    (used, step)
}

/// Has `write` put something behind what is in `out`, with `room` bytes of it, or with as many as it says that it needs.
fn encode(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) -> Result<(), Error> {
    let at = out.len();
    loop {
        out.reserve_exact(room);
        out.resize(at + room, 0);
        match write(out.get_mut(at..).unwrap_or_default()) {
            Ok(n) => {
                out.truncate(at + n);
                return Ok(());
            }
            Err(needed) if needed <= MAX_INCOMING + READ && needed > room => room = needed,
            Err(_) => {
                out.truncate(at);
                return Err(Error::EncryptError);
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
