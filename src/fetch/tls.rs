//! HTTPS: rustls with ring, the public roots, and the operator's own.

use std::net::TcpStream;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::{Config, Connection, Error, ErrorKind};
use crate::reactor::Async;
use crate::wire::url::Url;

/// Does the handshake. What it needs is made for each download and goes with it.
pub(super) async fn connect(url: &Url, config: &Config, tcp: Async<TcpStream>) -> Result<Box<dyn Connection>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Own, format!("failed to set TLS up: {e}")))?
        .with_root_certificates(roots(config)?)
        .with_no_client_auth();
    let name = ServerName::try_from(url.host.trim_end_matches('.').to_owned())
        .map_err(|_| Error::new(ErrorKind::Address, format!("{url}: no certificate can have such a name")))?;
    let stream = TlsConnector::from(Arc::new(client)).connect(name, tcp).await;
    Ok(Box::new(stream.map_err(|e| Error::server(url, format_args!("TLS failed: {e}")))?))
}

fn roots(config: &Config) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(file) = &config.ca_file else { return Ok(roots) };
    let failed = |what: String| {
        Error::new(ErrorKind::Own, format!("failed to read certificates from {}: {what}", file.display()))
    };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.len() == before {
        return Err(failed("there are none; PEM is needed".into()));
    }
    Ok(roots)
}
