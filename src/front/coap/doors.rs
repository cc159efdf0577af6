//! The UDP sockets of the front door.
//!
//! An answer has to leave from the address its request came to, or the client drops it. A wildcard socket does not tell that
//! address (and the safe interfaces here offer no IP_PKTINFO), so on a wildcard address each address of this machine that is
//! found at the start gets a socket of its own as well: the kernel gives a datagram to the socket that is bound closest. Where
//! addresses come later, the wildcard socket serves them, and answers leave from the address the kernel picks.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use async_io::Async;
use rustix::net::{self, sockopt};

use crate::wire::coap::{Outbox, Peer};

/// One socket.
#[derive(Debug)]
pub struct Door {
    /// The socket.
    pub socket: Async<UdpSocket>,
    /// Whether it takes what is sent to a group; answers leave by another.
    pub group: bool,
    local: SocketAddr,
}

impl Door {
    /// Its address.
    pub fn name(&self) -> SocketAddr {
        self.local
    }
}

/// All sockets; their numbers do not change.
#[derive(Debug)]
pub struct Doors {
    doors: Vec<Door>,
}

/// Sockets at most, the wildcard's included: each costs a buffer for a datagram.
const MAX_DOORS: usize = 16;
/// All CoAP Nodes (RFC 7252 §12.8).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 187);
/// All CoAP Nodes, link-local and site-local.
const GROUPS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfd), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfd)];

impl Doors {
    /// Opens the sockets for `addr`.
    ///
    /// # Errors
    /// As socket(7) and bind(2). Sockets beside the first one that cannot be opened are only logged.
    pub fn open(addr: SocketAddr, multicast: bool) -> io::Result<Self> {
        let first = match bind(addr, false) {
            Err(e) if is_wildcard_v6(addr) && e.kind() != io::ErrorKind::AddrInUse => {
                bind((Ipv4Addr::UNSPECIFIED, addr.port()).into(), false)?
            }
            other => other?,
        };
        let local = first.local_addr()?;
        let mut doors = Self { doors: Vec::new() };
        if !local.ip().is_unspecified() {
            doors.add(first, false)?;
            if multicast {
                doors.join(&[local], local.port())?;
            }
            return Ok(doors);
        }
        let addresses = addresses(local);
        // The first socket was bound alone, so nobody else has the port; now that it is ours, others of ours may share it.
        sockopt::set_socket_reuseaddr(&first, true)?;
        // A wildcard socket would take what is sent to a group as well, and could not tell.
        let closest: Vec<SocketAddr> = if multicast { addresses } else { needed(addresses) };
        for address in &closest {
            doors.try_add(*address, false);
        }
        if multicast {
            doors.join(&closest, local.port())?;
            drop(first);
        } else {
            doors.add(first, false)?;
        }
        doors.close_to_others();
        Ok(doors)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.doors.len()
    }

    /// The socket of that number.
    pub fn get(&self, number: usize) -> Option<&Door> {
        self.doors.get(number)
    }

    /// The port they all have.
    pub fn port(&self) -> u16 {
        self.doors.first().map_or(0, |door| door.local.port())
    }

    /// By which socket something sent to a group by `from` is answered: the one whose address has most in common with it.
    pub fn unicast_for(&self, from: SocketAddr) -> Option<usize> {
        let likeness = |door: &Door| match (door.local.ip(), from.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let same_link = scope(door.local) == scope(from);
                Some((a.to_bits() ^ b.to_bits()).leading_zeros() + u32::from(same_link))
            }
            _ => None,
        };
        let unicast = self.doors.iter().enumerate().filter(|(_, door)| !door.group);
        unicast.filter_map(|(number, door)| Some((likeness(door)?, number))).max().map(|(_, number)| number)
    }

    fn add(&mut self, socket: UdpSocket, group: bool) -> io::Result<()> {
        let local = socket.local_addr()?;
        log::info!("coap listens on {local}");
        self.doors.push(Door { socket: Async::new(socket)?, group, local });
        Ok(())
    }

    fn try_add(&mut self, addr: SocketAddr, group: bool) {
        if self.doors.len() + 1 >= MAX_DOORS {
            log::warn!("coap: {addr} has no socket of its own: there are {MAX_DOORS} already");
        } else if let Err(e) = bind(addr, true).and_then(|socket| self.add(socket, group)) {
            log::warn!("coap: {addr} has no socket of its own: {e}");
        }
    }

    /// Joins the groups on the interfaces of these addresses.
    fn join(&mut self, addresses: &[SocketAddr], port: u16) -> io::Result<()> {
        let v4: Vec<Ipv4Addr> = addresses.iter().filter_map(|a| ipv4(a.ip())).collect();
        if !v4.is_empty() {
            let socket = bind((GROUP_V4, port).into(), true)?;
            for interface in v4 {
                if let Err(e) = sockopt::set_ip_add_membership(&socket, &GROUP_V4, &interface) {
                    log::warn!("coap: cannot join {GROUP_V4} on {interface}: {e}");
                }
            }
            self.add(socket, true)?;
        }
        let mut scopes: Vec<u32> = addresses.iter().map(|a| scope(*a)).filter(|&scope| scope != 0).collect();
        scopes.sort_unstable();
        scopes.dedup();
        for scope in scopes {
            for group in GROUPS_V6 {
                let joined = bind(SocketAddrV6::new(group, port, 0, scope).into(), true).and_then(|socket| {
                    sockopt::set_ipv6_add_membership(&socket, &group, scope)?;
                    self.add(socket, true)
                });
                if let Err(e) = joined {
                    log::warn!("coap: cannot join {group} on interface {scope}: {e}");
                }
            }
        }
        Ok(())
    }

    /// From now on nobody else can bind the port.
    fn close_to_others(&self) {
        for door in &self.doors {
            let _ = sockopt::set_socket_reuseaddr(&door.socket, false);
        }
    }
}

impl Outbox for &Doors {
    fn send(&mut self, to: &Peer, datagram: &[u8]) {
        let Some(door) = self.get(usize::from(to.door())) else { return };
        let addr = if door.local.is_ipv6() { to.addr_v6() } else { to.addr() };
        // A full socket buffer loses it as the network may: what matters is sent again.
        if let Err(e) = door.socket.get_ref().send_to(datagram, addr) {
            log::debug!("coap: {} bytes to {addr} are lost: {e}", datagram.len());
        }
    }
}

/// A socket bound to `addr`; `shared` lets it stand beside others of that port.
fn bind(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let family = if addr.is_ipv6() { net::AddressFamily::INET6 } else { net::AddressFamily::INET };
    let flags = net::SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, net::SocketType::DGRAM, flags, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !addr.ip().is_unspecified())?;
    }
    if shared {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if addr.is_ipv6() {
            // At boot the kernel may still be looking whether somebody else has the address.
            let _ = sockopt::set_ipv6_freebind(&socket, true);
        }
    }
    net::bind(&socket, &addr)?;
    Ok(UdpSocket::from(socket))
}

fn is_wildcard_v6(addr: SocketAddr) -> bool {
    addr.is_ipv6() && addr.ip().is_unspecified()
}

fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

fn scope(addr: SocketAddr) -> u32 {
    match addr {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

/// The addresses that need a socket of their own: all but the loopback ones of a family that has more than one.
fn needed(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.retain(|a| !a.ip().is_loopback());
    let of = |v4: bool| addresses.iter().filter(|a| a.is_ipv4() == v4).count() > 1;
    let (v4, v6) = (of(true), of(false));
    addresses.retain(|a| if a.is_ipv4() { v4 } else { v6 });
    addresses
}

/// This machine's addresses that a socket bound to `wildcard` serves, as the kernel lists them; none where it does not.
fn addresses(wildcard: SocketAddr) -> Vec<SocketAddr> {
    let port = wildcard.port();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut all: Vec<SocketAddr> =
        local_v4(&read("/proc/net/fib_trie")).into_iter().map(|ip| (ip, port).into()).collect();
    if wildcard.is_ipv6() {
        let v6 = local_v6(&read("/proc/net/if_inet6"));
        all.extend(v6.into_iter().map(|(ip, scope)| SocketAddr::from(SocketAddrV6::new(ip, port, 0, scope))));
    }
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
        assert_eq!(needed(addresses(&["127.0.0.1:1", "192.0.2.1:1", "[::1]:1", "[fe80::1]:1"])), []);
        let two = addresses(&["192.0.2.1:1", "198.51.100.1:1"]);
        assert_eq!(needed([addresses(&["127.0.0.1:1", "[::1]:1"]), two.clone()].concat()), two);
    }

    #[test]
    fn the_port_is_ours_alone() {
        let doors = Doors::open("[::]:0".parse().unwrap(), false).unwrap();
        let again = Doors::open((Ipv6Addr::UNSPECIFIED, doors.port()).into(), false);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            bind((Ipv4Addr::LOCALHOST, doors.port()).into(), true).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
