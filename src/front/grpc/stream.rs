//! One stream: which service and method it asks for, and how an answer and its status are sent.

use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_lite::FutureExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::peer::Busy;
use super::question::{Encoding, Question};
use super::{Door, calls, health, reflection};
use crate::budget::Share;
use crate::reactor::Timer;
use crate::wire::grpc::descriptor::{HEALTH, REFLECTION, REFLECTION_ALPHA, TINYFAAS};
use crate::wire::grpc::status::{self, Code, Status};
use crate::wire::grpc::timeout;

/// The content type of every answer.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A piece of an answer; what it takes from the budget is given back when `h2` has sent it.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    _share: Option<Arc<Share>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(dst)
    }

    fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }
}

/// What a stream asks for, apart from its messages.
#[derive(Debug)]
pub(super) struct Asked {
    /// The metadata and all other fields.
    pub(super) fields: HeaderMap,
    /// When the caller stops waiting.
    pub(super) deadline: Option<Instant>,
}

/// The method of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Call,
    HealthCheck,
    HealthWatch,
    Reflection,
}

/// The peer gave the stream up, or the connection is gone: nothing more can be said.
#[derive(Debug)]
pub(super) struct Gone;

/// Answers one stream.
pub(super) async fn answer(door: &Door, busy: &Busy, request: Request<RecvStream>, respond: SendResponse<Piece>) {
    let answer = Answer { respond, timeout: door.config.body_timeout };
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return answer.refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return answer.refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let prepared =
        route(head.uri.path()).and_then(|route| Ok((route, deadline(&head.headers)?, Encoding::of(&head.headers)?)));
    let (route, deadline, encoding) = match prepared {
        Ok(prepared) => prepared,
        Err(status) => {
            let mut metadata = HeaderMap::new();
            metadata.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
            return answer.end_without_message(&status, metadata);
        }
    };
    let max = if route == Route::Call { door.config.message } else { calls::SMALL_MESSAGE };
    let question = Question::new(body, encoding, max, door, busy.client());
    let asked = Asked { fields: head.headers, deadline };
    let done = match route {
        Route::Call => calls::request(door, busy, asked, question, answer).await,
        // Boxed: calls do not pay for them.
        Route::HealthCheck => Box::pin(health::check(door, question, answer)).await,
        Route::HealthWatch => Box::pin(health::watch(door, asked, question, answer)).await,
        Route::Reflection => Box::pin(reflection::info(asked, question, answer)).await,
    };
    if let Err(Gone) = done {
        log::debug!("gRPC: a caller gave up");
    }
}

/// A content type that says gRPC with protobuf messages. Others that start so (`application/grpc-web`) are refused.
fn is_grpc(value: &HeaderValue) -> bool {
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
    rest.is_empty() || rest.starts_with(b";")
}

fn route(path: &str) -> Result<Route, Status> {
    let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    match parts {
        Some((TINYFAAS, "Request")) => Ok(Route::Call),
        Some((HEALTH, "Check")) => Ok(Route::HealthCheck),
        Some((HEALTH, "Watch")) => Ok(Route::HealthWatch),
        Some((REFLECTION | REFLECTION_ALPHA, "ServerReflectionInfo")) => Ok(Route::Reflection),
        _ => {
            let shown: String = path.chars().take(200).collect();
            let text = format!("no method {shown}: use /{TINYFAAS}/Request, or ask server reflection");
            Err(Status::new(Code::Unimplemented, text))
        }
    }
}

fn deadline(fields: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = fields.get(GRPC_TIMEOUT) else { return Ok(None) };
    match timeout::parse(value.as_bytes()) {
        // One that no clock can hold is none.
        Some(timeout) => Ok(Instant::now().checked_add(timeout)),
        None => {
            let text = "bad grpc-timeout: use one to eight digits and one of H M S m u n";
            Err(Status::new(Code::Internal, text))
        }
    }
}

/// The sending half of a stream before its first frame.
pub(super) struct Answer {
    respond: SendResponse<Piece>,
    timeout: Duration,
}

impl Answer {
    /// Runs `work` until the peer gives the stream up.
    pub(super) async fn unless_gone<T>(&mut self, work: impl Future<Output = T> + Unpin) -> Result<T, Gone> {
        let gone = async {
            let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
            Err(Gone)
        };
        async { Ok(work.await) }.or(gone).await
    }

    /// Says that this is no gRPC call at all.
    fn refuse(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        let _ = self.respond.send_response(response, true);
    }

    /// Ends the stream with nothing but a status: "Trailers-Only".
    pub(super) fn end_without_message(mut self, status: &Status, mut metadata: HeaderMap) {
        put_status(&mut metadata, status);
        metadata.insert(CONTENT_TYPE, GRPC);
        let mut response = Response::new(());
        *response.headers_mut() = metadata;
        let _ = self.respond.send_response(response, true);
    }

    /// Sends the header fields; messages and a status follow.
    pub(super) fn begin(mut self, mut metadata: HeaderMap) -> Result<Sending, Gone> {
        metadata.insert(CONTENT_TYPE, GRPC);
        let mut response = Response::new(());
        *response.headers_mut() = metadata;
        let stream = self.respond.send_response(response, false).map_err(|_| Gone)?;
        Ok(Sending { stream, timeout: self.timeout })
    }
}

/// The sending half of a stream after its header fields.
pub(super) struct Sending {
    stream: SendStream<Piece>,
    timeout: Duration,
}

impl Sending {
    /// Sends one framed message as fast as the peer reads it. `share` is given back when the last of it has left.
    ///
    /// # Errors
    /// [`Gone`] also when the peer does not read on for too long.
    pub(super) async fn message(&mut self, mut bytes: Bytes, share: Option<Share>) -> Result<(), Gone> {
        let share = share.map(Arc::new);
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = poll_fn(|cx| self.stream.poll_capacity(cx));
            let late = async {
                Timer::after(self.timeout).await;
                None
            };
            match room.or(late).await {
                Some(Ok(room)) => {
                    let bytes = bytes.split_to(room.min(bytes.len()));
                    let piece = Piece { bytes, _share: share.clone() };
                    self.stream.send_data(piece, false).map_err(|_| Gone)?;
                }
                Some(Err(_)) => return Err(Gone),
                None => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    /// Ends the stream.
    pub(super) fn end(mut self, status: &Status) {
        let mut trailers = HeaderMap::new();
        put_status(&mut trailers, status);
        let _ = self.stream.send_trailers(trailers);
    }

    /// Runs `work` until the peer gives the stream up.
    pub(super) async fn unless_gone<T>(&mut self, work: impl Future<Output = T> + Unpin) -> Result<T, Gone> {
        let gone = async {
            let _ = poll_fn(|cx| self.stream.poll_reset(cx)).await;
            Err(Gone)
        };
        async { Ok(work.await) }.or(gone).await
    }
}

fn put_status(fields: &mut HeaderMap, status: &Status) {
    fields.insert(GRPC_STATUS, HeaderValue::from_static(status.code.digits()));
    if !status.message.is_empty()
        && let Ok(message) = HeaderValue::try_from(status::encode_message(status.message.as_bytes()))
    {
        fields.insert(GRPC_MESSAGE, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_with_protobuf_is_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(value)), expected, "{value}");
        }
    }

    #[test]
    fn a_path_names_service_and_method() {
        assert_eq!(route("/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request").ok(), Some(Route::Call));
        assert_eq!(route("/grpc.health.v1.Health/Watch").ok(), Some(Route::HealthWatch));
        assert_eq!(
            route("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo").ok(),
            Some(Route::Reflection)
        );
        for path in [
            "",
            "/",
            "/TinyFaaS/Request",
            "/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request/x",
            "/grpc.health.v1.Health/check",
        ] {
            assert_eq!(route(path).map_err(|status| status.code), Err(Code::Unimplemented), "{path}");
        }
    }
}
