//! One child process: started in a jail, watched until it ends, its output kept.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_executor::StaticExecutor;
use event_listener::Event;
use futures_lite::FutureExt;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::cgroup::Cgroup;
use super::jail::Jail;
use super::log::Tail;
use crate::backend::resident;
use crate::reactor::{Async, Timer};

/// How often a child is looked at on kernels before 5.3, which have no pidfd.
const LOOK: Duration = Duration::from_millis(200);
/// How long a child may take to end after SIGTERM before it is killed.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Our executable: what the path leads to does not matter, nor whether the child's user may follow it.
pub(super) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// What to start, and as whom.
pub(super) struct Plan {
    pub(super) command: Vec<OsString>,
    pub(super) dir: PathBuf,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) jail: Jail,
    /// User and group, where we may choose.
    pub(super) user: Option<u32>,
    /// Where it runs, with all that it starts.
    pub(super) cgroup: Option<Cgroup>,
}

/// A child process.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    cgroup: Option<Cgroup>,
    log: Tail,
    /// How it ended.
    exit: OnceLock<Exit>,
    ended: Event,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) success: bool,
    pub(super) text: String,
}

impl Child {
    /// Starts a child. To be called on the executor's thread: the kernel kills the child when the thread that started it
    /// ends, and that one lives as long as the runtime.
    pub(super) fn start(plan: Plan, executor: &'static StaticExecutor) -> io::Result<Arc<Self>> {
        let (output, input) = io::pipe()?;
        let mut command = Command::new(OWN_EXECUTABLE);
        command.args(plan.jail.args()).args(&plan.command).current_dir(&plan.dir).env_clear();
        command.envs(plan.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(input.try_clone()?).stderr(input).process_group(0);
        if let Some(user) = plan.user {
            // As root, this drops all supplementary groups as well.
            command.uid(user).gid(user);
        }
        let mut process = command.spawn()?;
        // The command holds the pipe's writing end: without this the log would never end.
        drop(command);
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        if let Some(Err(e)) = plan.cgroup.as_ref().map(|cgroup| cgroup.take(pid)) {
            let _ = process.kill();
            let _ = process.wait();
            return Err(e);
        }
        // It waits for this before it becomes the command: nothing of it runs outside of its cgroup.
        drop(process.stdin.take());
        let (log, exit, ended) = (Tail::default(), OnceLock::new(), Event::new());
        let child = Arc::new(Self { pid, cgroup: plan.cgroup, log, exit, ended });
        executor.spawn(Arc::clone(&child).watch(process, Async::new(output)?)).detach();
        Ok(child)
    }

    async fn watch(self: Arc<Self>, mut process: std::process::Child, output: Async<io::PipeReader>) {
        let read = async {
            // Something the child started may hold the pipe open after its end.
            self.read_log(&output).await;
            futures_lite::future::pending().await
        };
        let status = wait(&mut process, self.pid).or(read).await;
        // What it started ends with it.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        // What it wrote last is in the pipe already.
        let mut rest = [0; 4096];
        while let Ok(n @ 1..) = output.get_ref().read(&mut rest) {
            self.log.write(rest.get(..n).unwrap_or_default());
        }
        self.log.close();
        let out_of_memory = self.cgroup.as_ref().is_some_and(Cgroup::is_out_of_memory);
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove().await;
        }
        let _ = self.exit.set(describe(status, out_of_memory));
        self.ended.notify(usize::MAX);
    }

    async fn read_log(&self, output: &Async<io::PipeReader>) {
        let mut piece = vec![0; 1024];
        while let Ok(n @ 1..) = output.read_with(|mut pipe: &io::PipeReader| pipe.read(&mut piece)).await {
            self.log.write(piece.get(..n).unwrap_or_default());
        }
    }

    /// Completes when it has ended.
    pub(super) async fn ended(&self) -> Exit {
        loop {
            let ended = self.ended.listen();
            if let Some(exit) = self.exit.get() {
                return exit.clone();
            }
            ended.await;
        }
    }

    /// Asks it to end, then makes it.
    pub(super) async fn stop(&self) {
        for (signal, patience) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, TERM_GRACE)] {
            if self.exit.get().is_some() {
                return;
            }
            // Not reaped before `exit` is set, so the id is still the child's.
            let _ = rustix::process::kill_process_group(self.pid, signal);
            let ended = async {
                self.ended().await;
            };
            let late = async {
                Timer::after(patience).await;
            };
            ended.or(late).await;
        }
    }

    /// Bytes that it has resident, with what it started where it has a cgroup.
    pub(super) fn resident(&self) -> Option<u64> {
        let alone = || resident::of_process(&self.pid.as_raw_nonzero().to_string());
        self.cgroup.as_ref().and_then(|cgroup| resident::of_cgroup(cgroup.path())).or_else(alone)
    }

    pub(super) fn log(&self) -> &Tail {
        &self.log
    }
}

/// Waits for the end of the process and reaps it.
async fn wait(process: &mut std::process::Child, pid: Pid) -> io::Result<ExitStatus> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().and_then(|fd| Async::new(fd).ok());
    let mut ended = || process.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
    if let Some(pidfd) = pidfd {
        return pidfd.read_with(|_| ended()).await;
    }
    loop {
        match ended() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Timer::after(LOOK).await,
            status => return status,
        }
    }
}

fn describe(status: io::Result<ExitStatus>, out_of_memory: bool) -> Exit {
    match status {
        Ok(status) if out_of_memory && !status.success() => {
            Exit { success: false, text: "it was killed: out of memory".into() }
        }
        Ok(status) => Exit {
            success: status.success(),
            text: match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => status.to_string(),
            },
        },
        Err(e) => Exit { success: false, text: e.to_string() },
    }
}

/// Where `program` is: the system's folders first, since handlers run under users that may not enter a home folder.
pub(super) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    system.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join(program)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
