//! The main path on each backend, end to end.

use std::net::SocketAddr;
use std::process::Command;

use crate::board::{Backend, Board};

#[test]
fn a_function_is_deployed_called_listed_and_deleted() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("echo", "python3", 2, &[("fn.py", "def fn(input):\n    return 'got ' + str(input)\n")]);
        let answer = board.call("echo", b"hello");
        assert_eq!((answer.status, answer.text().as_str()), (200, "got hello"), "{backend:?}");
        assert_eq!(board.manage("GET", "/list", b"").text(), "echo\n");
        assert_eq!(board.delete("echo").status, 200);
        assert_eq!(board.manage("GET", "/list", b"").text(), "");
        assert_eq!(board.call("echo", b"hello").status, 404);
    }
}

#[test]
fn a_function_is_called_over_grpc_by_the_command() {
    let board = Board::start(Backend::Process, &[]);
    board.deploy("echo", "python3", 1, &[("fn.py", "def fn(input):\n    return 'got ' + str(input)\n")]);
    board.deploy("fails", "python3", 1, &[("fn.py", "def fn(input):\n    raise ValueError('not ' + input)\n")]);
    let invoke_at = |addr: SocketAddr, name: &str| {
        let url = format!("grpc://{addr}/{name}");
        let output =
            Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["invoke", &url, "--data", "hi"]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let invoke = |name| invoke_at(board.grpc.unwrap(), name);
    assert_eq!(invoke("echo"), (Some(0), "got hi".into(), String::new()));
    let (code, out, error) = invoke("nobody");
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(error.contains("NOT_FOUND: no function named"), "{error}");
    let (code, out, error) = invoke("fails");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("INTERNAL: ") && error.contains("not hi"), "{error}");
    // The HTTP door speaks no HTTP/2, and nobody listens on port 1.
    for addr in [board.http.unwrap(), ([127, 0, 0, 1], 1).into()] {
        let (code, out, error) = invoke_at(addr, "echo");
        assert_eq!((code, out.as_str()), (Some(3), ""), "{error}");
    }
}
