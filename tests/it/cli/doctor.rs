//! `tinyfaas doctor`: what it finds on machines that have what a server needs, and on those that do not.

use std::io::BufRead as _;
use std::os::unix::net::UnixListener;

use super::*;
use crate::board::{Backend, Board, TempDir, docker_is_ready};

/// A file of settings for free ports, with `more` of them.
fn settings(dir: &TempDir, more: serde_json::Value) -> String {
    let any = "127.0.0.1:0";
    let mut all = serde_json::json!({
        "management": any, "http": any, "coap": any, "grpc": any, "state-dir": dir.0.join("state"), "backend": "process"
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let path = dir.0.join("settings.json");
    fs::write(&path, all.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn doctor(config: &str, more: &[&str]) -> (i32, String, String) {
    let output = tinyfaas(&["doctor", "--config", config]).args(more).output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn line<'a>(lines: &'a str, name: &str) -> &'a str {
    let found = lines.lines().find(|line| line.split(": ").nth(1) == Some(name));
    found.unwrap_or_else(|| panic!("no line about {name}:\n{lines}"))
}

#[test]
fn a_machine_that_has_all_is_well_and_no_server_is_only_a_warning() {
    let dir = TempDir::new();
    // Free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, lines, error) = doctor(&settings(&dir, serde_json::json!({ "management": free })), &[]);
    assert_eq!((code, error.as_str()), (DONE, ""), "{lines}");
    for name in
        ["engine", "port of management", "port of http", "port of coap", "port of grpc", "state directory", "clock"]
    {
        assert!(line(&lines, name).starts_with("ok: "), "{lines}");
    }
    let server = line(&lines, "server");
    assert!(server.starts_with("warning: ") && server.contains(" - start one: tinyfaas serve"), "{server}");
    assert!(!dir.0.join("state").exists(), "it makes nothing");
}

#[test]
fn a_server_that_runs_has_its_ports_and_is_asked() {
    let dir = TempDir::new();
    let board = Board::start(Backend::Process, &[]);
    let addr = |door: Option<std::net::SocketAddr>| door.unwrap().to_string();
    let more = serde_json::json!({
        "management": board.management.to_string(), "http": addr(board.http), "coap": addr(board.coap), "grpc": addr(board.grpc),
        "state-dir": board.state_dir
    });
    let (code, lines, _) = doctor(&settings(&dir, more), &[]);
    assert_eq!(code, DONE, "{lines}");
    for door in ["management", "http", "coap", "grpc"] {
        let found = line(&lines, &format!("port of {door}")).to_owned();
        assert!(found.starts_with("ok: ") && found.ends_with(" is in use while our server runs"), "{found}");
    }
    assert_eq!(line(&lines, "server"), format!("ok: server: {} answers", board.management));
    assert!(line(&lines, "functions").starts_with("ok: "), "{lines}");
}

#[test]
fn what_is_wrong_has_a_line_with_what_to_do_and_exit_code_1() {
    let dir = TempDir::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(dir.0.join("file"), "").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let config = settings(&dir, serde_json::json!({ "http": taken, "state-dir": dir.0.join("file") }));
    let (code, lines, error) = doctor(&config, &["--host", "127.0.0.1:1"]);
    assert_eq!((code, error.as_str()), (FAILED, "tinyfaas: there are 3 problems\n"), "{lines}");
    let http = format!(
        "problem: port of http: {taken} is in use by another program - ss -ltnp tells by which; stop it, or choose another with --http"
    );
    assert_eq!(line(&lines, "port of http"), http);
    assert!(line(&lines, "state directory").contains("is no folder - remove it"), "{lines}");
    assert!(line(&lines, "server").starts_with("problem: "), "who names a server wants it to be there:\n{lines}");
}

#[test]
fn an_engine_that_is_absent_silent_or_out_of_bounds_is_told() {
    let dir = TempDir::new();
    let config = settings(&dir, serde_json::json!({}));
    let nowhere = ["--docker-host", "unix:///nonexistent/docker.sock"];
    let (code, lines, _) = doctor(&config, &[&["--backend", "docker"][..], &nowhere].concat());
    let found = line(&lines, "engine");
    assert!(
        code == FAILED && found.starts_with("problem: engine: no Docker engine answers at unix:///nonexistent"),
        "{found}"
    );
    let (code, lines, _) = doctor(&config, &[&["--backend", "auto"][..], &nowhere].concat());
    let found = line(&lines, "engine");
    assert!(
        code == DONE && found.starts_with("warning: ") && found.contains(" - functions will run as processes"),
        "{found}"
    );

    // One that takes connections and says nothing.
    let path = dir.0.join("silent.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let (_, lines, _) =
        doctor(&config, &["--backend", "docker", "--docker-host", &format!("unix://{}", path.display())]);
    assert!(line(&lines, "engine").contains("gave no answer in "), "{lines}");

    let (_, lines, _) = doctor(&config, &["--backend", "docker", "--state-dir", &format!("/tmp/{}", "x".repeat(100))]);
    assert!(line(&lines, "engine").contains("use a shorter one"), "{lines}");
}

/// A machine without memory's controller, and a proxy that refuses without a word: what real engines here cannot show.
#[test]
fn what_an_engine_says_of_its_kernel_is_passed_on() {
    let dir = TempDir::new();
    let config = settings(&dir, serde_json::json!({ "backend": "docker" }));
    let path = dir.0.join("fake.sock");
    let engine = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in engine.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let (status, body) = match first.split(' ').nth(1).unwrap() {
                path if path.ends_with("/version") => ("200 OK", r#"{"ApiVersion":"1.41"}"#),
                path if path.ends_with("/info") => (
                    "200 OK",
                    r#"{"ServerVersion":"20.10.5","Architecture":"s390x","CpuCfsQuota":true,"PidsLimit":true}"#,
                ),
                path if path.contains("/distribution/") => ("403 Forbidden", ""),
                _ => ("404 Not Found", r#"{"message":"no such image"}"#),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let (code, lines, _) = doctor(&config, &["--docker-host", &format!("unix://{}", path.display())]);
    assert_eq!(code, DONE, "{lines}");
    assert!(line(&lines, "engine").starts_with("warning: engine: its machine is s390x"), "{lines}");
    assert!(
        line(&lines, "limits of handlers").contains("cannot limit memory - on a Raspberry Pi add cgroup_enable=memory"),
        "{lines}"
    );
    let python = line(&lines, "images of python3");
    assert!(
        python.contains("no registry gives it (it answered HTTP 403 without a word)")
            && python.contains("docker load -i FILE"),
        "{python}"
    );
    assert!(line(&lines, "images of nodejs").contains("no registry was reached before"), "{lines}");
}

#[test]
fn a_real_engine_with_the_images_is_well() {
    if !docker_is_ready() {
        return;
    }
    let dir = TempDir::new();
    let bases = ["python3", "nodejs", "binary"].map(|env| format!("{env}=tinyfaas-test/{env}"));
    let config = settings(&dir, serde_json::json!({ "backend": "docker", "runtime-base": bases }));
    let (code, lines, _) = doctor(&config, &[]);
    assert_eq!(code, DONE, "{lines}");
    assert!(line(&lines, "engine").starts_with("ok: engine: Docker "), "{lines}");
    for env in ["python3", "nodejs", "binary"] {
        assert!(line(&lines, &format!("images of {env}")).starts_with("ok: "), "{lines}");
    }
}

#[test]
fn as_json_it_is_one_object() {
    let dir = TempDir::new();
    let (code, json, error) = doctor(&settings(&dir, serde_json::json!({})), &["--json", "--host", "127.0.0.1:1"]);
    assert_eq!((code, error.as_str()), (FAILED, "tinyfaas: there is 1 problem\n"), "{json}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["ok"], false);
    let checks = report["checks"].as_array().unwrap();
    let server = checks.iter().find(|check| check["name"] == "server").unwrap();
    assert_eq!(server["status"], "problem");
    assert!(server["found"].is_string() && server["advice"].is_string(), "{server}");
    let clock = checks.iter().find(|check| check["name"] == "clock").unwrap();
    assert!(clock["status"] == "ok" && clock.get("advice").is_none(), "{clock}");
}

#[test]
fn runtimes_of_the_operator_are_read_as_serve_reads_them() {
    let dir = TempDir::new();
    let runtimes = dir.0.join("runtimes");
    fs::create_dir_all(runtimes.join("awk")).unwrap();
    // Free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = settings(&dir, serde_json::json!({ "management": free, "runtime-base": ["awk=busybox"] }));
    let flag = ["--runtimes", runtimes.to_str().unwrap()];
    let describe = |json: &str| fs::write(runtimes.join("awk/runtime.json"), json).unwrap();
    fs::write(runtimes.join("awk/Dockerfile"), "ARG BASE\nFROM ${BASE}\n").unwrap();

    describe(r#"{"bass": "busybox"}"#);
    let (code, lines, _) = doctor(&config, &flag);
    assert_eq!(code, FAILED, "{lines}");
    let wrong: Vec<_> = lines.lines().filter(|line| line.starts_with("problem: runtimes: ")).collect();
    assert!(wrong[0].contains("\"bass\" is unknown") && wrong[0].contains(" - mend it"), "{lines}");
    assert!(wrong[1].contains("there is no env awk") && wrong[1].ends_with(" - change that setting"), "{lines}");

    describe(
        r#"{"base": "busybox", "entries": ["fn.awk"], "process": {"program": "nosuchawk", "command": ["{program}"]}}"#,
    );
    let (code, lines, _) = doctor(&config, &flag);
    assert_eq!(code, DONE, "{lines}");
    assert_eq!(line(&lines, "runtimes"), format!("ok: runtimes: those in {} can be used", runtimes.display()));
    // What they need of this machine is looked for as well.
    assert!(line(&lines, "programs").contains("nosuchawk"), "{lines}");
}
