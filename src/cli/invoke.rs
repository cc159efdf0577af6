//! `tinyfaas invoke`: one call of a function; its answer goes to standard output.
//!
//! HTTP is here; each other protocol has a client file of its own beside this one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use super::board::{Board, ca_is_of_use};
use super::coap_client::{self, ClientError};
use super::error::{Error, ErrorKind};
use super::grpc_client;
use super::http_client::{Body, Request};
use super::output::{copy, harmless};
use super::url::{Url, encode};
use super::wire;
use crate::config::{GRPC_PORT, HTTP_PORT};
use crate::function::Name;
use crate::tls;
use crate::wire::coap::{Code, format};
use crate::wire::headers::{Headers, is_token};

/// Body bytes read at once.
const PIECE: usize = 16 * 1024;

/// Longest body sent over CoAP, in bytes; the server's own bound is lower by default.
const COAP_BODY: usize = 16 * 1024 * 1024;

/// What is said of a body that does not fit.
const TOO_LARGE: &str = "what is sent is too large for this protocol: use http://";

/// The port of an `http://` URL without one, RFC 9110 §4.2.1.
const URL_PORT: u16 = 80;
/// The same of an `https://` URL, RFC 9110 §4.2.2.
const HTTPS_URL_PORT: u16 = 443;

/// call a function and print its answer
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "invoke",
    help_triggers("-h", "--help"),
    example = "{command_name} hello --data world\n\
               {command_name} hello - < readings.csv\n\
               {command_name} http://board:8000/hello --method PUT --file photo.jpg\n\
               {command_name} grpc://board/hello --data world"
)]
pub(super) struct Invoke {
    /// the function's name, or a URL of it; instead of a second one, - sends standard input
    #[argh(positional, arg_name = "NAME")]
    target: String,

    /// send this text
    #[argh(option, arg_name = "TEXT")]
    pub(super) data: Option<String>,

    /// send this file; - is standard input
    #[argh(option, arg_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// the method; default GET, and POST where something is sent
    #[argh(option, arg_name = "METHOD", from_str_fn(parse_method))]
    pub(super) method: Option<String>,

    /// send this header field; may be repeated
    #[argh(option, arg_name = "NAME:VALUE", from_str_fn(parse_header))]
    pub(super) header: Vec<(String, String)>,

    /// do not wait for the result
    #[argh(switch, long = "async")]
    pub(super) no_wait: bool,

    /// what follows the function's name in the path
    #[argh(option, arg_name = "PATH")]
    path: Option<String>,

    /// the query, without its question mark
    #[argh(option, arg_name = "QUERY")]
    query: Option<String>,

    /// the server's host, https:// for TLS; default TINYFAAS_HOST, else 127.0.0.1
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,

    /// the port of its HTTP front door; default 8000
    #[argh(option, arg_name = "PORT", default = "HTTP_PORT")]
    http_port: u16,
}

impl Invoke {
    pub(super) fn run(self) -> Result<(), Error> {
        let url = self.url()?;
        match url.scheme.as_str() {
            "http" | "https" => self.over_http(&url),
            "coap" => self.over_coap(&url),
            "grpc" | "grpcs" => self.over_grpc(&url),
            other => Err(Error::usage(format!("unknown scheme {other:?}: use http, https, coap, grpc or grpcs"))),
        }
    }

    /// Where the call goes.
    fn url(&self) -> Result<Url, Error> {
        let mut url = match Url::parse(&self.target) {
            Some(url) => url?,
            None => {
                let name = Name::parse(&self.target).map_err(Error::usage)?;
                let board = Board::find(self.host.as_deref(), self.ca.as_deref())?;
                let scheme = if board.https { "https" } else { "http" };
                let (host, port) = (board.host, Some(self.http_port));
                Url { scheme: scheme.into(), host, port, target: format!("/{name}") }
            }
        };
        if let Some(path) = &self.path {
            let slash = if path.starts_with('/') || url.target.ends_with('/') { "" } else { "/" };
            let path = encode(path).replace('?', "%3F");
            let end = url.target.find('?').unwrap_or(url.target.len());
            url.target.insert_str(end, &format!("{slash}{path}"));
        }
        if let Some(query) = &self.query {
            let mark = if url.target.contains('?') { "&" } else { "?" };
            url.target.push_str(mark);
            url.target.push_str(&encode(query));
        }
        Ok(url)
    }

    /// What TLS is made with, where the URL wants it.
    fn tls(&self, url: &Url, protocol: &str) -> Result<Option<tls::Client>, Error> {
        let wanted = matches!(url.scheme.as_str(), "https" | "grpcs");
        ca_is_of_use(self.ca.as_deref(), wanted)?;
        wanted.then(|| wire::client(self.ca.as_deref(), protocol)).transpose()
    }

    /// All that is sent, for a protocol that needs it whole; at most `most` bytes.
    pub(super) fn whole_body(&self, most: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Bounded { bytes: Vec::new(), most };
        match self.body()? {
            Body::None => {}
            Body::Bytes(bytes) if bytes.len() <= most => return Ok(bytes),
            Body::Bytes(_) => return Err(Error::usage(TOO_LARGE)),
            Body::Sized(_, produce) | Body::Chunked(produce) => {
                produce(&mut bytes).map_err(|e| Error::usage(e.to_string()))?;
            }
        }
        Ok(bytes.bytes)
    }

    fn over_http(&self, url: &Url) -> Result<(), Error> {
        let body = self.body()?;
        let method = match (&self.method, &body) {
            (Some(method), _) => method.as_str(),
            (None, Body::None) => "GET",
            (None, _) => "POST",
        };
        let mut headers = Headers::new();
        let given = self.header.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in given.chain(self.no_wait.then_some(("X-tinyFaaS-Async", "true"))) {
            headers.push(name, value.as_bytes()).map_err(|e| Error::usage(format!("--header: {e}")))?;
        }
        let tls = self.tls(url, "http/1.1")?;
        let port = url.port.unwrap_or(if tls.is_some() { HTTPS_URL_PORT } else { URL_PORT });
        let (host, tls, target, headers) = (url.host.as_str(), tls.as_ref(), &url.target, &headers);
        let mut answer = Request { host, port, tls, method, target, headers, body }.send()?.ok()?;
        copy(|buf| answer.read(buf))
    }

    fn over_coap(&self, url: &Url) -> Result<(), Error> {
        let body = self.whole_body(COAP_BODY)?;
        let code = match self.method.as_deref() {
            None if self.data.is_none() && self.file.is_none() => Code::GET,
            None | Some("POST") => Code::POST,
            Some("GET") => Code::GET,
            Some("PUT") => Code::PUT,
            Some("DELETE") => Code::DELETE,
            Some("FETCH") => Code::FETCH,
            Some("PATCH") => Code::PATCH,
            Some(other) => {
                let text = format!("CoAP has no method {other}: use GET, POST, PUT, PATCH, DELETE or FETCH");
                return Err(Error::usage(text));
            }
        };
        let mut target = url.target.clone();
        if self.no_wait {
            target.push_str(if target.contains('?') { "&async" } else { "?async" });
        }
        let (format, accept) = (self.content_format("content-type")?, self.content_format("accept")?);
        if let Some((name, _)) = self.header.iter().find(|(name, _)| !is_any(name, &["content-type", "accept"])) {
            return Err(Error::usage(format!("CoAP has no header field {name}: only content-type and accept")));
        }
        let port = url.port.unwrap_or(coap_client::PORT);
        let request =
            coap_client::Request { host: &url.host, port, method: code, target: &target, format, accept, body: &body };
        let answer = coap_client::invoke(&request).map_err(|e| match e {
            ClientError::Usage(text) => Error::usage(text),
            ClientError::Unreachable(text) => Error::unreachable(text),
        })?;
        if !answer.code.is_success() {
            let kind = if answer.code == Code::NOT_FOUND { ErrorKind::NotFound } else { ErrorKind::Failed };
            return Err(Error::new(kind, format!("CoAP {}: {}", answer.code, harmless(&answer.body))));
        }
        let mut rest = answer.body.as_slice();
        copy(|buf| rest.read(buf).map_err(|e| Error::failed(e.to_string())))
    }

    /// The Content-Format of a given header field.
    fn content_format(&self, name: &str) -> Result<Option<u16>, Error> {
        let Some((_, value)) = self.header.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) else { return Ok(None) };
        let number = format::number(value).or_else(|| value.trim().parse().ok());
        number
            .map(Some)
            .ok_or_else(|| Error::usage(format!("CoAP has no number for {value:?}: give the number itself")))
    }

    fn over_grpc(&self, url: &Url) -> Result<(), Error> {
        let name = url.target.trim_start_matches('/');
        Name::parse(name)
            .map_err(|e| Error::usage(format!("{e}; a gRPC call has the address grpc://HOST:PORT/NAME")))?;
        if self.method.is_some() || self.no_wait {
            return Err(Error::usage("--method and --async are for http:// alone: a gRPC call has neither"));
        }
        let tls = self.tls(url, "h2")?;
        let body = self.whole_body(grpc_client::MESSAGE_MAX)?;
        let mut headers = Headers::new();
        for (name, value) in &self.header {
            // HTTP/2 knows no capital letters in names (RFC 9113 §8.2).
            let name = name.to_ascii_lowercase();
            headers.push(&name, value.as_bytes()).map_err(|e| Error::usage(format!("--header: {e}")))?;
        }
        let answer = grpc_client::invoke(&url.host, url.port.unwrap_or(GRPC_PORT), tls.as_ref(), name, body, &headers)?;
        let mut rest = &answer[..];
        copy(|buf| rest.read(buf).map_err(|e| Error::failed(e.to_string())))
    }

    /// What is sent.
    fn body(&self) -> Result<Body, Error> {
        match (&self.data, &self.file) {
            (Some(_), Some(_)) => Err(Error::usage("give --data or --file (or -), not both")),
            (Some(text), None) => Ok(Body::Bytes(text.as_bytes().to_vec())),
            (None, Some(path)) if path.as_os_str() == "-" => {
                Ok(Body::Chunked(Box::new(|out| pour(&mut io::stdin().lock(), out))))
            }
            (None, Some(path)) => file_body(path),
            (None, None) => Ok(Body::None),
        }
    }
}

/// A body in memory with a bound.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::Error::other(TOO_LARGE));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn file_body(path: &Path) -> Result<Body, Error> {
    let unusable = |e: io::Error| Error::usage(format!("cannot read {}: {e}", path.display()));
    let mut file = File::open(path).map_err(unusable)?;
    let meta = file.metadata().map_err(unusable)?;
    if meta.is_dir() {
        return Err(unusable(io::ErrorKind::IsADirectory.into()));
    }
    // Of pipes and devices the length is not known, and files below /proc say 0.
    if meta.is_file() && meta.len() > 0 {
        return Ok(Body::Sized(meta.len(), Box::new(move |out| pour(&mut file, out))));
    }
    Ok(Body::Chunked(Box::new(move |out| pour(&mut file, out))))
}

/// Sends what there is as soon as it is there.
fn pour(from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut buf = vec![0; PIECE];
    loop {
        match from.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => out.write_all(buf.get(..n).unwrap_or_default()).and_then(|()| out.flush())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|n| name.eq_ignore_ascii_case(n))
}

fn parse_method(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(format!("{text:?} is no method: use GET, POST, PUT, PATCH, DELETE or HEAD"));
    }
    Ok(text.to_ascii_uppercase())
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is no header field: use NAME:VALUE"))?;
    // These say where the body ends and how the connection goes on, which is not the caller's to choose.
    if ["host", "content-length", "transfer-encoding", "connection"].iter().any(|n| name.eq_ignore_ascii_case(n)) {
        return Err(format!("{name} is set by tinyfaas itself"));
    }
    Ok((name.into(), value.into()))
}
