//! Descriptors that are waited for.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{Reactor, lock};

const READ: usize = 0;
const WRITE: usize = 1;

/// A descriptor that does not block: what would have to wait is told when to try again.
#[derive(Debug)]
pub struct Async<T> {
    io: T,
    registered: Registered,
}

/// What is known of a descriptor. Outside of the reactor while nobody ever had to wait for it.
#[derive(Debug, Default)]
pub(super) struct Source(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Its number in the reactor.
    key: Option<usize>,
    directions: [Direction; 2],
    /// No more comes than what is there: a read that took less than it could says nothing then.
    ended: bool,
    /// Further tasks that wait, which is seldom.
    others: Vec<Waker>,
}

/// Reading or writing.
#[derive(Debug, Default)]
struct Direction {
    /// Whether the kernel tells of it.
    told: bool,
    /// Whether it may be worth trying, as far as was told.
    ready: bool,
    waker: Option<Waker>,
}

/// Takes the source out of the reactor when it goes.
#[derive(Debug)]
struct Registered(Arc<Source>);

impl Drop for Registered {
    fn drop(&mut self) {
        // Closing a descriptor takes it out of the epoll.
        let key = lock(&self.0.0).key;
        let _source = key.and_then(|key| lock(&Reactor::get().sources).try_remove(key));
    }
}

impl Source {
    /// The kernel told this of the descriptor.
    pub(super) fn tell(&self, flags: EventFlags) {
        let mut state = lock(&self.0);
        let end = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        state.ended |= flags.intersects(end);
        let mut woken = [None, None];
        let told = [EventFlags::IN | end, EventFlags::OUT | EventFlags::HUP | EventFlags::ERR];
        for ((direction, told), woken) in state.directions.iter_mut().zip(told).zip(&mut woken) {
            if flags.intersects(told) {
                direction.ready = true;
                *woken = direction.waker.take();
            }
        }
        let others = std::mem::take(&mut state.others);
        drop(state);
        woken.into_iter().flatten().chain(others).for_each(Waker::wake);
    }
}

impl State {
    /// Has the kernel tell of this direction, if it does not yet.
    fn ask(&mut self, direction: usize, source: &Arc<Source>, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.directions.get_mut(direction) {
            Some(Direction { told: told @ false, .. }) => *told = true,
            _ => return Ok(()),
        }
        let mut flags = EventFlags::ET;
        for (direction, wanted) in self.directions.iter().zip([EventFlags::IN | EventFlags::RDHUP, EventFlags::OUT]) {
            if direction.told {
                flags |= wanted;
            }
        }
        let reactor = Reactor::get();
        let data = |key: usize| epoll::EventData::new_u64(key as u64);
        if let Some(key) = self.key {
            return Ok(epoll::modify(&reactor.epoll, fd, data(key), flags)?);
        }
        let key = lock(&reactor.sources).insert(Arc::clone(source));
        if let Err(e) = epoll::add(&reactor.epoll, fd, data(key), flags) {
            lock(&reactor.sources).try_remove(key);
            return Err(e.into());
        }
        self.key = Some(key);
        Ok(())
    }

    fn wait(&mut self, direction: usize, waker: &Waker) {
        let Some(direction) = self.directions.get_mut(direction) else { return };
        match &direction.waker {
            None => direction.waker = Some(waker.clone()),
            Some(known) if known.will_wake(waker) => {}
            Some(_) if self.others.iter().any(|known| known.will_wake(waker)) => {}
            Some(_) => self.others.push(waker.clone()),
        }
    }
}

impl<T: AsFd> Async<T> {
    /// Takes a descriptor over, which does not block from now on.
    ///
    /// # Errors
    /// As ioctl(2) with `FIONBIO`.
    pub fn new(io: T) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&io, true)?;
        Ok(Self::new_nonblocking(io))
    }

    /// Takes a descriptor over that does not block already.
    pub fn new_nonblocking(io: T) -> Self {
        Self { io, registered: Registered(Arc::default()) }
    }

    /// What is waited for.
    pub const fn get_ref(&self) -> &T {
        &self.io
    }

    /// Gives it back; it still does not block.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn into_inner(self) -> io::Result<T> {
        let Self { io, registered } = self;
        if lock(&registered.0.0).key.is_some() {
            epoll::delete(&Reactor::get().epoll, &io)?;
        }
        Ok(io)
    }

    /// Reads with `read`, or whatever else becomes possible when there is something to read; waits where it would block.
    ///
    /// # Errors
    /// As `read`, or epoll_ctl(2).
    pub async fn read_with<R>(&self, mut read: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        std::future::poll_fn(|cx| self.poll_read_with(cx, &mut read)).await
    }

    /// As [`Async::read_with`].
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        read: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(READ, cx, read, |_| false)
    }

    /// Reads with `read`, which tells how much it read, and of how much there was room for; it is not called before there may be
    /// something.
    ///
    /// # Errors
    /// As `read`, or epoll_ctl(2).
    pub fn poll_read_some(
        &self,
        cx: &mut Context<'_>,
        read: impl FnMut(&T) -> io::Result<(usize, usize)>,
    ) -> Poll<io::Result<usize>> {
        self.poll_with(READ, cx, read, |(n, room)| (1..*room).contains(n)).map_ok(|(n, _)| n)
    }

    /// Whether there may be something to read, as far as is known without asking.
    pub fn may_read(&self) -> bool {
        lock(&self.registered.0.0).directions.get(READ).is_some_and(|read| read.ready)
    }

    /// Whether the kernel would have told of something to read, and did not.
    pub fn is_silent(&self) -> bool {
        lock(&self.registered.0.0).directions.get(READ).is_some_and(|read| read.told && !read.ready)
    }

    /// Tries `act` where that may be of use; `is_all` says of what it did that a next one would have to wait.
    fn poll_with<R>(
        &self,
        direction: usize,
        cx: &mut Context<'_>,
        mut act: impl FnMut(&T) -> io::Result<R>,
        is_all: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        let source = &self.registered.0;
        // Held meanwhile: what is told of the descriptor comes before or after.
        let mut state = lock(&source.0);
        while state.directions.get(direction).is_some_and(|d| d.ready || !d.told) {
            match act(&self.io) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                done => {
                    if done.as_ref().is_ok_and(is_all) && !state.ended {
                        state.directions.iter_mut().skip(direction).take(1).for_each(|d| d.ready = false);
                    }
                    return Poll::Ready(done);
                }
            }
        }
        if let Some(direction) = state.directions.get_mut(direction) {
            direction.ready = false;
        }
        state.ask(direction, source, self.io.as_fd())?;
        state.wait(direction, cx.waker());
        Poll::Pending
    }
}

impl<T: AsFd> AsFd for Async<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Async<TcpListener> {
    /// Listens at `addr`.
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind(addr: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::new(TcpListener::bind(addr.into())?)
    }

    /// The next connection, and who made it.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<(Async<TcpStream>, SocketAddr)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = |listener: &TcpListener| Ok(rustix::net::acceptfrom_with(listener, flags)?);
        let (stream, peer) = self.read_with(accept).await?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::NotConnected)?;
        Ok((Async::new_nonblocking(stream.into()), peer))
    }
}

impl Async<TcpStream> {
    /// Connects to `addr`.
    ///
    /// # Errors
    /// As connect(2).
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &addr) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        let stream = Self::new_nonblocking(socket.into());
        let connected = |stream: &TcpStream| match (stream.take_error()?, stream.peer_addr()) {
            (Some(e), _) => Err(e),
            (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
            (None, peer) => peer.map(drop),
        };
        std::future::poll_fn(|cx| stream.poll_with(WRITE, cx, connected, |()| false)).await?;
        Ok(stream)
    }
}

impl Async<UdpSocket> {
    /// The next datagram, and who sent it.
    ///
    /// # Errors
    /// As recvfrom(2).
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_recv_from(cx, buf)).await
    }

    /// As [`Async::recv_from`].
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.poll_read_with(cx, |socket| socket.recv_from(buf))
    }
}

/// A stream: a read or a write that did less than it could left nothing for the next one.
impl<T: AsFd> AsyncRead for &Async<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = buf.len();
        self.poll_with(READ, cx, |mut io| io.read(buf), |n| (1..room).contains(n))
    }
}

impl<T: AsFd> AsyncWrite for &Async<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(WRITE, cx, |mut io| io.write(buf), |n| (1..buf.len()).contains(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_with(WRITE, cx, |mut io| io.write_vectored(bufs), |n| (1..len).contains(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes nothing: that is the descriptor's end.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl<T: AsFd + Unpin> AsyncRead for Async<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

impl<T: AsFd + Unpin> AsyncWrite for Async<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}
