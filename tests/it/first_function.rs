//! The README's first function, with the real server on the process backend: what a newcomer types works as it says.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A server that goes away with the test.
struct Server {
    child: Child,
    management: String,
    http_port: String,
    top: PathBuf,
}

impl Server {
    /// Starts on free ports; its log says which.
    fn start(name: &str) -> Self {
        let top = std::env::temp_dir().join(format!("tf-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&top);
        fs::create_dir_all(top.join("hello")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tinyfaas"))
            .args(["--backend", "process", "--coap", "off", "--grpc", "off"])
            .args(["--http", "127.0.0.1:0", "--management", "127.0.0.1:0", "--log", "info", "--state-dir"])
            .arg(top.join("state"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut port_of = |what: &str| loop {
            let line = lines.next().expect("the server ended before it listened").unwrap();
            if let Some(addr) = line.strip_prefix(&format!("INFO {what} listens on 127.0.0.1:")) {
                return addr.to_string();
            }
        };
        let (http_port, management) = (port_of("http"), port_of("management"));
        // The rest of the log has to go somewhere, or the server would wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, management: format!("127.0.0.1:{management}"), http_port, top }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
        command.args(args).args(["--host", &self.management]).stdin(Stdio::null());
        if args[0] == "invoke" {
            command.args(["--http-port", &self.http_port]);
        }
        command.output().unwrap()
    }

    /// What a command prints that works.
    fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), error.as_str()), (Some(0), ""), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.top);
    }
}

#[test]
fn a_function_is_deployed_called_replaced_and_deleted() {
    let server = Server::start("first");
    let folder = server.top.join("hello");
    let dir = folder.to_str().unwrap();
    let code = "import sys\ndef fn(input):\n    print('called', file=sys.stderr, flush=True)\n    return 'hello ' + (input or 'nobody')\n";
    fs::write(folder.join("fn.py"), code).unwrap();

    let url = format!("http://127.0.0.1:{}/hello", server.http_port);
    assert_eq!(server.prints(&["deploy", dir]).trim_end(), url);
    assert_eq!(server.prints(&["list"]).trim_end(), "hello");
    assert_eq!(server.prints(&["invoke", "hello", "--data", "world"]), "hello world");
    assert_eq!(server.prints(&["invoke", "hello"]), "hello nobody");
    let logs = server.prints(&["logs", "hello"]);
    assert!(logs.starts_with("function=hello handler=") && logs.contains(" called\n"), "{logs}");

    let mut file = fs::OpenOptions::new().append(true).open(folder.join("fn.py")).unwrap();
    file.write_all(b"fn = lambda input: 'second'\n").unwrap();
    server.prints(&["deploy", dir]);
    assert_eq!(server.prints(&["invoke", "hello"]), "second");

    assert_eq!(server.prints(&["delete", "hello"]), "");
    assert_eq!(server.prints(&["list"]), "");
    assert_eq!(server.run(&["invoke", "hello"]).status.code(), Some(4));
    assert_eq!(server.run(&["delete", "hello"]).status.code(), Some(4));
}

#[test]
fn a_function_that_does_not_start_is_refused_with_its_log() {
    let server = Server::start("broken");
    let folder = server.top.join("hello");
    fs::write(folder.join("fn.py"), "def fn(:\n").unwrap();
    let output = server.run(&["deploy", folder.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("tinyfaas: HTTP 422: ") && error.contains("SyntaxError"), "{error}");
    assert_eq!(server.prints(&["list"]), "");
}
