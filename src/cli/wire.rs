//! The connection of a command to a server, blocking, in the clear or over TLS; and whom TLS trusts.

use std::env;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};

use super::error::Error;
use super::url::bracketed;
use crate::net::{self, Stream};
use crate::reactor::{self, Async, Timer};
use crate::tls::{Client, Trust};

/// Names the file of the authority that the server's certificate is from.
const CA: &str = "TINYFAAS_CA";
/// Names the file of our certificate, where the server wants one.
const CERT: &str = "TINYFAAS_CLIENT_CERT";
/// Names the file of its private key, where that is not in the same file.
const KEY: &str = "TINYFAAS_CLIENT_KEY";

/// Time to connect to one address, and for the handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Time without a byte of the answer: longer than a server takes to install dependencies and to start handlers.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// What TLS connections are made with: as `--ca` says, else the environment.
///
/// # Errors
/// One line that names the file that is wrong.
pub(super) fn client(ca: Option<&Path>, protocol: &str) -> Result<Client, Error> {
    let file = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (ca, cert) = (ca.map(Path::to_owned).or_else(|| file(CA)), file(CERT));
    let key = file(KEY).or_else(|| cert.clone());
    let trust = ca.as_deref().map_or(Trust::Public(None), Trust::Only);
    Client::new(trust, cert.as_deref().zip(key.as_deref()), protocol).map_err(Error::usage)
}

/// A connection. Both directions can be used at once, each by one thread.
#[derive(Clone)]
pub(super) enum Wire {
    Tcp(Arc<TcpStream>),
    /// And how long it may say nothing.
    Tls(Arc<Stream>, Option<Duration>),
}

impl Wire {
    /// Connects to the first address of `host` that answers.
    pub(super) fn connect(host: &str, port: u16, tls: Option<&Client>) -> Result<Self, Error> {
        let peer = format!("{}:{port}", bracketed(host));
        let stream = connect(host, port, &peer)?;
        let Some(tls) = tls else {
            let set = stream.set_read_timeout(Some(SILENCE));
            return set.map(|()| Self::Tcp(Arc::new(stream))).map_err(|e| broke(&peer, &e));
        };
        reactor::block_on(secure(host, &peer, stream, tls)).map(|stream| Self::Tls(Arc::new(stream), Some(SILENCE)))
    }

    /// From now on the server may say nothing for as long as it likes; whether it is still there is the kernel's to find out.
    pub(super) fn wait_for_ever(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(None)?;
                net::probe_when_idle(&**stream)
            }
            Self::Tls(stream, patience) => {
                *patience = None;
                stream.probe_when_idle()
            }
        }
    }

    /// Ends both directions.
    pub(super) fn shutdown(&self) {
        let socket = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream, _) => match &**stream {
                Stream::Tls(stream) => stream.socket().get_ref(),
                _ => return,
            },
        };
        // Where it is gone, it is.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

impl Read for &Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => (&**stream).read(buf),
            Wire::Tls(stream, patience) => {
                let late = async {
                    match *patience {
                        Some(patience) => Timer::after(patience).await,
                        None => std::future::pending().await,
                    }
                    Err(io::ErrorKind::TimedOut.into())
                };
                reactor::block_on((&**stream).read(buf).or(late))
            }
        }
    }
}

impl Write for &Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => (&**stream).write(buf),
            Wire::Tls(stream, _) => reactor::block_on(async {
                let mut stream = &**stream;
                let n = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &[IoSlice::new(buf)]));
                let n = n.await?;
                stream.flush().await.map(|()| n)
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does the handshake.
pub(super) async fn secure(host: &str, peer: &str, stream: TcpStream, tls: &Client) -> Result<Stream, Error> {
    let socket = Async::new(stream).map_err(|e| broke(peer, &e))?;
    let late = async {
        Timer::after(CONNECT).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))
    };
    let secured = tls.connect(host, socket).or(late).await;
    secured.map(Stream::from).map_err(|e| {
        let hint = match e.to_string() {
            text if text.contains("UnknownIssuer") => " (--ca names the file of a private CA)",
            text if text.contains("corrupt message") => " (does it speak TLS?)",
            _ => "",
        };
        Error::unreachable(format!("TLS with {peer} failed: {e}{hint}"))
    })
}

/// Connects to the first address of `host` that answers, without Nagle's delay.
pub(super) fn connect(host: &str, port: u16, peer: &str) -> Result<TcpStream, Error> {
    let addrs = (host, port).to_socket_addrs().map_err(|e| Error::unreachable(format!("cannot find {host}: {e}")))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match TcpStream::connect_timeout(&addr, CONNECT) {
            Ok(stream) => return stream.set_nodelay(true).map(|()| stream).map_err(|e| broke(peer, &e)),
            Err(e) => last = e,
        }
    }
    Err(Error::unreachable(format!("cannot reach {peer}: {last} (is tinyfaas running there? --host names another)")))
}

/// The connection to `peer` broke.
pub(super) fn broke(peer: &str, e: &io::Error) -> Error {
    let why = match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer for 15 minutes".into(),
        io::ErrorKind::UnexpectedEof => "it was closed before the answer's end".into(),
        _ => e.to_string(),
    };
    let hint = if why.contains("CertificateRequired") { " (TINYFAAS_CLIENT_CERT names ours)" } else { "" };
    Error::unreachable(format!("the connection to {peer} broke: {why}{hint}"))
}
