//! Handlers that are containers.

use std::net::TcpListener;

use super::*;
use crate::board::docker_is_ready;

/// The address of the host on the bridge, and the own one.
const ADDRESSES: &str = "
import struct
route = [l.split() for l in open('/proc/net/route')][1:]
host = socket.inet_ntoa(struct.pack('<I', int([r[2] for r in route if r[1] == '00000000'][0], 16)))
own = socket.gethostbyname(socket.gethostname())
";

/// A line of `/proc/self/status`, which has to be this.
fn status(field: &str, value: &str) -> String {
    format!(
        "line = [l for l in open('/proc/self/status') if l.startswith('{field}:')][0]\nif line.split()[1:] != '{value}'.split(): raise PermissionError(1, line)"
    )
}

fn with_addresses(code: &str) -> String {
    format!("{ADDRESSES}{code}")
}

/// Whether what was tried is impossible in a container: nothing listens or is there, the root is read-only, or no answer comes.
fn is_impossible(said: &str) -> bool {
    let why = ["[Errno 2]", "[Errno 30]", "[Errno 110]", "[Errno 111]", "[Errno 113]", "TimeoutError"];
    is_refused(said) || said.starts_with("refused: ") && why.iter().any(|why| said.contains(why))
}

#[test]
fn containers_reach_nothing_but_what_is_theirs() {
    if !docker_is_ready() {
        return;
    }
    // As a service of the host that is there for everybody.
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let open = open.local_addr().unwrap().port();
    let board = Board::start(Backend::Docker, &["--read-only", "--tmp", "1Mi"]);
    board.deploy("a", "python3", 1, ATTEMPT);
    board.deploy("b", "python3", 1, ATTEMPT);
    // A handler of b that is reached by TCP, as images of others are.
    let listen = "import threading\nglobal s\ns = socket.create_server(('0.0.0.0', 8000))\nthreading.Thread(target=lambda: [s.accept() for _ in iter(int, 1)], daemon=True).start()";
    assert_eq!(attempt(&board, "b", listen), "done");
    let at = attempt(&board, "b", &with_addresses("raise Exception(own)"));
    let other = at.strip_prefix("refused: Exception: ").unwrap();
    let management = board.management.port();
    for (what, code) in [
        ("no capabilities", status("CapEff", "0000000000000000")),
        ("none to be had", status("CapBnd", "0000000000000000")),
        ("no new privileges", status("NoNewPrivs", "1")),
        ("the engine's filter of system calls", status("Seccomp", "2")),
        ("a user without rights", status("Uid", "65534 65534 65534 65534")),
        ("files for a time", "open('/tmp/new', 'w').write('#!/bin/sh\\n:'); os.chmod('/tmp/new', 0o755); assert os.system('/tmp/new') == 0".into()),
        ("a service of the host", with_addresses(&format!("socket.create_connection((host, {open}), 10)"))),
        ("itself by TCP", "t = socket.create_server(('0.0.0.0', 8001)); socket.create_connection((socket.gethostbyname(socket.gethostname()), 8001), 10)".into()),
    ] {
        assert_eq!(attempt(&board, "a", &code), "done", "{what}");
    }
    // The host itself reaches it.
    std::net::TcpStream::connect((other, 8000)).unwrap();
    let (state, instance) = (board.state_dir.display(), "/var/run/docker.sock");
    for (what, code) in [
        ("another function's handler", format!("socket.create_connection(('{other}', 8000), 3)")),
        ("the management API", with_addresses(&format!("socket.create_connection((host, {management}), 3)"))),
        ("the state directory", format!("os.listdir('{state}')")),
        ("the engine", format!("socket.socket(socket.AF_UNIX).connect('{instance}')")),
        ("the passwords", "open('/etc/shadow')".into()),
        ("a file beside its code", "open('/fn/new', 'w')".into()),
        ("its code", "open('/fn/fn.py', 'a')".into()),
        ("the image", "open('/tinyfaas/new', 'w')".into()),
        ("another folder that all may write", "open('/var/tmp/new', 'w')".into()),
        ("to mount", "call('mount', b'none', b'/tmp', b'tmpfs', 0, None)".into()),
        ("to unmount", "call('umount2', b'/fn', 0)".into()),
        ("to become root", "os.setuid(0)".into()),
        ("raw packets", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)".into()),
        ("all packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)".into()),
        ("a namespace", "call('unshare', 0x20000)".into()),
    ] {
        let said = attempt(&board, "a", &code);
        assert!(is_impossible(&said), "{what}: {said}");
    }
    // ENOSPC: memory is bounded.
    let said = attempt(&board, "a", "open('/tmp/large', 'wb').write(b'x' * (2 << 20))");
    assert!(said.contains("[Errno 28]"), "{said}");
}

#[test]
fn without_hardening_containers_may_what_the_engine_lets_them() {
    if !docker_is_ready() {
        return;
    }
    let board = Board::start(Backend::Docker, &["--no-hardening", "--read-only"]);
    board.deploy("a", "python3", 1, ATTEMPT);
    let bounding = "if not [l for l in open('/proc/self/status') if l.startswith('CapBnd:')][0].split()[1].strip('0'): raise PermissionError(1, 'none')";
    // The image's own user remains.
    for code in ["open('/fn/new', 'w')", "open('/var/tmp/new', 'w')", bounding, &status("NoNewPrivs", "0")] {
        assert_eq!(attempt(&board, "a", code), "done", "{code}");
    }
}
