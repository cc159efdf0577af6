//! The handler contract, row by row, for each runtime: the handler as a plain process, raw HTTP on its unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tinyfaas::function::Runtime;
use tinyfaas::runtimes::{Content, spec};

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
    let spec = spec(runtime);
    for file in spec.files {
        if let Content::Bytes(bytes) = file.content {
            std::fs::write(folder.join(file.name), bytes).unwrap();
        }
    }
    let fill = |word: &str| {
        word.replace("{interpreter}", spec.host.interpreter)
            .replace("{program}", folder.to_str().unwrap())
            .replace("{self}", env!("CARGO_BIN_EXE_tinyfaas"))
    };
    let (program, args) = spec.host.command.split_first().unwrap();
    let mut command = Command::new(fill(program));
    command.args(args.iter().map(|arg| fill(arg)));
    command.envs(spec.env.iter().copied());
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
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, rest: Vec::new() }
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
    pub(super) stream: UnixStream,
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
        Runtime::Python3,
        "fn.py",
        "import time\ndef fn(input):\n    if input and input.startswith('fail'): raise ValueError(input)\n    return input\n",
    ),
    (
        Runtime::Nodejs,
        "index.js",
        "module.exports = async (req, res) => {\n  if (req.body.startsWith('fail')) throw new Error(req.body);\n  res.send(req.rawBody);\n};\n",
    ),
    (
        Runtime::Binary,
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
        let text = if runtime == Runtime::Binary { "exec cat" } else { text };
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
        assert!(socket.exists() || runtime == Runtime::Nodejs, "{runtime}");
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
        let mut sender = client.stream.try_clone().unwrap();
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
        (Runtime::Python3, "fn.py", "def fn(input):\n    print('busy')\n    while True: pass\n"),
        (Runtime::Nodejs, "index.js", "module.exports = () => { require('fs').writeSync(1, 'busy\\n'); for (;;); };\n"),
        (Runtime::Binary, "fn.sh", "echo busy >&2; sleep 1000"),
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
        (Runtime::Python3, &[("fn.py", "import nothing_of_that_name\n")][..], "nothing_of_that_name"),
        (Runtime::Python3, &[("fn.py", "def other(): pass\n")], "no function fn"),
        (Runtime::Nodejs, &[("index.js", "require('nothing-of-that-name')\n")], "nothing-of-that-name"),
        (Runtime::Nodejs, &[("index.js", "module.exports = 3\n")], "exports no function"),
        (Runtime::Nodejs, &[("readme", "")], "no module"),
        (Runtime::Binary, &[("readme", "")], "fn.sh"),
    ] {
        let mut handler = Handler::spawn(runtime, files, &[]);
        assert!(!handler.exit().success(), "{runtime}");
        assert!(handler.log().contains(reason), "{runtime}: {}", handler.log());
        assert!(!handler.folder.0.join("s").exists(), "{runtime}: it must not listen");
    }
}

#[test]
fn python_gives_none_for_an_empty_body_and_headers_to_who_takes_them() {
    let text = "def fn(input, headers):\n    print('called')\n    return repr((input, headers.get('x-one'), headers['X-ONE'], 'x-two' in headers, isinstance(headers, dict), headers.get('X-Tinyfaas-Query')))\n";
    let handler = Handler::start(Runtime::Python3, &[("fn.py", text)]);
    let reply = handler.connect().call("X-One: 1\r\nX-Tinyfaas-Query: a=b\r\n", b"");
    assert_eq!(reply.text(), "(None, '1', '1', False, True, 'a=b')");
    assert!(handler.log().contains("called\n"), "print reaches the log at once");
}

#[test]
fn python_returns_text_bytes_nothing_or_a_status_with_headers() {
    let text = "import decorated\n@decorated.twice\ndef fn(input):\n    return eval(input)\n";
    let decorated =
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n    return g\n";
    let handler = Handler::start(Runtime::Python3, &[("fn.py", text), (".deps/decorated.py", decorated)]);
    let call = |text: &str| handler.call(text.as_bytes());
    assert_eq!(call("'grün'").text(), "grün");
    assert!(call("'a'").head.contains("content-type: text/plain; charset=utf-8"));
    assert_eq!(call("b'\\xff'").body, b"\xff");
    assert_eq!((call("None").status, call("None").body), (200, vec![]));
    assert_eq!((call("('a', 404)").status, call("('a', 404)").text()), (404, "a".into()));
    let full = call("('{}', 201, {'Content-Type': 'application/json', 'X-A': 1, 'Content-Length': 9})");
    assert_eq!((full.status, full.text().as_str()), (201, "{}"));
    assert!(full.head.contains("content-type: application/json\nx-a: 1\n"), "{full:?}");
    for wrong in ["{}", "('a', 99)", "('a', 200, {'A': 'b\\r\\nc: d'})", "('a',)", "exit(3)", "[].x"] {
        assert_eq!(call(wrong).status, 500, "{wrong}");
    }
    assert_eq!(call("'fine'").text(), "fine");
}

#[test]
fn python_bodies_that_are_not_utf8_survive() {
    let handler = Handler::start(Runtime::Python3, &[("fn.py", "def fn(input): return input\n")]);
    assert_eq!(handler.call(b"a\xff\xfe\x80b").body, b"a\xff\xfe\x80b");
}

#[test]
fn python_works_on_as_many_calls_at_once_as_it_may() {
    // Each call waits until all four are there: fewer threads would never answer.
    let text = "import threading\nall = threading.Barrier(4)\ndef fn(input):\n    all.wait(60)\n    return 'met'\n";
    let mut handler = Handler::spawn(Runtime::Python3, &[("fn.py", text)], &[("TINYFAAS_CONCURRENCY", "4")]);
    handler.wait_for("the handler listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(handler.call(b"x").text(), "met"));
        }
    });
}

#[test]
fn node_gives_what_express_gives() {
    let text = r"module.exports = (req, res) => res.status(201).set('X-A', 'b').json({
        body: req.body, method: req.method, query: req.query, path: req.path, header: req.get('X-One'), raw: req.rawBody.length });";
    let handler = Handler::start(Runtime::Nodejs, &[("index.js", text)]);
    let headers =
        "X-One: 1\r\nX-Tinyfaas-Method: GET\r\nX-Tinyfaas-Query: a=1&b=x%20y\r\nX-Tinyfaas-Path: /deep/er\r\n";
    let reply = handler.connect().call(headers, "ü".as_bytes());
    let expected = r#"{"body":"ü","method":"GET","query":{"a":"1","b":"x y"},"path":"/deep/er","header":"1","raw":2}"#;
    assert_eq!((reply.status, reply.text().as_str()), (201, expected));
    assert!(reply.head.contains("x-a: b\n"), "{reply:?}");
    assert!(reply.head.contains("content-type: application/json; charset=utf-8\n"), "{reply:?}");
}

#[test]
fn node_sends_strings_buffers_objects_and_streams() {
    let text = r"module.exports = (req, res) => {
        switch (req.body) {
            case 'string': return res.send('text');
            case 'buffer': return res.send(Buffer.from([255, 0]));
            case 'object': return res.send({ a: [1] });
            case 'nothing': return res.status(204).send();
            case 'type': return res.type('text/csv').send('a,b');
            case 'stream': res.write('one '); return setImmediate(() => res.end('two'));
            case 'stray': setImmediate(() => { throw new Error('astray'); }); return res.send('sent');
            case 'reject': return Promise.reject(new Error('rejected'));
            case 'throw': throw 'thrown text';
            case 'late': res.send('sent'); throw new Error('too late');
            case 'unhandled': Promise.reject(new Error('nobody')); return res.send('sent');
        }
    };";
    let handler = Handler::start(
        Runtime::Nodejs,
        &[("package.json", r#"{"name": "fn", "main": "lib/main.js"}"#), ("lib/main.js", text)],
    );
    let mut client = handler.connect();
    let mut call = |body: &str| client.call("", body.as_bytes());
    assert_eq!(call("string").text(), "text");
    assert_eq!(call("buffer").body, [255, 0]);
    assert_eq!(call("object").text(), r#"{"a":[1]}"#);
    assert_eq!(call("nothing").status, 204);
    assert!(call("type").head.contains("content-type: text/csv"));
    assert_eq!(call("stream").text(), "one two");
    assert_eq!(call("stray").text(), "sent");
    assert_eq!((call("reject").status, call("reject").text()), (500, "rejected".into()));
    assert_eq!((call("throw").status, call("throw").text()), (500, "thrown text".into()));
    assert_eq!(call("unhandled").text(), "sent");
    assert_eq!(call("late").text(), "sent");
    assert_eq!(call("string").text(), "text");
    assert!(handler.log().contains("astray") && handler.log().contains("nobody"), "{}", handler.log());
    assert!(handler.log().contains("too late"), "{}", handler.log());
}

#[test]
fn node_gives_memory_back_after_long_bodies() {
    // 20 MiB as bytes, as text and as bytes again, three times: without help node keeps over 200 MB.
    let text = "if (globalThis.gc) throw new Error('gc shows');\nmodule.exports = (req, res) => res.send(req.body);\n";
    let mut handler = Handler::start(Runtime::Nodejs, &[("index.js", text)]);
    let body = vec![b'x'; 20 * 1024 * 1024];
    for _ in 0..3 {
        assert_eq!(handler.call(&body).body.len(), body.len());
    }
    handler.wait_for("the memory is given back", |h| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", h.child.id())).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() < 110_000
    });
}

#[test]
fn python_says_what_may_be_returned() {
    let handler = Handler::start(Runtime::Python3, &[("fn.py", "def fn(input): return 3\n")]);
    let reply = handler.call(b"");
    let expected = "TypeError: fn returned int: return str, bytes, None or a tuple (body, status, headers)";
    assert_eq!((reply.status, reply.text().as_str()), (500, expected));
}

#[test]
fn node_finds_every_kind_of_module() {
    let es = "export default async (req, res) => { res.send('es ' + req.body); };\n";
    let common = "exports.default = (req, res) => res.send('es ' + req.body);\n";
    for files in [
        &[("fn.js", common)][..],
        &[("fn.mjs", es)],
        &[("package.json", r#"{"type": "module", "main": "a.js"}"#), ("a.js", es)],
        &[("package.json", r#"{"main": "a.mjs"}"#), ("a.mjs", es)],
    ] {
        assert_eq!(Handler::start(Runtime::Nodejs, files).call(b"x").text(), "es x", "{files:?}");
    }
}

#[test]
fn a_script_sees_its_call_in_the_environment() {
    let text = "echo \"$REQUEST_METHOD|$PATH_INFO|$QUERY_STRING|$CONTENT_TYPE|$CONTENT_LENGTH|$HTTP_X_ONE|$HTTP_PROXY|$TINYFAAS_SOCKET\"\n";
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", text)]);
    let headers = "X-One: 1 2\r\nProxy: evil\r\nContent-Type: text/csv\r\nX-Tinyfaas-Method: PUT\r\nX-Tinyfaas-Path: /p\r\nX-Tinyfaas-Query: a=b\r\n";
    assert_eq!(handler.connect().call(headers, b"abc").text(), "PUT|/p|a=b|text/csv|3|1 2||\n");
}

#[test]
fn a_script_that_ignores_its_input_answers_and_the_connection_lives_on() {
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", "echo ignored\n")]);
    let mut client = handler.connect();
    for _ in 0..3 {
        // Sent whole before anything is read: the handler has to read all of it.
        let reply = client.call("", &vec![b'x'; 4 * 1024 * 1024]);
        assert_eq!((reply.status, reply.text().as_str()), (200, "ignored\n"));
    }
}

#[test]
fn long_output_streams_while_the_script_runs() {
    let text = "head -c 100000 /dev/zero; cat >/dev/null; echo end\n";
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", text)]);
    let mut client = handler.connect();
    // The head comes although the body, and so the script, has not ended.
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
    assert!(client.head().contains("transfer-encoding: chunked"));
    client.send(b"b");
    let mut size = 0;
    loop {
        let chunk = usize::from_str_radix(&client.line(), 16).unwrap();
        size += chunk;
        client.take(chunk + 2);
        if chunk == 0 {
            break;
        }
    }
    assert_eq!(size, 100_004);
}

#[test]
fn a_script_that_fails_late_breaks_its_answer_off() {
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", "head -c 100000 /dev/zero; exit 1\n")]);
    let mut client = handler.connect();
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(client.head().starts_with("http/1.1 200"));
    while client.fill() {}
    assert!(!client.rest.ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_script_that_says_nothing_fails_with_its_exit_status() {
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", "exit 7\n")]);
    let reply = handler.call(b"");
    assert_eq!((reply.status, reply.text().as_str()), (500, "fn.sh ended with exit status 7"));
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", "echo partly; exit 7\n")]);
    assert_eq!(handler.call(b"").text(), "partly");
}

#[test]
fn what_a_script_leaves_running_neither_delays_its_answer_nor_stays() {
    let text = "sleep 1000 & echo $!\n";
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", text)]);
    let reply = handler.call(b"");
    assert_eq!(reply.status, 200);
    let left = PathBuf::from(format!("/proc/{}", reply.text().trim()));
    let start = Instant::now();
    // Nobody may be there to reap it: then its dead entry stays.
    let is_gone = || !std::fs::read_to_string(left.join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while !is_gone() {
        assert!(start.elapsed() < PATIENCE, "it still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_caller_that_goes_away_takes_its_process_along() {
    let mut handler = Handler::start(Runtime::Binary, &[("fn.sh", "echo \"pid $$\" >&2; sleep 1000; echo late\n")]);
    let mut client = handler.connect();
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\n\r\n");
    handler.wait_for("the script runs", |h| h.log().contains("pid "));
    let pid = handler.log().trim().trim_start_matches("pid ").to_owned();
    drop(client);
    handler.wait_for("the script is gone", |_| !Path::new("/proc").join(&pid).exists());
}

#[test]
fn an_executable_script_runs_by_what_its_first_line_names() {
    use std::os::unix::fs::PermissionsExt;
    let handler = Handler::start(Runtime::Binary, &[("fn.sh", "echo sh\n")]);
    assert_eq!(handler.call(b"").text(), "sh\n");
    drop(handler);
    let mut handler =
        Handler::spawn(Runtime::Binary, &[("fn.sh", "exit 1")], &[("TINYFAAS_FUNCTION_DIR", "/nonexistent")]);
    assert!(!handler.exit().success());
    let script = handler.folder.0.join("fn/fn.sh");
    std::fs::write(&script, "#!/usr/bin/env python3\nprint('python')\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command(Runtime::Binary, &handler.folder.0);
    command.env("TINYFAAS_SOCKET", handler.folder.0.join("s"));
    command.env("TINYFAAS_FUNCTION_DIR", handler.folder.0.join("fn"));
    handler.child = command.spawn().unwrap();
    handler.wait_for("it listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    assert_eq!(handler.call(b"").text(), "python\n");
}

/// A handler of one of `examples/`, and what it answers to the `input.txt` beside it.
fn example(runtime: Runtime, name: &str) -> (Handler, Reply) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let mut handler = Handler::spawn(runtime, &[], &[("TINYFAAS_FUNCTION_DIR", folder.to_str().unwrap())]);
    handler.wait_for("the example listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    let reply = handler.call(&std::fs::read(folder.join("input.txt")).unwrap());
    assert_eq!(reply.status, 200, "{reply:?}");
    (handler, reply)
}

#[test]
fn the_sensor_example_raises_its_alarms() {
    let (handler, reply) = example(Runtime::Python3, "sensor");
    assert!(reply.text().contains(r#""alarm": "high""#), "{reply:?}");
    for n in 0..20 {
        let reply = handler.call(format!(r#"{{"sensor": "a", "value": {}}}"#, 20 + n % 2).as_bytes());
        assert!(reply.text().contains(r#""alarm": null"#), "{reply:?}");
    }
    assert!(handler.call(b"sensor=a value=90").text().contains(r#""alarm": "jump""#));
    assert!(handler.call(b"sensor=a value=1 low=5").text().contains(r#""alarm": "low""#));
    assert_eq!((handler.call(b"").status, handler.call(b"value=x").status), (400, 400));
}

#[test]
fn the_lines_example_reads_the_line_protocol() {
    let (handler, reply) = example(Runtime::Nodejs, "lines");
    let roof =
        r#"{"measurement":"weather","tags":{"site":"roof"},"fields":{"temp":21.5,"wet":false},"time":"1700000000"}"#;
    let cellar = r#"{"measurement":"weather","tags":{"site":"cellar"},"fields":{"temp":12}}"#;
    assert_eq!(reply.text(), format!("[{roof},{cellar}]\n"));
    let wrong = handler.call(b"a b=1\nnonsense");
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().starts_with("line 2: "), "{wrong:?}");
}

#[test]
fn the_summary_example_counts() {
    let (handler, reply) = example(Runtime::Binary, "summary");
    assert!(reply.text().starts_with("count 7\nmin 21.4\nmax 25.1\nmean 22.1714\n"), "{reply:?}");
    let none = handler.call(b"words\n");
    assert_eq!((none.status, none.text().as_str()), (500, "no numbers: send one a line"));
}
