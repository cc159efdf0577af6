//! The release binaries as they are shipped: each target and flavour that `cross/build` made, on either backend.
//!
//! Those for other machines run under qemu's user emulation, and so do their handlers, as processes and in containers: the
//! kernel starts them so (`tests/binfmt`). The shell that runs a function is this machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::board::{Backend, Board, TempDir, left_of, noise, request};

/// What `.ci/run` builds before it runs the tests.
const SHIPPED: [(&str, &str); 5] = [
    ("x86_64-unknown-linux-musl", "full"),
    ("x86_64-unknown-linux-musl", "mini"),
    ("armv7-unknown-linux-musleabihf", "full"),
    ("armv7-unknown-linux-musleabihf", "mini"),
    ("aarch64-unknown-linux-musl", "full"),
];

/// One of them.
pub struct Binary {
    pub target: &'static str,
    pub flavour: &'static str,
    path: PathBuf,
}

impl Binary {
    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.path).args(args).stdin(Stdio::null()).output().unwrap()
    }

    /// What the command prints; it has to work.
    fn say(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{}: {args:?}: {}", self.path.display(), String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn program(&self) -> [&str; 1] {
        [self.path.to_str().unwrap()]
    }
}

/// Those that are there: in the folder that `TINYFAAS_SHIPPED` names, or where `cross/build` puts them. Each of them has to
/// run. One that is missing fails in CI and is told loudly elsewhere.
pub fn shipped() -> Vec<Binary> {
    let folder = std::env::var_os("TINYFAAS_SHIPPED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let mut found = Vec::new();
    for (target, flavour) in SHIPPED {
        let path = folder.join(target).join(flavour).join("tinyfaas");
        if !path.exists() {
            assert!(
                std::env::var_os("CI").is_none(),
                "{} is missing: run cross/build {target} {flavour}",
                path.display()
            );
            eprintln!("\n*** SKIPPED: run cross/build {target} {flavour} to have it tested ***\n");
            continue;
        }
        let started = Command::new(&path).arg("--version").output();
        assert!(started.is_ok(), "{} does not start here: run tests/binfmt as root ({started:?})", path.display());
        found.push(Binary { target, flavour, path });
    }
    found
}

#[test]
fn each_shipped_binary_says_what_it_is() {
    for binary in shipped() {
        let text = binary.say(&["--version"]);
        let version = concat!("tinyfaas ", env!("CARGO_PKG_VERSION"), " (commit ");
        let build = format!(", {}, {})\n", binary.target, binary.flavour);
        assert!(text.starts_with(version) && text.ends_with(&build), "{text}");
    }
}

/// Deploys a function by the shipped command and calls it over each protocol, by the shipped command and by others.
fn deploy_and_call(binary: &Binary, backend: Backend) {
    let dir = TempDir::new();
    let folder = dir.0.join("echo");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("fn.sh"), "cat\n").unwrap();
    let what = format!("{} {} {}", binary.target, binary.flavour, backend.name());

    let mut board = Board::start_as(&binary.program(), backend, &[], dir.0.join("state"));
    let management = board.management.to_string();
    let urls = binary.say(&["deploy", folder.to_str().unwrap(), "--threads", "2", "--host", &management]);
    assert_eq!(urls.lines().count(), 3, "{what}: {urls}");
    // Longer than one block of CoAP.
    let text = noise(5000);
    let body = dir.0.join("body");
    fs::write(&body, &text).unwrap();
    for url in urls.lines() {
        assert_eq!(binary.say(&["invoke", url, "--data", "hello"]), "hello", "{what}: {url}");
        let args = ["invoke", url, "--file", body.to_str().unwrap()];
        assert_eq!(binary.say(&args), text, "{what}: {url}");
        let other = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(args).output().unwrap();
        assert_eq!(String::from_utf8(other.stdout).unwrap(), text, "{what}: {url}");
    }
    let long = noise(1 << 20);
    assert_eq!(board.call("echo", long.as_bytes()).text(), long, "{what}");
    assert_eq!(board.call("nobody", b"").status, 404, "{what}");

    board.deploy("fails", "binary", 1, &[("fn.sh", "echo broken >&2; exit 3\n")]);
    let answer = board.call("fails", b"");
    assert!(answer.status == 500 && answer.text().contains("broken"), "{what}: {answer:?}");
    assert_eq!(binary.say(&["delete", "fails", "--host", &management]), "", "{what}");

    // The mini flavour knows no TLS and says so; the full one has other reasons not to fetch from here.
    let url = ["--url", "https://127.0.0.1:1/f.zip", "--name", "f", "--env", "binary"];
    let out = binary.run(&[&["deploy", "--host", &management], &url[..]].concat());
    let error = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), error.contains("no TLS")), (Some(1), binary.flavour == "mini"), "{what}: {error}");

    // So do its commands and its server.
    for args in
        [&["list", "--host", "https://127.0.0.1:1"][..], &["serve", "--tls-cert", "/nothing", "--tls-key", "/nothing"]]
    {
        let error = String::from_utf8(binary.run(args).stderr).unwrap();
        assert_eq!(error.contains("this build has no TLS"), binary.flavour == "mini", "{what}: {args:?}: {error}");
    }

    // Nor has it a status page.
    let page = request(board.management, "GET", "/", "Accept-Encoding: gzip\r\n", b"");
    let expected = if binary.flavour == "mini" { (404, None) } else { (200, Some("gzip")) };
    assert_eq!((page.status, page.header("content-encoding")), expected, "{what}");

    // What is on disk comes back, and goes.
    board = board.power_cut_as(&binary.program());
    assert_eq!(board.call("echo", b"again").text(), "again", "{what}");
    assert_eq!(board.delete("echo").status, 200, "{what}");
    assert_eq!(left_of(&board.state_dir), [""; 0], "{what}");
}

#[test]
fn each_shipped_binary_runs_functions_as_processes() {
    for binary in shipped() {
        deploy_and_call(&binary, Backend::Process);
    }
}

#[test]
fn each_shipped_binary_runs_functions_in_containers() {
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    for binary in shipped() {
        deploy_and_call(&binary, Backend::Docker);
    }
}

/// A panic cannot be asked for, so one is brought about: there is no reactor where no descriptor is left.
#[test]
fn a_panic_of_the_full_flavour_is_told_with_its_place_and_ends_the_program() {
    let binaries = shipped();
    let Some(binary) = binaries.iter().find(|b| b.target.starts_with("x86_64") && b.flavour == "full") else { return };
    let mut command = Command::new("prlimit");
    command.args(["--nofile=3", "--"]).arg(&binary.path).arg("serve").stdin(Stdio::null());
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success(), "{}", out.status);
    let place = text.lines().find(|line| line.contains("panicked at")).unwrap();
    assert!(place.contains("src/reactor/mod.rs:"), "{text}");
    assert!(text.contains("cannot wait for events: "), "{text}");
}
