//! `POST /functions/NAME/call`: calls a function for who looks after it, through the same dispatcher as the front doors.
//!
//! Management is one origin to a browser, and what a function answers must not act in its name. So the answer is not passed on as
//! it is: it comes whole, as `message/http` (RFC 9112 §10.1), inside an answer of ours. Its status, its redirects, its cookies and its type
//! mean nothing to the browser then.

use std::io;

use super::{Management, bad, content_type, refuse};
use crate::call::{Body, Call, Failure, FailureKind, Method, Protocol};
use crate::call_id::{self, CallId};
use crate::client::Client;
use crate::deploy::DeployError;
use crate::function::Name;
use crate::http_server::{Head, Pieces, RequestBody, Responder};
use crate::tokens::bearer;
use crate::wire::headers::Headers;
use crate::wire::http1::{Framing, ResponseHead};

/// The fields that say with which method, and with which `Authorization`, the function is called: the request's own are ours.
const METHOD: &str = "x-tinyfaas-method";
const AUTHORIZATION: &str = "x-tinyfaas-authorization";
/// Fields between a browser and management that are not the function's business. The first two may hold secrets.
const WITHHELD: [&str; 5] = ["authorization", "cookie", "origin", "referer", "accept-encoding"];

impl Management {
    /// Calls a function with the body, path and query of the request.
    pub(super) async fn call(
        &self,
        (name, path, query): (&str, &str, &str),
        head: &Head,
        body: &mut RequestBody<'_>,
        respond: Responder<'_>,
    ) -> io::Result<()> {
        let asked = Name::parse(name).map_err(bad).and_then(|name| {
            self.known(&name)?;
            Ok((called_with(&head.headers)?, passed(&head.headers)?))
        });
        let (method, headers) = match asked {
            Ok(asked) => asked,
            Err(e) => return refuse(respond, &e).await,
        };
        body.bound(self.settings().max_body);
        let id = &CallId::of(head.headers.get(call_id::FIELD));
        let call = Call {
            id,
            function: name,
            method,
            path,
            query,
            headers: &headers,
            body: Body::Stream(body),
            token: headers.get_str("authorization").and_then(bearer),
            deadline: None,
            protocol: Protocol::Http,
            client: Some(Client::of(head.peer.ip())),
        };
        match self.deployer.dispatch().call(call).await {
            Ok(mut reply) => {
                // The answer has one, be it what the function says or not.
                reply.headers.remove(call_id::FIELD);
                let framing = reply.length().map_or(Framing::UntilClose, Framing::Length);
                let mut pieces = begin(respond, id, reply.status, &reply.headers, framing).await?;
                loop {
                    match reply.chunk().await {
                        Ok([]) => return pieces.finish().await,
                        Ok(piece) => pieces.send(piece).await?,
                        // Only a connection that breaks off can say that the answer is not whole.
                        Err(failure) => return Err(io::Error::other(failure)),
                    }
                }
            }
            Err(failure) => fail(respond, id, &failure).await,
        }
    }
}

/// Answers what the front door would have.
async fn fail(mut respond: Responder<'_>, id: &CallId, failure: &Failure) -> io::Result<()> {
    if matches!(failure.kind, FailureKind::BadRequest | FailureKind::TooLarge) {
        // The rest of the body cannot be told from a next request.
        respond.close_after();
    }
    let headers = content_type(super::TEXT);
    let mut pieces = begin(respond, id, failure.kind.http_status(), &headers, Framing::UntilClose).await?;
    pieces.send(failure.text.as_bytes()).await?;
    pieces.send(b"\n").await?;
    pieces.finish().await
}

/// Begins the answer with the head of the function's.
async fn begin<'c>(
    respond: Responder<'c>,
    id: &CallId,
    status: u16,
    headers: &Headers,
    framing: Framing,
) -> io::Result<Pieces<'c>> {
    let mut ours = content_type("message/http");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cache-control", "no-store"),
    ] {
        // Constants: they cannot be refused.
        let _ = ours.push(name, value.as_bytes());
    }
    let mut pieces = respond.pieces(200, &ours, None);
    let mut head = Vec::new();
    ResponseHead { status, headers, framing, keep_alive: true, http10: false, call: Some(id.as_bytes()) }
        .write(&mut head);
    pieces.send(&head).await?;
    Ok(pieces)
}

/// The method that the function is called with.
fn called_with(headers: &Headers) -> Result<Method, DeployError> {
    let Some(name) = headers.get(METHOD) else { return Ok(Method::Post) };
    let known = std::str::from_utf8(name).ok().and_then(Method::of_http).filter(|method| *method != Method::Head);
    known.ok_or_else(|| bad(format!("{METHOD} is GET, POST, PUT, PATCH or DELETE")))
}

/// The fields that the function gets.
fn passed(headers: &Headers) -> Result<Headers, DeployError> {
    let mut passed = Headers::new();
    for (name, value) in headers.iter() {
        let lower = name.to_ascii_lowercase();
        if WITHHELD.contains(&lower.as_str()) || lower.starts_with("sec-") {
            continue;
        }
        let name = if lower == AUTHORIZATION { "authorization" } else { name };
        passed.push(name, value).map_err(|e| bad(e.to_string()))?;
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value.as_bytes()).unwrap();
        }
        headers
    }

    #[test]
    fn a_function_never_sees_what_a_browser_or_the_command_line_tells_management() {
        let given = fields(&[
            ("Host", "b"),
            ("Authorization", "Bearer ours"),
            ("X-Tinyfaas-Authorization", "Bearer its"),
            ("Cookie", "a=b"),
            ("Origin", "http://b"),
            ("Sec-Fetch-Site", "same-origin"),
            ("Content-Type", "text/plain"),
        ]);
        let expected = fields(&[("Host", "b"), ("authorization", "Bearer its"), ("Content-Type", "text/plain")]);
        assert_eq!(passed(&given).unwrap(), expected);
    }

    #[test]
    fn the_method_is_post_or_what_is_said() {
        assert_eq!(called_with(&Headers::new()).unwrap(), Method::Post);
        assert_eq!(called_with(&fields(&[("X-Tinyfaas-Method", "PUT")])).unwrap(), Method::Put);
        for wrong in ["HEAD", "get", "TRACE", ""] {
            assert_eq!(called_with(&fields(&[("x-tinyfaas-method", wrong)])).unwrap_err().status, 400, "{wrong}");
        }
    }
}
