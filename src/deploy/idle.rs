//! Scale to zero: handlers of a function that nobody calls are stopped, and started again for the next call.
//!
//! No call is lost in between: the handlers are taken out of the function's table only while none has a call, and whoever
//! comes after that waits, within the deadline and the queue that hold for every call, and wakes the function.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt;

use super::supervise::BackOff;
use super::{Active, Deployer, State};
use crate::reactor::Timer;

impl Deployer {
    /// Keeps a version's handlers only while it is called, until it is retired. `asleep` where it has none now.
    pub(super) async fn doze(self: Arc<Self>, active: Arc<Active>, idle: Duration, asleep: bool) {
        let name = &active.deployment().name;
        let mut back_off = BackOff::new();
        let mut asleep = asleep;
        while !active.retire.has_begun() {
            if !asleep {
                if !until_quiet(&active, idle).await {
                    return;
                }
                self.end_period(&active).await;
                active.all_idle();
                log::debug!("{name} is idle: its handlers were stopped, the next call starts them");
            }
            active.function().until_wanted().or(active.retire.begun()).await;
            if active.retire.has_begun() {
                return;
            }
            asleep = match self.wake(&active).await {
                None => {
                    back_off = BackOff::new();
                    log::debug!("{name} was called, its handlers run again");
                    false
                }
                Some(why) => {
                    // A function that cannot start would else be tried for every call.
                    let why = format!("{name} could not be started ({why}): try again later");
                    active.function().refuse(&why, back_off.next());
                    active.function().sleep();
                    self.end_period(&active).await;
                    active.all_idle();
                    true
                }
            };
        }
    }

    /// Starts the handlers; returns when one takes calls or the version is retired, or with why none could be started.
    async fn wake(self: &Arc<Self>, active: &Arc<Active>) -> Option<String> {
        active.begin_period();
        self.supervise_all(active, vec![None; active.deployment().threads]);
        loop {
            let changed = active.changed.listen();
            if active.retire.has_begun() || matches!(active.state(), State::Healthy | State::Degraded) {
                return None;
            }
            if let Some(why) = active.all_failed() {
                return Some(why);
            }
            changed.or(async { active.retire.begun().await }).await;
        }
    }

    /// Stops all handlers of a version, but not the version.
    async fn end_period(&self, active: &Active) {
        active.end_period();
        Self::join(&active.supervisors).await;
    }
}

/// Completes when nobody called for so long and the function has no handlers any more; `false` when it is retired.
async fn until_quiet(active: &Active, idle: Duration) -> bool {
    while let Err(left) = active.function().fall_asleep(idle) {
        let time = async {
            Timer::after(left).await;
        };
        time.or(active.retire.begun()).await;
        if active.retire.has_begun() {
            return false;
        }
    }
    true
}
