//! `GET /functions` and `GET /functions/NAME`: what is deployed and how it is, as JSON; `GET /functions/NAME/deployment`: how far
//! that is.
//!
//! Of environment variables only the keys are shown: the values are secrets.

use serde::Serialize;

use crate::backend::Seen;
use crate::deploy::{Active, HandlerStatus};
use crate::function::Limits;
use crate::quantity;

/// One function with its handlers.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    env: &'a str,
    /// What its handlers are, where no archive is run.
    image: Option<&'a str>,
    threads: usize,
    digest: &'a str,
    state: &'static str,
    calls: u64,
    in_flight: usize,
    waiting: usize,
    limits: ShownLimits,
    /// As an upload may say it.
    idle: Option<String>,
    /// Whether its handlers have one.
    network: bool,
    /// How many tokens calls may come with; 0 where they need none.
    auth: usize,
    /// The keys alone.
    envs: Vec<&'a str>,
    handlers: Vec<ShownHandler>,
}

/// Limits as an upload may name them.
#[derive(Serialize)]
struct ShownLimits {
    memory: String,
    cpu: String,
    pids: u32,
    timeout: String,
    concurrency: usize,
    queue: usize,
}

#[derive(Serialize)]
struct ShownHandler {
    id: Option<String>,
    state: &'static str,
    in_flight: usize,
    restarts: u64,
    /// Why it was started again last.
    reason: Option<Box<str>>,
}

/// One function's JSON object; `networked` is whether the server gives any function a network.
pub(super) fn object(active: &Active, networked: bool) -> Vec<u8> {
    let (deployment, function) = (active.deployment(), active.function());
    let handlers = active.handlers();
    let shown = Shown {
        name: deployment.name.as_str(),
        env: deployment.runtime.name(),
        image: deployment.image.as_deref(),
        threads: deployment.threads,
        digest: &deployment.digest,
        state: active.state().name(),
        calls: function.calls(),
        in_flight: function.in_flight(),
        waiting: function.waiting(),
        limits: ShownLimits::new(&deployment.limits),
        idle: deployment.idle.map(quantity::show_duration),
        network: networked && deployment.network,
        auth: deployment.auth.len(),
        envs: deployment.envs.iter().map(|pair| pair.split_once('=').map_or("", |(key, _)| key)).collect(),
        handlers: handlers.into_iter().map(ShownHandler::new).collect(),
    };
    // A struct of numbers and strings always becomes JSON.
    serde_json::to_vec(&shown).unwrap_or_default()
}

/// A deployment's JSON object.
pub(super) fn deployment(seen: &Seen) -> Vec<u8> {
    #[derive(Serialize)]
    struct Shown<'a> {
        step: &'a str,
        /// Since it began.
        seconds: u64,
        /// How many lines of a log there were.
        lines: u64,
        /// The last ones of them.
        log: &'a [Box<str>],
    }
    let Seen { since, step, count, lines } = seen;
    let mut text = serde_json::to_vec(&Shown { step, seconds: since.as_secs(), lines: *count, log: lines });
    // A struct of numbers and strings always becomes JSON.
    text.iter_mut().for_each(|text| text.push(b'\n'));
    text.unwrap_or_default()
}

impl ShownLimits {
    fn new(limits: &Limits) -> Self {
        Self {
            memory: quantity::show_bytes(limits.memory),
            cpu: quantity::show_cpu_millis(limits.cpu_millis),
            pids: limits.pids,
            timeout: quantity::show_duration(limits.timeout),
            concurrency: limits.concurrency,
            queue: limits.queue,
        }
    }
}

impl ShownHandler {
    fn new(status: HandlerStatus) -> Self {
        let HandlerStatus { id, state, restarts, reason, in_flight } = status;
        Self { id, state: state.name(), in_flight, restarts, reason }
    }
}
