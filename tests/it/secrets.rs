//! Values of environment variables are for the function alone: whatever happens to it, at the most talkative level of the log.

use std::os::unix::fs::PermissionsExt;

use crate::board::{Answer, Backend, Board, json_of, zip_of};

/// Marks each secret.
const SECRET: &str = "s3cret";

fn upload(board: &Board, name: &str, code: &str, limits: &str) -> Answer {
    let envs = ["TOKEN=s3cret-1", "B=x=s3cret-2", "LONG=s3cret\n3 \u{1b}[2J"];
    let json = String::from_utf8(json_of(name, "python3", 1, &zip_of(&[("fn.py", code)]), &envs)).unwrap();
    let json = format!("{},\"limits\":{limits}}}", json.strip_suffix('}').unwrap());
    board.manage("POST", "/upload", json.as_bytes())
}

#[test]
fn no_log_no_list_and_no_error_holds_the_value_of_a_variable() {
    const GOOD: &str = "import os\ndef fn(input):\n    return str(len(os.environ['TOKEN']))\n";
    const LATE: &str = "import time\ndef fn(input):\n    time.sleep(9)\n";
    for backend in Backend::available() {
        let board = Board::start(backend, &["--log", "trace"]);
        let mut told = String::new();
        let mut tell = |answer: Answer| {
            told.push_str(&answer.head);
            told.push_str(&answer.text());
            answer.status
        };
        assert_eq!(tell(upload(&board, "f", GOOD, "{}")), 200);
        assert_eq!(board.call("f", b"").text(), "8");
        // Errors of the function, of the runtime, of the engine, and of what was sent.
        assert_eq!(tell(upload(&board, "dies", "import os\nos._exit(3)\n", "{}")), 422);
        assert_eq!(tell(upload(&board, "late", LATE, r#"{"timeout":"1s"}"#)), 200);
        assert_eq!(tell(board.call("late", b"")), 504);
        let refused = upload(&board, "large", GOOD, r#"{"cpu":"1024"}"#);
        assert_eq!((refused.status == 200, backend), (backend == Backend::Process, backend), "{}", refused.text());
        tell(refused);
        assert_eq!(tell(upload(&board, "f", GOOD, r#"{"queue":-1}"#)), 400);
        for body in [
            r#"{"name":"f","env":"python3","threads":1,"zip":"UEs=","envs":["TOKEN=s3cret","TOKEN=s3cret"]}"#,
            r#"{"name":"f","env":"python3","threads":1,"zip":"UEs=","envs":["s3cret"]}"#,
            r#"{"name":"f","env":"python3","threads":1,"zip":"UEs=","envs":"s3cret"}"#,
            r#"{"name":"f","env":"python3","threads":1,"zip":"UEs=","envs":["TOKEN=s3cret"],"envs":["s3cret"]}"#,
            r#"{"name":"f","env":"python3","threads":1,"zip":"UEs=","envs":["TOKEN=s3cret\ud800"]}"#,
        ] {
            assert_eq!(tell(board.manage("POST", "/upload", body.as_bytes())), 400, "{body}");
        }
        for path in ["/list", "/functions", "/functions/f", "/logs", "/metrics"] {
            assert_eq!(tell(board.manage("GET", path, b"")), 200, "{path}");
        }
        // On disk it is the server's own user's to read.
        let folders = [board.state_dir.clone(), board.state_dir.join("functions")];
        let modes = folders.map(|folder| folder.metadata().unwrap().permissions().mode());
        assert!(modes.iter().any(|mode| mode & 0o077 == 0), "{modes:?}");
        let board = board.restart();
        assert_eq!(board.call("f", b"").text(), "8");
        let log = board.log();
        let board = board.power_cut();
        assert_eq!(board.call("f", b"").text(), "8");
        assert_eq!(board.manage("POST", "/wipe", b"").status, 200);
        for text in [&told, &log, &board.log()] {
            assert!(!text.contains(SECRET), "{backend:?}: {text}");
        }
        assert!(log.contains("TRACE ") || log.contains("DEBUG "), "{log}");
    }
}
