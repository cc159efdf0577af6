//! From an archive to running handlers, and back: prepare, start, wait for health, remember, swap, drain the old.
//!
//! Whoever deploys hears of success only when the function is stored and its handlers are healthy. A deployment that fails
//! leaves nothing behind, and what ran before under its name still runs.

mod active;
mod error;
pub mod health;
mod idle;
mod left;
mod restore;
mod start;
mod supervise;
mod work;

pub use active::{Active, HandlerStatus, State};
pub use error::DeployError;
use left::Left;
pub use restore::Stored;
use work::{Busy, Work};

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_executor::{StaticExecutor, Task};
use async_lock::Semaphore;
use event_listener::{Event, EventListener};

use crate::backend::{Backend, BackendError, Lines, LogLine, Progress};
use crate::dispatch::{Dispatch, Handler};
use crate::function::{Deployment, Name, Origin};
use crate::runtimes;
use crate::shutdown::Shutdown;
use crate::store::{Spool, Store, archive_len};
use crate::upload_request::Deploy;
use crate::wire::zip::{self, Archive};
use crate::worker::Workers;

/// Deployments under way at once: each unpacks, builds or installs, and boards have little of everything.
const AT_ONCE: usize = 2;

/// Bounds of deployments.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Functions at once.
    pub functions: usize,
    /// How long new handlers may take to become healthy.
    pub health_timeout: Duration,
    /// How long calls in flight may go on with handlers that were replaced or deleted.
    pub drain: Duration,
}

/// What turns uploads into running functions.
pub struct Deployer {
    backend: Arc<dyn Backend>,
    dispatch: Arc<Dispatch>,
    store: Arc<Store>,
    workers: Workers,
    executor: &'static StaticExecutor,
    bounds: Mutex<Bounds>,
    zip_bounds: zip::Bounds,
    slots: Semaphore,
    /// For handlers that are started again: not those of deployments, which may wait long for an installation.
    starts: Semaphore,
    active: Mutex<BTreeMap<Name, Arc<Active>>>,
    /// Names that are being deployed or deleted.
    busy: Mutex<HashMap<Name, Work>>,
    /// Told of handlers that take calls.
    started: Event,
    /// Versions that drain.
    retiring: Mutex<Vec<Task<()>>>,
    /// Told when it is known what runs from before, and when stored functions are back.
    known: Shutdown,
    restored: Shutdown,
    /// Whether all stored functions were up once.
    back: AtomicBool,
    /// Told when handlers are left running.
    leaving: Shutdown,
    /// What could not be removed, and who removes it.
    left: (async_channel::Sender<Left>, async_channel::Receiver<Left>),
    tidying: Mutex<Option<Task<()>>>,
}

impl Deployer {
    /// A deployer that puts functions into `dispatch`.
    pub fn new(
        backend: Arc<dyn Backend>,
        dispatch: Arc<Dispatch>,
        store: Arc<Store>,
        workers: Workers,
        executor: &'static StaticExecutor,
        bounds: Bounds,
    ) -> Self {
        Self {
            backend,
            dispatch,
            store,
            workers,
            executor,
            bounds: Mutex::new(bounds),
            zip_bounds: zip::Bounds::default(),
            slots: Semaphore::new(AT_ONCE),
            starts: Semaphore::new(AT_ONCE),
            active: Mutex::default(),
            busy: Mutex::default(),
            started: Event::new(),
            retiring: Mutex::default(),
            known: Shutdown::new(),
            restored: Shutdown::new(),
            back: AtomicBool::new(false),
            leaving: Shutdown::new(),
            left: async_channel::unbounded(),
            tidying: Mutex::default(),
        }
    }

    /// Deploys the archive in `spool`, in place of the function of that name.
    ///
    /// # Errors
    /// [`DeployError`]; the function that was there before still runs. 500 as well where the new one runs, but may not survive
    /// a power cut.
    pub async fn deploy(self: &Arc<Self>, request: Deploy, spool: Spool) -> Result<(), DeployError> {
        let begun = Instant::now();
        self.until_restored().await?;
        let _busy = self.take_name(&request.name)?;
        if self.dispatch.function(request.name.as_str()).is_none() && self.dispatch.len() >= self.bounds().functions {
            let most = self.bounds().functions;
            return Err(DeployError::new(
                409,
                format!("{most} functions are deployed already (--max-functions): delete one first"),
            ));
        }
        if request.origin == Origin::Folder {
            self.provisionable(&request.name)?;
        }
        let progress = Progress::new("wait for other deployments");
        self.work(&request.name, |work| work.progress = Some(progress.clone()));
        let _slot = self.slots.acquire().await;
        progress.step("check of the archive");
        let (spool, mut deployment) = self.check(request, spool).await?;
        let (name, digest) = (deployment.name.clone(), deployment.digest.clone());
        self.preparing(&name, digest.clone());
        self.backend.prepare(&deployment, &progress).await?;
        progress.step("start of handlers");
        let handlers = match self.start_all(&deployment).await {
            Ok(handlers) => handlers,
            Err(e) => {
                self.preparing(&name, String::new());
                self.forget_unless_active(&deployment).await;
                return Err(e);
            }
        };
        let kept = match self.commit(spool, &name).await {
            Ok((path, kept)) => {
                deployment.package = path;
                kept
            }
            Err(e) => {
                self.stop_all(&handlers).await;
                self.preparing(&name, String::new());
                self.forget_unless_active(&deployment).await;
                return Err(e);
            }
        };
        let count = handlers.len();
        self.swap(deployment, handlers);
        log::info!("deployed {name} ({digest:.8}): {count} handlers healthy after {} ms", begun.elapsed().as_millis());
        // It has the name on disk, so it is what runs: the next start may find no other.
        kept.map_err(|e| {
            DeployError::unsure(&format!("{name} is deployed, but the version before it may come back"), &e)
        })
    }

    /// Deletes a function: no new calls, those in flight finish within a bound, then nothing of it is left.
    ///
    /// # Errors
    /// 404 for an unknown name; 409 while it is being deployed; 500 when the state directory cannot be written.
    pub async fn delete(self: &Arc<Self>, name: &Name) -> Result<(), DeployError> {
        if self.known.has_begun() {
            self.restored.begun().await;
        }
        let _busy = self.take_name(name)?;
        if self.dispatch.function(name.as_str()).is_none() {
            let text = format!("no function named {name}: GET /list shows those deployed");
            return Err(DeployError::new(404, text));
        }
        let (store, stored) = (Arc::clone(&self.store), name.clone());
        let kept = self.blocking("remove the function from", move || store.remove(&stored)).await?;
        self.dispatch.remove(name.as_str());
        let active = self.active().remove(name);
        // Before it is known what runs, nothing of it does; what is left over goes then.
        if let Some(active) = active.filter(|_| self.known.has_begun()) {
            self.retire(&active).await;
        }
        log::info!("deleted {name}");
        kept.map_err(|e| DeployError::unsure(&format!("{name} is deleted, but may come back"), &e))
    }

    /// Deletes every function.
    ///
    /// # Errors
    /// The first error of a [`Deployer::delete`]; the others are deleted all the same.
    pub async fn wipe(self: &Arc<Self>) -> Result<(), DeployError> {
        let names: Vec<_> = self.active().keys().cloned().collect();
        let tasks: Vec<_> = names
            .into_iter()
            .map(|name| {
                let deployer = Arc::clone(self);
                self.executor.spawn(async move { deployer.delete(&name).await })
            })
            .collect();
        let mut result = Ok(());
        for task in tasks {
            result = result.and(task.await);
        }
        result
    }

    /// Whether a handler made the connection that comes from `peer`.
    pub fn is_handler(&self, peer: SocketAddr) -> bool {
        self.backend.is_handler(peer)
    }

    /// The function of that name.
    pub fn get(&self, name: &Name) -> Option<Arc<Active>> {
        self.active().get(name).cloned()
    }

    /// The function whose name comes after `name`, or the first one: to go through all without holding them.
    pub fn next_after(&self, name: Option<&Name>) -> Option<Arc<Active>> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.active().range::<Name, _>((from, Bound::Unbounded)).next().map(|(_, active)| Arc::clone(active))
    }

    /// What is deployed, one function after the other: only one is held at a time.
    pub fn all(&self) -> impl Iterator<Item = Arc<Active>> {
        let first = self.next_after(None);
        std::iter::successors(first, |last| self.next_after(Some(&last.deployment().name)))
    }

    /// Told when there are handlers that there were not before.
    pub fn new_handlers(&self) -> EventListener {
        self.started.listen()
    }

    /// What runs tasks beside deployments.
    pub fn executor(&self) -> &'static StaticExecutor {
        self.executor
    }

    /// Why not all that was stored is back yet, for whoever asks whether it is time to send calls; `None` from then on. A
    /// function that failed to start keeps nobody waiting: it is tried again for ever.
    pub fn coming_up(&self) -> Option<String> {
        if self.back.load(Ordering::Relaxed) {
            return None;
        }
        if !self.restored.has_begun() {
            return Some("stored functions are being restored".into());
        }
        let left = self.active().values().filter(|active| active.is_coming_up()).count();
        if left > 0 {
            return Some(format!("stored functions that are not up yet: {left}"));
        }
        self.back.store(true, Ordering::Relaxed);
        None
    }

    /// Where calls go.
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// What runs handlers.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// What handlers of the function wrote: see [`Backend::logs`].
    ///
    /// # Errors
    /// As [`Backend::logs`].
    pub async fn logs(&self, id: &str, want: Lines, lines: async_channel::Sender<LogLine>) -> Result<(), BackendError> {
        self.backend.logs(id, want, lines).await
    }

    /// Ends everything but the handlers: the next start takes them over. Calls in flight finish within the bound.
    pub async fn leave(&self) {
        self.leaving.begin();
        self.stop().await;
    }

    /// Ends everything: handlers are stopped, what is stored stays for the next start.
    pub async fn stop(&self) {
        let active: Vec<_> = std::mem::take(&mut *self.active()).into_values().collect();
        for active in &active {
            active.retire.begin();
            active.end_period();
        }
        for active in &active {
            Self::end(active).await;
            // Those that were taken over while all is not restored yet have nobody who ends them.
            let nobodys = active.function().snapshot();
            if !self.leaving.has_begun() {
                self.stop_all(&nobodys).await;
            }
        }
        Self::join(&self.retiring).await;
        let tidying = lock(&self.tidying).take();
        if let Some(tidying) = tidying {
            tidying.cancel().await;
        }
    }

    /// Checks the archive, seals the spool, and says what exactly is deployed.
    async fn check(&self, request: Deploy, spool: Spool) -> Result<(Spool, Deployment), DeployError> {
        let bounds = self.zip_bounds.clone();
        let check = move || {
            let mut spool = spool;
            let mut deployment = request.deployment(spool.path().to_owned());
            deployment.digest = spool.digest(&deployment);
            spool.seal(&deployment).map_err(|e| DeployError::disk("write the archive to", &e))?;
            if deployment.image.is_some() {
                // Nothing comes with it.
                return Ok((spool, deployment));
            }
            let mut file = File::open(spool.path()).map_err(|e| DeployError::disk("read the archive from", &e))?;
            let len = archive_len(&mut file).map_err(|e| DeployError::disk("read the archive from", &e))?;
            let mut archive = Archive::open(file, len, &bounds)?;
            archive.check(&deployment.subfolder)?;
            check_entry(&archive, &deployment)?;
            Ok((spool, deployment))
        };
        self.workers.unblock(check).await.map_err(|e| DeployError::disk("check the archive in", &e))?
    }

    async fn commit(&self, mut spool: Spool, name: &Name) -> Result<(PathBuf, io::Result<()>), DeployError> {
        let (store, name) = (Arc::clone(&self.store), name.clone());
        self.blocking("store the function in", move || store.commit(&mut spool, &name)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, DeployError> {
        self.workers.unblock(work).await.and_then(|r| r).map_err(|e| DeployError::disk(what, &e))
    }

    /// Lets calls go to the new version and retires the old one.
    fn swap(self: &Arc<Self>, deployment: Deployment, handlers: Vec<Arc<Handler>>) {
        let active = Active::new(deployment);
        for (slot, handler) in handlers.iter().enumerate() {
            active.function().add(Arc::clone(handler));
            // Not only once its supervisor runs: whoever deployed may ask at once.
            active.is_healthy(slot, handler);
        }
        self.dispatch.install(Arc::clone(active.function()));
        self.keep(&active, handlers.into_iter().map(Some).collect());
        let old = self.active().insert(active.deployment().name.clone(), active);
        self.started.notify(usize::MAX);
        if let Some(old) = old {
            let deployer = Arc::clone(self);
            let mut retiring = lock(&self.retiring);
            retiring.retain(|task| !task.is_finished());
            retiring.push(self.executor.spawn(async move { deployer.retire(&old).await }));
        }
    }

    /// Keeps a version running: handlers for all slots, or none while nobody calls where that is wanted.
    fn keep(self: &Arc<Self>, active: &Arc<Active>, handlers: Vec<Option<Arc<Handler>>>) {
        let idle = active.deployment().idle;
        // After a start nobody called yet.
        let asleep = idle.is_some() && handlers.iter().all(Option::is_none);
        if asleep {
            active.all_idle();
            active.function().sleep();
        } else {
            self.supervise_all(active, handlers);
        }
        if let Some(idle) = idle {
            let keeper = Arc::clone(self).doze(Arc::clone(active), idle, asleep);
            lock(&active.keeper).push(self.executor.spawn(keeper));
        }
    }

    /// Supervises a version's handlers: one for each slot, a new one where there is none.
    fn supervise_all(self: &Arc<Self>, active: &Arc<Active>, handlers: Vec<Option<Arc<Handler>>>) {
        let tasks = handlers.into_iter().enumerate().map(|(slot, handler)| {
            let (deployer, active, end) = (Arc::clone(self), Arc::clone(active), active.period());
            self.executor.spawn(deployer.supervise(active, slot, handler, end))
        });
        lock(&active.supervisors).extend(tasks);
    }

    /// Ends a version: its calls finish within a bound, its handlers stop, what was prepared for it goes.
    async fn retire(&self, active: &Active) {
        Self::end(active).await;
        self.forget_unless_active(active.deployment()).await;
    }

    /// Ends all who work for a version; its handlers are stopped then.
    async fn end(active: &Active) {
        active.retire.begin();
        // First: it may be starting handlers.
        Self::join(&active.keeper).await;
        active.end_period();
        Self::join(&active.supervisors).await;
    }

    async fn forget_unless_active(&self, deployment: &Deployment) {
        if !self.is_wanted(deployment) {
            self.forget(deployment).await;
        }
    }

    /// Whether this very version is what is deployed under its name, or about to be.
    fn is_wanted(&self, deployment: &Deployment) -> bool {
        let active = self.get(&deployment.name).is_some_and(|active| active.deployment().digest == deployment.digest);
        active || lock(&self.busy).get(&deployment.name).is_some_and(|work| work.digest == deployment.digest)
    }

    async fn join(tasks: &Mutex<Vec<Task<()>>>) {
        let tasks = std::mem::take(&mut *lock(tasks));
        for task in tasks {
            task.await;
        }
    }

    /// Whether a folder of functions may have its way with this name: never with a function that was uploaded.
    ///
    /// # Errors
    /// 409 where it may not.
    pub fn provisionable(&self, name: &Name) -> Result<(), DeployError> {
        if self.get(name).is_some_and(|active| active.deployment().origin == Origin::Upload) {
            let text = format!("a function named {name} was uploaded and stays: delete it to have the folder's");
            return Err(DeployError::new(409, text));
        }
        Ok(())
    }

    /// Changes the bounds for what is deployed and started from now on.
    pub fn set_bounds(&self, bounds: Bounds) {
        *lock(&self.bounds) = bounds;
    }

    fn bounds(&self) -> Bounds {
        *lock(&self.bounds)
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Active>>> {
        lock(&self.active)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file that a runtime starts with has to be there: without it every handler would only fail.
fn check_entry<R: std::io::Read + std::io::Seek>(archive: &Archive<R>, d: &Deployment) -> Result<(), DeployError> {
    let entries = runtimes::spec(d.runtime).map_err(|why| DeployError::new(422, why))?.entries;
    for file in entries {
        if archive.has_file(&d.subfolder, file)? {
            return Ok(());
        }
    }
    let wanted = entries.join(" or ");
    let text = format!("a function with env {} needs {wanted} at the top of its folder in the zip archive", d.runtime);
    Err(DeployError::new(422, text))
}

#[cfg(test)]
mod tests;
