//! Callers that go on, each call on a connection of its own, and count what they meet.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::board::{PATIENCE, parse};

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    answered: AtomicUsize,
    /// Answers that were no 200.
    failed: AtomicUsize,
    /// Connections that were refused, and tried again: nobody listened.
    refused: AtomicUsize,
    /// Connections that broke before the answer was there.
    broken: AtomicUsize,
    /// Longest time of a call in ms, tries included.
    longest: AtomicUsize,
}

pub struct Callers {
    counts: Arc<Counts>,
    total: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    /// `callers` at once make `total` calls.
    pub fn start(http: SocketAddr, name: &str, callers: usize, total: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let head = format!("POST /{name} HTTP/1.1\r\nHost: board\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
        let threads = (0..callers).map(|_| {
            let (counts, head) = (Arc::clone(&counts), head.clone());
            std::thread::spawn(move || {
                while counts.begun.fetch_add(1, Ordering::Relaxed) < total {
                    one(http, &head, &counts);
                }
            })
        });
        Self { threads: threads.collect(), counts, total }
    }

    /// Whether all calls were made.
    pub fn are_done(&self) -> bool {
        self.counts.answered.load(Ordering::Relaxed) >= self.total
    }

    /// Waits until so many more were answered, or all.
    pub fn some(&self, more: usize) {
        let until = (self.counts.answered.load(Ordering::Relaxed) + more).min(self.total);
        while self.counts.answered.load(Ordering::Relaxed) < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the rest, and says what was met.
    pub fn end(self) -> String {
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.counts.to_string()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} calls: {} failed, {} connections broke, {} were refused and tried again; the longest call took {} ms",
            of(&self.answered),
            of(&self.failed),
            of(&self.broken),
            of(&self.refused),
            of(&self.longest)
        )
    }
}

/// One call, tried until there is an answer.
fn one(http: SocketAddr, head: &str, counts: &Counts) {
    let begun = Instant::now();
    let status = loop {
        assert!(begun.elapsed() < PATIENCE, "no answer");
        match once(http, head) {
            Ok(status) => break status,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => {
                counts.broken.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    counts.answered.fetch_add(1, Ordering::Relaxed);
    counts.failed.fetch_add(usize::from(status != 200), Ordering::Relaxed);
    counts.longest.fetch_max(begun.elapsed().as_millis() as usize, Ordering::Relaxed);
}

fn once(http: SocketAddr, head: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    match bytes.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(parse(&bytes).status),
    }
}
