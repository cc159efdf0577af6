//! Echo values (RFC 9175 §2): a request that carries one back proves that its sender receives what we send to its address.

use std::hash::{BuildHasher, RandomState};

use super::{Millis, Peer};

/// Makes and checks Echo values without remembering them.
#[derive(Debug, Default)]
pub struct Echo {
    keys: RandomState,
}

/// How long a value proves an address, in milliseconds: a slow client's round trip and its retransmissions.
const LIFETIME: Millis = 100_000;
/// Bytes of time and bytes of keyed hash.
const TIME: usize = 4;
/// Bytes of a value.
pub const LEN: usize = TIME + 8;

impl Echo {
    /// The value for `peer` at this time.
    pub fn value(&self, now: Millis, peer: &Peer) -> [u8; LEN] {
        let time = (now as u32).to_be_bytes();
        let mut value = [0; LEN];
        let (head, tail) = value.split_at_mut(TIME);
        head.copy_from_slice(&time);
        tail.copy_from_slice(&self.keys.hash_one((peer, time)).to_be_bytes());
        value
    }

    /// Whether `value` is one that was made for `peer` not long ago.
    pub fn is_fresh(&self, now: Millis, peer: &Peer, value: &[u8]) -> bool {
        let Some((time, _)) = value.split_first_chunk::<TIME>() else { return false };
        let age = (now as u32).wrapping_sub(u32::from_be_bytes(*time));
        let made = now.wrapping_sub(u64::from(age));
        u64::from(age) <= LIFETIME && self.value(made, peer) == value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_proves_one_address_for_a_while() {
        let echo = Echo::default();
        let (a, b) = (Peer::new("192.0.2.1:1".parse().unwrap(), 0), Peer::new("192.0.2.2:1".parse().unwrap(), 0));
        let value = echo.value(5_000, &a);
        assert!(echo.is_fresh(5_000, &a, &value) && echo.is_fresh(105_000, &a, &value));
        assert!(!echo.is_fresh(105_001, &a, &value), "too old");
        assert!(!echo.is_fresh(4_999, &a, &value), "from the future");
        assert!(!echo.is_fresh(5_000, &b, &value), "another address");
        assert!(!Echo::default().is_fresh(5_000, &a, &value), "another process");
        assert!(!echo.is_fresh(5_000, &a, &value[..11]) && !echo.is_fresh(5_000, &a, b""));
        let mut forged = value;
        forged[LEN - 1] ^= 1;
        assert!(!echo.is_fresh(5_000, &a, &forged));
    }
}
