//! One version of a function that is deployed, and how its handlers are.

use std::sync::{Arc, Mutex, MutexGuard};

use async_executor::Task;
use event_listener::Event;

use super::lock;
use crate::dispatch::{Function, Handler};
use crate::function::Deployment;
use crate::shutdown::Shutdown;

/// Longest reason that is kept, in bytes: one for each handler.
const MAX_REASON: usize = 512;

/// One version of a function with the tasks that keep its handlers running.
pub struct Active {
    deployment: Deployment,
    function: Arc<Function>,
    /// Asks everyone who works for this version to end.
    pub(super) retire: Shutdown,
    /// Stops the handlers while nobody calls, where that is wanted.
    pub(super) keeper: Mutex<Vec<Task<()>>>,
    /// Each keeps one handler running.
    pub(super) supervisors: Mutex<Vec<Task<()>>>,
    /// Asks the supervisors that there are now to let their calls finish, stop their handlers and end.
    period: Mutex<Shutdown>,
    /// Notified when the state of a handler changes.
    pub(super) changed: Event,
    /// Held by whoever prepares this version.
    pub(super) preparing: async_lock::Mutex<()>,
    /// One for each handler that there should be.
    slots: Mutex<Box<[Slot]>>,
}

/// The place of one handler: who is there, and what happened there.
#[derive(Default)]
struct Slot {
    handler: Option<Arc<Handler>>,
    state: State,
    restarts: u64,
    reason: Option<Box<str>>,
    /// Whether it ended or could not be started in this period.
    failed: bool,
}

/// How a handler is, or a function with all its handlers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It is being started, or will be when the engine can be reached.
    #[default]
    Starting,
    /// It takes calls.
    Healthy,
    /// A call failed on it, and it is being asked how it is.
    Doubtful,
    /// It ended or could not be started; the next start waits for a growing pause.
    BackingOff,
    /// It was stopped because nobody called; the next call starts it.
    Idle,
    /// Of a function only: some handlers are healthy and others not.
    Degraded,
}

impl State {
    /// The states of handlers.
    pub const OF_HANDLERS: [Self; 5] = [Self::Starting, Self::Healthy, Self::Doubtful, Self::BackingOff, Self::Idle];

    /// The state as it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Doubtful => "doubtful",
            Self::BackingOff => "backing off",
            Self::Idle => "idle",
            Self::Degraded => "degraded",
        }
    }
}

/// How one handler is.
#[derive(Debug, Clone)]
pub struct HandlerStatus {
    /// The backend's id; `None` while there is no handler.
    pub id: Option<String>,
    /// How it is.
    pub state: State,
    /// How often it was started again after it ended or could not be started.
    pub restarts: u64,
    /// Why it was started again last.
    pub reason: Option<Box<str>>,
    /// Calls it works on now.
    pub in_flight: usize,
}

impl Active {
    /// A version whose handlers are to be started.
    pub(super) fn new(deployment: Deployment) -> Arc<Self> {
        let function =
            Function::new(deployment.name.clone(), deployment.limits.clone()).guarded(deployment.auth.clone());
        let slots = (0..deployment.threads).map(|_| Slot::default()).collect();
        Arc::new(Self {
            deployment,
            function: Arc::new(function),
            retire: Shutdown::new(),
            keeper: Mutex::default(),
            supervisors: Mutex::default(),
            period: Mutex::default(),
            changed: Event::new(),
            preparing: async_lock::Mutex::default(),
            slots: Mutex::new(slots),
        })
    }

    /// What was deployed.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Where its calls go.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// How each handler is.
    pub fn handlers(&self) -> Vec<HandlerStatus> {
        let status = |slot: &Slot| HandlerStatus {
            id: slot.handler.as_ref().map(|h| h.id().to_owned()),
            state: slot.state,
            restarts: slot.restarts,
            reason: slot.reason.clone(),
            in_flight: slot.handler.as_ref().map_or(0, |h| h.in_flight()),
        };
        self.slots().iter().map(status).collect()
    }

    /// Whether its handlers are being started for the first time, and none is up.
    pub(super) fn is_coming_up(&self) -> bool {
        let slots = self.slots();
        let is_first = |slot: &Slot| slot.state == State::Starting && slot.restarts == 0;
        slots.iter().any(is_first) && slots.iter().all(|slot| is_first(slot) || slot.state == State::BackingOff)
    }

    /// Hands what `look` wants of each handler's place to it: its state, how often it was started again, and who is there.
    pub fn each_handler(&self, look: &mut dyn FnMut(State, u64, Option<&Handler>)) {
        self.slots().iter().for_each(|slot| look(slot.state, slot.restarts, slot.handler.as_deref()));
    }

    /// How the function is: what its handlers have in common, else whether one of them is well, else the best of them.
    pub fn state(&self) -> State {
        let slots = self.slots();
        let is = |state| slots.iter().filter(|slot| slot.state == state).count();
        if is(State::Healthy) == slots.len() {
            return State::Healthy;
        }
        if is(State::Healthy) > 0 {
            return State::Degraded;
        }
        let others = [State::Doubtful, State::Starting, State::BackingOff, State::Idle];
        others.into_iter().find(|state| is(*state) > 0).unwrap_or_default()
    }

    /// The handler in `slot` is being started.
    pub(super) fn is_starting(&self, slot: usize) {
        self.change(slot, |slot| slot.state = State::Starting);
    }

    /// There is a handler in `slot`, and it takes calls.
    pub(super) fn is_healthy(&self, slot: usize, handler: &Arc<Handler>) {
        self.change(slot, |slot| {
            slot.state = State::Healthy;
            slot.handler = Some(Arc::clone(handler));
        });
    }

    /// The handler in `slot` is being asked how it is.
    pub(super) fn is_doubtful(&self, slot: usize) {
        self.change(slot, |slot| slot.state = State::Doubtful);
    }

    /// There is no handler in `slot` any more, or none could be started.
    pub(super) fn is_backing_off(&self, slot: usize, reason: &str) {
        self.change(slot, |slot| {
            slot.state = State::BackingOff;
            slot.failed = true;
            slot.handler = None;
            slot.restarts += 1;
            slot.reason = Some(first_line(reason).into());
        });
    }

    /// All handlers were stopped.
    pub(super) fn all_idle(&self) {
        for slot in self.slots().iter_mut() {
            slot.state = State::Idle;
            slot.handler = None;
        }
    }

    /// Why there is no handler, where all ended or could not be started since they were started last.
    pub(super) fn all_failed(&self) -> Option<String> {
        let slots = self.slots();
        let failed = slots.iter().all(|slot| slot.failed);
        let why = slots.iter().find_map(|slot| slot.reason.as_deref());
        failed.then(|| why.unwrap_or_default().to_owned())
    }

    /// What asks the supervisors that there are now to end.
    pub(super) fn period(&self) -> Shutdown {
        lock(&self.period).clone()
    }

    /// Handlers are started again, by new supervisors.
    pub(super) fn begin_period(&self) {
        *lock(&self.period) = Shutdown::new();
        for slot in self.slots().iter_mut() {
            slot.failed = false;
            slot.state = State::Starting;
        }
        self.function.wake();
    }

    /// Asks the supervisors that there are now to end.
    pub(super) fn end_period(&self) {
        self.period().begin();
    }

    fn change(&self, slot: usize, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots().get_mut(slot) {
            change(slot);
        }
        self.changed.notify(usize::MAX);
    }

    fn slots(&self) -> MutexGuard<'_, Box<[Slot]>> {
        lock(&self.slots)
    }
}

/// What follows in an error's text is the tail of a log.
fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let end = (0..=line.len().min(MAX_REASON)).rev().find(|&end| line.is_char_boundary(end)).unwrap_or_default();
    line.get(..end).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::function::{Limits, Name, Runtime};
    use crate::net::Address;

    fn version(threads: usize) -> Arc<Active> {
        Active::new(Deployment {
            name: Name::parse("f").unwrap(),
            runtime: Runtime::BINARY,
            image: None,
            threads,
            envs: Vec::new(),
            auth: Vec::new(),
            network: true,
            idle: None,
            origin: crate::function::Origin::Upload,
            limits: Limits {
                memory: 0,
                cpu_millis: 0,
                pids: 0,
                timeout: Duration::from_secs(1),
                concurrency: 1,
                queue: 1,
            },
            digest: String::new(),
            package: "".into(),
            subfolder: String::new(),
        })
    }

    #[test]
    fn a_function_is_as_its_handlers_are() {
        let active = version(2);
        assert_eq!(active.state(), State::Starting);
        let handler = Arc::new(Handler::new("h".into(), Address::Unix("".into())));
        active.is_healthy(0, &handler);
        assert_eq!(active.state(), State::Degraded);
        active.is_healthy(1, &handler);
        assert_eq!(active.state(), State::Healthy);
        active.is_doubtful(0);
        active.is_backing_off(1, "it exited with status 1");
        assert_eq!(active.state(), State::Doubtful);
        active.is_backing_off(0, "it exited with status 1");
        assert_eq!(active.state(), State::BackingOff);
        active.is_starting(0);
        assert_eq!(active.state(), State::Starting);
    }

    #[test]
    fn the_last_reason_stays_one_bounded_line_and_restarts_are_counted() {
        let active = version(1);
        active.is_backing_off(0, "first");
        active.is_backing_off(0, &format!("{}\nits log", "ü".repeat(MAX_REASON)));
        let handler = Arc::new(Handler::new("h".into(), Address::Unix("".into())));
        active.is_healthy(0, &handler);
        let [status] = &active.handlers()[..] else { panic!("one handler") };
        assert_eq!((status.id.as_deref(), status.state, status.restarts), (Some("h"), State::Healthy, 2));
        assert_eq!(status.reason.as_deref(), Some("ü".repeat(MAX_REASON / 2).as_str()));
    }
}
