//! Keeps each handler of each function running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;

use super::{Active, DeployError, Deployer};
use crate::backend::Progress;
use crate::dispatch::{Function, Handler};
use crate::reactor::Timer;
use crate::shutdown::Shutdown;

/// First pause before a handler that ended is started again, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A handler that ran for so long did not fail at its start: the next pause is the first one again.
const STABLE: Duration = Duration::from_secs(60);

/// How long a handler may leave `/health` unanswered after a call that it did not answer. Far longer than a busy
/// handler on a slow board needs: what replaces it costs all calls that it has.
const SILENCE: Duration = Duration::from_secs(5);

/// A pause that doubles.
pub(super) struct BackOff(Duration);

impl BackOff {
    /// Begins with the first pause.
    pub(super) const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Waits for the next pause, or until nobody wants to try again.
    async fn pause(&mut self, given_up: &Shutdown) {
        let pause = async {
            Timer::after(self.next()).await;
        };
        pause.or(given_up.begun()).await;
    }
}

impl Deployer {
    /// Keeps the handler in one slot of a version running until `end` begins, then drains and stops it.
    pub(super) async fn supervise(
        self: Arc<Self>,
        active: Arc<Active>,
        slot: usize,
        handler: Option<Arc<Handler>>,
        end: Shutdown,
    ) {
        let name = &active.deployment().name;
        let mut handler = handler;
        let mut back_off = BackOff::new();
        let mut told = String::new();
        while !end.has_begun() || handler.is_some() {
            let current = match handler.take() {
                Some(current) => current,
                // Not raced with the end: a handler that is being started has to be known, to be stopped again.
                None => match self.start_one(&active, slot).await {
                    Ok(started) => started,
                    Err(e) => {
                        active.is_backing_off(slot, &e.text);
                        if e.text == told {
                            log::debug!("{e}");
                        } else {
                            log::warn!("cannot start a handler of {name}, trying again: {e}");
                            told = e.text;
                        }
                        back_off.pause(&end).await;
                        continue;
                    }
                },
            };
            active.is_healthy(slot, &current);
            self.started.notify(usize::MAX);
            let since = Instant::now();
            let how = self.watch(&active, slot, &current, &end).await;
            active.function().drop_handler(current.id());
            if how.is_none() {
                self.drain(active.function(), &current).await;
            }
            current.mark_unhealthy();
            let Some(how) = how else {
                if !self.leaving.has_begun() {
                    self.stop_handler(current.id()).await;
                }
                return;
            };
            log::warn!("handler {} of {name} ended: {how}", current.id());
            active.is_backing_off(slot, &how);
            self.stop_handler(current.id()).await;
            if since.elapsed() >= STABLE {
                back_off = BackOff::new();
            }
            back_off.pause(&end).await;
        }
    }

    /// Completes when the handler is lost, with the reason, or `end` begins.
    async fn watch(&self, active: &Active, slot: usize, handler: &Arc<Handler>, end: &Shutdown) -> Option<String> {
        let ended = async { Some(self.backend.exited(handler.id()).await) };
        let broken = async {
            handler.broken().await;
            Some("it does not listen any more".to_owned())
        };
        let silent = async {
            self.lost(active, slot, handler).await;
            Some("it does not answer /health any more".to_owned())
        };
        let retired = async {
            end.begun().await;
            None
        };
        let tidy = async {
            handler.close_unused().await;
            None
        };
        ended.or(broken).or(silent).or(retired).or(tidy).await
    }

    /// Completes when a call made it doubtful that the handler is well and the handler does not say so either. Asked only
    /// then: a handler that nobody calls costs nothing.
    async fn lost(&self, active: &Active, slot: usize, handler: &Arc<Handler>) {
        loop {
            handler.doubted().await;
            active.is_doubtful(slot);
            if super::health::wait(std::slice::from_ref(handler.address()), Instant::now() + SILENCE).await.is_none() {
                return;
            }
            active.function().readmit(handler);
            active.is_healthy(slot, handler);
        }
    }

    /// Starts a handler for a slot and lets calls go to it.
    async fn start_one(&self, active: &Active, slot: usize) -> Result<Arc<Handler>, DeployError> {
        active.is_starting(slot);
        let deployment = active.deployment();
        let started = {
            // What the handlers of a version share is made once.
            let _one = active.preparing.lock().await;
            // Sixty functions that come back at once would be too much for a board.
            let _start = self.starts.acquire().await;
            self.backend.prepare(deployment, &Progress::default()).await?;
            self.backend.start(deployment).await?
        };
        match self.healthy(&started, deployment).await {
            Ok(handler) => {
                active.function().add(Arc::clone(&handler));
                Ok(handler)
            }
            Err(e) => {
                self.stop_handler(&started.id).await;
                Err(e)
            }
        }
    }

    /// Lets calls in flight finish, within the bound.
    async fn drain(&self, function: &Function, handler: &Handler) {
        let late = async {
            Timer::after(self.bounds().drain).await;
            log::warn!("calls of {} were cut off: they outlived their handlers by too much", function.name());
        };
        function.handler_drained(handler).or(late).await;
    }
}
