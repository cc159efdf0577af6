//! What the management API has beside the original's calls: `PUT` and `DELETE` of functions, health, its description.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::board::{Answer, Backend, Board, TempDir, left_of, request, zip_of};
use crate::coap::peers_python;
use crate::status::status_of;
use crate::watch::eventually;

const SHOWS: &[(&str, &str)] =
    &[("fn.py", "import os\ndef fn(input):\n    return os.environ.get('WHO', 'nobody') + (input or '')\n")];

fn put(board: &Board, target: &str, fields: &str, body: &[u8]) -> Answer {
    request(board.management, "PUT", target, fields, body)
}

/// What GNU tar makes of a folder.
fn tar_of(files: &[(&str, &str)], flags: &[&str]) -> Vec<u8> {
    let dir = TempDir::new();
    for (name, content) in files {
        let path = dir.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let out = Command::new("tar").args(flags).arg("-C").arg(&dir.0).args(["-cf", "-", "."]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn an_archive_is_put_as_it_is_and_deleted_by_its_name() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let fields = "X-Tinyfaas-Env: WHO=s3cret \r\nx-tinyfaas-env: B=x=y\r\nContent-Type: application/zip\r\n";
        let first = put(&board, "/functions/f?threads=2&memory=128Mi&idle=5m&queue=7", fields, &zip_of(SHOWS));
        assert_eq!(first.status, 201, "{}", first.text());
        assert!(first.text().starts_with("http://board:"), "{}", first.text());
        assert_eq!(first.text().lines().count(), 3);
        assert_eq!(board.call("f", b"!").text(), "s3cret!");
        let f = status_of(&board, "f");
        assert_eq!((&f["env"], &f["threads"], &f["idle"]), (&"python3".into(), &2.into(), &"5m".into()));
        assert_eq!((&f["limits"]["memory"], &f["limits"]["queue"]), (&"128Mi".into(), &7.into()));
        assert_eq!(f["envs"], serde_json::json!(["WHO", "B"]));
        assert!(!board.log().contains("s3cret"), "{}", board.log());

        // In place of all that was said before; a name that needs an extended header, in either dialect.
        let long = format!("lib/{}.txt", "n".repeat(120));
        let shell = [("fn.sh", "cat lib/n*.txt -\n"), (&long, "tar ")];
        for (format, status) in [("--format=gnu", 200), ("--format=pax", 200), ("--format=ustar", 200)] {
            let files = if format == "--format=ustar" { &shell[..1] } else { &shell[..] };
            let answer = put(&board, "/functions/f", "", &tar_of(files, &[format]));
            assert_eq!(answer.status, status, "{format} {}", answer.text());
        }
        let answer = put(&board, "/functions/f?env=binary", "", &tar_of(&shell, &["--format=pax"]));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(board.call("f", b"x").text(), "tar x");
        assert_eq!(status_of(&board, "f")["env"], "binary");

        let inner = zip_of(&[("a/b/fn.sh", "cat\n"), ("fn.py", "not this")]);
        assert_eq!(put(&board, "/functions/g?subfolder_path=a%2Fb", "", &inner).status, 201);
        assert_eq!(board.call("g", b"y").text(), "y");

        let gone = board.manage("DELETE", "/functions/f", b"");
        assert_eq!((gone.status, gone.text().as_str()), (204, ""));
        assert_eq!(gone.header("content-length"), None);
        assert_eq!(board.manage("DELETE", "/functions/f", b"").status, 404);
        assert_eq!(board.manage("DELETE", "/functions/f-", b"").status, 400);
        assert_eq!(board.call("f", b"").status, 404);
    }
}

#[test]
fn what_is_put_and_no_function_is_refused_and_leaves_nothing() {
    let board = Board::start(Backend::Process, &["--max-upload", "64Ki"]);
    let zip = zip_of(SHOWS);
    let gzip = [&b"\x1f\x8b\x08"[..], &[0; 600]].concat();
    let large = [&zip[..], &[0; 65536]].concat();
    let tar = tar_of(SHOWS, &[]);
    let large_tar = tar_of(&[("fn.sh", &"x".repeat(100_000))], &[]);
    let both = zip_of(&[("fn.sh", ""), ("fn.py", "")]);
    let before = left_of(&board.state_dir);
    for (target, body, status, text) in [
        ("/functions/f", &b""[..], 400, "the body is empty"),
        ("/functions/f", b"hello", 415, "neither a zip nor a tar archive"),
        ("/functions/f", &gzip, 415, "neither a zip nor a tar archive"),
        ("/functions/f", &large, 413, "--max-upload"),
        ("/functions/f", &large_tar, 413, "--max-upload"),
        ("/functions/f", &zip[..zip.len() - 9], 422, ""),
        ("/functions/f", &tar[..700], 422, "not a whole tar archive"),
        ("/functions/f", &both, 422, "say env python3, nodejs, binary"),
        ("/functions/f?env=nodejs", &zip, 422, "needs"),
        ("/functions/f?environment=x", &zip, 400, "unknown"),
        ("/functions/f?subfolder_path=nowhere", &zip, 422, ""),
        ("/functions/no-name", &zip, 400, "name"),
        ("/functions/", &zip, 400, "name"),
    ] {
        let answer = put(&board, target, "", body);
        assert_eq!(answer.status, status, "{target} {}", answer.text());
        assert!(answer.text().contains(text), "{target} {}", answer.text());
    }
    assert_eq!(put(&board, "/functions/f", "X-Tinyfaas-Env: no\r\n", &zip).status, 400);
    // One that does not say how long it is, and passes the bound on its way.
    let mut stream = std::net::TcpStream::connect(board.management).unwrap();
    let head =
        "PUT /functions/f HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n11000\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(&large_tar[..0x11000]);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(left_of(&board.state_dir), before);
    assert_eq!(board.manage("GET", "/list", b"").text(), "");
}

#[test]
fn methods_that_a_path_does_not_take_are_told_which_it_does() {
    let board = Board::start(Backend::Process, &[]);
    for (method, target, allow) in [
        ("POST", "/functions/f", "GET, HEAD, PUT, DELETE"),
        ("DELETE", "/functions", "GET, HEAD"),
        ("GET", "/upload", "POST"),
        ("PUT", "/metrics", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ] {
        let answer = board.manage(method, target, b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {target}");
    }
    for target in ["/list", "/functions", "/metrics", "/readyz", "/openapi.json"] {
        let head = board.manage("HEAD", target, b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}");
    }
}

#[test]
fn ready_is_who_has_its_functions_up_and_needs_no_token_to_say_so() {
    let dir = TempDir::new();
    let (flag, tokens) = (dir.0.join("flag"), dir.0.join("tokens"));
    let tinyfaas = env!("CARGO_BIN_EXE_tinyfaas");
    let new = Command::new(tinyfaas).args(["token", "new", "a", "--file"]).arg(&tokens).output().unwrap();
    let token = String::from_utf8(new.stdout).unwrap();
    let board = Board::start(Backend::Process, &["--token-file", tokens.to_str().unwrap()]);
    assert_eq!(board.manage("GET", "/readyz", b"").text(), "ready\n");
    // It starts only once the flag is there.
    let code = format!(
        "import os, time\nwhile not os.path.exists({flag:?}): time.sleep(.01)\ndef fn(input):\n    return 'up'\n"
    );
    fs::write(&flag, "").unwrap();
    let field = format!("Authorization: Bearer {}\r\n", token.trim());
    assert_eq!(put(&board, "/functions/f", &field, &zip_of(&[("fn.py", &code)])).status, 201);
    fs::remove_file(&flag).unwrap();
    let board = board.restart();
    let ready = || board.manage("GET", "/readyz", b"");
    let coming = || Some(ready()).filter(|answer| answer.text().contains("not up yet: 1"));
    assert_eq!(eventually("the restoration", coming).status, 503);
    let alive = board.manage("GET", "/healthz", b"");
    assert_eq!((alive.status, alive.text().as_str()), (200, "alive\n"));
    assert_eq!(board.manage("GET", "/list", b"").status, 401);
    fs::write(&flag, "").unwrap();
    eventually("the function to be up", || (ready().status == 200).then_some(()));
    assert_eq!(board.call("f", b"").text(), "up");
}

#[test]
fn a_stored_function_that_cannot_start_does_not_keep_the_others_from_being_ready() {
    let dir = TempDir::new();
    let flag = dir.0.join("flag");
    let board = Board::start(Backend::Process, &[]);
    fs::write(&flag, "").unwrap();
    let code = format!("import os\nassert os.path.exists({flag:?})\ndef fn(input):\n    return 'up'\n");
    board.deploy("broken", "python3", 1, &[("fn.py", &code)]);
    board.deploy("f", "binary", 1, &[("fn.sh", "cat\n")]);
    fs::remove_file(&flag).unwrap();
    let board = board.restart();
    eventually("readiness", || (board.manage("GET", "/readyz", b"").status == 200).then_some(()));
    assert_eq!(board.call("f", b"x").text(), "x");
}

#[test]
fn the_api_describes_itself_and_is_as_it_says() {
    let board = Board::start(Backend::Process, &["--max-upload", "64Ki", "--health-timeout", "5s"]);
    let plain = board.manage("GET", "/openapi.json", b"");
    assert_eq!(plain.header("content-encoding"), None);
    let packed = request(board.management, "GET", "/openapi.json", "Accept-Encoding: br, gzip\r\n", b"");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() * 4 < plain.body.len());
    let mut gzip = Command::new("gzip").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(&packed.body).unwrap();
    assert_eq!(gzip.wait_with_output().unwrap().stdout, plain.body);

    // Every path that a 404 names is described, and no other.
    let described: serde_json::Value = serde_json::from_slice(&plain.body).unwrap();
    let nowhere = board.manage("GET", "/nowhere", b"").text();
    for path in described["paths"].as_object().unwrap().keys() {
        assert!(nowhere.contains(&path.replace("{name}", "NAME")), "{path}: {nowhere}");
    }
    let named = nowhere.split([' ', ',', ';']).filter(|word| word.starts_with('/'));
    for path in named {
        assert!(described["paths"].get(path.replace("NAME", "{name}")).is_some(), "{path}");
    }

    board.deploy("f", "binary", 1, &[("fn.sh", "cat\n")]);
    let schemathesis = peers_python().with_file_name("schemathesis");
    let dir = TempDir::new();
    // A stream without end has no answer to be looked at.
    let finite = "[[operations]]\ninclude-operation-id = \"logs\"\nparameters = { \"query.follow\" = \"0\" }\n";
    fs::write(dir.0.join("schemathesis.toml"), finite).unwrap();
    let out = Command::new(schemathesis)
        .current_dir(&dir.0)
        .args(["run", &format!("http://{}/openapi.json", board.management)])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--no-shrink"])
        .args(["--continue-on-failure", "--exclude-checks", EXCLUDED])
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// What the description cannot say: that a text is a URL or an archive whose server or content is good, so that what fits
/// the schema may still be refused; and that a token is needed only where there are some.
const EXCLUDED: &str = "positive_data_acceptance,ignored_auth";
