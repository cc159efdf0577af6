//! The handler contract, row by row, for each runtime: the handler as a plain process, raw HTTP on its unix socket.

mod binary;
mod examples;
mod node;
mod patient;
mod python;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use patient::Patient;
use tinyfaas::function::Runtime;
use tinyfaas::runtimes::{Content, find};

/// How long anything may take before a test fails; the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes away with its test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tinyfaas-it-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command that the table of runtimes gives for the host, with the handler's files in `folder`.
fn command(runtime: Runtime, folder: &Path) -> Command {
    let spec = find(runtime).unwrap();
    let host = spec.host.as_ref().unwrap();
    for file in spec.files {
        if let Content::Bytes(bytes) = file.content {
            std::fs::write(folder.join(file.name), bytes).unwrap();
        }
    }
    let fill = |word: &str| {
        word.replace("{program}", host.program)
            .replace("{folder}", folder.to_str().unwrap())
            .replace("{self}", env!("CARGO_BIN_EXE_tinyfaas"))
    };
    let (program, args) = host.command.split_first().unwrap();
    let mut command = Command::new(fill(program));
    command.args(args.iter().map(|arg| fill(arg)));
    command.envs(host.env.iter().copied());
    command
}

pub(super) struct Handler {
    pub(super) child: Child,
    pub(super) folder: Folder,
}

impl Handler {
    /// Starts a handler for a function of these files, with these variables.
    pub(super) fn spawn(runtime: Runtime, files: &[(&str, &str)], env: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        for (name, text) in files {
            folder.write(&format!("fn/{name}"), text);
        }
        let log = std::fs::File::create(folder.0.join("log")).unwrap();
        let mut command = command(runtime, &folder.0);
        command.env("TINYFAAS_SOCKET", folder.0.join("s")).env("TINYFAAS_FUNCTION_DIR", folder.0.join("fn"));
        command.envs(env.iter().copied()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("{:?}, which this test needs: {e}", command.get_program()));
        Self { child, folder }
    }

    /// As [`Handler::spawn`], and waits until it listens.
    pub(super) fn start(runtime: Runtime, files: &[(&str, &str)]) -> Self {
        let mut handler = Self::spawn(runtime, files, &[]);
        handler.wait_for("the handler listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
        handler
    }

    pub(super) fn wait_for(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(self.child.try_wait().unwrap().is_none(), "{what}: it exited: {}", self.log());
            assert!(start.elapsed() < PATIENCE, "{what}: not in time: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.0.join("log")).unwrap()).into_owned()
    }

    pub(super) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.folder.0.join("s")).unwrap();
        Client { stream: Patient::new(stream), rest: Vec::new() }
    }

    /// One call on a connection of its own.
    pub(super) fn call(&self, body: &[u8]) -> Reply {
        self.connect().call("", body)
    }

    fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not exit: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.exit()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The head in lower case.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(super) struct Client {
    pub(super) stream: Patient,
    rest: Vec<u8>,
}

impl Client {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(super) fn call(&mut self, headers: &str, body: &[u8]) -> Reply {
        let head = format!("POST /fn HTTP/1.1\r\nhost: h\r\n{headers}content-length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
        self.reply()
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        let n = self.stream.read(&mut piece).unwrap();
        self.rest.extend_from_slice(&piece[..n]);
        n > 0
    }

    pub(super) fn take(&mut self, n: usize) -> Vec<u8> {
        while self.rest.len() < n {
            assert!(self.fill(), "the connection ended in the middle of a reply");
        }
        self.rest.drain(..n).collect()
    }

    pub(super) fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.rest.windows(2).position(|w| w == b"\r\n") {
                let line = self.take(at + 2);
                return String::from_utf8(line[..at].to_vec()).unwrap();
            }
            assert!(self.fill(), "the connection ended in the middle of a line");
        }
    }

    pub(super) fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                return head;
            }
            head.push_str(&line);
            head.push('\n');
        }
    }

    pub(super) fn reply(&mut self) -> Reply {
        let head = self.head();
        let status = head[9..12].parse().unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let mut body = Vec::new();
        if let Some(length) = field("content-length: ") {
            body = self.take(length.parse().unwrap());
        } else if field("transfer-encoding: ") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).unwrap();
                body.extend(self.take(size));
                assert_eq!(self.take(2), b"\r\n");
                if size == 0 {
                    break;
                }
            }
        }
        Reply { status, head, body }
    }

    pub(super) fn is_closed(&mut self) -> bool {
        self.rest.is_empty() && !self.fill()
    }
}

/// What each runtime's echo is: body back as it came, text after `fail` an error, `slow` on the way.
const ECHO: [(Runtime, &str, &str); 3] = [
    (
        Runtime::PYTHON3,
        "fn.py",
        "import time\ndef fn(input):\n    if input and input.startswith('fail'): raise ValueError(input)\n    return input\n",
    ),
    (
        Runtime::NODEJS,
        "index.js",
        "module.exports = async (req, res) => {\n  if (req.body.startsWith('fail')) throw new Error(req.body);\n  res.send(req.rawBody);\n};\n",
    ),
    (
        Runtime::BINARY,
        "fn.sh",
        "read -r line || [ -n \"$line\" ] || exit 0\ncase $line in fail*) echo \"$line\" >&2; exit 3;; esac\nprintf '%s\\n' \"$line\"\ncat\n",
    ),
];

fn each_echo(check: impl Fn(Runtime, &mut Handler)) {
    for (runtime, file, text) in ECHO {
        // The script's `read` takes a line: other bodies go to a plain cat.
        let mut handler = Handler::start(runtime, &[(file, text)]);
        check(runtime, &mut handler);
    }
}

/// As [`each_echo`], with `cat` for the binary runtime: any bytes come back.
fn each_exact_echo(check: impl Fn(Runtime, &mut Handler)) {
    for (runtime, file, text) in ECHO {
        let text = if runtime == Runtime::BINARY { "exec cat" } else { text };
        check(runtime, &mut Handler::start(runtime, &[(file, text)]));
    }
}

#[test]
fn health_answers_and_calls_share_a_connection() {
    each_exact_echo(|runtime, handler| {
        let mut client = handler.connect();
        client.send(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(client.reply().status, 200, "{runtime}");
        for body in [&b"one"[..], b"", b"three\n", &[b'x'; 5000]] {
            let reply = client.call("", body);
            assert_eq!((reply.status, reply.body.as_slice()), (200, body), "{runtime}");
        }
        client.send(b"GET /other HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(client.reply().status, 404, "{runtime}");
        client.send(b"GET /fn HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(client.reply().status, 405, "{runtime}");
        client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx");
        assert_eq!(client.reply().body, b"x", "{runtime}");
        assert!(client.is_closed(), "{runtime}");
    });
}

#[test]
fn anyone_may_connect_to_the_socket_and_a_stale_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    each_exact_echo(|runtime, handler| {
        let socket = handler.folder.0.join("s");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        handler.wait_for("anyone may connect", |h| mode(&h.folder.0.join("s")) == 0o666);
        // The socket's file outlives a handler: a second one in its place has to start all the same.
        handler.terminate();
        assert!(socket.exists() || runtime == Runtime::NODEJS, "{runtime}");
        let mut command = command(runtime, &handler.folder.0);
        command.env("TINYFAAS_SOCKET", &socket).env("TINYFAAS_FUNCTION_DIR", handler.folder.0.join("fn"));
        handler.child = command.spawn().unwrap();
        handler.wait_for("the second listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
        assert_eq!(handler.call(b"again").body, b"again", "{runtime}");
    });
}

#[test]
fn chunked_bodies_arrive_whole_however_they_are_cut() {
    each_exact_echo(|runtime, handler| {
        let mut client = handler.connect();
        let request = b"POST /fn HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: x\r\n\r\n";
        client.send(request);
        assert_eq!(client.reply().body, b"hello world", "{runtime}");
        for byte in request.chunks(7) {
            client.send(byte);
        }
        assert_eq!(client.reply().body, b"hello world", "{runtime}");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    each_exact_echo(|runtime, handler| {
        let mut client = handler.connect();
        let one = |n| format!("POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\n{n}");
        client.send((one(1) + &one(2) + &one(3)).as_bytes());
        for n in [b"1", b"2", b"3"] {
            assert_eq!(client.reply().body, n, "{runtime}");
        }
    });
}

#[test]
fn broken_requests_get_400_and_a_close() {
    each_exact_echo(|runtime, handler| {
        for request in [
            "POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
            "POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "POST /fn HTTP/1.1\r\nhost: h\r\nbad header: x\r\n\r\n",
            "POST /fn HTTP/1.1\r\nhost : h\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let mut client = handler.connect();
            client.send(request.as_bytes());
            assert_eq!(client.reply().status, 400, "{runtime}: {request:?}");
            assert!(client.is_closed(), "{runtime}: {request:?}");
        }
        let mut client = handler.connect();
        client.send(format!("POST /fn HTTP/1.1\r\nhost: h\r\nx: {}", "y".repeat(21 * 1024)).as_bytes());
        assert_eq!(client.reply().status, 431, "{runtime}");
        assert_eq!(handler.call(b"fine").body, b"fine", "{runtime}: it lives on");
    });
}

#[test]
fn an_error_is_a_500_with_its_message_and_the_handler_lives_on() {
    each_echo(|runtime, handler| {
        let mut client = handler.connect();
        let reply = client.call("", b"fail: sensor 7\n");
        assert_eq!(reply.status, 500, "{runtime}");
        assert!(reply.text().contains("fail: sensor 7"), "{runtime}: {reply:?}");
        assert!(reply.head.contains("content-type: text/plain"), "{runtime}: {reply:?}");
        assert_eq!(client.call("", b"fine\n").body, b"fine\n", "{runtime}");
        assert!(handler.log().contains("fail: sensor 7"), "{runtime}: {}", handler.log());
    });
}

#[test]
fn sixteen_callers_at_once_each_get_their_own_answer() {
    each_exact_echo(|runtime, handler| {
        let handler = &*handler;
        thread::scope(|scope| {
            for caller in 0..16 {
                scope.spawn(move || {
                    let mut client = handler.connect();
                    for n in 0..20 {
                        let body = format!("{caller} {n}");
                        assert_eq!(client.call("", body.as_bytes()).text(), body, "{runtime}");
                    }
                });
            }
        });
    });
}

#[test]
fn idle_connections_starve_nobody() {
    each_exact_echo(|runtime, handler| {
        let mut idle: Vec<Client> = (0..40).map(|_| handler.connect()).collect();
        assert_eq!(handler.call(b"new").body, b"new", "{runtime}");
        for client in &mut idle {
            assert_eq!(client.call("", b"old").body, b"old", "{runtime}");
        }
    });
}

#[test]
fn a_body_of_20_mib_comes_back() {
    each_exact_echo(|runtime, handler| {
        let body: Vec<u8> = (0..20 * 1024 * 1024u32).map(|n| (n % 251) as u8).collect();
        let mut client = handler.connect();
        // Both directions at once, as the dispatcher does: an answer may start before the body was read.
        let mut sender = client.stream.again();
        let reply = thread::scope(|scope| {
            scope.spawn(|| {
                let head = format!("POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
                sender.write_all(head.as_bytes()).unwrap();
                sender.write_all(&body).unwrap();
            });
            client.reply()
        });
        assert_eq!(reply.status, 200, "{runtime}");
        assert!(reply.body == body, "{runtime}: {} bytes came back", reply.body.len());
        assert_eq!(client.call("", b"next").body, b"next", "{runtime}");
    });
}

#[test]
fn sigterm_ends_it_at_once_with_a_call_under_way() {
    let busy = [
        (Runtime::PYTHON3, "fn.py", "def fn(input):\n    print('busy')\n    while True: pass\n"),
        (Runtime::NODEJS, "index.js", "module.exports = () => { require('fs').writeSync(1, 'busy\\n'); for (;;); };\n"),
        (Runtime::BINARY, "fn.sh", "echo busy >&2; sleep 1000"),
    ];
    for (runtime, file, text) in busy {
        let mut handler = Handler::start(runtime, &[(file, text)]);
        let mut client = handler.connect();
        client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\n\r\n");
        handler.wait_for("the call is under way", |h| h.log().contains("busy"));
        handler.terminate();
        assert!(client.stream.read(&mut [0]).map_or(true, |n| n == 0), "{runtime}");
    }
}

#[test]
fn a_function_that_does_not_load_ends_the_handler_with_its_reason() {
    for (runtime, files, reason) in [
        (Runtime::PYTHON3, &[("fn.py", "import nothing_of_that_name\n")][..], "nothing_of_that_name"),
        (Runtime::PYTHON3, &[("fn.py", "def other(): pass\n")], "no function fn"),
        (Runtime::NODEJS, &[("index.js", "require('nothing-of-that-name')\n")], "nothing-of-that-name"),
        (Runtime::NODEJS, &[("index.js", "module.exports = 3\n")], "exports no function"),
        (Runtime::NODEJS, &[("readme", "")], "no module"),
        (Runtime::BINARY, &[("readme", "")], "fn.sh"),
    ] {
        let mut handler = Handler::spawn(runtime, files, &[]);
        assert!(!handler.exit().success(), "{runtime}");
        assert!(handler.log().contains(reason), "{runtime}: {}", handler.log());
        assert!(!handler.folder.0.join("s").exists(), "{runtime}: it must not listen");
    }
}
