//! A running server seen from outside, and clients that stay: the handlers' processes, connections that are kept.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::board::{Answer, Backend, Board, PATIENCE};

/// Waits until `check` gives something; for what does not depend on a server that still runs.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes of a function's handlers: children of the server, or the first processes of containers.
pub fn handlers(board: &Board, name: &str) -> Vec<i32> {
    match board.backend() {
        Backend::Process => children(board.pid(), name),
        Backend::Docker => {
            let mut pids: Vec<i32> = containers(&board.state_dir, name)
                .iter()
                .filter_map(|id| docker(&["inspect", "--format", "{{.State.Pid}}", id]).trim().parse().ok())
                .filter(|pid| *pid > 0)
                .collect();
            pids.sort_unstable();
            pids
        }
    }
}

/// The ids of a function's containers that run, sorted.
pub fn containers(state_dir: &Path, name: &str) -> Vec<String> {
    let instance = fs::read_to_string(state_dir.join("instance")).unwrap();
    let ours = format!("label=tinyFaaS={}", instance.trim());
    let of_function = format!("label=tinyfaas-function={name}");
    let mut ids: Vec<String> =
        docker(&["ps", "-q", "--filter", &ours, "--filter", &of_function]).lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

fn docker(args: &[&str]) -> String {
    // A container that is gone meanwhile is an error of no interest here.
    let out = Command::new("docker").args(args).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// The children of `parent` that run the function `name`, sorted.
fn children(parent: u32, name: &str) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let folder = folder.file_name().and_then(|f| f.to_str()).unwrap_or_default();
            parent_of(*pid) == Some(parent.cast_signed()) && folder.split('-').next() == Some(name)
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// The parent of a process; `None` where it ended.
pub fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name in brackets: the state, then the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process is there and not only its exit status.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

/// Sends a signal by its name without SIG.
pub fn signal(pid: i32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), "--", &pid.to_string()]).status().unwrap().success());
}

/// A connection that is kept between requests.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::from(TcpStream::connect(addr).unwrap())
    }

    /// Calls a function; an error when the connection breaks off.
    pub fn call(&mut self, name: &str, body: &[u8]) -> io::Result<Answer> {
        let head = format!("POST /{name} HTTP/1.1\r\nHost: board\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        self.answer()
    }

    /// Asks for a call whose answer nobody waits for.
    pub fn begin(addr: SocketAddr, name: &str) -> Self {
        let mut client = Self::connect(addr);
        let head = format!("POST /{name} HTTP/1.1\r\nHost: board\r\nContent-Length: 0\r\n\r\n");
        client.stream.get_mut().write_all(head.as_bytes()).unwrap();
        client
    }

    fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(head)
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if let Some(length) = answer.header("content-length").map(|n| n.parse().unwrap()) {
            answer.body.resize(length, 0);
            self.stream.read_exact(&mut answer.body)?;
            return Ok(answer);
        }
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(answer);
            }
            answer.body.extend_from_slice(&chunk[..size]);
        }
    }
}

/// Sends `size` bytes to a function that sends them back, reading while it writes; how many came back.
pub fn pass_through(addr: SocketAddr, name: &str, size: usize) -> usize {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let head = format!("POST /{name} HTTP/1.1\r\nHost: board\r\nContent-Length: {size}\r\n\r\n");
    let sending = std::thread::spawn(move || {
        writer.write_all(head.as_bytes()).unwrap();
        let piece = [b'x'; 64 * 1024];
        let mut left = size;
        while left > 0 {
            let n = left.min(piece.len());
            writer.write_all(&piece[..n]).unwrap();
            left -= n;
        }
    });
    let mut client = Client { stream: BufReader::new(stream) };
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut total = 0;
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let mut line = String::new();
        client.stream.read_line(&mut line).unwrap();
        let mut left = usize::from_str_radix(line.trim_end(), 16).unwrap();
        if left == 0 {
            break;
        }
        total += left;
        left += 2;
        while left > 0 {
            let n = left.min(scratch.len());
            client.stream.read_exact(&mut scratch[..n]).unwrap();
            left -= n;
        }
    }
    sending.join().unwrap();
    total
}
