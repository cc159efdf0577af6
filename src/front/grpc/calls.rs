//! `TinyFaaS/Request`: a message becomes a [`Call`], its outcome a message or a status.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use futures_lite::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;

use super::Door;
use super::peer::Busy;
use super::question::{Question, no_room};
use super::stream::{Answer, Asked, Gone};
use crate::budget::Share;
use crate::call::{Body, Call, Failure, FailureKind, Method, Protocol};
use crate::call_id::{self, CallId};
use crate::client::Client;
use crate::dispatch::Reply;
use crate::reactor::Timer;
use crate::tokens::bearer;
use crate::wire::grpc::message::{Data, Field, ResponseBuilder};
use crate::wire::grpc::metadata;
use crate::wire::grpc::status::{Code, MESSAGE_MAX, Status};
use crate::wire::headers::Headers;

/// Bytes of a message to one of the services that are not calls of functions.
pub(super) const SMALL_MESSAGE: usize = 4 * 1024;
/// Bytes of metadata in an answer, counted as RFC 9113 §6.5.2 does; the function's further headers are left out. Most
/// clients refuse header lists over 8 KiB.
const METADATA_MAX: usize = 4 * 1024;
/// What each field counts besides its name and value, RFC 9113 §6.5.2.
const FIELD_OVERHEAD: usize = 32;

/// What came of a call.
struct Outcome {
    status: Status,
    /// The function's headers.
    metadata: HeaderMap,
    message: Option<(Bytes, Share)>,
}

impl Outcome {
    fn failed(status: Status) -> Self {
        Self { status, metadata: HeaderMap::new(), message: None }
    }
}

/// Answers `TinyFaaS/Request`.
pub(super) async fn request(
    door: &Door,
    busy: &Busy,
    asked: Asked,
    mut question: Question,
    mut answer: Answer,
) -> Result<(), Gone> {
    if door.shutdown.has_begun() {
        let status = Status::new(Code::Unavailable, "the runtime is stopping: try again later");
        answer.end_without_message(&status, HeaderMap::new());
        return Ok(());
    }
    let id = CallId::of(asked.fields.get(call_id::FIELD).map(HeaderValue::as_bytes));
    let mut outcome = {
        // Pinned where it is: each function that takes a future by its value holds it twice.
        let work = async { outcome(door, busy, &id, &asked, &mut question).await.unwrap_or_else(Outcome::failed) };
        answer.unless_gone(pin!(work)).await?
    };
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        // Whatever the function says.
        outcome.metadata.insert(HeaderName::from_static(call_id::FIELD), id);
    }
    // What the question holds is free while the answer is sent.
    drop((asked, question));
    let Some((message, share)) = outcome.message else {
        answer.end_without_message(&outcome.status, outcome.metadata);
        return Ok(());
    };
    let mut sending = answer.begin(outcome.metadata)?;
    sending.message(message, Some(share)).await?;
    sending.end(&outcome.status);
    Ok(())
}

async fn outcome(
    door: &Door,
    busy: &Busy,
    id: &CallId,
    asked: &Asked,
    question: &mut Question,
) -> Result<Outcome, Status> {
    // As with the other protocols, it is a part of the call's time.
    let latest = Instant::now() + door.config.question_timeout;
    let deadline = Some(asked.deadline.map_or(latest, |deadline| deadline.min(latest)));
    let message = before(deadline, pin!(question.only())).await?;
    busy.asked();
    let data = Data::decode(message)
        .map_err(|e| Status::new(Code::Internal, format!("the message is not a Data message: {e}")))?;
    let function = text(&data.function_identifier, "functionIdentifier")?;
    let (field, body) = match &data.payload {
        Some(payload) => (Field::Bytes, &payload[..]),
        None => (Field::Text, text(&data.data, "data")?.as_bytes()),
    };
    let headers = headers(&asked.fields)?;
    let call = Call {
        id,
        function,
        method: Method::Post,
        path: "",
        query: "",
        headers: &headers,
        body: Body::Bytes(body),
        token: asked.fields.get(AUTHORIZATION).and_then(|field| bearer(field.to_str().ok()?)),
        deadline: asked.deadline,
        protocol: Protocol::Grpc,
        client: Some(busy.client()),
    };
    let mut reply = door.dispatch.call(call).await.map_err(of_failure)?;
    let metadata = metadata(&reply.headers);
    if reply.status >= 400 {
        let status = function_failed(&mut reply).await?;
        return Ok(Outcome { status, metadata, message: None });
    }
    let collected = collect(&mut reply, door, busy.client()).await;
    if collected.is_err() {
        reply.refused(500);
    }
    let (answer, share) = collected?;
    if field == Field::Text && std::str::from_utf8(answer.body()).is_err() {
        let text = "the function's answer is not UTF-8, which a string field cannot hold: ask with the field `payload`";
        return Ok(Outcome { status: Status::new(Code::Internal, text), metadata, message: None });
    }
    Ok(Outcome { status: Status::new(Code::Ok, ""), metadata, message: Some((answer.finish(field), share)) })
}

/// Text that the protocol wants to be UTF-8.
fn text<'a>(bytes: &'a Bytes, field: &str) -> Result<&'a str, Status> {
    std::str::from_utf8(bytes).map_err(|_| {
        let text = format!("the field {field} is not UTF-8: send other bytes in the field `payload`");
        Status::new(Code::Internal, text)
    })
}

/// The caller's metadata as the function's headers. A timeout is passed on as it came.
fn headers(fields: &HeaderMap) -> Result<Headers, Status> {
    let mut headers = Headers::new();
    let passed = |name: &HeaderName| !metadata::is_reserved(name.as_str()) || name.as_str() == "grpc-timeout";
    for (name, value) in fields.iter().filter(|(name, _)| passed(name)) {
        headers
            .push(name.as_str(), value.as_bytes())
            .map_err(|e| Status::new(Code::Internal, format!("bad metadata {}: {e}", name.as_str())))?;
    }
    Ok(headers)
}

/// The function's headers as metadata: those that clients accept, up to [`METADATA_MAX`].
fn metadata(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut size = 0;
    for (name, value) in headers.iter() {
        let name = name.to_ascii_lowercase();
        if !metadata::is_metadata(&name, value) {
            continue;
        }
        size += name.len() + value.len() + FIELD_OVERHEAD;
        if size > METADATA_MAX {
            log::debug!("gRPC: left out a function's headers from {name} on");
            break;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

/// The status for a function that answered 400 or more: its body is the message.
async fn function_failed(reply: &mut Reply<'_>) -> Result<Status, Status> {
    let mut text = Vec::new();
    loop {
        let part = reply.chunk().await.map_err(of_failure)?;
        if part.is_empty() || text.len() > MESSAGE_MAX {
            break;
        }
        text.extend_from_slice(part.get(..part.len().min(MESSAGE_MAX + 1)).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(text.trim_ascii_end());
    let message = if text.is_empty() { format!("the function answered {}", reply.status) } else { text.into_owned() };
    Ok(Status::new(Code::of_function(reply.status), message))
}

/// Reads the function's answer, paid for by the budget.
async fn collect(reply: &mut Reply<'_>, door: &Door, client: Client) -> Result<(ResponseBuilder, Share), Status> {
    let max = door.config.message;
    let too_large = || {
        let text = format!("the function's answer is larger than {max} bytes");
        Status::new(Code::ResourceExhausted, text)
    };
    let known = match reply.length() {
        Some(length) => usize::try_from(length).ok().filter(|n| *n <= max).ok_or_else(too_large)?,
        None => 0,
    };
    let mut share = door.budget.of(client).take(known).ok_or_else(no_room)?;
    let mut answer = ResponseBuilder::with_capacity(known);
    loop {
        let part = reply.chunk().await.map_err(of_failure)?;
        if part.is_empty() {
            return Ok((answer, share));
        }
        if answer.body().len() + part.len() > max {
            return Err(too_large());
        }
        let more = answer.missing(part.len());
        if more > 0 {
            if !share.grow(more) {
                return Err(no_room());
            }
            answer.reserve(more);
        }
        answer.extend(part);
    }
}

fn of_failure(failure: Failure) -> Status {
    let code = match failure.kind {
        FailureKind::Unauthorized => Code::Unauthenticated,
        FailureKind::UnknownFunction => Code::NotFound,
        FailureKind::BadRequest => Code::Internal,
        FailureKind::TooLarge | FailureKind::QueueFull => Code::ResourceExhausted,
        FailureKind::Unavailable | FailureKind::HandlerBroke => Code::Unavailable,
        FailureKind::TooLate => Code::DeadlineExceeded,
    };
    Status::new(code, failure.text)
}

/// Waits for `work` until the caller's deadline.
pub(super) async fn before<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Status>> + Unpin,
) -> Result<T, Status> {
    let Some(deadline) = deadline else { return work.await };
    let late = async {
        Timer::at(deadline).await;
        Err(Status::new(Code::DeadlineExceeded, "the deadline passed"))
    };
    work.or(late).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn each_failure_of_a_call_has_its_code() {
        let code = |kind| of_failure(Failure::new(kind, "")).code;
        assert_eq!(code(FailureKind::UnknownFunction), Code::NotFound);
        assert_eq!(code(FailureKind::Unauthorized), Code::Unauthenticated);
        assert_eq!(code(FailureKind::BadRequest), Code::Internal);
        assert_eq!(code(FailureKind::TooLarge), Code::ResourceExhausted);
        assert_eq!(code(FailureKind::QueueFull), Code::ResourceExhausted);
        assert_eq!(code(FailureKind::Unavailable), Code::Unavailable);
        assert_eq!(code(FailureKind::HandlerBroke), Code::Unavailable);
        assert_eq!(code(FailureKind::TooLate), Code::DeadlineExceeded);
    }

    #[test]
    fn metadata_reaches_the_function_without_the_protocols_own() {
        let fields = map(&[
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-python/1.0"),
            ("grpc-accept-encoding", "gzip"),
            ("grpc-timeout", "5S"),
            ("trace-bin", "AAEC"),
            ("x-a", "1"),
        ]);
        let headers = headers(&fields).unwrap();
        let names: Vec<_> = headers.iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["user-agent", "grpc-timeout", "trace-bin", "x-a"]);
        assert_eq!(headers.get_str("trace-bin"), Some("AAEC"));
    }

    #[test]
    fn a_functions_headers_become_metadata_that_clients_accept() {
        let mut headers = Headers::new();
        for (name, value) in [
            ("Content-Type", "text/html"),
            ("X-Answer", "42"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("bad-bin", "not base64!"),
            ("Server", "caf\u{e9}"),
            ("grpc-status", "0"),
        ] {
            headers.push(name, value.as_bytes()).unwrap();
        }
        let metadata = metadata(&headers);
        let fields: Vec<_> = metadata.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(fields, [("x-answer", &b"42"[..]), ("set-cookie", b"a=1"), ("set-cookie", b"b=2")]);
    }

    #[test]
    fn a_flood_of_headers_from_a_function_is_bounded() {
        let mut headers = Headers::new();
        for i in 0..100 {
            headers.push(&format!("x-{i}"), &[b'v'; 100]).unwrap();
        }
        assert!((20..=30).contains(&metadata(&headers).len()), "{}", metadata(&headers).len());
    }
}
