//! What README.md and docs/ tell a reader to type works as they say: `tests/pages/run` types it.

use std::process::{Command, Stdio};

use crate::board::docker_is_ready;
use crate::tools::has;

/// The program, as one that is told to run the pages.
fn run(pages: &[&str]) -> (bool, String) {
    let out = Command::new("python3")
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pages/run"), env!("CARGO_BIN_EXE_tinyfaas")])
        .args(pages)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn every_command_in_them_works() {
    let clients = [
        ("python3", "python3"),
        ("node", "nodejs"),
        ("curl", "curl"),
        ("zip", "zip"),
        ("coap-client-notls", "libcoap3-bin"),
    ];
    if !clients.iter().all(|(program, package)| has(program, package)) {
        return;
    }
    // Makes the images that containers start from here. Where there is no engine, blocks that need one are told as skipped.
    docker_is_ready();
    let (worked, said) = run(&[]);
    println!("{said}");
    assert!(worked, "{said}");
}

/// A page whose commands fail, print something else, or are left out fails.
#[test]
fn a_page_that_is_wrong_is_found() {
    for (page, fault) in [
        ("```sh\nfalse\n```\n", ":1: this block fails (1)"),
        ("```sh\necho one\n```\n```text\ntwo\n```\n", ":1: this block prints\none\n"),
        ("```sh elsewhere\nreboot\n```\n", "1 blocks are not run"),
        ("```\ntinyfaas list\n```\n", "a block has to say what it is"),
        ("```text\nhello\n```\n", "text follows what it is printed by"),
        ("# Here\n[there](#there)\n", "the link #there leads nowhere"),
        ("[there](there.md)\n", "the link there.md leads nowhere"),
        ("```sh serve\ntinyfaas serve --http nowhere\n```\n", "the server ended"),
    ] {
        let dir = crate::board::TempDir::new();
        let path = dir.0.join("page.md");
        std::fs::write(&path, page).unwrap();
        let (worked, said) = run(&[path.to_str().unwrap()]);
        assert!(!worked && said.contains(fault), "{page}\n{said}");
    }
}
