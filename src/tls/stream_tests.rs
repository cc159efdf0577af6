//! A TLS stream on a real socket, whose other end the test plays byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::task::Waker;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::super::certificates::Certificates;
use super::*;
use crate::reactor::block_on;

/// The other end: a client's session and its socket.
struct Peer {
    session: Session,
    socket: TcpStream,
}

impl Peer {
    fn send(&mut self, most: usize) {
        let n = self.session.unsent().len().min(most);
        self.socket.write_all(&self.session.unsent()[..n]).unwrap();
        self.session.sent(n);
    }
}

fn connected() -> (Peer, TlsStream) {
    let certificates = Certificates::new();
    let provider = super::super::provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem")).unwrap()).unwrap();
    let client =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_file(certificates.path("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).unwrap();
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = Async::new(listener.accept().unwrap().0).unwrap();
    let session = Session::client(Arc::new(client), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut peer = Peer { session, socket };
    let stream = TlsStream::new(stream, Session::server(Arc::new(server)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(std::future::poll_fn(|cx| stream.poll_handshake(cx))).unwrap());
        while peer.session.look().is_ok() {
            peer.send(usize::MAX);
            if !peer.session.is_handshaking() {
                break;
            }
            let n = peer.socket.read(peer.session.room()).unwrap();
            peer.session.received(n);
        }
    });
    (peer, stream)
}

fn waits<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> bool {
    poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn who_waits_for_the_rest_of_a_record_is_not_told_of_the_part_that_is_here() {
    let (mut peer, stream) = connected();
    let mut buf = [0; 9];
    peer.session.write(b"hello").unwrap();
    for _ in 0..3 {
        peer.send(7);
        // Something came, so that it may be looked at: it is a part.
        block_on(std::future::poll_fn(|cx| stream.poll_readable(cx))).unwrap();
        assert!(waits(|cx| stream.poll_read(cx, &mut buf)));
        // Else who reads and waits by turns would never let others run.
        assert!(waits(|cx| stream.poll_readable(cx)));
        assert!(stream.session().incoming_capacity() < 64, "a part takes the room of a part");
    }
    peer.send(usize::MAX);
    let n = block_on(std::future::poll_fn(|cx| stream.poll_read(cx, &mut buf))).unwrap();
    assert_eq!(&buf[..n], b"hello");
    assert_eq!(stream.session().incoming_capacity(), 0);
}

#[test]
fn a_record_that_came_with_another_is_told_of() {
    let (mut peer, stream) = connected();
    let mut buf = [0; 9];
    peer.session.write(b"one").unwrap();
    peer.session.write(b"two").unwrap();
    peer.send(usize::MAX);
    for expected in [b"one", b"two"] {
        block_on(std::future::poll_fn(|cx| stream.poll_readable(cx))).unwrap();
        let n = block_on(std::future::poll_fn(|cx| stream.poll_read(cx, &mut buf))).unwrap();
        assert_eq!(&buf[..n], expected);
    }
    assert!(waits(|cx| stream.poll_readable(cx)));
    drop(peer);
    block_on(std::future::poll_fn(|cx| stream.poll_readable(cx))).unwrap();
    let cut = block_on(std::future::poll_fn(|cx| stream.poll_read(cx, &mut buf))).unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_the_peer_does_not_take_is_bounded_and_comes_in_order() {
    let (peer, stream) = connected();
    let piece = [7; 3 * RECORD];
    let mut written = 0;
    while let Poll::Ready(n) = stream.poll_write(&mut Context::from_waker(Waker::noop()), &[IoSlice::new(&piece)]) {
        let n = n.unwrap();
        assert_eq!(n, RECORD);
        written += n;
    }
    assert!(stream.session().unsent().len() <= RECORD + 64);
    assert!(waits(|cx| stream.poll_flush(cx)));
    let mut peer = peer;
    let read = std::thread::spawn(move || {
        let (mut buf, mut total) = ([0; 4096], 0);
        loop {
            match peer.session.read(&mut buf).unwrap() {
                0 if peer.session.has_ended() => return total,
                0 => {
                    let n = peer.socket.read(peer.session.room()).unwrap();
                    assert!(n > 0, "the end was told");
                    peer.session.received(n);
                }
                n => {
                    assert!(buf[..n].iter().all(|b| *b == 7));
                    total += n;
                }
            }
        }
    });
    block_on(std::future::poll_fn(|cx| stream.poll_flush(cx))).unwrap();
    block_on(std::future::poll_fn(|cx| stream.poll_close(cx))).unwrap();
    assert_eq!(read.join().unwrap(), written);
}

#[test]
fn of_those_who_hold_long_parts_of_records_the_one_that_waits_for_longest_gives_way() {
    let parts = Seats::new(2, 0);
    let client = Client::of([10, 0, 0, 1].into());
    let mut held: Vec<_> =
        (0..3).map(|_| connected()).map(|(peer, stream)| (peer, stream.among(&parts, client))).collect();
    let mut buf = [0; 9000];
    for (peer, stream) in &mut held {
        peer.session.write(&[7; 8000]).unwrap();
        peer.send(PART / 2);
        block_on(std::future::poll_fn(|cx| stream.poll_readable(cx))).unwrap();
        assert!(waits(|cx| stream.poll_read(cx, &mut buf)));
        assert!(stream.session().seat.is_none(), "a short part is everybody's");
    }
    for (peer, stream) in &mut held {
        peer.send(4000);
        block_on(std::future::poll_fn(|cx| stream.poll_readable(cx))).unwrap();
        let _ = stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let [(_, first), (_, second), (peer, third)] = &mut held[..] else { panic!() };
    let gone = block_on(std::future::poll_fn(|cx| first.poll_read(cx, &mut buf))).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::TimedOut);
    assert!(waits(|cx| second.poll_read(cx, &mut buf)));
    assert!(waits(|cx| third.poll_read(cx, &mut buf)));
    peer.send(usize::MAX);
    assert_eq!(block_on(std::future::poll_fn(|cx| third.poll_read(cx, &mut buf))).unwrap(), 8000);
    assert!(third.session().seat.is_none(), "it came whole");
}
