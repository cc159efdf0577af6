//! The CoAP front door over real sockets: by hand, and with clients of other makes (libcoap, aiocoap).

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_executor::StaticExecutor;
use tinyfaas::budget::Budget;
use tinyfaas::front::coap::{Coap, Config};
use tinyfaas::shutdown::Shutdown;
use tinyfaas::wire::coap::message::{Code, Kind, Message, Token, Writer};

use crate::fake_handler::{Fake, long};

/// A front door in a thread, with functions `echo` and `f`.
pub struct Front {
    pub fake: Fake,
    pub addr: SocketAddr,
    stop: Shutdown,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Front {
    pub fn start(config: impl FnOnce(&mut Config)) -> Self {
        let fake = Fake::new(&["echo", "f"], 16);
        let mut settings = Config::new("[::]:0".parse().unwrap());
        config(&mut settings);
        let coap = Coap::bind(settings, None).unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], coap.port()));
        let stop = Shutdown::new();
        let (dispatch, until) = (fake.dispatch.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
            let serve = coap.serve(executor, dispatch, Budget::new(1 << 20), until);
            tinyfaas::reactor::block_on(executor.run(serve));
        });
        Self { fake, addr, stop, thread: Some(thread) }
    }

    pub fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.addr).unwrap();
        // A bound, not a wait: a datagram on loopback is there at once.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn calls(&self) -> usize {
        self.fake.calls.load(Ordering::SeqCst)
    }

    fn url(&self, path: &str) -> String {
        format!("coap://{}/{path}", self.addr)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.begin();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn request(kind: Kind, code: Code, id: u16, path: &str, payload: &[u8]) -> Vec<u8> {
    let mut buf = Vec::new();
    let mut w = Writer::new(&mut buf, kind, code, id, &Token::new(b"t").unwrap());
    path.split('/').for_each(|segment| {
        w.option(11, segment.as_bytes());
    });
    w.payload(payload);
    buf
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 4096];
    let n = socket.recv(&mut buf).unwrap();
    buf.truncate(n);
    buf
}

#[test]
fn a_repeated_request_gets_the_same_bytes_and_runs_once() {
    let front = Front::start(|_| {});
    let socket = front.client();
    let bytes = request(Kind::Con, Code::POST, 7, "echo", b"\xff\0hello");
    socket.send(&bytes).unwrap();
    let first = receive(&socket);
    assert_eq!(Message::parse(&first).unwrap().payload, b"\xff\0hello");
    for _ in 0..3 {
        socket.send(&bytes).unwrap();
        assert_eq!(receive(&socket), first);
    }
    assert_eq!(front.calls(), 1);
}

#[test]
fn a_slow_function_is_acknowledged_first_and_its_answer_comes_until_it_is_acknowledged() {
    let front = Front::start(|config| {
        config.endpoint.ack_delay = 20;
        config.endpoint.ack_timeout = 50;
    });
    let socket = front.client();
    socket.send(&request(Kind::Con, Code::GET, 7, "echo/slow/200", b"")).unwrap();
    assert_eq!(receive(&socket), b"\x60\0\0\x07");
    let answer = receive(&socket);
    assert_eq!(receive(&socket), answer, "it was not acknowledged");
    let m = Message::parse(&answer).unwrap();
    assert_eq!((m.kind, m.payload), (Kind::Con, &b"slow"[..]));
    let [id0, id1] = m.id.to_be_bytes();
    socket.send(&[0x60, 0, id0, id1]).unwrap();
    assert_eq!(front.calls(), 1);
}

#[test]
fn a_ping_over_ipv6_is_answered_with_a_reset() {
    let front = Front::start(|_| {});
    let Ok(socket) = UdpSocket::bind("[::1]:0") else {
        eprintln!("this machine has no IPv6: the test over IPv4 stands for it");
        let socket = front.client();
        socket.send(b"\x40\0\x12\x34").unwrap();
        return assert_eq!(receive(&socket), b"\x70\0\x12\x34");
    };
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send_to(b"\x40\0\x12\x34", ("::1", front.addr.port())).unwrap();
    assert_eq!(receive(&socket), b"\x70\0\x12\x34");
}

#[test]
fn errors_have_their_codes() {
    let front = Front::start(|_| {});
    let socket = front.client();
    for (id, path, code, text) in [
        (1, "echo/fail", Code::INTERNAL, &b"ValueError: it failed"[..]),
        (2, "echo/what", Code::NOT_FOUND, b"what?"),
        (3, "nosuch", Code::NOT_FOUND, b"no function of that name: GET /.well-known/core lists those deployed"),
    ] {
        for (kind, answer_kind, id) in [(Kind::Non, Kind::Non, id), (Kind::Con, Kind::Ack, id + 10)] {
            socket.send(&request(kind, Code::GET, id, path, b"")).unwrap();
            let answer = receive(&socket);
            let m = Message::parse(&answer).unwrap();
            assert_eq!((m.kind, m.code, m.payload), (answer_kind, code, text));
        }
    }
}

#[test]
fn calls_at_work_are_answered_when_the_server_stops() {
    let front = Front::start(|_| {});
    let socket = front.client();
    socket.send(&request(Kind::Con, Code::GET, 7, "echo/slow/300", b"")).unwrap();
    while front.calls() == 0 {
        std::thread::yield_now();
    }
    drop(front);
    assert_eq!(Message::parse(&receive(&socket)).unwrap().payload, b"slow");
}

/// `tinyfaas invoke`: what it prints, and its exit code.
fn tinyfaas_invoke(args: &[&str]) -> (Vec<u8>, String, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_tinyfaas")).arg("invoke").args(args).output().unwrap();
    (out.stdout, String::from_utf8(out.stderr).unwrap(), out.status.code().unwrap())
}

#[test]
fn our_own_client_calls_in_blocks_both_ways() {
    let front = Front::start(|config| {
        config.endpoint.echo = true;
        config.endpoint.block_szx = 4;
    });
    let body = String::from_utf8(long(10_000)).unwrap();
    let (out, err, code) = tinyfaas_invoke(&[&front.url("echo"), "--data", &body]);
    assert_eq!((out == body.as_bytes(), &*err, code), (true, "", 0));
    let (out, err, code) = tinyfaas_invoke(&[&front.url("echo/long/5000?a=b"), "--method", "PUT"]);
    assert_eq!((out == long(5000), &*err, code), (true, "", 0));
    assert_eq!(front.calls(), 2);
    let (_, err, code) = tinyfaas_invoke(&[&front.url("nosuch")]);
    let text = "tinyfaas: CoAP 4.04: no function of that name: GET /.well-known/core lists those deployed\n";
    assert_eq!((&*err, code), (text, 4));
    let (_, err, code) = tinyfaas_invoke(&[&front.url("echo/fail"), "--header", "accept: 50"]);
    assert_eq!((&*err, code), ("tinyfaas: CoAP 5.00: ValueError: it failed\n", 1));
    let (out, err, code) = tinyfaas_invoke(&[&front.url("echo/count"), "--async"]);
    assert_eq!((out.len(), &*err, code), (0, "", 0));
}

// Other makes.

/// Gets the clients of other makes where they are not there yet.
fn set_up_peers() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let out = Command::new(peers_script("setup")).output().unwrap();
        assert!(out.status.success(), "tests/peers/setup: {}", String::from_utf8_lossy(&out.stderr));
    });
}

pub fn peers_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// The Python of the peers' venv.
pub fn peers_python() -> PathBuf {
    set_up_peers();
    let cache = std::env::var_os("TINYFAAS_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME")).join(".cache/tinyfaas"));
    cache.join("venv-peers/bin/python")
}

/// libcoap's client: standard output and standard error.
pub fn coap_client(args: &[&str]) -> (String, String) {
    set_up_peers();
    let program = ["coap-client-notls", "coap-client", "coap-client-openssl", "coap-client-gnutls"]
        .into_iter()
        .find(|name| Command::new(name).arg("-h").output().is_ok())
        .expect("libcoap's coap-client");
    let out = Command::new(program).args(args).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&out.stdout), text(&out.stderr))
}

#[test]
fn libcoap_calls_and_discovers() {
    let front = Front::start(|_| {});
    let (out, err) = coap_client(&["-m", "post", "-e", "hello", &front.url("echo")]);
    assert_eq!(out.trim_end(), "hello", "{err}");
    let (out, err) = coap_client(&["-N", "-B", "5", "-m", "get", &front.url("echo/length")]);
    assert_eq!(out.trim_end(), "0", "{err}");
    let (out, err) = coap_client(&["-m", "get", &front.url(".well-known/core")]);
    let links =
        "</echo>;rt=\"tinyfaas.function\";ct=0;title=\"echo\";obs,</f>;rt=\"tinyfaas.function\";ct=0;title=\"f\";obs";
    assert_eq!(out.trim_end(), links, "{err}");
    let (_, err) = coap_client(&["-m", "get", &front.url("nosuch")]);
    assert!(err.contains("4.04"), "{err}");
}

#[test]
fn libcoap_moves_long_bodies_in_blocks_both_ways() {
    let front = Front::start(|_| {});
    let body = String::from_utf8(long(10_000)).unwrap();
    for size in ["16", "64", "256", "1024"] {
        let before = front.calls();
        let (out, err) = coap_client(&["-b", size, "-m", "post", "-e", &body, &front.url("echo")]);
        assert_eq!(out.trim_end(), body, "blocks of {size}: {err}");
        assert_eq!(front.calls(), before + 1, "blocks of {size}");
    }
    let (out, err) = coap_client(&["-m", "get", &front.url("echo/long/5000")]);
    assert_eq!(out.trim_end().as_bytes(), long(5000), "{err}");
}

#[test]
fn libcoap_observes() {
    let front = Front::start(|config| config.endpoint.observe_interval = 100);
    let (out, err) = coap_client(&["-s", "2", "-m", "get", &front.url("f/count")]);
    assert!(out.starts_with("12345"), "{out} {err}");
}

#[test]
fn aiocoap_calls_in_blocks_observes_and_sends_non_confirmable() {
    let front = Front::start(|config| config.endpoint.observe_interval = 100);
    let out = Command::new(peers_python())
        .arg(peers_script("aiocoap_client.py"))
        .arg(front.addr.to_string())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}\n{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines,
        ["discovery", "call", "blocks", "non", "slow", "error", "options", "observe", "done"],
        "{stderr}"
    );
}
