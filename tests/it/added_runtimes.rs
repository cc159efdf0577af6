//! Runtimes that an operator adds with `--runtimes DIR`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::board::{Backend, Board, TempDir, zip_of};

/// Each call runs awk; what is beside the script is made at the deployment.
const AWK: &str = r#"{
  "base": "tinyfaas-test/binary",
  "files": ["tinyfaas"],
  "entries": ["fn.awk"],
  "install": {"file": "words", "command": ["sh", "-c", "grep -q . words && tr a-z A-Z <words >loud"], "what": "shouting"},
  "process": {"program": "awk", "command": ["{self}", "handler", "{program}", "-f", "fn.awk"], "env": {"FROM": "runtime"}}
}"#;
const DOCKERFILE: &str = r#"ARG BASE
FROM ${BASE}
COPY tinyfaas /tinyfaas/tinyfaas
ENV FROM=runtime
WORKDIR /fn
CMD ["/tinyfaas/tinyfaas", "handler", "awk", "-f", "fn.awk"]
"#;
const SCRIPT: &str = r#"{ print ENVIRON["FROM"], $0 } END { while ((getline line < "loud") > 0) print line }"#;

fn add(dir: &Path, name: &str, json: &str) {
    fs::create_dir(dir.join(name)).unwrap();
    fs::write(dir.join(name).join("runtime.json"), json).unwrap();
    fs::write(dir.join(name).join("Dockerfile"), DOCKERFILE).unwrap();
}

fn shown(board: &Board) -> serde_json::Value {
    serde_json::from_slice(&board.manage("GET", "/functions/loud", b"").body).unwrap()
}

#[test]
fn a_folder_adds_a_runtime_and_its_functions_outlive_it() {
    for backend in Backend::available() {
        let dir = TempDir::new();
        add(&dir.0, "awk", AWK);
        let flags = ["--runtimes", dir.0.to_str().unwrap()];
        let board = Board::start(backend, &flags);
        let files = [("fn.awk", SCRIPT), ("words", "hello\n")];
        board.deploy("loud", "awk", 1, &files);
        board.deploy("other", "binary", 1, &[("fn.sh", "cat")]);
        let is_up = |board: &Board| assert_eq!(board.call("loud", b"a\nb\n").text(), "runtime a\nruntime b\nHELLO\n");
        is_up(&board);
        assert_eq!(shown(&board)["env"], "awk");

        // What a function needs, and how its installation failed, is said in the runtime's own words.
        let answer = board.upload("none", "awk", 1, &zip_of(&[("fn.sh", "")]));
        assert!(answer.status == 422 && answer.text().contains("env awk needs fn.awk"), "{}", answer.text());
        let answer = board.upload("none", "awk", 1, &zip_of(&[("fn.awk", SCRIPT), ("words", "")]));
        assert!(answer.status == 422 && answer.text().contains("the shouting"), "{}", answer.text());
        let answer = board.upload("none", "lua", 1, &zip_of(&[("fn.lua", "")]));
        assert!(answer.status == 400 && answer.text().contains("binary, go, awk or image"), "{}", answer.text());
        // Its first file marks an archive as its own.
        assert_eq!(board.manage("PUT", "/functions/found", &zip_of(&files)).status, 201);
        assert_eq!(board.delete("found").status, 200);

        let mut board = board.power_cut();
        is_up(&board);
        // Handlers that were taken over are stopped with the server once all is restored.
        board.wait_for("all to be back", |board| (board.manage("GET", "/readyz", b"").status == 200).then_some(()));

        // Gone, and then broken: its function is told with the reason, and the others serve.
        let (here, away) = (dir.0.join("awk"), dir.0.join(".awk"));
        fs::rename(&here, &away).unwrap();
        let mut board = board.restart();
        let reason = |board: &Board| Some(shown(board)["handlers"][0]["reason"].as_str()?.to_owned());
        let why = board.wait_for("the reason", reason);
        assert!(why.contains("the env awk is not here any more"), "{why}");
        assert_eq!(shown(&board)["state"], "backing off");
        assert_eq!(board.call("other", b"x").text(), "x");
        fs::rename(&away, &here).unwrap();
        fs::write(here.join("runtime.json"), AWK.replace("base", "bass")).unwrap();
        let mut board = board.restart();
        board.wait_for("the reason", reason);
        assert!(board.log().contains("awk: runtime.json: \"bass\" is unknown"), "{}", board.log());
        assert_eq!(board.call("other", b"x").text(), "x");

        fs::write(here.join("runtime.json"), AWK).unwrap();
        let mut board = board.restart();
        board.wait_for("the function", |board| (shown(board)["state"] == "healthy").then_some(()));
        is_up(&board);
    }
}

#[test]
fn a_start_with_a_wrong_runtime_is_refused_with_a_line_for_each_fault() {
    let dir = TempDir::new();
    add(&dir.0, "good", AWK);
    add(&dir.0, "python3", AWK);
    add(&dir.0, "wrong", &AWK.replace("[\"fn.awk\"]", "[]"));
    let state = dir.0.join(".state");
    let serve = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
        command.args([
            "serve",
            "--backend",
            "process",
            "--management",
            "127.0.0.1:0",
            "--http",
            "off",
            "--coap",
            "off",
        ]);
        let out =
            command.args(["--grpc", "off", "--log", "error", "--state-dir"]).arg(&state).args(flags).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let flag = ["--runtimes", dir.0.to_str().unwrap()];
    let (code, text) = serve(&flag);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines.len()), (Some(1), 2), "{text}");
    for (line, why) in
        lines.iter().zip(["python3: python3 is part of the program", "wrong: runtime.json: entries: use a list of 1"])
    {
        assert!(line.starts_with("tinyfaas: --runtimes: ") && line.contains(why), "{text}");
    }
    let (code, text) = serve(&["--runtimes", "/nowhere"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(1), "tinyfaas: --runtimes: cannot read /nowhere: No such file or directory (os error 2)\n")
    );
    let (code, text) = serve(&["--runtime-base", "perl=x"]);
    assert!(
        code == Some(1) && text.starts_with("tinyfaas: --runtime-base: there is no env perl: use python3"),
        "{text}"
    );
}
