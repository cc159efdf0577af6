//! What a function cannot do, tried from inside of one: each attempt has to be refused where handlers are contained, and to
//! succeed where they are not, so that none is refused for another reason.

mod docker;
mod process;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;

use crate::board::{Backend, Board, zip_of};

/// Runs the Python that it is called with, and says whether that went well.
const ATTEMPT: &[(&str, &str)] = &[(
    "fn.py",
    r#"import ctypes, os, socket, urllib.request
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)

def fn(code):
    try:
        exec(code, {"os": os, "socket": socket, "call": call, "urlopen": urllib.request.urlopen})
        return "done"
    except BaseException as e:
        return "refused: %s: %s" % (type(e).__name__, e)
"#,
)];

/// Has the function `name` run some Python; what it says.
fn attempt(board: &Board, name: &str, code: &str) -> String {
    let answer = board.call(name, code.as_bytes());
    assert_eq!(answer.status, 200, "{code}: {}\n{}", answer.text(), board.log());
    answer.text()
}

/// Whether an attempt was refused by what contains the function, not because of a slip in the attempt: EPERM, EACCES,
/// EAFNOSUPPORT, ENETUNREACH, or an answer 403.
fn is_refused(said: &str) -> bool {
    let why = ["[Errno 1]", "[Errno 13]", "[Errno 97]", "[Errno 101]", "HTTP Error 403"];
    said.starts_with("refused: ") && why.iter().any(|why| said.contains(why))
}

/// Deploys a function that attempts things and reaches no network.
fn deploy_without_network(board: &Board, name: &str) {
    let zip = base64::engine::general_purpose::STANDARD.encode(zip_of(ATTEMPT));
    let json = format!(r#"{{"name":"{name}","env":"python3","threads":1,"network":false,"zip":"{zip}"}}"#);
    let answer = board.manage("POST", "/upload", json.as_bytes());
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), board.log());
}

/// The files and folders below `dir` whose names begin with `start`.
fn named(dir: &Path, start: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(start) {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(named(&entry.path(), start));
        }
    }
    found
}

/// Whether each function is listed with a network, by name.
fn shown(board: &Board) -> Vec<bool> {
    let all: serde_json::Value = serde_json::from_slice(&board.manage("GET", "/functions", b"").body).unwrap();
    all.as_array().unwrap().iter().map(|f| f["network"].as_bool().unwrap()).collect()
}

#[test]
fn a_function_without_network_is_shown_so_and_comes_back_so() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("with", "python3", 1, ATTEMPT);
        deploy_without_network(&board, "without");
        assert_eq!(shown(&board), [true, false], "{backend:?}");
        let board = board.restart();
        assert_eq!(shown(&board), [true, false], "{backend:?}");
        let door = board.http.unwrap();
        for (what, code) in [
            ("TCP", format!("socket.create_connection(('127.0.0.1', {}), 5)", door.port())),
            ("UDP", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))".to_owned()),
            ("IPv6", "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'', ('2001:db8::1', 9))".to_owned()),
        ] {
            let said = attempt(&board, "without", &code);
            // A container has a loopback of its own, on which nobody listens, and no address besides.
            let lone = backend == Backend::Docker && (said.contains("[Errno 111]") || said.contains("[Errno 99]"));
            assert!(is_refused(&said) || lone, "{backend:?} {what}: {said}");
        }
        let udp = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))";
        assert_eq!(attempt(&board, "with", udp), "done", "{backend:?}");
    }
}

#[test]
fn what_was_deployed_with_a_network_is_listed_without_where_the_operator_gives_none() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("f", "python3", 1, ATTEMPT);
    assert_eq!(shown(&board), [true]);
    let board = board.restart_with(&["--network", "none"]);
    assert_eq!(shown(&board), [false]);
    let one: serde_json::Value = serde_json::from_slice(&board.manage("GET", "/functions/f", b"").body).unwrap();
    assert_eq!(one["network"], false);
    let said = attempt(&board, "f", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)");
    assert!(is_refused(&said), "{said}");
}

#[test]
fn where_the_operator_gives_no_network_no_function_may_ask_for_one() {
    let board = Board::start(Backend::Process, &["--network", "none"]);
    board.deploy("f", "python3", 1, ATTEMPT);
    let said = attempt(&board, "f", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)");
    assert!(is_refused(&said), "{said}");
    let json = br#"{"name":"g","env":"python3","threads":1,"network":true,"zip":"UEs="}"#;
    let answer = board.manage("POST", "/upload", json);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("--network none"), "{}", answer.text());
}
