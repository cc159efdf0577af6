//! The main path on each backend, end to end.

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
