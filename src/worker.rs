//! Blocking work off the executor's thread: a short-lived thread with a small stack for each piece of work.
//!
//! No thread is kept: an idle process pays for none. What is done in the thread is the caller's business.

use std::io;
use std::sync::Arc;
use std::thread;

use async_lock::Semaphore;

/// How much blocking work goes on at once, and the right to start more. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Workers {
    slots: Arc<Semaphore>,
}

impl Workers {
    /// Threads at once: unpacking and file work is bound by disk and one core, so more only costs memory.
    pub const MAX: usize = 4;
    /// Stack of a worker thread in bytes. Work with buffers larger than a few KiB keeps them on the heap.
    pub const STACK: usize = 256 * 1024;

    /// Allows [`Workers::MAX`] threads at once.
    pub fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(Self::MAX)) }
    }

    /// Runs `work` on a thread of its own once fewer than [`Workers::MAX`] run, and waits for what it returns.
    ///
    /// A caller that stops waiting does not stop the work once it was started; the work keeps its place until it ends.
    ///
    /// # Errors
    /// When no thread can be started, or the work panicked (in builds that unwind).
    pub async fn unblock<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let slot = self.slots.acquire_arc().await;
        let (sender, receiver) = async_channel::bounded(1);
        thread::Builder::new().name("worker".into()).stack_size(Self::STACK).spawn(move || {
            let result = work();
            // The place is free before the result is seen: whoever waits for the result may ask for it.
            drop(slot);
            // Fails only when nobody waits any more.
            let _ = sender.try_send(result);
        })?;
        receiver.recv().await.map_err(|_| io::Error::other("a worker thread ended without a result"))
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_lite::future;

    use super::*;

    #[test]
    fn the_result_comes_from_another_thread() {
        let here = thread::current().id();
        let there = crate::reactor::block_on(Workers::new().unblock(|| thread::current().id())).unwrap();
        assert_ne!(here, there);
    }

    #[test]
    fn no_more_than_the_bound_run_at_once_and_all_run() {
        const JOBS: usize = 4 * Workers::MAX;
        let workers = Workers::new();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs: Vec<_> = (0..JOBS)
            .map(|n| {
                let (workers, running, most) = (workers.clone(), running.clone(), most.clone());
                thread::spawn(move || {
                    crate::reactor::block_on(workers.unblock(move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        n
                    }))
                })
            })
            .collect();
        let sum: usize = jobs.into_iter().map(|j| j.join().unwrap().unwrap()).sum();
        assert_eq!(sum, JOBS * (JOBS - 1) / 2);
        assert!(most.load(Ordering::SeqCst) <= Workers::MAX);
    }

    #[test]
    fn abandoned_work_keeps_its_place_until_it_ends() {
        let workers = Workers::new();
        let (release, gate) = async_channel::bounded::<()>(1);
        for _ in 0..Workers::MAX {
            let gate = gate.clone();
            let wait = workers.unblock(move || gate.recv_blocking());
            assert!(crate::reactor::block_on(future::poll_once(wait)).is_none());
        }
        assert!(crate::reactor::block_on(future::poll_once(workers.unblock(|| ()))).is_none());
        drop(release);
        crate::reactor::block_on(workers.unblock(|| ())).unwrap();
    }

    #[test]
    fn work_that_panics_is_an_error_and_gives_its_place_back() {
        let workers = Workers::new();
        for _ in 0..2 * Workers::MAX {
            let result: io::Result<()> =
                crate::reactor::block_on(workers.unblock(|| panic!("as expected by this test")));
            assert!(result.is_err());
        }
    }
}
