//! The contract's *Functions* table on each backend: what a function is given, what it may answer, how it fails, and what
//! of it is installed. All goes the whole way: upload, handler, HTTP front door.

use crate::board::{Backend, Board, docker, json_of, left_of, left_on_engine, request, unix_zip, upload_json, zip_of};

/// Names and texts of a function's files.
type Files<'a> = &'a [(&'a str, &'a str)];

/// Checks that a call answers this status and text.
#[track_caller]
fn assert_call(board: &Board, name: &str, body: &[u8], status: u16, text: &str) {
    let answer = board.call(name, body);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (status, text),
        "{name} of {:?}",
        String::from_utf8_lossy(body)
    );
}

const ONE_ARGUMENT: &str = r#"
import os
def fn(input):
    if input == "raise": raise ValueError("no such luck")
    if input == "nothing": return None
    if input == "env": return os.environ["GREETING"] + "|" + os.environ["EMPTY"]
    return repr(input)
"#;

const TWO_ARGUMENTS: &str = r#"
def fn(input, headers):
    assert isinstance(headers, dict)
    return f"{input!r} {headers['X-Sensor']} {headers.get('x-absent')}"
"#;

#[test]
fn python3_takes_text_or_none_and_headers_and_returns_text_or_none() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let json = upload_json("one", "python3", 2, &[("fn.py", ONE_ARGUMENT)], &["GREETING=a = b", "EMPTY="]);
        let answer = board.manage("POST", "/upload", &json);
        assert_eq!(answer.status, 200, "{}", answer.text());
        board.deploy("two", "python3", 1, &[("fn.py", TWO_ARGUMENTS)]);

        assert_call(&board, "one", b"", 200, "None");
        assert_call(&board, "one", "grün\n".as_bytes(), 200, r"'grün\n'");
        assert_call(&board, "one", b"nothing", 200, "");
        assert_call(&board, "one", b"env", 200, "a = b|");
        let fields = "X-Sensor: 7\r\n";
        let answer = request(board.http.unwrap(), "POST", "/two", fields, b"23.5");
        assert_eq!((answer.status, answer.text().as_str()), (200, "'23.5' 7 None"));
        let answer = request(board.http.unwrap(), "GET", "/two", fields, b"");
        assert_eq!((answer.status, answer.text().as_str()), (200, "None 7 None"));
        // Both handlers of `one` fail, and both live on.
        for _ in 0..4 {
            let answer = board.call("one", b"raise");
            assert_eq!((answer.status, answer.text().contains("no such luck")), (500, true), "{}", answer.text());
            assert_call(&board, "one", b"x", 200, "'x'");
        }
    }
}

const EXPRESS: &str = r"
const answers = {
  string: (req, res) => res.send('grün'),
  buffer: (req, res) => res.send(Buffer.from([0, 255, 10])),
  object: (req, res) => res.send({ a: [1, 'b'] }),
  json: (req, res) => res.json([1, null]),
  status: (req, res) => res.status(404).send('none here'),
  set: (req, res) => res.set('X-Unit', 'C').set({ 'Content-Type': 'text/csv' }).send('1,2'),
  seen: (req, res) => res.json([req.body, req.headers['x-sensor'], req.method, req.query.unit]),
  env: (req, res) => res.send(process.env.GREETING),
  throw: () => { throw new Error('no such luck'); },
};
module.exports = async (req, res) => {
  if (req.query.do === 'await') { await new Promise(setImmediate); return res.send('awaited'); }
  if (req.query.do === 'reject') { await new Promise(setImmediate); throw new Error('turned down'); }
  return answers[req.query.do](req, res);
};
";

#[test]
fn a_node_function_needs_no_package_json() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let common = "module.exports = (req, res) => res.send('common')";
        let es = "export default (req, res) => res.send('es')";
        for (file, text, answer) in [
            ("index.js", common, "common"),
            ("fn.js", common, "common"),
            ("fn.cjs", common, "common"),
            ("fn.mjs", es, "es"),
            ("index.mjs", es, "es"),
        ] {
            board.deploy("f", "nodejs", 1, &[(file, text)]);
            assert_call(&board, "f", b"", 200, answer);
        }
    }
}

#[test]
fn nodejs_speaks_the_conventions_of_express() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let package = r#"{"name":"fn","version":"1.0.0","main":"main.js"}"#;
        let files = [("package.json", package), ("main.js", EXPRESS)];
        let answer = board.manage("POST", "/upload", &upload_json("ex", "nodejs", 1, &files, &["GREETING=hi"]));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let call = |what: &str| request(board.http.unwrap(), "POST", &format!("/ex?do={what}"), "", b"body");
        for (what, status, kind, body) in [
            ("string", 200, "text/html", "grün".as_bytes()),
            ("buffer", 200, "application/octet-stream", b"\x00\xff\n"),
            ("object", 200, "application/json", br#"{"a":[1,"b"]}"#),
            ("json", 200, "application/json", b"[1,null]"),
            ("status", 404, "text/html", b"none here"),
            ("set", 200, "text/csv", b"1,2"),
            ("env", 200, "text/html", b"hi"),
            ("await", 200, "text/html", b"awaited"),
        ] {
            let answer = call(what);
            assert_eq!((answer.status, &answer.body[..]), (status, body), "{what}: {}", answer.text());
            assert!(answer.header("content-type").unwrap().starts_with(kind), "{what}: {}", answer.head);
        }
        assert_eq!(call("set").header("x-unit"), Some("C"));
        let fields = "X-Sensor: 7\r\n";
        let answer = request(board.http.unwrap(), "PUT", "/ex?do=seen&unit=%C2%B0C", fields, b"23.5");
        assert_eq!(answer.text(), r#"["23.5","7","PUT","°C"]"#);
        for (what, message) in [("throw", "no such luck"), ("reject", "turned down")] {
            let answer = call(what);
            assert_eq!((answer.status, answer.text().contains(message)), (500, true), "{what}: {}", answer.text());
            assert_eq!(call("string").status, 200, "it lives on");
        }
    }
}

const SCRIPT: &str = r#"input=$(cat)
case "$input" in
  fail) echo 'no such luck' >&2; exit 3 ;;
  env) printf %s "$GREETING" ;;
  helper) ./bin/helper there ;;
  *) printf 'got %s' "$input" ;;
esac
"#;

#[test]
fn binary_reads_standard_input_and_answers_on_standard_output() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        // The helper is run by its own name: its unix mode has to survive.
        let zip = unix_zip(&[
            ("fn.sh", 0o644, SCRIPT.as_bytes()),
            ("bin/helper", 0o755, b"#!/bin/sh\nprintf 'helped %s' \"$1\"\n"),
        ]);
        let json = json_of("bin", "binary", 2, &zip, &["GREETING=hi there"]);
        let answer = board.manage("POST", "/upload", &json);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_call(&board, "bin", b"", 200, "got ");
        assert_call(&board, "bin", b"23.5", 200, "got 23.5");
        assert_call(&board, "bin", b"env", 200, "hi there");
        assert_call(&board, "bin", b"helper", 200, "helped there");
        for _ in 0..4 {
            let answer = board.call("bin", b"fail");
            assert_eq!((answer.status, answer.text().contains("no such luck")), (500, true), "{}", answer.text());
            assert_call(&board, "bin", b"on", 200, "got on");
        }
    }
}

/// A wheel is a zip archive: a module `name` whose `WORD` is `word`.
fn wheel(name: &str, word: &str) -> Vec<u8> {
    let info = format!("{name}-1.0.dist-info");
    let module = format!("WORD = {word:?}\n");
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    let about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let record = format!("{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n");
    unix_zip(&[
        (&format!("{name}.py"), 0o644, module.as_bytes()),
        (&format!("{info}/METADATA"), 0o644, metadata.as_bytes()),
        (&format!("{info}/WHEEL"), 0o644, about.as_bytes()),
        (&format!("{info}/RECORD"), 0o644, record.as_bytes()),
    ])
}

#[test]
fn requirements_are_installed_from_a_file_and_from_the_package_index() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let zip = unix_zip(&[
            ("fn.py", 0o644, b"import words, iniconfig\ndef fn(i):\n    return words.WORD + iniconfig.__name__\n"),
            ("requirements.txt", 0o644, b"# both kinds\n./words-1.0-py3-none-any.whl\niniconfig==2.0.0\n"),
            ("words-1.0-py3-none-any.whl", 0o644, &wheel("words", "from a file, ")),
        ]);
        let answer = board.upload("deps", "python3", 2, &zip);
        assert_eq!(answer.status, 200, "{}", answer.text());
        for _ in 0..4 {
            assert_call(&board, "deps", b"", 200, "from a file, iniconfig");
        }
    }
}

#[test]
fn a_node_package_s_own_dependencies_are_installed() {
    assert!(
        std::process::Command::new("npm").arg("--version").output().is_ok_and(|out| out.status.success()),
        "this test needs npm"
    );
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        let package = r#"{"name":"fn","version":"1.0.0","main":"i.js","dependencies":{"words":"file:./words"}}"#;
        board.deploy(
            "deps",
            "nodejs",
            1,
            &[
                ("package.json", package),
                ("i.js", "module.exports = (req, res) => res.send(require('words').word)"),
                ("words/package.json", r#"{"name":"words","version":"1.0.0","main":"w.js"}"#),
                ("words/w.js", "exports.word = 'from a folder';"),
            ],
        );
        assert_call(&board, "deps", b"", 200, "from a folder");
    }
}

#[test]
fn a_deployment_that_fails_returns_its_log_and_leaves_nothing() {
    for backend in Backend::available() {
        let mut board = Board::start(backend, &[]);
        let failures: [(&str, Files, &str); 6] = [
            ("python3", &[("fn.py", "def fn(i): return 1"), ("requirements.txt", "./absent.whl\n")], "absent.whl"),
            (
                "nodejs",
                &[("fn.js", ""), ("package.json", r#"{"main":"fn.js","dependencies":{"w":"file:./absent.tgz"}}"#)],
                "absent.tgz",
            ),
            ("python3", &[("fn.py", "print('last words')\nraise RuntimeError('dead at start')\n")], "dead at start"),
            ("python3", &[("fn.py", "def other(i): return 1\n")], "fn"),
            ("nodejs", &[("index.js", "throw new Error('dead at start')")], "dead at start"),
            ("binary", &[("other.sh", "echo")], "fn.sh"),
        ];
        for (env, files, reason) in failures {
            let answer = board.upload("broken", env, 2, &zip_of(files));
            assert_eq!((answer.status, answer.text().contains(reason)), (422, true), "{env}: {}", answer.text());
            assert_eq!(board.manage("GET", "/list", b"").text(), "");
            assert_eq!(board.call("broken", b"").status, 404);
        }
        assert_eq!(left_of(&board.state_dir), [""; 0], "{backend:?}");
        if backend == Backend::Docker {
            board.wait_for("the engine to be clean", |b| {
                left_on_engine(&b.state_dir).iter().all(|l| l.starts_with("network ")).then_some(())
            });
        }
    }
}

#[test]
fn a_replacement_that_fails_leaves_what_ran_before_running() {
    for backend in Backend::available() {
        let board = Board::start(backend, &[]);
        board.deploy("v", "binary", 2, &[("fn.sh", "printf first")]);
        let broken = zip_of(&[("fn.py", "raise RuntimeError('dead at start')\n")]);
        assert_eq!(board.upload("v", "python3", 1, &broken).status, 422);
        assert_call(&board, "v", b"", 200, "first");
        // Another runtime may take the name, and the same bytes may come twice.
        board.deploy("v", "python3", 1, &[("fn.py", "def fn(i): return 'second'\n")]);
        assert_call(&board, "v", b"", 200, "second");
        board.deploy("v", "python3", 1, &[("fn.py", "def fn(i): return 'second'\n")]);
        assert_call(&board, "v", b"", 200, "second");
        assert_eq!(board.manage("GET", "/list", b"").text(), "v\n");
    }
}

/// A handler that knows the contract alone: TCP 8000, `/health`, `/fn`, a connection a call.
const PLAIN_HANDLER: &str = r"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == '/health' else 404, b'')
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self.answer(200, b'plain ' + body + b' ' + self.headers.get('X-Sensor', 'none').encode())
    def answer(self, status, body):
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()
";

#[test]
fn an_image_that_knows_only_the_contract_is_a_handler() {
    if !Backend::available().contains(&Backend::Docker) {
        return;
    }
    let image = format!("tinyfaas-it-plain:{}", std::process::id());
    let made = docker(&["create", "tinyfaas-test/python3", "true"]);
    let command = serde_json::json!(["python3", "-c", PLAIN_HANDLER]);
    docker(&["commit", "-c", &format!("CMD {command}"), made.trim(), &image]);
    docker(&["rm", made.trim()]);
    let board = Board::start(Backend::Docker, &["--runtime-image", &format!("binary={image}")]);
    board.deploy("plain", "binary", 2, &[("fn.sh", "never run")]);
    let answer = request(board.http.unwrap(), "POST", "/plain", "X-Sensor: 7\r\n", b"body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "plain body 7"));
    let board = board.power_cut();
    assert_call(&board, "plain", b"again", 200, "plain again none");
    drop(board);
    docker(&["rmi", &image]);
}
