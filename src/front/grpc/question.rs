//! The receiving half of a stream: messages out of DATA frames, paid for by the budget, unpacked.

use std::time::Duration;

use bytes::Bytes;
use futures_lite::FutureExt;
use h2::RecvStream;
use http::HeaderMap;

use super::Door;
use crate::budget::{Budget, Share};
use crate::client::Client;
use crate::reactor::Timer;
use crate::wire::grpc::frame::{FrameError, MessageDecoder};
use crate::wire::grpc::gzip::{self, GzipError};
use crate::wire::grpc::status::{Code, Status};

/// What compressed messages of a stream are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// There is no `grpc-encoding`, so none may be compressed.
    Identity,
    /// RFC 1952.
    Gzip,
}

impl Encoding {
    /// The encoding that the header fields name.
    ///
    /// # Errors
    /// [`Code::Unimplemented`] for one that we do not know.
    pub(super) fn of(fields: &HeaderMap) -> Result<Self, Status> {
        match fields.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(other) => {
                let shown: String = String::from_utf8_lossy(other).chars().take(40).collect();
                Err(Status::new(Code::Unimplemented, format!("unknown grpc-encoding {shown:?}: use identity or gzip")))
            }
        }
    }
}

/// The messages that the caller sends.
pub(super) struct Question {
    body: RecvStream,
    /// Received and not yet decoded.
    rest: Bytes,
    decoder: MessageDecoder,
    encoding: Encoding,
    max: usize,
    budget: Budget,
    /// Pays for the bytes of the current message.
    share: Option<Share>,
    timeout: Duration,
}

impl Question {
    pub(super) fn new(body: RecvStream, encoding: Encoding, max: usize, door: &Door, client: Client) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            decoder: MessageDecoder::new(max),
            encoding,
            max,
            budget: door.budget.of(client),
            share: None,
            timeout: door.config.body_timeout,
        }
    }

    /// The next message, `None` at the end of the stream. It is paid for until the next one is asked for.
    ///
    /// # Errors
    /// The status to end the stream with.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.share = None;
        let received = self.rest.len();
        self.pay(received)?;
        loop {
            if let Some(message) = self.decoder.decode(&mut self.rest).map_err(of_frame)? {
                return if message.compressed {
                    self.unpack(&message.bytes).map(Some)
                } else {
                    Ok(Some(message.bytes))
                };
            }
            let data = async { Ok(self.body.data().await) };
            let late = async {
                Timer::after(self.timeout).await;
                Err(Status::new(Code::DeadlineExceeded, "the question did not come in time: send it without pauses"))
            };
            match data.or(late).await? {
                Some(Ok(data)) => {
                    self.pay(data.len())?;
                    // What was paid for may be sent again; the window thus follows our memory.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.rest = data;
                }
                Some(Err(e)) => return Err(Status::new(Code::Internal, format!("the question broke off: {e}"))),
                None => {
                    self.decoder.finish().map_err(of_frame)?;
                    return Ok(None);
                }
            }
        }
    }

    /// The one message of a unary call.
    ///
    /// # Errors
    /// The status to end the stream with; [`Code::Unimplemented`] where there is not exactly one message, as the public
    /// table of status codes has it.
    pub(super) async fn only(&mut self) -> Result<Bytes, Status> {
        let one = |text| Status::new(Code::Unimplemented, text);
        let message = self.next().await?.ok_or_else(|| one("the call has no message: send one"))?;
        if self.rest.is_empty() && self.body.is_end_stream() {
            return Ok(message);
        }
        let share = self.share.take();
        if self.next().await?.is_some() {
            return Err(one("the call has more than one message: send one"));
        }
        self.share = share;
        Ok(message)
    }

    fn pay(&mut self, bytes: usize) -> Result<(), Status> {
        let paid = match &mut self.share {
            Some(share) => share.grow(bytes),
            None => {
                self.share = self.budget.take(bytes);
                self.share.is_some()
            }
        };
        if paid { Ok(()) } else { Err(no_room()) }
    }

    fn unpack(&mut self, packed: &[u8]) -> Result<Bytes, Status> {
        if self.encoding == Encoding::Identity {
            let text =
                "a message is marked as compressed, but there is no grpc-encoding: name it or send plain messages";
            return Err(Status::new(Code::Internal, text));
        }
        let unpacked = gzip::unpack(packed, self.max, &mut |more| self.pay(more).is_ok());
        unpacked.map(Bytes::from).map_err(|e| {
            let code = match e {
                GzipError::Broken(_) => Code::Internal,
                GzipError::TooLarge(_) | GzipError::NoRoom => Code::ResourceExhausted,
            };
            Status::new(code, e.to_string())
        })
    }
}

/// All memory for messages is in use.
pub(super) fn no_room() -> Status {
    Status::new(Code::ResourceExhausted, "no memory left for this call: try again later")
}

fn of_frame(e: FrameError) -> Status {
    let code = match e {
        FrameError::TooLarge { .. } => Code::ResourceExhausted,
        FrameError::Flag(_) | FrameError::Cut => Code::Internal,
    };
    Status::new(code, e.to_string())
}
