//! The `binary` handler under load and when things end: memory, the bound on calls, and that no process stays behind.
//!
//! What it shares with the other runtimes is in `runtimes.rs`.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use tinyfaas::function::Runtime;

use super::board::{Backend, Board};
use super::runtimes::{Client, Handler, PATIENCE};

fn start(script: &str, env: &[(&str, &str)]) -> Handler {
    let mut handler = Handler::spawn(Runtime::BINARY, &[("fn.sh", script)], env);
    handler.wait_for("the handler listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    handler
}

/// Private memory of a process in KiB.
fn private_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Whether no such process runs; one that nobody reaped does not.
fn is_gone(pid: &str) -> bool {
    !fs::read_to_string(Path::new("/proc").join(pid).join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// What a script wrote to its log after `name `.
fn logged(handler: &mut Handler, name: &str) -> String {
    let find = |log: &str| Some(log.split_once(&format!("{name} "))?.1.split_once('\n')?.0.to_owned());
    handler.wait_for(name, |h| find(&h.log()).is_some());
    find(&handler.log()).unwrap()
}

#[test]
fn a_hundred_mib_pass_through_in_constant_memory() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 1600;
    /// Most private memory in KiB that a call may add; its buffers are below 200.
    const GROWTH: u64 = 768;

    let handler = start("exec cat", &[]);
    let pid = handler.child.id();
    let mut client = handler.connect();
    client.call("", &[b'x'; PIECE]);
    let before = private_memory(pid);

    let piece: Vec<u8> = (0..PIECE).map(|n| (n % 251) as u8).collect();
    let mut sender = client.stream.again();
    let mut most = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(b"POST /fn HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            for _ in 0..PIECES {
                sender.write_all(format!("{PIECE:x}\r\n").as_bytes()).unwrap();
                sender.write_all(&piece).unwrap();
                sender.write_all(b"\r\n").unwrap();
            }
            sender.write_all(b"0\r\n\r\n").unwrap();
        });
        assert!(client.head().starts_with("http/1.1 200"));
        let (mut at, mut chunks) = (0, 0);
        loop {
            let size = usize::from_str_radix(&client.line(), 16).unwrap();
            let data = client.take(size);
            assert_eq!(client.take(2), b"\r\n");
            if size == 0 {
                break;
            }
            for (n, byte) in data.iter().enumerate() {
                assert_eq!(*byte, piece[(at + n) % PIECE], "byte {}", at + n);
            }
            at += size;
            chunks += 1;
            if chunks % 64 == 0 {
                most = most.max(private_memory(pid));
            }
        }
        assert_eq!(at, PIECE * PIECES);
    });
    assert!(most > 0 && most < before + GROWTH, "{most} KiB while it ran, {before} KiB before");
    assert_eq!(client.call("", b"next").body, b"next");
}

#[test]
fn as_many_scripts_run_at_once_as_may_and_no_more() {
    // The first ones go on only when four are there; each says how many it sees.
    let script = "mkdir run/$$\nwhile [ \"$(ls run | wc -l)\" -lt 4 ] && [ ! -e met ]; do sleep 0.01; done\n\
                  : > met\nls run | wc -l\nrmdir run/$$\n";
    let files = [("fn.sh", script), ("run/.keep", "")];
    let mut handler = Handler::spawn(Runtime::BINARY, &files, &[("TINYFAAS_CONCURRENCY", "4")]);
    handler.wait_for("the handler listens", |h| UnixStream::connect(h.folder.0.join("s")).is_ok());
    let handler = &handler;
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(move || {
                let mut client = handler.connect();
                for _ in 0..3 {
                    let reply = client.call("", b"");
                    let seen: u32 = reply.text().trim().parse().unwrap();
                    assert!(reply.status == 200 && seen <= 4, "{reply:?}");
                }
            });
        }
    });
}

#[test]
fn health_answers_while_every_slot_is_taken() {
    let mut handler = start("echo \"pid $$\" >&2; cat", &[("TINYFAAS_CONCURRENCY", "1")]);
    let mut busy = handler.connect();
    busy.send(b"POST /fn HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
    logged(&mut handler, "pid");
    let mut client = handler.connect();
    client.send(b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    busy.send(b"b");
    assert_eq!(busy.reply().text(), "ab");
}

#[test]
fn the_end_of_the_handler_is_the_end_of_all_its_processes() {
    let mut handler = start("sleep 1000 & echo \"left $!\" >&2; echo \"pid $$\" >&2; wait", &[]);
    let mut client = handler.connect();
    client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\n\r\n");
    let (left, pid) = (logged(&mut handler, "left"), logged(&mut handler, "pid"));
    assert!(!is_gone(&left) && !is_gone(&pid));
    assert!(handler.terminate().success());
    wait_until("the script is gone", || is_gone(&pid) && is_gone(&left));
}

#[test]
fn a_runtime_that_is_killed_leaves_no_script_running() {
    let board = Board::start(Backend::Process, &[]);
    // A length of sleep that no other process has: its command line is how it is found.
    let sleep = format!("1{:06}", std::process::id());
    board.deploy("sleeper", "binary", 1, &[("fn.sh", &format!("sleep {sleep} & wait\n"))]);
    let running = || {
        fs::read_dir("/proc").unwrap().any(|entry| {
            let line = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
            line == format!("sleep\0{sleep}\0").into_bytes()
        })
    };
    let mut caller = std::net::TcpStream::connect(board.http.unwrap()).unwrap();
    caller.write_all(b"POST /sleeper HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").unwrap();
    wait_until("the script runs", running);
    let _board = board.power_cut();
    wait_until("the script is gone", || !running());
}

#[test]
fn a_script_that_fails_without_reading_its_body_answers_and_the_connection_lives_on() {
    let handler = start("echo no >&2; exit 3", &[]);
    let mut client = handler.connect();
    for _ in 0..3 {
        let reply = client.call("", &vec![b'x'; 1024 * 1024]);
        assert_eq!((reply.status, reply.text().as_str()), (500, "no"));
    }
}

#[test]
fn a_body_that_breaks_takes_its_script_along() {
    fn broken_off(client: Client) {
        drop(client);
    }
    fn broken_chunk(mut client: Client) {
        client.send(b"zz\r\n");
        assert!(client.is_closed(), "nothing can follow broken chunks");
    }
    for end in [broken_off, broken_chunk] {
        let mut handler = start("echo \"pid $$\" >&2; cat; echo ended > ended", &[]);
        let mut client = handler.connect();
        client.send(b"POST /fn HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n");
        let pid = logged(&mut handler, "pid");
        end(client);
        wait_until("the script is gone", || is_gone(&pid));
        assert!(!handler.folder.0.join("fn/ended").exists(), "half a body must not look like a whole one");
    }
}

#[test]
fn headers_reach_no_variable_but_their_own() {
    let handler =
        start("echo \"$PATH|$HTTP_PATH|$HTTP_A_B|$SECRET\"", &[("SECRET", "kept"), ("PATH", "/usr/bin:/bin")]);
    let reply = handler.connect().call("Path: evil\r\nSecret: evil\r\nA-B: 1\r\n", b"");
    assert_eq!(reply.text(), "/usr/bin:/bin|evil|1|kept\n");
    let long = format!("Long: {}\r\n", "y".repeat(15 * 1024));
    assert_eq!(handler.connect().call(&long, b"").status, 200);
}
