//! What stands for TLS in a build without it: the same names, and nobody can make one of them.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::reactor::Async;

/// Whether this build has it.
pub const IS_THERE: bool = false;

const ABSENT: &str = "this build has no TLS: use the full flavour, or build with --features tls";

/// A connection over TLS.
#[derive(Debug)]
pub enum TlsStream {}

/// Does the handshake with who connects to a door.
#[derive(Debug)]
pub enum Acceptor {}

/// The files that certificates come from.
#[derive(Debug, Clone)]
pub struct Files {
    /// Our certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients of the management API.
    pub client_ca: Option<PathBuf>,
}

/// What does handshakes at each door.
#[derive(Debug)]
pub struct Doors {
    /// At that of HTTP.
    pub http: Arc<Acceptor>,
    /// At that of gRPC.
    pub grpc: Arc<Acceptor>,
    /// At that of the management API.
    pub management: Arc<Acceptor>,
}

/// Which authorities are believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The public ones, and those in this file where there is one.
    Public(Option<&'a Path>),
    /// Those in this file alone.
    Only(&'a Path),
}

/// What connections are made with.
#[derive(Debug, Clone)]
pub enum Client {}

impl TlsStream {
    /// Nobody can call it; nor the others.
    pub fn socket(&self) -> &Async<TcpStream> {
        match *self {}
    }

    #[expect(missing_docs, reason = "as above")]
    pub fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    #[expect(missing_docs, reason = "as above")]
    pub fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    #[expect(missing_docs, reason = "as above")]
    pub fn poll_write(&self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    #[expect(missing_docs, reason = "as above")]
    pub fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    #[expect(missing_docs, reason = "as above")]
    pub fn poll_close(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    #[expect(missing_docs, reason = "as above")]
    pub fn poll_discard(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }
}

impl Acceptor {
    /// Nobody can call it.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "the other one waits")]
    pub async fn accept(&self, _: Async<TcpStream>, _: Duration) -> io::Result<TlsStream> {
        match *self {}
    }
}

impl Doors {
    /// Does not work here.
    ///
    /// # Errors
    /// That.
    pub fn load(_: Files) -> Result<Self, String> {
        Err(ABSENT.into())
    }

    /// Nobody can call it.
    ///
    /// # Errors
    /// None.
    pub fn reload(&self) -> Result<(), String> {
        match *self.http {}
    }
}

impl Client {
    /// Does not work here.
    ///
    /// # Errors
    /// That.
    pub fn new(_: Trust<'_>, _: Option<(&Path, &Path)>, _: &str) -> Result<Self, String> {
        Err(ABSENT.into())
    }

    /// Nobody can call it.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "the other one waits")]
    pub async fn connect(&self, _: &str, _: Async<TcpStream>) -> io::Result<TlsStream> {
        match *self {}
    }
}
