//! A function's dependencies: installed once a deployment, beside its files, by the machine's own installer.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use futures_lite::FutureExt;

use super::child::{Child, Plan, find_program};
use super::jail::Jail;
use super::program::dependencies;
use super::{Process, base_env, engine};
use crate::backend::{BackendError, BackendErrorKind, Boxed, Lines, Progress};
use crate::function::Deployment;
use crate::reactor::Timer;
use crate::runtimes::Dependencies;

/// Lines of an installation's log that its error returns.
const INSTALL_LOG: usize = 40;

impl Process {
    /// Installs the dependencies of `deployment` into `dir`.
    ///
    /// # Errors
    /// With the tail of the installer's log where it failed.
    pub(super) async fn install(
        &self,
        deployment: &Deployment,
        dir: &Path,
        progress: &Progress,
    ) -> Result<(), BackendError> {
        let Some(dependencies) = dependencies(deployment) else { return Ok(()) };
        self.own(dir, deployment, true)?;
        let id = format!("install-{:08x}", fastrand::u32(..));
        let scratch = self.scratch.make(&id, self.user(&deployment.name));
        let scratch = scratch.map_err(|e| engine(format!("cannot make a folder for {}: {e}", dependencies.file)))?;
        let result = self.install_with(deployment, dir, dependencies, &scratch, progress).await;
        self.remove(scratch).await;
        result
    }

    async fn install_with(
        &self,
        deployment: &Deployment,
        dir: &Path,
        dependencies: &Dependencies,
        scratch: &Path,
        progress: &Progress,
    ) -> Result<(), BackendError> {
        progress.step(dependencies.what);
        let cache = dir.join(".cache");
        let cache_text = cache.to_string_lossy();
        let folder = self.config.run_dir.join(deployment.runtime.name());
        let folder_text = folder.to_string_lossy();
        let mut words = dependencies.command(&cache_text, &folder_text);
        let program = words.next().unwrap_or_default();
        let found = find_program(&program).ok_or_else(|| {
            engine(format!("{program} is not installed on this machine: {} needs it", dependencies.file))
        })?;
        let mut paths = self.paths(&found, &[&folder], &[dir, scratch]);
        let command = std::iter::once(found.into()).chain(words.map(OsString::from)).collect();
        let mut env = base_env(scratch);
        // How packages are reached is the machine's business: its settings for it hold here, and only here.
        for (key, value) in std::env::vars_os().filter(|(key, _)| is_package_setting(&key.to_string_lossy())) {
            // The files that they name as well.
            let words = value.to_string_lossy();
            let files = words.split_whitespace().map(|word| word.strip_prefix("file://").unwrap_or(word));
            paths.read.extend(files.filter(|word| word.starts_with('/')).map(str::to_owned));
            env.push((key, value));
        }
        let hardened = self.config.hardened;
        let jail = Jail { parent: std::process::id(), pids: 0, memory: 0, hardened, network: true, paths };
        let user = self.user(&deployment.name);
        let plan = Plan { command, dir: dir.to_owned(), env, jail, user, cgroup: None };
        let child = Child::start(plan, self.executor).map_err(|e| engine(format!("cannot start {program}: {e}")))?;
        let ended = async { Some(child.ended().await) };
        let late = async {
            Timer::after(self.config.install_timeout).await;
            None
        };
        let log = |sender| -> Boxed<'_, ()> {
            let child = &child;
            Box::pin(async move { child.log().send(Lines { follow: true, ..Lines::default() }, &sender).await })
        };
        let why = match progress.beside(log, ended.or(late)).await {
            Some(exit) if exit.success => {
                let _ = fs::remove_dir_all(&cache);
                return Ok(());
            }
            Some(exit) => exit.text,
            None => {
                child.stop().await;
                format!("not done within {} s", self.config.install_timeout.as_secs())
            }
        };
        let mut text =
            format!("the {} that {} asks for failed ({program}: {why})", dependencies.what, dependencies.file);
        for line in child.log().last(INSTALL_LOG) {
            text.push('\n');
            text.push_str(&String::from_utf8_lossy(&line.text));
        }
        Err(BackendError { kind: BackendErrorKind::Function, text })
    }
}

fn is_package_setting(key: &str) -> bool {
    let upper = key.to_ascii_uppercase();
    ["PIP_", "NPM_CONFIG_"].iter().any(|prefix| upper.starts_with(prefix))
        || ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"].contains(&upper.as_str())
}
