//! The HTTP front door: `/NAME` calls a function.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use async_executor::StaticExecutor;
use log::Level;

use crate::budget::Budget;
use crate::call::{Body, Call, Failure, FailureKind, Method, Protocol};
use crate::call_id::{self, CallId};
use crate::client::Client;
use crate::dispatch::{Dispatch, Reply};
use crate::http_server::{Head, RequestBody, Responder, Service};
use crate::logging::about_call;
use crate::seats::Seats;
use crate::tokens::bearer;
use crate::wire::headers::Headers;
use crate::wire::http1::percent_decode;

/// Largest body of an asynchronous call in bytes: it is held whole, since its sender does not wait for the handler.
pub const ASYNC_BODY: usize = 64 * 1024;

/// Answers HTTP requests with what functions say.
pub struct Front {
    dispatch: Arc<Dispatch>,
    executor: &'static StaticExecutor,
    /// Asynchronous calls that may be under way at once.
    async_calls: Arc<Seats>,
    budget: Budget,
}

/// A request target that names a function.
struct Target<'t> {
    function: Cow<'t, str>,
    path: &'t str,
    query: &'t str,
}

impl Front {
    /// A front door to the functions of `dispatch`. At most `async_calls` calls whose callers do not wait are under way
    /// at once, and their bodies come from `budget`.
    pub fn new(dispatch: Arc<Dispatch>, executor: &'static StaticExecutor, async_calls: usize, budget: Budget) -> Self {
        Self { dispatch, executor, async_calls: Seats::new(async_calls, async_calls.div_ceil(2)), budget }
    }

    /// What is seldom needed is boxed: each call pays for what its future may hold.
    async fn call(
        &self,
        id: &CallId,
        head: &Head,
        token: Option<&str>,
        later: bool,
        body: &mut RequestBody<'_>,
        respond: Responder<'_>,
    ) -> io::Result<()> {
        let Some(method) = Method::of_http(&head.method) else {
            let mut allow = Headers::new();
            let _ = allow.push("allow", b"GET, HEAD, POST, PUT, PATCH, DELETE");
            let text = "call a function with GET, HEAD, POST, PUT, PATCH or DELETE";
            return Box::pin(respond.text_with(405, &allow, text)).await;
        };
        let target = match target(&head.target) {
            Ok(target) => target,
            Err(text) => return Box::pin(respond.text(400, text)).await,
        };
        if later {
            return match Box::pin(self.call_later(id, method, &target, head, body)).await {
                Ok(()) => Box::pin(respond.text(202, "accepted")).await,
                Err(failure) => Box::pin(refuse(respond, &failure)).await,
            };
        }
        let call = Call {
            id,
            function: &target.function,
            method,
            path: target.path,
            query: target.query,
            headers: &head.headers,
            body: Body::Stream(body),
            token,
            deadline: None,
            protocol: Protocol::Http,
            client: Some(Client::of(head.peer.ip())),
        };
        match self.dispatch.call(call).await {
            Ok(mut reply) => pass_on(&mut reply, respond).await,
            Err(failure) => Box::pin(refuse(respond, &failure)).await,
        }
    }

    /// Takes a call whose caller does not wait for its end.
    async fn call_later(
        &self,
        id: &CallId,
        method: Method,
        target: &Target<'_>,
        head: &Head,
        body: &mut RequestBody<'_>,
    ) -> Result<(), Failure> {
        let (headers, client) = (&head.headers, Client::of(head.peer.ip()));
        self.dispatch.callable(&target.function, token(headers))?;
        let busy =
            || Failure::new(FailureKind::QueueFull, "too many asynchronous calls are under way: try again later");
        let place = self.async_calls.try_take(client).ok_or_else(busy)?;
        let too_large =
            || Failure::new(FailureKind::TooLarge, "the body of an asynchronous call may be at most 65536 bytes");
        if body.is_longer_than(ASYNC_BODY as u64) {
            return Err(too_large());
        }
        let mut share = self.budget.of(client).take(0).ok_or_else(busy)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 1024];
        loop {
            let n = body.read(&mut piece).await.map_err(|e| Failure::new(FailureKind::BadRequest, e.to_string()))?;
            if n == 0 {
                break;
            }
            if bytes.len() + n > ASYNC_BODY {
                return Err(too_large());
            }
            if !share.grow(n) {
                return Err(busy());
            }
            bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
        }
        let (dispatch, headers, id) = (Arc::clone(&self.dispatch), headers.clone(), *id);
        let (function, path, query) =
            (target.function.clone().into_owned(), target.path.to_owned(), target.query.to_owned());
        let later = async move {
            let call = Call {
                id: &id,
                function: &function,
                method,
                path: &path,
                query: &query,
                headers: &headers,
                body: Body::Bytes(&bytes),
                token: token(&headers),
                deadline: None,
                protocol: Protocol::Http,
                client: Some(client),
            };
            if let Err(failure) = discard(dispatch.call(call).await).await {
                let text = format_args!("asynchronous call of {function} failed: {failure}");
                about_call(Level::Warn, Some(&function), &id, text);
            }
            drop((place, share));
        };
        self.executor.spawn(later).detach();
        Ok(())
    }
}

impl Service for Front {
    async fn serve<'c>(&'c self, head: Head, mut body: RequestBody<'c>, mut respond: Responder<'c>) -> io::Result<()> {
        let [id, later, authorization] = head.headers.find([call_id::FIELD, "x-tinyfaas-async", "authorization"]);
        let id = CallId::of(id);
        respond.answers(&id);
        let Head { method, target, peer, .. } = &head;
        about_call(Level::Debug, None, &id, format_args!("http {method} {target} from {peer}"));
        let token = authorization.and_then(|value| std::str::from_utf8(value).ok()).and_then(bearer);
        self.call(&id, &head, token, later.is_some(), &mut body, respond).await
    }
}

async fn discard(reply: Result<Reply<'_>, Failure>) -> Result<(), Failure> {
    let mut reply = reply?;
    while !reply.chunk().await?.is_empty() {}
    match reply.status {
        status @ 500.. => Err(Failure::new(FailureKind::HandlerBroke, format!("it answered {status}"))),
        _ => Ok(()),
    }
}

/// Passes a handler's answer on as it comes.
async fn pass_on(reply: &mut Reply<'_>, respond: Responder<'_>) -> io::Result<()> {
    // The answer has one, be it what the function says or not.
    reply.headers.remove(call_id::FIELD);
    let mut pieces = respond.pieces(reply.status, &reply.headers, reply.length());
    loop {
        match reply.chunk().await {
            Ok([]) => return pieces.finish().await,
            Ok(piece) => pieces.send(piece).await?,
            Err(failure) if pieces.is_unsent() => {
                return Box::pin(refuse(pieces.into_responder(), &failure)).await;
            }
            // The head is out: only a connection that breaks off can say that the answer is not whole.
            Err(failure) => return Err(io::Error::other(failure)),
        }
    }
}

async fn refuse(mut respond: Responder<'_>, failure: &Failure) -> io::Result<()> {
    let status = failure.kind.http_status();
    if matches!(failure.kind, FailureKind::BadRequest | FailureKind::TooLarge) {
        // The rest of the body cannot be told from a next request.
        respond.close_after();
    }
    let mut headers = Headers::new();
    // Constants: they cannot be refused.
    let _ = match status {
        401 => headers.push("www-authenticate", b"Bearer realm=\"tinyfaas\""),
        503 => headers.push("retry-after", b"1"),
        _ => Ok(()),
    };
    respond.text_with(status, &headers, &failure.text).await
}

/// The token that the caller sent (RFC 6750 §2.1).
fn token(headers: &Headers) -> Option<&str> {
    headers.get_str("authorization").and_then(bearer)
}

/// `/NAME/deeper?query`; slashes before the name do not matter.
fn target(target: &str) -> Result<Target<'_>, &'static str> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.trim_start_matches('/');
    let (name, path) = path.find('/').and_then(|at| path.split_at_checked(at)).unwrap_or((path, ""));
    let function = match name.contains('%') {
        true => percent_decode(name).ok_or("the function's name has a broken percent escape")?.into(),
        false => name.into(),
    };
    Ok(Target { function, path, query })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, &str, &str) {
        let t = target(text).unwrap();
        (t.function.into_owned(), t.path, t.query)
    }

    #[test]
    fn a_target_names_a_function_and_what_follows_it() {
        assert_eq!(parts("/sieve"), ("sieve".into(), "", ""));
        assert_eq!(parts("///sieve?n=1?2"), ("sieve".into(), "", "n=1?2"));
        assert_eq!(parts("/sieve/a/b%2F?x"), ("sieve".into(), "/a/b%2F", "x"));
        assert_eq!(parts("/si%65ve/"), ("sieve".into(), "/", ""));
        assert_eq!(parts("/"), (String::new(), "", ""));
        assert!(target("/%f").is_err());
    }
}
