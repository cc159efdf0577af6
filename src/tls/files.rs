//! What is read from PEM files, and what is wrong with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

use crate::text_file;

/// Largest PEM file in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Rights of a file that are neither its owner's nor its group's.
const OTHERS: u32 = 0o007;

/// The certificates in a file.
///
/// # Errors
/// One line that names the file. None at all is an error too.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(format!("{}: there is no certificate in it: PEM is needed", path.display()))
        }
        Ok(found) => Ok(found),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// The authorities in a file.
///
/// # Errors
/// As [`certificates`].
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(roots)
}

/// A certificate chain and its private key.
///
/// # Errors
/// One line that names the file that is wrong.
pub(super) fn certified_key(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let certificates = certificates(chain)?;
    let text = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| format!("{}: there is no private key in it: PEM without a passphrase is needed", key.display()))?;
    CertifiedKey::from_der(certificates, private, provider).map_err(|e| match e {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("{}: this is not the key of the certificate in {}", key.display(), chain.display())
        }
        Error::InvalidCertificate(e) => format!("{}: {}", chain.display(), Error::InvalidCertificate(e)),
        e => format!("{}: {e}", key.display()),
    })
}

/// Who else may read a private key.
pub(super) fn is_open_to_others(key: &Path) -> bool {
    fs::metadata(key).is_ok_and(|meta| meta.permissions().mode() & OTHERS != 0)
}

/// Why clients will refuse a server's chain, as far as that can be told without knowing whom they trust.
pub(super) fn doubts(chain: &[CertificateDer<'static>], provider: &Arc<CryptoProvider>) -> Option<String> {
    let ([leaf, between @ ..], Some(last)) = (chain, chain.last()) else { return None };
    let mut roots = RootCertStore::empty();
    roots.add(last.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok()?;
    // Whatever it is called here: the name is looked at last.
    let name = ServerName::try_from("tinyfaas.invalid").ok()?;
    match verifier.verify_server_cert(leaf, between, &name, &[], UnixTime::now()) {
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::UnknownIssuer,
        ))
        | Ok(_) => None,
        Err(Error::InvalidCertificate(CertificateError::Other(e)))
            if format!("{e:?}").contains("CaUsedAsEndEntity") =>
        {
            Some("it is that of a CA: make it with -addext basicConstraints=critical,CA:FALSE".into())
        }
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Some("it has expired".into())
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            Some("it is not valid yet by this machine's clock".into())
        }
        Err(e) => Some(e.to_string()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    text_file::read(path, MAX_FILE).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
