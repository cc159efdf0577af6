//! A connection that waits long, but not for ever.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::PATIENCE;

/// How long the kernel lets a client wait at once. A machine that stood still meanwhile, as virtual ones do, costs one of
/// these and not the whole of [`PATIENCE`].
const TURN: Duration = Duration::from_secs(5);

/// A client's side of a connection, which waits for [`PATIENCE`] and then tells where the handler stands.
pub(crate) struct Patient(UnixStream);

impl Patient {
    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(TURN)).unwrap();
        stream.set_write_timeout(Some(TURN)).unwrap();
        Self(stream)
    }

    /// The same connection, for another thread.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    fn wait<T>(&self, mut attempt: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        for _ in 0..PATIENCE.as_secs() / TURN.as_secs() {
            match attempt(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing moves: {}", self.stand())))
    }

    /// What each thread of the handler and of its children does, for a failure that cannot be had again.
    fn stand(&self) -> String {
        let mut text = String::new();
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&self.0) else { return text };
        let mut pids = vec![peer.pid.as_raw_nonzero().to_string()];
        while let Some(pid) = pids.pop() {
            for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
                let _ = write!(text, "{:?} {} {} {}; ", thread.path(), read("comm"), read("wchan"), read("syscall"));
                pids.extend(read("children").split_whitespace().map(str::to_owned));
            }
        }
        text
    }
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait(|mut stream| stream.read(buf))
    }
}

impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.wait(|mut stream| stream.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
