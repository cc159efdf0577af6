//! The CoAP front door on networks that a test makes: several addresses, groups, and one that loses datagrams.
//!
//! Network namespaces are made with unshare(1) and ip(8), in which this test binary runs once more. They need no root where
//! the system lets users make them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::coap::{Front, peers_python, peers_script};

/// Set in the process that is inside the namespace.
const INSIDE: &str = "TINYFAAS_TEST_NAMESPACE";

/// Whether we are inside a namespace of our own; else runs the test `name` of this file in one, and says no.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let out = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("coap_net::{name}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare(1)");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
    false
}

/// What ip(8) prints.
fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split(' ')).output().expect("ip(8)");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn socket(addr: impl Into<SocketAddr>) -> UdpSocket {
    let socket = UdpSocket::bind(addr.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

const PING: &[u8] = b"\x40\0\x12\x34";
/// NON GET /.well-known/core
const DISCOVER: &[u8] = b"\x50\x01\x12\x34\xbb.well-known\x04core";

/// Pings until something comes back. The kernel finishes new addresses in the background, and may lose the first datagrams.
fn ping(client: &UdpSocket, server: SocketAddr) -> (usize, SocketAddr) {
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for _ in 0..100 {
        client.send_to(PING, server).unwrap();
        if let Ok(answer) = client.recv_from(&mut [0; 64]) {
            return answer;
        }
    }
    panic!("{server} does not answer");
}

/// The next datagram that answers no ping.
fn after_pings(client: &UdpSocket) -> (String, SocketAddr) {
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buf = [0; 2048];
    loop {
        let (n, from) = client.recv_from(&mut buf).unwrap();
        if n > PING.len() {
            return (String::from_utf8_lossy(&buf[..n]).into_owned(), from);
        }
    }
}

/// Asks a group until somebody answers.
fn discover(client: &UdpSocket, group: SocketAddr) -> (String, SocketAddr) {
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buf = [0; 2048];
    for id in 0..100 {
        let mut request = DISCOVER.to_vec();
        request[3] = id;
        client.send_to(&request, group).unwrap();
        while let Ok((n, from)) = client.recv_from(&mut buf) {
            if n > PING.len() {
                return (String::from_utf8_lossy(&buf[..n]).into_owned(), from);
            }
        }
    }
    panic!("{group} does not answer");
}

#[test]
fn answers_leave_from_the_address_they_were_asked_at() {
    if !inside("answers_leave_from_the_address_they_were_asked_at") {
        return;
    }
    ip("link set lo up");
    for n in [1, 2, 9] {
        ip(&format!("address add 192.0.2.{n}/32 dev lo"));
        ip(&format!("address add 2001:db8::{n}/128 dev lo nodad"));
    }
    let front = Front::start(|_| {});
    for n in [2, 1] {
        let server: [SocketAddr; 2] = [
            (Ipv4Addr::new(192, 0, 2, n), front.addr.port()).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()), front.addr.port()).into(),
        ];
        for (server, client) in server.into_iter().zip(["192.0.2.9:0", "[2001:db8::9]:0"]) {
            let client = socket(client.parse::<SocketAddr>().unwrap());
            assert_eq!(ping(&client, server), (4, server));
        }
    }
}

#[test]
fn addresses_that_come_later_are_answered_from_as_well() {
    if !inside("addresses_that_come_later_are_answered_from_as_well") {
        return;
    }
    ip("link set lo up");
    let front = Front::start(|_| {});
    ip("address add 192.0.2.250/32 dev lo");
    ip("address add 2001:db8::fa/128 dev lo nodad");
    // More than there may be sockets: those of addresses that went again give way.
    for n in 1..=20 {
        ip(&format!("address add 192.0.2.{n}/32 dev lo"));
        ip(&format!("address add 2001:db8::{n:x}/128 dev lo nodad"));
        let servers: [SocketAddr; 2] = [
            (Ipv4Addr::new(192, 0, 2, n), front.addr.port()).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()), front.addr.port()).into(),
        ];
        for (server, client) in servers.into_iter().zip(["192.0.2.250:0", "[2001:db8::fa]:0"]) {
            let client = socket(client.parse::<SocketAddr>().unwrap());
            // Until the news have arrived, the kernel chooses the address: the client's own.
            let deadline = Instant::now() + Duration::from_secs(60);
            while ping(&client, server) != (4, server) {
                assert!(Instant::now() < deadline, "{server} never answers itself");
            }
        }
        ip(&format!("address del 192.0.2.{n}/32 dev lo"));
        ip(&format!("address del 2001:db8::{n:x}/128 dev lo"));
    }
}

#[test]
fn a_group_is_answered_once_by_unicast() {
    if inside("a_group_is_answered_once_by_unicast") {
        ip("link set lo up");
        two_interfaces();
        a_group_is_answered(&multicast_front());
    }
}

#[test]
fn a_group_on_an_interface_that_comes_later_is_answered_as_well() {
    if inside("a_group_on_an_interface_that_comes_later_is_answered_as_well") {
        ip("link set lo up");
        let front = multicast_front();
        two_interfaces();
        a_group_is_answered(&front);
    }
}

fn multicast_front() -> Front {
    Front::start(|config| {
        config.multicast = true;
        config.endpoint.leisure = 50;
    })
}

/// A link between `v0` and `v1`, both of this machine.
fn two_interfaces() {
    ip("link add v0 type veth peer name v1");
    for (n, name) in [(1, "v0"), (2, "v1")] {
        ip(&format!("address add 192.0.2.{n}/24 dev {name}"));
        ip(&format!("address add fe80::{n}/64 dev {name} nodad"));
        ip(&format!("link set {name} up"));
    }
    ip("route add 224.0.0.0/4 dev v0");
}

/// Sends to the group, until it is joined, and looks at the answers.
fn a_group_is_answered(front: &Front) {
    let port = front.addr.port();

    let client = socket((Ipv4Addr::new(192, 0, 2, 2), 0));
    ping(&client, (Ipv4Addr::new(192, 0, 2, 1), port).into());
    let (links, from) = discover(&client, (Ipv4Addr::new(224, 0, 1, 187), port).into());
    assert!(links.contains("</f>;"), "{links}");
    assert!(!from.ip().is_multicast() && from.port() == port, "{from}");

    let scope = ip("-oneline link show v1").split(':').next().unwrap().parse().unwrap();
    let client = socket(SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2), 0, 0, scope));
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfd);
    ping(&client, SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), port, 0, scope).into());
    let (links, from) = discover(&client, SocketAddrV6::new(group, port, 0, scope).into());
    assert!(links.contains("</f>;"), "{links}");
    assert!(!from.ip().is_multicast() && from.port() == port, "{from}");

    // An error is not told to a group.
    let client = socket(SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2), 0, 0, scope));
    client.send_to(b"\x50\x01\x12\x35\xb6nosuch", SocketAddrV6::new(group, port, 0, scope)).unwrap();
    let again = client.send_to(b"\x50\x01\x12\x36\xbb.well-known\x04core", SocketAddrV6::new(group, port, 0, scope));
    again.unwrap();
    let (links, _) = after_pings(&client);
    assert!(links.contains("</f>;"), "the first that comes is the second's answer: {links}");
}

/// Passes datagrams on between clients and a server, but for those that its dice lose, repeat or hold back.
struct Relay {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u32>>,
}

impl Relay {
    fn start(server: SocketAddr, loss: u32, seed: u64) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = front.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || relay(&front, server, loss, seed, &until));
        Self { addr, stop, thread: Some(thread) }
    }

    /// How many datagrams were lost.
    fn end(mut self) -> u32 {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// One client at a time: the last that was heard.
fn relay(front: &UdpSocket, server: SocketAddr, loss: u32, seed: u64, stop: &AtomicBool) -> u32 {
    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
    back.connect(server).unwrap();
    front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    back.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut rng, mut client, mut lost) = (fastrand::Rng::with_seed(seed), None, 0);
    let mut held: Vec<(Instant, bool, Vec<u8>)> = Vec::new();
    let mut buf = [0; 4096];
    while !stop.load(Ordering::Acquire) {
        let mut arrived = Vec::new();
        if let Ok((n, from)) = front.recv_from(&mut buf) {
            client = Some(from);
            arrived.push((true, buf[..n].to_vec()));
        }
        if let Ok(n) = back.recv(&mut buf) {
            arrived.push((false, buf[..n].to_vec()));
        }
        for (to_server, datagram) in arrived {
            for _ in 0..if rng.u32(..100) < 10 { 2 } else { 1 } {
                if rng.u32(..100) < loss {
                    lost += 1;
                } else {
                    // Held back so differently that some overtake others.
                    let due = Instant::now() + Duration::from_millis(rng.u64(..30));
                    held.push((due, to_server, datagram.clone()));
                }
            }
        }
        let now = Instant::now();
        for (_, to_server, datagram) in held.extract_if(.., |(due, ..)| *due <= now) {
            let _ = match client {
                _ if to_server => back.send(&datagram),
                Some(client) => front.send_to(&datagram, client),
                None => Ok(0),
            };
        }
    }
    lost
}

#[test]
fn aiocoap_gets_every_answer_over_a_network_that_loses_a_fifth_and_each_call_runs_once() {
    let front = Front::start(|config| {
        config.endpoint.ack_timeout = 200;
        config.endpoint.max_retransmit = 12;
        config.endpoint.ack_delay = 100;
    });
    let relay = Relay::start(front.addr, 20, 7252);
    let script = peers_script("aiocoap_lossy.py");
    let out = Command::new(peers_python()).arg(script).arg(relay.addr.to_string()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}\n{stderr}");
    let lost = relay.end();
    assert!(lost > 10, "only {lost} datagrams were lost");
    let calls = stdout.lines().last().and_then(|line| line.strip_prefix("done ")).expect("done").parse::<usize>();
    assert_eq!(front.fake.calls.load(Ordering::SeqCst), calls.unwrap(), "each call ran once");
}
