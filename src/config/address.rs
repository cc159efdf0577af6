//! Addresses as flags name them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a front door listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// At this address; port 0 for any free one.
    At(SocketAddr),
    /// It is turned off.
    Off,
}

impl Listen {
    /// At `port` of every address, IPv6 and IPv4.
    pub const fn everywhere(port: u16) -> Self {
        Self::At(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
    }

    /// The address, unless it is off.
    pub const fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::At(addr) => Some(addr),
            Self::Off => None,
        }
    }
}

pub(super) const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

pub(super) fn parse_management(text: &str) -> Result<SocketAddr, String> {
    if text == "off" {
        return Err("the management API cannot be turned off: use an address such as 127.0.0.1:8080".into());
    }
    address(text, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen::Off);
    }
    address(text, IpAddr::V6(Ipv6Addr::UNSPECIFIED)).map(Listen::At)
}

/// Takes `HOST:PORT`, `:PORT` or `PORT`; the last two at `host`.
fn address(text: &str, host: IpAddr) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let (name, port) = text.rsplit_once(':').unwrap_or(("", text));
    let ip = match name {
        "" => Some(host),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => None,
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match (ip, port.parse()) {
        (Some(ip), Ok(port)) if digits => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!("{text:?} is no address: use IP:PORT, [IPv6]:PORT, :PORT or PORT")),
    }
}
