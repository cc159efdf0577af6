//! Puts the server together and runs it until it is told to stop.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_executor::StaticExecutor;
use futures_lite::FutureExt;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};

use crate::backend::docker::{self, Docker};
use crate::backend::front_door::FrontDoor;
use crate::backend::{Backend, process};
use crate::budget::Budget;
use crate::buffers::Buffers;
use crate::config::{BackendChoice, Config};
use crate::config_file::{Configured, Layers, Setting};
use crate::deploy::{Deployer, Stored};
use crate::dispatch::Dispatch;
use crate::front;
use crate::http_server::{self, Service};
use crate::inherited::Inherited;
use crate::management::{Facts, Management};
use crate::provision::Provision;
use crate::reactor::{self, Async, Timer};
use crate::reload::{Reload, deploy_bounds, management_settings};
use crate::runtimes::{self, folder::Fault};
use crate::service_manager::ServiceManager;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::store::Store;
use crate::tls::{Acceptor, Doors};
use crate::tokens::Tokens;
use crate::worker::Workers;

/// Bytes of bodies that are held whole, of all calls in flight together: those of CoAP, of gRPC, and of asynchronous
/// calls. A gRPC call holds its question until it has its answer, so this is more than twice the largest message.
const BODIES: usize = 4 * 1024 * 1024;
/// The same of one client that is not on this machine: also more than twice the largest message.
const BODIES_EACH: usize = BODIES / 4 * 3;
/// How long calls are still taken after the doors closed: a little longer than connections may still say something.
const LAST_CALLS: Duration = http_server::LAST_WORD.saturating_add(Duration::from_millis(50));
/// Management connections at once: people and scripts, not sensors.
const MANAGEMENT_CONNECTIONS: usize = 32;
/// The same of one client that is not on this machine.
const MANAGEMENT_CONNECTIONS_EACH: usize = 16;

/// Serves until SIGINT or SIGTERM. SIGHUP has the file and the folder of functions read again that `layers` name.
///
/// # Errors
/// One line that says why it could not start.
pub fn run(layers: Layers, configured: Configured) -> Result<(), String> {
    let inherited = Inherited::from_environment()?;
    let manager = ServiceManager::from_environment();
    let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
    let served = serve(layers, configured, inherited, &manager, executor);
    reactor::block_on(executor.run(served.or(manager.watchdog())))
}

/// What all parts of the server share.
struct Server<'a> {
    config: Config,
    executor: &'static StaticExecutor,
    dispatch: Arc<Dispatch>,
    deployer: Arc<Deployer>,
    buffers: Buffers,
    budget: Budget,
    shutdown: Shutdown,
    manager: &'a ServiceManager,
    front_door: FrontDoor,
    faults: Vec<Fault>,
    began: Instant,
}

async fn serve(
    layers: Layers,
    configured: Configured,
    inherited: Inherited,
    manager: &ServiceManager,
    executor: &'static StaticExecutor,
) -> Result<(), String> {
    let Configured { config, settings } = configured;
    raise_file_limit();
    let signals =
        Signals::new([Signal::INT, Signal::TERM, Signal::HUP]).map_err(|e| format!("cannot wait for signals: {e}"))?;
    let store = Arc::new(Store::open(&config.state_dir)?);
    let workers = Workers::new();
    let faults = config.runtimes.as_deref().map_or_else(|| Ok(Vec::new()), runtimes::folder::load)?;
    config.check_runtimes()?;
    let front_door = FrontDoor::default();
    let backend = choose_backend(&config, &store, &workers, executor, &front_door).await?;
    let buffers = Buffers::default();
    let dispatch = Arc::new(Dispatch::new(buffers.clone()));
    let bounds = deploy_bounds(&config);
    let deployer =
        Arc::new(Deployer::new(backend, Arc::clone(&dispatch), Arc::clone(&store), workers.clone(), executor, bounds));
    let server = Server {
        config,
        executor,
        dispatch,
        deployer,
        buffers,
        budget: Budget::with_parts(BODIES, BODIES_EACH),
        shutdown: Shutdown::new(),
        manager,
        front_door,
        faults,
        began: Instant::now(),
    };
    server.run(&signals, store, workers, inherited, layers, settings).await
}

impl Server<'_> {
    async fn run(
        &self,
        signals: &Signals,
        store: Arc<Store>,
        workers: Workers,
        mut inherited: Inherited,
        layers: Layers,
        settings: Vec<Setting>,
    ) -> Result<(), String> {
        // Before a door opens: a stored function is known from the first call on.
        let stored = self.deployer.load().await.map_err(|e| e.to_string())?;
        self.refuse_faults(&stored)?;
        for (door, listen) in [("http", self.config.http), ("coap", self.config.coap), ("grpc", self.config.grpc)] {
            if listen.addr().is_none() {
                inherited.none_for(door)?;
            }
        }
        let tls = self.config.tls_files().map(Doors::load).transpose()?.map(Arc::new);
        let speaks = self.config.tls_doors_at(self.config.management);
        let mut doors = Vec::new();
        let mut running = Vec::new();
        let coap_repeated = Arc::default();
        if let Some(addr) = self.config.http.addr() {
            let (listener, port) = listen("http", addr, &mut inherited)?;
            let tls = tls.as_ref().filter(|_| speaks.http).map(|tls| Arc::clone(&tls.http));
            let scheme = if tls.is_some() { "https" } else { "http" };
            doors.push((scheme, port));
            self.front_door.opened(listener.get_ref().local_addr().map_err(|e| format!("http: {e}"))?, scheme);
            let calls = self.config.async_calls;
            let door = front::http::Front::new(Arc::clone(&self.dispatch), self.executor, calls, self.budget.clone());
            let bounds =
                self.http_bounds(self.config.max_connections, self.config.connections_each(), self.config.max_body);
            running.push(self.spawn_http(listener, tls, Arc::new(door), bounds));
        }
        if let Some(addr) = self.config.coap.addr() {
            let mut config = self.coap_config(addr);
            config.repeated = Arc::clone(&coap_repeated);
            let coap = front::coap::Coap::bind(config, inherited.udp("coap")?)
                .map_err(|e| format!("coap: cannot listen on {addr}: {e}"))?;
            doors.push(("coap", coap.port()));
            let (dispatch, budget) = (Arc::clone(&self.dispatch), self.budget.clone());
            running.push(self.executor.spawn(coap.serve(self.executor, dispatch, budget, self.shutdown.clone())));
        }
        if let Some(addr) = self.config.grpc.addr() {
            let (listener, port) = listen("grpc", addr, &mut inherited)?;
            let tls = tls.as_ref().filter(|_| speaks.grpc).map(|tls| Arc::clone(&tls.grpc));
            doors.push((if tls.is_some() { "grpcs" } else { "grpc" }, port));
            let (dispatch, budget) = (Arc::clone(&self.dispatch), self.budget.clone());
            let (config, shutdown) = (self.grpc_config(), self.shutdown.clone());
            let served = front::grpc::serve(listener, tls, config, self.executor, dispatch, budget, shutdown);
            running.push(self.executor.spawn(served));
        }
        let (listener, port) = listen("management", self.config.management, &mut inherited)?;
        // That of an inherited socket is not the one that was configured.
        let addr = listener.get_ref().local_addr().map_err(|e| format!("management: {e}"))?;
        self.config.may_manage_at(addr)?;
        let tokens = self
            .config
            .token_file
            .as_deref()
            .map(Tokens::read)
            .transpose()
            .map_err(|e| format!("--token-file: {e}"))?;
        let tokens = tokens.map(Arc::new);
        if tokens.is_none() && self.config.insecure_management {
            log::warn!("management: whoever reaches port {port} can deploy and delete: --insecure-management");
        }
        let told = management_settings(&self.config, doors.clone(), tokens.clone());
        let (buffers, stopping) = (self.buffers.clone(), self.shutdown.clone());
        let facts = Facts { began: self.began, buffers, stopping, coap_repeated };
        let (deployer, kept) = (Arc::clone(&self.deployer), Arc::clone(&store));
        let management = Arc::new(Management::new(deployer, kept, workers.clone(), told, facts));
        let bounds = self.http_bounds(MANAGEMENT_CONNECTIONS, MANAGEMENT_CONNECTIONS_EACH, 0);
        let management_tls = tls.as_ref().filter(|_| self.config.tls_doors_at(addr).management);
        let management_tls = management_tls.map(|tls| Arc::clone(&tls.management));
        running.push(self.spawn_http(listener, management_tls, Arc::clone(&management), bounds));
        log::debug!("management listens on port {port}");
        // One that waits: a newer one takes its place.
        let (jobs, taken) = async_channel::bounded(1);
        let provision = Provision::new(Arc::clone(&self.deployer), store, workers.clone(), self.shutdown.clone());
        running.push(self.executor.spawn(provision.run(taken)));
        let reload = Reload {
            layers: Arc::new(layers),
            settings,
            config: self.config.clone(),
            front_doors: doors,
            tokens,
            tls,
            deployer: Arc::clone(&self.deployer),
            management,
            jobs,
        };
        reload.provision();

        let open = reload.front_doors.iter().map(|(door, port)| format!("{door} on port {port}, ")).collect::<String>();
        let open = format!("{open}management on port {port}");
        self.manager.ready(&format!("{open}; functions are started"));
        let restore = async {
            let taken_over = self.deployer.restore(stored).await;
            self.manager.status(&open);
            self.deployer.sweep_late(&taken_over).await;
            futures_lite::future::pending().await
        };
        let signal = until_stopped(signals, reload, &workers, self.manager).or(restore).await;
        self.manager.stopping();
        log::info!("stopping: {signal}");
        self.stop(running).await;
        Ok(())
    }

    /// What is wrong with the operator's runtimes keeps the server from starting, so that it is seen where it was written; but not
    /// where functions that are stored have them: the others would stay away with these at a board's next power cut.
    fn refuse_faults(&self, stored: &Stored) -> Result<(), String> {
        let (borne, refused): (Vec<_>, Vec<_>) =
            self.faults.iter().partition(|fault| fault.runtime.is_some_and(|runtime| stored.have(runtime)));
        for fault in borne {
            log::error!("functions with an env that cannot be used do not start: {}", fault.text);
        }
        let texts: Vec<_> = refused.iter().map(|fault| format!("--runtimes: {}", fault.text)).collect();
        // Each is a line as an error of its own is.
        if texts.is_empty() { Ok(()) } else { Err(texts.join("\ntinyfaas: ")) }
    }

    /// The doors close, calls in flight finish within `--grace`, handlers are stopped, or left where that is wanted.
    async fn stop(&self, running: Vec<async_executor::Task<()>>) {
        self.shutdown.begin();
        let doors = async {
            for task in running {
                task.await;
            }
        };
        // Calls that were on their way when the doors closed are taken; then there are no new ones.
        let last_calls = async {
            Timer::after(LAST_CALLS).await;
            self.dispatch.stop();
            futures_lite::future::pending().await
        };
        let late = async {
            Timer::after(self.config.grace).await;
            log::warn!("calls were cut off: they took longer than --grace");
        };
        doors.or(last_calls).or(late).await;
        self.dispatch.stop();
        if self.config.keep_handlers {
            self.deployer.leave().await;
        } else {
            self.deployer.stop().await;
        }
    }

    fn coap_config(&self, addr: SocketAddr) -> front::coap::Config {
        let mut config = front::coap::Config::new(addr);
        config.multicast = self.config.coap_multicast;
        config.endpoint.max_body = usize::try_from(self.config.coap_max_body).unwrap_or(usize::MAX);
        config.endpoint.rate = u32::try_from(self.config.coap_rate).unwrap_or(u32::MAX);
        config.endpoint.echo = self.config.coap_echo;
        config.endpoint.observe_interval = self.config.coap_observe_interval.as_millis() as u64;
        config
    }

    fn grpc_config(&self) -> front::grpc::Config {
        front::grpc::Config {
            connections: self.config.max_connections,
            connections_each: self.config.connections_each(),
            message: usize::try_from(self.config.grpc_max_message).unwrap_or(usize::MAX),
            handshake_timeout: self.config.head_timeout,
            idle_timeout: self.config.grpc_idle_timeout,
            body_timeout: self.config.body_timeout,
            question_timeout: self.config.timeout,
            grace: self.config.grace,
            ..front::grpc::Config::default()
        }
    }

    fn http_bounds(&self, connections: usize, connections_each: usize, max_body: u64) -> http_server::Bounds {
        http_server::Bounds {
            connections,
            connections_each,
            head_timeout: self.config.head_timeout,
            idle_timeout: self.config.idle_timeout,
            body_timeout: self.config.body_timeout,
            max_body: if max_body == 0 { u64::MAX } else { max_body },
        }
    }

    fn spawn_http<S: Service>(
        &self,
        listener: Async<TcpListener>,
        tls: Option<Arc<Acceptor>>,
        service: Arc<S>,
        bounds: http_server::Bounds,
    ) -> async_executor::Task<()> {
        let (buffers, shutdown) = (self.buffers.clone(), self.shutdown.clone());
        self.executor.spawn(http_server::run(listener, tls, service, bounds, buffers, self.executor, shutdown))
    }
}

/// Waits for the signal that stops the server, and reloads at each SIGHUP before; names the signal.
async fn until_stopped(
    signals: &Signals,
    mut reload: Reload,
    workers: &Workers,
    manager: &ServiceManager,
) -> &'static str {
    loop {
        match signals.next().await {
            Ok(Signal::HUP) if reload.is_of_use() => {
                manager.reloading();
                reload.reload(workers).await;
                manager.reloaded();
            }
            // A terminal that is closed sends it to what runs there.
            Ok(Signal::HUP) => {
                return "SIGHUP, and there is no --config, --functions, --token-file or --tls-cert to read again";
            }
            Ok(Signal::INT) => return "SIGINT",
            _ => return "SIGTERM",
        }
    }
}

/// Each connection needs a file, and the usual soft limit is 1024 for programs that use select(2): what the hard limit
/// allows is ours to take. Handlers have a limit of their own.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot raise the limit of open files: {e}");
    }
}

/// Takes over the inherited socket, or listens; the wildcard of IPv6 takes IPv4 as well, and a machine without IPv6 gets
/// that of IPv4.
fn listen(what: &str, addr: SocketAddr, inherited: &mut Inherited) -> Result<(Async<TcpListener>, u16), String> {
    let failed = |e: io::Error| format!("{what}: cannot listen on {addr}: {e}");
    let listener = match inherited.tcp(what)? {
        Some(listener) => Ok(listener),
        None => match TcpListener::bind(addr) {
            Err(e) if addr.is_ipv6() && addr.ip().is_unspecified() && e.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port()))
            }
            other => other,
        },
    };
    let listener = listener.and_then(Async::new).map_err(failed)?;
    let local = listener.get_ref().local_addr().map_err(failed)?;
    log::info!("{what} listens on {local}");
    Ok((listener, local.port()))
}

/// How long the engine may take to answer when it is found out whether there is one.
const PROBE: Duration = Duration::from_secs(5);

async fn choose_backend(
    config: &Config,
    store: &Store,
    workers: &Workers,
    executor: &'static StaticExecutor,
    front_door: &FrontDoor,
) -> Result<Arc<dyn Backend>, String> {
    let docker = || {
        let config = docker::Config { front_door: front_door.clone(), ..config.docker(store.instance().to_owned())? };
        Docker::new(config, executor, workers.clone())
    };
    let process = || -> Result<Arc<dyn Backend>, String> {
        let config = process::Config {
            run_dir: store.run_dir(),
            instance: store.instance().to_owned(),
            hardened: !config.no_hardening,
            first_user: config.handler_uid,
            network: config.gives_network(),
            exposed: config.exposed(),
            install_timeout: config.install_timeout,
            front_door: front_door.clone(),
        };
        Ok(Arc::new(process::Process::new(config, executor, workers.clone())?))
    };
    match config.backend {
        // An engine that is not up yet is waited for when functions are restored, and told of when one is deployed.
        BackendChoice::Docker => Ok(Arc::new(docker()?)),
        BackendChoice::Process => process(),
        BackendChoice::Auto => {
            let docker = docker()?;
            match docker.probe(PROBE).await {
                Ok(()) => Ok(Arc::new(docker)),
                Err(e) => {
                    log::warn!("functions run as processes, which are contained less than containers are: {e}");
                    if config.keep_handlers {
                        log::warn!("--keep-handlers is of no effect: processes end with the server");
                    }
                    process()
                }
            }
        }
    }
}
