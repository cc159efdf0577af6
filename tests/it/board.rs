//! A real server for a test: the built program with free ports and a state directory of its own, on either backend.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;

/// Longest that anything here is waited for: far beyond what it takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What runs the handlers of a [`Board`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Docker,
    Process,
}

impl Backend {
    /// The backends that can be tested here. A missing Docker engine fails in CI and is told loudly elsewhere.
    pub fn available() -> Vec<Self> {
        if docker_is_ready() { vec![Self::Docker, Self::Process] } else { vec![Self::Process] }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// Whether an engine and the test images are there; makes the images where they are not.
pub fn docker_is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
        if !engine.is_ok_and(|out| out.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "CI has to have a Docker engine: no test may be skipped there");
            eprintln!("\n*** SKIPPED: no Docker engine answers, so nothing of the Docker backend is tested ***\n");
            return false;
        }
        let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images/build")).output().unwrap();
        assert!(made.status.success(), "tests/images/build failed:\n{}", String::from_utf8_lossy(&made.stderr));
        make_runtime_images();
        true
    })
}

/// Has the images of this program's runtimes made once, by a server whose state stays from run to run: every other
/// server uses them, and it removes those of earlier programs.
fn make_runtime_images() {
    let state_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runtimes");
    let mut board = Board::start_in(Backend::Docker, &[], state_dir);
    board.keep_state = true;
    let nothing = [("python3", "fn.py", "def fn(input): pass"), ("nodejs", "fn.js", "module.exports = () => {}")];
    for (env, file, text) in nothing.into_iter().chain([("binary", "fn.sh", "")]) {
        board.deploy(env, env, 1, &[(file, text)]);
        assert_eq!(board.delete(env).status, 200);
    }
}

/// A running server. Stopped, and its state removed, when dropped.
pub struct Board {
    child: Child,
    pub state_dir: PathBuf,
    pub management: SocketAddr,
    pub http: Option<SocketAddr>,
    pub coap: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
    backend: Backend,
    flags: Vec<String>,
    keep_state: bool,
}

/// An HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then_some(v.trim())
        })
    }
}

/// A folder that goes away with the test.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Short: paths of unix sockets come out of it.
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tf-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Board {
    /// Starts a server and waits until its ports are open.
    pub fn start(backend: Backend, flags: &[&str]) -> Self {
        let dir = TempDir::new();
        let state_dir = dir.0.join("state");
        // The board removes it.
        std::mem::forget(dir);
        Self::start_in(backend, flags, state_dir)
    }

    /// Starts a server on a state directory that may be there already.
    pub fn start_in(backend: Backend, flags: &[&str], state_dir: PathBuf) -> Self {
        Self::start_as(&[env!("CARGO_BIN_EXE_tinyfaas")], backend, flags, state_dir)
    }

    /// The same with another program, or one that starts ours.
    pub fn start_as(program: &[&str], backend: Backend, flags: &[&str], state_dir: PathBuf) -> Self {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(["serve", "--backend", backend.name(), "--state-dir"]).arg(&state_dir);
        for door in ["--management", "--http", "--coap", "--grpc"] {
            if !flags.contains(&door) {
                command.args([door, "127.0.0.1:0"]);
            }
        }
        if backend == Backend::Docker {
            for env in ["python3", "nodejs", "binary"] {
                command.args(["--runtime-base", &format!("{env}=tinyfaas-test/{env}")]);
            }
        }
        command.args(flags);
        Self::launch(command, backend, flags, state_dir, &[])
    }

    /// Starts a server whose front doors and backend (processes, please) are told by the environment alone.
    pub fn from_environment(vars: &[(&str, &str)]) -> Self {
        let dir = TempDir::new();
        let state_dir = dir.0.join("state");
        // The board removes it.
        std::mem::forget(dir);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinyfaas"));
        command.args(["serve", "--management", "127.0.0.1:0", "--state-dir"]).arg(&state_dir);
        Self::launch(command, Backend::Process, &[], state_dir, vars)
    }

    fn launch(
        mut command: Command,
        backend: Backend,
        flags: &[&str],
        state_dir: PathBuf,
        vars: &[(&str, &str)],
    ) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for name in ["HTTP_PORT", "COAP_PORT", "GRPC_PORT", "TF_BACKEND", "DOCKER_HOST", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.envs(vars.iter().copied());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writeln!(sink.lock().unwrap(), "{line}").unwrap();
            }
        });
        let mut board = Self {
            child,
            state_dir,
            management: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            http: None,
            coap: None,
            grpc: None,
            log,
            backend,
            flags: flags.iter().map(ToString::to_string).collect(),
            keep_state: false,
        };
        // Management opens last.
        board.management = board.wait_for("management to listen", |b| b.port_of("management"));
        board.http = board.port_of("http");
        board.coap = board.port_of("coap");
        board.grpc = board.port_of("grpc");
        board
    }

    /// Kills the server as a power cut would, and starts it again on the same state.
    pub fn power_cut(self) -> Self {
        self.power_cut_as(&[env!("CARGO_BIN_EXE_tinyfaas")])
    }

    /// The same with another program.
    pub fn power_cut_as(mut self, program: &[&str]) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.again_as(program)
    }

    /// Stops the server in order, and starts it again on the same state.
    pub fn restart(mut self) -> Self {
        assert!(self.stop(), "{}", self.log());
        self.again()
    }

    /// Stops the server in order, and starts another program on the same state.
    pub fn upgrade(mut self, program: &str) -> Self {
        assert!(self.stop(), "{}", self.log());
        self.again_as(&[program])
    }

    /// Stops the server in order, and starts it on the same state with `flags` besides.
    pub fn restart_with(mut self, flags: &[&str]) -> Self {
        assert!(self.stop(), "{}", self.log());
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.again()
    }

    fn again(self) -> Self {
        self.again_as(&[env!("CARGO_BIN_EXE_tinyfaas")])
    }

    /// Starts another program on the state of a server that ended.
    pub fn again_as(mut self, program: &[&str]) -> Self {
        self.keep_state = true;
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Self::start_as(program, self.backend, &flags, self.state_dir.clone())
    }

    /// Asks the server to stop; whether it ended with exit code 0.
    pub fn stop(&mut self) -> bool {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        self.ended()
    }

    /// Waits for the server's end; whether that was with exit code 0.
    pub fn ended(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `check` gives something; fails with the log when it never does.
    pub fn wait_for<T>(&mut self, what: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = check(self) {
                return value;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended ({status}) while the test waited for {what}:\n{}", self.log());
            }
            assert!(Instant::now() < end, "waited in vain for {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn port_of(&self, door: &str) -> Option<SocketAddr> {
        self.log().lines().find_map(|line| line.split_once(&format!("{door} listens on "))?.1.trim().parse().ok())
    }

    /// A value of `/proc/PID/status` in kB, such as `VmRSS` or `RssAnon`.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// One request to management.
    pub fn manage(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        request(self.management, method, target, "", body)
    }

    /// Uploads a function as the public scripts do: JSON with a base64 zip.
    pub fn upload(&self, name: &str, env: &str, threads: usize, zip: &[u8]) -> Answer {
        let zip = base64::engine::general_purpose::STANDARD.encode(zip);
        let json = format!(r#"{{"name":"{name}","env":"{env}","threads":{threads},"zip":"{zip}","envs":[]}}"#);
        self.manage("POST", "/upload", json.as_bytes())
    }

    /// Deploys files as a function; it has to work.
    pub fn deploy(&self, name: &str, env: &str, threads: usize, files: &[(&str, &str)]) {
        let answer = self.upload(name, env, threads, &zip_of(files));
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), self.log());
    }

    pub fn delete(&self, name: &str) -> Answer {
        self.manage("POST", "/delete", format!(r#"{{"name":"{name}"}}"#).as_bytes())
    }

    /// Calls a function over HTTP.
    pub fn call(&self, name: &str, body: &[u8]) -> Answer {
        request(self.http.expect("the HTTP front door is on"), "POST", &format!("/{name}"), "", body)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let stopped = self.stop();
            if !stopped && !std::thread::panicking() {
                panic!("the server did not stop with exit code 0:\n{}", self.log());
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
        if self.keep_state {
            return;
        }
        if self.backend == Backend::Docker
            && let Ok(id) = fs::read_to_string(self.state_dir.join("instance"))
        {
            let _ = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).args(["clean", "--instance", id.trim()]).output();
        }
        if let Some(parent) = self.state_dir.parent() {
            let _ = fs::remove_dir_all(parent);
        }
    }
}

/// One HTTP request on a connection of its own; `fields` are whole header lines.
pub fn request(addr: SocketAddr, method: &str, target: &str, fields: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: board:8080\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses the body answers without reading it.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    if let Err(e) = stream.read_to_end(&mut bytes) {
        assert!(!bytes.is_empty(), "no answer to {method} {target}: {e}");
    }
    parse(&bytes)
}

/// Reads an answer that ended with its connection.
pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status == 100 {
        return parse(&bytes[end..]);
    }
    let mut body = bytes[end..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answer { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 4 + size..];
    }
}

/// A zip archive of files, in memory.
pub fn zip_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = tinyfaas::wire::zip::Writer::new(Vec::new());
    for (name, content) in files {
        writer.file(name, 0o644, &mut content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// What Docker's own command prints; it has to work.
pub fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What the engine has that belongs to the instance of `state_dir`: containers, images and networks. Layers of an image
/// that is there are not told: they go with it.
pub fn left_on_engine(state_dir: &Path) -> Vec<String> {
    let id = fs::read_to_string(state_dir.join("instance")).unwrap();
    let label = format!("label=tinyFaaS={}", id.trim());
    let list = |args: &[&str]| docker(&[args, &["--filter", &label]].concat());
    let found = [
        list(&["ps", "-a", "--format", "container {{.Names}}"]),
        list(&["images", "--format", "image {{.Repository}}:{{.Tag}}"]),
        list(&["network", "ls", "--format", "network {{.Name}}"]),
    ];
    found.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

/// A zip archive of files with their unix modes, in memory.
pub fn unix_zip(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = tinyfaas::wire::zip::Writer::new(Vec::new());
    for (name, mode, mut content) in files.iter().copied() {
        writer.file(name, mode, &mut content).unwrap();
    }
    writer.finish().unwrap()
}

/// The JSON of an upload.
pub fn json_of(name: &str, env: &str, threads: usize, zip: &[u8], envs: &[&str]) -> Vec<u8> {
    let zip = base64::engine::general_purpose::STANDARD.encode(zip);
    serde_json::json!({"name": name, "env": env, "threads": threads, "zip": zip, "envs": envs}).to_string().into_bytes()
}

/// The JSON of an upload of files.
pub fn upload_json(name: &str, env: &str, threads: usize, files: &[(&str, &str)], envs: &[&str]) -> Vec<u8> {
    json_of(name, env, threads, &zip_of(files), envs)
}

/// What a state directory holds of functions: stored ones, spooled ones, folders of handlers and versions. The process
/// backend's own folder, and in it those of the runtimes' programs, belong to no function.
pub fn left_of(state_dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for folder in ["functions", "spool", "run", "run/process"] {
        for entry in fs::read_dir(state_dir.join(folder)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !["process", "python3", "nodejs", "binary"].contains(&name.as_str()) {
                left.push(format!("{folder}/{name}"));
            }
        }
    }
    left
}

/// Printable bytes that do not compress, so an archive is as large as the file.
pub fn noise(bytes: usize) -> String {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + (state >> 25) as u8 % 94)
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
