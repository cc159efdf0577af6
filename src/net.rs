//! Stream sockets of either kind behind one type, TLS over them as well, and the addresses they connect to.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::buffers::Buffer;
use crate::reactor::{Async, Timer};
use crate::tls::TlsStream;

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

/// A connected stream socket; reading and writing take `&self`, so both directions can be used at once.
#[derive(Debug)]
pub enum Stream {
    /// Over a unix socket.
    Unix(Async<UnixStream>),
    /// Over TCP.
    Tcp(Async<TcpStream>),
    /// Over TLS over TCP. Boxed, so that the others are no larger for it.
    Tls(Box<TlsStream>),
}

impl From<Async<TcpStream>> for Stream {
    fn from(stream: Async<TcpStream>) -> Self {
        Self::Tcp(stream)
    }
}

impl From<TlsStream> for Stream {
    fn from(stream: TlsStream) -> Self {
        Self::Tls(Box::new(stream))
    }
}

/// Has the kernel find out whether a peer that says nothing is still there, within two minutes (tcp(7), `SO_KEEPALIVE`): one whose
/// machine lost its power would be waited for otherwise.
///
/// # Errors
/// As setsockopt(2).
pub fn probe_when_idle(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_keepidle(&socket, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(&socket, 4)?;
    Ok(sockopt::set_socket_keepalive(&socket, true)?)
}

impl Stream {
    /// Connects to `address`; TCP without Nagle's delay.
    ///
    /// # Errors
    /// As connect(2).
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => connect_unix(path).await.map(Self::Unix),
            Address::Tcp(addr) => {
                let stream = Async::<TcpStream>::connect(*addr).await?;
                stream.get_ref().set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Waits until there is something to read, or the peer closed.
    ///
    /// # Errors
    /// When the socket cannot be polled.
    pub async fn readable(&self) -> io::Result<()> {
        let mut waited = false;
        poll_fn(|cx| {
            // What was told while this waits was read by nobody.
            if waited && self.may_read() {
                return Poll::Ready(Ok(()));
            }
            let peeked = self.poll_readable(cx);
            waited = peeked.is_pending();
            peeked
        })
        .await
    }

    /// Whether neither bytes nor an end came on a unix socket, as far as the reactor was told; `false` where it was not asked yet.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Unix(s) if s.is_silent())
    }

    /// As [`Stream::readable`].
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(s) => s.poll_read_with(cx, peek),
            Self::Tcp(s) => s.poll_read_with(cx, peek),
            Self::Tls(s) => s.poll_readable(cx),
        }
    }

    /// Reads into `buf` from `at` on. Where nothing is there, as far as is known, it is not [filled](Buffer::fill) for it.
    ///
    /// # Errors
    /// As read(2).
    pub fn poll_read_into(&self, cx: &mut Context<'_>, buf: &mut Buffer, at: usize) -> Poll<io::Result<usize>> {
        use std::io::Read;
        match self {
            Self::Unix(s) => s.poll_read_some(cx, |mut s| {
                let room = buf.room(at);
                Ok((s.read(room)?, room.len()))
            }),
            Self::Tcp(s) => s.poll_read_some(cx, |mut s| {
                let room = buf.room(at);
                Ok((s.read(room)?, room.len()))
            }),
            Self::Tls(s) => s.poll_read(cx, buf.room(at)),
        }
    }

    fn may_read(&self) -> bool {
        match self {
            Self::Unix(s) => s.may_read(),
            Self::Tcp(s) => s.may_read(),
            Self::Tls(_) => false,
        }
    }

    /// Waits until `start` is there to be read, or something else than it; over TLS for anything.
    ///
    /// # Errors
    /// As recv(2), or the peer closed.
    pub async fn begins_with(&self, start: &[u8; 24]) -> io::Result<()> {
        let Self::Tcp(s) = self else { return self.readable().await };
        s.read_with(|socket| {
            let mut here = [0; 24];
            let (n, _) = rustix::net::recv(socket, &mut here, RecvFlags::PEEK)?;
            match here.get(..n).unwrap_or_default() {
                [] => Err(io::ErrorKind::UnexpectedEof.into()),
                // The end of the stream hides behind what is left unread.
                part if n < start.len() && start.starts_with(part) => Err(match is_ended(socket) {
                    true => io::ErrorKind::UnexpectedEof.into(),
                    false => io::ErrorKind::WouldBlock.into(),
                }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// As [`probe_when_idle`]; of a unix socket the other end is on this machine, which tells when it goes.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn probe_when_idle(&self) -> io::Result<()> {
        match self {
            Self::Unix(_) => Ok(()),
            Self::Tcp(s) => probe_when_idle(s),
            Self::Tls(s) => probe_when_idle(s.socket()),
        }
    }

    /// The next byte, which is still to be read; `None` where none is there, or it is TLS that has it.
    pub fn first_byte(&self) -> Option<u8> {
        let Self::Tcp(s) = self else { return None };
        let mut byte = [0];
        let (n, _) = rustix::net::recv(s, &mut byte, RecvFlags::PEEK).ok()?;
        (n > 0).then_some(byte[0])
    }

    /// Reads if bytes are there now; never waits.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; else as read(2).
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        use std::io::Read;
        match self {
            Self::Unix(s) => s.get_ref().read(buf),
            Self::Tcp(s) => s.get_ref().read(buf),
            Self::Tls(s) => now(s.poll_read(&mut Context::from_waker(Waker::noop()), buf)),
        }
    }

    /// Writes if there is room now; never waits.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; else as write(2).
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        use std::io::Write;
        match self {
            Self::Unix(s) => s.get_ref().write(buf),
            Self::Tcp(s) => s.get_ref().write(buf),
            Self::Tls(s) => now(s.poll_write(&mut Context::from_waker(Waker::noop()), &[io::IoSlice::new(buf)])),
        }
    }

    /// Closes the direction towards the peer: it reads an end. Over TLS this says so too, if there is room now.
    ///
    /// # Errors
    /// As shutdown(2).
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Unix(s) => s.get_ref().shutdown(std::net::Shutdown::Write),
            Self::Tcp(s) => s.get_ref().shutdown(std::net::Shutdown::Write),
            Self::Tls(s) => now(s.poll_close(&mut Context::from_waker(Waker::noop()))),
        }
    }

    /// Reads what nobody wants to know: over TLS as it comes.
    ///
    /// # Errors
    /// As read(2).
    pub async fn discard(&self, scratch: &mut [u8]) -> io::Result<usize> {
        let mut this = self;
        poll_fn(|cx| match self {
            Self::Tls(s) => s.poll_discard(cx, scratch),
            _ => Pin::new(&mut this).poll_read(cx, scratch),
        })
        .await
    }
}

/// What came of it without waiting.
fn now<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Whether something can be read, or an error.
fn peek(socket: &impl AsFd) -> io::Result<()> {
    rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK)?;
    Ok(())
}

/// Pause before a full listen queue is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// A unix socket connects at once or not at all: no waiting for the reactor, and a full listen queue is `EAGAIN`.
async fn connect_unix(path: &Path) -> io::Result<Async<UnixStream>> {
    let address = SocketAddrUnix::new(path)?;
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(Async::new_nonblocking(UnixStream::from(socket))),
            Err(rustix::io::Errno::AGAIN) => Timer::after(QUEUE_FULL_PAUSE).await,
            Err(e) => return Err(e.into()),
        };
    }
}

impl AsyncRead for &Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(s) => Pin::new(&mut &*s).poll_read(cx, buf),
            Stream::Tcp(s) => Pin::new(&mut &*s).poll_read(cx, buf),
            Stream::Tls(s) => s.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for &Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(s) => Pin::new(&mut &*s).poll_write(cx, buf),
            Stream::Tcp(s) => Pin::new(&mut &*s).poll_write(cx, buf),
            Stream::Tls(s) => s.poll_write(cx, &[io::IoSlice::new(buf)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(s) => Pin::new(&mut &*s).poll_write_vectored(cx, bufs),
            Stream::Tcp(s) => Pin::new(&mut &*s).poll_write_vectored(cx, bufs),
            Stream::Tls(s) => s.poll_write(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tls(s) => s.poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tls(s) => s.poll_close(cx),
            other => Poll::Ready(other.shutdown_write()),
        }
    }
}
/// Whether the peer will send no more (poll(2), `POLLRDHUP`).
fn is_ended(socket: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
}
