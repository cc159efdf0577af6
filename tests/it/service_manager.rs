//! What a service manager is told, and the sockets that it hands over.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::board::{Backend, Board, PATIENCE, TempDir};
use crate::tools::has;
use crate::watch::{eventually, signal};

const TINYFAAS: &str = env!("CARGO_BIN_EXE_tinyfaas");
/// Answers the environment and the open files of a handler.
const TELL: &[(&str, &str)] = &[("fn.sh", "env\nls -l /proc/self/fd /proc/$PPID/fd\n")];

/// Opens a socket for each name, hands them over as systemd does, and becomes the program that follows. Argument: NAME=KIND,...
const HAND_OVER: &str = r#"
import os, socket, sys
wanted = [pair.split("=") for pair in sys.argv[1].split(",")]
opened = []
for name, kind in wanted:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    s.bind(("0.0.0.0" if kind == "world" else "127.0.0.1", 0))
    if kind != "udp":
        s.listen(16)
    opened.append(os.dup2(s.fileno(), 100 + len(opened)))
for number, fd in enumerate(opened):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(opened)), LISTEN_FDNAMES=":".join(n for n, _ in wanted))
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// A service manager's end of the notifications.
struct Manager(UnixDatagram);

impl Manager {
    fn bind(addr: &UnixAddr) -> Self {
        let socket = UnixDatagram::bind_addr(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message but those of the watchdog.
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn any(&self) -> String {
        let mut buf = [0; 4096];
        let n = self.0.recv(&mut buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    }
}

#[test]
fn the_service_manager_is_told_of_the_start_a_reload_and_the_end() {
    let dir = TempDir::new();
    let file = dir.0.join("tinyfaas.json");
    fs::write(&file, "{}").unwrap();
    let path = dir.0.join("notify");
    let manager = Manager::bind(&UnixAddr::from_pathname(&path).unwrap());
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let flags = ["--config", file.to_str().unwrap()];
    let mut board = Board::start_as(&["env", &variable, TINYFAAS], Backend::Process, &flags, dir.0.join("state"));

    let ready = manager.next();
    assert!(ready.starts_with("READY=1\nSTATUS=http on port "), "{ready}");
    assert!(ready.contains(&format!("management on port {}", board.management.port())), "{ready}");
    assert!(manager.next().starts_with("STATUS=http on port "));

    board.deploy("tell", "binary", 1, TELL);
    let told = board.call("tell", b"").text();
    assert!(told.contains("PATH=") && !told.contains("NOTIFY_SOCKET"), "{told}");

    let now = fs::read_to_string("/proc/uptime").unwrap();
    let now: f64 = now.split(' ').next().unwrap().parse().unwrap();
    signal(board.pid().cast_signed(), "HUP");
    let reloading = manager.next();
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reloading}"));
    // Uptime counts sleep as well and has hundredths: it is near enough to tell the clock and the unit.
    let micros: f64 = micros.parse().unwrap();
    assert!(micros >= (now - 1.0) * 1e6 && micros < (now + PATIENCE.as_secs_f64()) * 1e6, "{micros} at {now}");
    assert_eq!(manager.next(), "READY=1");

    assert!(board.stop(), "{}", board.log());
    assert!(manager.next().starts_with("STOPPING=1\n"));
}

#[test]
fn the_watchdog_hears_of_a_server_that_runs_and_not_of_one_that_hangs() {
    let name = format!("tinyfaas-test-{}", std::process::id());
    let manager = Manager::bind(&UnixAddr::from_abstract_name(&name).unwrap());
    let dir = TempDir::new();
    let program = ["env", &format!("NOTIFY_SOCKET=@{name}"), "WATCHDOG_USEC=20000", TINYFAAS];
    let board = Board::start_as(&program, Backend::Process, &[], dir.0.join("state"));
    for _ in 0..3 {
        while manager.any() != "WATCHDOG=1" {}
    }
    let pid = board.pid().cast_signed();
    signal(pid, "STOP");
    eventually("the server to stand still", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T').then_some(())
    });
    // What it said before is read away; then there is nothing for many times the interval.
    manager.0.set_nonblocking(true).unwrap();
    while manager.0.recv(&mut [0; 64]).is_ok() {}
    manager.0.set_nonblocking(false).unwrap();
    manager.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(manager.0.recv(&mut [0; 64]).is_err(), "who stands still says nothing");
    signal(pid, "CONT");
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(manager.any(), "WATCHDOG=1");
}

#[test]
fn inherited_sockets_are_taken_over_by_their_names_and_are_the_servers_alone() {
    let dir = TempDir::new();
    let program = ["python3", "-c", HAND_OVER, "grpc=tcp,http=tcp,coap=udp,management=tcp", TINYFAAS];
    // Where a flag says otherwise, the socket that is there holds.
    let flags = ["--http", "127.0.0.1:1", "--grpc", "127.0.0.1:1", "--coap", "127.0.0.1:1"];
    let board = Board::start_as(&program, Backend::Process, &flags, dir.0.join("state"));
    for addr in [board.http, board.grpc, board.coap, Some(board.management)] {
        assert!(addr.unwrap().port() > 1, "{addr:?}");
    }
    board.deploy("tell", "binary", 1, TELL);
    let told = board.call("tell", b"").text();
    assert!(!told.contains("LISTEN_"), "{told}");
    // Connections of its own and the socket that calls come by are all that a handler has.
    let sockets = told.lines().filter(|line| line.contains("socket:[")).count();
    let plain = Board::start(Backend::Process, &[]);
    plain.deploy("tell", "binary", 1, TELL);
    let without = plain.call("tell", b"").text();
    assert_eq!(sockets, without.lines().filter(|line| line.contains("socket:[")).count(), "{told}\n{without}");
    let list = tinyfaas_list(board.management);
    assert_eq!(list, "tell\n");
    let url = format!("coap://{}/tell", board.coap.unwrap());
    let answer = Command::new(TINYFAAS).args(["invoke", &url]).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
}

fn tinyfaas_list(management: SocketAddr) -> String {
    let out = Command::new(TINYFAAS).args(["list", "--host", &management.to_string()]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn sockets_that_cannot_be_used_are_one_line_and_the_server_does_not_start() {
    for (sockets, flags, why) in [
        ("tinyfaas.socket=tcp", &[][..], "\"tinyfaas.socket\" is no door"),
        ("http=udp", &[], "http: the inherited socket"),
        ("coap=tcp", &[], "coap: the inherited socket"),
        ("http=tcp", &["--http", "off"], "--http is off"),
        ("management=world", &[], "could deploy what he likes"),
        ("coap=udp", &["--coap-multicast"], "--coap-multicast needs"),
    ] {
        let dir = TempDir::new();
        let out = Command::new("python3")
            .args(["-c", HAND_OVER, sockets, TINYFAAS, "serve", "--log", "off", "--backend", "process", "--state-dir"])
            .arg(dir.0.join("state"))
            .args(["--management", "127.0.0.1:0"])
            .args(["--grpc", "127.0.0.1:0"])
            .args(if sockets.starts_with("http") { &[][..] } else { &["--http", "127.0.0.1:0"] })
            .args(if sockets.starts_with("coap") { &[][..] } else { &["--coap", "127.0.0.1:0"] })
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), text.lines().count()), (Some(1), 1), "{sockets} {flags:?}: {text}");
        assert!(text.contains(why), "{sockets} {flags:?}: {text}");
    }
}

#[test]
fn systemd_itself_starts_it_for_the_first_connection() {
    let dir = TempDir::new();
    if !has("systemd-socket-activate", "systemd") {
        return;
    }
    // Free a moment ago; systemd-socket-activate does not tell which port it got.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let first = std::thread::spawn(move || {
        let mut stream = eventually("systemd to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        stream.write_all(b"GET /nobody HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let program = ["systemd-socket-activate", "-l", &address, "--fdname=http", TINYFAAS];
    let board = Board::start_as(&program, Backend::Process, &[], dir.0.join("state"));
    assert_eq!(board.http.unwrap().port(), port);
    assert!(first.join().unwrap().starts_with("HTTP/1.1 404 "));
}

/// Runs a server whose output goes to a journal of its own, in a mount namespace, stops it, and prints what that has of it. Arguments:
/// the program and its own ones.
const BY_THE_JOURNAL: &str = r#"
set -eu
mount -t tmpfs none /run
if ! [ -s /etc/machine-id ]; then
  echo 0123456789abcdef0123456789abcdef >/run/id
  mount --bind /run/id /etc/machine-id
fi
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald >/dev/null 2>&1 &
journald=$!
trap 'kill $journald' EXIT
until [ -S /run/systemd/journal/stdout ]; do sleep 0.05; done
# systemd names the socket that it made for a unit; systemd-cat makes the same one.
systemd-cat -t tinyfaas sh -c 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec "$@"' sh "$@" &
server=$!
said() { journalctl --no-pager -q -D /run/log/journal -t tinyfaas -o json --output-fields=PRIORITY,MESSAGE; }
until said | grep -q 'management listens'; do kill -0 $server; sleep 0.1; done
kill $server
wait $server
tries=0
until said | grep -q stopping; do [ $((tries += 1)) -lt 300 ]; sleep 0.1; done
said
"#;

#[test]
fn the_journal_itself_has_each_line_with_its_priority() {
    let may = Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|out| out.status.success());
    if !may || !has("systemd-cat", "systemd") {
        assert!(std::env::var_os("CI").is_none(), "a mount namespace needs root");
        eprintln!("\n*** SKIPPED: the journal: a mount namespace needs root ***\n");
        return;
    }
    let dir = TempDir::new();
    let state = dir.0.join("state");
    let flags = ["--management", "0.0.0.0:0", "--insecure-management", "--http", "127.0.0.1:0"];
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", BY_THE_JOURNAL, "sh", TINYFAAS, "serve", "--backend", "process", "--state-dir"])
        .arg(&state)
        .args(flags)
        .args(["--coap", "off", "--grpc", "off"])
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8_lossy(&out.stderr).into_owned());
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let priority_of = |text: &str| {
        let line = lines.iter().find(|line| line["MESSAGE"].as_str().is_some_and(|message| message.starts_with(text)));
        line.unwrap_or_else(|| panic!("no line {text:?}: {out}{error}"))["PRIORITY"].as_str().unwrap()
    };
    assert_eq!(priority_of("INFO http listens on"), "6");
    assert_eq!(priority_of("WARN management: whoever reaches port"), "4");
    assert_eq!(priority_of("INFO stopping: SIGTERM"), "6");
}
