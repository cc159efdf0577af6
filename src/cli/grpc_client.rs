//! A gRPC client for `tinyfaas invoke grpc://…`, and for our own tests and benches.
//!
//! It knows `TinyFaaS/Request` alone; [`invoke`] says what its outcome means for a command.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_lite::FutureExt;
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, StatusCode, Version};
use prost::Message;

use super::error::{Error, ErrorKind};
use super::url::bracketed;
use super::wire;
use crate::h2_socket::Socket;
use crate::net::Stream;
use crate::reactor::{Async, Timer};
use crate::tls;
use crate::wire::grpc::descriptor::TINYFAAS;
use crate::wire::grpc::frame::MessageDecoder;
use crate::wire::grpc::message::{Data, Response, framed};
use crate::wire::grpc::status::{self, Code, Status};
use crate::wire::grpc::timeout;
use crate::wire::headers::Headers;

/// Bytes that the server may send ahead.
const WINDOW: u32 = 64 * 1024;
/// Bytes of a message that are taken from a server.
pub const MESSAGE_MAX: usize = 64 << 20;
/// Bytes of header fields that are taken from a server.
const HEADER_LIST_MAX: u32 = 32 * 1024;

/// How long a server may take for an answer; it has its own bound, which is shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Calls a function and returns its answer.
///
/// # Errors
/// What the command ends with: no connection, no such function, or the function's or the server's error.
pub(super) fn invoke(
    host: &str,
    port: u16,
    tls: Option<&tls::Client>,
    function: &str,
    body: Vec<u8>,
    metadata: &Headers,
) -> Result<Bytes, Error> {
    let authority = format!("{}:{port}", bracketed(host));
    let stream = wire::connect(host, port, &authority)?;
    let broke = |e: io::Error| wire::broke(&authority, &e);
    let work = async {
        let stream = match tls {
            Some(tls) => wire::secure(host, &authority, stream, tls).await?,
            None => Async::new(stream).map_err(broke)?.into(),
        };
        let (client, connection) = Client::new(stream, &authority).await.map_err(broke)?;
        let moving = async {
            let why = connection.await.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            Err(broke(why))
        };
        let call = async { client.call(function, body.into(), metadata, Some(ANSWER_TIMEOUT)).await.map_err(broke) };
        call.or(moving).await
    };
    let status = match crate::reactor::block_on(work)?.payload() {
        Ok(payload) => return Ok(payload),
        Err(status) => status,
    };
    let kind = match status.code {
        Code::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Failed,
    };
    Err(Error::new(kind, format!("{}: {}", status.code.name(), status.message)))
}

/// A connection to a server; each call is a stream of it.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    /// Scheme and authority.
    origin: String,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How the call ended.
    pub status: Status,
    /// Header fields of the answer; together with its trailers where there was no message.
    pub headers: HeaderMap,
    /// Fields after the messages.
    pub trailers: HeaderMap,
    /// The message, where there was one.
    pub message: Option<Bytes>,
}

impl Client {
    /// Begins HTTP/2 on `stream`. The future that comes with the client has to be polled beside it: it moves the bytes.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn new<S: Into<Stream>>(
        stream: S,
        authority: &str,
    ) -> io::Result<(Self, impl Future<Output = io::Result<()>> + Send + use<S>)> {
        let stream = stream.into();
        let scheme = if matches!(stream, Stream::Tls(_)) { "https" } else { "http" };
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(HEADER_LIST_MAX)
            .enable_push(false);
        let (send, connection) = builder.handshake(Socket::new(stream, ())).await.map_err(broke)?;
        let client = Self { send, origin: format!("{scheme}://{authority}") };
        Ok((client, async { connection.await.map_err(broke) }))
    }

    /// Calls a function with a body of any bytes and waits for the answer.
    ///
    /// # Errors
    /// The connection broke, or metadata holds what a header field cannot.
    pub async fn call(
        &self,
        function: &str,
        body: Bytes,
        metadata: &Headers,
        timeout: Option<Duration>,
    ) -> io::Result<Answer> {
        let function_identifier = Bytes::copy_from_slice(function.as_bytes());
        let data = Data { function_identifier, data: Bytes::new(), payload: Some(body) };
        let mut fields = HeaderMap::new();
        for (name, value) in metadata.iter() {
            let name = http::HeaderName::try_from(name).map_err(io::Error::other)?;
            fields.append(name, HeaderValue::from_bytes(value).map_err(io::Error::other)?);
        }
        let path = format!("/{TINYFAAS}/Request");
        let answer = self.unary(&path, framed(&data), fields, timeout);
        let Some(timeout) = timeout else { return answer.await };
        let late = async {
            // The server keeps the same time: it gets a little more, so that its own word is heard.
            Timer::after(timeout + Duration::from_millis(500)).await;
            let status = Status::new(Code::DeadlineExceeded, "the server did not answer in time");
            Ok(Answer { status, headers: HeaderMap::new(), trailers: HeaderMap::new(), message: None })
        };
        answer.or(late).await
    }

    /// Sends the bytes of `question`, a framed message or what a test wants instead, to the method at `path` and waits for
    /// the answer.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn unary(
        &self,
        path: &str,
        question: Bytes,
        metadata: HeaderMap,
        timeout: Option<Duration>,
    ) -> io::Result<Answer> {
        let mut request = Request::post(format!("{}{path}", self.origin))
            .version(Version::HTTP_2)
            .header("te", "trailers")
            .header("user-agent", concat!("tinyfaas/", env!("CARGO_PKG_VERSION")));
        if !metadata.contains_key(CONTENT_TYPE) {
            request = request.header(CONTENT_TYPE, "application/grpc");
        }
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout::format(timeout));
        }
        let mut request = request.body(()).map_err(io::Error::other)?;
        for (name, value) in &metadata {
            request.headers_mut().append(name, value.clone());
        }
        let mut send = self.send.clone().ready().await.map_err(broke)?;
        let (response, mut stream) = send.send_request(request, question.is_empty()).map_err(broke)?;
        let sending = async {
            // A server that answers early need not have read all.
            let _ = send_all(&mut stream, question).await;
            std::future::pending().await
        };
        let response = response.or(sending).await.map_err(broke)?;
        let (head, body) = response.into_parts();
        receive(head.status, head.headers, body).await
    }
}

impl Answer {
    /// The bytes of the function's answer.
    ///
    /// # Errors
    /// A status with what was wrong, also where the call ended with one.
    pub fn payload(self) -> Result<Bytes, Status> {
        if self.status.code != Code::Ok {
            return Err(self.status);
        }
        let message = self.message.unwrap_or_default();
        match Response::decode(message) {
            Ok(Response { payload: Some(payload), .. }) => Ok(payload),
            Ok(Response { response, .. }) => Ok(response),
            Err(e) => Err(Status::new(Code::Internal, format!("the server's answer is not a Response message: {e}"))),
        }
    }
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let piece = bytes.split_to(room?.min(bytes.len()));
        stream.send_data(piece, bytes.is_empty())?;
    }
    Ok(())
}

async fn receive(code: StatusCode, headers: HeaderMap, mut body: RecvStream) -> io::Result<Answer> {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if code != StatusCode::OK || !grpc {
        let text = format!("the server answered HTTP status {} without gRPC", code.as_u16());
        let status = Status::new(Code::of_foreign(code.as_u16()), text);
        return Ok(Answer { status, headers, trailers: HeaderMap::new(), message: None });
    }
    let mut decoder = MessageDecoder::new(MESSAGE_MAX);
    let mut message = None;
    while let Some(data) = body.data().await {
        let mut data = data.map_err(broke)?;
        let _ = body.flow_control().release_capacity(data.len());
        while let Some(more) = decoder.decode(&mut data).map_err(io::Error::other)? {
            message = Some(more.bytes);
            if data.is_empty() {
                break;
            }
        }
    }
    let trailers = body.trailers().await.map_err(broke)?.unwrap_or_default();
    let status = status(&trailers).or_else(|| status(&headers));
    let status = status.unwrap_or_else(|| Status::new(Code::Unknown, "the server's answer has no grpc-status"));
    Ok(Answer { status, headers, trailers, message })
}

fn status(fields: &HeaderMap) -> Option<Status> {
    let code = Code::from_header(fields.get("grpc-status")?.as_bytes());
    let message = fields.get("grpc-message").map_or(String::new(), |text| status::decode_message(text.as_bytes()));
    Some(Status { code, message })
}

/// `bytes` as a compressed message.
pub fn framed_gzip(bytes: &[u8]) -> Bytes {
    let packed = crate::wire::grpc::gzip::pack(bytes);
    let mut frame = Vec::with_capacity(5 + packed.len());
    frame.put_u8(1);
    frame.put_u32(u32::try_from(packed.len()).unwrap_or(u32::MAX));
    frame.extend(packed);
    frame.into()
}

fn broke(e: h2::Error) -> io::Error {
    if e.is_io() { e.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()) } else { io::Error::other(e) }
}
