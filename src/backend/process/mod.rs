//! Handlers as child processes, for machines without an engine.
//!
//! Each handler runs the same program as in a container, with the host's interpreter: in its own process group, with a
//! cleared environment, limits and no way to new privileges, under a user of its own where we are root, in a cgroup of its
//! own where we may make one, with the files, ports and system calls that `files` and `calls` leave it, and it ends when we
//! do. It shares the machine's network and kernel. docs/security.md says what that contains and what not.

mod callers;
mod calls;
mod cgroup;
mod child;
mod files;
mod install;
pub mod jail;
mod log;
mod program;
mod scratch;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_executor::StaticExecutor;

use self::cgroup::Cgroups;
use self::child::{Child, OWN_EXECUTABLE, Plan, find_program};
pub use self::files::Paths;
use self::jail::Jail;
use self::program::{dependencies, host, write_program};
use self::scratch::Scratch;
use super::front_door::{self, FrontDoor};
use super::{Backend, BackendError, BackendErrorKind, Boxed, Found, Lines, LogLine, Progress, Started};
use crate::function::{Deployment, Name, Runtime};
use crate::net::Address;
use crate::runtimes::{self, Host};
use crate::store::archive_len;
use crate::unpack::Unpack;
use crate::wire::zip::{self, Archive};
use crate::worker::Workers;

/// Longest path of a unix socket (`sun_path` of unix(7), with its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// What handlers find programs with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How handlers are run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for what lives as long as a handler: function files, programs, sockets.
    pub run_dir: PathBuf,
    /// What tells our cgroups from those of other instances.
    pub instance: String,
    /// Whether handlers are limited and have users of their own.
    pub hardened: bool,
    /// First user id given to a function where we are root. Each function has one, so functions cannot signal or trace each
    /// other.
    pub first_user: u32,
    /// Whether handlers have a network, unless their deployment wants none.
    pub network: bool,
    /// What every handler may use besides what it needs.
    pub exposed: Paths,
    /// How long the installation of a function's dependencies may take.
    pub install_timeout: Duration,
    /// What handlers are told of the HTTP front door.
    pub front_door: FrontDoor,
}

/// Runs handlers as child processes.
pub struct Process {
    config: Config,
    executor: &'static StaticExecutor,
    workers: Workers,
    is_root: bool,
    scratch: Scratch,
    /// Where handlers have cgroups of their own.
    cgroups: Option<Cgroups>,
    children: Mutex<HashMap<String, Running>>,
    /// Which function has which place in the range of users.
    users: Mutex<HashMap<Name, u32>>,
}

struct Running {
    child: Arc<Child>,
    /// Of its socket, and of what it writes.
    dirs: [PathBuf; 2],
}

impl Process {
    /// A backend that keeps its files in a folder of `config.run_dir`. What earlier runs left there goes: their handlers
    /// ended with them.
    ///
    /// # Errors
    /// One line: the folder cannot be made, or is too deep for socket paths.
    pub fn new(mut config: Config, executor: &'static StaticExecutor, workers: Workers) -> Result<Self, String> {
        config.run_dir.push("process");
        let dir = &config.run_dir;
        if dir.join("00000000/s").as_os_str().len() > MAX_SOCKET_PATH {
            return Err(format!("{} is too long for the paths of sockets: name a shorter --state-dir", dir.display()));
        }
        let failed = |e: io::Error| format!("cannot make {}: {e}", dir.display());
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        DirBuilder::new().mode(0o711).create(dir).map_err(failed)?;
        for spec in runtimes::all().filter(|spec| spec.host.is_some()) {
            write_program(&dir.join(spec.runtime.name()), spec).map_err(failed)?;
        }
        let is_root = rustix::process::geteuid().is_root();
        let scratch = Scratch::open(&config.instance, dir)?;
        let cgroups = if config.hardened { Cgroups::open(&config.instance) } else { None };
        if config.hardened {
            tell_what_is_open(dir, is_root);
        }
        let (children, users) = (Mutex::default(), Mutex::default());
        Ok(Self { config, executor, workers, is_root, scratch, cgroups, children, users })
    }

    async fn prepare_files(&self, deployment: &Deployment, progress: &Progress) -> Result<(), BackendError> {
        self.program(host(deployment)?, deployment.runtime)?;
        let dir = self.function_dir(deployment);
        if dir.exists() {
            return Ok(());
        }
        // Under another name until it is complete: what is there under the right name is whole.
        let new = dir.with_extension("new");
        let made = self.unpack(deployment, &new).await;
        let installed = match made {
            Ok(true) => self.install(deployment, &new, progress).await,
            Ok(false) => Ok(()),
            Err(e) => Err(e),
        };
        let done = installed.and_then(|()| {
            self.own(&new, deployment, false)?;
            fs::rename(&new, &dir).map_err(|e| engine(format!("cannot rename {}: {e}", new.display())))
        });
        if done.is_err() {
            self.remove(new).await;
        }
        done
    }

    /// Unpacks the function's files; says whether something has to be installed.
    async fn unpack(&self, deployment: &Deployment, dir: &Path) -> Result<bool, BackendError> {
        let (deployment, dir) = (deployment.clone(), dir.to_owned());
        let work = move || {
            let _ = fs::remove_dir_all(&dir);
            let mut file = File::open(&deployment.package)?;
            let len = archive_len(&mut file)?;
            let mut archive = Archive::open(file, len, &zip::Bounds::default())?;
            let mut sink = Unpack::new(&dir)?;
            archive.visit(&deployment.subfolder, &mut sink)?;
            let Some(dependencies) = dependencies(&deployment) else { return Ok(false) };
            dependencies.are_asked_for_in(&mut archive, &deployment.subfolder)
        };
        let unpacked: Result<bool, zip::Error> = self.workers.unblock(work).await.map_err(|e| engine(e.to_string()))?;
        unpacked.map_err(|e| match e {
            zip::Error::Io(e) => engine(format!("cannot unpack the function: {e}")),
            zip::Error::Refused(text) | zip::Error::TooLarge(text) => {
                BackendError { kind: BackendErrorKind::Function, text }
            }
        })
    }

    fn start_handler(&self, deployment: &Deployment) -> Result<Started, BackendError> {
        let host = host(deployment)?;
        let interpreter = self.program(host, deployment.runtime)?;
        let id = format!("{:08x}", fastrand::u32(..));
        let dir = self.config.run_dir.join(&id);
        let user = self.user(&deployment.name);
        let failed = |what: &str, e: io::Error| engine(format!("cannot {what} a handler of {}: {e}", deployment.name));
        DirBuilder::new().mode(0o700).create(&dir).map_err(|e| failed("make a folder for", e))?;
        if let Some(user) = user {
            chown(&dir, Some(user), Some(user)).map_err(|e| failed("make a folder for", e))?;
        }
        let scratch = self.scratch.make(&id, user).map_err(|e| {
            let _ = fs::remove_dir_all(&dir);
            failed("make a folder for", e)
        })?;
        let socket = dir.join("s");
        let function_dir = self.function_dir(deployment);
        let program = self.config.run_dir.join(deployment.runtime.name());
        let fill = |arg: &&str| -> OsString {
            arg.replace("{program}", &interpreter.to_string_lossy())
                .replace("{folder}", &program.to_string_lossy())
                .replace("{self}", OWN_EXECUTABLE)
                .into()
        };
        let mut env = base_env(&scratch);
        env.extend(host.env.iter().map(|(key, value)| (key.into(), value.into())));
        for pair in &deployment.envs {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            env.push((key.into(), value.into()));
        }
        env.push(("TINYFAAS_SOCKET".into(), socket.clone().into()));
        env.push(("TINYFAAS_FUNCTION_DIR".into(), function_dir.clone().into()));
        env.push(("TINYFAAS_CONCURRENCY".into(), deployment.limits.concurrency.to_string().into()));
        let network = self.config.network && deployment.network;
        if let Some(url) = self.config.front_door.here().filter(|_| network) {
            env.push((front_door::VARIABLE.into(), url.into()));
        }
        let jail = Jail {
            parent: std::process::id(),
            // The kernel counts processes by user: as ourselves, that would count everything we run.
            pids: if user.is_some() { u64::from(deployment.limits.pids) * deployment.threads as u64 } else { 0 },
            // V8 reserves far more than it uses.
            memory: if deployment.runtime == Runtime::NODEJS { 0 } else { deployment.limits.memory },
            hardened: self.config.hardened,
            network,
            paths: self.paths(&interpreter, &[&function_dir, &program], &[&dir, &scratch]),
        };
        let command = host.command.iter().map(fill).collect();
        let cgroup = self.cgroups.as_ref().map(|cgroups| cgroups.make(&id, &deployment.limits)).transpose();
        let started = cgroup.and_then(|cgroup| {
            Child::start(Plan { command, dir: function_dir, env, jail, user, cgroup }, self.executor)
        });
        let child = started.map_err(|e| {
            let _ = fs::remove_dir_all(&dir);
            let _ = fs::remove_dir_all(&scratch);
            failed("start", e)
        })?;
        self.children().insert(id.clone(), Running { child, dirs: [dir, scratch] });
        Ok(Started { id, addresses: vec![Address::Unix(socket)] })
    }

    /// What a handler or an installation may use: the program that runs it, what is named, and what is every handler's.
    fn paths(&self, program: &Path, read: &[&Path], write: &[&Path]) -> Paths {
        let mut paths = self.config.exposed.clone();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        paths.read.extend(read.iter().map(|path| text(path)));
        paths.write.extend(write.iter().map(|path| text(path)));
        // One that is not among the system's has its library beside it.
        if let Ok(program) = program.canonicalize() {
            paths.read.extend(program.ancestors().nth(2).map(|prefix| text(&prefix.join("lib"))));
            paths.read.push(text(&program));
        }
        paths
    }

    fn program(&self, host: &Host, runtime: Runtime) -> Result<PathBuf, BackendError> {
        let name = host.program;
        find_program(name).ok_or_else(|| {
            engine(format!("{name} is not installed on this machine, and functions with env {runtime} need it: install it, or use the docker backend"))
        })
    }

    fn function_dir(&self, deployment: &Deployment) -> PathBuf {
        self.config.run_dir.join(format!("{}-{}", deployment.name, deployment.digest))
    }

    /// The user that a function runs as, where we may choose.
    fn user(&self, name: &Name) -> Option<u32> {
        if !self.is_root || !self.config.hardened {
            return None;
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = users.get(name) {
            return Some(*user);
        }
        let user = (self.config.first_user..).find(|user| users.values().all(|taken| taken != user))?;
        users.insert(name.clone(), user);
        Some(user)
    }

    /// Lets another function have the user of this one, unless another version of it is there.
    fn free_user(&self, name: &Name) {
        let prefix = format!("{name}-");
        let versions = fs::read_dir(&self.config.run_dir).into_iter().flatten().flatten();
        if !versions.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
            self.users.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
    }

    /// Makes the function's folder its user's to write, or only to read.
    fn own(&self, dir: &Path, deployment: &Deployment, writable: bool) -> Result<(), BackendError> {
        let failed = |e: io::Error| engine(format!("cannot make {} readable: {e}", dir.display()));
        let Some(user) = self.user(&deployment.name) else { return Ok(()) };
        let owner = if writable { user } else { 0 };
        chown(dir, Some(owner), Some(user)).map_err(failed)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o750)).map_err(failed)
    }

    async fn remove(&self, dir: PathBuf) {
        let shown = dir.display().to_string();
        let removed = self.workers.unblock(move || fs::remove_dir_all(dir)).await.and_then(|r| r);
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => ::log::warn!("{shown} is left behind: {e}"),
            _ => {}
        }
    }

    fn child(&self, id: &str) -> Option<Arc<Child>> {
        self.children().get(id).map(|running| Arc::clone(&running.child))
    }

    fn children(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn prepare<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: &'a Progress,
    ) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(self.prepare_files(deployment, progress))
    }

    fn start<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<Started, BackendError>> {
        Box::pin(async { self.start_handler(deployment) })
    }

    fn exited<'a>(&'a self, id: &'a str) -> Boxed<'a, String> {
        Box::pin(async {
            match self.child(id) {
                Some(child) => child.ended().await.text,
                None => "it is gone".into(),
            }
        })
    }

    fn stop<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async {
            let Some(child) = self.child(id) else { return Ok(()) };
            child.stop().await;
            let running = self.children().remove(id);
            for dir in running.map(|running| running.dirs).into_iter().flatten() {
                self.remove(dir).await;
            }
            Ok(())
        })
    }

    fn forget<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async {
            // Under its name it is whole or not there: this version may be deployed again while it goes.
            let dir = self.function_dir(deployment);
            let old = dir.with_extension("old");
            let _ = fs::rename(&dir, &old);
            self.remove(old).await;
            self.free_user(&deployment.name);
            Ok(())
        })
    }

    fn logs<'a>(
        &'a self,
        id: &'a str,
        want: Lines,
        lines: async_channel::Sender<LogLine>,
    ) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async move {
            if let Some(child) = self.child(id) {
                child.log().send(want, &lines).await;
            }
            Ok(())
        })
    }

    fn resident(&self, id: &str) -> Option<u64> {
        self.child(id)?.resident()
    }

    fn is_handler(&self, peer: SocketAddr) -> bool {
        // Without users of their own and without a jail nothing tells them from others.
        if !self.config.hardened {
            return false;
        }
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        callers::is_handler(peer, self.is_root.then_some(&*users))
    }

    fn running(&self) -> Boxed<'_, Result<Vec<Found>, BackendError>> {
        // Children end with the runtime that started them.
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sweep<'a>(&'a self, _keep: &'a [Deployment]) -> Boxed<'a, Result<(), BackendError>> {
        // What earlier runs left went when this one began.
        Box::pin(async { Ok(()) })
    }
}

fn engine(text: String) -> BackendError {
    BackendError { kind: BackendErrorKind::Engine, text }
}

fn base_env(scratch: &Path) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = [("PATH", PATH), ("LANG", "C.UTF-8")].map(|(key, value)| (key.into(), value.into())).into();
    env.extend(["HOME", "TMPDIR"].map(|key| (key.into(), scratch.into())));
    env
}

/// Says in the log what handlers can reach that they should not.
fn tell_what_is_open(run_dir: &Path, is_root: bool) {
    let open = files::not_enforced();
    if !open.is_empty() {
        ::log::warn!(
            "handlers are not confined in all: this kernel's Landlock cannot keep them from {}",
            open.join(", ")
        );
    }
    let engine = "/var/run/docker.sock";
    // As root we give them users of their own, without our groups.
    if !is_root && rustix::fs::access(engine, rustix::fs::Access::WRITE_OK).is_ok() {
        ::log::warn!("handlers can reach {engine} as we can, and so become root: take our user out of its group");
    }
    if files::is_readable(run_dir) {
        let dir = run_dir.display();
        ::log::warn!("handlers may read all that their user may in {dir}: name a --state-dir outside of /usr and /opt");
    }
}
