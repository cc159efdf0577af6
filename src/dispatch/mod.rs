//! The function table: which functions there are, which handlers serve them, who waits.
//!
//! A call takes the least busy healthy handler, or waits in its function's bounded queue until one is free, within its
//! deadline: first come, first served. What then happens between us and the handler is in [`exchange`]. Nothing here knows a protocol of the front
//! doors or an engine.

pub mod counts;
pub mod errors;
pub mod exchange;
mod handler;
mod pump;
mod queue;
mod sleep;
mod table;

pub use counts::Counts;
pub use exchange::Reply;
pub use handler::Handler;
pub use table::{Function, Lease};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use log::Level;

use crate::buffers::Buffers;
use crate::call::{Body, Call, Failure, FailureKind, Protocol};
use crate::client::Client;
use crate::function::Name;
use crate::logging::about_call;
use crate::net::Stream;
use crate::reactor::Timer;
use errors::Errors;
use table::Line;

/// Sends calls to handlers.
#[derive(Debug, Default)]
pub struct Dispatch {
    functions: Mutex<BTreeMap<Box<str>, Entry>>,
    buffers: Buffers,
    /// Calls of names that no function has, by protocol: such a name is a stranger's, so there is no count for each.
    unknown: [AtomicU64; Protocol::ALL.len()],
    /// The last calls that failed.
    errors: Arc<Errors>,
    stopping: AtomicBool,
    /// Notified when a function may have changed something.
    changed: Event,
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
struct Who<'c> {
    client: Option<Client>,
    token: Option<&'c str>,
}

/// What a call that waited met.
enum Waited {
    Told,
    BodyCame,
    TooLate,
}

/// What is under one name.
#[derive(Debug)]
struct Entry {
    function: Arc<Function>,
    counts: Arc<Counts>,
}

impl Dispatch {
    /// A dispatcher that knows no function yet.
    pub fn new(buffers: Buffers) -> Self {
        Self { buffers, ..Self::default() }
    }

    /// Puts `function` into the table. From now on calls of its name go to its handlers; calls that waited for the
    /// function it replaces wait for it. Returns the one it replaces, which takes no more calls: see [`Function::drained`].
    /// A function that is there already just stays.
    pub fn install(&self, function: Arc<Function>) -> Option<Arc<Function>> {
        let old = {
            let mut table = self.table();
            match table.get_mut(function.name().as_str()) {
                Some(entry) => Some(std::mem::replace(&mut entry.function, Arc::clone(&function))),
                None => {
                    let name = function.name().as_str();
                    let counts = Arc::new(Counts::new(name, Arc::clone(&self.errors)));
                    table.insert(name.into(), Entry { function: Arc::clone(&function), counts });
                    None
                }
            }
        };
        // A restored function is installed twice: while it comes up, and when it is active.
        let old = old.filter(|old| !Arc::ptr_eq(old, &function));
        if let Some(old) = &old {
            old.retire();
        }
        old
    }

    /// Takes the function out of the table; calls that wait for it fail as unknown.
    pub fn remove(&self, name: &str) -> Option<Arc<Function>> {
        let old = self.table().remove(name).map(|entry| entry.function);
        if let Some(old) = &old {
            old.retire();
        }
        self.errors.forget(name);
        old
    }

    /// The last calls that failed.
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    /// The function of that name.
    pub fn function(&self, name: &str) -> Option<Arc<Function>> {
        self.table().get(name).map(|entry| Arc::clone(&entry.function))
    }

    /// What was counted of the calls of that name.
    pub fn counts(&self, name: &str) -> Option<Arc<Counts>> {
        self.table().get(name).map(|entry| Arc::clone(&entry.counts))
    }

    /// Calls that came by `protocol` for a function that there is not.
    pub fn unknown(&self, protocol: Protocol) -> u64 {
        self.unknown.get(protocol as usize).map_or(0, |n| n.load(Ordering::Relaxed))
    }

    /// Hands each function's name to `each`, sorted. The table is locked meanwhile.
    pub fn each_name(&self, each: &mut dyn FnMut(&str)) {
        self.table().keys().for_each(|name| each(name));
    }

    /// Notified when a call that is not [safe](crate::call::Method::is_safe) succeeded, by whatever protocol it came.
    pub fn listen_for_changes(&self) -> EventListener {
        self.changed.listen()
    }

    /// Hands the name of each function that may have changed something since this was last asked to `each`, once however
    /// often it did. For one listener: who asks takes the changes away.
    pub fn take_changes(&self, each: &mut dyn FnMut(&str)) {
        let table = self.table();
        table.values().map(|e| &e.function).filter(|f| f.take_changed()).for_each(|f| each(f.name().as_str()));
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// Whether there is no function.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on new calls fail as [`FailureKind::Unavailable`].
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for entry in self.table().values() {
            entry.function.wake_waiting();
        }
    }

    /// Sends one call to a handler and returns when the head of the reply is there. The body of the call may still be
    /// under way then: reading the reply to its end sends it.
    ///
    /// # Errors
    /// [`Failure`] when there is no reply; dropping the future gives the call up.
    #[expect(clippy::manual_async_fn, reason = "smaller: an async fn keeps its arguments twice, and each call has one")]
    pub fn call<'a>(&self, mut call: Call<'a>) -> impl Future<Output = Result<Reply<'a>, Failure>> + Send {
        async move {
            let mut metered = self.counts(call.function).map(|counts| counts.begin(call.protocol));
            if metered.is_none()
                && let Some(unknown) = self.unknown.get(call.protocol as usize)
            {
                unknown.fetch_add(1, Ordering::Relaxed);
            }
            let (function, id) = (call.function, call.id);
            let called = async {
                let who = Who { client: call.client, token: call.token };
                let asked = self.connection(who, call.function, &mut call.body, call.deadline);
                let (lease, stream, deadline) = asked.await?;
                let changes = !call.method.is_safe();
                let reply = exchange::run(stream, lease, call, deadline, &self.buffers, &mut metered).await?;
                if changes && reply.status < 400 {
                    reply.mark_changed();
                    self.changed.notify(usize::MAX);
                }
                Ok(reply)
            };
            let called = called.await;
            match (&called, &mut metered) {
                (Err(failure), Some(metered)) => {
                    metered.failed(id, failure);
                    metered.log(id, failure);
                }
                (Err(failure), None) => about_call(Level::Debug, None, id, format_args!("{failure}")),
                (Ok(reply), _) if reply.status >= 500 => {
                    about_call(Level::Debug, Some(function), id, format_args!("it answered {}", reply.status));
                }
                _ => {}
            }
            called
        }
    }

    /// A handler with a place for a call, a connection to it, and until when it may take.
    async fn connection(
        &self,
        who: Who<'_>,
        function: &str,
        body: &mut Body<'_>,
        asked: Option<Instant>,
    ) -> Result<(Lease, Stream, Instant), Failure> {
        let mut latest = asked;
        loop {
            let (lease, deadline) = self.lease_for(who, function, body, latest).await?;
            match exchange::connect(&lease, deadline).await? {
                Some(stream) => return Ok((lease, stream, deadline)),
                // Nobody listens there any more, so the function saw nothing of this call: another handler may have it.
                None => {
                    lease.handler().mark_unhealthy();
                    latest = Some(deadline);
                }
            }
        }
    }

    /// Waits for a handler that has a place free, for whoever sends the call himself; also says until when it may take.
    ///
    /// # Errors
    /// As [`Dispatch::call`].
    pub async fn lease(
        &self,
        name: &str,
        token: Option<&str>,
        asked: Option<Instant>,
    ) -> Result<(Lease, Instant), Failure> {
        self.lease_for(Who { client: None, token }, name, &mut Body::Bytes(&[]), asked).await
    }

    async fn lease_for(
        &self,
        who: Who<'_>,
        name: &str,
        body: &mut Body<'_>,
        asked: Option<Instant>,
    ) -> Result<(Lease, Instant), Failure> {
        let begun = Instant::now();
        let mut place: Option<table::Place> = None;
        let mut line = if body.is_whole() { Line::Whole } else { Line::Coming };
        loop {
            let function = self.callable(name, who.token)?;
            let limit = begun + function.limits().timeout;
            let deadline = asked.map_or(limit, |asked| asked.min(limit));
            let waits = place.as_ref().filter(|place| place.is_in(&function, line));
            if let Some(lease) = function.try_lease(line, waits) {
                return Ok((lease, deadline));
            }
            if let Some(why) = function.refusal() {
                return Err(Failure::new(FailureKind::Unavailable, why));
            }
            let full = || {
                let queue = function.limits().queue;
                let text = format!("all handlers of {name} are busy and {queue} calls wait already: try again later");
                Failure::new(FailureKind::QueueFull, text)
            };
            let Some(waits) = waits else {
                place = Some(function.queue(line, who.client).ok_or_else(full)?);
                // A handler may have become free between the look and the queueing.
                continue;
            };
            let told = async {
                waits.told().await;
                Ok(Waited::Told)
            };
            let late = async {
                Timer::at(deadline).await;
                Ok(Waited::TooLate)
            };
            let came = async {
                match line {
                    Line::Whole => std::future::pending().await,
                    Line::Coming => {
                        let turn = async {
                            Timer::after(table::TURN).await;
                            Ok(Waited::Told)
                        };
                        let came = async { body.whole().await.map(|()| Waited::BodyCame) };
                        came.or(turn).await
                    }
                }
            };
            let waited = told.or(late).or(came).await.map_err(|e| pump::caller_failure(&e))?;
            if waits.gave_way() {
                return Err(full());
            }
            match waited {
                Waited::Told => {}
                // From here on it waits as others do.
                Waited::BodyCame => line = Line::Whole,
                Waited::TooLate => {
                    let text = format!("no handler of {name} became free in time");
                    return Err(Failure::new(FailureKind::TooLate, text));
                }
            }
        }
    }

    /// The function of that name, if calls are taken at all, and from who sent this token.
    ///
    /// # Errors
    /// Unknown, not for this caller, or the runtime is stopping.
    pub fn callable(&self, name: &str, token: Option<&str>) -> Result<Arc<Function>, Failure> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Failure::new(FailureKind::Unavailable, "the runtime is stopping: try again later"));
        }
        let function = self.function(name).ok_or_else(|| {
            let shown: String = name.chars().take(Name::MAX).collect();
            Failure::new(
                FailureKind::UnknownFunction,
                format!("no function named {shown:?}: GET /list shows those deployed"),
            )
        })?;
        match function.admits(token) {
            true => Ok(function),
            false => {
                let text = format!(
                    "function {name} wants a token: HTTP and gRPC send it as authorization: Bearer TOKEN, CoAP as ?token=TOKEN"
                );
                Err(Failure::new(FailureKind::Unauthorized, text))
            }
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<Box<str>, Entry>> {
        // The table is whole even if a thread died while it held the lock.
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod queue_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
