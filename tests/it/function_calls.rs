//! Functions that call functions: `TINYFAAS_URL` leads to the HTTP front door, and nowhere else.

use crate::board::{Backend, Board};

/// Calls the function that the body names, at the URL that the environment has, or at another port there.
const CALLS: &[(&str, &str)] = &[(
    "fn.py",
    r#"
import os, urllib.error, urllib.parse, urllib.request

def fn(input):
    words = (input or '').split()
    url = os.environ.get('TINYFAAS_URL')
    if not words:
        return url or 'none'
    if len(words) > 1:
        url = url.rpartition(':')[0] + ':' + words[1]
    try:
        return urllib.request.urlopen(url + '/' + words[0], b'from another', 20).read().decode()
    except urllib.error.HTTPError as e:
        return 'refused: %d %s' % (e.code, e.read().decode())
    except OSError as e:
        return 'refused: %s' % e
"#,
)];

#[test]
fn a_function_calls_another_and_cannot_manage() {
    for backend in Backend::available() {
        // As the default: at every address of the machine.
        let board = Board::start(backend, &["--http", "0.0.0.0:0"]);
        board.deploy("calls", "python3", 1, CALLS);
        board.deploy("called", "binary", 1, &[("fn.sh", "printf 'called '; cat")]);
        let port = board.http.unwrap().port();
        let url = board.call("calls", b"").text();
        let host = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix(&format!(":{port}"))).unwrap();
        assert_eq!(host == "127.0.0.1", backend == Backend::Process, "{url}");
        assert_eq!(board.call("calls", b"called").text(), "called from another");
        let said = board.call("calls", b"nobody").text();
        assert!(said.starts_with("refused: 404 "), "{said}");

        // Management listens on loopback: out of a container's reach, and closed to a process.
        for path in ["list", "wipe", "functions"] {
            let said = board.call("calls", format!("{path} {}", board.management.port()).as_bytes()).text();
            let why = if backend == Backend::Process { "refused: 403 " } else { "Connection refused" };
            assert!(said.starts_with("refused: ") && said.contains(why), "{backend:?} {path}: {said}");
        }
        assert_eq!(board.manage("GET", "/list", b"").text(), "called\ncalls\n");

        // Nothing is told where there is nothing to be reached.
        let put = |name: &str, query: &str| {
            let zip = crate::board::zip_of(CALLS);
            assert_eq!(board.manage("PUT", &format!("/functions/{name}?{query}"), &zip).status, 201);
            board.call(name, b"").text()
        };
        assert_eq!(put("alone", "network=false"), "none");
    }
}

#[test]
fn a_door_that_is_off_or_out_of_reach_is_not_told() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("calls", "python3", 1, CALLS);
        let url = board.call("calls", b"").text();
        match backend {
            Backend::Process => assert_eq!(url, format!("http://{}", board.http.unwrap())),
            // The door listens on loopback, which a container does not reach.
            Backend::Docker => assert_eq!(url, "none"),
        }
        drop(board);
        let board = Board::start(backend, &["--http", "off"]);
        board.deploy("calls", "python3", 1, CALLS);
        let envs = match backend {
            Backend::Process => {
                let id = handler_pid(&board);
                std::fs::read_to_string(format!("/proc/{id}/environ")).unwrap()
            }
            Backend::Docker => crate::board::docker(&["inspect", "-f", "{{.Config.Env}}", &handler(&board)]),
        };
        assert!(envs.contains("TINYFAAS_SOCKET") && !envs.contains("TINYFAAS_URL"), "{envs}");
    }
}

fn handler(board: &Board) -> String {
    let shown: serde_json::Value = serde_json::from_slice(&board.manage("GET", "/functions/calls", b"").body).unwrap();
    shown["handlers"][0]["id"].as_str().unwrap().to_owned()
}

/// The process of a handler: the one that was started in its function's folder.
fn handler_pid(board: &Board) -> u32 {
    let folder = board.state_dir.join("run/process");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_there = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
    pids.find(is_there).expect("a handler")
}
