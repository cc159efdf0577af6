//! Who gets a handler, and in which order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::future;

use super::*;
use crate::function::Limits;
use crate::net::Address;
use crate::reactor::block_on;

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<(Lease, Instant), Failure>> + 'a>>;

fn function(concurrency: usize, handlers: usize) -> Arc<Function> {
    let timeout = std::time::Duration::from_secs(20);
    let limits = Limits { memory: 0, cpu_millis: 0, pids: 0, timeout, concurrency, queue: 100 };
    let function = Function::new(Name::parse("f").unwrap(), limits);
    (0..handlers).for_each(|n| function.add(handler(n)));
    Arc::new(function)
}

fn handler(n: usize) -> Arc<Handler> {
    Arc::new(Handler::new(format!("h{n}"), Address::Unix("/nowhere".into())))
}

/// A call of one of several clients.
fn ask_of<'a>(dispatch: &'a Dispatch, client: u8) -> Waiting<'a> {
    let client = Client::of([192, 0, 2, client].into());
    Box::pin(async move {
        dispatch.lease_for(Who { client: Some(client), token: None }, "f", &mut Body::Bytes(b""), None).await
    })
}

#[test]
fn where_the_line_is_full_the_client_with_most_calls_in_it_gives_way() {
    let dispatch = Dispatch::default();
    let timeout = std::time::Duration::from_secs(20);
    let limits = Limits { memory: 0, cpu_millis: 0, pids: 0, timeout, concurrency: 1, queue: 3 };
    let only = Function::new(Name::parse("f").unwrap(), limits);
    only.add(handler(0));
    dispatch.install(Arc::new(only));
    let running = poll(&mut ask_of(&dispatch, 1)).unwrap();
    let mut flood: Vec<Waiting> = (0..3).map(|_| ask_of(&dispatch, 1)).collect();
    assert!(flood.iter_mut().all(|call| poll(call).is_none()));
    let mut other = ask_of(&dispatch, 2);
    assert!(poll(&mut other).is_none(), "it waits");
    let refused = |call: &mut Waiting| block_on(future::poll_once(call)).unwrap().unwrap_err().kind;
    assert_eq!(refused(&mut flood[2]), FailureKind::QueueFull, "the last of them");
    assert_eq!(refused(&mut ask_of(&dispatch, 1)), FailureKind::QueueFull);
    drop(running);
    flood.truncate(2);
    flood.push(other);
    assert!(flood.iter_mut().all(|call| poll(call).is_some()), "in their order");
}

/// Looks at a call once.
fn poll(waiting: &mut Waiting) -> Option<Lease> {
    block_on(future::poll_once(waiting)).map(|got| got.unwrap().0)
}

#[test]
fn a_call_that_comes_does_not_overtake_one_that_waits() {
    let dispatch = Dispatch::default();
    dispatch.install(function(1, 1));
    let ask = || -> Waiting { Box::pin(dispatch.lease("f", None, None)) };
    let first = poll(&mut ask()).unwrap();
    let mut second = ask();
    assert!(poll(&mut second).is_none());
    drop(first);
    let mut third = ask();
    assert!(poll(&mut third).is_none(), "the place is the second's");
    drop(poll(&mut second).unwrap());
    assert!(poll(&mut third).is_some());
}

#[test]
fn two_places_that_become_free_at_once_are_taken_by_two() {
    let dispatch = Dispatch::default();
    dispatch.install(function(2, 1));
    let ask = || -> Waiting { Box::pin(dispatch.lease("f", None, None)) };
    let leases = [poll(&mut ask()).unwrap(), poll(&mut ask()).unwrap()];
    let (mut a, mut b) = (ask(), ask());
    assert!(poll(&mut a).is_none() && poll(&mut b).is_none());
    drop(leases);
    // Not looked at again unless they are woken, as by an executor.
    let both = async {
        let (a, b) = future::zip(&mut a, &mut b).await;
        a.is_ok() && b.is_ok()
    };
    let late = async {
        Timer::after(std::time::Duration::from_secs(5)).await;
        false
    };
    assert!(block_on(both.or(late)), "one of them was not woken");
}

#[test]
fn a_place_of_a_handler_that_takes_no_calls_wakes_nobody() {
    let dispatch = Dispatch::default();
    let function = function(1, 2);
    dispatch.install(Arc::clone(&function));
    let ask = || -> Waiting { Box::pin(dispatch.lease("f", None, None)) };
    let (broken, well) = (poll(&mut ask()).unwrap(), poll(&mut ask()).unwrap());
    let (mut a, mut b) = (ask(), ask());
    assert!(poll(&mut a).is_none() && poll(&mut b).is_none());
    broken.handler().doubt(true);
    drop(broken);
    assert!(poll(&mut a).is_none());
    drop(well);
    assert!(poll(&mut b).is_none(), "the first has not lost its place in the line");
    assert!(poll(&mut a).is_some());
}

#[test]
fn whoever_was_woken_for_a_handler_that_broke_keeps_his_place_in_the_line() {
    let dispatch = Dispatch::default();
    let function = function(1, 0);
    dispatch.install(Arc::clone(&function));
    let (mut first, mut second) = (Caller::new(&dispatch), Caller::new(&dispatch));
    assert!(first.look().is_none() && second.look().is_none());
    function.add(handler(0));
    function.snapshot()[0].mark_unhealthy();
    assert!(first.woken.0.load(Ordering::Acquire));
    assert!(first.look().is_none() && second.look().is_none());
    function.add(handler(1));
    assert!(second.look().is_none() && first.look().is_some());
}

/// A call that waits, looked at when it was woken, as by an executor.
struct Caller<'a> {
    call: Waiting<'a>,
    woken: Arc<Flag>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'a> Caller<'a> {
    fn new(dispatch: &'a Dispatch) -> Self {
        Self { call: Box::pin(dispatch.lease("f", None, None)), woken: Arc::new(Flag(AtomicBool::new(true))) }
    }

    fn look(&mut self) -> Option<Lease> {
        if !self.woken.0.swap(false, Ordering::AcqRel) {
            return None;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(got) => Some(got.unwrap().0),
            Poll::Pending => None,
        }
    }
}

/// Calls come, end and give up in any order, handlers come, are doubted and readmitted: when all who were woken have been
/// looked at no place is free while a call waits, and those that got one are those that waited longest.
#[test]
fn whatever_happens_places_go_to_those_who_waited_longest() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let dispatch = Dispatch::default();
        let function = function(random.usize(1..4), 1);
        dispatch.install(Arc::clone(&function));
        let (mut waiting, mut leases) = (VecDeque::<Caller>::new(), Vec::<Lease>::new());
        for step in 0..120 {
            match random.u8(..16) {
                0..6 => {
                    let mut caller = Caller::new(&dispatch);
                    match caller.look() {
                        Some(lease) => leases.push(lease),
                        None => waiting.push_back(caller),
                    }
                }
                6..12 if !leases.is_empty() => drop(leases.swap_remove(random.usize(..leases.len()))),
                12 if !waiting.is_empty() => drop(waiting.remove(random.usize(..waiting.len()))),
                13 if function.snapshot().len() < 4 => function.add(handler(step)),
                14 if !leases.is_empty() => {
                    let lease = leases.swap_remove(0);
                    let handler = function.snapshot().into_iter().find(|h| h.id() == lease.handler().id()).unwrap();
                    handler.doubt(true);
                    drop(lease);
                    function.readmit(&handler);
                }
                _ => {}
            }
            // Sometimes several things happen before anybody is looked at.
            if random.bool() {
                settle(&mut waiting, &mut leases);
                let free = function.snapshot().len() * function.limits().concurrency - leases.len();
                assert!(
                    free == 0 || waiting.is_empty(),
                    "seed {seed} step {step}: {free} free, {} wait",
                    waiting.len()
                );
                assert_eq!(function.waiting(), waiting.len());
            }
        }
    }
}

/// Looks at all that were woken, the youngest first: whoever gets a place has to be the one that waits longest all the same.
fn settle(waiting: &mut VecDeque<Caller>, leases: &mut Vec<Lease>) {
    let mut got = vec![false; waiting.len()];
    while let Some(n) = waiting.iter().rposition(|caller| caller.woken.0.load(Ordering::Acquire)) {
        if let (Some(caller), Some(got)) = (waiting.get_mut(n), got.get_mut(n)) {
            let lease = caller.look();
            *got = lease.is_some();
            leases.extend(lease);
        }
    }
    let served = got.iter().take_while(|got| **got).count();
    assert!(got.iter().skip(served).all(|got| !got), "overtaken: {got:?}");
    waiting.drain(..served);
}

#[test]
fn connections_that_no_call_needs_are_closed_but_for_one() {
    let handler = handler(0);
    let pairs: Vec<_> = (0..5).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
    let keep = |n: usize| {
        let stream = pairs[n].0.try_clone().unwrap();
        handler.keep(crate::net::Stream::Unix(crate::reactor::Async::new(stream).unwrap()), 4);
    };
    (0..5).for_each(keep);
    assert_eq!(handler.idle_connections().len(), 4, "it takes four calls at once");
    let then = Instant::now();
    drop(handler.idle_connection());
    keep(4);
    handler.close_unused_since(Some(then));
    assert_eq!(handler.idle_connections().len(), 1, "the one used since");
    handler.close_unused_since(Some(Instant::now()));
    assert_eq!(handler.idle_connections().len(), 1);
}

/// A body of which nothing comes before `whole` is set.
struct Late(Arc<AtomicBool>);

impl crate::call::BodyStream for Late {
    fn length(&self) -> Option<u64> {
        Some(5)
    }

    fn is_whole(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn poll_whole(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.is_whole() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Poll::Pending
    }
}

/// A call whose body comes when that is set.
fn ask_late<'a>(dispatch: &'a Dispatch, whole: &Arc<AtomicBool>) -> Waiting<'a> {
    let mut late = Late(Arc::clone(whole));
    Box::pin(async move {
        let who = Who { client: Some(Client::of([192, 0, 2, 9].into())), token: None };
        dispatch.lease_for(who, "f", &mut Body::Stream(&mut late), None).await
    })
}

#[test]
fn calls_whose_bodies_do_not_come_leave_places_to_whole_ones_which_do_not_wait_for_them() {
    let dispatch = Dispatch::default();
    dispatch.install(function(4, 1));
    let never = Arc::default();
    let mut late: Vec<Waiting> = (0..5).map(|_| ask_late(&dispatch, &never)).collect();
    let mut held: Vec<Lease> = late.iter_mut().filter_map(poll).collect();
    assert_eq!(held.len(), 3, "three quarters of the places");
    let whole = poll(&mut ask_of(&dispatch, 1)).expect("it does not wait behind them");
    let mut next = ask_of(&dispatch, 1);
    assert!(poll(&mut next).is_none());
    // As many are told as may have a place, and whole ones come first.
    drop(held.pop());
    assert!(late.drain(3..).all(|mut call| poll(&mut call).is_none()), "a whole one waits");
    assert!(poll(&mut next).is_some());
    drop(whole);
}

#[test]
fn a_call_whose_body_came_waits_with_the_whole_ones() {
    let dispatch = Dispatch::default();
    dispatch.install(function(1, 1));
    let running = poll(&mut ask_of(&dispatch, 1)).unwrap();
    let comes = Arc::new(AtomicBool::new(false));
    let mut late = ask_late(&dispatch, &comes);
    assert!(poll(&mut late).is_none());
    comes.store(true, Ordering::Relaxed);
    assert!(poll(&mut late).is_none(), "from here on it is in their line");
    let mut behind = ask_of(&dispatch, 2);
    assert!(poll(&mut behind).is_none());
    drop(running);
    assert!(poll(&mut behind).is_none());
    assert!(poll(&mut late).is_some());
}

#[test]
fn a_body_that_is_sent_gives_the_place_of_one_that_comes_to_the_next() {
    let dispatch = Dispatch::default();
    dispatch.install(function(2, 1));
    let never = Arc::default();
    let first = poll(&mut ask_late(&dispatch, &never)).unwrap();
    let mut second = ask_late(&dispatch, &never);
    assert!(poll(&mut second).is_none(), "one of the two places");
    first.body_came();
    assert!(poll(&mut second).is_some());
    assert_eq!(dispatch.function("f").unwrap().waiting(), 0);
}

#[test]
fn while_whole_calls_always_wait_one_whose_body_comes_has_its_turn() {
    let dispatch = Dispatch::default();
    dispatch.install(function(1, 1));
    let mut running = poll(&mut ask_of(&dispatch, 1));
    let mut line: VecDeque<Waiting> = (0..3).map(|_| ask_of(&dispatch, 1)).collect();
    assert!(line.iter_mut().all(|call| poll(call).is_none()));
    let never = Arc::default();
    let mut late = ask_late(&dispatch, &never);
    assert!(poll(&mut late).is_none());
    drop(running.take());
    assert!(line.iter_mut().all(|call| poll(call).is_none()), "the place is another's");
    let lease = poll(&mut late).expect("its turn");
    let mut again = ask_late(&dispatch, &never);
    assert!(poll(&mut again).is_none());
    drop(lease);
    assert!(poll(&mut again).is_none(), "not two of them after each other");
    assert!(poll(&mut line[0]).is_some());
}

#[test]
fn who_is_owed_a_place_and_gives_up_leaves_it_to_others() {
    let dispatch = Dispatch::default();
    dispatch.install(function(1, 1));
    let running = poll(&mut ask_of(&dispatch, 1)).unwrap();
    let mut whole = ask_of(&dispatch, 1);
    assert!(poll(&mut whole).is_none());
    let mut late = ask_late(&dispatch, &Arc::default());
    assert!(poll(&mut late).is_none());
    drop(running);
    assert!(poll(&mut whole).is_none());
    drop(late);
    assert!(poll(&mut whole).is_some());
}

#[test]
fn calls_of_strangers_let_as_many_pass_as_may_wait_and_no_more() {
    let dispatch = Dispatch::default();
    dispatch.install(function(1, 1));
    let ask_of_stranger = || -> Waiting {
        let who = Who { client: Some(Client::STRANGERS), token: None };
        let dispatch = &dispatch;
        Box::pin(async move { dispatch.lease_for(who, "f", &mut Body::Bytes(b""), None).await })
    };
    let mut running = poll(&mut ask_of(&dispatch, 1));
    let mut strangers: Vec<Waiting> = (0..2).map(|_| ask_of_stranger()).collect();
    assert!(strangers.iter_mut().all(|call| poll(call).is_none()));
    let mut passed = 0;
    // Somebody always waits.
    let mut next = ask_of(&dispatch, 1);
    assert!(poll(&mut next).is_none());
    loop {
        drop(running.take());
        running = poll(&mut next);
        if running.is_none() {
            break;
        }
        passed += 1;
        next = ask_of(&dispatch, 1);
        assert!(poll(&mut next).is_none());
        assert!(poll(&mut strangers[1]).is_none(), "in their order");
    }
    // The second stranger counts too.
    assert_eq!(passed, 99);
    assert!(poll(&mut strangers[0]).is_some());
}
