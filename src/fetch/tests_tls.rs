//! Downloads over TLS from a scripted server, whose certificate the `openssl` program makes.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tests::{config, fetch, read_head};
use super::*;
use crate::tls::certificates::Certificates;

/// Serves one connection for each answer; with `goodbye` the TLS session is closed in order.
fn serve<const N: usize>(certificates: &Certificates, answers: [&str; N], goodbye: bool) -> u16 {
    let certificate = CertificateDer::from_pem_file(certificates.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let tls = Arc::new(tls);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = answers.map(|answer| answer.replace("{}", &port.to_string()));
    thread::spawn(move || {
        for answer in answers {
            let (tcp, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), tcp);
            // A client that does not trust us goes away within the handshake.
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                continue;
            }
            read_head(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            if goodbye {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
        }
    });
    port
}

fn trusting(ca: &Path) -> Config {
    Config { ca_file: Some(ca.to_owned()), ..config() }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_server_that_the_extra_authority_vouches_for_is_trusted_by_name_and_address() {
    let certificates = Certificates::new();
    let port = serve(&certificates, [OK, OK], true);
    let trusting = trusting(&certificates.path("ca.pem"));
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(fetch(&format!("https://{host}:{port}/"), &trusting).unwrap(), b"ok");
    }
}

#[test]
fn a_server_that_nobody_vouches_for_is_refused() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let port = serve(&certificates, [OK, OK], true);
    for config in [config(), trusting(&others.path("ca.pem"))] {
        let error = fetch(&format!("https://localhost:{port}/"), &config).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Server);
        assert!(error.text.contains("TLS failed: invalid peer certificate"), "{}", error.text);
    }
}

#[test]
fn a_server_that_does_not_speak_tls_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let error = fetch(&format!("https://localhost:{port}/"), &config()).unwrap_err();
    assert!(error.text.contains("TLS failed"), "{}", error.text);
}

#[test]
fn an_end_without_close_notify_is_taken_only_where_the_body_is_known_to_be_whole() {
    let certificates = Certificates::new();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nok";
    let trusting = trusting(&certificates.path("ca.pem"));
    let url = |port: u16| format!("https://localhost:{port}/");
    let port = serve(&certificates, [OK, chunked, until_close], false);
    assert_eq!(fetch(&url(port), &trusting).unwrap(), b"ok");
    assert_eq!(fetch(&url(port), &trusting).unwrap(), b"ok");
    let error = fetch(&url(port), &trusting).unwrap_err();
    assert!(error.text.contains("the connection broke"), "{}", error.text);
    let port = serve(&certificates, [until_close], true);
    assert_eq!(fetch(&url(port), &trusting).unwrap(), b"ok");
}

#[test]
fn a_redirect_from_https_to_http_is_refused() {
    let certificates = Certificates::new();
    let port = serve(&certificates, ["HTTP/1.1 302 Found\r\nLocation: http://localhost:{}/\r\n\r\n"], true);
    let error = fetch(&format!("https://localhost:{port}/"), &trusting(&certificates.path("ca.pem"))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Address);
    assert!(error.text.ends_with("from https to http is not followed"), "{}", error.text);
}

#[test]
fn a_file_without_certificates_is_named() {
    let certificates = Certificates::new();
    let port = serve(&certificates, [OK, OK], true);
    for name in ["extensions", "absent"] {
        let error = fetch(&format!("https://localhost:{port}/"), &trusting(&certificates.path(name))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Own);
        assert!(error.text.contains(name), "{}", error.text);
    }
}
