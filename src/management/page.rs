//! `GET /`: the status page, one file for a browser. It holds no secret: whoever asks gets it, and it asks the paths beside it as
//! any client does, with a token where one is needed.

use std::io;

use super::{content_type, takes_gzip};
use crate::http_server::{Head, Responder};
use crate::wire::headers::Headers;

/// The page as gzip, and what a browser may do with it: build.rs makes both of the files beside this one.
const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.html.gz"));
const POLICY: &str = include_str!(concat!(env!("OUT_DIR"), "/page.policy"));

/// Sends the page. Who does not take gzip, which is no browser, is told so: nothing is unpacked for it.
pub(super) async fn send(head: &Head, respond: Responder<'_>) -> io::Result<()> {
    if !takes_gzip(head) {
        let mut headers = Headers::new();
        // Two constants: they cannot be refused.
        let _ = headers.push("vary", b"accept-encoding");
        let text = "this page is sent as gzip: open it in a browser, or use curl --compressed";
        return respond.text_with(406, &headers, text).await;
    }
    let mut headers = content_type("text/html; charset=utf-8");
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("vary", "accept-encoding"),
        // Another version of the program has another one.
        ("cache-control", "no-cache"),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        // Constants: they cannot be refused.
        let _ = headers.push(name, value.as_bytes());
    }
    respond.whole(200, &headers, PAGE).await
}
