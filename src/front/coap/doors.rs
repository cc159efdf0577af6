//! The UDP sockets of the front door.
//!
//! An answer has to leave from the address its request came to, or the client drops it. A wildcard socket does not tell that
//! address (and the safe interfaces here offer no IP_PKTINFO), so on a wildcard address each address of this machine that could
//! be mixed up gets a socket of its own as well: the kernel gives a datagram to the socket that is bound closest. Addresses
//! that come later get theirs when they come.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{self, sockopt};

use super::addresses;
use crate::reactor::Async;
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

/// All sockets.
#[derive(Debug)]
pub struct Doors {
    /// A socket keeps its number while it is open.
    doors: Mutex<Vec<Arc<Door>>>,
    port: u16,
    /// The wildcard address that they are bound for, where it is one.
    wildcard: Option<SocketAddr>,
    multicast: bool,
}

/// Sockets for addresses at most, the wildcard's included, and for groups as many again: each costs a buffer for a datagram.
const MAX_DOORS: usize = 16;
/// Bytes of datagrams that may wait in the kernel, which counts some 800 for a small one.
const RECEIVED: usize = 512 * 1024;
/// All CoAP Nodes (RFC 7252 §12.8).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 187);
/// All CoAP Nodes, link-local and site-local.
const GROUPS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfd), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xfd)];

impl Doors {
    /// Opens the sockets for `addr`, or for that of `inherited`, which is the first one then.
    ///
    /// # Errors
    /// As socket(7) and bind(2). Sockets beside the first one that cannot be opened are only logged.
    pub fn open(addr: SocketAddr, multicast: bool, inherited: Option<UdpSocket>) -> io::Result<Self> {
        let first = match inherited {
            // Whoever opened it keeps it, and it would go on to take what groups are sent.
            Some(_) if multicast => {
                return Err(io::Error::other("--coap-multicast needs sockets that are all our own"));
            }
            Some(socket) => socket,
            None => bind_first(addr)?,
        };
        let local = first.local_addr()?;
        let wildcard = local.ip().is_unspecified().then_some(local);
        let doors = Self { doors: Mutex::default(), port: local.port(), wildcard, multicast };
        if wildcard.is_none() {
            doors.add(first, false, &[])?;
            if multicast {
                doors.join(&[local]);
            }
            return Ok(doors);
        }
        // The first socket was bound alone, so nobody else has the port; now that it is ours, others of ours may share it.
        sockopt::set_socket_reuseaddr(&first, true)?;
        if multicast {
            doors.follow();
            // A wildcard socket would take what is sent to a group as well, and could not tell.
            drop(first);
        } else {
            doors.add(first, false, &[])?;
            doors.follow();
        }
        Ok(doors)
    }

    /// Opens sockets for the addresses of the machine that lack one, where there are to be such. Returns the numbers of those
    /// that are new.
    pub fn follow(&self) -> Vec<usize> {
        let Some(wildcard) = self.wildcard else { return Vec::new() };
        let all = addresses::of_machine(wildcard);
        let wanted = if self.multicast { all } else { addresses::needed(all) };
        let before = self.all().clone();
        share(&before, true);
        let missing = wanted.iter().filter(|address| !before.iter().any(|door| door.local == **address));
        let mut opened: Vec<usize> = missing.filter_map(|address| self.try_add(*address, &wanted)).collect();
        if self.multicast {
            opened.extend(self.join(&wanted));
        }
        share(&self.all(), false);
        opened
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// The socket of that number.
    pub fn get(&self, number: usize) -> Option<Arc<Door>> {
        self.all().get(number).cloned()
    }

    /// The port they all have.
    pub fn port(&self) -> u16 {
        self.port
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
        let doors = self.all();
        let unicast = doors.iter().enumerate().filter(|(_, door)| !door.group);
        unicast.filter_map(|(number, door)| Some((likeness(door)?, number))).max().map(|(_, number)| number)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Door>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a socket among the others; returns its number. When there are as many as may be, one whose address is not
    /// `wanted` any more gives way.
    fn add(&self, socket: UdpSocket, group: bool, wanted: &[SocketAddr]) -> io::Result<usize> {
        let local = socket.local_addr()?;
        let door = Arc::new(Door { socket: Async::new(socket)?, group, local });
        let is_gone = |door: &Door| match group {
            true => scope(door.local) != 0 && !wanted.iter().any(|address| scope(*address) == scope(door.local)),
            false => Some(door.local) != self.wildcard && !wanted.contains(&door.local),
        };
        let mut doors = self.all();
        let number = match doors.iter().filter(|door| door.group == group).count() < MAX_DOORS {
            true => {
                doors.push(door);
                doors.len() - 1
            }
            false => {
                let gone = doors.iter_mut().enumerate().find(|(_, door)| door.group == group && is_gone(door));
                let (number, place) = gone.ok_or_else(|| io::Error::other(format!("there are {MAX_DOORS} already")))?;
                *place = door;
                number
            }
        };
        log::info!("coap listens on {local}");
        Ok(number)
    }

    /// Opens a socket for `addr`.
    fn try_add(&self, addr: SocketAddr, wanted: &[SocketAddr]) -> Option<usize> {
        let added = bind(addr, true).and_then(|socket| self.add(socket, false, wanted));
        added.inspect_err(|e| log::warn!("coap: {addr} has no socket of its own: {e}")).ok()
    }

    /// Joins the groups on the interfaces of these addresses, where that is not done yet. Returns the numbers of new sockets.
    fn join(&self, addresses: &[SocketAddr]) -> Vec<usize> {
        let mut opened = Vec::new();
        let v4: Vec<Ipv4Addr> = addresses.iter().filter_map(|a| ipv4(a.ip())).collect();
        if !v4.is_empty() {
            opened.extend(self.group((GROUP_V4, self.port).into(), addresses, |socket| {
                for interface in &v4 {
                    match sockopt::set_ip_add_membership(socket, &GROUP_V4, interface) {
                        // It was joined before.
                        Ok(()) | Err(rustix::io::Errno::ADDRINUSE) => {}
                        Err(e) => log::warn!("coap: cannot join {GROUP_V4} on {interface}: {e}"),
                    }
                }
                Ok(())
            }));
        }
        let mut scopes: Vec<u32> = addresses.iter().map(|a| scope(*a)).filter(|&scope| scope != 0).collect();
        scopes.sort_unstable();
        scopes.dedup();
        for scope in scopes {
            for group in GROUPS_V6 {
                let addr = SocketAddrV6::new(group, self.port, 0, scope).into();
                opened.extend(self.group(addr, addresses, |socket| {
                    match sockopt::set_ipv6_add_membership(socket, &group, scope) {
                        Err(e) if e != rustix::io::Errno::ADDRINUSE => Err(e.into()),
                        _ => Ok(()),
                    }
                }));
            }
        }
        opened
    }

    /// Has the socket of a group `join` it; returns its number where it is new.
    fn group(
        &self,
        addr: SocketAddr,
        addresses: &[SocketAddr],
        join: impl Fn(&UdpSocket) -> io::Result<()>,
    ) -> Option<usize> {
        let known = self.all().iter().find(|door| door.local == addr).cloned();
        let joined = match &known {
            Some(door) => join(door.socket.get_ref()).map(|()| None),
            None => bind(addr, true).and_then(|socket| {
                join(&socket)?;
                self.add(socket, true, addresses).map(Some)
            }),
        };
        joined.inspect_err(|e| log::warn!("coap: cannot join {addr}: {e}")).ok().flatten()
    }
}

/// Lets other sockets of ours be bound beside these, or nobody any more.
fn share(doors: &[Arc<Door>], shared: bool) {
    for door in doors {
        let _ = sockopt::set_socket_reuseaddr(&door.socket, shared);
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

/// A socket that is alone on its port; the wildcard of IPv4 stands in where there is no IPv6.
fn bind_first(addr: SocketAddr) -> io::Result<UdpSocket> {
    match bind(addr, false) {
        Err(e) if is_wildcard_v6(addr) && e.kind() != io::ErrorKind::AddrInUse => {
            bind((Ipv4Addr::UNSPECIFIED, addr.port()).into(), false)
        }
        other => other,
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
    // What comes at once while others have their turn. Without a right to more it is twice what a socket has by itself.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVED);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_ours_alone() {
        let doors = Doors::open("[::]:0".parse().unwrap(), false, None).unwrap();
        let again = Doors::open((Ipv6Addr::UNSPECIFIED, doors.port()).into(), false, None);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            bind((Ipv4Addr::LOCALHOST, doors.port()).into(), true).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
