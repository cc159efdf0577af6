//! The addresses of this machine, and the news that they changed.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::reactor::Async;

/// A socket on which the kernel tells that addresses come and go (rtnetlink(7)).
#[derive(Debug)]
pub struct News(Async<OwnedFd>);

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR of linux/rtnetlink.h.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

impl News {
    /// Listens from now on.
    ///
    /// # Errors
    /// As socket(7): a sandbox may not allow it.
    pub fn new() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE.
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, ADDRESS_GROUPS))?;
        Ok(Self(Async::new(socket)?))
    }

    /// Completes when something changed since this last completed. What it was is not told: the lists are to be read again.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn wait(&self) -> io::Result<()> {
        let more = || net::recv(&self.0, &mut [0; 64], RecvFlags::DONTWAIT).map(drop);
        self.0
            .read_with(|_| match more() {
                Err(rustix::io::Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                // Messages that found no room, or no place in the buffer, are news as well.
                _ => Ok(()),
            })
            .await?;
        while !matches!(more(), Err(rustix::io::Errno::AGAIN)) {}
        Ok(())
    }
}

/// The addresses that need a socket of their own, since the kernel could answer from another one. That of the loopback and the
/// only address of IPv4 need none; nor does an interface's only link-local one, which is what the kernel takes to answer such.
pub fn needed(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.retain(|a| !a.ip().is_loopback());
    let all = addresses.clone();
    addresses.retain(|a| all.iter().any(|b| b != a && could_answer_for(*b, *a)));
    addresses
}

/// Whether the kernel could choose `other` where `asked` was asked.
fn could_answer_for(other: SocketAddr, asked: SocketAddr) -> bool {
    match (other, asked) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => true,
        (SocketAddr::V6(other), SocketAddr::V6(asked)) => asked.scope_id() == 0 || other.scope_id() == asked.scope_id(),
        _ => false,
    }
}

/// This machine's addresses that a socket bound to `wildcard` serves, as the kernel lists them; none where it does not. Those
/// that are only good on their link, of which there may be many, come last.
pub fn of_machine(wildcard: SocketAddr) -> Vec<SocketAddr> {
    let port = wildcard.port();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut all: Vec<SocketAddr> =
        local_v4(&read("/proc/net/fib_trie")).into_iter().map(|ip| (ip, port).into()).collect();
    if wildcard.is_ipv6() {
        let v6 = local_v6(&read("/proc/net/if_inet6"));
        all.extend(v6.into_iter().map(|(ip, scope)| SocketAddr::from(SocketAddrV6::new(ip, port, 0, scope))));
    }
    all.sort_by_key(|address| matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0));
    all
}

/// The local addresses of `/proc/net/fib_trie`: an address on a line, `/32 host LOCAL` on the next.
fn local_v4(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in fib_trie.lines() {
        match line.trim_start().strip_prefix("|-- ") {
            Some(address) => last = address.trim().parse().ok(),
            None if line.contains("/32 host LOCAL") => found.extend(last),
            None => {}
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The addresses of `/proc/net/if_inet6`, with the interface's index where they need one, without those that somebody else
/// turned out to have.
fn local_v6(if_inet6: &str) -> Vec<(Ipv6Addr, u32)> {
    /// IFA_F_DADFAILED of if_addr.h.
    const UNUSABLE: u32 = 0x08;
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ip = Ipv6Addr::from_bits(u128::from_str_radix(words.next()?, 16).ok()?);
        let mut hex = || u32::from_str_radix(words.next()?, 16).ok();
        let (index, _prefix, _scope, flags) = (hex()?, hex()?, hex()?, hex()?);
        (flags & UNUSABLE == 0).then_some((ip, if ip.is_unicast_link_local() { index } else { 0 }))
    };
    if_inet6.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_of_addresses_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.0\n        /24 link UNICAST\n     \
                    |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        let twice = format!("{trie}Local:\n{trie}");
        assert_eq!(local_v4(&twice), [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 7)]);
        let list = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n\
                    20010db8000000000000000000000001 04 40 00 c8     eth0\n";
        assert_eq!(local_v6(list), [("fe80::fc:ff:fe00:1".parse().unwrap(), 4), (Ipv6Addr::LOCALHOST, 0)]);
    }

    #[test]
    fn a_socket_of_its_own_is_for_addresses_that_could_be_mixed_up() {
        let addresses = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(needed(addresses(&["127.0.0.1:1", "192.0.2.1:1", "[::1]:1", "[fe80::1%2]:1", "[fe80::2%3]:1"])), []);
        let two = addresses(&["192.0.2.1:1", "198.51.100.1:1"]);
        assert_eq!(needed([addresses(&["127.0.0.1:1", "[::1]:1"]), two.clone()].concat()), two);
        let two = addresses(&["[2001:db8::1]:1", "[2001:db8::2]:1"]);
        assert_eq!(needed([addresses(&["192.0.2.1:1", "[fe80::1%2]:1"]), two.clone()].concat()), two);
        let two = addresses(&["[fe80::1%2]:1", "[fe80::2%2]:1"]);
        assert_eq!(needed([addresses(&["[fe80::3%3]:1"]), two.clone()].concat()), two);
    }
}
