//! The server that a command talks to, and its management API.

use super::error::Error;
use super::http_client::{Body, Request, Response};
use super::token;
use super::url::host_port;
use crate::config::MANAGEMENT_PORT;
use crate::wire::headers::Headers;

/// Where the server is when nobody says.
const HERE: &str = "127.0.0.1";

/// Environment variable that stands in for `--host`.
const VARIABLE: &str = "TINYFAAS_HOST";

/// A server.
pub(super) struct Board {
    /// A name or an IP address.
    pub(super) host: String,
    /// The port of its management API.
    pub(super) port: u16,
}

impl Board {
    /// The one that `--host` names, else the one that the environment names, else this machine.
    pub(super) fn find(flag: Option<&str>) -> Result<Self, Error> {
        Self::choose(flag, std::env::var(VARIABLE).ok().as_deref())
    }

    fn choose(flag: Option<&str>, variable: Option<&str>) -> Result<Self, Error> {
        let (host, port) = match (flag, variable.filter(|v| !v.is_empty())) {
            (Some(text), _) => host_port(text)?,
            (None, Some(text)) => host_port(text).map_err(|e| Error::new(e.kind, format!("{VARIABLE}: {}", e.text)))?,
            (None, None) => (HERE.into(), None),
        };
        Ok(Self { host, port: port.unwrap_or(MANAGEMENT_PORT) })
    }

    /// Asks the management API; an answer that is no success is an error with its text.
    pub(super) fn ask(&self, method: &str, target: &str, body: Body) -> Result<Response, Error> {
        let mut headers = Headers::new();
        if let Some(token) = token::find()? {
            let field = format!("Bearer {token}");
            headers.push("Authorization", field.as_bytes()).map_err(|e| Error::usage(format!("the token: {e}")))?;
        }
        Request { host: &self.host, port: self.port, method, target, headers: &headers, body }.send()?.ok()
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
        assert!(found(None, Some("b:x")).unwrap_err().text.starts_with("TINYFAAS_HOST"));
    }
}
