//! Which metadata travels between caller and function, as header fields.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Metadata in base64 comes with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Names that belong to HTTP or to gRPC itself and never travel. Sorted.
const RESERVED: [&str; 15] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-tinyfaas-async",
];

/// Whether a lower-case name is the protocol's own: pseudo headers, hop-by-hop fields (RFC 9110 §7.6.1), framing, and
/// everything that starts with `grpc-`.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(':') || name.starts_with("grpc-") || RESERVED.binary_search(&name).is_ok()
}

/// Whether a field of a function's answer may be metadata: its lower-case name holds only what the protocol allows, its
/// value is printable ASCII, and a `-bin` value is base64. Clients end the call at metadata that breaks these rules.
pub fn is_metadata(name: &str, value: &[u8]) -> bool {
    let named = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    let valued = value.iter().all(|b| (0x20..=0x7e).contains(b));
    named && valued && !is_reserved(name) && (!name.ends_with("-bin") || is_base64_list(value))
}

/// Whether the value is base64, or several of them joined by commas.
fn is_base64_list(value: &[u8]) -> bool {
    value.split(|&b| b == b',').all(|part| BASE64.decode(part.trim_ascii()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_own_names_never_travel() {
        assert!(RESERVED.is_sorted());
        for name in [":path", "grpc-timeout", "grpc-encoding", "te", "content-type", "transfer-encoding", "host"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["user-agent", "x-a", "trace-bin", "authorization", "tea"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn only_what_clients_accept_becomes_metadata() {
        assert!(is_metadata("x-a", b"some value"));
        assert!(is_metadata("a_b.c-1", b""));
        assert!(is_metadata("trace-bin", b"AAEC"));
        assert!(is_metadata("trace-bin", b"AA"));
        assert!(is_metadata("trace-bin", b"AA==, AAEC"));
        assert!(!is_metadata("trace-bin", b"not base64!"));
        assert!(!is_metadata("x-a", b"caf\xc3\xa9"));
        assert!(!is_metadata("x-a", b"\t"));
        assert!(!is_metadata("x!a", b"v"));
        assert!(!is_metadata("X-A", b"v"));
        assert!(!is_metadata("", b"v"));
        assert!(!is_metadata("content-length", b"5"));
    }
}
