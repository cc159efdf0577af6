//! What strangers could do to a server, as load: for the tests that others are served meanwhile.
//!
//! All of it stays on 127.0.0.0/8, whose addresses stand for as many clients.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit, setrlimit};

/// The head of a request whose end never comes.
pub const SLOW_HEAD: &[u8] = b"GET /f HTTP/1.1\r\nHost: b\r\nX-Slow: ";
/// A request whose body never comes.
pub const NO_BODY: &[u8] = b"POST /f HTTP/1.1\r\nHost: b\r\nContent-Length: 1000000000\r\n\r\nx";
/// The start of HTTP/2, and no more.
pub const HALF_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The start of HTTP/2, and no call.
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat()
}

/// A head that is nearly as long as one may be, without its end.
pub fn long_head() -> Vec<u8> {
    [SLOW_HEAD, &[b'x'; 8100]].concat()
}

/// A head that is too long.
pub fn too_long_head() -> Vec<u8> {
    [SLOW_HEAD, &[b'x'; 9000], b"\r\n\r\n"].concat()
}

/// A call whose caller does not wait, with a large body.
pub fn async_call() -> Vec<u8> {
    let body = [b'x'; 60_000];
    let head = format!("POST /f HTTP/1.1\r\nHost: b\r\nX-tinyFaaS-Async: 1\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}

/// Each connection is a file here as well.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// One of ten thousand addresses of this machine, none of them 127.0.0.1.
pub fn address(n: usize) -> Ipv4Addr {
    let n = n % 10_000;
    Ipv4Addr::new(127, 1, (n / 100) as u8, 1 + (n % 100) as u8)
}

/// A connection from that address.
pub fn connect_from(address: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(address, 0))?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Connections of `clients` addresses, `open` of them at once, each of which says `bytes` and waits. Those that are closed
/// are made anew, and the oldest give way to new ones. Returns how many were made.
pub fn hold(to: SocketAddr, bytes: &[u8], clients: usize, open: usize, mut more: impl FnMut(usize) -> bool) -> usize {
    let mut held: Vec<TcpStream> = Vec::new();
    let mut made = 0;
    while more(made) {
        let Ok(mut stream) = connect_from(address(made % clients), to) else { continue };
        let _ = stream.set_nonblocking(true);
        let _ = stream.write(bytes);
        match held.get_mut(made % open) {
            Some(old) => *old = stream,
            None => held.push(stream),
        }
        made += 1;
    }
    made
}

/// The same request again and again over connections of one address that are kept, without waiting for answers. Returns how
/// often.
pub fn ask_again(to: SocketAddr, request: &[u8], connections: usize, stop: &AtomicBool) -> usize {
    let mut streams: Vec<Option<TcpStream>> = (0..connections).map(|_| None).collect();
    let (mut asked, mut buf) = (0, vec![0; 64 * 1024]);
    while !stop.load(Ordering::Relaxed) {
        for place in &mut streams {
            let mut stream = match place.take().map_or_else(|| connect_from(address(0), to), Ok) {
                Ok(stream) => stream,
                Err(_) => continue,
            };
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(5)));
            if stream.write_all(request).is_ok() && stream.read(&mut buf).is_ok_and(|n| n > 0) {
                asked += 1;
                *place = Some(stream);
            }
        }
    }
    asked
}

/// What a CoAP datagram of a flood asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// CON POST /f
    Confirmable,
    /// NON POST /f
    NonConfirmable,
    /// CON POST /f with the first block of a body of which no more comes
    FirstBlock,
    /// CON GET /f with Observe
    Observe,
}

/// Datagrams of `clients` addresses as fast as they go, each a new request. Returns how many.
pub fn coap(to: SocketAddr, ask: Ask, clients: usize, mut more: impl FnMut(usize) -> bool) -> usize {
    let sockets: Vec<UdpSocket> = (0..clients)
        .map(|n| {
            let socket = UdpSocket::bind((address(n), 0)).unwrap();
            socket.connect(to).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let mut sent = 0;
    while more(sent) {
        if sockets[sent % clients].send(&question(ask, (sent / clients) as u16)).is_ok() {
            sent += 1;
        }
    }
    sent
}

/// A request with this message id.
fn question(ask: Ask, id: u16) -> Vec<u8> {
    let (kind, code) = match ask {
        Ask::Confirmable | Ask::FirstBlock => (0x42, 2),
        Ask::NonConfirmable => (0x52, 2),
        Ask::Observe => (0x42, 1),
    };
    let [a, b] = id.to_be_bytes();
    let mut datagram = vec![kind, code, a, b, a, b];
    match ask {
        // Observe (6): 0, then Uri-Path (11).
        Ask::Observe => datagram.extend(b"\x60\x51f"),
        // Uri-Path (11), then Block1 (27): number 0, more, 16 bytes.
        Ask::FirstBlock => datagram.extend(b"\xb1f\xd1\x03\x08\xff0123456789abcdef"),
        _ => datagram.extend(b"\xb1f\xff0123456789abcdef"),
    }
    datagram
}

/// Datagrams whose sources are made up, a new one each, as fast as they go: of 16 million addresses, so that hardly one comes
/// twice. It takes a raw(7) socket, and so root. Returns how many.
#[allow(dead_code, reason = "for benches/floods: not everybody who tests is root")]
pub fn forged(to: SocketAddr, ask: Ask, mut more: impl FnMut(usize) -> bool) -> usize {
    let SocketAddr::V4(to) = to else { panic!("{to} is no IPv4") };
    let raw = rustix::net::Protocol::from_raw(255.try_into().unwrap());
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(raw)).unwrap();
    let mut rng = fastrand::Rng::new();
    let mut sent = 0;
    while more(sent) {
        let question = question(ask, rng.u16(..));
        let source = Ipv4Addr::from_bits(127 << 24 | rng.u32(1 << 16..1 << 24));
        let port = rng.u16(1024..);
        let length = (8 + question.len()) as u16;
        // RFC 791 and RFC 768; the kernel fills in IP's checksum, and UDP's may be absent.
        let mut packet = vec![0x45, 0];
        packet.extend((20 + length).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(source.octets());
        packet.extend(to.ip().octets());
        [port, to.port(), length, 0].iter().for_each(|field| packet.extend(field.to_be_bytes()));
        packet.extend(&question);
        if rustix::net::sendto(&socket, &packet, rustix::net::SendFlags::empty(), &to).is_ok() {
            sent += 1;
        }
    }
    sent
}

/// One frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Calls that are taken back at once (CVE-2023-44487), over connections of `clients` addresses that are made anew when they
/// are closed. Returns how many.
pub fn rapid_reset(to: SocketAddr, clients: usize, stop: &AtomicBool) -> usize {
    // POST, http, and a path, literal without indexing (RFC 7541 §6.2.2).
    let path = b"/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request";
    let block = [&b"\x83\x86\x04"[..], &[path.len() as u8], path, b"\x0f\x10\x10application/grpc"].concat();
    let (mut reset, mut connections) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        connections += 1;
        let Ok(mut stream) = connect_from(address(connections % clients), to) else { continue };
        if stream.write_all(&preface()).is_err() {
            continue;
        }
        for number in 0..100_000_u32 {
            let id = 2 * number + 1;
            let pair = [frame(1, 4, id, &block), frame(3, 0, id, &8_u32.to_be_bytes())].concat();
            if stop.load(Ordering::Relaxed) || stream.write_all(&pair).is_err() {
                break;
            }
            reset += 1;
        }
    }
    reset
}
