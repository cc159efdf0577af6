//! gRPC clients of other makes against the front door.

use std::path::Path;
use std::process::Command;

use tinyfaas::front::grpc::Config;
use tinyfaas::function::Limits;
use tinyfaas::wire::grpc::message::{Data, framed};

use crate::coap::{peers_python, peers_script};
use crate::grpc_door::{Asked, Door, echo, http, limits};

fn headers(asked: &Asked) -> Vec<u8> {
    http(200, "X-Answer: 42\r\nblob-bin: AAEC\r\n", asked.head.as_bytes())
}

fn open() -> Door {
    let mut door = Door::open(Config::default());
    let limits = Limits { queue: 100, ..limits() };
    door.install("echo", limits.clone(), echo);
    door.install("headers", limits.clone(), headers);
    door.install("fails", limits.clone(), |_| http(500, "X-Why: because\r\n", "na\u{ef}ve 100%\nboom".as_bytes()));
    // Never answers in time.
    door.install("slow", limits, |asked| {
        assert!(asked.given_up());
        http(200, "", b"late")
    });
    door
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{text}{errors}", out.status);
    text.into_owned()
}

#[test]
fn grpcio_calls_checks_health_and_reflects() {
    let door = open();
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut python = Command::new(peers_python());
    let out = run(python.arg(peers_script("grpcio_client.py")).arg(door.address.to_string()).arg(protos));
    assert_eq!(out, "all well\n");
    door.settled();
}

#[test]
fn nghttp_is_told_the_http_status_of_what_is_no_grpc() {
    peers_python();
    let door = open();
    let url = format!("http://{}/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request", door.address);
    let out = run(Command::new("nghttp").args(["-v", &url]));
    assert!(out.contains(":status: 405") && out.contains("allow: POST"), "{out}");
    let file = question_file("json");
    let mut nghttp = Command::new("nghttp");
    nghttp.args(["-v", "-H", "content-type: application/json", "-H", ":method: POST", "-d"]);
    let out = run(nghttp.arg(&file).arg(&url));
    std::fs::remove_file(file).unwrap();
    assert!(out.contains(":status: 415") && !out.contains("grpc-status"), "{out}");
}

/// A question in a file, for clients that send bytes.
fn question_file(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("tinyfaas-{}-{name}", std::process::id()));
    let data = Data { function_identifier: "echo".into(), data: "hello".into(), payload: None };
    std::fs::write(&path, framed(&data)).unwrap();
    path
}

#[test]
fn nghttp_calls_with_a_framed_body_and_sees_the_trailers() {
    peers_python();
    let door = open();
    let file = question_file("nghttp");
    let url = format!("http://{}/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request", door.address);
    let mut nghttp = Command::new("nghttp");
    nghttp.args(["-v", "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", ":method: POST", "-d"]);
    let out = run(nghttp.arg(&file).arg(url));
    std::fs::remove_file(file).unwrap();
    assert!(out.contains(":status: 200") && out.contains("grpc-status: 0") && out.contains("hello"), "{out}");
}

#[test]
fn h2load_gets_an_answer_to_every_call() {
    peers_python();
    let door = open();
    let file = question_file("h2load");
    let url = format!("http://{}/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request", door.address);
    let mut h2load = Command::new("h2load");
    h2load.args([
        "-n",
        "2000",
        "-c",
        "4",
        "-m",
        "16",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "-d",
    ]);
    let out = run(h2load.arg(&file).arg(url));
    std::fs::remove_file(file).unwrap();
    assert!(out.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    door.settled();
}

#[test]
fn tonic_calls() {
    let door = open();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/tonic-client");
    let cache = std::env::var_os("TINYFAAS_CACHE").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("HOME")).join(".cache/tinyfaas"),
        |folder| Path::new(&folder).to_owned(),
    );
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "-q", "--locked", "--target-dir"]).arg(cache.join("tonic-client")).current_dir(folder);
    assert_eq!(run(cargo.arg("--").arg(door.address.to_string())), "all well\n");
    door.settled();
}
