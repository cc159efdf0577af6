//! Whether a connection to ourselves comes from a handler: they share our network, and may call functions but not manage them.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use crate::function::Name;
use crate::socket_owner::{self, Owner};

/// The line of `/proc/PID/limits` of [`super::jail::MARK`]; its hard limit is 0 in handlers alone.
const MARK: &str = "Max msgqueue size";

/// Whether `peer` is a handler's socket, or one of this machine that was closed already: then nobody can tell, and nobody waits
/// for an answer. `users` are those that handlers run as, where they have users of their own.
pub(super) fn is_handler(peer: SocketAddr, users: Option<&HashMap<Name, u32>>) -> bool {
    let owners = socket_owner::of(peer).unwrap_or_default();
    if owners.is_empty() {
        return peer.ip().to_canonical().is_loopback();
    }
    let ours = rustix::process::geteuid().as_raw();
    owners.iter().any(|owner| match users {
        Some(users) => owner.inode == 0 || users.values().any(|user| *user == owner.uid),
        None => owner.inode == 0 || owner.uid == ours && is_held_by_handler(*owner),
    })
}

/// Looks for who has the socket open, among the processes of our own user: handlers are those with the limit that their jail
/// set, which they hand on to all they start, and nobody can raise.
fn is_held_by_handler(socket: Owner) -> bool {
    let link = format!("socket:[{}]", socket.inode);
    let mut held = false;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_ours = process.metadata().is_ok_and(|meta| meta.uid() == socket.uid);
        let files = if is_ours { fs::read_dir(process.path().join("fd")).ok() } else { None };
        if files
            .into_iter()
            .flatten()
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|l| l.as_os_str() == &*link))
        {
            held = true;
            let limits = fs::read_to_string(process.path().join("limits")).unwrap_or_default();
            if is_marked(&limits) {
                return true;
            }
        }
    }
    !held
}

fn is_marked(limits: &str) -> bool {
    let values = limits.lines().find_map(|line| line.strip_prefix(MARK)).unwrap_or_default();
    values.split_ascii_whitespace().nth(1) == Some("0")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn handlers_are_known_by_a_limit_that_only_they_have() {
        let usual = fs::read_to_string("/proc/self/limits").unwrap();
        assert!(usual.contains(MARK) && !is_marked(&usual));
        assert!(is_marked("Max msgqueue size         0                    0                    bytes     \n"));
        assert!(!is_marked("Max msgqueue size         0                    819200               bytes     \n"));
    }

    #[test]
    fn a_socket_of_this_process_is_no_handlers_and_one_that_is_gone_is_not_trusted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = stream.local_addr().unwrap();
        let ours = rustix::process::geteuid().as_raw();
        let users = |user: u32| HashMap::from([(Name::parse("f").unwrap(), user)]);
        assert!(!is_handler(peer, None));
        assert!(!is_handler(peer, Some(&users(ours + 1))));
        assert!(is_handler(peer, Some(&users(ours))));
        // Sent, and not waited for.
        drop(stream);
        assert!(is_handler(peer, None) && is_handler(peer, Some(&users(ours + 1))));
        assert!(!is_handler("192.0.2.77:1".parse().unwrap(), None));
    }
}
