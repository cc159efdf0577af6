//! Functions that are images: they speak the handler contract, and no archive comes with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::board::{Backend, Board, TempDir, docker, docker_is_ready, left_on_engine, zip_of};

/// What knows the contract's TCP port alone.
const BY_TCP: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self, text):
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_GET(self):
        self.answer(b'')
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.answer(b'%s %d %s' % (os.environ['GREETING'].encode(), os.getuid(), body))
http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()
"#;

/// Images of the test's own, gone with it. No registry answers where their names say.
struct Images(Vec<String>);

impl Images {
    /// A name that no other test gives.
    fn name(&mut self, name: &str) -> String {
        let tag = format!("localhost:1/tinyfaas-it/{name}-{}:1", std::process::id());
        self.0.push(tag.clone());
        tag
    }

    /// Makes an image of these files, which say the rest in their Dockerfile.
    fn build(&mut self, name: &str, files: &[(&str, &[u8])]) -> String {
        let (tag, dir) = (self.name(name), TempDir::new());
        for (name, bytes) in files {
            let path = dir.0.join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        docker(&["build", "-q", "-t", &tag, dir.0.to_str().unwrap()]);
        tag
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let _ = Command::new("docker").arg("rmi").args(&self.0).output();
    }
}

fn by_tcp(images: &mut Images, name: &str) -> String {
    let dockerfile = "FROM tinyfaas-test/python3\nCOPY serve.py /serve.py\nENTRYPOINT [\"python3\", \"/serve.py\"]\n";
    images.build(name, &[("Dockerfile", dockerfile.as_bytes()), ("serve.py", BY_TCP.as_bytes())])
}

fn put(board: &Board, target: &str) -> (u16, String) {
    let answer = board.manage("PUT", target, b"");
    (answer.status, answer.text())
}

#[test]
fn an_image_is_deployed_limited_listed_and_removed_as_any_function() {
    if !docker_is_ready() {
        return;
    }
    let mut images = Images(Vec::new());
    let tag = by_tcp(&mut images, "tcp");
    let program = fs::read(env!("CARGO_BIN_EXE_tinyfaas")).unwrap();
    let dockerfile = "FROM tinyfaas-test/binary\nCOPY tinyfaas fn.sh /fn/\nCMD [\"/fn/tinyfaas\", \"handler\"]\n";
    let by_socket = images.build(
        "socket",
        &[
            ("Dockerfile", dockerfile.as_bytes()),
            ("tinyfaas", &program),
            ("fn.sh", b"read -r line; echo \"socket $line\""),
        ],
    );
    let board = Board::start(Backend::Docker, &[]);

    // By the command line, as JSON, and by PUT.
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas"))
        .args([
            "deploy",
            "--image",
            &tag,
            "--name",
            "tcp",
            "--env-var",
            "GREETING=hi",
            "--memory",
            "64Mi",
            "--threads",
            "2",
        ])
        .args(["--host", &board.management.to_string()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("/tcp\n"));
    assert_eq!(board.call("tcp", b"x").text(), "hi 65534 x");
    let json = format!(r#"{{"name":"json","env":"image","image":"{by_socket}","threads":1,"network":false}}"#);
    let answer = board.manage("POST", "/upload", json.as_bytes());
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), board.log());
    assert_eq!(board.call("json", b"x\n").text(), "socket x\n");
    assert_eq!(put(&board, &format!("/functions/put?image={by_socket}&queue=3")).0, 201);
    assert_eq!(board.call("put", b"y\n").text(), "socket y\n");

    let shown: serde_json::Value = serde_json::from_slice(&board.manage("GET", "/functions/tcp", b"").body).unwrap();
    assert_eq!((&shown["env"], &shown["image"]), (&"image".into(), &tag.as_str().into()));
    assert_eq!((&shown["threads"], &shown["limits"]["memory"]), (&2.into(), &"64Mi".into()));
    let id = shown["handlers"][0]["id"].as_str().unwrap();
    let format = "{{.HostConfig.Memory}} {{.HostConfig.CapDrop}} {{.Config.User}} {{index .Config.Labels \"tinyfaas-function\"}}";
    assert_eq!(docker(&["inspect", "-f", format, id]).trim(), "67108864 [ALL] 65534:65534 tcp");

    // What is wrong with it is said, and leaves nothing.
    for (json, status, why) in [
        (r#""env":"image""#, 400, "image is missing: it has to be an image's reference"),
        (r#""image":7"#, 400, "image has to be a string"),
        (r#""image":"../x""#, 400, "no reference of an image"),
        (r#""image":"a/../b""#, 400, "no reference of an image"),
        (r#""image":"x","env":"python3""#, 400, "image goes with the env image"),
        (r#""image":"x","zip":"UEs=""#, 400, "no archive comes with an image"),
        (r#""image":"x","subfolder_path":"a""#, 400, "no archive comes with an image"),
        (
            r#""image":"localhost:1/no/such:1""#,
            422,
            "the image localhost:1/no/such:1 is not on the engine and cannot be pulled",
        ),
        // One that is no handler.
        (r#""image":"tinyfaas-test/binary""#, 422, "ended before it was ready"),
    ] {
        let answer = board.manage("POST", "/upload", format!(r#"{{"name":"bad","threads":1,{json}}}"#).as_bytes());
        assert!(answer.status == status && answer.text().contains(why), "{json}: {} {}", answer.status, answer.text());
        assert_eq!(answer.text().trim_end().lines().count(), 1, "{}", answer.text());
    }
    let answer = board.manage("POST", "/uploadURL", br#"{"name":"bad","threads":1,"image":"x","url":"http://x/"}"#);
    assert!(answer.status == 400 && answer.text().contains("nothing is fetched"), "{}", answer.text());
    let answer = board.manage("PUT", "/functions/bad?image=x", &zip_of(&[("fn.sh", "")]));
    assert!(answer.status == 400 && answer.text().contains("leave the body empty"), "{}", answer.text());

    let board = board.power_cut();
    assert_eq!(board.call("tcp", b"x").text(), "hi 65534 x");
    // In place of an image comes an archive, and goes again.
    board.deploy("put", "binary", 1, &[("fn.sh", "echo archive")]);
    assert_eq!(board.call("put", b"").text(), "archive\n");
    assert_eq!(put(&board, &format!("/functions/put?env=image&image={by_socket}")).0, 200);
    assert_eq!(board.call("put", b"z\n").text(), "socket z\n");
    assert_eq!(board.manage("POST", "/wipe", b"").status, 200);
    assert_eq!(board.manage("GET", "/list", b"").text(), "");
    let left = left_on_engine(&board.state_dir);
    assert!(!left.iter().any(|what| what.starts_with("container")), "{left:?}");
    // Images that others made are theirs.
    docker(&["image", "inspect", &tag, &by_socket]);
}

#[test]
fn a_function_whose_image_was_removed_says_so_and_is_back_with_it() {
    if !docker_is_ready() {
        return;
    }
    let mut images = Images(Vec::new());
    let (tag, kept) = (by_tcp(&mut images, "lost"), images.name("kept"));
    let board = Board::start(Backend::Docker, &[]);
    let json = format!(r#"{{"name":"lost","image":"{tag}","threads":1,"envs":["GREETING=hi"]}}"#);
    assert_eq!(board.manage("POST", "/upload", json.as_bytes()).status, 200);
    let shown = |board: &Board| -> serde_json::Value {
        serde_json::from_slice(&board.manage("GET", "/functions/lost", b"").body).unwrap()
    };
    let mut board = {
        docker(&["tag", &tag, &kept]);
        let first = shown(&board)["handlers"][0]["id"].as_str().unwrap().to_owned();
        docker(&["rmi", &tag]);
        let board = board.power_cut();
        docker(&["rm", "-f", &first]);
        board
    };
    let reason = |board: &Board| {
        Some(shown(board)["handlers"][0]["reason"].as_str()?.to_owned()).filter(|r| r.contains("image"))
    };
    let why = board.wait_for("the reason", reason);
    assert!(why.contains(&format!("the image {tag} is not on the engine")), "{why}");
    docker(&["tag", &kept, &tag]);
    board.wait_for("the function", |board| (shown(board)["state"] == "healthy").then_some(()));
    assert_eq!(board.call("lost", b"x").text(), "hi 65534 x");
}

#[test]
fn a_board_is_flashed_with_a_function_that_is_an_image() {
    if !docker_is_ready() {
        return;
    }
    let (mut images, dir) = (Images(Vec::new()), TempDir::new());
    let tag = by_tcp(&mut images, "flashed");
    fs::create_dir(dir.0.join("there")).unwrap();
    let json = format!(r#"{{"image":"{tag}","envs":["GREETING=hi"]}}"#);
    fs::write(dir.0.join("there/function.json"), json).unwrap();
    let mut board = Board::start(Backend::Docker, &["--functions", dir.0.to_str().unwrap()]);
    let told = |what: &'static str| move |board: &Board| board.log().contains(what).then_some(());
    board.wait_for("the function", told(": 1 functions deployed, 0 unchanged, 0 deleted, 0 failed"));
    assert_eq!(board.call("there", b"x").text(), "hi 65534 x");
    let mut board = board.restart();
    board.wait_for("the function", told(": 0 functions deployed, 1 unchanged, 0 deleted, 0 failed"));
    assert_eq!(board.call("there", b"x").text(), "hi 65534 x");
}

#[test]
fn processes_are_no_images_and_say_so() {
    let board = Board::start(Backend::Process, &[]);
    let answer = board.manage("PUT", "/functions/f?image=x", b"");
    assert!(answer.status == 422 && answer.text().contains("images need the docker backend"), "{}", answer.text());
    let answer = board.upload("f", "go", 1, &zip_of(&[("fn.go", "package main")]));
    assert!(answer.status == 422 && answer.text().contains("env go need the docker backend"), "{}", answer.text());
}
