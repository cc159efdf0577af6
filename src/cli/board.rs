//! The server that a command talks to, and its management API.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::http_client::{Body, Request, Response};
use super::url::{Url, host_port};
use super::{token, wire};
use crate::config::MANAGEMENT_PORT;
use crate::wire::headers::Headers;

/// Where the server is when nobody says.
const HERE: &str = "127.0.0.1";

/// Environment variable that stands in for `--host`.
const VARIABLE: &str = "TINYFAAS_HOST";

/// A server.
#[derive(Clone)]
pub(super) struct Board {
    /// A name or an IP address.
    pub(super) host: String,
    /// The port of its management API.
    pub(super) port: u16,
    /// Whether it speaks TLS.
    pub(super) https: bool,
    /// The file of its certificate's authority.
    ca: Option<PathBuf>,
}

impl Board {
    /// The one that `--host` names, else the one that the environment names, else this machine; and `--ca`.
    pub(super) fn find(flag: Option<&str>, ca: Option<&Path>) -> Result<Self, Error> {
        let board = Self::choose(flag, std::env::var(VARIABLE).ok().as_deref())?;
        ca_is_of_use(ca, board.https)?;
        Ok(Self { ca: ca.map(Path::to_owned), ..board })
    }

    fn choose(flag: Option<&str>, variable: Option<&str>) -> Result<Self, Error> {
        let (https, host, port) = match (flag, variable.filter(|v| !v.is_empty())) {
            (Some(text), _) => parse(text)?,
            (None, Some(text)) => parse(text).map_err(|e| Error::new(e.kind, format!("{VARIABLE}: {}", e.text)))?,
            (None, None) => (false, HERE.into(), None),
        };
        Ok(Self { host, port: port.unwrap_or(MANAGEMENT_PORT), https, ca: None })
    }

    /// Asks the management API; an answer that is no success is an error with its text.
    pub(super) fn ask(&self, method: &str, target: &str, body: Body) -> Result<Response, Error> {
        let mut headers = Headers::new();
        if let Some(token) = token::find()? {
            let field = format!("Bearer {token}");
            headers.push("Authorization", field.as_bytes()).map_err(|e| Error::usage(format!("the token: {e}")))?;
        }
        let tls = self.https.then(|| wire::client(self.ca.as_deref(), "http/1.1")).transpose()?;
        let (host, port, tls, headers) = (&self.host, self.port, tls.as_ref(), &headers);
        Request { host, port, tls, method, target, headers, body }.send()?.ok()
    }
}

/// Refuses a `--ca` that would be of no effect: who gives it does not want to speak in the clear.
pub(super) fn ca_is_of_use(ca: Option<&Path>, tls: bool) -> Result<(), Error> {
    match ca {
        Some(_) if !tls => Err(Error::usage("--ca is for TLS alone: name the server with https://")),
        _ => Ok(()),
    }
}

/// Takes `HOST[:PORT]`, and the same as a URL: with TLS or without, the host, the port.
fn parse(text: &str) -> Result<(bool, String, Option<u16>), Error> {
    let Some(url) = Url::parse(text) else { return host_port(text).map(|(host, port)| (false, host, port)) };
    let url = url?;
    match (url.scheme.as_str(), url.target.as_str()) {
        ("http" | "https", "/") => Ok((url.scheme == "https", url.host, url.port)),
        _ => Err(Error::usage(format!("{text:?} is no server: use HOST:PORT, or https://HOST:PORT for TLS"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable_and_the_variable_over_this_machine() {
        let found = |flag, variable| Board::choose(flag, variable).map(|b| (b.host, b.port));
        assert_eq!(found(None, None), Ok(("127.0.0.1".into(), 8080)));
        assert_eq!(found(None, Some("")), Ok(("127.0.0.1".into(), 8080)));
        assert_eq!(found(None, Some("b:1")), Ok(("b".into(), 1)));
        assert_eq!(found(Some("a"), Some("b:1")), Ok(("a".into(), 8080)));
        assert_eq!(found(Some("https://[::1]:1/"), None), Ok(("::1".into(), 1)));
        assert_eq!(Board::choose(Some("https://a"), None).map(|b| b.https), Ok(true));
        assert_eq!(Board::choose(Some("http://a"), None).map(|b| b.https), Ok(false));
        for wrong in ["coap://a", "https://a/list", "https://"] {
            assert!(found(Some(wrong), None).unwrap_err().text.contains("use H"), "{wrong}");
        }
        assert!(found(None, Some("b:x")).unwrap_err().text.starts_with("TINYFAAS_HOST"));
    }
}
