//! What could not be removed because the engine could not be reached: it goes when the engine is back.

use std::sync::Arc;

use super::supervise::BackOff;
use super::{Deployer, lock};
use crate::backend::{BackendError, BackendErrorKind};
use crate::function::Deployment;
use crate::reactor::Timer;

/// Something that is to be removed. There are as many as the engine really has: nothing is started while it is away.
pub(super) enum Left {
    /// A handler, by the backend's id.
    Handler(String),
    /// What was prepared for a version.
    Prepared(Box<Deployment>),
}

impl Deployer {
    /// Stops a handler, now or when the engine is back.
    pub(super) async fn stop_handler(&self, id: &str) {
        self.remove(Left::Handler(id.to_owned())).await;
    }

    /// Removes what was prepared for a version, now or when the engine is back.
    pub(super) async fn forget(&self, deployment: &Deployment) {
        self.remove(Left::Prepared(Box::new(deployment.clone()))).await;
    }

    async fn remove(&self, left: Left) {
        match self.try_remove(&left).await {
            Err(e) if e.kind == BackendErrorKind::Unreachable => {
                log::warn!("{} is removed when the engine is back: {e}", left.what());
                // Fails only once everything ends.
                let _ = self.left.0.try_send(left);
            }
            Err(e) => log::warn!("{} is left behind until the next start: {e}", left.what()),
            Ok(()) => {}
        }
    }

    async fn try_remove(&self, left: &Left) -> Result<(), BackendError> {
        match left {
            Left::Handler(id) => self.backend.stop(id).await,
            // It may have been deployed again meanwhile.
            Left::Prepared(deployment) if self.is_wanted(deployment) => Ok(()),
            Left::Prepared(deployment) => self.backend.forget(deployment).await,
        }
    }

    /// Begins to remove what could not be.
    pub(super) fn tidy(self: &Arc<Self>) {
        let deployer = Arc::clone(self);
        let task = self.executor.spawn(async move {
            while let Ok(left) = deployer.left.1.recv().await {
                let mut back_off = BackOff::new();
                while let Err(e) = deployer.try_remove(&left).await {
                    if e.kind != BackendErrorKind::Unreachable {
                        log::warn!("{} is left behind until the next start: {e}", left.what());
                        break;
                    }
                    Timer::after(back_off.next()).await;
                }
            }
        });
        *lock(&self.tidying) = Some(task);
    }
}

impl Left {
    fn what(&self) -> String {
        match self {
            Self::Handler(id) => format!("handler {id}"),
            Self::Prepared(deployment) => format!("what was prepared for {}", deployment.name),
        }
    }
}
