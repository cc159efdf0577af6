//! The Docker backend: each handler is a container, on this machine's engine or on another's.
//!
//! - `address`, `transport`, `engine`: the way to the engine's API, through bollard and without tokio's driver
//! - `ask`: what the engine is asked, and what is read of its answers
//! - `image`, `install`, `elf`: what containers start from
//! - `files`: archives and build folders on their way into the engine, as streams
//! - `facts`: what an engine is and has
//! - `container`, `cgroup`, `network`, `labels`: handlers
//! - `watch`, `logs`, `sweep`: what becomes of them
//! - `whole`: work that must not be left half done
//!
//! No state is kept of handlers but who waits for their end and which cgroup they have: a container's name says where its socket is, its labels
//! say what it runs. So a runtime that starts again knows as much as the one before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_channel::Sender;
use async_executor::StaticExecutor;
use bollard::errors::Error;
use serde::de::DeserializeOwned;

use super::front_door::FrontDoor;
use super::{Backend, BackendError, Boxed, Found, Lines, LogLine, Progress, Started};
use crate::function::{Deployment, Runtime};
use crate::wire::zip;
use crate::worker::Workers;

mod address;
mod ask;
mod cgroup;
mod container;
pub mod elf;
mod engine;
#[cfg(feature = "assist")]
pub mod facts;
mod files;
mod image;
mod install;
mod labels;
pub mod logs;
mod network;
mod sweep;
mod transport;
mod watch;
mod whole;

pub use address::EngineAddress;
use engine::{Engine, Fault};
use watch::Watch;

/// Longest path of a unix socket in bytes: `sun_path` holds 108 with the NUL at its end.
const MAX_SOCKET_PATH: usize = 107;
/// Longest instance id in bytes: it becomes part of names.
const MAX_INSTANCE: usize = 40;

/// How handlers are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The socket and, for images of the operator that may know only the contract's port, TCP. On another machine's
    /// engine TCP alone.
    Auto,
    /// Only by a unix socket in a folder that is mounted into the container.
    Socket,
    /// Only by TCP port 8000: the container's own address, or a published port of another machine's engine.
    Tcp,
}

/// The network of handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// One bridge of our own for all, without traffic between containers.
    Shared,
    /// None: handlers are reached by socket alone.
    None,
    /// A network that the operator made.
    Named(String),
}

/// What can be set. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the engine listens.
    pub engine: EngineAddress,
    /// Value of the label `tinyFaaS` on everything we make, the same as long as the state directory is: up to 40
    /// letters, digits, `-`, `_` and `.`; by it two runtimes on one engine leave each other alone.
    pub instance: String,
    /// The state directory, absolute. Sockets are in `run/` in it.
    pub state_dir: PathBuf,
    /// The executable for the images of runtimes that are part of it. Default: our own.
    pub executable: PathBuf,
    /// Complete images to run a runtime's handlers from, as they are. Default: none, ours are built.
    pub images: Vec<(Runtime, String)>,
    /// Images to build a runtime's image from. Default: none, [`crate::runtimes`] names one.
    pub bases: Vec<(Runtime, String)>,
    /// Whether handlers run as nobody, without capabilities and without ways to more rights. Default: yes.
    pub hardened: bool,
    /// Whether, when hardened, handlers may write only to `/tmp`, in memory. Default: no.
    pub read_only: bool,
    /// Bytes of that `/tmp`. Default: 16 MiB.
    pub scratch: u64,
    /// The network of handlers. Default: the shared one.
    pub network: Network,
    /// How handlers are reached. Default: auto.
    pub reach: Reach,
    /// Bytes of log that the engine keeps a handler, on disk. Default: 1 MiB.
    pub log_bytes: u64,
    /// Processes and threads in a handler whose function has no limit. Default: 256.
    pub pids: u32,
    /// Time between SIGTERM and SIGKILL, in whole seconds rounded up. Default: 2 s.
    pub stop_grace: Duration,
    /// Bound on one request to the engine. Default: 60 s; engines under load have been seen to take ten.
    pub call_timeout: Duration,
    /// Bound on sending files, on making an image, and on silence during a build. Default: 5 min.
    pub transfer_timeout: Duration,
    /// Bound on the installation of a function's dependencies. Default: 10 min.
    pub install_timeout: Duration,
    /// What handlers are told of the HTTP front door. Default: nothing.
    pub front_door: FrontDoor,
    /// What an archive may cost. Default: as [`zip::Bounds`].
    pub zip: zip::Bounds,
}

impl Config {
    /// The defaults.
    pub fn new(engine: EngineAddress, instance: String, state_dir: PathBuf) -> Self {
        Self {
            engine,
            instance,
            state_dir,
            executable: "/proc/self/exe".into(),
            images: Vec::new(),
            bases: Vec::new(),
            hardened: true,
            read_only: false,
            scratch: 16 * 1024 * 1024,
            network: Network::Shared,
            reach: Reach::Auto,
            log_bytes: 1024 * 1024,
            pids: 256,
            stop_grace: Duration::from_secs(2),
            call_timeout: Duration::from_secs(60),
            transfer_timeout: Duration::from_secs(300),
            install_timeout: Duration::from_secs(600),
            front_door: FrontDoor::default(),
            zip: zip::Bounds::default(),
        }
    }

    fn validate(&self) -> Result<(), String> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let first = self.instance.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || self.instance.len() > MAX_INSTANCE || !self.instance.bytes().all(ok) {
            return Err(format!(
                "bad instance id {:?}: use up to {MAX_INSTANCE} ASCII letters, digits, '-', '_' and '.', a letter or digit first",
                self.instance
            ));
        }
        let remote = !self.engine.is_local();
        if self.network == Network::None && (self.reach == Reach::Tcp || remote && self.reach == Reach::Auto) {
            return Err(
                "handlers without a network can be reached only by socket: allow that, or give them a network".into()
            );
        }
        if self.reach == Reach::Tcp || remote && self.reach == Reach::Auto {
            return Ok(());
        }
        let socket = self.run_dir().join("00000000").join(container::SOCKET);
        let len = socket.as_os_str().len();
        if len > MAX_SOCKET_PATH {
            return Err(format!(
                "the state directory {} makes socket paths of {len} bytes and the system takes {MAX_SOCKET_PATH}: use a shorter one",
                self.state_dir.display()
            ));
        }
        if !self.state_dir.is_absolute() || self.state_dir.to_str().is_none() {
            return Err(format!("the state directory {:?} must be an absolute path in UTF-8", self.state_dir));
        }
        Ok(())
    }

    /// The folder of the handlers' socket folders.
    fn run_dir(&self) -> PathBuf {
        self.state_dir.join("run")
    }

    /// Whether containers have a root that they cannot write. Files that are sent to one need a volume.
    fn is_read_only(&self) -> bool {
        self.hardened && self.read_only
    }

    fn network_name(&self) -> String {
        format!("tinyfaas-{}", self.instance)
    }

    fn image(&self, runtime: Runtime) -> Option<&str> {
        self.images.iter().rev().find(|(r, _)| *r == runtime).map(|(_, image)| image.as_str())
    }

    fn base(&self, runtime: Runtime) -> Option<&str> {
        self.bases.iter().rev().find(|(r, _)| *r == runtime).map(|(_, image)| image.as_str())
    }
}

/// The Docker backend.
#[derive(Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    engine: Engine,
    executor: &'static StaticExecutor,
    workers: Workers,
    watch: Watch,
    /// The cgroups of containers, where this machine has them. As many as there are handlers.
    cgroups: Mutex<HashMap<Box<str>, PathBuf>>,
    /// Tells this run of the server from earlier ones.
    run: String,
    /// Tags of the runtimes' images, once their content was hashed: at most one a runtime.
    tags: async_lock::Mutex<Vec<(Runtime, String)>>,
    /// Whether the engine has a program for the first process of a container, as far as is known.
    has_init: AtomicBool,
    /// Held while the network or a runtime's image is looked for and made.
    making: async_lock::Mutex<()>,
}

impl Inner {
    async fn call<T>(&self, request: Boxed<'_, Result<T, Error>>) -> Result<T, Fault> {
        self.engine.call(self.config.call_timeout, request).await
    }

    /// What the engine answers to `GET path`.
    async fn ask<T: DeserializeOwned>(&self, path: String) -> Result<T, Fault> {
        self.engine.ask(self.config.call_timeout, path).await
    }

    /// Whether containers are reached by published ports.
    fn is_remote(&self) -> bool {
        !self.config.engine.is_local() && self.config.reach != Reach::Socket
    }

    fn uses_socket(&self) -> bool {
        match self.config.reach {
            Reach::Auto => self.config.engine.is_local(),
            Reach::Socket => true,
            Reach::Tcp => false,
        }
    }

    /// The host of a remote engine.
    fn engine_host(&self) -> Option<&str> {
        match &self.config.engine {
            EngineAddress::Unix(_) => None,
            EngineAddress::Tcp { host, .. } => Some(host),
        }
    }

    /// The address at which ports are published: no further than we are.
    fn publish_at(&self) -> Option<String> {
        let host = self.engine_host()?;
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback.then(|| "127.0.0.1".to_string())
    }
}

impl Docker {
    /// A backend on the engine that `config` names; connects to nothing yet. Files are read in `workers`, connections
    /// are driven on `executor`.
    ///
    /// # Errors
    /// One line that says what in `config` is wrong.
    pub fn new(config: Config, executor: &'static StaticExecutor, workers: Workers) -> Result<Self, String> {
        config.validate()?;
        let engine = Engine::new(config.engine.clone(), executor, workers.clone()).map_err(|f| f.to_string())?;
        let inner = Inner {
            config,
            engine,
            executor,
            workers,
            watch: Watch::default(),
            cgroups: Mutex::default(),
            run: format!("{:016x}", fastrand::u64(..)),
            tags: async_lock::Mutex::default(),
            has_init: AtomicBool::new(true),
            making: async_lock::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Asks whether the engine answers, within `limit`, and speaks a version that we do.
    ///
    /// # Errors
    /// One line that says why it cannot be used.
    pub async fn probe(&self, limit: Duration) -> Result<(), BackendError> {
        Ok(self.inner.engine.negotiate(limit).await?)
    }
}

/// Removes all containers, networks and images of one instance, or of any where `instance` is `None`: `tinyfaas clean`.
/// Returns a line for each that says what it was.
///
/// # Errors
/// When the engine refuses or cannot be reached.
pub async fn clean(
    engine: EngineAddress,
    executor: &'static StaticExecutor,
    workers: Workers,
    instance: Option<&str>,
) -> Result<Vec<String>, BackendError> {
    let engine = Engine::new(engine, executor, workers)?;
    sweep::clean(&engine, Duration::from_secs(60), instance).await
}

impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn prepare<'a>(
        &'a self,
        deployment: &'a Deployment,
        progress: &'a Progress,
    ) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(image::prepare(&self.inner, deployment, progress))
    }

    fn start<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<Started, BackendError>> {
        Box::pin(container::start(&self.inner, deployment))
    }

    fn exited<'a>(&'a self, id: &'a str) -> Boxed<'a, String> {
        Box::pin(async move { watch::exited(&self.inner, id).await.to_string() })
    }

    fn stop<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(container::stop(&self.inner, id))
    }

    fn forget<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(image::forget(&self.inner, deployment))
    }

    fn logs<'a>(&'a self, id: &'a str, want: Lines, lines: Sender<LogLine>) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(async move { Ok(logs::send(&self.inner, id, want, &lines).await?) })
    }

    fn resident(&self, id: &str) -> Option<u64> {
        cgroup::resident(&self.inner, id)
    }

    fn running(&self) -> Boxed<'_, Result<Vec<Found>, BackendError>> {
        Box::pin(sweep::running(&self.inner))
    }

    fn sweep<'a>(&'a self, keep: &'a [Deployment]) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(sweep::sweep(&self.inner, keep))
    }

    fn sweep_late<'a>(&'a self, taken: &'a [String]) -> Boxed<'a, Result<(), BackendError>> {
        Box::pin(sweep::sweep_late(&self.inner, taken))
    }
}
