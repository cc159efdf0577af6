//! Who is at the other end, as far as bounds go.

use std::net::IpAddr;

/// The part of an address that its owner cannot change at will: of IPv4 all of it, of IPv6 the first 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(u64);

impl Client {
    /// Whose address it is.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            // All of a link have the same first half there.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Self(v6.to_bits() as u64),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }

    /// All together whose addresses may be made up: no address has these bits.
    pub const STRANGERS: Self = Self(u64::MAX);

    /// Spreads clients evenly, and by a `key` that nobody outside knows.
    pub fn hash(self, key: u64) -> u64 {
        (self.0 ^ key).wrapping_mul(key | 1) >> 32
    }

    /// Whether it is on this machine. It may be a proxy, behind which everybody is one client.
    pub fn is_local(self) -> bool {
        self.0 >> 24 == 127 || self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn who_has_a_network_of_ipv6_is_one_client_and_a_link_is_many() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.2"), client("10.0.0.1"));
        assert_ne!(client("fe80::1"), client("fe80::2"));
        assert!(["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].iter().all(|a| client(a).is_local()));
        assert!(["10.0.0.1", "128.0.0.1", "fe80::1", "2001:db8::1"].iter().all(|a| !client(a).is_local()));
    }
}
