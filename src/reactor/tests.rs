use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_executor::Executor;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};

use super::*;

fn pair() -> (Async<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Async::new(ours).unwrap(), theirs)
}

/// Tells, once `future` waits, that it does.
async fn tell_when_waiting<T>(future: impl Future<Output = T>, waits: mpsc::Sender<()>) -> T {
    let mut future = pin!(future);
    let first = future::poll_once(&mut future).await;
    waits.send(()).unwrap();
    match first {
        Some(done) => done,
        None => future.await,
    }
}

#[test]
fn a_reader_waits_until_something_comes_and_sees_the_end() {
    let (mut ours, mut theirs) = pair();
    let (waits, waiting) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut buf = [0; 5];
        block_on(async {
            tell_when_waiting(ours.read_exact(&mut buf), waits).await.unwrap();
            assert_eq!(buf, *b"hello");
            let mut rest = Vec::new();
            ours.read_to_end(&mut rest).await.unwrap();
            rest
        })
    });
    waiting.recv().unwrap();
    theirs.write_all(b"hello").unwrap();
    theirs.write_all(b" world").unwrap();
    drop(theirs);
    assert!(reader.join().unwrap().ends_with(b" world"));
}

#[test]
fn the_recent_time_is_that_of_the_last_look() {
    block_on(async {
        for _ in 0..20 {
            let begun = Instant::now();
            Timer::at(begun + Duration::from_millis(3)).await;
            assert!(begun.elapsed() >= Duration::from_millis(3), "not early");
            turn().await;
            assert!(recently() > begun, "it was looked since");
        }
    });
}

#[test]
fn an_end_that_came_with_the_last_bytes_is_seen() {
    for _ in 0..100 {
        let (mut ours, mut theirs) = pair();
        block_on(async {
            // Registered, and then everything at once: one event tells of both.
            assert!(future::poll_once(ours.read(&mut [0; 8])).await.is_none());
            theirs.write_all(b"abc").unwrap();
            drop(theirs);
            let mut all = Vec::new();
            ours.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"abc");
        });
    }
}

#[test]
fn what_comes_while_a_short_read_is_looked_at_is_not_lost() {
    let (mut ours, theirs) = pair();
    let mut sender = theirs.try_clone().unwrap();
    let sent = thread::spawn(move || {
        for n in 0..20_000u32 {
            sender.write_all(&n.to_ne_bytes()[..1 + n as usize % 4]).unwrap();
        }
    });
    let expected: usize = (0..20_000).map(|n| 1 + n % 4).sum();
    drop(theirs);
    let mut total = 0;
    block_on(async {
        let mut buf = [0; 7];
        while total < expected {
            total += ours.read(&mut buf).await.unwrap();
        }
    });
    assert_eq!(total, expected);
    sent.join().unwrap();
}

#[test]
fn a_writer_waits_until_there_is_room() {
    let (mut ours, mut theirs) = pair();
    let (waits, waiting) = mpsc::channel();
    let bytes: Vec<u8> = (0..3_000_000).map(|n| n as u8).collect();
    let sent = bytes.clone();
    let writer = thread::spawn(move || block_on(tell_when_waiting(ours.write_all(&sent), waits)).unwrap());
    waiting.recv().unwrap();
    let mut got = vec![0; bytes.len()];
    theirs.read_exact(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == bytes);
}

#[test]
fn all_tasks_that_wait_for_a_descriptor_are_woken() {
    let (ours, mut theirs) = pair();
    let ours = Arc::new(ours);
    let executor = Executor::new().leak();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let ours = Arc::clone(&ours);
            executor.spawn(async move { ours.read_with(|mut io| io.read(&mut [0; 1])).await.unwrap() })
        })
        .collect();
    block_on(executor.run(async {
        while executor.try_tick() {}
        theirs.write_all(b"abc").unwrap();
        for task in waiting {
            assert_eq!(task.await, 1);
        }
    }));
}

#[test]
fn connections_are_made_accepted_and_refused() {
    block_on(async {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let addr = listener.get_ref().local_addr().unwrap();
        let (client, server) = future::zip(Async::<TcpStream>::connect(addr), listener.accept()).await;
        let (mut client, (mut server, peer)) = (client.unwrap(), server.unwrap());
        assert_eq!(peer, client.get_ref().local_addr().unwrap());
        client.write_all(b"hi").await.unwrap();
        let mut buf = [0; 2];
        server.read_exact(&mut buf).await.unwrap();
        assert_eq!(buf, *b"hi");
        drop(listener.into_inner().unwrap());
        let refused = Async::<TcpStream>::connect(addr).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_descriptor_that_was_given_back_is_not_waited_for() {
    let (ours, mut theirs) = pair();
    block_on(async {
        assert!(future::poll_once((&ours).read(&mut [0; 1])).await.is_none());
        let mut plain = ours.into_inner().unwrap();
        theirs.write_all(b"x").unwrap();
        assert_eq!(plain.read(&mut [0; 1]).unwrap(), 1);
        let again = Async::new(plain).unwrap();
        theirs.write_all(b"y").unwrap();
        assert_eq!((&again).read(&mut [0; 1]).await.unwrap(), 1);
    });
}

#[test]
fn what_cannot_be_waited_for_says_so() {
    // A file is always ready, and epoll refuses it.
    let file = Async::new_nonblocking(std::fs::File::open("/proc/self/exe").unwrap());
    let would_block = |_: &std::fs::File| std::io::Result::<()>::Err(std::io::ErrorKind::WouldBlock.into());
    assert!(block_on(file.read_with(would_block)).is_err());
    let before = lock(&Reactor::get().sources).iter().filter(|(_, s)| Arc::strong_count(s) == 1).count();
    assert_eq!(before, 0, "nothing is kept of what went");
}

#[test]
fn timers_complete_in_their_order_and_not_before_their_time() {
    let begun = Instant::now();
    let after = |ms| Timer::after(Duration::from_millis(ms));
    let order = Mutex::new(Vec::new());
    let note = |n: u64, timer: Timer| {
        let order = &order;
        async move {
            timer.await;
            assert!(begun.elapsed() >= Duration::from_millis(n));
            lock(order).push(n);
        }
    };
    block_on(future::zip(note(30, after(30)), future::zip(note(10, after(10)), note(20, after(20)))));
    assert_eq!(*lock(&order), [10, 20, 30]);
}

#[test]
fn a_timer_can_be_set_anew_and_one_that_never_comes_does_not() {
    block_on(async {
        let mut timer = Timer::never();
        assert!(future::poll_once(&mut timer).await.is_none());
        timer.set_at(Instant::now() + Duration::from_secs(1000));
        assert!(future::poll_once(&mut timer).await.is_none());
        timer.set_at(Instant::now());
        timer.await;
        assert!(future::poll_once(Timer::after(Duration::MAX)).await.is_none());
    });
}

#[test]
fn a_moment_that_has_passed_completes_at_once() {
    // Outside of `block_on`: nobody but who asks looks at the time.
    let waker = Waker::noop();
    let passed = |timer: &mut Timer| pin!(timer).poll(&mut Context::from_waker(waker)).is_ready();
    assert!(passed(&mut Timer::at(Instant::now())));
    let mut soon = Timer::after(Duration::from_millis(20));
    assert!(!passed(&mut soon));
    thread::sleep(Duration::from_millis(20));
    assert!(passed(&mut soon));
}

#[test]
fn timers_that_are_given_up_are_forgotten() {
    let far = Duration::from_secs(7_777_777);
    let mine = |at: &Instant| *at > Instant::now() + far / 2;
    block_on(async {
        for _ in 0..100 {
            assert!(future::poll_once(Timer::after(far)).await.is_none());
        }
    });
    assert_eq!(Reactor::get().timers.count(mine), 0);
}

#[test]
fn another_thread_wakes_one_that_sleeps() {
    let (send, receive) = async_channel::bounded(1);
    let (waits, waiting) = mpsc::channel();
    let receiver = thread::spawn(move || block_on(tell_when_waiting(receive.recv(), waits)).unwrap());
    waiting.recv().unwrap();
    send.send_blocking(7).unwrap();
    assert_eq!(receiver.join().unwrap(), 7);
}

#[test]
fn a_timer_set_elsewhere_does_not_wait_for_the_one_that_sleeps_longer() {
    let (stop, stopped) = async_channel::bounded::<()>(1);
    // It leads, or follows one that does, with nothing due for long.
    let long = async {
        Timer::after(Duration::from_secs(60)).await;
        panic!("the other timer did not wake this thread")
    };
    let sleeper = thread::spawn(move || block_on(async { stopped.recv().await.unwrap() }.or(long)));
    block_on(Timer::after(Duration::from_millis(20)));
    stop.send_blocking(()).unwrap();
    sleeper.join().unwrap();
}

#[test]
fn a_task_goes_on_whichever_thread_runs_it_next() {
    let executor = Executor::new().leak();
    let (ours, mut theirs) = pair();
    let read = executor.spawn(async move { (&ours).read(&mut [0; 1]).await.unwrap() });
    // Polled once by a thread that is gone then.
    thread::spawn(move || block_on(executor.run(async { while executor.try_tick() {} }))).join().unwrap();
    theirs.write_all(b"x").unwrap();
    assert_eq!(block_on(executor.run(read)), 1);
}

#[test]
fn many_threads_share_the_events() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                let (mut a, b) =
                    UnixStream::pair().map(|(a, b)| (Async::new(a).unwrap(), Async::new(b).unwrap())).unwrap();
                let echo = thread::spawn(move || {
                    block_on(async {
                        let mut byte = [0];
                        while (&b).read(&mut byte).await.unwrap() == 1 {
                            (&b).write_all(&byte).await.unwrap();
                        }
                    });
                });
                block_on(async {
                    for n in 0..500u32 {
                        a.write_all(&[n as u8]).await.unwrap();
                        let mut byte = [0];
                        a.read_exact(&mut byte).await.unwrap();
                        assert_eq!(byte, [n as u8]);
                        if n % 100 == 0 {
                            Timer::after(Duration::from_millis(1)).await;
                        }
                    }
                });
                drop(a);
                echo.join().unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn work_that_never_rests_lets_sockets_have_their_turn() {
    let executor = Executor::new().leak();
    let (ours, mut theirs) = pair();
    executor
        .spawn(async {
            loop {
                future::yield_now().await;
            }
        })
        .detach();
    theirs.write_all(b"x").unwrap();
    block_on(executor.run(async {
        assert_eq!((&ours).read(&mut [0; 1]).await.unwrap(), 1);
        let late = Timer::after(Duration::from_millis(1));
        let reading = executor.spawn(async move { (&ours).read(&mut [0; 1]).await.unwrap() });
        late.await;
        theirs.write_all(b"y").unwrap();
        assert_eq!(reading.await, 1);
    }));
}

#[test]
fn who_asked_for_a_connection_has_the_right_family() {
    let addr: SocketAddr = "[::1]:1".parse().unwrap();
    // Refused, or no IPv6 here: it answers in any case.
    assert!(block_on(Async::<TcpStream>::connect(addr)).is_err());
}
