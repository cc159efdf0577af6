//! Our own connections over TLS: whom to trust, and who we are.

use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use crate::reactor::Async;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::files;
use super::session::Session;
use super::stream::TlsStream;

/// Which authorities are believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The public ones, and those in this file where there is one.
    Public(Option<&'a Path>),
    /// Those in this file alone.
    Only(&'a Path),
}

/// What connections are made with.
#[derive(Debug, Clone)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// A client that trusts so, has the certificate and the private key of these files where it needs one, and speaks `protocol`,
    /// as ALPN names it. Blocking.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn new(trust: Trust<'_>, identity: Option<(&Path, &Path)>, protocol: &str) -> Result<Self, String> {
        let provider = super::provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("cannot set TLS up: {e}"))?
            .with_root_certificates(roots(trust)?);
        let mut config = match identity {
            Some((cert, key)) => {
                let key = files::certified_key(cert, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        // Each is used for one connection.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Does the handshake with the server that is called `host`: a name or an IP address.
    ///
    /// # Errors
    /// `InvalidInput` where no certificate can have such a name; `InvalidData` where the server is not to be trusted, or does
    /// not speak TLS.
    pub async fn connect(&self, host: &str, socket: Async<TcpStream>) -> io::Result<TlsStream> {
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no certificate can have such a name"))?;
        let session = Session::client(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let stream = TlsStream::new(socket, session);
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }
}

fn roots(trust: Trust<'_>) -> Result<RootCertStore, String> {
    let file = match trust {
        Trust::Only(file) => return files::authorities(file),
        Trust::Public(file) => file,
    };
    let mut roots = file.map(files::authorities).transpose()?.unwrap_or_else(RootCertStore::empty);
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
}
