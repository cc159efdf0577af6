//! Brings stored functions back at the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;

use super::supervise::BackOff;
use super::{Active, Busy, DeployError, Deployer, health};
use crate::backend::{BackendErrorKind, Found};
use crate::dispatch::Handler;
use crate::function::{Deployment, Name, Runtime};
use crate::reactor::Timer;

/// How long a handler that still runs may take to say that it is well: it may be busy with a call.
const PATIENCE: Duration = Duration::from_secs(2);
/// When it is looked for handlers that came after the start, since an engine was still at work for a server that was killed.
const LATE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(50)];
/// How often it is looked whether a deletion is done.
const LOOK: Duration = Duration::from_millis(100);

/// Functions that were deployed when the runtime last ran, not yet [restored](Deployer::restore).
pub struct Stored(Vec<Arc<Active>>);

impl Stored {
    /// Whether one of them has this runtime.
    pub fn have(&self, runtime: Runtime) -> bool {
        self.0.iter().any(|active| active.deployment().runtime == runtime)
    }
}

impl Deployer {
    /// Reads what is stored. From now on calls of these functions wait for handlers, within their deadline.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub async fn load(&self) -> Result<Stored, DeployError> {
        let store = Arc::clone(&self.store);
        let stored = self.blocking("read", move || store.load()).await?;
        let wait = |deployment: Deployment| {
            let active = Active::new(deployment);
            self.dispatch.install(Arc::clone(active.function()));
            self.active().insert(active.deployment().name.clone(), Arc::clone(&active));
            active
        };
        Ok(Stored(stored.into_iter().map(wait).collect()))
    }

    /// Brings the stored functions back: handlers that still run are taken over, the others started. What belongs to no
    /// stored function goes first: whatever is deployed waits for that. Returns when it is known what there is; then
    /// [`Self::sweep_late`] wants the handlers that were taken over, by the backend's ids.
    pub async fn restore(self: &Arc<Self>, stored: Stored) -> Vec<String> {
        let mut running = self.running().await;
        self.known.begin();
        self.tidy();
        let (mut all, mut taken_over) = (Vec::new(), Vec::new());
        for active in stored.0 {
            let deployment = active.deployment();
            let busy = self.name_when_free(&deployment.name).await;
            // Waiting for the engine took its time: the function may have been deleted meanwhile.
            if !self.get(&deployment.name).is_some_and(|current| Arc::ptr_eq(&current, &active)) {
                continue;
            }
            let mut handlers = Vec::new();
            for _ in 0..deployment.threads {
                handlers.push(self.take_over(&mut running, deployment).await);
            }
            let taken = handlers.iter().flatten().count();
            for handler in handlers.iter().flatten() {
                taken_over.push(handler.id().to_owned());
                active.function().add(Arc::clone(handler));
            }
            log::info!("restored {}: {taken} of {} handlers still ran", deployment.name, deployment.threads);
            all.push((active, handlers, busy));
        }
        for left in &running {
            self.stop_handler(&left.started.id).await;
        }
        let keep: Vec<_> = all.iter().map(|(active, ..)| active.deployment().clone()).collect();
        if let Err(e) = self.backend.sweep(&keep).await {
            log::warn!("what earlier runs left behind is still there: {e}");
        }
        for (active, handlers, _busy) in all {
            self.keep(&active, handlers);
        }
        self.restored.begin();
        taken_over
    }

    /// Removes what an earlier run left that came into being after the start.
    pub async fn sweep_late(&self, taken_over: &[String]) {
        for pause in LATE {
            Timer::after(pause).await;
            if let Err(e) = self.backend.sweep_late(taken_over).await {
                log::warn!("what earlier runs left behind is still there: {e}");
            }
        }
    }

    /// Takes a name once its deletion, if there is one under way, is done.
    async fn name_when_free(&self, name: &Name) -> Busy<'_> {
        loop {
            match self.take_name(name) {
                Ok(busy) => return busy,
                Err(_) => _ = Timer::after(LOOK).await,
            }
        }
    }

    /// Waits until stored functions are back, however long the engine takes to come up.
    pub async fn back(&self) {
        self.restored.begun().await;
    }

    /// Waits until stored functions are back; the health timeout bounds it, since the engine may not be up.
    ///
    /// # Errors
    /// 503 after that time.
    pub(super) async fn until_restored(&self) -> Result<(), DeployError> {
        let known = async {
            self.restored.begun().await;
            Ok(())
        };
        let late = async {
            Timer::after(self.bounds().health_timeout).await;
            Err(DeployError::new(503, "the engine that runs functions cannot be reached yet: try again later"))
        };
        known.or(late).await
    }

    /// What runs from before; waits for an engine that is not up yet.
    async fn running(&self) -> Vec<Found> {
        let mut back_off = BackOff::new();
        let mut told = false;
        loop {
            match self.backend.running().await {
                Ok(found) => return found,
                Err(e) if e.kind == BackendErrorKind::Unreachable => {
                    if !told {
                        log::warn!("waiting for the engine: {e}");
                    }
                    told = true;
                    Timer::after(back_off.next()).await;
                }
                Err(e) => {
                    log::warn!("cannot see what runs from before: {e}");
                    return Vec::new();
                }
            }
        }
    }

    /// A healthy handler of exactly this version, taken out of `running`.
    async fn take_over(&self, running: &mut Vec<Found>, deployment: &Deployment) -> Option<Arc<Handler>> {
        loop {
            let at = running.iter().position(|f| f.name == deployment.name && f.digest == deployment.digest)?;
            let found = running.swap_remove(at);
            if let Some(address) = health::wait(&found.started.addresses, Instant::now() + PATIENCE).await {
                return Some(Arc::new(Handler::new(found.started.id, address)));
            }
            self.stop_handler(&found.started.id).await;
        }
    }
}
