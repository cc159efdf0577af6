//! Handlers that are processes.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use super::*;
use crate::board::TempDir;
use crate::watch::handlers;

/// A user that no system has.
const USER: u32 = 61_234;

/// In a process of one thread, as the kernel wants it.
const USER_NAMESPACE: &str = "
child = os.fork()
if child == 0:
  try:
    call('unshare', 0x10000000)
    os._exit(0)
  except OSError as e:
    os._exit(e.errno)
e = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if e:
  raise OSError(e, os.strerror(e))
";

/// As whom the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// The one who runs the tests: root, whose functions have users of their own, in CI.
    Tester,
    /// A user without rights, whose functions run as that user too.
    User,
}

fn start(who: As, dir: &TempDir, flags: &[&str]) -> Board {
    let state_dir = dir.0.join("own/state");
    fs::create_dir(dir.0.join("own")).unwrap();
    if who == As::Tester {
        return Board::start_in(Backend::Process, flags, state_dir);
    }
    std::os::unix::fs::chown(dir.0.join("own"), Some(USER), Some(USER)).unwrap();
    // Where the checkout is that user may not go.
    let program = dir.0.join("tinyfaas");
    fs::copy(env!("CARGO_BIN_EXE_tinyfaas"), &program).unwrap();
    let id = USER.to_string();
    let program = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", program.to_str().unwrap()];
    Board::start_as(&program, Backend::Process, flags, state_dir)
}

/// What was said to each attempt, by its name.
fn attempts(who: As, flags: &[&str]) -> Vec<(&'static str, String)> {
    let dir = TempDir::new();
    let board = start(who, &dir, flags);
    board.deploy("a", "python3", 1, ATTEMPT);
    board.deploy("b", "python3", 1, ATTEMPT);
    // Readable for everybody, but nothing that a function should know of.
    let secret = dir.0.join("secret");
    fs::write(&secret, "s").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let name = format!("tinyfaas-test-{}", board.pid());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let (state, other) = (board.state_dir.display(), handlers(&board, "b")[0]);
    let stored = named(&board.state_dir, "b.").into_iter().next().unwrap();
    let files = named(&board.state_dir, "b-").into_iter().next().unwrap();
    let scratch = environment(other, "TMPDIR");
    let temporary = std::env::temp_dir().join(&name);
    let read = |path: &str| format!("open('{path}', 'rb').read(1)");
    let attempts = [
        ("a secret that everybody may read", read(secret.to_str().unwrap())),
        ("the state directory", format!("os.listdir('{state}')")),
        ("what is stored of another function", read(stored.to_str().unwrap())),
        ("the files of another function", read(files.join("fn.py").to_str().unwrap())),
        ("what another function writes", format!("os.listdir('{scratch}')")),
        ("the home folders", "os.listdir('/home')".into()),
        ("a file for all to see", format!("open('{0}', 'w'); os.remove('{0}')", temporary.display())),
        ("a file beside its code", "open('new', 'w')".into()),
        ("to signal another function", format!("os.kill({other}, 0)")),
        ("to signal the server", format!("os.kill({}, 0)", board.pid())),
        ("to make a user namespace", USER_NAMESPACE.into()),
        ("a TCP port", "socket.socket().bind(('127.0.0.1', 0))".into()),
        ("an abstract socket", format!("socket.socket(socket.AF_UNIX).connect('\\0{name}')")),
        ("the management API", format!("urlopen('http://{}/list', timeout=30)", board.management)),
    ];
    let as_root = [
        ("the passwords", read("/etc/shadow")),
        ("to mount", mount("mount', b'none', b'/nonexistent', b'tmpfs', 0, None")),
        ("to unmount", mount("umount2', b'/nonexistent', 0")),
        (
            "to trace another function",
            format!("call('ptrace', 16, {other}, 0, 0); os.waitpid({other}, 0); call('ptrace', 17, {other}, 0, 0)"),
        ),
        ("to become root", "os.setuid(0)".into()),
        ("the groups of root", "os.setgroups([0])".into()),
        ("raw packets", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)".into()),
        ("all packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)".into()),
        (
            "the socket of another function",
            format!("socket.socket(socket.AF_UNIX).connect('{}')", environment(other, "TINYFAAS_SOCKET")),
        ),
        ("another root", "os.chroot('/')".into()),
    ];
    let as_root = if who == As::Tester { &as_root[..] } else { &[] };
    let said = |(what, code): &(&'static str, String)| (*what, attempt(&board, "a", code));
    attempts.iter().chain(as_root).map(said).collect()
}

/// An attempt that fails with ENOENT where it is not refused, so that nothing is changed.
fn mount(call: &str) -> String {
    format!("try:\n  call('{call})\nexcept FileNotFoundError:\n  pass")
}

/// A variable of a process.
fn environment(pid: i32, name: &str) -> String {
    let all = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let all = String::from_utf8(all).unwrap();
    all.split('\0').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap().to_owned()
}

fn landlock_is_whole(board: &Board) -> bool {
    let log = board.log();
    let open = log.lines().find(|line| line.contains("this kernel's Landlock cannot"));
    if let Some(line) = open {
        assert!(std::env::var_os("CI").is_none(), "CI has to have a kernel with Landlock: {line}");
        eprintln!("\n*** SKIPPED: {line} ***\n");
    }
    open.is_none()
}

fn contain(who: As) {
    if !landlock_is_whole(&Board::start(Backend::Process, &[])) {
        return;
    }
    for (what, said) in attempts(who, &[]) {
        assert!(is_refused(&said), "{who:?}: {what}: {said}");
    }
    for (what, said) in attempts(who, &["--no-hardening"]) {
        assert_eq!(said, "done", "{who:?}, without hardening: {what}");
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI has to run as root: users cannot be changed otherwise");
        eprintln!("\n*** SKIPPED: only root can run functions as users of their own ***\n");
    }
    root
}

#[test]
fn functions_of_root_reach_nothing_but_what_is_theirs() {
    if is_root() {
        contain(As::Tester);
    }
}

#[test]
fn functions_of_a_server_without_rights_reach_nothing_but_what_is_theirs() {
    if is_root() {
        contain(As::User);
    }
}

#[test]
fn a_handler_has_no_rights_and_no_way_to_more() {
    let board = Board::start(Backend::Process, &["--handler-uid", "700000"]);
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        board.deploy(name, "python3", 1, ATTEMPT);
        let status = fs::read_to_string(format!("/proc/{}/status", handlers(&board, name)[0])).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()), "{status}");
        assert_eq!((field("CapEff"), field("CapPrm")), ("0".repeat(16), "0".repeat(16)), "{status}");
        if is_root() {
            let own = vec![(700_000 + n).to_string(); 4].join(" ");
            assert_eq!((field("Uid"), field("Gid"), field("Groups")), (own.clone(), own, String::new()), "{status}");
        }
    }
    // The jail became the handler: nothing is left of it.
    let jails = Command::new("ps").args(["-o", "args=", "--ppid", &board.pid().to_string()]).output().unwrap();
    assert!(!String::from_utf8(jails.stdout).unwrap().contains(" jail "));
}

#[test]
fn what_a_function_needs_it_has() {
    let dir = TempDir::new();
    for name in ["given", "shown"] {
        fs::write(dir.0.join(name), "").unwrap();
        fs::set_permissions(dir.0.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let (given, shown) = (dir.0.join("given").display().to_string(), dir.0.join("shown").display().to_string());
    let board = Board::start(Backend::Process, &["--expose", &given, "--expose", &format!("{shown}:ro")]);
    board.deploy("a", "python3", 1, ATTEMPT);
    for (what, code) in [
        ("files of its own", "import tempfile; f = tempfile.NamedTemporaryFile(); f.write(b'x'); f.flush()".to_owned()),
        ("programs of its own", "p = os.environ['HOME'] + '/p'; open(p, 'w').write('#!/bin/sh\\n:'); os.chmod(p, 0o755); assert os.system(p) == 0".into()),
        ("to rename", "d = os.environ['TMPDIR']; os.mkdir(d + '/d'); open(d + '/f', 'w'); os.rename(d + '/f', d + '/d/f')".into()),
        ("processes", "import subprocess; assert subprocess.run(['sh', '-c', 'cat /proc/self/status | head -1 >/dev/null'], check=True)".into()),
        ("to end them", "import subprocess; p = subprocess.Popen(['sleep', '1000']); p.kill(); p.wait()".into()),
        ("threads", "import threading; t = threading.Thread(target=print); t.start(); t.join()".into()),
        ("pipes by name", "import subprocess; subprocess.run(['bash', '-c', 'cat <(echo x)'], check=True)".into()),
        ("names", "socket.getaddrinfo('localhost', 80); __import__('pwd').getpwuid(0)".into()),
        ("certificates", "__import__('ssl').create_default_context()".into()),
        ("the network", format!("urlopen('http://{}/a', data=b'1', timeout=30)", board.http.unwrap())),
        ("its addresses", "socket.if_nameindex()".into()),
        ("what is exposed", format!("open('{given}', 'a'); open('{shown}')")),
    ] {
        assert_eq!(attempt(&board, "a", &code), "done", "{what}");
    }
    if landlock_is_whole(&board) {
        let said = attempt(&board, "a", &format!("open('{shown}', 'a')"));
        assert!(is_refused(&said), "{said}");
    }
    let scratch = environment(handlers(&board, "a")[0], "TMPDIR");
    assert!(Path::new(&scratch).exists());
    assert_eq!(board.delete("a").status, 200);
    assert!(!Path::new(&scratch).exists(), "what it wrote is left over");
    drop(board);
    assert!(!Path::new(&scratch).parent().unwrap().exists());
}
