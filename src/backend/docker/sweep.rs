//! What is there of an instance, and how what is not wanted goes: at the start, and by `tinyfaas clean`.

use std::fs;
use std::time::{Duration, Instant};

use bollard::query_parameters::{RemoveContainerOptions, RemoveImageOptions};

use super::ask::{Container, Image, Network, filtered};
use super::engine::{Engine, Fault};
use super::{Inner, container, image, labels, network};
use crate::backend::{BackendError, Found, Started};
use crate::function::{Deployment, Name, Runtime};
use crate::reactor::Timer;
use crate::runtimes;

/// The questions for what there is.
const RUNNING: &str = "/containers/json";
const ALL: &str = "/containers/json?all=true";
const IMAGES: &str = "/images/json";

async fn list(inner: &Inner, all: bool) -> Result<Vec<Container>, Fault> {
    inner.ask(filtered(if all { ALL } else { RUNNING }, &labels::filter(Some(&inner.config.instance)))).await
}

/// The instance's handlers that run.
///
/// # Errors
/// When the engine refuses or cannot be reached.
pub async fn running(inner: &Inner) -> Result<Vec<Found>, BackendError> {
    let mut found = Vec::new();
    for summary in list(inner, false).await? {
        if summary.label(labels::HANDLER).is_none() {
            continue;
        }
        let name = summary.label(labels::FUNCTION).and_then(|n| Name::parse(n).ok());
        if let (Some(id), Some(name), Some(digest)) = (summary.name(), name, summary.label(labels::DIGEST)) {
            let addresses = container::addresses_of(inner, id, &summary).await?;
            found.push(Found { started: Started { id: id.into(), addresses }, name, digest: digest.into() });
        }
    }
    Ok(found)
}

/// Removes everything of the instance that belongs to none of `keep`. Runtimes' images cost a build: they stay unless they
/// are another version's and nothing runs on them.
///
/// # Errors
/// When the engine refuses or cannot be reached.
pub async fn sweep(inner: &Inner, keep: &[Deployment]) -> Result<(), BackendError> {
    let kept = |digest: &str| keep.iter().any(|d| d.digest == digest);
    let mut folders = Vec::new();
    let running = running(inner).await?;
    for summary in list(inner, true).await? {
        let Some(id) = summary.name() else { continue };
        if running.iter().any(|f| f.started.id == id && kept(&f.digest)) {
            folders.extend(container::socket_folder(&inner.config, id));
            continue;
        }
        log::info!("removing the container {id}: nothing that is deployed needs it");
        container::remove(inner, id).await?;
    }
    let images = inner.ask::<Vec<Image>>(filtered(IMAGES, &labels::filter(Some(&inner.config.instance)))).await?;
    for found in images {
        if found.label(labels::DIGEST).is_some_and(|d| !kept(d)) {
            image::remove(inner, &found.id).await?;
        }
        // That of a runtime that is not here any more stays: it may come back, and need no build then.
        if let Some(Ok(runtime)) = found.label(labels::RUNTIME).map(Runtime::parse)
            && runtimes::find(runtime).is_some()
        {
            let current = image::runtime_tag(inner, runtime).await?;
            for name in found.names().into_iter().filter(|name| *name != current) {
                log::info!("removing the image {name}: {current} takes its place");
                image::remove_unused(inner, name).await?;
            }
        }
    }
    if keep.is_empty() {
        network::remove(inner).await?;
    }
    for entry in fs::read_dir(inner.config.run_dir()).into_iter().flatten().flatten() {
        let path = entry.path();
        if !folders.contains(&path) {
            container::remove_folder(&path);
        }
    }
    Ok(())
}

/// Removes handlers that an earlier run asked for and that only came after the [`sweep`]: the engine goes on with what it was asked
/// for when who asked was killed. `taken` are those that this run took over.
///
/// # Errors
/// When the engine refuses or cannot be reached.
pub async fn sweep_late(inner: &Inner, taken: &[String]) -> Result<(), BackendError> {
    for summary in list(inner, true).await? {
        let of_earlier = summary.label(labels::RUN).is_some_and(|run| run != inner.run);
        if let (true, Some(id)) = (of_earlier, summary.name())
            && !taken.iter().any(|t| t == id)
        {
            log::info!("removing the container {id}: an earlier run of the server asked for it");
            container::remove(inner, id).await?;
        }
    }
    Ok(())
}

/// How long another program's removal of a container may take, and how often it is looked at.
const REMOVAL: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// Removes a container. Where another program does so just now its end is waited for: what the container used is in use until then.
async fn remove_container(engine: &Engine, limit: Duration, id: &str) -> Result<(), Fault> {
    let end = Instant::now() + REMOVAL;
    loop {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match engine.call(limit, Box::pin(engine.client.remove_container(id, Some(options)))).await {
            Err(fault) if fault.is(409) && Instant::now() < end => Timer::after(LOOK).await,
            result => return result,
        };
    }
}

/// Removes all containers, networks and images of one instance, or of any where `instance` is `None`, and returns a
/// line for each that says what it was. What another program removed first is passed over.
///
/// # Errors
/// When the engine refuses or cannot be reached.
pub async fn clean(engine: &Engine, limit: Duration, instance: Option<&str>) -> Result<Vec<String>, BackendError> {
    let filters = labels::filter(instance);
    let gone = |result: Result<(), Fault>| match result {
        Err(fault) if fault.is(404) => Ok(false),
        Err(fault) => Err(fault),
        Ok(()) => Ok(true),
    };
    let mut removed = Vec::new();
    let client = &engine.client;

    for summary in engine.ask::<Vec<Container>>(limit, filtered(ALL, &filters)).await? {
        let Some(id) = summary.name() else { continue };
        if gone(remove_container(engine, limit, id).await)? {
            removed.push(format!("container {id}"));
        }
    }
    for found in engine.ask::<Vec<Network>>(limit, filtered("/networks", &filters)).await? {
        let result = engine.call(limit, Box::pin(client.remove_network(&found.id))).await;
        // A server that still runs has started another handler on it.
        if matches!(&result, Err(fault) if fault.is(403)) {
            log::info!("the network {} stays: a container uses it", found.name);
        } else if gone(result)? {
            removed.push(format!("network {}", found.name));
        }
    }
    let mut images: Vec<Image> = engine.ask(limit, filtered(IMAGES, &filters)).await?;
    // Those of functions are made from those of runtimes, and have to go first.
    images.sort_by_key(|image| image.label(labels::RUNTIME).is_some());
    for found in images {
        // A runtime's image serves every instance of this version: where another one still needs it, it stays.
        let shared = found.label(labels::RUNTIME).is_some();
        for name in found.names() {
            let options = RemoveImageOptions { force: !shared, ..Default::default() };
            let result = engine.call(limit, Box::pin(client.remove_image(name, Some(options), None))).await;
            if matches!(&result, Err(fault) if shared && fault.is(409)) {
                log::info!("the image {name} stays: another instance uses it");
            } else if gone(result.map(drop))? {
                removed.push(format!("image {name}"));
            }
        }
    }
    Ok(removed)
}
