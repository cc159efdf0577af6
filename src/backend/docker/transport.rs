//! Carries bollard's requests to the engine without tokio's driver: one connection a request, on smol.
//!
//! A connection is made for each request and closed after its answer: connecting to a unix socket costs some
//! microseconds, a connection kept would cost its buffers for as long as the process lives.
//!
//! bollard wraps each request in tokio's `timeout`, which panics outside of a tokio runtime. [`Inert`] is one that
//! nobody drives: no thread, no timer that fires. It is entered only while a future of bollard is polled, so it does
//! not matter on which thread that happens. Timers that do fire are [`super::engine`]'s.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use async_executor::StaticExecutor;
use bollard::BollardRequest;
use bollard::errors::Error;
use futures_lite::{AsyncRead, AsyncWrite};
use http::header::{HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::address::EngineAddress;
use crate::net::{Address, Stream};
use crate::worker::Workers;

/// hyper's read buffer may grow to this many bytes: a log frame is 16 KiB, and the answers are collected elsewhere.
const READ_BUFFER: usize = 32 * 1024;

/// The API version that requests ask for: major in the upper half, minor in the lower. 0 while it is not known.
#[derive(Debug, Clone, Default)]
pub struct ApiVersion(Arc<AtomicU32>);

impl ApiVersion {
    /// Remembers what was negotiated; (0, 0) forgets it.
    pub fn set(&self, major: u16, minor: u16) {
        self.0.store(u32::from(major) << 16 | u32::from(minor), Ordering::Release);
    }

    /// What was negotiated, unless nothing was.
    pub fn get(&self) -> Option<(u32, u32)> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            v => Some((v >> 16, v & 0xffff)),
        }
    }
}

/// How requests reach the engine.
#[derive(Clone)]
pub struct Transport {
    executor: &'static StaticExecutor,
    workers: Workers,
    address: Arc<EngineAddress>,
    version: ApiVersion,
}

impl Transport {
    /// A transport to `address` whose connections are driven on `executor`. A host name is resolved in `workers`.
    pub fn new(
        executor: &'static StaticExecutor,
        workers: Workers,
        address: EngineAddress,
        version: ApiVersion,
    ) -> Self {
        Self { executor, workers, address: Arc::new(address), version }
    }

    /// Connects, sends `request` and waits for the answer's head; the connection lives until its body was read.
    ///
    /// # Errors
    /// An I/O error where the engine could not be reached.
    pub async fn request(self, request: BollardRequest) -> Result<Response<Incoming>, Error> {
        let request = self.rewrite(request)?;
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::Builder::new().max_buf_size(READ_BUFFER).handshake(Io(stream)).await?;
        let driver = async move {
            // The one who waits for the answer is told of an error as well.
            let _ = connection.await;
        };
        self.executor.spawn(driver).detach();
        Ok(sender.send_request(request).await?)
    }

    /// Gives the request the origin form (RFC 9112 §3.2.1), a Host, and the negotiated version.
    fn rewrite(&self, request: BollardRequest) -> Result<BollardRequest, Error> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        head.uri = match self.version.get() {
            Some((major, minor)) => Uri::try_from(format!("/v{major}.{minor}{path}"))?,
            None => Uri::try_from(path)?,
        };
        // The engine looks at it only to refuse what a browser sends.
        head.headers.insert(HOST, HeaderValue::from_static("docker"));
        Ok(BollardRequest::from_parts(head, body))
    }

    async fn connect(&self) -> io::Result<Stream> {
        match &*self.address {
            EngineAddress::Unix(path) => Stream::connect(&Address::Unix(path.clone())).await,
            EngineAddress::Tcp { host, port } => {
                let mut error = io::Error::other(format!("the name {host} has no address"));
                for addr in resolve(&self.workers, host, *port).await? {
                    match Stream::connect(&Address::Tcp(addr)).await {
                        Ok(stream) => return Ok(stream),
                        Err(e) => error = e,
                    }
                }
                Err(error)
            }
        }
    }
}

/// The addresses of `host`; asks DNS, off this thread, only where it is a name.
///
/// # Errors
/// When the name cannot be resolved.
pub async fn resolve(workers: &Workers, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_string();
    workers.unblock(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect)).await?
}

/// The runtime that is never driven.
pub struct Inert(tokio::runtime::Runtime);

impl Inert {
    /// Makes the runtime; starts no thread.
    ///
    /// # Errors
    /// Not on Linux.
    pub fn new() -> io::Result<Self> {
        tokio::runtime::Builder::new_current_thread().enable_time().build().map(Self)
    }

    /// `future`, with the runtime entered whenever it is polled.
    pub fn enter<F: Future + Unpin>(&self, future: F) -> Entered<'_, F> {
        Entered { runtime: self, future }
    }
}

/// What [`Inert::enter`] returns.
pub struct Entered<'a, F> {
    runtime: &'a Inert,
    future: F,
}

impl<F: Future + Unpin> Future for Entered<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let _guard = this.runtime.0.enter();
        Pin::new(&mut this.future).poll(cx)
    }
}

/// A stream socket as hyper wants it.
struct Io(Stream);

impl Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // hyper's buffer is uninitialised memory, which safe code fills only by copying.
        let mut piece = [0; 4096];
        let len = piece.len().min(buf.remaining());
        let Some(piece) = piece.get_mut(..len) else { return Poll::Ready(Ok(())) };
        match Pin::new(&mut &self.0).poll_read(cx, piece) {
            Poll::Ready(Ok(n)) => {
                buf.put_slice(piece.get(..n).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.0).poll_write(cx, buf)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &self.0).poll_close(cx)
    }
}
