//! Where functions find the HTTP front door, to call one another: `TINYFAAS_URL` in their environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// The variable that tells a function.
pub const VARIABLE: &str = "TINYFAAS_URL";

/// The HTTP front door, as backends know it: once it is open, which is before any handler starts. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct FrontDoor(Arc<OnceLock<Open>>);

#[derive(Debug)]
struct Open {
    at: SocketAddr,
    scheme: &'static str,
}

impl FrontDoor {
    /// It listens `at`, and speaks `scheme`. Said once.
    pub fn opened(&self, at: SocketAddr, scheme: &'static str) {
        // A second one would be another server's.
        let _ = self.0.set(Open { at, scheme });
    }

    /// Its URL for who shares this machine's network; `None` where it is off.
    pub fn here(&self) -> Option<String> {
        let open = self.0.get()?;
        let ip = if open.at.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { open.at.ip() };
        Some(open.url(ip))
    }

    /// Its URL for who reaches this machine as `gateway`; `None` where it does not listen there.
    pub fn by(&self, gateway: IpAddr) -> Option<String> {
        let open = self.0.get()?;
        let ip = open.at.ip().to_canonical();
        let listens = ip.is_unspecified() || ip == gateway || (ip.is_ipv4() && gateway.is_ipv4() && !ip.is_loopback());
        listens.then(|| open.url(if ip.is_unspecified() { gateway } else { ip }))
    }
}

impl Open {
    fn url(&self, ip: IpAddr) -> String {
        format!("{}://{}", self.scheme, SocketAddr::new(ip, self.at.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_one_at_which_the_door_listens_or_there_is_none() {
        let gateway: IpAddr = "172.18.0.1".parse().unwrap();
        for (at, here, by) in [
            ("0.0.0.0:80", "http://127.0.0.1:80", Some("http://172.18.0.1:80")),
            ("[::]:8000", "http://127.0.0.1:8000", Some("http://172.18.0.1:8000")),
            ("127.0.0.1:8000", "http://127.0.0.1:8000", None),
            ("[::1]:8000", "http://[::1]:8000", None),
            ("192.168.1.7:8000", "http://192.168.1.7:8000", Some("http://192.168.1.7:8000")),
            ("[fd00::2]:8000", "http://[fd00::2]:8000", None),
        ] {
            let door = FrontDoor::default();
            assert_eq!((door.here(), door.by(gateway)), (None, None));
            door.opened(at.parse().unwrap(), "http");
            assert_eq!((door.here().as_deref(), door.by(gateway).as_deref()), (Some(here), by), "{at}");
        }
    }
}
