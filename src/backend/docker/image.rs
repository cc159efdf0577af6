//! Images: each runtime's, built once an engine, and those of functions with dependencies.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bollard::query_parameters::{BuildImageOptions, RemoveImageOptions};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::engine::{Fault, one_line};
use super::files::{self, Pipe};
use super::logs::Tail;
use super::{Config, Inner, Network, elf, install, labels, network};
use crate::backend::{BackendError, BackendErrorKind, Progress};
use crate::function::{Deployment, Runtime};
use crate::runtimes::{Content, Spec, spec};

/// What is kept of a build's log for its error.
const BUILD_LOG: usize = 4096;

/// What a handler's container is made from.
pub struct Source {
    /// The image's reference.
    pub image: String,
    /// Whether the function's files still have to be sent: they are not in the image.
    pub send_files: bool,
}

/// What a handler of `deployment` is made from.
///
/// # Errors
/// The archive or our own executable cannot be read.
pub async fn source(inner: &Inner, deployment: &Deployment) -> Result<Source, BackendError> {
    if let Some(image) = &deployment.image {
        return Ok(Source { image: image.clone(), send_files: false });
    }
    if install::needed(inner, deployment).await? {
        return Ok(Source { image: function_tag(&inner.config, deployment), send_files: false });
    }
    Ok(Source { image: runtime_tag(inner, deployment.runtime).await?, send_files: true })
}

/// Makes ready the images that handlers of `deployment` start from.
///
/// # Errors
/// With the log's tail where a build or an installation failed.
pub async fn prepare(inner: &Arc<Inner>, deployment: &Deployment, progress: &Progress) -> Result<(), BackendError> {
    if let Some(image) = &deployment.image {
        if exists(inner, image).await? {
            return Ok(());
        }
        progress.step("pull of the image");
        return pull(inner, image).await;
    }
    let runtime = ensure_runtime(inner, deployment.runtime, progress).await?;
    if install::needed(inner, deployment).await? && !exists(inner, &function_tag(&inner.config, deployment)).await? {
        install::run(inner, deployment, &runtime, progress).await?;
    }
    Ok(())
}

/// Removes the image of a function's version. One that is gone is no error.
///
/// # Errors
/// When the engine refuses or cannot be reached.
pub async fn forget(inner: &Inner, deployment: &Deployment) -> Result<(), BackendError> {
    Ok(remove(inner, &function_tag(&inner.config, deployment)).await?)
}

/// Removes an image, its tags as well. One that is gone is no error.
///
/// # Errors
/// [`Fault`].
pub async fn remove(inner: &Inner, image: &str) -> Result<(), Fault> {
    let options = RemoveImageOptions { force: true, ..Default::default() };
    match inner.call(Box::pin(inner.engine.client.remove_image(image, Some(options), None))).await {
        Err(fault) if !fault.is(404) => Err(fault),
        _ => Ok(()),
    }
}

/// Removes a tag, and the image with its last one, unless a container is made of it. One that is gone is no error.
///
/// # Errors
/// [`Fault`].
pub async fn remove_unused(inner: &Inner, tag: &str) -> Result<(), Fault> {
    match inner.call(Box::pin(inner.engine.client.remove_image(tag, None::<RemoveImageOptions>, None))).await {
        Err(fault) if !fault.is(404) && !fault.is(409) => Err(fault),
        _ => Ok(()),
    }
}

/// The tag of the image with the dependencies of one version of a function, apart for each instance.
/// Image names have no capitals; the digest tells functions apart that differ only in these.
pub fn function_tag(config: &Config, deployment: &Deployment) -> String {
    let name = deployment.name.as_str().to_ascii_lowercase();
    let digest: String = deployment.digest.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    format!("tinyfaas-fn-{name}:{digest}-{}", config.instance)
}

/// Has the engine get an image from where its name says.
///
/// # Errors
/// The engine's own reason, and what else can be done. It is the user who named it.
async fn pull(inner: &Inner, image: &str) -> Result<(), BackendError> {
    log::info!("the engine is to pull the image {image}");
    // Without a tag an engine would pull all there are.
    let last = image.rsplit('/').next().unwrap_or_default();
    let tag = if last.contains([':', '@']) { "" } else { "&tag=latest" };
    let name = form_urlencoded::byte_serialize(image.as_bytes()).collect::<String>();
    let pulled = inner.engine.work(inner.config.transfer_timeout, format!("/images/create?fromImage={name}{tag}"));
    pulled.await.map_err(|fault| match fault {
        Fault::Refused(_, why) => BackendError {
            kind: BackendErrorKind::Function,
            text: format!(
                "the image {image} is not on the engine and cannot be pulled: load it (docker load -i FILE) ({why})"
            ),
        },
        other => other.into(),
    })
}

/// Whether the engine has that image.
///
/// # Errors
/// [`Fault`].
pub async fn exists(inner: &Inner, image: &str) -> Result<bool, Fault> {
    match inner.ask::<IgnoredAny>(format!("/images/{image}/json")).await {
        Ok(_) => Ok(true),
        Err(fault) if fault.is(404) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// The tag of a runtime's image; it says nothing of whether the image is there.
///
/// # Errors
/// Our own executable cannot be read.
pub async fn runtime_tag(inner: &Inner, runtime: Runtime) -> Result<String, BackendError> {
    if let Some(image) = inner.config.image(runtime) {
        return Ok(image.to_string());
    }
    let mut tags = inner.tags.lock().await;
    if let Some((_, tag)) = tags.iter().find(|(r, _)| *r == runtime) {
        return Ok(tag.clone());
    }
    let spec = known(runtime)?;
    let base = inner.config.base(runtime).unwrap_or(spec.base).to_string();
    let executable = inner.config.executable.clone();
    let hash = inner.workers.unblock(move || hash(spec, &base, &executable)).await.and_then(|r| r);
    let hash = hash.map_err(|e| engine_error(format!("the image of {runtime} cannot be named: {e}")))?;
    let tag = format!("tinyfaas-{runtime}:{hash}");
    tags.push((runtime, tag.clone()));
    Ok(tag)
}

/// A digest of all that goes into a runtime's image, so that another program never runs under an old image.
/// `runtimes/export` names images by the same one.
fn hash(spec: &Spec, base: &str, executable: &Path) -> io::Result<String> {
    let mut sha = Sha256::new();
    sha.update((base.len() as u64).to_le_bytes());
    sha.update(base.as_bytes());
    let mut contents = |content: &Content| {
        let (size, mut content) = content.open(executable)?;
        sha.update(size.to_le_bytes());
        let mut piece = vec![0; 16 * 1024];
        loop {
            match content.read(&mut piece)? {
                0 => return io::Result::Ok(()),
                n => sha.update(piece.get(..n).unwrap_or_default()),
            }
        }
    };
    contents(&spec.dockerfile)?;
    for file in spec.files {
        contents(&Content::Bytes(file.name.as_bytes()))?;
        contents(&file.content)?;
    }
    Ok(sha.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect())
}

/// Builds the runtime's image where it is absent, and says what it is called.
///
/// # Errors
/// With the log's tail where the build failed; with what to do where an image that the operator named is absent.
pub async fn ensure_runtime(inner: &Inner, runtime: Runtime, progress: &Progress) -> Result<String, BackendError> {
    let tag = runtime_tag(inner, runtime).await?;
    if spec(runtime).is_ok_and(|spec| spec.runs) && !exists(inner, &tag).await? {
        network::ensure(inner).await?;
    }
    // Two deployments at once need one build.
    let _one = inner.making.lock().await;
    if exists(inner, &tag).await? {
        return Ok(tag);
    }
    if inner.config.image(runtime).is_some() {
        return Err(engine_error(format!(
            "the image {tag} for {runtime} is not on the engine: load it (docker load -i FILE, docker pull {tag}) \
             or name another with --runtime-image"
        )));
    }
    let base = inner.config.base(runtime).unwrap_or(known(runtime)?.base).to_string();
    log::info!("building the image {tag} for {runtime} from {base}");
    progress.step(format!("build of the image of {runtime}"));
    if let Err(e) = build(inner, runtime, &tag, &base, progress).await {
        if e.kind == BackendErrorKind::Engine && !exists(inner, &base).await? {
            return Err(engine_error(format!(
                "the base image {base} for {runtime} is not on the engine and cannot be pulled: load it \
                 (docker load -i FILE) or name another with --runtime-base {runtime}=IMAGE ({})",
                e.text
            )));
        }
        return Err(e);
    }
    Ok(tag)
}

async fn build(
    inner: &Inner,
    runtime: Runtime,
    tag: &str,
    base: &str,
    progress: &Progress,
) -> Result<(), BackendError> {
    let (spec, executable) = (known(runtime)?, inner.config.executable.clone());
    let mut marks = labels::of_instance(&inner.config);
    marks.insert(labels::RUNTIME.into(), runtime.name().into());
    let options = BuildImageOptions {
        t: Some(tag.into()),
        rm: true,
        forcerm: true,
        buildargs: Some(HashMap::from([("BASE".to_string(), base.to_string())])),
        labels: Some(marks),
        // What a Dockerfile runs has the network of installations: the engine's own bridge need not be there.
        networkmode: match &inner.config.network {
            _ if !spec.runs => None,
            Network::Shared => Some(inner.config.network_name()),
            Network::Named(name) => Some(name.clone()),
            Network::None => None,
        },
        ..Default::default()
    };
    files::feed(
        &inner.workers,
        move |pipe| Ok(context(spec, &executable, pipe)?),
        |pieces| async move {
            let body = bollard::body_try_stream(pieces);
            inner.engine.negotiate(inner.config.call_timeout).await?;
            let mut items = inner.engine.items(Box::pin(inner.engine.client.build_image(options, None, Some(body))));
            let mut log = Tail::new(BUILD_LOG);
            // Errors arrive in the middle of a 200.
            while let Some(item) = items.next(inner.config.transfer_timeout).await? {
                if let Some(text) = item.stream {
                    log.push(text.as_bytes());
                    progress.write(text.as_bytes());
                }
                if let Some(error) = item.error_detail {
                    let message = one_line(&error.message.unwrap_or_default());
                    return Err(Fault::Refused(
                        500,
                        format!("building the image {tag} failed: {message}\n{}", log.text()),
                    ));
                }
            }
            Ok(())
        },
    )
    .await
}

/// Writes the build's folder: the Dockerfile, and beside it the files that it copies.
fn context(spec: &Spec, executable: &Path, out: &mut Pipe) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let mut add = |name: &str, mode, size, content: &mut dyn Read| {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_size(size);
        tar.append_data(&mut header, name, content)
    };
    let (size, mut dockerfile) = spec.dockerfile.open(executable)?;
    add("Dockerfile", 0o644, size, &mut dockerfile)?;
    for file in spec.files {
        let (size, mut content) = match file.content {
            Content::OwnExecutable => open_static(executable)?,
            _ => file.content.open(executable)?,
        };
        add(file.name, file.mode, size, &mut content)?;
    }
    tar.into_inner()?;
    Ok(())
}

/// Our executable, once it is certain that it runs in any image.
fn open_static(executable: &Path) -> io::Result<(u64, Box<dyn Read>)> {
    let (size, mut file) = Content::OwnExecutable.open(executable)?;
    let mut head = Vec::new();
    file.by_ref().take(elf::HEAD as u64).read_to_end(&mut head)?;
    if elf::needs_loader(&head) != Some(false) {
        return Err(io::Error::other(format!(
            "{} is not a static executable and cannot run in any image; build tinyfaas static (cargo's \
             target-feature=+crt-static, or a musl target)",
            executable.display()
        )));
    }
    Ok((size, Box::new(io::Cursor::new(head).chain(file))))
}

/// What is known of the runtime of a function that was deployed.
///
/// # Errors
/// One line, where an operator took it away.
pub fn known(runtime: Runtime) -> Result<&'static Spec, BackendError> {
    spec(runtime).map_err(engine_error)
}

fn engine_error(text: String) -> BackendError {
    BackendError { kind: BackendErrorKind::Engine, text }
}
