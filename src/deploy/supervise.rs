//! Keeps each handler of each function running, and brings stored functions back at the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::FutureExt;

use super::{Active, Busy, DeployError, Deployer};
use crate::backend::{BackendErrorKind, Found};
use crate::dispatch::{Function, Handler};
use crate::function::{Deployment, Name};

/// First pause before a handler that ended is started again, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A handler that ran for so long did not fail at its start: the next pause is the first one again.
const STABLE: Duration = Duration::from_secs(60);

/// How long a handler may leave `/health` unanswered after a call that it did not answer. Far longer than a busy
/// handler on a slow board needs: what replaces it costs all calls that it has.
const SILENCE: Duration = Duration::from_secs(5);

/// Functions that were deployed when the runtime last ran, not yet [restored](Deployer::restore).
pub struct Stored(Vec<(Deployment, Arc<Function>)>);

/// A pause that doubles.
struct BackOff(Duration);

impl BackOff {
    const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl Deployer {
    /// Keeps one handler of a version running until the version is retired, then drains and stops it.
    pub(super) async fn supervise(self: Arc<Self>, active: Arc<Active>, handler: Option<Arc<Handler>>) {
        let mut handler = handler;
        let mut back_off = BackOff::new();
        loop {
            let current = match handler.take() {
                Some(current) => current,
                None => match self.replacement(&active, &mut back_off).await {
                    Some(started) => {
                        active.function.add(Arc::clone(&started));
                        started
                    }
                    None => return,
                },
            };
            let since = Instant::now();
            let ended = async { Some(self.backend.exited(current.id()).await) };
            let broken = async {
                current.broken().await;
                Some("it does not listen any more".to_owned())
            };
            let silent = async {
                self.lost(&active.function, &current).await;
                Some("it does not answer /health any more".to_owned())
            };
            let retired = async {
                active.retire.begun().await;
                None
            };
            let how = ended.or(broken).or(silent).or(retired).await;
            if how.is_none() {
                self.drain(&active.function).await;
            }
            current.mark_unhealthy();
            active.function.drop_handler(current.id());
            if let Some(how) = &how {
                log::warn!("handler {} of {} ended: {how}", current.id(), active.deployment.name);
            }
            self.stop_handler(current.id()).await;
            if how.is_none() {
                return;
            }
            if since.elapsed() >= STABLE {
                back_off = BackOff::new();
            }
        }
    }

    /// Completes when a call made it doubtful that the handler is well and the handler does not say so either. Asked only
    /// then: a handler that nobody calls costs nothing.
    async fn lost(&self, function: &Function, handler: &Handler) {
        loop {
            handler.doubted().await;
            if super::health::wait(std::slice::from_ref(handler.address()), Instant::now() + SILENCE).await.is_none() {
                return;
            }
            function.readmit(handler);
        }
    }

    /// Starts a handler in place of one that ended, as often as it takes; `None` when the version is retired.
    async fn replacement(&self, active: &Active, back_off: &mut BackOff) -> Option<Arc<Handler>> {
        let mut told = String::new();
        loop {
            let pause = async {
                Timer::after(back_off.next()).await;
                true
            };
            let retired = async {
                active.retire.begun().await;
                false
            };
            if active.retire.has_begun() || !pause.or(retired).await {
                return None;
            }
            // Not raced with the retirement: a handler that is being started has to be known, to be stopped again.
            match self.start_one(active).await {
                Ok(handler) => return Some(handler),
                Err(e) if e.text == told => log::debug!("{e}"),
                Err(e) => {
                    log::warn!("cannot start a handler of {}, trying again: {e}", active.deployment.name);
                    told = e.text;
                }
            }
        }
    }

    async fn start_one(&self, active: &Active) -> Result<Arc<Handler>, DeployError> {
        let deployment = &active.deployment;
        let started = {
            // What the handlers of a version share is made once.
            let _one = active.preparing.lock().await;
            // Sixty functions that come back at once would be too much for a board.
            let _start = self.starts.acquire().await;
            self.backend.prepare(deployment).await?;
            self.backend.start(deployment).await?
        };
        match self.healthy(&started, deployment).await {
            Ok(handler) => Ok(handler),
            Err(e) => {
                self.stop_handler(&started.id).await;
                Err(e)
            }
        }
    }

    /// Lets calls in flight finish, within the bound.
    async fn drain(&self, function: &Function) {
        let late = async {
            Timer::after(self.bounds.drain).await;
            log::warn!("calls of {} were cut off: they outlived their handlers by too much", function.name());
        };
        function.drained().or(late).await;
    }

    /// Reads what is stored. From now on calls of these functions wait for handlers, within their deadline.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub async fn load(&self) -> Result<Stored, DeployError> {
        let store = Arc::clone(&self.store);
        let stored = self.blocking("read", move || store.load()).await?;
        let wait = |deployment: Deployment| {
            let function = Arc::new(Function::new(deployment.name.clone(), deployment.limits.clone()));
            self.dispatch.install(Arc::clone(&function));
            (deployment, function)
        };
        Ok(Stored(stored.into_iter().map(wait).collect()))
    }

    /// Brings the stored functions back: handlers that still run are taken over, the others started. What belongs to no
    /// stored function goes first: whatever is deployed waits for that. Returns when it is known what there is.
    pub async fn restore(self: &Arc<Self>, stored: Stored) {
        let mut running = self.running().await;
        self.known.begin();
        let mut all = Vec::new();
        for (deployment, function) in stored.0 {
            let busy = self.name_when_free(&deployment.name).await;
            // Waiting for the engine took its time: the function may have been deleted meanwhile.
            let current = self.dispatch.function(deployment.name.as_str());
            if !current.is_some_and(|current| Arc::ptr_eq(&current, &function)) {
                continue;
            }
            let mut slots = Vec::new();
            for _ in 0..deployment.threads {
                slots.push(self.take_over(&mut running, &deployment).await);
            }
            let taken = slots.iter().flatten().count();
            for handler in slots.iter().flatten() {
                function.add(Arc::clone(handler));
            }
            log::info!("restored {}: {taken} of {} handlers still ran", deployment.name, deployment.threads);
            all.push((deployment, function, slots, busy));
        }
        for left in &running {
            self.stop_handler(&left.started.id).await;
        }
        let keep: Vec<_> = all.iter().map(|(deployment, ..)| deployment.clone()).collect();
        if let Err(e) = self.backend.sweep(&keep).await {
            log::warn!("what earlier runs left behind is still there: {e}");
        }
        for (deployment, function, slots, _busy) in all {
            self.activate(deployment, function, slots);
        }
        self.restored.begin();
    }

    /// Takes a name once its deletion, if there is one under way, is done.
    async fn name_when_free(&self, name: &Name) -> Busy<'_> {
        loop {
            match self.take_name(name) {
                Ok(busy) => return busy,
                Err(_) => _ = Timer::after(FIRST_PAUSE).await,
            }
        }
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
            Timer::after(self.bounds.health_timeout).await;
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
            for address in &found.started.addresses {
                if super::health::is_ready(address).await {
                    return Some(Arc::new(Handler::new(found.started.id, address.clone())));
                }
            }
            self.stop_handler(&found.started.id).await;
        }
    }
}
