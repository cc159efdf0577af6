//! The handler of `binary` functions: each call runs `fn.sh` once, the body on its stdin, its stdout the answer.
//!
//! `tinyfaas handler` runs this inside a container or as a child process; no other part of the program is at work then.
//! `tinyfaas handler PROGRAM ARG...` runs that in place of `fn.sh`: an operator's runtime needs no handler of its own.
//! Blocking sockets and one thread a connection, with small stacks: an idle one takes a quarter of what an executor would.
//! [`connection`] reads requests, [`exchange`] moves the bytes of one call, [`child`] is the process that answers it.

mod child;
mod connection;
mod exchange;

use std::convert::Infallible;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use signal_hook::low_level::pipe;

use self::child::Children;
use self::connection::Socket;

/// TCP port where no socket is named, as the contract has it.
const PORT: u16 = 8000;
/// Connections that wait to be accepted: as many as the kernel allows.
const BACKLOG: i32 = 4096;
/// Connections at once. The runtime keeps one for each call under way and few idle ones; others wait in the backlog.
const MAX_CONNECTIONS: usize = 256;
/// Stack of a connection's thread in bytes; buffers are on the heap.
const STACK: usize = 128 * 1024;
/// Calls worked on at once where `TINYFAAS_CONCURRENCY` does not say.
const DEFAULT_CONCURRENCY: usize = 8;

/// What all connections share.
struct Shared {
    /// The program to run for a call, and its argument.
    program: child::Program,
    /// Processes under way.
    children: Children,
    /// Bounds the calls worked on at once.
    calls: Slots,
    /// Bounds the connections.
    connections: Slots,
}

/// Runs the handler until SIGTERM ends the process, at once and with status 0. Returns only when it could not start,
/// after one line on standard error.
///
/// Reads `TINYFAAS_SOCKET`, `TINYFAAS_FUNCTION_DIR` and `TINYFAAS_CONCURRENCY`; the arguments are the command to run.
pub fn run(args: &[String]) -> ExitCode {
    match start(args) {
        Ok(never) => match never {},
        Err(text) => {
            child::log(format!("tinyfaas handler: {text}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn start(args: &[String]) -> Result<Infallible, String> {
    let folder = std::env::var_os("TINYFAAS_FUNCTION_DIR").map_or_else(|| PathBuf::from("/fn"), PathBuf::from);
    // Each child inherits it: that is cheaper than to set it for every one.
    std::env::set_current_dir(&folder).map_err(|e| format!("cannot enter the function's folder {folder:?}: {e}"))?;
    let program = match args {
        [] => child::Program::find(Path::new("fn.sh"))?,
        command => child::Program::Command(command.into()),
    };
    let shared = Arc::new(Shared {
        program,
        children: Children::default(),
        calls: Slots::new(concurrency()?),
        connections: Slots::new(MAX_CONNECTIONS),
    });
    // Before anybody can connect: nobody sees a handler that does not end when told to.
    let signals = term_signals().map_err(|e| format!("cannot wait for signals: {e}"))?;
    end_with_the_runtime();
    let listener = Listener::open().map_err(|e| format!("cannot listen: {e}"))?;
    let accepting = Arc::clone(&shared);
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || accept_all(&listener, &accepting))
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    wait_for_end(signals, &shared.children)
}

/// Where the kernel is to kill us when the runtime dies (the jail asks for that), be told to end instead: killed, we
/// would leave the children behind.
fn end_with_the_runtime() {
    use rustix::process::{parent_process_death_signal, set_parent_process_death_signal};
    if let Ok(Some(_)) = parent_process_death_signal() {
        // Refused, it stays as it was.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
}

fn concurrency() -> Result<usize, String> {
    let Ok(text) = std::env::var("TINYFAAS_CONCURRENCY") else { return Ok(DEFAULT_CONCURRENCY) };
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("bad TINYFAAS_CONCURRENCY {text:?}: use a number above 0"))
}

/// What gets a byte when SIGTERM comes.
fn term_signals() -> io::Result<UnixStream> {
    let (told, tell) = UnixStream::pair()?;
    pipe::register(Signal::TERM.as_raw(), tell)?;
    Ok(told)
}

/// The children are in process groups of their own, so whoever ends us does not end them: we do.
fn wait_for_end(mut signals: UnixStream, children: &Children) -> ! {
    // Broken, it could tell of no end: then it is one.
    let _ = signals.read_exact(&mut [0]);
    children.kill_all();
    std::process::exit(0)
}

fn accept_all(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let slot = Slot::take(shared, |s| &s.connections);
        let started = listener.accept().and_then(|socket| {
            thread::Builder::new().stack_size(STACK).spawn(move || connection::serve(socket, &slot.shared)).map(drop)
        });
        if started.is_err() {
            // No file descriptor or thread left: others have to end first.
            thread::sleep(Duration::from_millis(50));
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn open() -> io::Result<Self> {
        let listener = match std::env::var_os("TINYFAAS_SOCKET") {
            Some(path) => {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                let listener = UnixListener::bind(&path)?;
                // Whoever may enter the folder may call: we can run as another user than the runtime.
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
                Self::Unix(listener)
            }
            // [::] takes both families where the kernel knows IPv6.
            None => Self::Tcp(TcpListener::bind(
                [SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))]
                    .as_slice(),
            )?),
        };
        let fd = match &listener {
            Self::Unix(l) => l.as_fd(),
            Self::Tcp(l) => l.as_fd(),
        };
        // std listens already, with a shorter backlog: the last call counts.
        rustix::net::listen(fd, BACKLOG)?;
        Ok(listener)
    }

    fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => listener.accept().map(|(s, _)| Socket::Unix(s)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
        }
    }
}

/// A counting semaphore.
struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }
}

/// One of the [`Slots`] of [`Shared`], given back when dropped.
struct Slot {
    shared: Arc<Shared>,
    of: fn(&Shared) -> &Slots,
}

impl Slot {
    /// Waits for a free one.
    fn take(shared: &Arc<Shared>, of: fn(&Shared) -> &Slots) -> Self {
        let slots = of(shared);
        let free = slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = slots.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self { shared: Arc::clone(shared), of }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = (self.of)(&self.shared);
        *slots.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        slots.freed.notify_one();
    }
}
