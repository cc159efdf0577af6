//! Who connects and does not do what a client does, while another one is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Certificates, board, curl, s_client};
use crate::board::PATIENCE;
use crate::watch::eventually;

/// The first bytes of a ClientHello of 500.
const HELLO: &[u8] = &[0x16, 3, 1, 1, 0xf4, 1, 0, 1, 0xf0, 3, 3];

/// Reads what is left of a connection: how it ends does not matter.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn garbage_gets_an_alert_and_a_request_in_the_clear_gets_told() {
    let certificates = Certificates::new();
    let board = board(&certificates, &[]);
    for addr in [board.http.unwrap(), board.grpc.unwrap()] {
        for garbage in [&b"\0\0\0\0\0\0\0\0"[..], b"\x16\x03\x01\xff\xff\x01", b"SSH-2.0-x\r\n", &[0x80; 100]] {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(garbage).unwrap();
            let got = rest(stream);
            // Letters may begin a request, which HTTP answers as one.
            let told = got.first() == Some(&21) || got.starts_with(b"HTTP/1.1 400 ");
            assert!(told, "{garbage:?}: {got:?}");
        }
    }
    let mut stream = TcpStream::connect(board.http.unwrap()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let got = String::from_utf8(rest(stream)).unwrap();
    assert!(got.starts_with("HTTP/1.1 400 Bad Request\r\n") && got.ends_with("use https://\n"), "{got}");
    let mut stream = TcpStream::connect(board.grpc.unwrap()).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(rest(stream).first(), Some(&21));
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let certificates = Certificates::new();
    let board = board(&certificates, &["--head-timeout", "1s"]);
    for addr in [board.http.unwrap(), board.grpc.unwrap()] {
        let silent = TcpStream::connect(addr).unwrap();
        let mut half = TcpStream::connect(addr).unwrap();
        half.write_all(HELLO).unwrap();
        assert_eq!(rest(half), b"");
        assert_eq!(rest(silent), b"");
    }
}

#[test]
fn half_open_handshakes_leave_room_for_a_client_that_means_it() {
    let certificates = Certificates::new();
    let board = board(&certificates, &["--head-timeout", "10m"]);
    for addr in [board.http.unwrap(), board.grpc.unwrap()] {
        let mut half: Vec<TcpStream> = Vec::new();
        for n in 1..=200 {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(HELLO).unwrap();
            half.push(stream);
            if n % 64 == 0 {
                let alpn = if Some(addr) == board.http { "http/1.1" } else { "h2" };
                let said = s_client(addr, &["-alpn", alpn], b"");
                assert!(said.contains(&format!("ALPN protocol: {alpn}")), "{said}");
            }
        }
        if Some(addr) == board.http {
            assert_eq!(curl(&certificates, addr, "/cat", &["--data", "x"]).0, "x");
        }
        // The oldest were given up, the youngest were not.
        assert_eq!(rest(half.remove(0)), b"");
        let youngest = half.pop().unwrap();
        youngest.set_nonblocking(true).unwrap();
        let still = (&youngest).read(&mut [0]).unwrap_err();
        assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
        let open = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let mut stream = stream;
            matches!(stream.read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        };
        eventually("no more than the bound", || (half.iter().filter(|s| open(s)).count() < 64).then_some(()));
    }
}

#[test]
fn a_stop_waits_for_no_handshake() {
    let certificates = Certificates::new();
    let mut board = board(&certificates, &["--head-timeout", "10m", "--grace", "10m"]);
    let mut half = TcpStream::connect(board.http.unwrap()).unwrap();
    half.write_all(HELLO).unwrap();
    let mut other = TcpStream::connect(board.grpc.unwrap()).unwrap();
    other.write_all(HELLO).unwrap();
    // Both were met: another handshake after them is done.
    assert!(s_client(board.grpc.unwrap(), &[], b"").contains("TLSv1.3"));
    assert!(s_client(board.http.unwrap(), &[], b"").contains("TLSv1.3"));
    half.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    assert!(board.stop(), "{}", board.log());
}
