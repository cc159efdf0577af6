//! `runtimes/export`: images made on a bigger machine, loaded on a board that can build none.

use std::fs;
use std::process::Command;

use crate::board::{Backend, Board, TempDir, docker, docker_is_ready};

const RUNTIMES: [(&str, &str, &str); 3] = [
    ("python3", "fn.py", "def fn(input):\n    return input\n"),
    ("nodejs", "fn.js", "module.exports = (req, res) => res.send(req.body);\n"),
    ("binary", "fn.sh", "cat\n"),
];

/// Tags of the test's own on the test's base images: no other test has made an image of these. Gone with the test.
struct Bases(Vec<String>);

impl Bases {
    fn new() -> Self {
        let tag = |(env, ..): (&str, &str, &str)| {
            let tag = format!("tinyfaas-it-export-{env}:{}", std::process::id());
            docker(&["tag", &format!("tinyfaas-test/{env}"), &tag]);
            tag
        };
        Self(RUNTIMES.map(tag).into())
    }

    /// `ENV=IMAGE` for each, after `flag`.
    fn flags<'a>(&'a self, flag: &'a str) -> Vec<String> {
        let pair = |(base, (env, ..)): (&String, (&str, &str, &str))| [flag.to_owned(), format!("{env}={base}")];
        self.0.iter().zip(RUNTIMES).flat_map(pair).collect()
    }
}

impl Drop for Bases {
    fn drop(&mut self) {
        let _ = Command::new("docker").arg("rmi").args(&self.0).output();
    }
}

fn export(binary: &str, args: &[&str]) -> (bool, String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/runtimes/export");
    let out = Command::new(script).arg(binary).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn exported_images_are_loaded_and_used_without_a_build() {
    if !docker_is_ready() {
        return;
    }
    let dir = TempDir::new();
    let file = dir.0.join("runtimes.tar");
    let file = file.to_str().unwrap();
    let bases = Bases::new();
    let flags = bases.flags("--base");
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(["--out", file]).collect();
    let (done, path, log) = export(env!("CARGO_BIN_EXE_tinyfaas"), &args);
    assert!(done && path.trim() == file, "{log}");
    let tags: Vec<&str> =
        log.lines().filter(|l| l.starts_with("tinyfaas-")).filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(tags.len(), RUNTIMES.len(), "{log}");
    // A board has neither the images nor what they are built on.
    let flags = bases.flags("--runtime-base");
    docker(&[&["rmi"], &tags[..]].concat());
    drop(bases);
    docker(&["load", "-q", "-i", file]);

    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let board = Board::start(Backend::Docker, &flags);
    for (env, name, text) in RUNTIMES {
        board.deploy(env, env, 1, &[(name, text)]);
        assert_eq!(board.call(env, b"loaded").text(), "loaded", "{env}");
        assert_eq!(board.delete(env).status, 200);
    }
    assert!(!board.log().contains("building the image"), "{}", board.log());
    // Nor does a server remove what it did not make.
    drop(board.restart());
    for tag in &tags {
        docker(&["image", "inspect", "--format", "{{.Id}}", tag]);
    }
    docker(&[&["rmi"], &tags[..]].concat());
}

#[test]
fn an_export_for_what_is_no_release_binary_is_refused() {
    let dir = TempDir::new();
    let file = dir.0.join("binary");
    for (content, reason) in [(&b"#!/bin/sh\n"[..], "no ELF executable"), (&[0x7f, b'E', b'L', b'F', 0][..], "")] {
        let mut content = content.to_vec();
        content.resize(64, 0);
        // An x86_64 one that has nothing of ours in it.
        content[18] = 62;
        fs::write(&file, content).unwrap();
        let (done, _, log) = export(file.to_str().unwrap(), &["binary"]);
        let reason = if reason.is_empty() { "Dockerfile beside this script is not that of BINARY" } else { reason };
        assert!(!done && log.contains(reason), "{log}");
    }
    let (done, _, log) = export(file.to_str().unwrap(), &["cobol"]);
    assert!(!done && log.contains("ENV is one of python3, nodejs, binary"), "{log}");
}
