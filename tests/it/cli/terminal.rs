//! What is different on a terminal: a pseudoterminal of Python's is one.

use super::*;
use crate::board::{Backend, Board, TempDir};

/// Runs the program on a terminal of 24 rows and `columns` columns; gives what it showed there, and its exit code.
const ON_A_TERMINAL: &str = r"
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    # Waits until the terminal has its size.
    sys.stdin.readline()
    os.execv(sys.argv[2], sys.argv[2:])
mode = termios.tcgetattr(fd)
mode[3] &= ~termios.ECHO
termios.tcsetattr(fd, termios.TCSANOW, mode)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 24, int(sys.argv[1]), 0, 0))
os.write(fd, b'\n')
shown = b''
while True:
    try:
        piece = os.read(fd, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

fn on_a_terminal(columns: &str, variable: Option<&str>, args: &[&str]) -> (i32, String) {
    let mut command = Command::new("python3");
    command.args(["-c", ON_A_TERMINAL, columns, env!("CARGO_BIN_EXE_tinyfaas")]).args(args).stdin(Stdio::null());
    command.env_remove("COLUMNS").env("XDG_CONFIG_HOME", "/nonexistent").envs(variable.map(|value| ("COLUMNS", value)));
    command.env_remove("TINYFAAS_TOKEN").env_remove("TINYFAAS_TOKEN_FILE");
    let output = command.output().unwrap();
    assert_eq!(text(&output.stderr), "");
    (output.status.code().unwrap(), text(&output.stdout).replace("\r\n", "\n"))
}

const FUNCTIONS: &str = r#"[{"name":"hello","env":"python3","threads":1,"digest":"0123456789","state":"healthy","calls":1,"in_flight":0,"waiting":0,
"limits":{"memory":"0","cpu":"0","pids":256,"timeout":"1m","concurrency":8,"queue":64},"idle":null,"network":true,"auth":0,"envs":[],
"handlers":[{"id":"h1","state":"healthy","in_flight":0,"restarts":1,"reason":"it was killed: out of memory, as so often"}]}]"#;

fn listing() -> Scripted {
    Scripted::answers(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{FUNCTIONS}", FUNCTIONS.len()))
}

#[test]
fn a_table_is_cut_where_the_terminal_ends_and_whole_in_a_pipe() {
    let server = listing();
    let whole = text(&manage(&server, &["list", "--long"]).stdout);
    assert!(whole.lines().count() == 3 && !whole.contains('\u{2026}'), "{whole}");
    for (columns, variable, width) in [("40", None, 40), ("40", Some("30"), 30)] {
        let server = listing();
        let (code, shown) = on_a_terminal(columns, variable, &["list", "--long", "--host", &server.addr.to_string()]);
        assert_eq!(code, DONE, "{shown}");
        for (line, all) in shown.lines().zip(whole.lines()) {
            assert_eq!(line.chars().count(), width, "{shown}");
            assert!(all.starts_with(line.strip_suffix('\u{2026}').unwrap()), "{shown}");
        }
        assert_eq!(shown.lines().count(), 3, "{shown}");
    }
}

#[test]
fn who_waits_on_a_terminal_sees_that_it_goes_on_and_others_do_not() {
    let folder = Folder::new("terminal", &[("fn.py", b"def fn(i): return i\n")]);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nhttp://127.0.0.1/hello";
    let server = Scripted::answers(answer);
    let host = server.addr.to_string();
    let (code, shown) = on_a_terminal("80", None, &["deploy", &folder.arg(), "--host", &host]);
    assert!(
        code == DONE && shown.contains("waiting for the server") && shown.ends_with("\r\x1b[Khttp://127.0.0.1/hello"),
        "{shown:?}"
    );
    let server = Scripted::answers(answer);
    let host = server.addr.to_string();
    let (code, shown) = on_a_terminal("80", None, &["deploy", &folder.arg(), "--json", "--host", &host]);
    let expected = "{\"name\":\"hello\",\"env\":\"python3\",\"urls\":[\"http://127.0.0.1/hello\"]}\n";
    assert_eq!((code, shown.as_str()), (DONE, expected));
}

#[test]
fn who_waits_for_an_installation_sees_what_it_writes() {
    let description = r#"{
  "base": "tinyfaas-test/binary",
  "files": ["tinyfaas"],
  "entries": ["fn.sh"],
  "install": {"file": "words", "command": ["sh", "-c", "while read word; do echo $word; sleep 2; done <words"], "what": "reading"},
  "process": {"program": "sh", "command": ["{self}", "handler", "{program}", "fn.sh"]}
}"#;
    let dockerfile = "ARG BASE\nFROM ${BASE}\nCOPY tinyfaas /tinyfaas/tinyfaas\nWORKDIR /fn\n\
                      CMD [\"/tinyfaas/tinyfaas\", \"handler\", \"sh\", \"fn.sh\"]\n";
    let folder = Folder::new("reading", &[("fn.sh", b"cat\n"), ("words", b"first\nsecond\n")]);
    for backend in Backend::available() {
        let runtimes = TempDir::new();
        let dir = runtimes.0.join("reader");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("runtime.json"), description).unwrap();
        std::fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
        let board = Board::start(backend, &["--runtimes", runtimes.0.to_str().unwrap()]);
        let host = board.management.to_string();
        let (code, shown) =
            on_a_terminal("80", None, &["deploy", &folder.arg(), "--name", "f", "--env", "reader", "--host", &host]);
        assert_eq!(code, DONE, "{shown}");
        // Each line once and for good, above the one that says what it is of.
        for expected in ["\r\x1b[Kfirst\n", "\r\x1b[Ksecond\n", "\r\x1b[Kreading, "] {
            assert!(shown.contains(expected), "{expected:?} in {shown:?}");
        }
        assert_eq!(shown.matches("first\n").count(), 1, "{shown:?}");
        assert_eq!(board.call("f", b"x").text(), "x");
        let over = board.manage("GET", "/functions/f/deployment", b"");
        assert_eq!((over.status, over.text().as_str()), (404, "f is not being deployed right now\n"));
    }
}
