//! Our own command line, h2load and grpcio over TLS.

use std::path::Path;
use std::process::Command;

use tinyfaas::wire::grpc::message::{Data, framed};

use super::{Certificates, board, text, tinyfaas};
use crate::coap::{peers_python, peers_script};

#[test]
fn our_own_command_line_calls_over_https_and_grpcs() {
    let certificates = Certificates::new();
    let other = Certificates::new();
    let board = board(&certificates, &[]);
    let (http, grpc, ca) = (board.http.unwrap(), board.grpc.unwrap(), certificates.path("ca.pem"));
    let long = crate::board::noise(2_000_000);
    let file = certificates.write("long", long.as_bytes());
    for url in [format!("https://localhost:{}/cat", http.port()), format!("https://{http}/cat")] {
        assert_eq!(text(&tinyfaas(&["invoke", &url, "--data", "hi", "--ca", &ca], &[]).stdout), "hi");
        let out = tinyfaas(&["invoke", &url, "--file", &file], &[("TINYFAAS_CA", &ca)]);
        assert!(text(&out.stdout) == long, "{} bytes: {}", out.stdout.len(), text(&out.stderr));
    }
    let short = certificates.write("short", &long.as_bytes()[..500_000]);
    let url = format!("grpcs://localhost:{}/cat", grpc.port());
    let out = tinyfaas(&["invoke", &url, "--file", &short, "--ca", &ca], &[]);
    assert!(text(&out.stdout) == long[..500_000], "{} bytes: {}", out.stdout.len(), text(&out.stderr));
    let port = http.port().to_string();
    let named = ["invoke", "cat", "--host", "https://localhost", "--http-port", &port, "--ca", &ca, "--data", "x"];
    assert_eq!(text(&tinyfaas(&named, &[]).stdout), "x");

    let refused = |args: &[&str], vars: &[(&str, &str)]| {
        let out = tinyfaas(args, vars);
        (out.status.code().unwrap(), text(&out.stderr))
    };
    let https = format!("https://{http}/cat");
    // An authority that is not its own, and none.
    for vars in [&[("TINYFAAS_CA", &*other.path("ca.pem"))][..], &[]] {
        let (code, said) = refused(&["invoke", &https], vars);
        assert!(code == 3 && said.contains("TLS with 127.0.0.1:"), "{said}");
        assert!(said.contains("certificate") && said.lines().count() == 1, "{said}");
        let (code, said) = refused(&["invoke", &url, "--data", "x"], vars);
        assert!(code == 3 && said.contains("TLS with localhost:"), "{said}");
    }
    let (code, said) = refused(&["invoke", &https, "--ca", "/nothing"], &[]);
    assert!(code == 2 && said.contains("cannot read /nothing"), "{said}");
    // Nobody who names an authority wants to speak in the clear.
    let (code, said) = refused(&["invoke", &format!("http://{http}/cat"), "--ca", &ca], &[]);
    assert!(code == 2 && said.contains("--ca is for TLS alone"), "{said}");
    // One of both speaks TLS and the other does not.
    let (code, said) = refused(&["invoke", &format!("http://{http}/cat")], &[]);
    assert!(code == 1 && said.contains("this port speaks TLS: use https://"), "{said}");
    let (code, said) = refused(&["list", "--host", &format!("https://{}", board.management), "--ca", &ca], &[]);
    assert!(code == 3 && said.contains("does it speak TLS?"), "{said}");
}

#[test]
fn h2load_gets_an_answer_to_every_request_over_https_and_to_every_call_over_grpcs() {
    peers_python();
    let certificates = Certificates::new();
    let board = board(&certificates, &["--concurrency", "64"]);
    let load = |url: &str, more: &[&str]| {
        let out = Command::new("h2load").args(["-n", "1000", "-c", "8"]).args(more).arg(url).output().unwrap();
        text(&out.stdout)
    };
    let body = certificates.write("body", b"hello");
    let out = load(&format!("https://{}/cat", board.http.unwrap()), &["--h1", "-d", &body]);
    assert!(out.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    assert!(out.contains("TLS Protocol: TLSv1.3"), "{out}");
    let data = Data { function_identifier: "cat".into(), data: "hello".into(), payload: None };
    let body = certificates.write("question", &framed(&data));
    let url = format!("https://{}/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request", board.grpc.unwrap());
    let out = load(&url, &["-m", "8", "-H", "content-type: application/grpc", "-H", "te: trailers", "-d", &body]);
    assert!(out.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    assert!(out.contains("Application protocol: h2"), "{out}");
}

#[test]
fn grpcio_calls_over_a_secure_channel() {
    let certificates = Certificates::new();
    let board = board(&certificates, &[]);
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut python = Command::new(peers_python());
    python.arg(peers_script("grpcio_tls.py")).arg(format!("localhost:{}", board.grpc.unwrap().port()));
    let out = python.arg(protos).arg(certificates.path("ca.pem")).output().unwrap();
    assert!(out.status.success() && text(&out.stdout) == "all well\n", "{}{}", text(&out.stdout), text(&out.stderr));
}
