//! CoAP (RFC 7252 and its extensions) as a state machine: datagrams and a clock go in, datagrams and jobs come out.
//!
//! [`Server`] is the whole of a server endpoint. It opens no socket, reads no clock and knows no function: its owner feeds it
//! ([`Server::receive`], [`Server::tick`]), runs the [`Job`]s it hands out and gives their [`Answer`]s back. The other files
//! are its parts, each with its own bound: [`duplicates`], [`peers`], [`confirmables`], [`transfers`], [`observers`].
//! `docs/coap.md` says which sections of which RFC are kept, where, and by which test.

pub mod block;
pub mod config;
pub mod confirmables;
pub mod crowd;
pub mod duplicates;
pub mod echo;
pub mod format;
pub mod held;
pub mod link;
pub mod location;
pub mod message;
pub mod observers;
pub mod option;
pub mod peers;
pub mod reply;
pub mod request;
pub mod server;
pub mod slots;
pub mod transfers;

pub use config::Config;
pub use held::Held;
pub use location::Location;
pub use message::{Code, Kind, Message, Token};
pub use server::Server;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use crate::client::Client;

use super::headers::Headers;
use slots::Key;

/// Milliseconds on a clock that never goes back; where it began does not matter.
pub type Millis = u64;

/// An entity tag (RFC 7252 §5.10.6): 1 to 8 bytes, as a token is.
pub type Etag = Token;

/// The other endpoint, and the socket of ours that it talks to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    door: u16,
}

impl Peer {
    /// The peer at `addr`, reached through the socket that its owner numbers `door`.
    pub fn new(addr: SocketAddr, door: u16) -> Self {
        let (ip, scope) = match addr {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { ip: ip.octets(), scope, port: addr.port(), door }
    }

    /// Its address as an IPv6 socket takes it.
    pub fn addr_v6(&self) -> SocketAddr {
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(self.ip), self.port, 0, self.scope))
    }

    /// Its address; an IPv4 one where it is one.
    pub fn addr(&self) -> SocketAddr {
        match Ipv6Addr::from(self.ip).to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), self.port),
            None => self.addr_v6(),
        }
    }

    /// Whose it is.
    pub fn client(&self) -> Client {
        Client::of(IpAddr::V6(self.ip.into()))
    }

    /// The number of our socket.
    pub fn door(&self) -> u16 {
        self.door
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.addr(), self.door)
    }
}

/// Where datagrams leave.
pub trait Outbox {
    /// Sends one datagram. It may be lost: whatever matters is sent again.
    fn send(&mut self, to: &Peer, datagram: &[u8]);
}

/// What can be called; asked for names before anything is done for a request.
pub trait Resources {
    /// Whether there is one of that name.
    fn exists(&self, name: &str) -> bool;

    /// Hands each name to `each`, always in the same order.
    fn list(&self, each: &mut dyn FnMut(&str));
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: Peer,
    /// Whether it came to a multicast group.
    pub group: bool,
    /// What it holds; longer than [`Config::max_datagram`] means that it was cut.
    pub bytes: &'a [u8],
}

/// Something to be run for a request.
#[derive(Debug)]
pub struct Job {
    id: JobId,
    client: Option<Client>,
    /// What is to be run.
    pub task: Arc<Task>,
}

impl Job {
    /// Who asked for it; nobody where it runs for those that observe.
    pub fn client(&self) -> Option<Client> {
        self.client
    }
}

/// Whom a job's answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobId {
    /// A client that waits.
    Exchange(Key),
    /// Nobody: the client was told 2.01 already.
    Detached,
    /// The observers of a watch.
    Watch(Key),
}

/// A call, put together from the messages of a request.
#[derive(Debug)]
pub struct Task {
    /// The method.
    pub method: Code,
    /// The first segment of the path.
    pub name: String,
    /// The further segments: empty, or it starts with `/`.
    pub path: String,
    /// The query without `?`.
    pub query: String,
    /// The options as header fields.
    pub headers: Headers,
    /// The whole body.
    pub body: Held,
}

/// What came of a job.
#[derive(Debug)]
pub struct Answer {
    /// The response's code.
    pub code: Code,
    /// The body's Content-Format.
    pub format: Option<u16>,
    /// Whether the format was named by whoever made the body; a default gives way to the Accept option.
    pub format_is_default: bool,
    /// For how many seconds the body may be used again; 60 where it is not said (RFC 7252 §5.10.5).
    pub max_age: Option<u32>,
    /// Names this version of the body.
    pub etag: Option<Etag>,
    /// Where something new is.
    pub location: Option<Location>,
    /// The body; sent in blocks where it is long.
    pub body: Held,
}

impl Answer {
    /// A failure: `code` with one line of text (RFC 7252 §5.5.2).
    pub fn failure(code: Code, body: Held) -> Self {
        Self { code, format: None, format_is_default: false, max_age: None, etag: None, location: None, body }
    }
}
