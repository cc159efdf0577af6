//! What every front door hands to the dispatcher, and what comes back.
//!
//! A [`Call`] and its [`Failure`] know no protocol; the reply is [`crate::dispatch::Reply`], since it holds
//! the connection to the handler that is answering.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::call_id::CallId;
use crate::client::Client;
use crate::wire::headers::Headers;

/// What the caller wants done; reaches the function as `X-Tinyfaas-Method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read something.
    Get,
    /// As `Get`, but the front door drops the body of the answer.
    Head,
    /// Do something; what a call without a better word is.
    Post,
    /// Store something.
    Put,
    /// Change a part of something.
    Patch,
    /// Remove something.
    Delete,
    /// CoAP's `GET` with a body, RFC 8132 §2.
    Fetch,
}

impl Method {
    /// Whether it asks for nothing to be changed (RFC 9110 §9.2.1, RFC 8132 §2).
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Fetch)
    }

    /// The method that HTTP calls so, of those that functions are called with over it.
    pub fn of_http(name: &str) -> Option<Self> {
        let known = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete];
        known.into_iter().find(|method| method.name() == name)
    }

    /// The method's name as HTTP spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Fetch => "FETCH",
        }
    }
}

/// The protocol a call came by; a label for logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// CoAP over UDP.
    Coap,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Protocol {
    /// Every protocol there is, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Http, Self::Coap, Self::Grpc];

    /// The protocol as it is labelled.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Coap => "coap",
            Self::Grpc => "grpc",
        }
    }
}

/// One invocation of a function.
pub struct Call<'a> {
    /// What it is known by; reaches the function as `X-Call-Id`.
    pub id: &'a CallId,
    /// The function's name.
    pub function: &'a str,
    /// What the caller wants done.
    pub method: Method,
    /// What follows the function's name in the path: empty, or it starts with `/`.
    pub path: &'a str,
    /// The query without its `?`; empty where there is none.
    pub query: &'a str,
    /// The caller's header fields, hop-by-hop ones already dropped.
    pub headers: &'a Headers,
    /// The body.
    pub body: Body<'a>,
    /// The token that the caller sent, if it sent one.
    pub token: Option<&'a str>,
    /// When the caller stops waiting, if it said so; the function's own timeout holds as well.
    pub deadline: Option<Instant>,
    /// Where the call came from.
    pub protocol: Protocol,
    /// Whose it is, for bounds; all whose client is not known are one's.
    pub client: Option<Client>,
}

/// The body of a call.
pub enum Body<'a> {
    /// A body that its front door holds whole, within that front door's budget.
    Bytes(&'a [u8]),
    /// A body that still arrives.
    Stream(&'a mut (dyn BodyStream + Send)),
}

impl Body<'_> {
    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::Stream(source) => source.length() == Some(0) || source.is_whole(),
        }
    }

    /// Completes when it is.
    pub(crate) async fn whole(&mut self) -> io::Result<()> {
        match self {
            Self::Bytes(_) => Ok(()),
            Self::Stream(source) => std::future::poll_fn(|cx| source.poll_whole(cx)).await,
        }
    }
}

/// A body that arrives in pieces.
pub trait BodyStream {
    /// The body's length in bytes where it is known beforehand.
    fn length(&self) -> Option<u64>;

    /// Whether all of it is here, so that reading it never waits for its sender.
    fn is_whole(&self) -> bool {
        false
    }

    /// Takes in what comes, as far as there is room without anybody who reads; completes when the body is whole.
    ///
    /// # Errors
    /// As [`BodyStream::poll_read`].
    fn poll_whole(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    /// Reads the next piece into `buf`; 0 means the body is complete.
    ///
    /// # Errors
    /// The caller went away, was too slow, or sent what is not a body.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;
}

/// Why a call has no answer from the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is: front doors choose their status by it.
    pub kind: FailureKind,
    /// One line for the caller: what was wrong and what would be right.
    pub text: Cow<'static, str>,
}

/// The kinds of [`Failure`], and what each front door makes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No function of that name. HTTP 404, CoAP 4.04, gRPC `NOT_FOUND`.
    UnknownFunction,
    /// The function wants a token, and the caller sent none or a wrong one. HTTP 401, CoAP 4.01, gRPC `UNAUTHENTICATED`.
    Unauthorized,
    /// The caller's own message was broken. HTTP 400, CoAP 4.00, gRPC `INTERNAL`.
    BadRequest,
    /// The body passes a bound. HTTP 413, CoAP 4.13, gRPC `RESOURCE_EXHAUSTED`.
    TooLarge,
    /// All handlers are busy and the queue is full. HTTP 503, CoAP 5.03, gRPC `RESOURCE_EXHAUSTED`.
    QueueFull,
    /// The runtime is stopping, or the function has no handler. HTTP 503, CoAP 5.03, gRPC `UNAVAILABLE`.
    Unavailable,
    /// The handler went away or did not speak HTTP. HTTP 502, CoAP 5.02, gRPC `UNAVAILABLE`.
    HandlerBroke,
    /// No answer within the call's deadline. HTTP 504, CoAP 5.04, gRPC `DEADLINE_EXCEEDED`.
    TooLate,
}

impl FailureKind {
    /// The HTTP status for this failure (RFC 9110 §15).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::UnknownFunction => 404,
            Self::TooLarge => 413,
            Self::HandlerBroke => 502,
            Self::QueueFull | Self::Unavailable => 503,
            Self::TooLate => 504,
        }
    }
}

impl Failure {
    /// A failure with its line of text.
    pub fn new(kind: FailureKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
