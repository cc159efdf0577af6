//! What a runtime says of handlers that are processes, and its files where they can read them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::engine;
use crate::backend::{BackendError, BackendErrorKind};
use crate::function::Deployment;
use crate::runtimes::{self, Content, Dependencies, Host, Spec};

/// How handlers of a deployment run here.
///
/// # Errors
/// One line, where they do not.
pub(super) fn host(deployment: &Deployment) -> Result<&'static Host, BackendError> {
    let elsewhere = |what: &str| BackendError {
        kind: BackendErrorKind::Function,
        text: format!("functions {what} need the docker backend, and this server runs processes"),
    };
    if deployment.image.is_some() {
        return Err(elsewhere("that are images"));
    }
    let spec = runtimes::spec(deployment.runtime).map_err(engine)?;
    spec.host.as_ref().ok_or_else(|| elsewhere(&format!("with env {}", spec.runtime)))
}

pub(super) fn dependencies(deployment: &Deployment) -> Option<&'static Dependencies> {
    runtimes::find(deployment.runtime)?.dependencies.as_ref()
}

/// Writes a runtime's handler program where all its handlers can read it.
pub(super) fn write_program(dir: &Path, spec: &Spec) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for file in spec.files {
        let path = dir.join(file.name);
        match &file.content {
            // As it is in memory: what copies files would be code that nothing else at the start needs.
            Content::Bytes(bytes) => fs::write(&path, bytes)?,
            Content::Disk(from) => fs::copy(from, &path).map(drop)?,
            Content::OwnExecutable => continue,
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}
