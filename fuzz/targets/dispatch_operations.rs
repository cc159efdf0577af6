//! A dispatcher told a story by bytes: functions are installed, replaced, removed and put to sleep, handlers come, break and
//! go, calls come, finish, fail and give up. A model beside it says what has to come of each.
//!
//! No handler is ever asked for more calls than it takes, whoever waits longest is served first, no call is forgotten while
//! there is a place for it, queues keep their bounds, and what was replaced says when its last call ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tinyfaas::buffers::Buffers;
use tinyfaas::call::{Failure, FailureKind};
use tinyfaas::dispatch::{Dispatch, Function, Handler, Lease};
use tinyfaas::function::{Limits, Name};
use tinyfaas::net::Address;

/// Names of functions.
const NAMES: [&str; 2] = ["f", "g"];
/// Bounds that keep a story short of what the model can still look at after each step.
const MOST_CALLS: usize = 24;
const MOST_HANDLERS: usize = 4;
/// No deadline passes while a story is told; those that have passed were over before.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A future, looked at when it was woken, as by an executor.
struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl<T> Task<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Acquire)
    }

    fn look(&mut self) -> Option<T> {
        self.woken.0.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }
}

type Got = Result<(Lease, Instant), Failure>;

/// A call that waits, and where: the version, and its number in that version's queue.
struct Waiting {
    name: usize,
    task: Task<Got>,
    version: usize,
    number: u64,
}

/// A call that a handler works on.
struct Running {
    lease: Lease,
    version: usize,
    handler: String,
}

/// One version of a function, as the model knows it.
struct Version {
    function: Arc<Function>,
    concurrency: usize,
    queue: usize,
    handlers: Vec<Known>,
    refused: bool,
    retired: bool,
    drained: Option<Task<()>>,
    wanted: Option<Task<()>>,
    /// Calls turned away at the bound of the queue since `wanted` was asked.
    turned_away: bool,
}

struct Known {
    handler: Arc<Handler>,
    held: bool,
    broken: bool,
}

/// What a call that looks for a place has to find.
#[derive(Debug, PartialEq)]
enum Expected {
    Place,
    Wait,
    Fail(FailureKind),
}

struct Story {
    dispatch: Arc<Dispatch>,
    versions: Vec<Version>,
    /// Which version of each name is in the table.
    installed: [Option<usize>; 2],
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    handlers_made: usize,
    numbers: u64,
    stopped: bool,
}

impl Story {
    fn new() -> Self {
        Self {
            dispatch: Arc::new(Dispatch::new(Buffers::default())),
            versions: Vec::new(),
            installed: [None; 2],
            waiting: Vec::new(),
            running: Vec::new(),
            handlers_made: 0,
            numbers: 0,
            stopped: false,
        }
    }

    fn busy(&self, version: usize, handler: &str) -> usize {
        self.running.iter().filter(|r| r.version == version && r.handler == handler).count()
    }

    /// Places that handlers of a version have free.
    fn free(&self, version: usize) -> usize {
        let v = &self.versions[version];
        let well = v.handlers.iter().filter(|k| !k.held && !k.broken);
        well.map(|k| v.concurrency - self.busy(version, k.handler.id())).sum()
    }

    /// Calls that are in the queue of a version.
    fn queued(&self, version: usize) -> usize {
        self.waiting.iter().filter(|w| w.version == version).count()
    }

    /// What comes of a call of `name` that has a number in the queue of a version, or in none.
    fn expected(&self, name: usize, place: Option<(usize, u64)>, late: bool) -> Expected {
        if self.stopped {
            return Expected::Fail(FailureKind::Unavailable);
        }
        let Some(current) = self.installed[name] else { return Expected::Fail(FailureKind::UnknownFunction) };
        let place = place.filter(|(version, _)| *version == current);
        let waits = place.is_some();
        // All who wait are woken where it is refused, and not only those for whom there is a place.
        let is_before = |w: &&Waiting| w.version == current && place.is_none_or(|(_, number)| w.number < number);
        let before = self.waiting.iter().filter(is_before).count();
        if self.free(current) > before {
            return Expected::Place;
        }
        match &self.versions[current] {
            v if v.refused => Expected::Fail(FailureKind::Unavailable),
            v if !waits && before >= v.queue => Expected::Fail(FailureKind::QueueFull),
            _ if late => Expected::Fail(FailureKind::TooLate),
            _ => Expected::Wait,
        }
    }

    fn install(&mut self, name: usize, shape: u8) {
        let (concurrency, queue, handlers) =
            (1 + usize::from(shape & 1), usize::from(shape >> 1 & 3), usize::from(shape >> 3 & 3));
        let limits = Limits { memory: 0, cpu_millis: 0, pids: 1, timeout: TIMEOUT, concurrency, queue };
        let function = Arc::new(Function::new(Name::parse(NAMES[name]).unwrap(), limits));
        let known = Version {
            function: Arc::clone(&function),
            concurrency,
            queue,
            handlers: Vec::new(),
            refused: false,
            retired: false,
            drained: None,
            wanted: None,
            turned_away: false,
        };
        self.versions.push(known);
        let version = self.versions.len() - 1;
        (0..handlers).for_each(|_| self.add_handler(version));
        let old = self.dispatch.install(function);
        let before = self.installed[name].replace(version);
        assert_eq!(old.is_some(), before.is_some());
        self.retire(before);
    }

    fn remove(&mut self, name: usize) {
        let old = self.dispatch.remove(NAMES[name]);
        let before = self.installed[name].take();
        assert_eq!(old.is_some(), before.is_some());
        self.retire(before);
    }

    fn retire(&mut self, version: Option<usize>) {
        let Some(version) = version else { return };
        let v = &mut self.versions[version];
        v.retired = true;
        let function = Arc::clone(&v.function);
        v.drained = Some(Task::new(async move { function.drained().await }));
    }

    fn add_handler(&mut self, version: usize) {
        if self.versions[version].handlers.len() == MOST_HANDLERS {
            return;
        }
        self.handlers_made += 1;
        let handler = Arc::new(Handler::new(format!("h{}", self.handlers_made), Address::Unix("/nowhere".into())));
        let v = &mut self.versions[version];
        v.handlers.push(Known { handler: Arc::clone(&handler), held: false, broken: false });
        v.function.wake();
        v.function.add(handler);
    }

    fn call(&mut self, name: usize, late: bool) {
        if self.waiting.len() + self.running.len() == MOST_CALLS {
            return;
        }
        let expected = self.expected(name, None, late);
        let dispatch = Arc::clone(&self.dispatch);
        let deadline = late.then(|| Instant::now() - Duration::from_millis(1));
        let mut task = Task::new(async move { dispatch.lease(NAMES[name], None, deadline).await });
        let got = task.look();
        self.note(name, expected, got, Some(task), None);
    }

    /// Compares what a call got with what it should have.
    fn note(
        &mut self,
        name: usize,
        expected: Expected,
        got: Option<Got>,
        task: Option<Task<Got>>,
        had: Option<(usize, u64)>,
    ) {
        match (expected, got) {
            (Expected::Place, Some(Ok((lease, _)))) => {
                let version = self.installed[name].unwrap();
                let handler = lease.handler().id().to_owned();
                let v = &self.versions[version];
                let least = v
                    .handlers
                    .iter()
                    .filter(|k| !k.held && !k.broken)
                    .map(|k| self.busy(version, k.handler.id()))
                    .min();
                assert_eq!(Some(self.busy(version, &handler)), least, "the least busy one is taken");
                assert!(v.handlers.iter().any(|k| k.handler.id() == handler && !k.held && !k.broken));
                self.running.push(Running { lease, version, handler });
            }
            (Expected::Fail(kind), Some(Err(failure))) => {
                assert_eq!(failure.kind, kind, "{failure}");
                if matches!(kind, FailureKind::QueueFull | FailureKind::TooLate) {
                    // It wanted a place.
                    self.versions[self.installed[name].unwrap()].turned_away |= kind == FailureKind::QueueFull;
                }
            }
            (Expected::Wait, None) => {
                let version = self.installed[name].unwrap();
                let number = match had {
                    Some((before, number)) if before == version => number,
                    _ => {
                        self.numbers += 1;
                        self.numbers
                    }
                };
                self.waiting.push(Waiting { name, task: task.unwrap(), version, number });
            }
            (expected, got) => panic!("{expected:?}, and it got {got:?}"),
        }
    }

    /// Looks at the `n`th waiting call as at one that was woken.
    fn look(&mut self, n: usize) {
        let mut call = self.waiting.remove(n);
        let expected = self.expected(call.name, Some((call.version, call.number)), false);
        // Its own place counts until it has another one.
        let before = call.version;
        let got = call.task.look();
        self.note(call.name, expected, got, Some(call.task), Some((before, call.number)));
    }

    /// Looks at all that were woken until nobody is, beginning anywhere.
    fn settle(&mut self, from: usize) {
        let before: Vec<(usize, u64)> = self.waiting.iter().map(|w| (w.version, w.number)).collect();
        loop {
            let woken: Vec<usize> = (0..self.waiting.len()).filter(|&n| self.waiting[n].task.is_woken()).collect();
            if woken.is_empty() {
                break;
            }
            // Those that have to find a new version come in the order of their calls, as an executor runs them.
            let moves =
                woken.iter().copied().find(|&n| self.installed[self.waiting[n].name] != Some(self.waiting[n].version));
            self.look(moves.unwrap_or_else(|| woken[from % woken.len()]));
        }
        // Whoever still waits where he waited before was overtaken by nobody.
        for left in &self.waiting {
            let overtaken = before.iter().any(|&(version, number)| {
                version == left.version && number > left.number && !self.waiting.iter().any(|w| w.number == number)
            });
            assert!(!overtaken || self.stopped || self.versions[left.version].refused, "somebody was overtaken");
        }
        for version in 0..self.versions.len() {
            self.check(version);
        }
    }

    fn check(&mut self, version: usize) {
        let (free, queued) = (self.free(version), self.queued(version));
        let busy: usize = self.versions[version].handlers.iter().map(|k| self.busy(version, k.handler.id())).sum();
        let v = &mut self.versions[version];
        assert_eq!(v.function.waiting(), queued);
        assert_eq!(v.function.in_flight(), busy);
        assert!(queued <= v.queue);
        assert!(v.handlers.iter().all(|k| k.handler.in_flight() <= v.concurrency));
        let serves = !v.retired && !self.stopped;
        assert!(queued == 0 || serves && !v.refused, "calls wait for nothing");
        assert!(!serves || free == 0 || queued == 0, "a call is forgotten: {free} places, {queued} wait");
        if v.drained.as_mut().is_some_and(|task| task.is_woken() && task.look().is_some()) {
            assert_eq!(busy, 0, "it is not drained");
            v.drained = None;
        }
        assert!(v.drained.is_none() || busy > 0, "nobody says that it is drained");
        let wanted = !v.refused && (queued > 0 || v.turned_away);
        if v.wanted.as_mut().is_some_and(|task| task.is_woken() && task.look().is_some()) {
            // What was waited for may be over by now.
            v.wanted = None;
        }
        assert!(v.wanted.is_none() || !wanted, "nobody is told that a call waits");
    }

    fn finish(&mut self, n: usize, breaks: bool) {
        if self.running.is_empty() {
            return;
        }
        let n = n % self.running.len();
        if breaks {
            let Running { lease, version, handler } = &self.running[n];
            lease.handler().doubt(true);
            for known in self.versions[*version].handlers.iter_mut().filter(|k| k.handler.id() == *handler) {
                known.held = true;
            }
        }
        self.running.swap_remove(n);
    }

    fn with_handler(&mut self, name: usize, n: usize, change: fn(&Function, &mut Known) -> bool) {
        let Some(version) = self.installed[name] else { return };
        let v = &mut self.versions[version];
        if v.handlers.is_empty() {
            return;
        }
        let n = n % v.handlers.len();
        if change(&v.function, &mut v.handlers[n]) {
            v.handlers.remove(n);
        }
    }

    fn fall_asleep(&mut self, name: usize) {
        let Some(version) = self.installed[name] else { return };
        let (queued, busy) = (self.queued(version), self.versions[version].function.in_flight());
        let v = &mut self.versions[version];
        let slept = v.function.fall_asleep(Duration::ZERO).is_ok();
        assert_eq!(slept, queued == 0 && busy == 0, "{queued} wait, {busy} run");
        if slept {
            v.handlers.clear();
            v.turned_away = false;
            let function = Arc::clone(&v.function);
            let mut wanted = Task::new(async move { function.until_wanted().await });
            assert!(wanted.look().is_none(), "nobody wants it yet");
            v.wanted = Some(wanted);
        }
    }

    fn step(&mut self, operation: u8, argument: u8) {
        let (name, n) = (usize::from(argument & 1), usize::from(argument >> 1));
        match operation % 16 {
            0 | 1 => self.install(name, argument >> 1),
            2 => self.remove(name),
            3..=6 => self.call(name, false),
            7 => self.call(name, true),
            8 | 9 => self.finish(n, false),
            10 => self.finish(n, true),
            11 if !self.waiting.is_empty() => drop(self.waiting.remove(n % self.waiting.len())),
            12 => match argument >> 1 & 3 {
                0 => self.with_handler(name, n >> 2, |_, known| {
                    known.handler.mark_unhealthy();
                    known.broken = true;
                    false
                }),
                // With a call in flight somebody else waits for its end.
                1 => self.with_handler(name, n >> 2, |function, known| {
                    let idle = known.handler.in_flight() == 0;
                    if idle {
                        function.drop_handler(known.handler.id());
                    }
                    idle
                }),
                _ => self.with_handler(name, n >> 2, |function, known| {
                    known.held = false;
                    function.readmit(&known.handler);
                    false
                }),
            },
            13 => {
                if let Some(version) = self.installed[name] {
                    self.add_handler(version);
                }
            }
            14 if argument == 255 => {
                self.dispatch.stop();
                self.stopped = true;
            }
            14 if argument >> 1 == 126 => {
                if let Some(version) = self.installed[name] {
                    self.versions[version].function.refuse("it cannot be woken", TIMEOUT);
                    self.versions[version].refused = true;
                }
            }
            14 => self.fall_asleep(name),
            _ => {}
        }
        // Sometimes several things happen before anybody is looked at.
        if operation < 160 {
            self.settle(n);
        }
    }

    /// All calls end, and handlers come for those that wait: nobody is left.
    fn end(mut self) {
        self.settle(0);
        while !self.running.is_empty() || !self.waiting.is_empty() {
            let before = self.running.len() + self.waiting.len();
            self.finish(0, false);
            self.settle(0);
            for name in 0..NAMES.len() {
                if let Some(version) = self.installed[name].filter(|&v| self.queued(v) > 0 && self.free(v) == 0) {
                    let v = &mut self.versions[version];
                    for known in &mut v.handlers {
                        known.held = false;
                        v.function.readmit(&known.handler);
                    }
                    self.settle(0);
                    if self.queued(version) > 0 && self.versions[version].handlers.len() < MOST_HANDLERS {
                        self.add_handler(version);
                    } else if self.running.is_empty() && self.queued(version) > 0 {
                        // All of its handlers broke: they are replaced by others.
                        self.with_handler(name, 0, |function, known| {
                            function.drop_handler(known.handler.id());
                            true
                        });
                        self.add_handler(version);
                    }
                    self.settle(0);
                }
            }
            let now = self.running.len() + self.waiting.len();
            assert!(now < before || !self.running.is_empty(), "nothing goes on");
        }
        assert!(self.versions.iter().all(|v| v.drained.is_none()));
    }
}

/// Tells the story that `bytes` spell, two bytes a step.
pub fn run(bytes: &[u8]) {
    let mut story = Story::new();
    for step in bytes.chunks_exact(2) {
        story.step(step[0], step[1]);
    }
    story.end();
}
