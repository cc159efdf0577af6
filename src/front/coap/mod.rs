//! The CoAP front door: sockets, timers and calls around the state machine of [`crate::wire::coap`].
//!
//! One task reads each socket, one waits for the timers, and each call is a task of its own. They share the state machine
//! behind a lock that is never held while anything waits. What the protocol says is decided there, not here; the sockets are
//! in [`doors`], what a function is asked and answers in [`outcome`].

mod addresses;
mod doors;
mod outcome;

use std::future::{pending, poll_fn};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_executor::{StaticExecutor, Task};
use event_listener::Event;
use futures_lite::FutureExt;

use crate::budget::Budget;
use crate::dispatch::Dispatch;
use crate::reactor::{self, Timer};
use crate::shutdown::Shutdown;
use crate::wire::coap::{self, Datagram, Job, Millis, Peer, Resources, Server};
use addresses::News;
use doors::{Door, Doors};

/// What the front door is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens. The wildcard of IPv6 takes IPv4 as well, and that of IPv4 stands in where there is no IPv6.
    pub addr: SocketAddr,
    /// Whether the groups All CoAP Nodes are joined (RFC 7252 §12.8).
    pub multicast: bool,
    /// Times and bounds of the endpoint.
    pub endpoint: coap::Config,
    /// Told how many requests came that had come before: [`Server::repeated`].
    pub repeated: Arc<AtomicU64>,
}

impl Config {
    /// Listens at `addr`, everything else as by default.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, multicast: false, endpoint: coap::Config::default(), repeated: Arc::default() }
    }
}

/// Microseconds that one socket is read before other tasks have their turn, and after how many datagrams the clock is asked.
const TURN: Duration = Duration::from_micros(250);
const BATCH: usize = 16;
/// Turns of a socket after each other, in none of which all was read, that say that more comes than can be answered: so many are a
/// good part of what its buffer holds.
const PRESSED: u32 = 3;
/// Pause after a socket failed to read, so that a broken one does not take a core.
const PAUSE: Duration = Duration::from_millis(100);
/// How long at the end acknowledgements of answers are waited for, beside calls at work, which are waited for in any case.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A front door whose sockets are open.
#[derive(Debug)]
pub struct Coap {
    doors: Doors,
    config: Config,
}

impl Coap {
    /// Opens the sockets, beside the one that was `inherited`: its address holds then.
    ///
    /// # Errors
    /// As socket(7): the port is taken, the address is not ours.
    pub fn bind(config: Config, inherited: Option<UdpSocket>) -> io::Result<Self> {
        let doors = Doors::open(config.addr, config.multicast, inherited)?;
        Ok(Self { doors, config })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.doors.port()
    }

    /// Answers requests with what the functions of `dispatch` say, until `stop` is told and the calls at work are answered.
    /// Bodies come from `budget`.
    pub async fn serve(
        self,
        executor: &'static StaticExecutor,
        dispatch: Arc<Dispatch>,
        budget: Budget,
        stop: Shutdown,
    ) {
        let server = Server::new(self.config.endpoint, budget.clone(), fastrand::u64(..));
        let shared = Arc::new(Shared {
            largest: server.config().max_datagram,
            state: Mutex::new(State { server, timer: Millis::MAX, listens: false }),
            doors: self.doors,
            repeated: self.config.repeated,
            news: News::new().inspect_err(|e| log::info!("coap: later addresses are not noticed: {e}")).ok(),
            changed: Event::new(),
            // Message ids of endpoints that are new here go by the clock: a second process must not begin where this one did.
            began: Instant::now(),
            offset: fastrand::u64(..1 << 40),
            dispatch,
            budget,
            executor,
        });
        let read = |number| executor.spawn(Arc::clone(&shared).read(number));
        let mut readers: Vec<Task<()>> = (0..shared.doors.len()).map(read).collect();
        let timers = executor.spawn(Arc::clone(&shared).keep_time());
        let follow = async {
            loop {
                shared.addresses_changed().await;
                for number in shared.doors.follow() {
                    let reader = executor.spawn(Arc::clone(&shared).read(number));
                    match readers.get_mut(number) {
                        // Its socket gave way to the new one.
                        Some(old) => *old = reader,
                        None => readers.push(reader),
                    }
                }
            }
        };
        stop.begun().or(follow).await;
        shared.settled().await;
        for task in readers.into_iter().chain([timers]) {
            task.cancel().await;
        }
    }
}

/// What the tasks share.
struct Shared {
    state: Mutex<State>,
    doors: Doors,
    repeated: Arc<AtomicU64>,
    news: Option<News>,
    /// Notified when a timer is due earlier than the one waited for, when something begins to be observed, and when a call ended.
    changed: Event,
    began: Instant,
    offset: Millis,
    /// Longest datagram that is understood.
    largest: usize,
    dispatch: Arc<Dispatch>,
    budget: Budget,
    executor: &'static StaticExecutor,
}

struct State {
    server: Server,
    /// What the task that keeps the time waits for.
    timer: Millis,
    /// Whether it waits for changes as well.
    listens: bool,
}

impl Shared {
    /// Reads one socket for ever.
    async fn read(self: Arc<Self>, number: usize) {
        let Some(door) = self.doors.get(number) else { return };
        // One byte more than is understood tells a datagram that was cut.
        let mut buf = vec![0; self.largest + 1];
        let (mut turns, mut read, mut begun) = (0, 0, None);
        loop {
            let mut waited = false;
            let received = poll_fn(|cx| {
                let received = door.socket.poll_recv_from(cx, &mut buf);
                waited |= received.is_pending();
                received
            });
            match received.await {
                Ok((n, from)) => self.receive(&door, number, from, buf.get(..n).unwrap_or_default()),
                Err(e) => {
                    log::warn!("coap: {}: {e}", door.name());
                    Timer::after(PAUSE).await;
                }
            }
            if waited {
                (turns, read, begun) = (0, 0, None);
            }
            read += 1;
            if read % BATCH > 0 || *begun.get_or_insert_with(Instant::now) + TURN > Instant::now() {
                continue;
            }
            turns += 1;
            if turns >= PRESSED {
                self.lock().server.press(self.now());
            }
            (read, begun) = (0, None);
            reactor::turn().await;
        }
    }

    fn receive(self: &Arc<Self>, door: &Door, number: usize, from: SocketAddr, bytes: &[u8]) {
        let (reply_by, group) = match door.group {
            true => (self.doors.unicast_for(from), true),
            false => (Some(number), false),
        };
        let Some(reply_by) = reply_by else { return };
        let datagram = Datagram { from: Peer::new(from, reply_by as u16), group, bytes };
        let mut state = self.lock();
        let job = state.server.receive(self.now(), &datagram, &Functions(&self.dispatch), &mut &self.doors);
        self.repeated.store(state.server.repeated(), Ordering::Relaxed);
        self.unlock(state);
        if let Some(job) = job {
            self.start(job);
        }
    }

    /// Runs a job as a task of its own.
    fn start(self: &Arc<Self>, job: Job) {
        let shared = Arc::clone(self);
        let run = async move {
            let make_room = || shared.lock().server.make_room();
            let max_body = shared.lock().server.config().max_body;
            let client = job.client();
            let bounds = outcome::Bounds { client, max_body, budget: &shared.budget, make_room: &make_room };
            let answer = outcome::of(&shared.dispatch, &job.task, &bounds).await;
            let mut state = shared.lock();
            state.server.answer(shared.now(), &job, answer, &mut &shared.doors);
            let idle = state.server.at_work() == 0;
            shared.unlock(state);
            if idle {
                shared.changed.notify(usize::MAX);
            }
        };
        self.executor.spawn(run).detach();
    }

    /// Completes when addresses of the machine came or went.
    async fn addresses_changed(&self) {
        let Some(news) = &self.news else { return pending().await };
        let waited = news.wait().await;
        // They seldom come alone, and the lists are long to read.
        Timer::after(PAUSE).await;
        if let Err(e) = waited {
            log::warn!("coap: later addresses are not noticed: {e}");
            pending().await
        }
    }

    /// Waits for the timers, and for changes where something is observed, for ever.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let changed = self.changed.listen();
            let change = self.dispatch.listen_for_changes();
            let (due, listens) = self.do_what_is_due();
            let change = async {
                match listens {
                    true => change.await,
                    // Else every call that anyone makes would wake this task.
                    false => pending().await,
                }
            };
            match due.checked_sub(self.now()) {
                Some(_) if due == Millis::MAX => changed.or(change).await,
                Some(wait) => {
                    let timer = async {
                        Timer::after(Duration::from_millis(wait)).await;
                    };
                    changed.or(change).or(timer).await;
                }
                None => {}
            }
        }
    }

    /// Starts what changed or is due; returns when something is due next, and whether anything is observed.
    fn do_what_is_due(self: &Arc<Self>) -> (Millis, bool) {
        let mut state = self.lock();
        let now = self.now();
        if state.server.is_observed() {
            self.dispatch.take_changes(&mut |name| state.server.changed(now, name));
        }
        while let Some(job) = state.server.tick(self.now(), &mut &self.doors) {
            self.start(job);
        }
        state.timer = state.server.next().unwrap_or(Millis::MAX);
        state.listens = state.server.is_observed();
        (state.timer, state.listens)
    }

    /// Completes when no call is at work and, for a while at most, no answer waits for its acknowledgement.
    async fn settled(&self) {
        let until = Instant::now() + LAST_WORDS;
        loop {
            let changed = self.changed.listen();
            let (at_work, unheard) = {
                let state = self.lock();
                (state.server.at_work(), state.server.unacknowledged())
            };
            let late = Instant::now() >= until;
            if at_work == 0 && (unheard == 0 || late) {
                return;
            }
            // Acknowledgements wake nobody, so they are looked for now and then.
            let again = async {
                Timer::after(PAUSE).await;
            };
            changed.or(again).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic would leave the state machine as whole as any other error does.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the state back, and wakes the task that keeps the time where something is due earlier than it knows, or changes
    /// begin to matter.
    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let next = state.server.next().unwrap_or(Millis::MAX);
        let is_news = next < state.timer || state.server.is_observed() && !state.listens;
        if is_news {
            state.timer = state.timer.min(next);
            state.listens = true;
        }
        drop(state);
        if is_news {
            self.changed.notify(usize::MAX);
        }
    }

    fn now(&self) -> Millis {
        self.offset + reactor::recently().saturating_duration_since(self.began).as_millis() as Millis
    }
}

/// The functions as CoAP asks for them.
struct Functions<'d>(&'d Dispatch);

impl Resources for Functions<'_> {
    fn exists(&self, name: &str) -> bool {
        self.0.function(name).is_some()
    }

    fn list(&self, each: &mut dyn FnMut(&str)) {
        self.0.each_name(each);
    }
}
