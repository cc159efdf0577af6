//! HTTP/1 message heads, parsed strictly and written: RFC 9110 and RFC 9112.
//!
//! Where the RFCs leave a choice that two parsers could make differently, a message is refused: what the front door
//! reads and what a handler gets never differ. Bodies in chunks are in [`super::chunked`].

use std::fmt::Write as _;

use memchr::memchr2;

use super::headers::{HeaderError, Headers};

/// Most header fields in one head; a stranger chooses their number.
pub const MAX_FIELDS: usize = 64;

/// How a message says where its body ends, RFC 9112 §6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A body of so many bytes; 0 where there is none.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Responses only: the body ends where the connection does.
    UntilClose,
}

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// The method as it was sent.
    pub method: &'b str,
    /// Path and query: the request target in origin form, whatever form it came in (RFC 9112 §3.2).
    pub target: &'b str,
    /// The fields, without those that concern this connection alone.
    pub headers: Headers,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    /// Whether the peer waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// Whether the peer speaks HTTP/1.0 and knows no chunks.
    pub http10: bool,
    /// Bytes of the head, the empty line included.
    pub len: usize,
}

/// A response's head.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The fields, without those that concern this connection alone.
    pub headers: Headers,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether another response may follow on this connection.
    pub keep_alive: bool,
    /// Bytes of the head, the empty line included.
    pub len: usize,
}

/// A message that is refused: the status to answer, and what was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status that fits, RFC 9110 §15.5 and §15.6.
    pub status: u16,
    /// One line for the peer.
    pub text: &'static str,
}

const fn bad(text: &'static str) -> Refusal {
    Refusal { status: 400, text }
}

impl From<HeaderError> for Refusal {
    fn from(e: HeaderError) -> Self {
        match e {
            HeaderError::Name => bad("a header name may hold only token characters"),
            HeaderError::Value => bad("a header value may not hold control characters"),
            HeaderError::TooLarge => {
                Self { status: 431, text: "the header fields are too large: send less than 16384 bytes" }
            }
        }
    }
}

/// Parses a request's head at the start of `buf`; `None` while it is not complete.
///
/// # Errors
/// [`Refusal`]: the connection cannot be read any further and has to be closed after the answer.
pub fn parse_request(buf: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
    check_line_ends(buf)?;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let len = match head.parse(buf) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(refusal(e)),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(bad("the request line needs a method, a target and a version"));
    };
    let http10 = minor == 0;
    let read = read_fields(head.headers, http10)?;
    if read.hosts > 1 || (read.hosts == 0 && !http10) {
        return Err(bad("a request needs exactly one Host field"));
    }
    let host = read.host;
    if !host.is_none_or(is_host) {
        return Err(bad("the Host field is one name or address, and a port where it has one"));
    }
    let target = origin_form(target, host)?;
    let framing = match (read.chunked, read.length) {
        (true, Some(_)) => return Err(bad("Content-Length and Transfer-Encoding exclude each other")),
        (true, None) if http10 => return Err(bad("HTTP/1.0 knows no Transfer-Encoding")),
        (true, None) => Framing::Chunked,
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Some(Request {
        method,
        target,
        headers: read.headers,
        framing,
        keep_alive: read.keep_alive,
        expects_continue: read.expects_continue && !http10,
        http10,
        len,
    }))
}

/// Parses a response's head at the start of `buf`; `None` while it is not complete.
///
/// `bodyless` says that the request was a `HEAD`: whatever the fields say, no body follows (RFC 9112 §6.3).
///
/// # Errors
/// [`Refusal`] with the text that says what was wrong; its status means nothing here.
pub fn parse_response(buf: &[u8], bodyless: bool) -> Result<Option<Response>, Refusal> {
    check_line_ends(buf)?;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let len = match head.parse(buf) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(refusal(e)),
    };
    let (Some(status), Some(minor)) = (head.code, head.version) else {
        return Err(bad("the status line needs a version and a code"));
    };
    if !(100..=599).contains(&status) {
        return Err(bad("a status code is a number from 100 to 599"));
    }
    let read = read_fields(head.headers, minor == 0)?;
    let framing = if bodyless || status < 200 || status == 204 || status == 304 {
        Framing::Length(0)
    } else {
        match (read.chunked, read.length) {
            (true, Some(_)) => return Err(bad("Content-Length and Transfer-Encoding exclude each other")),
            (true, None) if minor == 0 => return Err(bad("HTTP/1.0 knows no Transfer-Encoding")),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        }
    };
    let keep_alive = read.keep_alive && framing != Framing::UntilClose;
    Ok(Some(Response { status, headers: read.headers, framing, keep_alive, len }))
}

/// RFC 9112 §2.2 lets a parser take a lone LF as a line's end and asks it to refuse a lone CR: we refuse both.
fn check_line_ends(buf: &[u8]) -> Result<(), Refusal> {
    // The empty line that ends the head comes after a line that is not empty; what follows is body.
    let (mut from, mut begun) = (0, false);
    while let Some(length) = buf.get(from..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
        match buf.get(from + length..) {
            Some([b'\r', b'\n', ..]) => {}
            // The rest has not arrived.
            Some([b'\r']) => break,
            _ => return Err(bad("lines of a head end with CR LF and hold neither alone")),
        }
        if length == 0 && begun {
            break;
        }
        begun |= length > 0;
        from += length + 2;
    }
    Ok(())
}

fn refusal(e: httparse::Error) -> Refusal {
    match e {
        httparse::Error::TooManyHeaders => Refusal { status: 431, text: "too many header fields: send at most 64" },
        httparse::Error::Version => Refusal { status: 505, text: "this port speaks HTTP/1.1 and HTTP/1.0" },
        httparse::Error::HeaderName => {
            bad("a header name may hold only token characters, and no space before the colon")
        }
        httparse::Error::HeaderValue => bad("a header value may not hold control characters"),
        httparse::Error::Token => bad("the request line needs a method, a target and a version"),
        httparse::Error::NewLine => bad("lines of a head end with CR LF"),
        httparse::Error::Status => bad("a status code is a number from 100 to 599"),
    }
}

struct Fields<'b> {
    headers: Headers,
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    expects_continue: bool,
    hosts: usize,
    host: Option<&'b [u8]>,
}

fn read_fields<'b>(fields: &[httparse::Header<'b>], http10: bool) -> Result<Fields<'b>, Refusal> {
    let bytes = fields.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
    let mut read = Fields {
        headers: Headers::with_capacity(bytes),
        length: None,
        chunked: false,
        keep_alive: !http10,
        expects_continue: false,
        hosts: 0,
        host: None,
    };
    for field in fields {
        let (name, value) = (field.name, field.value.trim_ascii());
        if name.eq_ignore_ascii_case("content-length") {
            if read.length.replace(parse_length(value)?).is_some() {
                return Err(bad("Content-Length came more than once"));
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if read.chunked {
                return Err(bad("Transfer-Encoding came more than once"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal { status: 501, text: "the only transfer coding known here is chunked" });
            }
            read.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    read.keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") && http10 {
                    read.keep_alive = true;
                }
            }
        } else if name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal { status: 417, text: "the only expectation known here is 100-continue" });
            }
            read.expects_continue = true;
        } else if !is_hop_by_hop(name) && !named_by_connection(fields, name) {
            if name.eq_ignore_ascii_case("host") {
                read.hosts += 1;
                read.host = read.host.or(Some(value));
            }
            read.headers.push(name, value)?;
        }
    }
    Ok(read)
}

/// Fields that concern one connection alone, RFC 9110 §7.6.1.
pub fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
    ];
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

fn named_by_connection(fields: &[httparse::Header<'_>], name: &str) -> bool {
    // Host frames the request itself: naming it would only make the front door and the handler differ.
    !name.eq_ignore_ascii_case("host")
        && fields.iter().filter(|f| f.name.eq_ignore_ascii_case("connection")).any(|f| {
            f.value.split(|&b| b == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
        })
}

/// Digits only: no sign, no list, no space (RFC 9110 §8.6).
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    const WRONG: Refusal = bad("Content-Length is one decimal number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or(WRONG)
}

/// What a Host field may hold, RFC 9112 §3.2: a host and a port (RFC 3986 §3.2), or nothing. Of the characters that a name
/// might have those are taken that names have: no list, no user, no path.
fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value.strip_prefix(b"[") {
        Some(address) => {
            let Some(end) = address.iter().position(|&b| b == b']') else { return false };
            let (address, port) = address.split_at(end);
            if !address.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b)) || address.is_empty() {
                return false;
            }
            (&b""[..], port.get(1..).unwrap_or_default())
        }
        None => value.split_at(value.iter().position(|&b| b == b':').unwrap_or(value.len())),
    };
    name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b))
        && (port.is_empty() || port.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit)))
}

/// The origin form of a request target, RFC 9112 §3.2.1 and §3.2.2. The absolute form names the host a second time: it has
/// to be the same.
fn origin_form<'t>(target: &'t str, host: Option<&[u8]>) -> Result<&'t str, Refusal> {
    if target.contains('#') {
        return Err(bad("the request target may not hold a #"));
    }
    if target.starts_with('/') {
        return Ok(target);
    }
    let after_scheme = target.get(..7).filter(|s| s.eq_ignore_ascii_case("http://")).and_then(|_| target.get(7..));
    let Some(rest) = after_scheme else { return Err(bad("the request target is a path such as /NAME")) };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = authority.as_bytes();
    if authority.is_empty() || !is_host(authority) || host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return Err(bad("the request target names another host than the Host field"));
    }
    Ok(if path.is_empty() { "/" } else { path })
}

/// The head of a response as it goes to a client.
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The fields, without those that concern the connection.
    pub headers: &'a Headers,
    /// How the body will be framed.
    pub framing: Framing,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Whether the peer speaks HTTP/1.0: it has to be told of a connection that stays open.
    pub http10: bool,
    /// The call's id, where it answers one; `headers` has none then.
    pub call: Option<&'a [u8]>,
}

impl ResponseHead<'_> {
    /// Appends the head to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(192 + self.headers.as_lines().len());
        out.extend_from_slice(b"HTTP/1.1 ");
        write_number(out, self.status.into());
        put(out, &[b" ", reason(self.status).as_bytes(), b"\r\n", self.headers.as_lines()]);
        if let Some(id) = self.call {
            write_field(out, CALL_ID, id);
        }
        match self.framing {
            // RFC 9110 §8.6: no Content-Length with 1xx and 204, and with 304 only that of the answer it stands for.
            Framing::Length(_) if self.status == 204 || self.status == 304 || self.status < 200 => {}
            Framing::Length(n) => write_length(out, n),
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::UntilClose => {}
        }
        if !self.keep_alive {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The reason phrase of a status, RFC 9110 §15; empty for one that is not in use here.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Decodes `%XX` in a path segment; `None` for a broken escape or what is not UTF-8 (RFC 3986 §2.1).
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

/// Header fields with this prefix are ours: what a caller sends under it never reaches a handler.
const OWN_PREFIX: &str = "x-tinyfaas-";

/// The field of a call's id is as well: what a caller sends in it may be no id.
pub const CALL_ID: &str = "x-call-id";

/// Appends the head of the request that asks a handler for one invocation.
///
/// `own` are fields of ours that the caller cannot set; bytes in them that no field may hold are percent-encoded.
pub fn write_invocation(out: &mut Vec<u8>, headers: &Headers, own: &[(&str, &[u8])], framing: Framing) {
    out.reserve(256 + headers.as_lines().len());
    out.extend_from_slice(b"POST /fn HTTP/1.1\r\n");
    if headers.get("host").is_none() {
        out.extend_from_slice(b"host: tinyfaas\r\n");
    }
    let begins = |line: &[u8], with: &str| {
        line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    let forged =
        |line: &[u8]| begins(line, OWN_PREFIX) || (begins(line, CALL_ID) && line.get(CALL_ID.len()) == Some(&b':'));
    for line in headers.lines().filter(|line| !forged(line)) {
        out.extend_from_slice(line);
    }
    for (name, value) in own.iter().filter(|(_, value)| !value.is_empty()) {
        if value.iter().all(u8::is_ascii_graphic) {
            write_field(out, name, value);
        } else {
            let escaped: String = value.iter().copied().map(escape).collect();
            write_field(out, name, escaped.as_bytes());
        }
    }
    match framing {
        Framing::Length(n) => write_length(out, n),
        Framing::Chunked | Framing::UntilClose => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    write_number(out, length);
    out.extend_from_slice(b"\r\n");
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a decimal number. Not by `fmt`: this is done a few times for every call.
fn write_number(out: &mut Vec<u8>, number: u64) {
    let (mut digits, mut left, mut used) = ([0; 20], number, 0);
    for place in digits.iter_mut().rev() {
        (*place, left, used) = (b'0' + (left % 10) as u8, left / 10, used + 1);
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

fn escape(b: u8) -> String {
    if b.is_ascii_graphic() { char::from(b).to_string() } else { format!("%{b:02X}") }
}

/// A one-line text body: what refusals carry.
pub fn text_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    let _ = writeln!(line, "{text}");
    line
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
