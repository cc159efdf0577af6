//! The process that answers one call: which program, its environment, its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Access;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::connection::Invocation;
use crate::wire::http1::Framing;

/// How a function's program is started.
pub(super) enum Program {
    /// By the kernel: it is executable and says what runs it.
    Direct,
    /// As `sh fn.sh`.
    Shell,
    /// By this command line.
    Command(Box<[String]>),
}

impl Program {
    /// Looks at the function's program, once.
    ///
    /// # Errors
    /// One line, when there is none that can be read.
    pub(super) fn find(path: &Path) -> Result<Self, String> {
        let wrong =
            |e| format!("cannot read fn.sh: {e}; a binary function needs a shell script of that name at its top");
        let mut start = Vec::new();
        File::open(path).and_then(|f| f.take(256).read_to_end(&mut start)).map_err(wrong)?;
        let known = match start.strip_prefix(b"#!") {
            // A script for a shell that this machine lacks is tried with the one it has.
            Some(line) => line
                .split(|&b| b == b'\n')
                .next()
                .and_then(|line| line.trim_ascii().split(u8::is_ascii_whitespace).next())
                .and_then(|interpreter| std::str::from_utf8(interpreter).ok())
                .is_some_and(|interpreter| Path::new(interpreter).exists()),
            None => start.starts_with(b"\x7fELF"),
        };
        let direct = known && rustix::fs::access(path, Access::EXEC_OK).is_ok();
        Ok(if direct { Self::Direct } else { Self::Shell })
    }

    /// Starts the program for one call.
    ///
    /// # Errors
    /// As fork(2) and execve(2).
    pub(super) fn start(&self, invocation: &Invocation, children: &Children) -> io::Result<Running> {
        let mut command = match self {
            Self::Direct => Command::new("./fn.sh"),
            Self::Shell => {
                let mut command = Command::new("sh");
                command.arg("fn.sh");
                command
            }
            Self::Command(words) => {
                let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
                let mut command = Command::new(program);
                command.args(args);
                command
            }
        };
        describe(&mut command, invocation);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // Held while it starts: whoever kills them all sees this one or comes before it.
        let mut pids = children.lock();
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pids.extend(pid);
        drop(pids);
        // Linux before 5.3 has none: then the end of its output has to do.
        let exit = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let running = Running { children: children.clone(), child, pid, exit, stdin, stdout, stderr };
        if let Some(pipe) = &running.stdin {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        if let Some(pipe) = &running.stdout {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        if let Some(pipe) = &running.stderr {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(running)
    }
}

/// Tells the program about its call as CGI does (RFC 3875 §4.1), as far as a function can use it.
fn describe(command: &mut Command, invocation: &Invocation) {
    let headers = &invocation.headers;
    let ours = |name| headers.get_str(name).unwrap_or_default();
    command.env_remove("TINYFAAS_SOCKET");
    // The names bound the total: all fields together are at most `Headers::MAX_BYTES`.
    for (name, value) in headers.iter() {
        let Ok(value) = std::str::from_utf8(value) else { continue };
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        // HTTP_PROXY means something else to many programs: a caller must not set it.
        if name != "PROXY" && !name.starts_with("X_TINYFAAS_") {
            command.env(format!("HTTP_{name}"), value);
        }
    }
    command.env("REQUEST_METHOD", &invocation.method);
    command.env("PATH_INFO", ours("x-tinyfaas-path"));
    command.env("QUERY_STRING", ours("x-tinyfaas-query"));
    command.env("CONTENT_TYPE", ours("content-type"));
    match invocation.framing {
        Framing::Length(n) if n > 0 => command.env("CONTENT_LENGTH", n.to_string()),
        _ => command.env_remove("CONTENT_LENGTH"),
    };
}

/// The processes under way, each the leader of its group. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Children {
    pids: Arc<Mutex<Vec<Pid>>>,
}

impl Children {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pid>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills them and whatever they started; none can be started after.
    pub(super) fn kill_all(&self) {
        let pids = self.lock();
        for pid in pids.iter() {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
        }
        std::mem::forget(pids);
    }
}

/// A started program; dropping it kills its process group and waits for its end.
pub(super) struct Running {
    children: Children,
    child: Child,
    pid: Option<Pid>,
    /// Readable once the process has ended.
    pub(super) exit: Option<OwnedFd>,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Running {
    /// Ends what the program left running, and says how it ended itself; waits for it where it has not.
    ///
    /// # Errors
    /// As wait(2).
    pub(super) fn finish(&mut self) -> io::Result<ExitStatus> {
        if self.exit.is_some() {
            // It has ended and was not waited for: its process group's number cannot belong to others.
            self.kill_group();
        }
        let status = self.child.wait();
        self.pid = None;
        let pid = self.child.id();
        self.children.lock().retain(|p| u32::try_from(p.as_raw_nonzero().get()) != Ok(pid));
        status
    }

    fn kill_group(&self) {
        if let Some(pid) = self.pid {
            // It may be gone already.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.pid.is_some() {
            self.kill_group();
            // Killed: nobody asks how.
            let _ = self.finish();
        }
    }
}

/// How a program failed, for people.
pub(super) fn failure(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("fn.sh ended with exit status {code}"),
        (None, Some(signal)) => format!("fn.sh was ended by signal {signal}"),
        (None, None) => "fn.sh failed".to_owned(),
    }
}

/// Passes on what a program wrote to its standard error: that is the function's log.
pub(super) fn log(bytes: &[u8]) {
    // When our own is closed nobody reads the log.
    let _ = io::stderr().write_all(bytes);
}
