//! Downloads from scripted servers on loopback.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use super::*;

/// Bodies in these tests are smaller.
pub(super) const MAX: u64 = 100_000;

pub(super) fn config() -> Config {
    Config { max_bytes: MAX, policy: Policy { allow_local: true }, ..Config::default() }
}

pub(super) fn fetch(url: &str, config: &Config) -> Result<Vec<u8>, Error> {
    crate::reactor::block_on(async {
        let mut download = open(&Url::parse(url).unwrap(), config).await?;
        let (mut out, length) = (Vec::new(), download.length());
        let n = download.save(&mut out).await?;
        assert_eq!(n, out.len() as u64);
        assert!(length.is_none_or(|length| length == n));
        assert_eq!(download.read(&mut [0]).await.unwrap(), 0, "after the end comes the end");
        Ok(out)
    })
}

#[test]
fn a_download_can_be_spawned_on_any_executor() {
    fn is_send<T: Send>(work: T) {
        drop(work);
    }
    let (url, config) = (Url::parse("http://192.0.2.1/").unwrap(), config());
    is_send(async {
        if let Ok(mut download) = open(&url, &config).await {
            let _ = download.save(&mut Vec::new()).await;
        }
    });
}

/// Reads a request's head from a client that is served.
pub(super) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut b = [0];
        if stream.read(&mut b).unwrap() == 0 {
            break;
        }
        head.push(b[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Serves one connection for each answer, in order, and sends on what was asked. `{}` in an answer is the port.
fn serve<const N: usize>(answers: [&str; N]) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = answers.map(|answer| answer.replace("{}", &port.to_string()));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            sender.send(read_head(&mut stream)).unwrap();
            // A client that gives up early is part of some tests.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, receiver)
}

fn get(answer: &str) -> Result<Vec<u8>, Error> {
    let (port, _asked) = serve([answer]);
    fetch(&format!("http://127.0.0.1:{port}/a.zip"), &config())
}

fn refusal(answer: &str) -> (ErrorKind, String) {
    let error = get(answer).unwrap_err();
    let (_, what) = error.text.split_once(": ").unwrap();
    (error.kind, what.to_owned())
}

#[test]
fn the_request_is_plain_and_says_where_it_goes() {
    let (port, asked) = serve(["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
    assert_eq!(fetch(&format!("http://127.0.0.1:{port}/a/b.zip?c=d#e"), &config()).unwrap(), b"ok");
    let head = asked.recv().unwrap();
    assert!(head.starts_with("GET /a/b.zip?c=d HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{head}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
}

#[test]
fn bodies_of_each_framing_arrive_whole() {
    assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more").unwrap(), b"hello");
    assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap(), b"");
    assert_eq!(get("HTTP/1.0 200 OK\r\n\r\nuntil the end").unwrap(), b"until the end");
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nA: b\r\n\r\n";
    assert_eq!(get(chunked).unwrap(), b"hello world");
    assert_eq!(get(&format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{chunked}")).unwrap(), b"hello world");
    // Larger than any buffer.
    let long = "x".repeat(90_000);
    assert_eq!(get(&format!("HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n{long}")).unwrap(), long.as_bytes());
    assert_eq!(get(&format!("HTTP/1.1 200 OK\r\n\r\n{long}")).unwrap(), long.as_bytes());
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n15f90\r\n{long}\r\n0\r\n\r\n");
    assert_eq!(get(&chunked).unwrap(), long.as_bytes());
}

#[test]
fn a_name_is_resolved() {
    let (port, _asked) = serve(["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
    assert_eq!(fetch(&format!("http://localhost:{port}/"), &config()).unwrap(), b"ok");
    let error = fetch("http://no-such-name.invalid/", &config()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Server);
    assert!(error.text.starts_with("http://no-such-name.invalid: its name cannot be resolved"), "{}", error.text);
}

#[test]
fn redirects_are_followed_up_to_a_bound() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (port, asked) = serve([
        "HTTP/1.1 302 Found\r\nLocation: /b/c?d\r\nContent-Length: 9\r\n\r\nelsewhere",
        "HTTP/1.1 301 Moved\r\nLocation: ../e\r\n\r\n",
        "HTTP/1.1 307 T\r\nLocation: http://localhost:{}/f\r\n\r\n",
        "HTTP/1.1 308 P\r\nLocation: //127.0.0.1:{}/g\r\n\r\n",
        ok,
    ]);
    assert_eq!(fetch(&format!("http://127.0.0.1:{port}/a"), &config()).unwrap(), b"ok");
    let lines: Vec<_> = asked.iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["/a", "/b/c?d", "/e", "/f", "/g"].map(|target| format!("GET {target} HTTP/1.1")));

    let again = "HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n";
    let (port, _asked) = serve([again; MAX_REDIRECTS + 1]);
    let error = fetch(&format!("http://127.0.0.1:{port}/a"), &config()).unwrap_err();
    assert!(error.text.ends_with("more than 5 redirects"), "{}", error.text);
    assert!(refusal("HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\n\r\n").1.starts_with("its redirect: the URL has to"));
    assert!(refusal("HTTP/1.1 302 Found\r\n\r\n").1.starts_with("it answered 302 Found"));
}

#[test]
fn what_is_no_archive_download_is_refused() {
    for (answer, kind, want) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", ErrorKind::Server, "it answered 404 Not Found; 200 was expected"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ErrorKind::Server, "it answered 204 No Content; 200 was expected"),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            ErrorKind::Server,
            "it packed the archive once more (Content-Encoding), unasked",
        ),
        ("", ErrorKind::Server, "the connection ended before the response's head did"),
        ("HTTP/1.1 200 OK\r\n", ErrorKind::Server, "the connection ended before the response's head did"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            ErrorKind::Server,
            "the connection ended before the body did",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            ErrorKind::Server,
            "the connection ended before the body did",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n",
            ErrorKind::TooLarge,
            "the archive is larger than 100000 bytes",
        ),
    ] {
        assert_eq!(refusal(answer), (kind, want.to_owned()), "{answer}");
    }
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"] {
        assert!(refusal(answer).1.starts_with("no HTTP response: "), "{answer}");
    }
    assert!(refusal("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n").1.contains("hexadecimal"));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM + 1);
    assert_eq!(refusal(&interim).1, "too many 1xx responses");
    let head = format!("HTTP/1.1 200 OK\r\n{}", "A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(1000));
    let text = refusal(&head).1;
    assert!(text.starts_with("no HTTP response: ") || text.contains("head is over"), "{text}");
    assert!(refusal(&format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD))).1.contains("head is over 16384 bytes"));
}

/// Serves one connection with `head`, then `piece` again and again until the client goes away, which it then says.
fn serve_endless(head: &'static str, piece: &'static str) -> (u16, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(head.as_bytes()).unwrap();
        if piece.is_empty() {
            // Silence, until the client goes away.
            let _ = stream.read(&mut [0]);
        } else {
            while stream.write_all(piece.as_bytes()).is_ok() {}
        }
        sender.send(()).unwrap();
    });
    (port, receiver)
}

#[test]
fn an_endless_body_ends_at_the_bound() {
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "0123456789"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "a\r\n0123456789\r\n"),
    ] {
        let (port, gone) = serve_endless(head, piece);
        let error = fetch(&format!("http://127.0.0.1:{port}/"), &config()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        gone.recv().unwrap();
    }
}

#[test]
fn a_silent_server_is_left_after_the_stall_timeout_and_a_slow_one_after_the_total() {
    let short = Duration::from_millis(50);
    for head in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"] {
        let (port, gone) = serve_endless(head, "");
        let stall = Config { stall_timeout: short, ..config() };
        let error = fetch(&format!("http://127.0.0.1:{port}/"), &stall).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLate, "{}", error.text);
        assert!(error.text.ends_with("nothing came for 0.05 s"), "{}", error.text);
        gone.recv().unwrap();
    }
    let (port, gone) = serve_endless("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", "");
    let total = Config { timeout: short, ..config() };
    let error = fetch(&format!("http://127.0.0.1:{port}/"), &total).unwrap_err();
    assert!(error.text.ends_with("not done within 0.05 s"), "{}", error.text);
    gone.recv().unwrap();
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = fetch(&format!("http://127.0.0.1:{port}/secret?sig=x"), &config()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Server);
    assert!(error.text.starts_with(&format!("http://127.0.0.1:{port}: cannot connect to 127.0.0.1:{port}")));
    assert!(!error.text.contains("secret") && !error.text.contains("sig"));
}

#[test]
fn local_addresses_are_refused_unless_allowed() {
    let strict = Config { policy: Policy::default(), ..config() };
    for url in ["http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]:1/"] {
        let error = fetch(url, &strict).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Address, "{}", error.text);
        assert!(error.text.contains("a loopback address"), "{}", error.text);
    }
    let error = fetch("http://169.254.169.254/latest/meta-data", &strict).unwrap_err();
    assert_eq!(
        error.text,
        "http://169.254.169.254 is at 169.254.169.254, a link-local address: such are not fetched from"
    );
}

/// The address that others see this machine at, unless it has none.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified())
}

#[test]
fn this_machine_is_refused_by_whatever_address_it_has() {
    let Some(own) = own_address() else {
        assert!(std::env::var_os("CI").is_none(), "CI's machine has an address");
        eprintln!("\n*** SKIPPED: this machine has no address but loopback ***\n");
        return;
    };
    let listener = TcpListener::bind((own, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let strict = Config { policy: Policy::default(), ..config() };
    let error = fetch(&format!("http://{own}:{port}/"), &strict).unwrap_err();
    let text = format!("http://{own}:{port} is at {own}, an address of this machine: such are not fetched from");
    assert_eq!((error.kind, error.text), (ErrorKind::Address, text));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody connected");
    assert!(!is_own("192.0.2.1:80".parse().unwrap()), "others are not");
}

#[test]
fn a_redirect_to_a_refused_address_is_refused() {
    // Allowed to begin with, so that the redirect is what is judged: 0.0.0.0 never is.
    let (port, _asked) = serve(["HTTP/1.1 302 Found\r\nLocation: http://0.0.0.0:1/\r\n\r\n"]);
    let error = fetch(&format!("http://127.0.0.1:{port}/"), &config()).unwrap_err();
    assert_eq!(error.text, "http://0.0.0.0:1 is at 0.0.0.0, the unspecified address: such are not fetched from");
}

#[test]
fn the_policy_knows_addresses_in_every_disguise() {
    let strict = |text: &str| Policy::default().check(text.parse().unwrap());
    for address in [
        "127.0.0.1",
        "127.255.0.1",
        "169.254.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.1.1",
        "::127.0.0.1",
        "::ffff:0.0.0.0",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "::ffff:0:127.0.0.1",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b:1::127.0.0.1",
        "64:ff9b::0.0.0.0",
        "2002:7f00:1::1",
        "2002::1",
        "2002:a9fe:a9fe::",
    ] {
        assert!(strict(address).is_err(), "{address}");
    }
    for address in [
        "192.168.1.1",
        "10.0.0.1",
        "172.16.0.1",
        "93.184.216.34",
        "100.64.0.1",
        "fd00::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:c0a8:101::1",
    ] {
        assert_eq!(strict(address), Ok(()), "{address}");
    }
    let lenient = |text: &str| Policy { allow_local: true }.check(text.parse().unwrap());
    for address in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "::ffff:127.0.0.1"] {
        assert_eq!(lenient(address), Ok(()), "{address}");
    }
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"] {
        assert!(lenient(address).is_err(), "{address}");
    }
}
