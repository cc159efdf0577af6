//! What `tinyfaas serve` is told: its flags and the environment's variables, as one [`Config`] of plain values.
//!
//! A new flag is one field of [`Config`]: its docstring is the help text and states the default.
//! Nothing here opens, binds or starts anything.

mod address;
mod environment;
mod tls;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

pub use address::Listen;
use address::{local, parse_listen, parse_management};
use environment::default_state_dir;
pub use environment::{Var, from_environment};
pub use tls::TlsDoors;
use tls::parse_doors;
use values::{parse_backend, parse_exposed, parse_network, parse_reach, parse_runtime_image, parse_uid};

use crate::backend::docker::{self, EngineAddress};
pub use crate::backend::docker::{Network, Reach};
use crate::backend::process;
use crate::function::{Limits, Runtime};
use crate::limits::{self, Idle};
use crate::logging;
use crate::quantity::{bytes, count, count_or_zero, duration};
use crate::runtimes;

/// The management API's TCP port.
pub const MANAGEMENT_PORT: u16 = 8080;
/// The HTTP front door's TCP port.
pub const HTTP_PORT: u16 = 8000;
/// The CoAP front door's UDP port (RFC 7252 §6.1).
pub const COAP_PORT: u16 = 5683;
/// The gRPC front door's TCP port.
pub const GRPC_PORT: u16 = 9000;

/// Above what systems give to people and services, and not in `/etc/passwd`.
const FIRST_HANDLER_UID: u32 = 600_000;
/// User ids that functions may get: not those of the system, and so that there is one for any number of functions.
const HANDLER_UIDS: std::ops::RangeInclusive<u32> = 1000..=4_000_000_000;

const KI: u64 = 1 << 10;
const MI: u64 = KI << 10;

/// run the server: functions deployed to it answer over HTTP, CoAP and gRPC (the default command)
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq, Eq)]
#[argh(
    subcommand,
    name = "serve",
    help_triggers("-h", "--help"),
    note = "An ADDR is HOST:PORT, :PORT or PORT, where HOST is an IP address. HTTP_PORT, COAP_PORT, GRPC_PORT\n\
            (-1 is off), TF_BACKEND, DOCKER_HOST and RUST_LOG stand in for flags that are not given.\n\
            Sizes: 64Ki, 10Mi, 1Gi. Times: 500ms, 30s, 5m, 1h."
)]
pub struct Config {
    /// file of settings, JSON with these flags' names; SIGHUP reads it again (docs/configuration.md)
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,

    /// folder of functions to deploy at the start and on SIGHUP (docs/configuration.md)
    #[argh(option, arg_name = "DIR")]
    pub functions: Option<PathBuf>,

    /// address of the management API; default 127.0.0.1:8080
    #[argh(option, arg_name = "ADDR", from_str_fn(parse_management), default = "local(MANAGEMENT_PORT)")]
    pub management: SocketAddr,

    /// file of tokens, one of which each request to the management API needs (docs/security.md); SIGHUP reads it again
    #[argh(option, arg_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// PEM file of CAs: management takes only connections with a certificate of one of them; SIGHUP reads it again
    #[argh(option, arg_name = "FILE")]
    pub management_client_ca: Option<PathBuf>,

    /// let whoever reaches the management API deploy, where it listens beyond this machine without tokens
    #[argh(switch)]
    pub insecure_management: bool,

    /// address of the HTTP front door, or off; default [::]:8000
    #[argh(option, arg_name = "ADDR", from_str_fn(parse_listen), default = "Listen::everywhere(HTTP_PORT)")]
    pub http: Listen,

    /// address of the CoAP front door, or off; default [::]:5683
    #[argh(option, arg_name = "ADDR", from_str_fn(parse_listen), default = "Listen::everywhere(COAP_PORT)")]
    pub coap: Listen,

    /// address of the gRPC front door, or off; default [::]:9000
    #[argh(option, arg_name = "ADDR", from_str_fn(parse_listen), default = "Listen::everywhere(GRPC_PORT)")]
    pub grpc: Listen,

    /// PEM file of our certificate and those up to its CA: doors speak TLS (docs/security.md); SIGHUP reads it again
    #[argh(option, arg_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of its private key
    #[argh(option, arg_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// which doors speak TLS, some of http,grpc,management; default all, management only where others reach it
    #[argh(option, arg_name = "DOORS", from_str_fn(parse_doors))]
    pub tls_doors: Option<TlsDoors>,

    /// host in the URLs that a deployment answers; default: the one the client called
    #[argh(option, arg_name = "HOST")]
    pub public_host: Option<String>,

    /// folder for what is deployed; default /var/lib/tinyfaas as root, else ~/.local/state/tinyfaas
    #[argh(option, arg_name = "DIR", default = "default_state_dir()")]
    pub state_dir: PathBuf,

    /// what runs handlers: docker, process, or auto (docker where its engine answers); default auto
    #[argh(option, arg_name = "NAME", from_str_fn(parse_backend), default = "BackendChoice::Auto")]
    pub backend: BackendChoice,

    /// the Docker engine, unix:///path or tcp://host:port; default unix:///var/run/docker.sock
    #[argh(option, arg_name = "URL")]
    pub docker_host: Option<String>,

    /// folder of runtimes besides ours, a folder each (docs/runtimes.md); read at the start
    #[argh(option, arg_name = "DIR")]
    pub runtimes: Option<PathBuf>,

    /// image to run a runtime's handlers from, ENV=IMAGE; may be repeated; default: ours, made from the base
    #[argh(option, arg_name = "ENV=IMAGE", from_str_fn(parse_runtime_image))]
    pub runtime_image: Vec<RuntimeImage>,

    /// image to make a runtime's image from, ENV=IMAGE; may be repeated; default: the official small images
    #[argh(option, arg_name = "ENV=IMAGE", from_str_fn(parse_runtime_image))]
    pub runtime_base: Vec<RuntimeImage>,

    /// how containers are reached: socket, tcp, or auto (the socket where it answers); default auto
    #[argh(option, arg_name = "WAY", from_str_fn(parse_reach), default = "Reach::Auto")]
    pub reach: Reach,

    /// network of handlers: none, or of containers: shared (one bridge, no traffic between them) or the name of one;
    /// default shared
    #[argh(option, arg_name = "NAME", from_str_fn(parse_network), default = "Network::Shared")]
    pub network: Network,

    /// let containers write only to /tmp, in memory
    #[argh(switch)]
    pub read_only: bool,

    /// size of that /tmp, which counts as the handler's memory; default 16Mi
    #[argh(option, arg_name = "SIZE", from_str_fn(bytes), default = "16 * MI")]
    pub tmp: u64,

    /// start handlers with the engine's or the system's usual rights instead of as few as possible
    #[argh(switch)]
    pub no_hardening: bool,

    /// path that handlers which are processes may read and write, or PATH:ro read; may be repeated (docs/security.md)
    #[argh(option, arg_name = "PATH", from_str_fn(parse_exposed))]
    pub expose: Vec<Exposed>,

    /// first of the users that functions get, where the server is root and runs them as processes; default 600000
    #[argh(option, arg_name = "UID", from_str_fn(parse_uid), default = "FIRST_HANDLER_UID")]
    pub handler_uid: u32,

    /// what is logged: off, error, warn, info, debug or trace; default info
    #[argh(option, arg_name = "LEVEL", from_str_fn(logging::level), default = "LevelFilter::Info")]
    pub log: LevelFilter,

    /// how lines of the log look: text, or json (one object a line); default text
    #[argh(option, arg_name = "FORMAT", from_str_fn(logging::format), default = "logging::Format::Text")]
    pub log_format: logging::Format,

    /// largest zip of an upload; default 64Mi
    #[argh(option, arg_name = "SIZE", from_str_fn(bytes), default = "64 * MI")]
    pub max_upload: u64,

    /// largest body of an HTTP call, 0 for no bound (bodies stream); default 0
    #[argh(option, arg_name = "SIZE", from_str_fn(bytes), default = "0")]
    pub max_body: u64,

    /// longest body of a request or an answer over CoAP; default 64Ki
    #[argh(option, arg_name = "SIZE", from_str_fn(bytes), default = "64 * KI")]
    pub coap_max_body: u64,

    /// requests a second from one CoAP endpoint, 0 for no bound; default 1000
    #[argh(option, arg_name = "N", from_str_fn(count_or_zero), default = "1000")]
    pub coap_rate: usize,

    /// let CoAP clients prove their address before large answers (RFC 9175)
    #[argh(switch)]
    pub coap_echo: bool,

    /// how often a function that CoAP clients observe runs; default 10s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(10)")]
    pub coap_observe_interval: Duration,

    /// join the CoAP multicast groups for discovery
    #[argh(switch)]
    pub coap_multicast: bool,

    /// open connections, each front door for itself; default 1024
    #[argh(option, arg_name = "N", from_str_fn(count), default = "1024")]
    pub max_connections: usize,

    /// open connections of one client that is not on this machine, each front door for itself, 0 for no bound; default a
    /// quarter of --max-connections
    #[argh(option, arg_name = "N", from_str_fn(count_or_zero))]
    pub max_connections_per_client: Option<usize>,

    /// largest gRPC message, in either direction; default 1Mi
    #[argh(option, arg_name = "SIZE", from_str_fn(bytes), default = "MI")]
    pub grpc_max_message: u64,

    /// time a gRPC connection may be without a call; default 5m
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(300)")]
    pub grpc_idle_timeout: Duration,

    /// functions deployed at once; default 256
    #[argh(option, arg_name = "N", from_str_fn(count), default = "256")]
    pub max_functions: usize,

    /// longest time for one call, waiting included; default 60s
    #[argh(option, arg_name = "TIME", from_str_fn(limits::timeout), default = "Duration::from_secs(60)")]
    pub timeout: Duration,

    /// calls that one handler works on at once; default 8
    #[argh(option, arg_name = "N", from_str_fn(limits::concurrency), default = "8")]
    pub concurrency: usize,

    /// calls that may wait for a handler, each function for itself; default 64
    #[argh(option, arg_name = "N", from_str_fn(limits::queue), default = "64")]
    pub queue: usize,

    /// memory of a handler whose deployment names no limit, 0 for no bound; default 0
    #[argh(option, arg_name = "SIZE", from_str_fn(limits::memory), default = "0")]
    pub memory: u64,

    /// processor time of such a handler in cores, 2 or 500m, 0 for no bound; default 0
    #[argh(option, arg_name = "CORES", from_str_fn(limits::cpu), default = "0")]
    pub cpu: u32,

    /// processes and threads in such a handler; default 256
    #[argh(option, arg_name = "N", from_str_fn(limits::pids), default = "256")]
    pub pids: u32,

    /// stop a function's handlers after this time without a call, and start them for the next one; default off
    #[argh(option, arg_name = "TIME", from_str_fn(limits::idle), default = "Idle::Off")]
    pub idle: Idle,

    /// asynchronous calls at once; default 64
    #[argh(option, arg_name = "N", from_str_fn(count_or_zero), default = "64")]
    pub async_calls: usize,

    /// time for new handlers to become healthy; default 60s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(60)")]
    pub health_timeout: Duration,

    /// time for the installation of a function's dependencies; default 10m
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(600)")]
    pub install_timeout: Duration,

    /// time between SIGTERM and SIGKILL for a handler; default 2s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(2)")]
    pub stop_timeout: Duration,

    /// time for one request to the Docker engine; default 60s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(60)")]
    pub engine_timeout: Duration,

    /// time for files to the Docker engine, and for silence while it builds; default 5m
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(300)")]
    pub transfer_timeout: Duration,

    /// what the Docker engine keeps of a handler's log, on disk; default 1Mi
    #[argh(option, arg_name = "SIZE", from_str_fn(bytes), default = "MI")]
    pub handler_log: u64,

    /// time for the download of an uploadURL; default 5m
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(300)")]
    pub download_timeout: Duration,

    /// let uploadURL fetch from addresses of this machine and link-local ones
    #[argh(switch)]
    pub allow_local_urls: bool,

    /// file of PEM certificates to trust for uploadURL, besides the public ones
    #[argh(option, arg_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// time a kept connection may be idle; default 75s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(75)")]
    pub idle_timeout: Duration,

    /// time for the head of a request; default 10s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(10)")]
    pub head_timeout: Duration,

    /// time between two pieces of a body; default 30s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(30)")]
    pub body_timeout: Duration,

    /// leave containers running when the server stops: the next start takes them over, for upgrades of the program
    #[argh(switch)]
    pub keep_handlers: bool,

    /// time that calls in flight have to finish when the server stops; default 10s
    #[argh(option, arg_name = "TIME", from_str_fn(duration), default = "Duration::from_secs(10)")]
    pub grace: Duration,
}

/// Which backend was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// Docker where its engine answers, else processes.
    Auto,
    /// Containers.
    Docker,
    /// Child processes.
    Process,
}

/// An image for a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The runtime.
    pub runtime: Runtime,
    /// The image's reference.
    pub image: String,
}

/// A path that handlers may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The path, absolute.
    pub path: String,
    /// Whether it may be written as well.
    pub writable: bool,
}

impl Config {
    /// Checks what no flag can check alone, and makes paths absolute.
    ///
    /// # Errors
    /// One line that names the flag.
    pub fn validate(mut self) -> Result<Self, String> {
        if self.state_dir.as_os_str().is_empty() {
            return Err("--state-dir: neither HOME nor XDG_STATE_HOME is set: name a folder".into());
        }
        self.state_dir = std::path::absolute(&self.state_dir)
            .map_err(|e| format!("--state-dir: cannot make {:?} absolute: {e}", self.state_dir))?;
        self.check_tls()?;
        self.may_manage_at(self.management)?;
        self.engine().map_err(|e| format!("--docker-host: {e}"))?;
        if self.keep_handlers && self.backend == BackendChoice::Process {
            return Err("--keep-handlers: processes end with the server: use --backend docker, or leave it out".into());
        }
        if let Some(host) = &self.public_host
            && (host.is_empty() || host.bytes().any(|b| b <= b' ' || b == b'/' || b == 0x7f))
        {
            return Err(format!("--public-host: {host:?} is no host: use a name or an IP address"));
        }
        Ok(self)
    }

    /// Checks that the management API may listen at `addr`: beyond this machine it needs tokens, or clients' certificates.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn may_manage_at(&self, addr: SocketAddr) -> Result<(), String> {
        let asks = self.token_file.is_some() || self.management_client_ca.is_some();
        if !addr.ip().to_canonical().is_loopback() && !asks && !self.insecure_management {
            return Err(format!(
                "--management: whoever reaches {addr} could deploy what he likes: name a --token-file (tinyfaas token new makes \
                 tokens) or a --management-client-ca, or accept it with --insecure-management"
            ));
        }
        Ok(())
    }

    /// Checks that there are the runtimes that images are named for, once those of `--runtimes` are known.
    ///
    /// # Errors
    /// One line that names the flag.
    pub fn check_runtimes(&self) -> Result<(), String> {
        for (flag, images) in [("--runtime-image", &self.runtime_image), ("--runtime-base", &self.runtime_base)] {
            if let Some(wrong) = images.iter().find(|image| runtimes::find(image.runtime).is_none()) {
                return Err(format!(
                    "{flag}: there is no env {}: use {}",
                    wrong.runtime,
                    runtimes::choices_of_images()
                ));
            }
        }
        Ok(())
    }

    /// Where the Docker engine is.
    ///
    /// # Errors
    /// One line that names the forms there are.
    pub fn engine(&self) -> Result<EngineAddress, String> {
        EngineAddress::parse(self.docker_host.as_deref().unwrap_or(EngineAddress::DEFAULT))
    }

    /// What the Docker backend of the instance of that id is told.
    ///
    /// # Errors
    /// As [`Self::engine`].
    pub fn docker(&self, instance: String) -> Result<docker::Config, String> {
        let pairs = |images: &[RuntimeImage]| images.iter().map(|i| (i.runtime, i.image.clone())).collect();
        Ok(docker::Config {
            images: pairs(&self.runtime_image),
            bases: pairs(&self.runtime_base),
            hardened: !self.no_hardening,
            read_only: self.read_only,
            scratch: self.tmp,
            network: self.network.clone(),
            reach: self.reach,
            log_bytes: self.handler_log,
            pids: self.pids,
            stop_grace: self.stop_timeout,
            call_timeout: self.engine_timeout,
            transfer_timeout: self.transfer_timeout,
            install_timeout: self.install_timeout,
            ..docker::Config::new(self.engine()?, instance, self.state_dir.clone())
        })
    }

    /// Connections of one client at a front door; 0 for no bound.
    pub fn connections_each(&self) -> usize {
        self.max_connections_per_client.unwrap_or(self.max_connections.div_ceil(4))
    }

    /// What handlers that are processes may use besides what they need.
    pub fn exposed(&self) -> process::Paths {
        let of =
            |writable| self.expose.iter().filter(move |e| e.writable == writable).map(|e| e.path.clone()).collect();
        process::Paths { read: of(false), write: of(true) }
    }

    /// Whether handlers have a network, unless their deployment wants none.
    pub fn gives_network(&self) -> bool {
        self.network != Network::None
    }

    /// What a function may use whose deployment says nothing else.
    pub fn limits(&self) -> Limits {
        Limits {
            memory: self.memory,
            cpu_millis: self.cpu,
            pids: self.pids,
            timeout: self.timeout,
            concurrency: self.concurrency,
            queue: self.queue,
        }
    }
}

impl Default for Config {
    /// No flag given, and nothing in the environment.
    fn default() -> Self {
        match Self::from_args(&["tinyfaas", "serve"], &[]) {
            Ok(config) => config,
            // Every flag has a default, which the test below holds.
            Err(_) => unreachable!("a flag of serve has no default"),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
