//! Which addresses a download may contact: what is behind a name or a redirect is the stranger's choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be contacted. Private ranges always may: a board's functions come from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Whether loopback and link-local addresses may be, too.
    pub allow_local: bool,
}

impl Policy {
    /// Judges an address; IPv6 addresses that stand for an IPv4 one are judged as that.
    ///
    /// # Errors
    /// What kind of address it is.
    pub fn check(self, address: IpAddr) -> Result<(), &'static str> {
        match address {
            IpAddr::V4(v4) => self.check_v4(v4),
            IpAddr::V6(v6) => embedded_v4(v6).map_or_else(|| self.check_v6(v6), |v4| self.check_v4(v4)),
        }
    }

    fn check_v4(self, v4: Ipv4Addr) -> Result<(), &'static str> {
        // All of 0.0.0.0/8 means this host (RFC 1122 §3.2.1.3).
        if v4.octets()[0] == 0 {
            Err("the unspecified address")
        } else if v4.is_multicast() || v4.is_broadcast() {
            Err("a multicast address")
        } else if v4.is_loopback() && !self.allow_local {
            Err("a loopback address")
        } else if v4.is_link_local() && !self.allow_local {
            Err("a link-local address")
        } else {
            Ok(())
        }
    }

    fn check_v6(self, v6: Ipv6Addr) -> Result<(), &'static str> {
        if v6.is_unspecified() {
            Err("the unspecified address")
        } else if v6.is_multicast() {
            Err("a multicast address")
        } else if v6.is_loopback() && !self.allow_local {
            Err("a loopback address")
        } else if v6.is_unicast_link_local() && !self.allow_local {
            Err("a link-local address")
        } else {
            Ok(())
        }
    }
}

/// The IPv4 address within an IPv4-mapped or -compatible (RFC 4291 §2.5.5), translated (RFC 2765 §2.1), NAT64 (RFC 6052, and
/// RFC 8215 with the whole of its last 32 bits) or 6to4 (RFC 3056) one. Teredo (RFC 4380) is not looked into: nothing that is
/// sent there comes back to this machine but through its own tunnel.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0 | 1, 0, 0, 0, a, b]
        | [0x2002, a, b, ..] => v4(a, b),
        _ => None,
    }
}
