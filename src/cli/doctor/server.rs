//! The server that runs: whether it answers, and whether its functions are up.

use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;

use super::{Check, PATIENCE};
use crate::cli::board::Board;
use crate::cli::error::{Error, ErrorKind};
use crate::cli::http_client::Body;
use crate::cli::url::bracketed;
use crate::config::Config;

/// The server to ask: as other commands find it, else where the settings have it.
pub(super) fn board(host: Option<&str>, ca: Option<&Path>, config: &Config) -> Result<(Board, bool), Error> {
    let named = host.is_some() || std::env::var_os("TINYFAAS_HOST").is_some_and(|host| !host.is_empty());
    if named {
        return Board::find(host, ca).map(|board| (board, true));
    }
    let addr = config.management;
    // One that listens at every address is reached at this machine's own.
    let ip = if addr.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { addr.ip() };
    let https = config.tls_cert.is_some() && ca.is_some();
    let scheme = if https { "https" } else { "http" };
    let host = format!("{scheme}://{}:{}", bracketed(&ip.to_string()), addr.port());
    Board::find(Some(&host), ca).map(|board| (board, false))
}

/// What is found, and whether a server answers there.
pub(super) fn check((board, named): (Board, bool)) -> (Vec<Check>, bool) {
    let place = format!("{}:{}", bracketed(&board.host), board.port);
    let (send, answers) = mpsc::channel();
    let ask = move || {
        for target in ["/healthz", "/readyz"] {
            if send.send(board.ask("GET", target, Body::None).map(drop)).is_err() {
                return;
            }
        }
    };
    if let Err(e) = std::thread::Builder::new().spawn(ask) {
        return (vec![Check::problem("server", format!("cannot be asked: {e}"), "free some memory")], false);
    }
    let late = |_| Err(Error::failed(format!("no answer in {PATIENCE:?}")));
    match answers.recv_timeout(PATIENCE).unwrap_or_else(late) {
        Ok(()) => {}
        Err(e) if e.kind == ErrorKind::Unreachable && !named && !is_open(&place) => {
            let found = format!("none runs at {place}");
            return (
                vec![Check::warning("server", found, "start one: tinyfaas serve, or systemctl start tinyfaas")],
                false,
            );
        }
        Err(e) => {
            let advice = "see its log, and whether --host names a tinyFaaS's management API (https:// for TLS)";
            return (vec![Check::problem("server", e.text, advice)], false);
        }
    }
    let mut checks = vec![Check::ok("server", format!("{place} answers"))];
    checks.push(match answers.recv_timeout(PATIENCE).unwrap_or_else(late) {
        Ok(()) => Check::ok("functions", "each was started or said why not (tinyfaas list --long)"),
        Err(e) => {
            Check::problem("functions", e.text, "wait for the start to end; tinyfaas list --long and logs tell more")
        }
    });
    (checks, true)
}

/// Whether something that does not speak as it should listens there.
fn is_open(place: &str) -> bool {
    place.parse().is_ok_and(|addr| TcpStream::connect_timeout(&addr, PATIENCE).is_ok())
}
