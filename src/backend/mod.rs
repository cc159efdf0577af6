//! Backends run handlers. One trait, one folder or file for each engine.
//!
//! A backend starts, watches and removes handlers and says where each one can be reached; it knows nothing of calls.
//! Health is asked by [`crate::deploy`], the same way for every backend.

pub mod docker;
pub mod front_door;
pub mod process;
mod progress;
pub mod resident;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::SystemTime;

pub use progress::{Progress, Seen};

use crate::function::{Deployment, Name};
use crate::net::Address;

/// A future that a trait object can return.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A handler that a backend started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The engine's own id for it: a container id, or one the process backend made.
    pub id: String,
    /// Where it may listen, best first: the first address whose `/health` answers is used.
    pub addresses: Vec<Address>,
}

/// A handler found running at the start.
#[derive(Debug, Clone)]
pub struct Found {
    /// The handler.
    pub started: Started,
    /// The function it belongs to.
    pub name: Name,
    /// [`Deployment::digest`] of the version it runs.
    pub digest: String,
}

/// One line that a handler wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// RFC 3339 time, as the engine gives it.
    pub timestamp: String,
    /// The line without its end; not always UTF-8.
    pub text: Vec<u8>,
}

/// Which lines of a handler's log are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lines {
    /// So many, the last ones; all that are kept where `None`.
    pub tail: Option<usize>,
    /// None from before; to the second, where the engine knows nothing finer.
    pub since: Option<SystemTime>,
    /// And those to come, until the handler has ended.
    pub follow: bool,
}

impl Lines {
    /// The last `count` lines that there are.
    pub const fn last(count: usize) -> Self {
        Self { tail: Some(count), since: None, follow: false }
    }
}

/// Why a backend could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendError {
    /// Whose fault it is.
    pub kind: BackendErrorKind,
    /// What was wrong and what would be right; the tail of a build log may follow on further lines.
    pub text: String,
}

/// Whose fault a [`BackendError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendErrorKind {
    /// The function or its dependencies: the user can mend it. HTTP 422.
    Function,
    /// The engine or the machine: missing interpreter, missing image, refused request. HTTP 500.
    Engine,
    /// The engine cannot be reached now. HTTP 503.
    Unreachable,
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for BackendError {}

/// What runs handlers.
pub trait Backend: Send + Sync {
    /// `docker` or `process`.
    fn name(&self) -> &'static str;

    /// Makes ready, once a deployment, what all its handlers share: the runtime, and the function's dependencies. Who waits is told
    /// by `progress`.
    ///
    /// # Errors
    /// With the tail of the installation's log where that failed. Leaves nothing behind then.
    fn prepare<'a>(&'a self, deployment: &'a Deployment, progress: &'a Progress)
    -> Boxed<'a, Result<(), BackendError>>;

    /// Starts one more handler of a prepared deployment. Returns when it is started, not when it is healthy.
    ///
    /// # Errors
    /// Leaves nothing behind then.
    fn start<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<Started, BackendError>>;

    /// Completes when the handler has exited, with one line that says how (status, signal, out of memory).
    fn exited<'a>(&'a self, id: &'a str) -> Boxed<'a, String>;

    /// Stops a handler and removes all of it. A handler that is gone already is no error.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached.
    fn stop<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<(), BackendError>>;

    /// Removes what [`Backend::prepare`] made for this version; its handlers were stopped before.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached.
    fn forget<'a>(&'a self, deployment: &'a Deployment) -> Boxed<'a, Result<(), BackendError>>;

    /// Sends those that are wanted of the lines that the handler wrote, oldest first, to `lines`. Whoever takes them slowly is waited
    /// for; where lines are lost meanwhile, one stands for them that says how many.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached. A receiver that is dropped ends it without error.
    fn logs<'a>(
        &'a self,
        id: &'a str,
        want: Lines,
        lines: async_channel::Sender<LogLine>,
    ) -> Boxed<'a, Result<(), BackendError>>;

    /// Bytes that the handler has resident: see [`resident`]. `None` where that is not to be seen without asking the engine.
    fn resident(&self, id: &str) -> Option<u64>;

    /// This instance's handlers that still run from before.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached.
    fn running(&self) -> Boxed<'_, Result<Vec<Found>, BackendError>>;

    /// Removes everything of this instance that belongs to none of `keep`: handlers, what `prepare` made, networks where none is kept.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached.
    fn sweep<'a>(&'a self, keep: &'a [Deployment]) -> Boxed<'a, Result<(), BackendError>>;

    /// Whether the connection from `peer` to us comes from one of its handlers, where these share our network.
    fn is_handler(&self, _peer: SocketAddr) -> bool {
        // Where they have networks of their own they do not reach loopback.
        false
    }

    /// Removes handlers that an earlier run asked for and that came into being only after [`Self::sweep`]; `taken` are those of
    /// earlier runs that this one took over.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached.
    fn sweep_late<'a>(&'a self, _taken: &'a [String]) -> Boxed<'a, Result<(), BackendError>> {
        // Where handlers end with the server there are none.
        Box::pin(async { Ok(()) })
    }
}
