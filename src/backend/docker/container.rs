//! One container: what it is made of, how it starts, where it can be reached, how it goes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use futures_lite::future;

use super::ask::{Container, filtered};
use super::engine::{Fault, one_line};
use super::whole::whole;
use super::{Config, Inner, Network, Reach, cgroup, files, image, labels, network, transport};
use crate::backend::{BackendError, BackendErrorKind, Progress, Started, front_door};
use crate::function::Deployment;
use crate::net::Address;

/// The folder of the function's files in the container.
pub const FUNCTION_DIR: &str = "/fn";
/// Tells a handler which socket to listen on.
const ENV_SOCKET: &str = "TINYFAAS_SOCKET";
/// Tells a handler how many calls it gets at once.
const ENV_CONCURRENCY: &str = "TINYFAAS_CONCURRENCY";
/// The port that the contract gives a handler.
const PORT: u16 = 8000;
/// Where the handler's own folder is mounted in the container.
pub const SOCKET_FOLDER: &str = "/run/tinyfaas";
/// The socket in that folder.
pub const SOCKET: &str = "fn.sock";
/// That port in the engine's words.
const PORT_KEY: &str = "8000/tcp";
/// Whom handlers run as where we are root: `nobody` of Debian and Alpine.
const NOBODY: u32 = 65534;
/// How `/tmp` is mounted where the root is read-only: in memory that counts as the handler's own. Programs may be in it, as
/// on an engine's own disk.
const SCRATCH: &str = "rw,exec,nosuid,nodev,mode=1777";

/// The engine's name for no network but a loopback of the container's own.
const NO_NETWORK: &str = "none";

/// Who owns the files in a container, and runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The user of handlers. Where we are root, `nobody`; else ourselves, since only root can give a folder away and
    /// the handler makes its socket in ours.
    pub fn of_handlers() -> Self {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return Self { uid: NOBODY, gid: NOBODY };
        }
        Self { uid: uid.as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// The form of Docker's `User`.
    pub fn user(self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }
}

/// A new handler's container name: the function's name, and eight digits that also name its socket folder.
fn new_name(deployment: &Deployment) -> String {
    format!("tinyfaas-{}-{:08x}", deployment.name, fastrand::u32(..))
}

/// The folder on this machine for the socket of the handler `id`; `None` where the name is not one of ours.
pub fn socket_folder(config: &Config, id: &str) -> Option<PathBuf> {
    let (_, short) = id.rsplit_once('-')?;
    (short.len() == 8 && short.bytes().all(|b| b.is_ascii_hexdigit())).then(|| config.run_dir().join(short))
}

/// Starts one more handler of a prepared deployment.
///
/// # Errors
/// Nothing is left then.
pub async fn start(inner: &Arc<Inner>, deployment: &Deployment) -> Result<Started, BackendError> {
    let (owned, deployment) = (Arc::clone(inner), deployment.clone());
    let work = async move {
        let name = new_name(&deployment);
        match attempt(&owned, &deployment, &name).await {
            Ok(addresses) => Ok(Started { id: name, addresses }),
            Err(e) => {
                give_up(&owned, &name).await;
                Err(e)
            }
        }
    };
    whole(inner, Box::pin(work), |inner, started| Box::pin(async move { give_up(&inner, &started.id).await })).await
}

async fn attempt(inner: &Arc<Inner>, deployment: &Deployment, name: &str) -> Result<Vec<Address>, BackendError> {
    let with_init = inner.has_init.load(Ordering::Relaxed);
    let id = match create(inner, deployment, name).await {
        // Somebody removed the image since it was prepared.
        Err(Failed::NoImage(_)) => {
            image::prepare(inner, deployment, &Progress::default()).await?;
            create(inner, deployment, name).await.map_err(BackendError::from)?
        }
        other => other?,
    };
    let request = inner.engine.client.start_container(name, None::<StartContainerOptions>);
    match inner.call(Box::pin(request)).await {
        // Small systems package the engine without it. Our programs do without one as well.
        Err(fault) if with_init && fault.to_string().contains("docker-init") => {
            // Another that is started beside it may have found out.
            if inner.has_init.swap(false, Ordering::Relaxed) {
                log::warn!("the engine has no docker-init: processes that a function leaves behind stay until it ends");
            }
            remove(inner, name).await?;
            Box::pin(attempt(inner, deployment, name)).await
        }
        Err(fault) => Err(explain(fault, "start", deployment)),
        Ok(()) => match known_address(inner, deployment, name) {
            Some(address) => {
                cgroup::note(inner, name, &id);
                Ok(vec![address])
            }
            None => addresses(inner, name).await,
        },
    }
}

enum Failed {
    NoImage(Fault),
    Otherwise(BackendError),
}

impl From<BackendError> for Failed {
    fn from(e: BackendError) -> Self {
        Self::Otherwise(e)
    }
}

impl From<Failed> for BackendError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NoImage(fault) => fault.into(),
            Failed::Otherwise(e) => e,
        }
    }
}

/// Makes the container with all that is in it, not yet started; returns the engine's id of it.
async fn create(inner: &Arc<Inner>, deployment: &Deployment, name: &str) -> Result<String, Failed> {
    if !deployment.network && !inner.uses_socket() {
        let text = "a handler without a network can be reached only by socket: the server runs with --reach tcp, or on another machine's engine";
        return Err(BackendError { kind: BackendErrorKind::Function, text: text.into() }.into());
    }
    let network = async { network::ensure(inner).await.map_err(BackendError::from) };
    let (source, gateway) = future::try_zip(image::source(inner, deployment), network).await?;
    let folder = if inner.uses_socket() { socket_folder(&inner.config, name) } else { None };
    if let Some(folder) = &folder {
        make_folder(folder)
            .map_err(|e| machine(&format!("cannot make the handler's folder {}: {e}", folder.display())))?;
    }
    let mut body = body(inner, deployment, folder.as_deref(), gateway);
    body.image = Some(source.image);
    if source.send_files && inner.config.is_read_only() {
        // A volume can be filled before the start even where the root is read-only.
        body.volumes = Some(vec![FUNCTION_DIR.into()]);
    }
    let options = CreateContainerOptions { name: Some(name.into()), ..Default::default() };
    let created = inner.call(Box::pin(inner.engine.client.create_container(Some(options), body))).await;
    let created = created.map_err(|fault| {
        if fault.is(404) { Failed::NoImage(fault) } else { unseen(explain(fault, "create", deployment), folder).into() }
    })?;
    for warning in created.warnings {
        log::debug!("container {name}: {}", one_line(&warning));
    }
    if source.send_files {
        // The engine leaves the volume's top to root, and so what is below it: nothing of it is the handler's to write.
        let (owner, place) = if inner.config.is_read_only() {
            (Owner { uid: 0, gid: 0 }, files::Place::Volume)
        } else {
            (Owner::of_handlers(), files::Place::Root)
        };
        files::send_function(inner, deployment, name, owner, place).await?;
    }
    Ok(created.id)
}

fn body(inner: &Inner, deployment: &Deployment, folder: Option<&Path>, gateway: Option<IpAddr>) -> ContainerCreateBody {
    let config = &inner.config;
    let mut env = deployment.envs.clone();
    let ours = [ENV_SOCKET, ENV_CONCURRENCY, front_door::VARIABLE];
    let ours = |env: &str| env.split('=').next().is_some_and(|name| ours.contains(&name));
    env.retain(|e| !ours(e));
    env.push(format!("{ENV_CONCURRENCY}={}", deployment.limits.concurrency));
    if folder.is_some() {
        env.push(format!("{ENV_SOCKET}={SOCKET_FOLDER}/{SOCKET}"));
    }
    env.extend(front_door(inner, deployment, gateway).map(|url| format!("{}={url}", front_door::VARIABLE)));
    let mut host = host_config(inner);
    if !deployment.network {
        host.network_mode = Some(NO_NETWORK.into());
    }
    let limits = &deployment.limits;
    if limits.memory > 0 {
        let memory = i64::try_from(limits.memory).unwrap_or(i64::MAX);
        host.memory = Some(memory);
        // The same bound for memory and swap together: no swap.
        host.memory_swap = Some(memory);
    }
    if limits.cpu_millis > 0 {
        host.nano_cpus = Some(i64::from(limits.cpu_millis) * 1_000_000);
    }
    host.pids_limit = Some(i64::from(if limits.pids > 0 { limits.pids } else { config.pids }));
    host.mounts = folder.map(|folder| {
        vec![Mount {
            typ: Some(MountType::BIND),
            source: Some(folder.display().to_string()),
            target: Some(SOCKET_FOLDER.into()),
            ..Default::default()
        }]
    });
    if inner.is_remote() && deployment.network {
        let binding = PortBinding { host_ip: inner.publish_at(), host_port: None };
        host.port_bindings = Some(HashMap::from([(PORT_KEY.to_string(), Some(vec![binding]))]));
    }
    let mut labels = labels::of_deployment(config, deployment);
    let program = if is_foreign(config, deployment) { labels::FOREIGN } else { labels::OWN };
    labels.insert(labels::HANDLER.into(), program.into());
    labels.insert(labels::RUN.into(), inner.run.clone());
    ContainerCreateBody {
        user: config.hardened.then(|| Owner::of_handlers().user()),
        env: Some(env),
        labels: Some(labels),
        exposed_ports: inner.is_remote().then(|| vec![PORT_KEY.to_string()]),
        host_config: Some(host),
        ..Default::default()
    }
}

/// The URL of our HTTP front door from inside the container; an engine on another machine has no gateway to ours.
fn front_door(inner: &Inner, deployment: &Deployment, gateway: Option<IpAddr>) -> Option<String> {
    let door = &inner.config.front_door;
    match &inner.config.network {
        _ if !deployment.network || !inner.config.engine.is_local() => None,
        Network::Named(name) if name == "host" => door.here(),
        _ => door.by(gateway?),
    }
}

/// What containers of handlers and of installations have in common.
pub fn host_config(inner: &Inner) -> HostConfig {
    let config = &inner.config;
    let half = (config.log_bytes / 2).max(4096).to_string();
    let mut host = HostConfig {
        init: Some(inner.has_init.load(Ordering::Relaxed)),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".to_string(), half), ("max-file".to_string(), "2".to_string())])),
        }),
        network_mode: Some(match &config.network {
            Network::Shared => config.network_name(),
            Network::None => NO_NETWORK.into(),
            Network::Named(name) => name.clone(),
        }),
        ..Default::default()
    };
    if config.hardened {
        host.cap_drop = Some(vec!["ALL".into()]);
        host.security_opt = Some(vec!["no-new-privileges".into()]);
        if config.read_only {
            host.readonly_rootfs = Some(true);
            host.tmpfs = Some(HashMap::from([("/tmp".to_string(), format!("{SCRATCH},size={}", config.scratch))]));
        }
    }
    host
}

/// Makes the folder of one handler's socket, writable by the container's user.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    if let Some(parent) = folder.parent() {
        builder.recursive(true).create(parent)?;
    }
    match builder.recursive(false).create(folder) {
        // The second try of a start.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let owner = Owner::of_handlers();
    if rustix::process::geteuid().is_root() { chown(folder, Some(owner.uid), Some(owner.gid)) } else { Ok(()) }
}

/// Whether the handler's program is not known to be ours: it may know only the contract's TCP port.
fn is_foreign(config: &Config, deployment: &Deployment) -> bool {
    deployment.image.is_some() || config.image(deployment.runtime).is_some()
}

/// Where the handler listens, if there is no doubt of it and the engine needs not be asked: ours in the folder that it was given.
fn known_address(inner: &Inner, deployment: &Deployment, id: &str) -> Option<Address> {
    let no_other = inner.config.reach == Reach::Socket || !is_foreign(&inner.config, deployment);
    let folder = socket_folder(&inner.config, id).filter(|_| inner.uses_socket() && no_other)?;
    Some(Address::Unix(folder.join(SOCKET)))
}

/// Where the handler `id` may listen. Empty where it exited at once and had no socket.
async fn addresses(inner: &Inner, id: &str) -> Result<Vec<Address>, BackendError> {
    let filters = HashMap::from([("name".to_string(), vec![format!("^/{id}$")])]);
    let found: Vec<Container> = inner.ask(filtered("/containers/json?all=true", &filters)).await?;
    match found.first() {
        Some(summary) => addresses_of(inner, id, summary).await,
        None => Err(machine(&format!("the container {id} was removed by somebody else while it started"))),
    }
}

/// Where the listed container may listen, best first. Its cgroup is looked for as well.
///
/// # Errors
/// When the name of a remote engine cannot be resolved.
pub async fn addresses_of(inner: &Inner, id: &str, summary: &Container) -> Result<Vec<Address>, BackendError> {
    if let Some(full) = &summary.id {
        cgroup::note(inner, id, full);
    }
    let mut addresses = Vec::with_capacity(2);
    if summary.mounts(SOCKET_FOLDER)
        && let Some(folder) = socket_folder(&inner.config, id)
    {
        addresses.push(Address::Unix(folder.join(SOCKET)));
    }
    // Ours does not listen on TCP as well, and asking there costs: nobody answers at an address that is used again.
    let own = summary.label(labels::HANDLER) == Some(labels::OWN);
    if inner.config.reach == Reach::Socket || own && !addresses.is_empty() {
        return Ok(addresses);
    }
    if inner.is_remote() {
        if let (Some(port), Some(host)) = (summary.published(PORT), inner.engine_host()) {
            let resolved = transport::resolve(&inner.workers, host, port).await;
            let resolved = resolved.map_err(|e| machine(&format!("cannot resolve the engine's host {host}: {e}")))?;
            addresses.extend(resolved.first().map(|a| Address::Tcp(*a)));
        }
    } else {
        let ip = summary.addresses().find_map(|ip| ip.parse::<IpAddr>().ok());
        addresses.extend(ip.map(|ip| Address::Tcp(SocketAddr::new(ip, PORT))));
    }
    Ok(addresses)
}

/// Stops the container, in the grace that the configuration gives, and removes it and its folder.
///
/// # Errors
/// When the engine refuses or cannot be reached. What is gone already is no error.
pub async fn stop(inner: &Inner, id: &str) -> Result<(), BackendError> {
    let seconds = inner.config.stop_grace.as_millis().div_ceil(1000);
    let options = StopContainerOptions { t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)), signal: None };
    let request = inner.engine.client.stop_container(id, Some(options));
    let limit = inner.config.call_timeout.saturating_add(inner.config.stop_grace);
    match inner.engine.call(limit, Box::pin(request)).await {
        // A container that does not stop is removed by force all the same.
        Ok(()) | Err(Fault::Refused(..)) => remove(inner, id).await,
        Err(fault) => Err(fault.into()),
    }
}

/// Removes the container with its volumes, running or not, and the folder of its socket.
///
/// # Errors
/// When the engine refuses or cannot be reached. What is gone already is no error.
pub async fn remove(inner: &Inner, id: &str) -> Result<(), BackendError> {
    cgroup::forget(inner, id);
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    match inner.call(Box::pin(inner.engine.client.remove_container(id, Some(options)))).await {
        // 409: it is being removed already.
        Err(fault) if !fault.is(404) && !fault.is(409) => return Err(fault.into()),
        _ => {}
    }
    if let Some(folder) = socket_folder(&inner.config, id) {
        remove_folder(&folder);
    }
    Ok(())
}

/// Removes a handler's folder; what cannot be removed is logged, since nobody can do more about it.
pub fn remove_folder(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => log::warn!("cannot remove {}: {e}", folder.display()),
        _ => {}
    }
}

/// Removes what is left of a container that nobody wants; where that fails, the log says so.
pub async fn give_up(inner: &Inner, name: &str) {
    if let Err(e) = remove(inner, name).await {
        log::warn!("the container {name} may be left over: {e}");
    }
}

fn explain(fault: Fault, what: &str, deployment: &Deployment) -> BackendError {
    let mut error = BackendError::from(fault);
    error.text = format!("the engine did not {what} a container for {}: {}", deployment.name, error.text);
    error
}

/// Adds what to do where the engine complains of the folder that we made: it looks for it on its own machine.
fn unseen(mut error: BackendError, folder: Option<PathBuf>) -> BackendError {
    if folder.is_some_and(|folder| error.text.contains(&*folder.to_string_lossy())) {
        error.text.push_str(
            " (the engine does not see our state directory: where tinyfaas runs in a container, mount it from a folder \
             of the same path, -v DIR:DIR with --state-dir DIR; or use --reach tcp)",
        );
    }
    error
}

fn machine(text: &str) -> BackendError {
    BackendError { kind: BackendErrorKind::Engine, text: text.into() }
}
