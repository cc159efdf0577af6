//! The image of the server itself (`packaging/image`): it manages the engine of its host through the mounted socket.

use std::process::Command;

use crate::board::{Backend, Board, TempDir, docker, left_on_engine, zip_of};
use crate::shipped;

/// The image, made from the release binary for this machine; removed with the test.
struct Image {
    tag: String,
}

impl Image {
    /// `None`, said loudly, where there is no engine or no release binary.
    fn build(name: &str) -> Option<Self> {
        if !Backend::available().contains(&Backend::Docker) {
            return None;
        }
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        shipped::shipped().into_iter().find(|b| b.target == target && b.flavour == "full")?;
        let tag = format!("tinyfaas-it-{name}:{}", std::process::id());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/image/build");
        let out = Command::new(script).args([&target, &tag]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Some(Self { tag })
    }

    /// What runs a server from the image, in the container `name` and in the host's network, with `mount` for its state.
    fn program<'a>(&'a self, name: &'a str, mount: &'a str) -> [&'a str; 11] {
        let socket = "/var/run/docker.sock:/var/run/docker.sock";
        ["docker", "run", "--rm", "--name", name, "--network=host", "-v", socket, "-v", mount, &self.tag]
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.tag]).output();
    }
}

const CAT: &[(&str, &str)] = &[("fn.sh", "cat\n")];

#[test]
fn the_server_in_a_container_runs_functions_on_the_engine_of_its_host() {
    let Some(image) = Image::build("server") else { return };
    let dir = TempDir::new();
    let top = dir.0.to_str().unwrap();
    let name = format!("tinyfaas-it-server-{}", std::process::id());
    let mount = format!("{top}:{top}");
    let program = image.program(&name, &mount);
    let mut board = Board::start_as(&program, Backend::Docker, &[], dir.0.join("state"));
    board.deploy("echo", "binary", 2, CAT);
    let doors = [("http", board.http), ("coap", board.coap), ("grpc", board.grpc)];
    for url in doors.map(|(protocol, addr)| format!("{protocol}://{}/echo", addr.unwrap())) {
        let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["invoke", &url, "--data", "hi"]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "hi", "{url}");
    }
    let containers = |left: Vec<String>| left.into_iter().filter(|l| l.starts_with("container")).count();
    assert_eq!(containers(left_on_engine(&board.state_dir)), 2);
    // It is the first process of its container, and is told to stop as such.
    docker(&["stop", "--time", "60", &name]);
    assert!(board.ended(), "{}", board.log());
    assert!(board.log().contains("stopping: SIGTERM"), "{}", board.log());
    assert_eq!(containers(left_on_engine(&board.state_dir)), 0);

    // What it knew is in the folder, not in its container.
    let board = board.again_as(&program);
    assert_eq!(board.call("echo", b"again").text(), "again");
}

#[test]
fn a_state_directory_that_the_engine_does_not_see_is_told_with_what_to_do() {
    let Some(image) = Image::build("unseen") else { return };
    let dir = TempDir::new();
    let top = dir.0.to_str().unwrap();
    let name = format!("tinyfaas-it-unseen-{}", std::process::id());
    let mount = format!("{top}:/elsewhere");
    let program = image.program(&name, &mount);
    let start = |flags: &[&str]| Board::start_as(&program, Backend::Docker, flags, "/elsewhere/state".into());
    let mut board = start(&[]);
    let answer = board.upload("echo", "binary", 1, &zip_of(CAT));
    assert_eq!(answer.status, 500);
    let text = answer.text();
    assert!(text.contains("the engine does not see our state directory") && text.contains("-v DIR:DIR"), "{text}");
    assert!(board.stop(), "{}", board.log());
    // The other way that it names works as well.
    let board = start(&["--reach", "tcp"]);
    board.deploy("echo", "binary", 1, CAT);
    assert_eq!(board.call("echo", b"by tcp").text(), "by tcp");
    drop(board);
    let id = std::fs::read_to_string(dir.0.join("state/instance")).unwrap();
    let cleaned =
        Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["clean", "--instance", id.trim()]).output().unwrap();
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
}
