//! HTTP/1 connections of the HTTP front door and of management: accepting, reading heads, keeping alive, closing.
//!
//! What a request means is the [`Service`]'s business. An idle connection costs its socket, its task and a timer; a
//! buffer is lent to it only while it moves bytes.

mod body;
mod closing;
mod input;
mod respond;

pub use body::RequestBody;
pub use closing::LAST_WORD;
pub use respond::{Pieces, Responder};

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_executor::StaticExecutor;
use futures_lite::future::poll_once;
use futures_lite::{AsyncReadExt, FutureExt};

use crate::budget::{Budget, Share};
use crate::buffers::Buffers;
use crate::call::Method;
use crate::client::Client;
use crate::net::Stream;
use crate::reactor::{Async, Timer};
use crate::seats::{Seat, Seats};
use crate::shutdown::Shutdown;
use crate::tls::Acceptor;
use crate::wire::headers::Headers;
use crate::wire::http1::{self, Refusal};
use closing::{last_word, linger};
use input::Input;

/// Bytes of a head's part that each connection may have here while it waits for the rest, or of what follows a head.
const PART: usize = 1024;
/// Bytes of what is longer, of all connections together.
const PARTS: usize = 256 * 1024;

/// How long after an answer a connection keeps what a request needs: the next one often comes at once, and to take the memory
/// anew each time is a fifth of what a call costs.
const WARM_FOR: Duration = Duration::from_millis(50);
/// Connections that may, at about 3 KiB each.
const WARM: usize = 32;

/// Bounds of a server; all times are for one connection.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once. At the bound one is closed for a new one: of the client that has most of them the one that
    /// waits for longest, be it for a request, for the rest of a head, or for a body that does not come.
    pub connections: usize,
    /// Connections of one client that is not on this machine; 0 for no such bound.
    pub connections_each: usize,
    /// How long a request's head may take from its first byte.
    pub head_timeout: Duration,
    /// How long a connection may wait for the next request.
    pub idle_timeout: Duration,
    /// How long a body may pause, in either direction.
    pub body_timeout: Duration,
    /// Largest request body in bytes.
    pub max_body: u64,
}

/// A request's head as a service gets it.
#[derive(Debug)]
pub struct Head {
    /// The method as it was sent.
    pub method: Cow<'static, str>,
    /// Path and query.
    pub target: String,
    /// The fields, without those of the connection.
    pub headers: Headers,
    /// Who asks.
    pub peer: SocketAddr,
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request through `respond`. A request that is left without an answer closes the connection.
    ///
    /// # Errors
    /// The connection is broken and has to be closed.
    fn serve<'c>(
        &'c self,
        head: Head,
        body: RequestBody<'c>,
        respond: Responder<'c>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'c;
}

/// Accepts connections until `shutdown`, over TLS where that is given; then waits until those that are busy have their
/// answer.
pub async fn run<S: Service>(
    listener: Async<TcpListener>,
    tls: Option<Arc<Acceptor>>,
    service: Arc<S>,
    bounds: Bounds,
    buffers: Buffers,
    executor: &'static StaticExecutor,
    shutdown: Shutdown,
) {
    let seats = Seats::new(bounds.connections, bounds.connections_each);
    let parts = Budget::new(PARTS);
    let warm = Budget::new(WARM);
    let server = Arc::new(Server { service, tls, buffers, parts, warm, shutdown, bounds });
    loop {
        let accepted = async { Some(listener.accept().await) };
        let stop = async {
            server.shutdown.begun().await;
            None
        };
        match accepted.or(stop).await {
            Some(Ok((stream, peer))) => {
                // One small answer, one packet at once.
                let _ = stream.get_ref().set_nodelay(true);
                let Some(seat) = seats.take(Client::of(peer.ip())).await else {
                    let level = if seats.refusal_is_news() { log::Level::Warn } else { log::Level::Debug };
                    let each = server.bounds.connections_each;
                    log::log!(level, "no connection for {}: it has {each}, and all are busy", peer.ip());
                    continue;
                };
                let server = Arc::clone(&server);
                executor.spawn(server.connection(Stream::Tcp(stream), peer, seat)).detach();
            }
            Some(Err(e)) => {
                // No file descriptor or no memory left: accepting again at once would only spin.
                log::warn!("cannot accept a connection: {e}");
                Timer::after(Duration::from_millis(100)).await;
            }
            None => break,
        }
    }
    // Out of the reactor before, so that nothing takes time between the last look and the end of the listener: whoever
    // connects in between is reset.
    if let Ok(listener) = listener.into_inner() {
        while let Ok((stream, peer)) = listener.accept() {
            let seat = seats.take_free(Client::of(peer.ip()));
            let (Ok(stream), Some(seat)) = (Async::new(stream), seat) else { continue };
            executor.spawn(Arc::clone(&server).connection(Stream::Tcp(stream), peer, seat)).detach();
        }
    }
    seats.wake_all();
    seats.empty().await;
}

struct Server<S> {
    service: Arc<S>,
    tls: Option<Arc<Acceptor>>,
    bounds: Bounds,
    buffers: Buffers,
    /// Pays for parts of heads.
    parts: Budget,
    /// Places of connections that just had their answer.
    warm: Budget,
    shutdown: Shutdown,
}

/// Why an idle connection waits no longer.
enum Waited {
    /// Something came. Where it is TLS that has it, it is not in here.
    Bytes(Input),
    /// Nothing came in time.
    Late,
    /// It is to be closed.
    Close,
    /// The server stops.
    Stop,
}

/// What a connection does next.
enum Next {
    /// Wait for another request.
    Idle,
    /// Close, after the peer had time to read the answer.
    Close,
    /// Nothing can be said any more.
    Drop,
}

impl<S: Service> Server<S> {
    #[expect(clippy::manual_async_fn, reason = "smaller")]
    /// Not an `async fn`: that would keep its arguments twice, and there may be many idle connections.
    fn connection(
        self: Arc<Self>,
        mut stream: Stream,
        peer: SocketAddr,
        seat: Seat,
    ) -> impl Future<Output = ()> + Send {
        async move {
            // A new connection has the time of a head, not that of an idle one, to say something.
            let mut patience = self.bounds.head_timeout;
            loop {
                let input = match self.wait(&stream, &seat, patience).await {
                    Waited::Bytes(input) => input,
                    Waited::Stop if last_word(&stream).await => Input::new(&self.buffers),
                    _ => break,
                };
                // Boxed, as is what comes last, so that an idle connection's task stays small.
                if let (Some(tls), Stream::Tcp(_)) = (&self.tls, &stream) {
                    match Box::pin(self.secure(stream, tls, &seat)).await {
                        Some(secured) => stream = secured,
                        None => return,
                    }
                }
                match Box::pin(self.requests(&stream, peer, &seat, input)).await {
                    Next::Idle => patience = self.bounds.idle_timeout,
                    Next::Close => return Box::pin(linger(&stream).or(seat.evicted())).await,
                    Next::Drop => return,
                }
            }
            if let Stream::Tls(_) = &stream {
                // The end of one that waited is no accident, and the peer is told so.
                let _ = stream.shutdown_write();
            }
        }
    }

    /// The same connection over TLS. Who sends a request without it is told.
    async fn secure(&self, stream: Stream, tls: &Acceptor, seat: &Seat) -> Option<Stream> {
        if stream.first_byte().is_some_and(|byte| byte.is_ascii_uppercase()) {
            let cleartext = Refusal { status: 400, text: "this port speaks TLS: use https://" };
            if let Next::Close = self.refuse(&stream, seat, cleartext).await {
                linger(&stream).or(seat.evicted()).await;
            }
            return None;
        }
        let Stream::Tcp(socket) = stream else { return None };
        let stopped = async {
            self.shutdown.begun().await;
            Timer::after(LAST_WORD).await;
            Err(io::ErrorKind::ConnectionAborted.into())
        };
        let evicted = async {
            seat.evicted().await;
            Err(io::ErrorKind::ConnectionAborted.into())
        };
        match tls.accept(socket, self.bounds.head_timeout).or(stopped).or(evicted).await {
            Ok(secured) => Some(secured.into()),
            Err(e) => {
                log::debug!("a TLS handshake failed: {e}");
                None
            }
        }
    }

    /// Waits for bytes on an idle connection.
    async fn wait(&self, stream: &Stream, seat: &Seat, patience: Duration) -> Waited {
        let bytes = poll_fn(|cx| self.poll_input(stream, cx));
        let timer = async {
            Timer::after(patience).await;
            Waited::Late
        };
        // The server's end wakes who waits for an eviction.
        let told = poll_fn(|cx| match seat.poll_evicted(cx) {
            Poll::Ready(()) => Poll::Ready(Waited::Close),
            Poll::Pending if self.shutdown.has_begun() => Poll::Ready(Waited::Stop),
            Poll::Pending => Poll::Pending,
        });
        bytes.or(timer).or(told).await
    }

    /// The first bytes of a request. No buffer is there for them before they are; what is of TLS stays where it is.
    fn poll_input(&self, stream: &Stream, cx: &mut Context<'_>) -> Poll<Waited> {
        let mut input = Input::new(&self.buffers);
        if self.tls.is_some() {
            let readable = futures_lite::ready!(stream.poll_readable(cx));
            return Poll::Ready(readable.map_or(Waited::Close, |()| Waited::Bytes(input)));
        }
        match futures_lite::ready!(stream.poll_read_into(cx, &mut input.buf, 0)) {
            Ok(0) | Err(_) => Poll::Ready(Waited::Close),
            Ok(n) => {
                input.end = n;
                Poll::Ready(Waited::Bytes(input))
            }
        }
    }

    /// Answers requests while bytes are there.
    async fn requests(&self, stream: &Stream, peer: SocketAddr, seat: &Seat, mut input: Input) -> Next {
        loop {
            let read = async { Some(self.read_head(stream, &mut input).await) };
            let late = async {
                Timer::after(self.bounds.head_timeout).await;
                None
            };
            // Until its head is there, it does not matter how often a byte of it comes.
            let evicted = async {
                seat.evicted().await;
                Some(Err(HeadError::Gone))
            };
            let request = match read.or(late).or(evicted).await {
                Some(Ok(Some(request))) => request,
                Some(Ok(None) | Err(HeadError::Gone)) => return Next::Drop,
                Some(Err(HeadError::Refused(refusal))) => return self.refuse(stream, seat, refusal).await,
                None => {
                    let late = Refusal { status: 408, text: "the request's head did not arrive in time" };
                    return self.refuse(stream, seat, late).await;
                }
            };
            if !seat.busy() {
                return Next::Drop;
            }
            let Parsed { head, shape } = request.into_head(peer);
            let mut state = State { keep_alive: shape.keep_alive && !self.shutdown.has_begun(), answered: false };
            let mut left = body::Left::new(&shape, self.bounds.max_body);
            let is_head = head.method == "HEAD";
            let request_body = RequestBody::new(stream, seat, &mut input, &mut left, self.bounds.body_timeout);
            let respond = Responder::new(stream, seat, &mut state, is_head, shape.http10, self.bounds.body_timeout);
            let served = self.service.serve(head, request_body, respond).await;
            seat.rest();
            if served.is_err() || !state.answered {
                return Next::Drop;
            }
            if !left.skip_buffered(&mut input) || !state.keep_alive {
                return Next::Close;
            }
            if input.start == input.end {
                input.rest();
                let Some(_place) = self.warm.take(1) else { return Next::Idle };
                // What else it waited for is still so.
                let Waited::Bytes(next) = self.wait(stream, seat, WARM_FOR).await else {
                    self.buffers.calm();
                    return Next::Idle;
                };
                input = next;
                continue;
            }
            // Who sends requests without waiting for answers does not keep others from theirs.
            futures_lite::future::yield_now().await;
        }
    }

    async fn read_head(&self, mut stream: &Stream, input: &mut Input) -> Result<Option<OwnedRequest>, HeadError> {
        loop {
            let bytes = input.bytes();
            if !bytes.is_empty()
                && let Some(request) = http1::parse_request(bytes).map_err(HeadError::Refused)?
            {
                let request = OwnedRequest::new(request);
                input.start += request.len;
                input.settle();
                return Ok(Some(request));
            }
            input.buf.fill();
            input.compact();
            if input.end == input.buf.len() {
                let refusal = if input.bytes().contains(&b'\n') {
                    Refusal { status: 431, text: "the request's head is too large: send less than 8192 bytes" }
                } else {
                    Refusal { status: 414, text: "the request line is too long: send less than 8192 bytes" }
                };
                return Err(HeadError::Refused(refusal));
            }
            let read = stream.read(input.buf.get_mut(input.end..).unwrap_or_default());
            match poll_once(read).await {
                Some(Ok(0) | Err(_)) => return Err(HeadError::Gone),
                Some(Ok(n)) => input.end += n,
                None => {
                    // It may take long to come, and there may be a thousand that let it: no buffer waits for it.
                    let (part, share) = self.put_aside(input)?;
                    stream.readable().await.map_err(|_| HeadError::Gone)?;
                    input.buf.fill();
                    input.end = part.len();
                    input.buf.iter_mut().zip(&part).for_each(|(to, from)| *to = *from);
                    drop(share);
                }
            }
        }
    }

    /// Takes the part of a head that is here out of its buffer. A little is everybody's; more is paid for.
    fn put_aside(&self, input: &mut Input) -> Result<(Box<[u8]>, Share), HeadError> {
        let text = "too many long heads come slowly at once: send it in one piece, or try again later";
        let share = self.parts.take(input.end.saturating_sub(PART));
        let share = share.ok_or(HeadError::Refused(Refusal { status: 503, text }))?;
        let part = input.bytes().into();
        input.buf.give_back();
        input.end = 0;
        Ok((part, share))
    }

    async fn refuse(&self, stream: &Stream, seat: &Seat, refusal: Refusal) -> Next {
        let mut state = State { keep_alive: false, answered: false };
        let respond = Responder::new(stream, seat, &mut state, false, false, self.bounds.body_timeout);
        match respond.text(refusal.status, refusal.text).await {
            Ok(()) => Next::Close,
            Err(_) => Next::Drop,
        }
    }
}

/// What the answer decides about the connection.
pub(crate) struct State {
    keep_alive: bool,
    answered: bool,
}

enum HeadError {
    Refused(Refusal),
    Gone,
}

/// What of a head stays with the connection.
pub(crate) struct Shape {
    framing: http1::Framing,
    keep_alive: bool,
    expects_continue: bool,
    http10: bool,
}

struct OwnedRequest {
    method: Cow<'static, str>,
    target: String,
    headers: Headers,
    shape: Shape,
    len: usize,
}

struct Parsed {
    head: Head,
    shape: Shape,
}

impl OwnedRequest {
    fn new(request: http1::Request<'_>) -> Self {
        Self {
            // Of most it is known already.
            method: Method::of_http(request.method)
                .map_or_else(|| request.method.to_owned().into(), |m| m.name().into()),
            target: request.target.to_owned(),
            headers: request.headers,
            shape: Shape {
                framing: request.framing,
                keep_alive: request.keep_alive,
                expects_continue: request.expects_continue,
                http10: request.http10,
            },
            len: request.len,
        }
    }

    fn into_head(self, peer: SocketAddr) -> Parsed {
        let head = Head { method: self.method, target: self.target, headers: self.headers, peer };
        Parsed { head, shape: self.shape }
    }
}

/// Waits for `future`, but not longer than `patience`; arms a timer only when it has to wait.
///
/// # Errors
/// `TimedOut`, or what `future` gives.
pub(crate) async fn within<T>(future: impl Future<Output = io::Result<T>>, patience: Duration) -> io::Result<T> {
    let mut future = std::pin::pin!(future);
    if let Some(done) = futures_lite::future::poll_once(&mut future).await {
        return done;
    }
    let late = async {
        Timer::after(patience).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    future.or(late).await
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
