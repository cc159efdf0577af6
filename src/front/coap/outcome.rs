//! What a function is asked for a CoAP request, and what it says as a CoAP answer.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};

use crate::budget::Budget;
use crate::call::{Body, Call, Failure, FailureKind, Method, Protocol};
use crate::call_id::CallId;
use crate::client::Client;
use crate::dispatch::{Dispatch, Reply};
use crate::wire::coap::{Answer, Code, Etag, Held, Location, Task, format};
use crate::wire::headers::Headers;

/// What bounds an answer's body.
pub struct Bounds<'b> {
    /// Whose call it is; nobody's where a function runs for those that observe it.
    pub client: Option<Client>,
    /// Its length in bytes.
    pub max_body: usize,
    /// Where its bytes come from.
    pub budget: &'b Budget,
    /// Frees some of the budget; `false` where nothing can be freed.
    pub make_room: &'b (dyn Fn() -> bool + Sync),
}

/// Max-Age of a failure that will pass, in seconds: when to try again (RFC 7252 §5.9.3.4).
const RETRY_AFTER: u32 = 5;

/// The Uri-Query option that holds a token. CoAP has no field for one but in OSCORE's and DTLS's ways.
const TOKEN: &str = "token=";

/// Calls the function.
pub async fn of(dispatch: &Dispatch, task: &Task, bounds: &Bounds<'_>) -> Answer {
    let (token, query) = token_of(&task.query);
    // CoAP has no option for one: neither does the request say it, nor the answer.
    let id = CallId::make();
    let call = Call {
        id: &id,
        function: &task.name,
        method: method(task.method),
        path: &task.path,
        query: &query,
        headers: &task.headers,
        body: Body::Bytes(task.body.as_bytes()),
        token,
        deadline: None,
        protocol: Protocol::Coap,
        client: bounds.client,
    };
    match dispatch.call(call).await {
        Ok(reply) => collect(reply, task.method, bounds).await.unwrap_or_else(|failure| refusal(&failure)),
        Err(failure) => refusal(&failure),
    }
}

/// The token of a query, which is not the function's business, and the rest of it.
fn token_of(query: &str) -> (Option<&str>, Cow<'_, str>) {
    let token = query.split('&').find_map(|part| part.strip_prefix(TOKEN));
    match token {
        None => (None, Cow::Borrowed(query)),
        Some(_) => {
            let rest: Vec<&str> = query.split('&').filter(|part| !part.starts_with(TOKEN)).collect();
            (token, Cow::Owned(rest.join("&")))
        }
    }
}

async fn collect(mut reply: Reply<'_>, method: Code, bounds: &Bounds<'_>) -> Result<Answer, Failure> {
    let mut answer = answer(reply.status, &reply.headers, method);
    let too_long = |length: u64| length > bounds.max_body as u64;
    if too_long(reply.length().unwrap_or_default()) {
        reply.refused(500);
        return Ok(longer(bounds));
    }
    loop {
        let piece = reply.chunk().await?;
        if piece.is_empty() {
            return Ok(answer);
        }
        if too_long((answer.body.len() + piece.len()) as u64) {
            reply.refused(500);
            return Ok(longer(bounds));
        }
        while !answer.body.extend(piece, bounds.budget) {
            if !(bounds.make_room)() {
                reply.refused(503);
                return Err(Failure::new(FailureKind::QueueFull, "no room for the function's answer now"));
            }
        }
    }
}

fn longer(bounds: &Bounds<'_>) -> Answer {
    let text = format!("the function's answer is longer than the {} bytes that CoAP may carry here", bounds.max_body);
    Answer::failure(Code::INTERNAL, Held::line(text))
}

/// The head of an answer, by the function's status and header fields.
fn answer(status: u16, headers: &Headers, method: Code) -> Answer {
    let code = headers.get_str("coap-code").and_then(Code::parse);
    let code = code.unwrap_or_else(|| format::code_of_status(status, method));
    let content_type = headers.get_str("content-type");
    let format = match content_type {
        Some(named) => format::number(named).or_else(|| is_text(named).then_some(format::TEXT)),
        // A diagnostic payload has no Content-Format (RFC 7252 §5.5.2).
        None => code.is_success().then_some(format::TEXT),
    };
    Answer {
        code,
        format: format.filter(|format| code.is_success() || *format != format::TEXT),
        // Runtimes whose functions only return text call it text/plain: that is no choice of the function's.
        format_is_default: format.is_none_or(|format| format == format::TEXT) && content_type.is_none_or(is_text),
        max_age: headers.get_str("cache-control").and_then(max_age),
        etag: headers.get("etag").and_then(etag),
        location: headers.get_str("location").and_then(Location::parse),
        body: Held::EMPTY,
    }
}

/// Whether a media type is text of some sort: one that has no number of its own is plain text to CoAP.
fn is_text(content_type: &str) -> bool {
    content_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
}

/// The seconds of a `cache-control` field (RFC 9111 §5.2.2).
fn max_age(field: &str) -> Option<u32> {
    let mut parts = field.split(',').map(str::trim);
    parts.find_map(|part| match part.split_once('=') {
        Some((name, seconds)) if name.eq_ignore_ascii_case("max-age") => seconds.trim_matches('"').parse().ok(),
        None if part.eq_ignore_ascii_case("no-store") || part.eq_ignore_ascii_case("no-cache") => Some(0),
        _ => None,
    })
}

/// An HTTP entity tag as CoAP's: what is between its quotes, or a hash where that is longer than eight bytes.
fn etag(field: &[u8]) -> Option<Etag> {
    let tag = field.strip_prefix(b"W/").unwrap_or(field);
    let tag = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\"")).unwrap_or(tag);
    if tag.is_empty() {
        return None;
    }
    Etag::new(tag).or_else(|| {
        let mut hasher = DefaultHasher::new();
        hasher.write(tag);
        Etag::new(&hasher.finish().to_be_bytes())
    })
}

/// The answer to a call that has none (see [`FailureKind`]).
fn refusal(failure: &Failure) -> Answer {
    let (code, max_age) = match failure.kind {
        FailureKind::Unauthorized => (Code::UNAUTHORIZED, None),
        FailureKind::UnknownFunction => (Code::NOT_FOUND, None),
        FailureKind::BadRequest => (Code::BAD_REQUEST, None),
        FailureKind::TooLarge => (Code::TOO_LARGE, None),
        FailureKind::QueueFull | FailureKind::Unavailable => (Code::UNAVAILABLE, Some(RETRY_AFTER)),
        FailureKind::HandlerBroke => (Code::BAD_GATEWAY, None),
        FailureKind::TooLate => (Code::GATEWAY_TIMEOUT, None),
    };
    Answer { max_age, ..Answer::failure(code, Held::line(failure.text.clone().into_owned())) }
}

fn method(code: Code) -> Method {
    match code {
        Code::GET => Method::Get,
        Code::PUT => Method::Put,
        Code::DELETE => Method::Delete,
        Code::FETCH => Method::Fetch,
        Code::PATCH | Code::IPATCH => Method::Patch,
        _ => Method::Post,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        fields.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()).unwrap());
        headers
    }

    #[test]
    fn a_function_that_says_nothing_answers_text_content() {
        let a = answer(200, &headers(&[]), Code::POST);
        assert_eq!(
            (a.code, a.format, a.format_is_default, a.max_age, a.etag),
            (Code::CONTENT, Some(0), true, None, None)
        );
    }

    #[test]
    fn header_fields_set_code_format_age_and_tag() {
        let fields = [
            ("Content-Type", "application/cbor"),
            ("coap-code", "2.04"),
            ("cache-control", "private, max-age=30"),
            ("etag", "W/\"abc\""),
            ("Location", "/store/17"),
        ];
        let a = answer(200, &headers(&fields), Code::POST);
        assert_eq!((a.code, a.format, a.format_is_default), (Code::CHANGED, Some(60), false));
        assert_eq!((a.max_age, a.etag.unwrap().as_bytes()), (Some(30), &b"abc"[..]));
        assert_eq!(a.location.unwrap().path().collect::<Vec<_>>(), ["store", "17"]);
        let a = answer(200, &headers(&[("cache-control", "no-store"), ("etag", "\"longer than eight\"")]), Code::GET);
        assert_eq!((a.max_age, a.etag.unwrap().as_bytes().len()), (Some(0), 8));
    }

    #[test]
    fn text_is_plain_text_and_gives_way_to_what_the_client_wants() {
        for (named, format, is_default) in [
            ("text/html; charset=utf-8", Some(0), true),
            ("Text/Plain", Some(0), true),
            ("text/css", Some(20000), false),
            ("application/json", Some(50), false),
            ("application/pdf", None, false),
        ] {
            let a = answer(200, &headers(&[("content-type", named)]), Code::GET);
            assert_eq!((a.format, a.format_is_default), (format, is_default), "{named}");
        }
    }

    #[test]
    fn an_error_has_a_diagnostic_payload_without_a_format() {
        for fields in [&[][..], &[("content-type", "text/plain")]] {
            let a = answer(500, &headers(fields), Code::GET);
            assert_eq!((a.code, a.format), (Code::INTERNAL, None));
        }
        assert_eq!(answer(404, &headers(&[("content-type", "application/json")]), Code::GET).format, Some(50));
    }

    #[test]
    fn failures_have_their_codes_and_those_that_pass_say_when_to_try_again() {
        let code = |kind| {
            let a = refusal(&Failure::new(kind, "why"));
            assert_eq!(a.body.as_bytes(), b"why");
            (a.code.to_string(), a.max_age.is_some())
        };
        assert_eq!(code(FailureKind::UnknownFunction), ("4.04".into(), false));
        assert_eq!(code(FailureKind::QueueFull), ("5.03".into(), true));
        assert_eq!(code(FailureKind::Unavailable), ("5.03".into(), true));
        assert_eq!(code(FailureKind::HandlerBroke), ("5.02".into(), false));
        assert_eq!(code(FailureKind::TooLate), ("5.04".into(), false));
        assert_eq!(code(FailureKind::TooLarge), ("4.13".into(), false));
        assert_eq!(code(FailureKind::BadRequest), ("4.00".into(), false));
    }
}
