//! The commands of `tinyfaas` as a person or a script uses them, against a scripted server: what goes over the wire, what is
//! printed, and the exit code.

mod deploy;
mod doctor;
mod invoke;
mod json;
mod new;
mod terminal;
mod watch;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::scripted::{Scripted, body_of, head_end};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const NOT_FOUND: i32 = 4;

const EMPTY_OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn tinyfaas(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
    command.args(args).stdin(Stdio::null());
    for name in ["TINYFAAS_HOST", "HTTP_PORT", "COAP_PORT", "GRPC_PORT", "TF_BACKEND", "DOCKER_HOST", "RUST_LOG"] {
        command.env_remove(name);
    }
    // Nor the token of the one who runs the tests.
    command.env_remove("TINYFAAS_TOKEN").env_remove("TINYFAAS_TOKEN_FILE").env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Runs a command against the management API of `server`.
fn manage(server: &Scripted, args: &[&str]) -> Output {
    tinyfaas(args).args(["--host", &server.addr.to_string()]).output().unwrap()
}

/// Runs a command that fails before it reaches any server.
fn refused(args: &[&str]) -> (i32, String) {
    let output = tinyfaas(args).output().unwrap();
    assert_eq!(text(&output.stdout), "", "{args:?}");
    (output.status.code().unwrap(), text(&output.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_output(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let got = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(got, (Some(code), stdout.into(), stderr.into()));
}

fn spawn_with_stdin(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Self {
        let top = std::env::temp_dir().join(format!("tinyfaas-cli-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&top);
        let folder = Self(top);
        fs::create_dir_all(folder.function()).unwrap();
        for (file, content) in files {
            let path = folder.function().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    /// The folder to deploy: `hello`.
    fn function(&self) -> PathBuf {
        self.0.join("hello")
    }

    fn arg(&self) -> String {
        self.function().to_str().unwrap().into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn request_line_and_fields(first: &str, more: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{first} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: tinyfaas/{version}\r\nConnection: close\r\n{more}\r\n"
    )
}

#[test]
fn list_asks_and_prints_what_comes_back() {
    let server = Scripted::answers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none\ntwo12");
    assert_output(&manage(&server, &["list"]), DONE, "one\ntwo12", "");
    assert_eq!(server.request(), request_line_and_fields("GET /list", ""));
}

#[test]
fn the_server_may_be_named_by_the_environment() {
    let server = Scripted::answers(EMPTY_OK);
    let output = tinyfaas(&["list"]).env("TINYFAAS_HOST", server.addr.to_string()).output().unwrap();
    assert_output(&output, DONE, "", "");
    assert_eq!(server.request(), request_line_and_fields("GET /list", ""));
}

#[test]
fn logs_are_asked_for_all_or_one_function_and_pass_in_chunks() {
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\xff\n\0\r\n2\r\nb\n\r\n0\r\n\r\n";
    let server = Scripted::answers(*answer);
    let output = manage(&server, &["logs"]);
    assert_eq!((output.status.code(), output.stdout), (Some(DONE), b"a\xff\n\0b\n".to_vec()));
    assert_eq!(server.request(), request_line_and_fields("GET /logs", ""));

    let server = Scripted::answers(*answer);
    assert_eq!(manage(&server, &["logs", "hello"]).status.code(), Some(DONE));
    assert_eq!(server.request(), request_line_and_fields("GET /logs?name=hello", ""));

    let server = Scripted::answers(*answer);
    let output = manage(&server, &["logs", "-f", "--since", "10m", "--tail=5", "hello", "resize"]);
    assert_eq!(output.stdout, b"a\xff\n\0b\n");
    let target = "GET /logs?name=hello&name=resize&since=10m&tail=5&follow=1";
    assert_eq!(server.request(), request_line_and_fields(target, ""));
}

#[test]
fn delete_names_the_function() {
    let server = Scripted::answers(EMPTY_OK);
    assert_output(&manage(&server, &["delete", "hello"]), DONE, "", "");
    let expected = request_line_and_fields("POST /delete", "Content-Length: 16\r\n") + "{\"name\":\"hello\"}";
    assert_eq!(server.request(), expected);
}

#[test]
fn wipe_needs_a_yes_where_nobody_can_be_asked() {
    let (code, error) = refused(&["wipe", "--host", "127.0.0.1:1"]);
    assert_eq!(code, USAGE);
    assert!(error.contains("--yes"), "{error}");

    let server = Scripted::answers(EMPTY_OK);
    assert_output(&manage(&server, &["wipe", "--yes"]), DONE, "", "");
    assert_eq!(server.request(), request_line_and_fields("POST /wipe", "Content-Length: 0\r\n"));
}

#[test]
fn a_refusal_s_text_is_shown_and_its_kind_is_the_exit_code() {
    for (status, code) in [("404 Not Found", NOT_FOUND), ("400 Bad Request", FAILED), ("500 Oh", FAILED)] {
        let server = Scripted::answers(format!("HTTP/1.1 {status}\r\nContent-Length: 14\r\n\r\nwhy\x1b[2J\nmore\r\n"));
        let expected = format!("tinyfaas: HTTP {}: why[2J\nmore\n", &status[..3]);
        assert_output(&manage(&server, &["delete", "hello"]), code, "", &expected);
    }
    let server = Scripted::answers("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    let expected = format!("tinyfaas: {} answered HTTP 500 without a word\n", server.addr);
    assert_output(&manage(&server, &["list"]), FAILED, "", &expected);
}

#[test]
fn a_server_that_is_not_there_is_exit_code_3() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [&["list", "--host", &free][..], &["invoke", "--http-port", &free[10..], "hello"]] {
        let (code, error) = refused(args);
        assert_eq!(code, UNREACHABLE, "{error}");
        assert!(error.starts_with(&format!("tinyfaas: cannot reach {free}")) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn an_answer_that_is_cut_is_exit_code_3() {
    for cut in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none"] {
        let server = Scripted::answers(cut);
        let output = manage(&server, &["list"]);
        assert_eq!(output.status.code(), Some(UNREACHABLE), "{cut:?}");
        assert!(text(&output.stderr).contains("closed before the answer's end"), "{}", text(&output.stderr));
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\none";
    assert_eq!(manage(&Scripted::answers(chunked), &["list"]).status.code(), Some(UNREACHABLE));
}

#[test]
fn a_peer_that_does_not_speak_http_is_an_error_and_no_hang() {
    for answer in ["SSH-2.0-OpenSSH_9\r\n\r\n".to_string(), format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(100_000))] {
        let output = manage(
            &Scripted::with(move |stream| {
                let _ = stream.write_all(answer.as_bytes());
                Vec::new()
            }),
            &["list"],
        );
        assert!(matches!(output.status.code(), Some(FAILED | UNREACHABLE)), "{output:?}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_says_what_is_right() {
    for (args, hint) in [
        (&["lisst"][..], "lisst"),
        (&["delete"], "NAME"),
        (&["delete", "a-b"], "ASCII letters and digits"),
        (&["deploy"], "either a folder, or --url, or --image"),
        (&["deploy", "/does/not/exist"], "No such file"),
        (&["deploy", "/", "--env", "binary"], "--name"),
        (&["deploy", "/dev/null", "--env", "binary", "--name", "x"], "neither a folder nor a zip file"),
        (&["deploy", "--url", "http://x/", "--name", "x"], "--env"),
        (&["deploy", "x", "--env", "Cobol!"], "use one such as python3"),
        (&["deploy", "x", "--image", "y"], "either a folder, or --url, or --image"),
        (&["deploy", "--image", "y"], "give --name"),
        (&["deploy", "--image", "y", "--name", "x", "--env", "binary"], "leave one of them out"),
        (&["deploy", "--image", "y", "--name", "x", "--subfolder", "z"], "--subfolder goes with --url"),
        (&["deploy", "x", "--threads", "0"], "at least 1"),
        (&["deploy", "x", "--memory", "64MB"], "such as 64Mi"),
        (&["deploy", "x", "--memory", "1Mi"], "6Mi or more"),
        (&["deploy", "x", "--cpu", "half"], "such as 500m"),
        (&["deploy", "x", "--pids", "0"], "from 1 to 32768"),
        (&["deploy", "x", "--timeout", "25h"], "24h or less"),
        (&["deploy", "x", "--timeout", "30"], "such as 30s"),
        (&["deploy", "x", "--concurrency", "0"], "from 1 to 4096"),
        (&["deploy", "x", "--queue", "-1"], "from 0 to 65536"),
        (&["deploy", "x", "--idle", "1ms"], "1s or more, or off"),
        (&["serve", "--memory", "1Mi"], "6Mi or more"),
        (&["serve", "--queue", "70000"], "from 0 to 65536"),
        (&["deploy", "x", "--env-var", "=v"], "KEY=VALUE"),
        (&["invoke", "f", "--data", "x", "--file", "y"], "not both"),
        (&["invoke", "f", "--file", "/does/not/exist"], "No such file"),
        (&["invoke", "f", "--header", "no colon"], "NAME:VALUE"),
        (&["invoke", "f", "--header", "Content-Length: 5"], "set by tinyfaas itself"),
        (&["invoke", "f", "--header", "a: b\r\nc: d"], "control characters"),
        (&["invoke", "ftp://x/f"], "http, https, coap, grpc or grpcs"),
        (&["list", "--host", "a b"], "use HOST"),
        (&["serve", "--http", "nowhere"], "use IP:PORT"),
    ] {
        let (code, error) = refused(args);
        assert_eq!((code, error.lines().count()), (USAGE, 1), "{args:?}: {error}");
        assert!(error.starts_with("tinyfaas: ") && error.contains(hint), "{args:?}: {error}");
    }
}

#[test]
fn a_wrong_port_variable_stops_the_start_and_is_named() {
    for value in ["eighty", "65536", "-2", ""] {
        let output = tinyfaas(&[]).env("COAP_PORT", value).output().unwrap();
        assert_eq!(output.status.code(), Some(USAGE));
        assert!(text(&output.stderr).starts_with("tinyfaas: COAP_PORT: "), "{}", text(&output.stderr));
    }
    let output = tinyfaas(&["serve"]).env("TF_BACKEND", "k8s").output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(text(&output.stderr).contains("docker, process or auto"), "{}", text(&output.stderr));
}

#[test]
fn help_documents_the_exit_codes_and_version_prints_one() {
    let output = tinyfaas(&["--version"]).output().unwrap();
    assert_output(&output, DONE, concat!("tinyfaas ", env!("CARGO_PKG_VERSION"), " (not a release)\n"), "");
    let help = tinyfaas(&["--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(DONE));
    for line in ["  0 done", "  1 failed", "  2 the command line", "  3 the server cannot be reached", "  4 not found"]
    {
        assert!(text(&help.stdout).contains(line), "{line}");
    }
}

#[test]
fn clean_waits_for_a_container_that_another_program_removes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let (asked, counted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut deletions = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if !matches!(stream.read(&mut byte), Ok(1)) {
                        break;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let Some((method, rest)) = head.split_once(' ') else { break };
                let path = rest.split([' ', '?']).next().unwrap();
                let (status, body) = match (method, path) {
                    ("DELETE", _) if deletions < 2 => {
                        deletions += 1;
                        ("409 Conflict", r#"{"message":"removal of container f is already in progress"}"#)
                    }
                    ("DELETE", _) => {
                        asked.send(deletions).unwrap();
                        ("204 No Content", "")
                    }
                    (_, path) if path.ends_with("/containers/json") => {
                        ("200 OK", r#"[{"Id":"f","Names":["/f"],"Image":"i","Labels":{},"State":"exited"}]"#)
                    }
                    (_, path) if path.ends_with("/version") => ("200 OK", r#"{"ApiVersion":"1.41"}"#),
                    _ => ("200 OK", "[]"),
                };
                let length = body.len();
                let fields = format!("content-type: application/json\r\ncontent-length: {length}");
                stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}").as_bytes()).unwrap();
            }
        }
    });
    let out = tinyfaas(&["clean", "--docker-host", &host]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("container f"), "{out:?}");
    assert_eq!(counted.recv().unwrap(), 2);
}

#[test]
fn clean_without_an_engine_is_exit_code_3() {
    for args in
        [&["clean", "--docker-host", "unix:///does/not/exist"][..], &["clean", "--docker-host=tcp://127.0.0.1:1"]]
    {
        let (code, error) = refused(args);
        assert_eq!((code, error.lines().count()), (UNREACHABLE, 1), "{error}");
    }
    assert_eq!(refused(&["clean", "--docker-host", "ssh://x"]).0, USAGE);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Scripted::with(move |stream| {
        told.recv().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        Vec::new()
    });
    let mut command = tinyfaas(&["list", "--host", &server.addr.to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    tell.send(()).unwrap();
    assert_output(&child.wait_with_output().unwrap(), DONE, "", "");
}
