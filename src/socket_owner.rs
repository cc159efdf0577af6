//! Whose the other end of a connection is, where that is on this machine: as proc_net(5) tells of TCP sockets.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State of a connection that has ended and is remembered only so that late packets find it.
const TIME_WAIT: &str = "06";

/// A socket of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user that made it; of one that was closed already, root.
    pub uid: u32,
    /// Its number, which the links in `/proc/PID/fd` tell as well; 0 where it was closed already.
    pub inode: u64,
}

/// The sockets of this machine whose own address is `addr`; empty where it is another machine's. Blocking, but no disk is
/// asked.
///
/// # Errors
/// As read(2) of `/proc`.
pub fn of(addr: SocketAddr) -> io::Result<Vec<Owner>> {
    let mut owners = Vec::new();
    // The process's own, as some services see nothing else of /proc.
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match File::open(table) {
            Ok(file) => owners.extend(find(BufReader::new(file), addr)?),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(owners)
}

fn find(table: impl BufRead, addr: SocketAddr) -> io::Result<Vec<Owner>> {
    let wanted = (addr.ip().to_canonical(), addr.port());
    let mut owners = Vec::new();
    for line in table.lines() {
        owners.extend(parse(&line?).filter(|(own, _)| *own == wanted).map(|(_, owner)| owner));
    }
    Ok(owners)
}

fn parse(line: &str) -> Option<((IpAddr, u16), Owner)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? == TIME_WAIT {
        return None;
    }
    let own = (address(ip)?, u16::from_str_radix(port, 16).ok()?);
    Some((own, Owner { uid: fields.nth(3)?.parse().ok()?, inode: fields.nth(1)?.parse().ok()? }))
}

/// Words of four bytes in the machine's order, each in hexadecimal.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(8 * n)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_line_tells_address_user_and_number() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let line =
            "   0: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000 600001        0 4711 1 0 20 4";
        let ended = "   1: 0100007F:1F90 0200007F:C351 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0";
        let mapped =
            "   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:1 01 0:0 0:0 0 7 0 8 1";
        let owners = |text: &str| find(text.as_bytes(), "127.0.0.1:8080".parse().unwrap()).unwrap();
        let (handler, other) = (Owner { uid: 600_001, inode: 4711 }, Owner { uid: 7, inode: 8 });
        if cfg!(target_endian = "little") {
            assert_eq!(owners(&[head, line, ended, mapped].join("\n")), [handler, other]);
        }
        assert_eq!(owners(&[head, "", "0:", "0: 0100007F:1F90", &line[..80]].join("\n")), []);
    }

    #[test]
    fn our_own_sockets_are_found_and_those_of_other_machines_are_not() {
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let owners = of(stream.local_addr().unwrap()).unwrap();
        let inode = rustix::fs::fstat(stream.as_fd()).unwrap().st_ino;
        assert_eq!(owners, [Owner { uid: rustix::process::geteuid().as_raw(), inode }]);
        assert_eq!(of("192.0.2.77:1".parse().unwrap()).unwrap(), []);
    }
}
