//! What waits for sockets and for the time: one epoll(7) for the whole process, driven by who is in [`block_on`].
//!
//! A descriptor is registered once, edge-triggered, and what is known of it is kept: waiting again costs no system call, and
//! a read that took all there was is not tried again before more came. No thread of its own runs here and nothing is set
//! aside for timers that are not there. `async-io`, which this stands in for, asks the kernel anew for each wait, and its
//! helper thread competes for the events (size-report/REPORT.md tells the difference).
//!
//! [`Async`] is a descriptor, [`Timer`] a moment. One thread at a time waits for events, the others in `block_on` sleep until
//! they are woken or take its place; so it makes no difference which of them polls what.

mod descriptor;
mod timer;

pub use descriptor::Async;
pub use timer::Timer;

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use slab::Slab;

use descriptor::Source;
use timer::Timers;

/// Events taken from the kernel at once; what is left comes the next time.
const EVENTS: usize = 64;
/// The bell's key; descriptors count from 0.
const BELL: u64 = u64::MAX;

/// The process's one reactor.
#[derive(Debug)]
struct Reactor {
    epoll: OwnedFd,
    /// Written to by another thread that has news for the one that waits. Edge-triggered, so it is never read.
    bell: OwnedFd,
    sources: Mutex<Slab<Arc<Source>>>,
    timers: Timers,
    /// Those that wait until everything was looked at: see [`turn`].
    turns: Mutex<Vec<Waker>>,
    /// Whether there are such.
    turning: AtomicBool,
    /// Held by the thread that waits for events.
    lead: Mutex<()>,
    /// Whether that thread may be asleep in epoll_wait(2).
    asleep: AtomicBool,
    /// Those that wait to be woken, or to take its place.
    followers: Mutex<Vec<Arc<Sleeper>>>,
}

/// A thread in [`block_on`].
#[derive(Debug)]
struct Sleeper {
    thread: Thread,
    /// Its future is to be polled again.
    woken: AtomicBool,
    /// Whether it is the one that may be asleep in epoll_wait(2).
    leads: AtomicBool,
}

/// Completes when all sockets were looked at once more, and whoever waits for one of them was woken. For who has always something to
/// do: an executor goes through hundreds of tasks before it looks, and one that is only put last would be many of them.
pub async fn turn() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        let reactor = Reactor::get();
        lock(&reactor.turns).push(cx.waker().clone());
        reactor.turning.store(true, Ordering::SeqCst);
        if reactor.asleep.load(Ordering::SeqCst) {
            reactor.ring();
        }
        Poll::Pending
    })
    .await;
}

thread_local! {
    /// When this thread last looked at sockets, where it is the one that does.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time as it was when sockets were last looked at: for what needs not know it better than that, as asking for it anew costs
/// each call as much as a lock.
pub fn recently() -> Instant {
    LOOKED.get().unwrap_or_else(Instant::now)
}

/// Runs `future` on this thread to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let reactor = Reactor::get();
    let me = Arc::new(Sleeper { thread: thread::current(), woken: false.into(), leads: false.into() });
    let waker = Waker::from(Arc::clone(&me));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            LOOKED.set(None);
            return done;
        }
        reactor.wait(&me);
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.leads.load(Ordering::SeqCst) {
            true => Reactor::get().ring(),
            false => self.thread.unpark(),
        }
    }
}

impl Reactor {
    /// The reactor, made when it is first asked for.
    #[expect(
        clippy::panic,
        reason = "the first thing that the program does needs it, and without it there is no program"
    )]
    fn get() -> &'static Self {
        static REACTOR: OnceLock<Reactor> = OnceLock::new();
        REACTOR.get_or_init(|| Self::new().unwrap_or_else(|e| panic!("cannot wait for events: {e}")))
    }

    fn new() -> rustix::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), flags)?;
        Ok(Self {
            epoll,
            bell,
            sources: Mutex::default(),
            timers: Timers::new(),
            turns: Mutex::default(),
            turning: false.into(),
            lead: Mutex::default(),
            asleep: false.into(),
            followers: Mutex::default(),
        })
    }

    /// Wakes the thread that waits for events.
    fn ring(&self) {
        // Full, it was rung already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Returns when `me` was woken; waits for events meanwhile, or lets another thread do so.
    fn wait(&self, me: &Arc<Sleeper>) {
        LOOKED.set(None);
        if me.woken.swap(false, Ordering::SeqCst) {
            // Woken by what it ran itself: that must not keep it from looking at sockets.
            if let Some(lead) = self.try_lead() {
                self.react(me, false);
                drop(lead);
                self.promote();
            }
            return;
        }
        loop {
            if let Some(lead) = self.try_lead() {
                self.unfollow(me);
                while !me.woken.swap(false, Ordering::SeqCst) {
                    self.react(me, true);
                }
                drop(lead);
                return self.promote();
            }
            if me.woken.swap(false, Ordering::SeqCst) {
                self.unfollow(me);
                // It may have been woken to lead as well.
                return self.promote();
            }
            self.follow(me);
            // Whoever led may have stopped before it saw this one in the list.
            if self.try_lead().is_none() && !me.woken.load(Ordering::SeqCst) {
                thread::park();
            }
        }
    }

    fn try_lead(&self) -> Option<MutexGuard<'_, ()>> {
        match self.lead.try_lock() {
            Ok(lead) => Some(lead),
            Err(std::sync::TryLockError::Poisoned(lead)) => Some(lead.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Lets one of those that sleep wait for events.
    fn promote(&self) {
        let next = lock(&self.followers).pop();
        if let Some(next) = next {
            next.thread.unpark();
        }
    }

    fn follow(&self, me: &Arc<Sleeper>) {
        let mut followers = lock(&self.followers);
        if !followers.iter().any(|f| Arc::ptr_eq(f, me)) {
            followers.push(Arc::clone(me));
        }
    }

    fn unfollow(&self, me: &Arc<Sleeper>) {
        lock(&self.followers).retain(|f| !Arc::ptr_eq(f, me));
    }

    /// See [`turn`].
    fn end_turns(&self) {
        if self.turning.load(Ordering::Relaxed) && self.turning.swap(false, Ordering::SeqCst) {
            let turns = std::mem::take(&mut *lock(&self.turns));
            turns.into_iter().for_each(Waker::wake);
        }
    }

    /// Wakes who waits for what is due or has come; waits until there is such, or `me` is woken, where it may `sleep`.
    fn react(&self, me: &Sleeper, sleep: bool) {
        LOOKED.set(self.timers.fire());
        let mut timeout = Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        if sleep {
            // From here on who wakes this thread, or sets an earlier timer, rings.
            me.leads.store(true, Ordering::SeqCst);
            self.asleep.store(true, Ordering::SeqCst);
            if !me.woken.load(Ordering::SeqCst) && !self.turning.load(Ordering::SeqCst) {
                timeout = self.timers.next();
            }
        }
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let came = epoll::wait(&self.epoll, &mut events, timeout.as_ref());
        if sleep {
            self.asleep.store(false, Ordering::SeqCst);
            me.leads.store(false, Ordering::SeqCst);
            LOOKED.set(Some(Instant::now()));
        }
        // The only error is a signal that came in between.
        let Ok((came, _)) = came else { return self.end_turns() };
        for event in came {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == BELL {
                continue;
            }
            let source = usize::try_from(key).ok().and_then(|key| lock(&self.sources).get(key).cloned());
            // It may be another that has this number by now: then it looks once for nothing.
            if let Some(source) = source {
                source.tell(flags);
            }
        }
        // Behind those for whom something came.
        self.end_turns();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole after each step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
