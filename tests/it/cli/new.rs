//! `tinyfaas new`: what it makes is deployed and answers.

use super::*;
use crate::board::{Backend, Board, TempDir};

/// Deploys and calls what `new` made with the commands that it printed.
fn made_and_tried(board: &Board, env: &str, dir: &str, name: &str) {
    let output = tinyfaas(&["new", env, dir]).output().unwrap();
    let printed = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(DONE), ""), "{printed}");
    let lines: Vec<_> = printed.lines().collect();
    let (wrote, next) = lines.split_at(lines.len() - 2);
    assert!(
        !wrote.is_empty() && wrote.iter().all(|line| Path::new(line.strip_prefix("wrote ").unwrap()).is_file()),
        "{printed}"
    );

    let words = |line: &str| line.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let management = board.management.to_string();
    let port = board.http.unwrap().port().to_string();
    let deploy = tinyfaas(&[]).args(words(next[0])).args(["--host", &management]).output().unwrap();
    assert_eq!(deploy.status.code(), Some(DONE), "{env}: {}", text(&deploy.stderr));
    let invoke =
        tinyfaas(&[]).args(words(next[1])).args(["--host", &management, "--http-port", &port]).output().unwrap();
    assert_eq!(text(&invoke.stdout), "hello world\n", "{env}: {}", text(&invoke.stderr));
    assert_eq!(board.call(name, b"").text(), "hello nobody\n", "{env}");
}

#[test]
fn what_is_made_can_be_deployed_and_called_as_it_says() {
    let dir = TempDir::new();
    let board = Board::start(Backend::Process, &[]);
    for env in ["python3", "nodejs", "binary"] {
        let folder = dir.0.join(env);
        made_and_tried(&board, env, folder.to_str().unwrap(), env);
    }
    // A folder whose name no function may have.
    made_and_tried(&board, "binary", dir.0.join("my-first_1").to_str().unwrap(), "myfirst1");
}

/// `tests/it/go_functions.rs` builds what it is: that takes a container.
#[test]
fn for_go_it_is_the_template() {
    let dir = TempDir::new();
    let folder = dir.0.join("hello");
    let output = tinyfaas(&["new", "go", folder.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(DONE), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(folder.join("fn.go")).unwrap(), include_str!("../../../templates/go/fn.go"));
}

#[test]
fn nothing_is_overwritten_and_what_is_wrong_is_said() {
    let dir = TempDir::new();
    let folder = dir.0.join("hello");
    let path = folder.to_str().unwrap();
    fs::create_dir(&folder).unwrap();
    let output = tinyfaas(&["new", "python3", path]).output().unwrap();
    assert_eq!(output.status.code(), Some(DONE), "an empty folder will do: {}", text(&output.stderr));
    fs::write(folder.join("fn.py"), "mine").unwrap();
    let (code, error) = refused(&["new", "binary", path]);
    assert_eq!((code, error), (USAGE, format!("tinyfaas: {path}: it is not empty: name a new folder\n")));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

    let (code, error) = refused(&["new", "python", dir.0.join("x").to_str().unwrap()]);
    assert!(
        code == USAGE && error.contains("no template for \"python\": use python3, nodejs, binary or go"),
        "{error}"
    );
    let (code, error) = refused(&["new", "python3", dir.0.join("---").to_str().unwrap()]);
    assert!(code == USAGE && error.contains("in ASCII letters and digits"), "{error}");
    let (code, error) = refused(&["new", "python3", folder.join("fn.py/x").to_str().unwrap()]);
    assert!(code == USAGE && error.contains("Not a directory"), "{error}");
}
