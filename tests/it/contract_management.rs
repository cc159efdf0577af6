//! The management API row by row, as scripts use it: uploads, archives from every tool, URLs, lists, logs, and what comes back
//! after a stop. What depends on who runs the handlers is tried on each backend.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use base64::Engine as _;

use crate::board::{Backend, Board, TempDir, docker, left_of, left_on_engine, request, zip_of};
use crate::status::status_of;

const ECHO: &str = "def fn(input):\n    print('called with', input)\n    return 'got ' + str(input)\n";

fn json(name: &str, env: &str, more: &str) -> String {
    let zip = base64::engine::general_purpose::STANDARD.encode(zip_of(&[("fn.py", ECHO)]));
    format!(r#"{{"name":{name},"env":{env},"zip":"{zip}"{more}}}"#)
}

#[test]
fn curl_uploads_as_the_public_scripts_do_and_gets_a_line_for_each_front_door() {
    let board = Board::start(Backend::Process, &[]);
    // Beyond a mebibyte curl asks before it sends: Expect: 100-continue.
    let noise: String = (0..1 << 21).map(|_| char::from(fastrand::u8(b'a'..=b'z'))).collect();
    let zip = zip_of(&[("fn.py", ECHO), ("noise", &noise)]);
    let zip = base64::engine::general_purpose::STANDARD.encode(zip);
    let body = format!(r#"{{"name": "echo", "env": "python3", "threads": 1, "zip": "{zip}", "envs": ["A=b"]}}"#);
    let mut curl = Command::new("curl")
        .args(["-sS", "--max-time", "100", "-w", "%{http_code}", "--data", "@-"])
        .arg(format!("http://{}/upload", board.management))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let out = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
    let ports = [board.http, board.coap, board.grpc].map(|addr| addr.unwrap().port());
    let expected = format!(
        "http://127.0.0.1:{}/echo\ncoap://127.0.0.1:{}/echo\ngrpc://127.0.0.1:{}/echo\n200",
        ports[0], ports[1], ports[2]
    );
    assert_eq!(out, expected);
    assert_eq!(board.call("echo", b"1").text(), "got 1");
}

#[test]
fn every_wrong_field_is_named_and_nothing_is_left() {
    let board = Board::start(Backend::Process, &[]);
    let good = (r#""f""#, r#""python3""#);
    let long = format!("\"{}\"", "a".repeat(64));
    let bad = [
        (json(r#""a/b""#, good.1, r#","threads":1"#), "name"),
        (json(r#""""#, good.1, r#","threads":1"#), "name"),
        (json(&long, good.1, r#","threads":1"#), "name"),
        (json("7", good.1, r#","threads":1"#), "name"),
        (json(good.0, r#""cobol""#, r#","threads":1"#), "python3, nodejs, binary, go or image"),
        (json(good.0, good.1, r#","threads":0"#), "threads"),
        (json(good.0, good.1, r#","threads":65"#), "threads"),
        (json(good.0, good.1, r#","threads":"many""#), "threads"),
        (json(good.0, good.1, r#","threads":1,"envs":["NOEQUALS"]"#), "envs"),
        (json(good.0, good.1, r#","threads":1,"envs":"A=b""#), "envs"),
        (json(good.0, good.1, r#","threads":1,"limits":{"memory":"lots"}"#), "memory"),
        (r#"{"name":"f","env":"python3","threads":1}"#.into(), "zip"),
        (r#"{"name":"f","env":"python3","threads":1,"zip":"%%%"}"#.into(), "base64"),
        (r#"{"name":"f""#.into(), "JSON"),
        ("name=f".into(), "JSON"),
        (String::new(), "JSON"),
    ];
    for (body, word) in bad {
        let answer = board.manage("POST", "/upload", body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, 400, "{text}");
        assert!(text.contains(word) && text.lines().count() == 1, "{word}: {text}");
    }
    for (path, body, word) in [
        ("/uploadURL", r#"{"name":"f","env":"python3","threads":1}"#, "url"),
        ("/uploadURL", r#"{"name":"f","env":"python3","threads":1,"url":"ftp://host/a.zip"}"#, "http"),
        ("/uploadURL", r#"{"name":"f","env":"python3","threads":1,"url":7}"#, "url"),
        (
            "/uploadURL",
            r#"{"name":"f","env":"python3","threads":1,"url":"http://h/z","subfolder_path":"../x"}"#,
            "subfolder",
        ),
        ("/uploadURL", r#"{"name":"f-g","env":"python3","threads":1,"url":"http://h/z"}"#, "name"),
        ("/uploadURL", "url=http://h/z", "JSON"),
        ("/delete", r#"{"nam":"f"}"#, "name"),
        ("/delete", r#"{"name":7}"#, "name"),
        ("/delete", r#"{"name":"a/b"}"#, "name"),
        ("/delete", "f", "JSON"),
    ] {
        let answer = board.manage("POST", path, body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, 400, "{path} {body}: {text}");
        assert!(text.contains(word) && text.lines().count() == 1, "{word}: {text}");
    }
    for (method, path, status) in [
        ("GET", "/upload", 405),
        ("GET", "/uploadURL", 405),
        ("GET", "/delete", 405),
        ("GET", "/wipe", 405),
        ("POST", "/list", 405),
        ("POST", "/logs", 405),
        ("GET", "/nothing", 404),
        ("POST", "/delete", 400),
        ("GET", "/logs?name=absent", 404),
        ("GET", "/logs?name=%zz", 400),
    ] {
        let answer = board.manage(method, path, b"");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.text().lines().count(), 1);
    }
    assert_eq!(board.delete("absent").status, 404);
    assert_eq!(board.manage("GET", "/list", b"").text(), "");
    for folder in ["functions", "spool"] {
        assert_eq!(std::fs::read_dir(board.state_dir.join(folder)).unwrap().count(), 0, "{folder}");
    }
}

/// An archive that python3 makes: `script` writes to the zipfile `z`, which goes to a pipe.
fn python_zip(script: &str) -> Vec<u8> {
    let program = format!(
        "import sys, zipfile\nclass Pipe:\n  def write(self, b): return sys.stdout.buffer.write(b)\n  def flush(self): pass\nz = zipfile.ZipFile(Pipe(), 'w', zipfile.ZIP_DEFLATED)\n{script}\nz.close()\n"
    );
    let out = Command::new("python3").args(["-c", &program]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The archive that `zip -r -` writes to a pipe for a folder with these files.
fn zip_program(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = TempDir::new();
    for (name, text) in files {
        let path = dir.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let out = Command::new("zip").args(["-q", "-r", "-", "."]).current_dir(&dir.0).output().expect("zip is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn archives_of_other_tools_are_deployed_and_hostile_ones_are_refused_by_name() {
    let board = Board::start(Backend::Process, &[]);
    let entry = |name: &str| format!("z.writestr({name:?}, {ECHO:?})");
    let helper = "i = zipfile.ZipInfo('run'); i.external_attr = 0o755 << 16; z.writestr(i, '#!/bin/sh\\necho helped\\n')\n\
                  z.writestr('fn.sh', './run')";
    for (what, env, zip, answer) in [
        ("by zip -r -", "python3", zip_program(&[("fn.py", ECHO), ("deep/er/file", "x")]), "got 1"),
        ("to a pipe", "python3", python_zip(&entry("fn.py")), "got 1"),
        ("as the Go client names it", "python3", python_zip(&entry("/fn.py")), "got 1"),
        ("as GitHub makes it", "python3", python_zip(&entry("repo-main/fn.py")), "got 1"),
        ("with folders", "python3", python_zip(&format!("z.writestr('d/', '')\n{}", entry("fn.py"))), "got 1"),
        (
            "as macOS makes it",
            "python3",
            python_zip(&format!("{}\nz.writestr('__MACOSX/._fn.py', 'x')", entry("fn.py"))),
            "got 1",
        ),
        ("with modes", "binary", python_zip(helper), "helped\n"),
    ] {
        let uploaded = board.upload("f", env, 1, &zip);
        assert_eq!(uploaded.status, 200, "{what}: {}", uploaded.text());
        assert_eq!(board.call("f", b"1").text(), answer, "{what}");
    }
    assert_eq!(board.manage("POST", "/wipe", b"").status, 200);
    let link = "i = zipfile.ZipInfo('link'); i.external_attr = 0o120777 << 16; z.writestr(i, '/etc/passwd')";
    let through = "z.writestr('deep/', '')\ni = zipfile.ZipInfo('inner'); i.external_attr = 0o120777 << 16\n\
                   z.writestr(i, 'deep')\nz.writestr('inner/file', 'x')";
    let good = python_zip(&entry("fn.py"));
    let mut encrypted = good.clone();
    for at in 0..encrypted.len() - 9 {
        // The flags of the local and of the central header.
        match &encrypted[at..at + 4] {
            b"PK\x03\x04" => encrypted[at + 6] |= 1,
            b"PK\x01\x02" => encrypted[at + 8] |= 1,
            _ => {}
        }
    }
    for (what, zip, status, word) in [
        ("escapes", python_zip(&format!("{}\nz.writestr('../evil', 'x')", entry("fn.py"))), 422, "../evil"),
        ("a link out", python_zip(&format!("{}\n{link}", entry("fn.py"))), 422, "link"),
        ("through a link", python_zip(&format!("{}\n{through}", entry("fn.py"))), 422, "inner/file"),
        ("a bomb", python_zip(&format!("{}\nz.writestr('big', b'0' * (80 << 20))", entry("fn.py"))), 413, "big"),
        ("encrypted", encrypted, 422, "fn.py"),
        ("cut", good[..good.len() - 30].to_vec(), 422, "zip"),
        ("no function in it", python_zip("z.writestr('other', 'x')"), 422, "fn.py"),
        ("not an archive", b"hello".to_vec(), 422, "zip"),
    ] {
        let answer = board.upload("f", "python3", 1, &zip);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(word), "{what}: {}", answer.text());
    }
    assert_eq!(board.manage("GET", "/list", b"").text(), "");
    assert_eq!(std::fs::read_dir(board.state_dir.join("spool")).unwrap().count(), 0);
}

/// Serves `/moved`, which leads to `/archive.zip`, which is `zip`, for as long as the test runs.
fn web(zip: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let _ = if head.starts_with(b"GET /archive.zip ") {
                let length = zip.len();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
                    .and_then(|()| stream.write_all(&zip))
            } else if head.starts_with(b"GET /moved ") {
                stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /archive.zip\r\nContent-Length: 0\r\n\r\n")
            } else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            };
        }
    });
    port
}

#[test]
fn a_url_is_fetched_with_redirects_and_a_folder_of_it_is_the_function() {
    let port = web(zip_of(&[("repo-main/README", "x"), ("repo-main/fns/echo/fn.py", ECHO)]));
    let upload = |board: &Board, path: &str, folder: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        let body = format!(r#"{{"name":"f","env":"python3","threads":1,"url":"{url}","subfolder_path":"{folder}"}}"#);
        board.manage("POST", "/uploadURL", body.as_bytes())
    };
    let board = Board::start(Backend::Process, &["--allow-local-urls"]);
    // With the top folder, as the public scripts write it, and without.
    for (path, folder) in [("/archive.zip", "repo-main/fns/echo"), ("/moved", "/fns/echo/")] {
        let answer = upload(&board, path, folder);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(board.call("f", b"1").text(), "got 1");
    }
    let answer = upload(&board, "/moved", "fns/absent");
    assert_eq!((answer.status, answer.text().contains("fns/absent")), (422, true), "{}", answer.text());
    assert_eq!(upload(&board, "/absent", "").status, 502);
    assert_eq!(board.call("f", b"2").text(), "got 2", "what ran before still runs");
    let strict = Board::start(Backend::Process, &[]);
    let answer = upload(&strict, "/archive.zip", "");
    assert_eq!((answer.status, answer.text().contains("loopback")), (400, true), "{}", answer.text());
}

#[test]
fn lists_logs_deletion_and_wiping() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        for name in ["one", "two"] {
            board.deploy(name, "python3", 2, &[("fn.py", ECHO)]);
            board.call(name, name.as_bytes());
        }
        assert_eq!(board.manage("GET", "/list", b"").text(), "one\ntwo\n");
        let line = board.wait_for("the line to be logged", |board| {
            let text = board.manage("GET", "/logs?name=two", b"").text();
            text.lines().find(|line| line.ends_with(" called with two")).map(str::to_owned)
        });
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "function=two");
        assert!(words[1].strip_prefix("handler=").is_some_and(|id| !id.is_empty()), "{line}");
        assert!(words[2].len() >= 20 && words[2].contains('T') && words[2].ends_with('Z'), "{line}");
        // Both handlers are told apart, by the names that their function's state has.
        let ids = |text: &str| -> BTreeSet<String> {
            text.lines().map(|line| line.split(' ').nth(1).unwrap().strip_prefix("handler=").unwrap().into()).collect()
        };
        let status = status_of(&board, "two");
        let known = status["handlers"].as_array().unwrap().iter().map(|h| h["id"].as_str().unwrap().to_owned());
        let known: BTreeSet<String> = known.collect();
        assert_eq!(known.len(), 2);
        board.wait_for("both handlers to have logged", |board| {
            // At once, so that the least busy one is not always the same.
            std::thread::scope(|scope| (0..8).for_each(|_| _ = scope.spawn(|| board.call("two", b"x"))));
            (ids(&board.manage("GET", "/logs?name=two", b"").text()) == known).then_some(())
        });
        let all = board.manage("GET", "/logs", b"").text();
        assert!(all.contains("function=one ") && all.contains("function=two "), "{all}");
        let deleted = board.delete("one");
        assert_eq!((deleted.status, deleted.text().as_str()), (200, ""));
        assert_eq!((board.call("one", b"").status, board.call("two", b"1").status), (404, 200));
        assert_eq!(board.manage("POST", "/wipe", b"anything").status, 200);
        assert_eq!(board.manage("GET", "/list", b"").text(), "");
        assert_eq!(board.call("two", b"").status, 404);
        assert_eq!(left_of(&board.state_dir), [""; 0]);
        if backend == Backend::Docker {
            let left = left_on_engine(&board.state_dir);
            // The network is the server's, not a function's.
            assert!(left.iter().all(|what| what.starts_with("network ")), "{left:?}");
        }
    }
}

#[test]
fn functions_come_back_after_a_stop_and_after_a_power_cut() {
    for backend in Backend::available() {
        let secret = r#","threads":2,"envs":["WORD=kept"]"#;
        let zip = zip_of(&[("fn.py", "import os\ndef fn(i):\n    return os.environ['WORD']\n")]);
        let zip = base64::engine::general_purpose::STANDARD.encode(zip);
        let body = format!(r#"{{"name":"f","env":"python3","zip":"{zip}"{secret}}}"#);
        let board = Board::start(backend, &["--log", "debug"]);
        assert_eq!(board.manage("POST", "/upload", body.as_bytes()).status, 200);
        let board = board.restart();
        // A call waits until the function is up again.
        assert_eq!(board.call("f", b"").text(), "kept");
        let board = board.power_cut();
        assert_eq!(board.call("f", b"").text(), "kept");
        assert_eq!(board.manage("GET", "/list", b"").text(), "f\n");
        assert!(!board.log().contains("kept"), "secrets are not logged: {}", board.log());
        assert_eq!(board.delete("f").status, 200);
        let board = board.power_cut();
        assert_eq!(board.manage("GET", "/list", b"").text(), "");
    }
}

#[test]
fn a_browser_form_and_a_chunked_body_are_uploads_like_any_other() {
    let board = Board::start(Backend::Process, &[]);
    let body = json(r#""f""#, r#""python3""#, r#","threads":1"#);
    let fields = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(request(board.management, "POST", "/upload", fields, body.as_bytes()).status, 200);
    let dir = TempDir::new();
    let file = dir.0.join("body");
    std::fs::write(&file, body).unwrap();
    let curl = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "100", "-H", "Transfer-Encoding: chunked"])
        .arg("--data-binary")
        .arg(format!("@{}", file.display()))
        .arg(format!("http://{}/upload", board.management))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(curl.stdout).unwrap(), "200");
}

#[test]
fn a_container_of_ours_is_labelled_hardened_and_limited_and_clean_removes_it() {
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let board = Board::start(Backend::Docker, &["--stop-timeout", "1s"]);
    let more = r#","threads":2,"limits":{"memory":"48Mi","cpu":"500m","pids":32}"#;
    let answer = board.manage("POST", "/upload", json(r#""f""#, r#""python3""#, more).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let instance = std::fs::read_to_string(board.state_dir.join("instance")).unwrap();
    let instance = instance.trim();
    // As the contract's scripts find them.
    let ours = ["ps", "-q", "--filter", "label=tinyFaaS", "--filter", "label=tinyfaas-function=f"];
    let ours = || docker(&[&ours[..], &["--filter", &format!("label=tinyFaaS={instance}")]].concat());
    assert_eq!(ours().lines().count(), 2);
    let first = ours().lines().next().unwrap().to_owned();
    for (format, value) in [
        ("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", "50331648 500000000 32"),
        ("{{.HostConfig.CapDrop}} {{.HostConfig.Privileged}} {{.HostConfig.Init}}", "[ALL] false true"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges]"),
        ("{{.Config.User}}", "65534:65534"),
    ] {
        assert_eq!(docker(&["inspect", "--format", format, &first]).trim(), value, "{format}");
    }
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["clean", "--instance", instance]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let removed = String::from_utf8(out.stdout).unwrap();
    assert_eq!(removed.lines().filter(|line| line.contains("container tinyfaas-f-")).count(), 2, "{removed}");
    assert!(!ours().lines().any(|id| id == first));
}
