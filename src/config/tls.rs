//! Which doors speak TLS, and what the flags for it have to agree on.

use std::net::SocketAddr;

use super::Config;
use crate::tls::{self, Files};

/// Doors that speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsDoors {
    /// HTTP does.
    pub http: bool,
    /// gRPC does.
    pub grpc: bool,
    /// Management does.
    pub management: bool,
}

pub(super) fn parse_doors(text: &str) -> Result<TlsDoors, String> {
    let mut doors = TlsDoors { http: false, grpc: false, management: false };
    for name in text.split(',') {
        *match name {
            "http" => &mut doors.http,
            "grpc" => &mut doors.grpc,
            "management" => &mut doors.management,
            _ => return Err(format!("{name:?} is no door with TLS: use some of http,grpc,management")),
        } = true;
    }
    Ok(doors)
}

impl Config {
    /// Checks that the flags about TLS go together.
    pub(super) fn check_tls(&self) -> Result<(), String> {
        let given = [
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-key", self.tls_key.is_some()),
            ("--tls-doors", self.tls_doors.is_some()),
            ("--management-client-ca", self.management_client_ca.is_some()),
        ];
        let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        if !tls::IS_THERE {
            return Err(format!("{flag}: this build has no TLS: use the full flavour, or build with --features tls"));
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), Some(_)) => {}
            (Some(_), None) => return Err("--tls-cert: it needs its private key: name it with --tls-key".into()),
            _ => return Err(format!("{flag}: TLS needs a certificate: name it with --tls-cert and --tls-key")),
        }
        if self.management_client_ca.is_some() && self.tls_doors.is_some_and(|doors| !doors.management) {
            return Err("--management-client-ca: only TLS asks for certificates: add management to --tls-doors".into());
        }
        Ok(())
    }

    /// The files of certificates, where doors speak TLS.
    pub fn tls_files(&self) -> Option<Files> {
        let (cert, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(Files { cert, key, client_ca: self.management_client_ca.clone() })
    }

    /// The doors that speak TLS where management listens at `addr`.
    pub fn tls_doors_at(&self, addr: SocketAddr) -> TlsDoors {
        let is_on = self.tls_cert.is_some();
        // Who is on this machine needs no TLS, and certificates have other names.
        let management = !addr.ip().to_canonical().is_loopback() || self.management_client_ca.is_some();
        let by_itself = TlsDoors { http: is_on, grpc: is_on, management: is_on && management };
        self.tls_doors.unwrap_or(by_itself)
    }
}
