//! What the service manager that started us is told: sd_notify(3). Without one, nothing is.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::config::Var;
use crate::reactor::Timer;

/// The socket of the service manager, if there is one. Handlers are started without our variables, so it is ours alone.
#[derive(Debug)]
pub struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names: a path, or `@` and an abstract name. Others are told of in the log and not used.
    pub fn from_environment() -> Self {
        let to = connect(&|name| env::var_os(name)).unwrap_or_else(|e| {
            log::warn!("the service manager is told nothing: NOTIFY_SOCKET: {e}");
            None
        });
        let watchdog = watchdog(&|name| env::var_os(name), std::process::id()).filter(|_| to.is_some());
        Self { to, watchdog }
    }

    /// The doors are open; `status` is a line for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// Another line for people.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// The settings were read again.
    pub fn reloaded(&self) {
        self.tell("READY=1");
    }

    /// The settings are being read again, until [`Self::reloaded`].
    pub fn reloading(&self) {
        let micros = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: calls in flight finish");
    }

    /// Tells for ever that we are alive, twice in the time that `WATCHDOG_USEC` names. It has to be polled by the executor
    /// that everything else runs on: where that hangs, the service manager hears nothing.
    pub async fn watchdog<T>(&self) -> T {
        let Some(time) = self.watchdog else { return std::future::pending().await };
        loop {
            self.tell("WATCHDOG=1");
            Timer::after(time / 2).await;
        }
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(e) = socket.send_to_addr(state.as_bytes(), address)
        {
            log::debug!("the service manager was not told {state:?}: {e}");
        }
    }
}

fn connect(var: Var<'_>) -> io::Result<Option<(UnixDatagram, SocketAddr)>> {
    let Some(name) = var("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(&name)?,
        _ => return Err(io::Error::other(format!("{name:?} is neither a path nor @ and a name"))),
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that hangs does not hang us.
    socket.set_nonblocking(true)?;
    Ok(Some((socket, address)))
}

/// The time within which the process `pid` has to say that it is alive (sd_watchdog_enabled(3)).
fn watchdog(var: Var<'_>, pid: u32) -> Option<Duration> {
    let number = |name: &str| var(name)?.to_str()?.parse::<u64>().ok();
    let is_meant = var("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(pid.into());
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_meant)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn vars<'a>(vars: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let abstract_name = connect(&vars(&[("NOTIFY_SOCKET", "@tinyfaas/notify")])).unwrap().unwrap();
        assert_eq!(abstract_name.1.as_abstract_name(), Some(&b"tinyfaas/notify"[..]));
        let path = connect(&vars(&[("NOTIFY_SOCKET", "/run/systemd/notify")])).unwrap().unwrap();
        assert_eq!(path.1.as_pathname(), Some("/run/systemd/notify".as_ref()));
        assert!(connect(&vars(&[])).unwrap().is_none());
        assert!(connect(&vars(&[("NOTIFY_SOCKET", "")])).unwrap().is_none());
        assert!(connect(&vars(&[("NOTIFY_SOCKET", "vsock:2:1")])).is_err());
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let time = |v: &[(&str, &str)]| watchdog(&vars(v), 7);
        assert_eq!(time(&[("WATCHDOG_USEC", "3000000")]), Some(Duration::from_secs(3)));
        assert_eq!(time(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(3)));
        assert_eq!(time(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(time(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(time(&[]), None);
    }
}
