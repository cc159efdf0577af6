//! A function's dependencies: installed once a deployment in a container that is thrown away, and kept as an image.

use std::sync::Arc;

use bollard::models::{ContainerConfig, ContainerCreateBody, Mount, MountType};
use bollard::query_parameters::{CommitContainerOptions, CreateContainerOptions, StartContainerOptions};
use futures_lite::FutureExt;

use super::container::{self, FUNCTION_DIR, Owner};
use super::image::{self, function_tag};
use super::logs::{self, Tail};
use super::watch::{self, Exit};
use super::whole::whole;
use super::{Inner, Network, ask, files, labels, network};
use crate::backend::{BackendError, BackendErrorKind, Boxed, Lines, LogLine, Progress};
use crate::function::Deployment;
use crate::reactor::Timer;
use crate::runtimes::{Dependencies, HANDLER_DIR};
use crate::wire::zip;

/// What is kept of an installation's log for its error, in bytes.
const LOG: usize = 16 * 1024;
/// Lines of it that are asked for: more than fit.
const LOG_LINES: usize = 500;
/// Processes and threads of an installation: compilers of extensions may run in it.
const PIDS: i64 = 512;

/// Whether the function's archive names dependencies that have to be installed.
///
/// # Errors
/// The archive cannot be read.
pub async fn needed(inner: &Inner, deployment: &Deployment) -> Result<bool, BackendError> {
    let Some(declaration) = &image::known(deployment.runtime)?.dependencies else { return Ok(false) };
    let (package, subfolder) = (deployment.package.clone(), deployment.subfolder.clone());
    let bounds = inner.config.zip.clone();
    let read = move || declaration.are_asked_for_in(&mut files::open(&package, &bounds)?, &subfolder);
    match inner.workers.unblock(read).await {
        Ok(Ok(needed)) => Ok(needed),
        Err(e) | Ok(Err(zip::Error::Io(e))) => Err(BackendError {
            kind: BackendErrorKind::Engine,
            text: format!("cannot read the function's archive {}: {e}", deployment.package.display()),
        }),
        Ok(Err(refused)) => Err(function_error(refused.to_string())),
    }
}

/// Installs the dependencies of `deployment` on top of the image `base`, and makes an image of the result.
///
/// # Errors
/// With the tail of the installer's log where it failed. Nothing is left then.
pub async fn run(
    inner: &Arc<Inner>,
    deployment: &Deployment,
    base: &str,
    progress: &Progress,
) -> Result<(), BackendError> {
    let Some(declaration) = &image::known(deployment.runtime)?.dependencies else { return Ok(()) };
    log::info!("{} for {}, as {} asks for", declaration.what, deployment.name, declaration.file);
    progress.step(declaration.what);
    let (owned, deployment, base) = (Arc::clone(inner), deployment.clone(), base.to_string());
    let progress = progress.clone();
    let work = async move {
        let name = format!("tinyfaas-install-{}-{:08x}", deployment.name, fastrand::u32(..));
        let result = attempt(&owned, &deployment, &base, &name, declaration, &progress).await;
        container::give_up(&owned, &name).await;
        result
    };
    let undo = |inner: Arc<Inner>, image: String| -> Boxed<'static, ()> {
        Box::pin(async move {
            if let Err(fault) = image::remove(&inner, &image).await {
                log::warn!("the image {image} may be left over: {fault}");
            }
        })
    };
    whole(inner, Box::pin(work), undo).await.map(drop)
}

/// Installs in the container `name`; returns the image that it made of it.
async fn attempt(
    inner: &Arc<Inner>,
    deployment: &Deployment,
    base: &str,
    name: &str,
    how: &Dependencies,
    progress: &Progress,
) -> Result<String, BackendError> {
    let owner = Owner::of_handlers();
    network::ensure(inner).await?;
    let options = || Some(CreateContainerOptions { name: Some(name.into()), ..Default::default() });
    let create = || inner.engine.client.create_container(options(), body(inner, deployment, base, owner, how));
    match inner.call(Box::pin(create())).await {
        // The runtime's image is one for all instances, and one of them was cleaned up just now.
        Err(fault) if fault.is(404) => {
            image::ensure_runtime(inner, deployment.runtime, progress).await?;
            inner.call(Box::pin(create())).await?;
        }
        other => drop(other?),
    }
    files::send_function(inner, deployment, name, owner, files::Place::Root).await?;
    inner.call(Box::pin(inner.engine.client.start_container(name, None::<StartContainerOptions>))).await?;
    let limit = inner.config.install_timeout;
    let late = async {
        Timer::after(limit).await;
        None
    };
    let log = |sender| -> Boxed<'_, ()> {
        // What it says matters less than how it ends.
        Box::pin(
            async move { drop(logs::send(inner, name, Lines { follow: true, ..Lines::default() }, &sender).await) },
        )
    };
    let ended = async { Some(watch::exited(inner, name).await) };
    match progress.beside(log, ended.or(late)).await {
        Some(Exit { status: Some(0), .. }) => commit(inner, deployment, base, name).await,
        Some(exit) => Err(failed(inner, name, &format!("the {} failed: {exit}", how.what)).await),
        None => Err(failed(inner, name, &format!("the {} took longer than {limit:?}", how.what)).await),
    }
}

fn body(inner: &Inner, deployment: &Deployment, base: &str, owner: Owner, how: &Dependencies) -> ContainerCreateBody {
    let config = &inner.config;
    let mut host = container::host_config(inner);
    host.pids_limit = Some(PIDS);
    if config.network == Network::None {
        // Handlers have no network; what they need still has to come from somewhere.
        host.network_mode = Some("bridge".into());
    }
    host.readonly_rootfs = None;
    host.tmpfs = None;
    // Caches and build folders go where the image does not remember them.
    host.mounts = Some(vec![Mount { typ: Some(MountType::VOLUME), target: Some("/tmp".into()), ..Default::default() }]);
    ContainerCreateBody {
        image: Some(base.into()),
        user: config.hardened.then(|| owner.user()),
        working_dir: Some(FUNCTION_DIR.into()),
        env: Some(vec!["HOME=/tmp".into()]),
        entrypoint: Some(how.command("/tmp/cache", HANDLER_DIR).collect()),
        cmd: Some(Vec::new()),
        labels: Some(labels::of_deployment(config, deployment)),
        host_config: Some(host),
        ..Default::default()
    }
}

/// Makes an image of what was installed, which starts what `base` starts.
async fn commit(inner: &Inner, deployment: &Deployment, base: &str, name: &str) -> Result<String, BackendError> {
    let was = inner.ask::<ask::InspectedImage>(format!("/images/{base}/json")).await?.config.unwrap_or_default();
    let config = ContainerConfig {
        entrypoint: Some(was.entrypoint.unwrap_or_default()),
        cmd: was.cmd,
        user: was.user,
        working_dir: was.working_dir,
        env: was.env,
        labels: Some(labels::of_deployment(&inner.config, deployment)),
        ..Default::default()
    };
    let image = function_tag(&inner.config, deployment);
    let (repo, tag) = image.split_once(':').unwrap_or((&image, "latest"));
    let options = CommitContainerOptions {
        container: Some(name.into()),
        repo: Some(repo.into()),
        tag: Some(tag.into()),
        ..Default::default()
    };
    let request = inner.engine.client.commit_container(options, config);
    inner.engine.call(inner.config.transfer_timeout, Box::pin(request)).await?;
    Ok(image)
}

/// The error of an installation: its reason, and the tail of its log.
async fn failed(inner: &Inner, name: &str, why: &str) -> BackendError {
    let (sender, lines) = async_channel::bounded::<LogLine>(8);
    let collect = async {
        let mut tail = Tail::new(LOG);
        while let Ok(line) = lines.recv().await {
            tail.push(&line.text);
            tail.push(b"\n");
        }
        tail.text()
    };
    let send = async move { logs::send(inner, name, Lines::last(LOG_LINES), &sender).await };
    let (sent, tail) = futures_lite::future::zip(send, collect).await;
    if let Err(fault) = sent {
        return function_error(format!("{why} (its log cannot be read: {fault})"));
    }
    function_error(format!("{why}\n{tail}"))
}

fn function_error(text: String) -> BackendError {
    BackendError { kind: BackendErrorKind::Function, text }
}
