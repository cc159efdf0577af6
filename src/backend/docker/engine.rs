//! One engine: its API version, a time bound around every call, and what its errors mean.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_executor::StaticExecutor;
use bollard::Docker as Client;
use bollard::errors::Error;
use futures_lite::{FutureExt, Stream, StreamExt};
use serde::de::DeserializeOwned;

use super::address::EngineAddress;
use super::ask;
use super::transport::{ApiVersion, Inert, Transport};
use crate::backend::{BackendError, BackendErrorKind, Boxed};
use crate::reactor::Timer;
use crate::worker::Workers;

/// The oldest API that has all that is used (an init in the container came with it). Engine 1.13 of 2017.
const OLDEST_API: (u16, u16) = (1, 25);
/// Longest text of an engine's error that is passed on, in bytes.
const MAX_ERROR: usize = 1024;
/// bollard's own bound on a request, in seconds. It never fires, since nothing drives tokio's timers.
const NO_TIMEOUT: u64 = 24 * 3600;

/// Why the engine did not do it.
#[derive(Debug)]
pub enum Fault {
    /// It said no: an HTTP status and its reason.
    Refused(u16, String),
    /// It cannot be reached now.
    Unreachable(String),
    /// It took longer than the bound.
    Late(String),
    /// Something else: no right to use it, or it did not speak as expected.
    Other(String),
}

impl Fault {
    /// Whether the engine answered with this HTTP status.
    pub fn is(&self, status: u16) -> bool {
        matches!(self, Self::Refused(s, _) if *s == status)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_, text) | Self::Unreachable(text) | Self::Late(text) | Self::Other(text) => {
                f.write_str(text)
            }
        }
    }
}

impl From<Fault> for BackendError {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::Unreachable(_) | Fault::Late(_) => BackendErrorKind::Unreachable,
            Fault::Refused(..) | Fault::Other(_) => BackendErrorKind::Engine,
        };
        Self { kind, text: fault.to_string() }
    }
}

/// A client of one engine.
pub struct Engine {
    /// The requests there are.
    pub client: Client,
    transport: Transport,
    address: EngineAddress,
    version: ApiVersion,
    inert: Inert,
}

impl Engine {
    /// A client of the engine at `address`; connects to nothing yet.
    ///
    /// # Errors
    /// When the process has no memory or no file descriptors left.
    pub fn new(address: EngineAddress, executor: &'static StaticExecutor, workers: Workers) -> Result<Self, Fault> {
        let version = ApiVersion::default();
        let transport = Transport::new(executor, workers, address.clone(), version.clone());
        let carrier = transport.clone();
        let carry = move |request| carrier.clone().request(request);
        let client = Client::connect_with_custom_transport(
            carry,
            Some("http://docker"),
            NO_TIMEOUT,
            bollard::API_DEFAULT_VERSION,
        );
        let client = client.map_err(|e| Fault::Other(e.to_string()))?;
        let inert = Inert::new().map_err(|e| Fault::Other(format!("cannot make a runtime handle: {e}")))?;
        Ok(Self { client, transport, address, version, inert })
    }

    /// Where the engine listens.
    pub fn address(&self) -> &EngineAddress {
        &self.address
    }

    /// Waits for `request`, at most `limit`. The API version is negotiated before, where it is not known.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn call<T>(&self, limit: Duration, request: Boxed<'_, Result<T, Error>>) -> Result<T, Fault> {
        self.negotiate(limit).await?;
        self.bounded(limit, request).await
    }

    /// What the engine answers to `GET path`, within `limit`.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn ask<T: DeserializeOwned>(&self, limit: Duration, path: String) -> Result<T, Fault> {
        let answer = self.call(limit, Box::pin(ask::get(self.transport.clone(), path))).await?;
        serde_json::from_slice(&answer)
            .map_err(|e| Fault::Other(format!("the Docker engine at {} said what it should not: {e}", self.address)))
    }

    /// Has the engine do what `POST path` asks for, and waits for its end; within `limit` it has to tell how far it is.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn work(&self, limit: Duration, path: String) -> Result<(), Fault> {
        let mut progress = self.call(limit, Box::pin(ask::Progress::begin(self.transport.clone(), path))).await?;
        while self.bounded(limit, Box::pin(progress.more())).await? {}
        Ok(())
    }

    /// Asks for the engine's version where it is not known. It is forgotten when the engine cannot be reached: the
    /// next one at this address may be another.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn negotiate(&self, limit: Duration) -> Result<(), Fault> {
        if self.version.get().is_some() {
            return Ok(());
        }
        let answer = self.bounded(limit, Box::pin(ask::get(self.transport.clone(), "/version".into()))).await?;
        let server = serde_json::from_slice::<ask::Version>(&answer).map(|version| version.api).unwrap_or_default();
        let parsed = server.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse::<u16>().ok()?)));
        let Some(theirs) = parsed else {
            return Err(Fault::Other(format!("{} is no Docker engine: it names no API version", self.address)));
        };
        if theirs < OLDEST_API {
            let (major, minor) = OLDEST_API;
            return Err(Fault::Other(format!(
                "the Docker engine is too old: its API is {server}, and {major}.{minor} is needed (Docker 1.13)"
            )));
        }
        let ours = bollard::API_DEFAULT_VERSION;
        let ours = (u16::try_from(ours.major_version).unwrap_or(1), u16::try_from(ours.minor_version).unwrap_or(41));
        let (major, minor) = theirs.min(ours);
        self.version.set(major, minor);
        log::debug!("Docker engine at {}: API {server}, {major}.{minor} is spoken", self.address);
        Ok(())
    }

    /// The items of a streaming answer.
    pub fn items<'a, T>(&'a self, stream: Pin<Box<dyn Stream<Item = Result<T, Error>> + Send + 'a>>) -> Items<'a, T> {
        Items { engine: self, stream }
    }

    async fn bounded<T>(&self, limit: Duration, request: Boxed<'_, Result<T, Error>>) -> Result<T, Fault> {
        let late = async {
            Timer::after(limit).await;
            Err(Fault::Late(format!("the Docker engine at {} gave no answer in {limit:?}", self.address)))
        };
        async { self.inert.enter(request).await.map_err(|e| self.fault(&e)) }.or(late).await
    }

    fn fault(&self, error: &Error) -> Fault {
        let address = &self.address;
        let fault = match error {
            Error::DockerResponseServerError { status_code, message } => {
                Fault::Refused(*status_code, one_line(message))
            }
            Error::DockerStreamError { error } => Fault::Refused(500, one_line(error)),
            Error::IOError { err } => match err.kind() {
                io::ErrorKind::PermissionDenied => Fault::Other(format!(
                    "no permission to use the Docker engine at {address}: add the user to the group docker, or run as root"
                )),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Fault::Unreachable(format!(
                    "no Docker engine answers at {address} ({err}): start it, or name another with DOCKER_HOST"
                )),
                _ => Fault::Unreachable(format!("cannot reach the Docker engine at {address}: {err}")),
            },
            Error::HyperResponseError { err } => {
                Fault::Unreachable(format!("the connection to the Docker engine at {address} broke: {err}"))
            }
            other => Fault::Other(format!("the Docker engine at {address}: {}", one_line(&other.to_string()))),
        };
        if matches!(fault, Fault::Unreachable(_)) {
            self.version.set(0, 0);
        }
        fault
    }
}

/// A streaming answer.
pub struct Items<'a, T> {
    engine: &'a Engine,
    stream: Pin<Box<dyn Stream<Item = Result<T, Error>> + Send + 'a>>,
}

impl<T> Items<'_, T> {
    /// The next item; `None` at the end. Waits at most `limit`.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn next(&mut self, limit: Duration) -> Result<Option<T>, Fault> {
        let stream = &mut self.stream;
        self.engine.bounded(limit, Box::pin(async move { stream.next().await.transpose() })).await
    }

    /// As [`Items::next`], however long it takes.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn wait(&mut self) -> Result<Option<T>, Fault> {
        let next = self.stream.next();
        self.engine.inert.enter(next).await.transpose().map_err(|e| self.engine.fault(&e))
    }
}

/// An engine's message on one line, bounded.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_ERROR));
    for c in text.trim().chars() {
        if line.len() >= MAX_ERROR {
            line.push_str("...");
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}
