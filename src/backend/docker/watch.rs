//! Notices that handlers exit: one connection to the engine's events for all of them, and none while nobody asks.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_channel::{Receiver, Sender};
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use event_listener::Event;
use futures_lite::FutureExt;

use super::engine::Fault;
use super::{Inner, ask, labels};
use crate::reactor::Timer;

/// Pause before the events are asked for again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How far back events are asked for: what happened between two connections comes again.
const OVERLAP: Duration = Duration::from_secs(10);
/// How often a remote engine is asked for its state: a connection that died without a word looks like peace.
const RECHECK: Duration = Duration::from_secs(60);
/// Signals are reported as this much and their number.
const SIGNAL: i64 = 128;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status; `None` where the container is gone.
    pub status: Option<i64>,
    /// Whether the kernel killed for memory in it.
    pub out_of_memory: bool,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            None => f.write_str("its container was removed"),
            Some(_) if self.out_of_memory => f.write_str("it was killed: out of memory"),
            Some(status) if status > SIGNAL && status < SIGNAL + 65 => {
                write!(f, "it was killed by signal {}", status - SIGNAL)
            }
            Some(status) => write!(f, "it exited with status {status}"),
        }
    }
}

/// Who waits for which container.
#[derive(Default)]
pub struct Watch {
    state: Mutex<State>,
    /// Told when nobody waits any more.
    idle: Event,
}

#[derive(Default)]
struct State {
    /// One entry a call of [`exited`] that has not completed: as many as there are handlers.
    waiting: BTreeMap<(String, u64), Waiter>,
    next: u64,
    followed: bool,
}

struct Waiter {
    out_of_memory: bool,
    tell: Sender<Exit>,
}

/// A place in [`Watch`], given up when dropped.
struct Place<'a> {
    watch: &'a Watch,
    key: (String, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.watch.lock();
        state.waiting.remove(&self.key);
        if state.waiting.is_empty() {
            self.watch.idle.notify(usize::MAX);
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; `true` where somebody has to start to follow the events.
    fn enter(&self, id: &str) -> (Place<'_>, Receiver<Exit>, bool) {
        let (tell, told) = async_channel::bounded(1);
        let mut state = self.lock();
        let key = (id.to_string(), state.next);
        state.next += 1;
        state.waiting.insert(key.clone(), Waiter { out_of_memory: false, tell });
        let first = !std::mem::replace(&mut state.followed, true);
        (Place { watch: self, key }, told, first)
    }

    /// Whether nobody waits; the follower must end then.
    fn leave(&self) -> bool {
        let mut state = self.lock();
        state.followed = !state.waiting.is_empty();
        !state.followed
    }

    fn waited_for(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.lock().waiting.keys().map(|(id, _)| id.clone()).collect();
        ids.dedup();
        ids
    }

    fn for_each(&self, id: &str, mut tell: impl FnMut(&mut Waiter)) {
        let mut state = self.lock();
        state.waiting.range_mut((id.to_string(), 0)..=(id.to_string(), u64::MAX)).for_each(|(_, w)| tell(w));
    }

    fn tell(&self, id: &str, exit: Exit) {
        self.for_each(id, |waiter| {
            let exit = Exit { out_of_memory: exit.out_of_memory || waiter.out_of_memory, ..exit };
            // It is full when the waiter was told already.
            let _ = waiter.tell.try_send(exit);
        });
    }

    fn hear(&self, event: EventMessage) {
        let mut attributes = event.actor.and_then(|a| a.attributes).unwrap_or_default();
        let Some(id) = attributes.remove("name") else { return };
        match event.action.as_deref() {
            Some("oom") => self.for_each(&id, |waiter| waiter.out_of_memory = true),
            Some("die") => {
                let status = attributes.get("exitCode").and_then(|c| c.parse().ok());
                self.tell(&id, Exit { status: status.or(Some(0)), out_of_memory: false });
            }
            Some("destroy") => self.tell(&id, Exit { status: None, out_of_memory: false }),
            _ => {}
        }
    }
}

/// Completes when the container `id` has exited, or is gone.
pub async fn exited(inner: &Arc<Inner>, id: &str) -> Exit {
    let (_place, told, first) = inner.watch.enter(id);
    if first {
        inner.executor.spawn(follow(inner.clone())).detach();
    }
    // It may have exited before anybody followed. An engine that does not answer now is asked again by the follower.
    if let Ok(Some(exit)) = state(inner, id).await {
        return exit;
    }
    told.recv().await.unwrap_or(Exit { status: None, out_of_memory: false })
}

/// How the container ended; `None` while it has not.
async fn state(inner: &Inner, id: &str) -> Result<Option<Exit>, Fault> {
    let state = match inner.ask::<ask::Inspected>(format!("/containers/{id}/json")).await {
        Ok(container) => container.state,
        Err(fault) if fault.is(404) => return Ok(Some(Exit { status: None, out_of_memory: false })),
        Err(fault) => return Err(fault),
    };
    // One that was only created has not exited; it is about to start.
    let started = state.started_at.is_some_and(|t| !t.starts_with("0001"));
    if state.running || state.restarting || !started {
        return Ok(None);
    }
    Ok(Some(Exit { status: state.exit_code.or(Some(0)), out_of_memory: state.oom_killed }))
}

/// Follows the engine's events until nobody waits.
async fn follow(inner: Arc<Inner>) {
    let mut pause = PAUSE.0;
    let mut told = false;
    loop {
        match attend(&inner, &mut pause, &mut told).await {
            Ok(()) if inner.watch.leave() => return,
            Ok(()) => continue,
            Err(fault) if told => log::debug!("{fault}"),
            Err(fault) => {
                log::warn!("the events of the Docker engine are lost, asking again: {fault}");
                told = true;
            }
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        if inner.watch.leave() {
            return;
        }
    }
}

/// Follows one connection's events. Returns when nobody waits; an error when the connection broke.
async fn attend(inner: &Inner, pause: &mut Duration, told: &mut bool) -> Result<(), Fault> {
    inner.engine.negotiate(inner.config.call_timeout).await?;
    let mut filters = labels::filter(Some(&inner.config.instance));
    filters.extend(HashMap::from([
        ("type".to_string(), vec!["container".to_string()]),
        ("event".to_string(), ["die", "oom", "destroy"].map(String::from).to_vec()),
    ]));
    #[expect(clippy::disallowed_methods, reason = "the engine knows no other; all handlers are looked at once as well")]
    let now = SystemTime::now();
    let since = now.checked_sub(OVERLAP).and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
    let options = EventsOptions {
        since: Some(since.unwrap_or_default().as_secs().to_string()),
        filters: Some(filters),
        ..Default::default()
    };
    let mut events = inner.engine.items(Box::pin(inner.engine.client.events(Some(options))));
    let mut check = Timer::after(Duration::ZERO);
    loop {
        let idle = inner.watch.idle.listen();
        if inner.watch.waited_for().is_empty() {
            return Ok(());
        }
        let event = async { events.wait().await.map(Step::Event) };
        let due = async {
            (&mut check).await;
            Ok(Step::Check)
        };
        let idle = async {
            idle.await;
            Ok(Step::Idle)
        };
        match event.or(due).or(idle).await? {
            Step::Idle => {}
            Step::Event(Some(event)) => inner.watch.hear(event),
            Step::Event(None) => {
                return Err(Fault::Unreachable(format!("{} closed the connection", inner.engine.address())));
            }
            Step::Check => {
                for id in inner.watch.waited_for() {
                    if let Some(exit) = state(inner, &id).await? {
                        inner.watch.tell(&id, exit);
                    }
                }
                if std::mem::take(told) {
                    log::info!("the events of the Docker engine are followed again");
                }
                *pause = PAUSE.0;
                check = if inner.is_remote() { Timer::after(RECHECK) } else { Timer::never() };
            }
        }
    }
}

enum Step {
    Event(Option<EventMessage>),
    Check,
    Idle,
}
