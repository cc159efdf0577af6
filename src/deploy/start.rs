//! Starts handlers, waits until they are healthy, and stops them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{FutureExt, future};

use super::{DeployError, Deployer, health};
use crate::backend::{Lines, Started};
use crate::dispatch::Handler;
use crate::function::Deployment;
use crate::reactor::Timer;

/// Lines and bytes of a handler's log that a failed deployment returns.
const LOG_LINES: usize = 40;
const LOG_BYTES: usize = 8 * 1024;

impl Deployer {
    /// Starts all handlers of a version and waits until they are healthy; all or none.
    pub(super) async fn start_all(&self, deployment: &Deployment) -> Result<Vec<Arc<Handler>>, DeployError> {
        let mut started: Vec<Started> = Vec::new();
        let mut result: Result<(), DeployError> = Ok(());
        let mut left = deployment.threads;
        while left > 0 && result.is_ok() {
            // Two at once: an engine, and the processors of a small board, gain nothing from more.
            let another = async {
                match left {
                    1 => None,
                    _ => Some(self.backend.start(deployment).await),
                }
            };
            let (one, another) = future::zip(self.backend.start(deployment), another).await;
            for one in [Some(one), another].into_iter().flatten() {
                match one {
                    Ok(one) => started.push(one),
                    Err(e) => result = result.and(Err(e.into())),
                }
            }
            left = left.saturating_sub(2);
        }
        let mut handlers = Vec::new();
        for one in &started {
            if result.is_ok() {
                match self.healthy(one, deployment).await {
                    Ok(handler) => handlers.push(handler),
                    Err(e) => result = Err(e),
                }
            }
        }
        if let Err(e) = result {
            for one in &started {
                self.stop_handler(&one.id).await;
            }
            return Err(e);
        }
        Ok(handlers)
    }

    /// Waits until a handler that was started is healthy; fails early when it exits.
    pub(super) async fn healthy(
        &self,
        started: &Started,
        deployment: &Deployment,
    ) -> Result<Arc<Handler>, DeployError> {
        let deadline = Instant::now() + self.bounds().health_timeout;
        let ready = async { Ok(health::wait(&started.addresses, deadline).await) };
        let exited = async { Err(self.backend.exited(&started.id).await) };
        let why = match ready.or(exited).await {
            Ok(Some(address)) => return Ok(Arc::new(Handler::new(started.id.clone(), address))),
            Ok(None) => {
                let seconds = self.bounds().health_timeout.as_secs_f32();
                format!("did not answer /health with 200 within {seconds} s")
            }
            Err(how) => format!("ended before it was ready ({how})"),
        };
        let tail = self.log_tail(&started.id).await;
        let text = format!("a handler of {} ({}) {why}{tail}", deployment.name, deployment.runtime);
        Err(DeployError::new(422, text))
    }

    async fn log_tail(&self, id: &str) -> String {
        let (sender, lines) = async_channel::bounded(8);
        let send = async {
            // The failure that asked for the log matters more than why there is none.
            let _ = self.backend.logs(id, Lines::last(LOG_LINES), sender).await;
        };
        let collect = async {
            let mut tail = String::new();
            while let Ok(line) = lines.recv().await {
                if tail.len() < LOG_BYTES {
                    tail.push('\n');
                    tail.push_str(&String::from_utf8_lossy(&line.text));
                }
            }
            tail
        };
        let late = async {
            Timer::after(Duration::from_secs(2)).await;
            String::new()
        };
        let both = async { future::zip(send, collect).await.1 };
        both.or(late).await
    }

    pub(super) async fn stop_all(&self, handlers: &[Arc<Handler>]) {
        for handler in handlers {
            self.stop_handler(handler.id()).await;
        }
    }
}
