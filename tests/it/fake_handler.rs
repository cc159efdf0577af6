//! A handler without an engine: threads that speak HTTP/1.1 on a unix socket, and a dispatcher that knows it.
//!
//! What it answers goes by the path behind the function's name; see [`respond`].

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tinyfaas::buffers::Buffers;
use tinyfaas::dispatch::{Dispatch, Function, Handler};
use tinyfaas::function::{Limits, Name};
use tinyfaas::net::Address;

/// A dispatcher with functions that one fake handler serves.
pub struct Fake {
    pub dispatch: Arc<Dispatch>,
    /// Calls that reached the handler.
    pub calls: Arc<AtomicUsize>,
    /// Where the handler listens.
    pub socket: PathBuf,
}

impl Fake {
    /// Functions of these names; each takes `concurrency` calls at once.
    pub fn new(names: &[&str], concurrency: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tinyfaas-fake-{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || serve(stream, &counter));
            }
        });
        let dispatch = Self::client_of(path.to_str().unwrap(), names, concurrency);
        Self { dispatch, calls, socket: path }
    }

    /// A dispatcher whose functions are served by a handler that listens already.
    pub fn client_of(socket: &str, names: &[&str], concurrency: usize) -> Arc<Dispatch> {
        let dispatch = Arc::new(Dispatch::new(Buffers::default()));
        for name in names {
            let limits = Limits {
                memory: 0,
                cpu_millis: 0,
                pids: 0,
                timeout: Duration::from_secs(20),
                concurrency,
                queue: 1024,
            };
            let function = Function::new(Name::parse(name).unwrap(), limits);
            function.add(Arc::new(Handler::new("fake".into(), Address::Unix(socket.into()))));
            dispatch.install(Arc::new(function));
        }
        dispatch
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A request as the handler saw it.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn serve(stream: UnixStream, calls: &AtomicUsize) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        let count = calls.fetch_add(1, Ordering::SeqCst) + 1;
        let (status, fields, body) = respond(&request, count);
        let mut answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}\r\n", body.len()).into_bytes();
        answer.extend_from_slice(&body);
        if stream.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}

fn read(stream: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    let mut request = Request { head, body: Vec::new() };
    let length = request.field("content-length").map_or(0, |n| n.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// Status, header lines and body, by the path behind the function's name.
fn respond(request: &Request, count: usize) -> (u16, String, Vec<u8>) {
    let path = request.field("x-tinyfaas-path").unwrap_or_default();
    let (word, argument) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    match word {
        // The body again.
        "" => (200, String::new(), request.body.clone()),
        // So many bytes.
        "long" => (200, String::new(), long(argument.parse().unwrap())),
        // After so many milliseconds.
        "slow" => {
            std::thread::sleep(Duration::from_millis(argument.parse().unwrap()));
            (200, String::new(), b"slow".to_vec())
        }
        "count" => (200, String::new(), count.to_string().into_bytes()),
        "length" => (200, String::new(), request.body.len().to_string().into_bytes()),
        "head" => (200, String::new(), request.head.clone().into_bytes()),
        "fail" => (500, String::new(), b"ValueError: it failed".to_vec()),
        "changed" => {
            (200, "coap-code: 2.04\r\ncontent-type: application/cbor\r\netag: \"v1\"\r\n".into(), b"\xa0".to_vec())
        }
        _ => (404, String::new(), b"what?".to_vec()),
    }
}

/// The bytes of `/long/N`.
pub fn long(n: usize) -> Vec<u8> {
    (0..n).map(|i| b'a' + (i / 7 % 26) as u8).collect()
}
