//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) by rustls with ring: for the doors that strangers connect to, and for our own clients.
//!
//! [`session`] is a connection without its socket, [`stream`] puts it over TCP. [`server`] has certificates, reads them again, and
//! bounds who is in a handshake; [`client`] says whom to trust. `absent.rs` stands here in a build without TLS.

#[cfg(test)]
pub(crate) mod certificates;
mod client;
mod files;
mod server;
mod session;
mod stream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{Client, Trust};
pub use server::{Acceptor, Doors, Files};
pub use stream::TlsStream;

/// Whether this build has it.
pub const IS_THERE: bool = true;

/// ring, with what a board without instructions for AES is fast at first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    if cfg!(target_arch = "arm") {
        provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
    }
    Arc::new(provider)
}
