//! A call's id: taken from the caller or made, given to the function, the log and the answer.

use std::io::{BufRead, BufReader, PipeReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use http::HeaderValue;
use tinyfaas::front::grpc::Config;

use crate::board::{Answer, Backend, Board, TempDir, request};
use crate::grpc::{ask, text};
use crate::grpc_door::{Door, http, limits};
use crate::watch::signal;

const TINYFAAS: &str = env!("CARGO_BIN_EXE_tinyfaas");
/// Answers the id that it was told.
const TELLS: &[(&str, &str)] = &[("fn.sh", "printf %s \"$HTTP_X_CALL_ID\"\n")];
/// The same, with all that came under the name, and an id of its own making in its answer.
const FORGES: &[(&str, &str)] =
    &[("index.js", "module.exports = (req, res) => res.set('X-Call-Id', 'forged').send(req.headers['x-call-id']);\n")];

fn id_of(answer: &Answer) -> &str {
    let named = answer.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-call-id:")).count();
    assert_eq!(named, 1, "{}", answer.head);
    answer.header("x-call-id").unwrap()
}

/// What is the same in all ids that a process makes.
fn process_of(id: &str) -> &str {
    let (process, number) = id.split_once('-').unwrap_or_else(|| panic!("{id:?} was not made here"));
    assert!(process.len() == 8 && !number.is_empty() && id.bytes().all(|b| b"0123456789abcdef-".contains(&b)), "{id}");
    process
}

fn invoke(args: &[&str]) -> String {
    let out = Command::new(TINYFAAS).arg("invoke").args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_function_and_the_answer_have_the_callers_id_or_one_that_was_made() {
    for backend in Backend::available() {
        let board = Board::start(backend, &["--log", "debug"]);
        board.deploy("tells", "binary", 1, TELLS);
        board.deploy("forges", "nodejs", 1, FORGES);
        let http = board.http.unwrap();
        for name in ["tells", "forges"] {
            let ask = |fields| request(http, "POST", &format!("/{name}"), fields, b"");
            let answer = ask("X-Call-Id: Mine_1.2-3\r\n");
            assert_eq!((answer.status, answer.text().as_str(), id_of(&answer)), (200, "Mine_1.2-3", "Mine_1.2-3"));
            let twice = ask("x-call-id: first\r\nX-CALL-ID: second\r\n");
            assert_eq!((twice.text().as_str(), id_of(&twice)), ("first", "first"));
            let (one, other) = (ask(""), ask(""));
            assert_eq!((one.text().as_str(), other.text().as_str()), (id_of(&one), id_of(&other)));
            assert_ne!(id_of(&one), id_of(&other));
            assert_eq!(process_of(id_of(&one)), process_of(id_of(&other)));
        }
        let made = request(http, "GET", "/tells", "", b"");
        let process = process_of(id_of(&made));

        // By the other protocols: CoAP has no place for one.
        let grpc = format!("grpc://{}/tells", board.grpc.unwrap());
        assert_eq!(invoke(&[&grpc, "--header", "X-Call-Id: by-grpc"]), "by-grpc");
        assert_eq!(process_of(&invoke(&[&grpc])), process);
        assert_eq!(process_of(&invoke(&[&format!("coap://{}/tells", board.coap.unwrap())])), process);

        // For who looks after it, inside the answer.
        let inside = request(board.management, "POST", "/functions/tells/call", "X-Call-Id: by-page\r\n", b"");
        let text = inside.text();
        assert!(text.ends_with("\r\n\r\nby-page") && text.contains("\r\nx-call-id: by-page\r\n"), "{text}");

        // Where the function is not reached.
        for (method, target, fields, status) in [
            ("GET", "/nobody", "", 404),
            ("BREW", "/tells", "", 405),
            ("GET", "/%f", "", 400),
            ("POST", "/tells", "X-tinyFaaS-Async: 1\r\n", 202),
        ] {
            let answer = request(http, method, target, &format!("X-Call-Id: mine\r\n{fields}"), b"");
            assert_eq!((answer.status, id_of(&answer)), (status, "mine"), "{target}");
        }
        assert_eq!(request(board.management, "GET", "/list", "X-Call-Id: mine\r\n", b"").header("x-call-id"), None);
    }
}

#[test]
fn an_id_that_could_do_harm_is_replaced_and_never_said_again() {
    let board = Board::start(Backend::Process, &["--log", "debug"]);
    board.deploy("tells", "binary", 1, TELLS);
    board.deploy("forges", "nodejs", 1, FORGES);
    let long = "L".repeat(65);
    let header_list = "H".repeat(4000);
    for hostile in
        ["", "a b", "evil\"},{", "<evil>", "$(evil)", "evil;x", "evil\u{fc}", "evil,evil", &long, &header_list]
    {
        for name in ["tells", "forges", "nobody"] {
            let answer =
                request(board.http.unwrap(), "POST", &format!("/{name}"), &format!("X-Call-Id: {hostile}\r\n"), b"");
            process_of(id_of(&answer));
            if name != "nobody" {
                assert_eq!((answer.status, answer.text().as_str()), (200, id_of(&answer)));
            }
        }
    }
    let log = board.log();
    for word in ["evil", "LLL", "HHH"] {
        assert!(!log.contains(word), "{log}");
    }
}

#[test]
fn over_grpc_the_id_is_metadata_of_every_answer() {
    let mut door = Door::open(Config::default());
    door.install("f", limits(), |asked| http(200, "X-Call-Id: forged\r\n", asked.head.as_bytes()));
    door.install("fails", limits(), |_| http(500, "", b"no"));
    let field = |name, sent: &[(&'static str, &'static str)]| {
        let answer = ask(&door, text(name, ""), sent);
        let values: Vec<_> = answer.headers.get_all("x-call-id").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values.len(), 1, "{name}");
        (String::from_utf8(values[0].to_vec()).unwrap(), answer.message)
    };
    for name in ["f", "fails", "nobody"] {
        assert_eq!(field(name, &[("x-call-id", "mine")]).0, "mine");
        process_of(&field(name, &[("x-call-id", "a b")]).0);
    }
    let (id, message) = field("f", &[]);
    let seen = String::from_utf8_lossy(&message.unwrap()).into_owned();
    assert!(seen.contains(&format!("X-Call-Id: {id}\r\n")), "{seen}");
}

#[test]
fn lines_of_the_log_about_a_call_that_failed_have_its_id() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &["--timeout", "1s"]);
        board.deploy("slow", "binary", 1, &[("fn.sh", "sleep 100\n")]);
        board.deploy("breaks", "python3", 1, &[("fn.py", "import os\ndef fn(input):\n    os._exit(1)\n")]);
        let http = board.http.unwrap();
        assert_eq!(request(http, "POST", "/slow", "X-Call-Id: late-1\r\n", b"").status, 504);
        assert_eq!(request(http, "POST", "/breaks", "X-Call-Id: broke-1\r\n", b"").status, 502);
        assert_eq!(request(http, "POST", "/slow", "X-Call-Id: later-1\r\nX-tinyFaaS-Async: 1\r\n", b"").status, 202);
        for line in [
            "WARN function=slow call=late-1 function slow did not answer in time",
            "WARN function=breaks call=broke-1 the handler of breaks broke: ",
            "WARN function=slow call=later-1 asynchronous call of slow failed: function slow did not answer in time",
        ] {
            board.wait_for(line, |board| board.log().contains(line).then_some(()));
        }
        // What a caller does wrong is not for the log of who does not look for it.
        assert_eq!(request(http, "POST", "/nobody", "X-Call-Id: unknown-1\r\n", b"").status, 404);
        assert!(!board.log().contains("unknown-1"));
    }
}

#[test]
fn the_functions_log_says_which_call_failed() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        board.deploy("py", "python3", 1, &[("fn.py", "def fn(input):\n    raise ValueError('broken')\n")]);
        board.deploy(
            "js",
            "nodejs",
            1,
            &[("index.js", "module.exports = async () => { throw new Error('broken'); };\n")],
        );
        board.deploy("sh", "binary", 1, &[("fn.sh", "echo broken >&2\nexit 3\n")]);
        for (name, lines) in [
            ("py", &["call of-py failed:", "Traceback (most recent call last):"][..]),
            ("js", &["call of-js failed:", "Error: broken"]),
            ("sh", &["broken", "call of-sh: fn.sh ended with exit status 3"]),
        ] {
            let answer =
                request(board.http.unwrap(), "POST", &format!("/{name}"), &format!("X-Call-Id: of-{name}\r\n"), b"");
            assert_eq!(answer.status, 500);
            board.wait_for("the function's log", |board| {
                let log = board.manage("GET", &format!("/logs?name={name}"), b"").text();
                let texts: Vec<&str> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
                texts.windows(2).any(|two| two == lines).then_some(())
            });
        }
    }
}

/// A server whose standard error is a pipe that `JOURNAL_STREAM` may be said to be; all that it logs until it has stopped.
fn logged(flags: &[&str], journal: impl Fn(&PipeReader) -> Option<String>) -> Vec<String> {
    let dir = TempDir::new();
    let (read, write) = std::io::pipe().unwrap();
    let mut command = Command::new(TINYFAAS);
    command.args(["serve", "--backend", "process", "--management", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
        .args(["--coap", "off", "--grpc", "off", "--log", "debug", "--state-dir"])
        .arg(dir.0.join("state"))
        .args(flags);
    match journal(&read) {
        Some(stream) => command.env("JOURNAL_STREAM", stream),
        None => command.env_remove("JOURNAL_STREAM"),
    };
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(write).spawn().unwrap();
    // It holds the pipe's other end.
    drop(command);
    let mut lines = Vec::new();
    for line in BufReader::new(read).lines().map_while(Result::ok) {
        if let Some((_, address)) = line.split_once("management listens on 127") {
            signal(server.id() as i32, "TERM");
            assert!(address.starts_with(".0.0.1:"));
        }
        lines.push(line);
    }
    assert!(server.wait().unwrap().success());
    lines
}

fn id_of_pipe(pipe: &PipeReader) -> String {
    let stat = rustix::fs::fstat(pipe.as_fd()).unwrap();
    format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[test]
fn a_journal_gets_priorities_and_nothing_else_does() {
    let lines = logged(&[], |pipe| Some(id_of_pipe(pipe)));
    assert!(lines.iter().any(|line| line.starts_with("<6>INFO management listens on ")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("<7>DEBUG ")), "{lines:?}");
    for others in [None, Some("1:2"), Some(""), Some("x")] {
        let lines = logged(&[], |_| others.map(str::to_owned));
        assert!(lines.iter().all(|line| !line.starts_with('<')), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("INFO management listens on ")), "{lines:?}");
    }
}

#[test]
fn each_line_of_a_log_in_json_is_an_object() {
    let lines = logged(&["--log-format", "json"], |_| None);
    assert!(lines.len() > 2);
    for line in &lines {
        let read: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let level = read["level"].as_str().unwrap();
        assert!(["error", "warn", "info", "debug"].contains(&level), "{line}");
        assert!(!read["message"].as_str().unwrap().is_empty());
        assert!(humantime::parse_rfc3339(read["time"].as_str().unwrap()).is_ok(), "{line}");
    }
    let lines = logged(&["--log-format", "json"], |pipe| Some(id_of_pipe(pipe)));
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("<6>{\"time\":") || line.starts_with("<7>{") || line.starts_with("<4>{"))
    );
    let refused = Command::new(TINYFAAS).args(["serve", "--log-format", "xml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("use text or json"));
}
