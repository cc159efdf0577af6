//! The server's side: certificates, which are read again on demand, and the handshakes of strangers.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_lite::FutureExt;
use rustix::net::RecvFlags;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::files;
use super::session::Session;
use super::stream::TlsStream;
use crate::client::Client;
use crate::reactor::{Async, Timer};
use crate::seats::Seats;

/// Handshakes at once at a door. At the bound the oldest is given up for a new one: each may hold a record and our
/// certificates, some 20 KiB.
const HANDSHAKES: usize = 64;
/// Connections at a door that hold more than a KiB of a record, and up to 18 KiB, while its rest does not come. At the bound one is
/// closed for a new one: of the client that has most of them the one that waits for longest.
const PARTS: usize = 64;
/// Longest time and most bytes that a connection is read after its handshake failed: closing a socket with unread bytes resets it,
/// and the peer may lose the alert that says why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
/// Tickets of a new session (RFC 8446 §4.6.1). They hold the session's state, sealed, so that a client that comes again costs no
/// signature and no memory.
const TICKETS: usize = 1;

/// The files that certificates come from.
#[derive(Debug, Clone)]
pub struct Files {
    /// Our certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients of the management API, where these need a certificate.
    pub client_ca: Option<PathBuf>,
}

/// What does handshakes at each door.
#[derive(Debug)]
pub struct Doors {
    files: Files,
    /// At that of HTTP.
    pub http: Arc<Acceptor>,
    /// At that of gRPC.
    pub grpc: Arc<Acceptor>,
    /// At that of the management API.
    pub management: Arc<Acceptor>,
}

/// Does the handshake with who connects to a door.
#[derive(Debug)]
pub struct Acceptor {
    config: Mutex<Arc<ServerConfig>>,
    handshakes: AtomicUsize,
    /// Handshakes listen to it in the order in which they began.
    oldest: Event,
    /// Connections that hold a part of a record.
    parts: Arc<Seats>,
}

impl Doors {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// One line that names the flag and the file.
    pub fn load(files: Files) -> Result<Self, String> {
        let [http, grpc, management] = configs(&files)?.map(|config| Arc::new(Acceptor::new(config)));
        Ok(Self { files, http, grpc, management })
    }

    /// Reads the files again, for connections from now on. Blocking.
    ///
    /// # Errors
    /// As [`Self::load`]; what held before goes on to hold.
    pub fn reload(&self) -> Result<(), String> {
        for (door, config) in [&self.http, &self.grpc, &self.management].into_iter().zip(configs(&self.files)?) {
            *door.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        }
        Ok(())
    }
}

/// What the certificates in the files make of HTTP, gRPC and management.
fn configs(files: &Files) -> Result<[Arc<ServerConfig>; 3], String> {
    let provider = super::provider();
    let key = files::certified_key(&files.cert, &files.key, &provider).map_err(|e| format!("--tls-cert: {e}"))?;
    if files::is_open_to_others(&files.key) {
        log::warn!("--tls-key: others than its owner may read {}: chmod o= it", files.key.display());
    }
    if let Some(doubts) = files::doubts(&key.cert, &provider) {
        log::warn!("--tls-cert: clients will refuse what is in {}: {doubts}", files.cert.display());
    }
    let authorities = files.client_ca.as_deref().map(files::authorities).transpose();
    let authorities = authorities.map_err(|e| format!("--management-client-ca: {e}"))?;
    let key = Arc::new(key);
    let open = |protocol: &str| {
        let tickets = Ticketer::new().map_err(|e| e.to_string())?;
        let mut config = config(&provider, &key, protocol, None)?;
        (config.ticketer, config.send_tls13_tickets) = (tickets, TICKETS);
        Ok::<_, String>(Arc::new(config))
    };
    let verifier = authorities
        .map(|roots| WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build());
    let verifier = verifier.transpose().map_err(|e| format!("--management-client-ca: {e}"))?;
    // Management without tickets: a client whose authority is taken away is out at once.
    Ok([open("http/1.1")?, open("h2")?, Arc::new(config(&provider, &key, "http/1.1", verifier)?)])
}

/// A door that says `protocol` in ALPN (RFC 7301), and remembers no session.
fn config(
    provider: &Arc<rustls::crypto::CryptoProvider>,
    key: &Arc<CertifiedKey>,
    protocol: &str,
    verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("cannot set TLS up: {e}"))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // Ours are in the order of what this machine is fast at.
    config.ignore_client_order = cfg!(target_arch = "arm");
    Ok(config)
}

impl Acceptor {
    fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config: Mutex::new(config),
            handshakes: AtomicUsize::new(0),
            oldest: Event::new(),
            parts: Seats::new(PARTS, 0),
        }
    }

    /// Does the handshake within `patience`. A peer that says nothing takes no place among [`HANDSHAKES`].
    ///
    /// # Errors
    /// The peer does not speak TLS or is not let in, and was told so; it took too long, or others came after it.
    pub async fn accept(&self, socket: Async<TcpStream>, patience: Duration) -> io::Result<TlsStream> {
        let late = async {
            Timer::after(patience).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        async {
            socket.read_with(|socket| Ok(rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK)?)).await?;
            self.handshake(socket).await
        }
        .or(late)
        .await
    }

    async fn handshake(&self, socket: Async<TcpStream>) -> io::Result<TlsStream> {
        let config = Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner));
        let session = Session::server(config).map_err(io::Error::other)?;
        let stream = TlsStream::new(socket, session);
        let peer = stream.socket().get_ref().peer_addr()?;
        let _place = Place::take(self);
        let given_up = async {
            self.oldest.listen().await;
            Err(io::Error::other("others came after it"))
        };
        let done = poll_fn(|cx| stream.poll_handshake(cx));
        if let Err(e) = done.or(given_up).await {
            if e.kind() == io::ErrorKind::InvalidData {
                linger(&stream).await;
            }
            return Err(e);
        }
        Ok(stream.among(&self.parts, Client::of(peer.ip())))
    }
}

/// Lets the peer read the alert.
async fn linger(stream: &TlsStream) {
    if stream.socket().get_ref().shutdown(Shutdown::Write).is_err() {
        return;
    }
    let discard = async {
        let (mut scratch, mut total) = ([0; 256], 0);
        while total < LINGER_BYTES {
            match poll_fn(|cx| stream.poll_discard(cx, &mut scratch)).await {
                Ok(0) | Err(_) => break,
                Ok(n) => total += n,
            }
        }
    };
    let late = async {
        Timer::after(LINGER).await;
    };
    discard.or(late).await;
}

/// A place among [`HANDSHAKES`]; given back when dropped.
struct Place<'a>(&'a Acceptor);

impl<'a> Place<'a> {
    fn take(acceptor: &'a Acceptor) -> Self {
        if acceptor.handshakes.fetch_add(1, Ordering::AcqRel) >= HANDSHAKES {
            acceptor.oldest.notify_additional(1);
        }
        Self(acceptor)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::AcqRel);
    }
}
