//! Signals as events: what a signal handler may do is to set a flag and to write to a socket, and so it does.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use signal_hook::{flag, low_level::pipe};

use crate::reactor::Async;

/// The signals that this process takes, from when it is made to the process's end.
#[derive(Debug)]
pub struct Signals {
    raised: Vec<(Signal, Arc<AtomicBool>)>,
    /// Gets a byte with each signal; full, it says enough.
    bell: Async<UnixStream>,
}

impl Signals {
    /// Takes these signals from now on.
    ///
    /// # Errors
    /// As sigaction(2) and socketpair(2).
    pub fn new(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let (bell, ring) = UnixStream::pair()?;
        let mut raised = Vec::new();
        for signal in signals {
            let flag = Arc::new(AtomicBool::new(false));
            // In this order: whoever hears the bell sees the flag.
            flag::register(signal.as_raw(), Arc::clone(&flag))?;
            pipe::register(signal.as_raw(), ring.try_clone()?)?;
            raised.push((signal, flag));
        }
        Ok(Self { raised, bell: Async::new(bell)? })
    }

    /// The next signal. One that came again before it was told is told once.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            if let Some((signal, _)) = self.raised.iter().find(|(_, raised)| raised.swap(false, Ordering::AcqRel)) {
                return Ok(*signal);
            }
            self.bell.read_with(|mut bell| bell.read(&mut [0; 16])).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::block_on;

    #[test]
    fn each_signal_that_was_raised_is_told() {
        let signals = Signals::new([Signal::USR1, Signal::USR2]).unwrap();
        let (sent, waits) = std::sync::mpsc::channel();
        let told = std::thread::spawn(move || {
            block_on(async {
                sent.send(()).unwrap();
                [signals.next().await.unwrap(), signals.next().await.unwrap()]
            })
        });
        waits.recv().unwrap();
        for signal in [Signal::USR2, Signal::USR1] {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        }
        let mut told = told.join().unwrap().map(Signal::as_raw);
        told.sort_unstable();
        assert_eq!(told, [Signal::USR1.as_raw(), Signal::USR2.as_raw()]);
    }
}
