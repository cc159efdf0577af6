//! A client's and a server's session against each other, without a socket.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

use super::super::certificates::Certificates;
use super::*;

fn pair(versions: &[&'static SupportedProtocolVersion]) -> (Session, Session) {
    let certificates = Certificates::new();
    let provider = super::super::provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem")).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_file(certificates.path("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key")).unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let client = Session::client(Arc::new(client), ServerName::try_from("localhost").unwrap()).unwrap();
    (client, Session::server(Arc::new(server)).unwrap())
}

/// Moves what `from` has to send to `to`, at most `most` bytes at once.
fn carry(from: &mut Session, to: &mut Session, most: usize) -> Result<usize, Error> {
    let mut moved = 0;
    loop {
        from.look()?;
        let bytes = from.unsent();
        let n = bytes.len().min(most).min(to.room().len());
        if n == 0 {
            to.give_back();
            return Ok(moved);
        }
        let piece = bytes[..n].to_vec();
        to.room()[..n].copy_from_slice(&piece);
        to.received(n);
        from.sent(n);
        moved += n;
        to.look()?;
        if to.taken < to.plain.len() {
            return Ok(moved);
        }
    }
}

fn shake(client: &mut Session, server: &mut Session, most: usize) {
    while carry(client, server, most).unwrap() + carry(server, client, most).unwrap() > 0 {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
}

fn read_all(from: &mut Session, to: &mut Session, length: usize) -> Vec<u8> {
    let (mut got, mut buf) = (Vec::new(), [0; 700]);
    while got.len() < length {
        carry(from, to, 1000).unwrap();
        let n = to.read(&mut buf).unwrap();
        got.extend_from_slice(&buf[..n]);
    }
    got
}

fn holds(session: &Session) -> usize {
    session.incoming.capacity() + session.plain.capacity() + session.outgoing.capacity()
}

#[test]
fn a_handshake_cut_at_every_byte_is_put_together_in_both_versions() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for most in [1, 7, 4096, usize::MAX] {
            let (mut client, mut server) = pair(versions);
            shake(&mut client, &mut server, most);
            client.write(b"ping").unwrap();
            assert_eq!(read_all(&mut client, &mut server, 4), b"ping");
            server.write(b"pong").unwrap();
            assert_eq!(read_all(&mut server, &mut client, 4), b"pong");
        }
    }
}

#[test]
fn an_idle_session_holds_no_buffers() {
    let (mut client, mut server) = pair(&[&TLS13]);
    shake(&mut client, &mut server, 1000);
    for session in [&client, &server] {
        assert_eq!(holds(session), 0);
    }
    client.write(&[7; RECORD]).unwrap();
    assert_eq!(read_all(&mut client, &mut server, RECORD), [7; RECORD]);
    assert!(!server.is_readable() && !server.has_part());
    assert_eq!(holds(&server) + holds(&client), 0);
    assert!(size_of::<Session>() < 1400, "{}", size_of::<Session>());
}

#[test]
fn what_is_written_at_once_is_one_record_and_the_largest_of_others_are_taken() {
    let (mut client, mut server) = pair(&[&TLS13]);
    shake(&mut client, &mut server, usize::MAX);
    server.write(&[1; RECORD]).unwrap();
    let length = usize::from(u16::from_be_bytes([server.unsent()[3], server.unsent()[4]]));
    assert_eq!(server.unsent().len(), HEADER + length);
    assert!(length <= RECORD + OVERHEAD - HEADER, "one try was enough: {length}");
    assert_eq!(read_all(&mut server, &mut client, RECORD), [1; RECORD]);
    // What a peer of another make sends.
    client.write(&[2; 1 << 14]).unwrap();
    client.write(&[3; 3]).unwrap();
    assert_eq!(read_all(&mut client, &mut server, (1 << 14) + 3)[(1 << 14) - 1..], [2, 3, 3, 3]);
    assert_eq!(holds(&server), 0);
}

#[test]
fn new_keys_are_taken_and_answered_while_nobody_reads() {
    let (mut client, mut server) = pair(&[&TLS13]);
    shake(&mut client, &mut server, usize::MAX);
    for _ in 0..3 {
        let Side::Client(connection) = &mut client.side else { panic!("no client") };
        match connection.process_tls_records(&mut []).state.unwrap() {
            ConnectionState::WriteTraffic(writer) => writer.refresh_traffic_keys().unwrap(),
            other => panic!("{other:?}"),
        }
        carry(&mut client, &mut server, usize::MAX).unwrap();
        assert!(!server.is_readable() && !server.has_part(), "it is no request");
        client.write(b"a").unwrap();
        assert_eq!(read_all(&mut client, &mut server, 1), b"a");
        server.write(b"b").unwrap();
        assert_eq!(read_all(&mut server, &mut client, 1), b"b");
    }
}

#[test]
fn who_closes_says_so_once_and_the_other_may_still_write() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let (mut client, mut server) = pair(versions);
        shake(&mut client, &mut server, usize::MAX);
        client.write(b"last").unwrap();
        client.close();
        client.close();
        assert_eq!(read_all(&mut client, &mut server, 4), b"last");
        assert_eq!(carry(&mut client, &mut server, usize::MAX).unwrap(), 0);
        assert_eq!((server.read(&mut [0; 9]).unwrap(), server.has_ended()), (0, true));
        server.write(b"answer").unwrap();
        assert_eq!(read_all(&mut server, &mut client, 6), b"answer");
        server.close();
        carry(&mut server, &mut client, usize::MAX).unwrap();
        assert_eq!((client.read(&mut [0; 9]).unwrap(), client.has_ended()), (0, true));
    }
}

#[test]
fn what_is_not_tls_is_refused_with_an_alert_and_stays_so() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff, 1], &[0; 64]]
    {
        let (_, mut server) = pair(&[&TLS13]);
        server.room()[..bytes.len()].copy_from_slice(bytes);
        server.received(bytes.len());
        let refused = server.look().unwrap_err();
        assert_eq!(server.unsent().first(), Some(&21), "an alert after {bytes:?}: {refused}");
        assert_eq!(server.unsent().len(), HEADER + 2);
        assert_eq!(server.read(&mut [0; 9]).unwrap_err(), refused);
        assert!(server.write(b"x").is_err() && server.is_readable());
    }
}

#[test]
fn a_record_that_was_changed_ends_the_session() {
    let (mut client, mut server) = pair(&[&TLS13]);
    shake(&mut client, &mut server, usize::MAX);
    client.write(b"pay 1").unwrap();
    let last = client.outgoing.len() - 1;
    client.outgoing[last] ^= 1;
    assert_eq!(carry(&mut client, &mut server, usize::MAX).unwrap_err(), Error::DecryptError);
    assert!(!server.unsent().is_empty(), "an alert");
}

#[test]
fn a_message_that_never_ends_takes_no_more_than_one_record() {
    let (_, mut server) = pair(&[&TLS13]);
    // A ClientHello of 60,000 bytes, in records of 1,000.
    let mut record = [&[22, 3, 1, 3, 232, 1, 0, 0xea, 0x60][..], &[0; 996]].concat();
    loop {
        let room = server.room();
        if room.is_empty() {
            break;
        }
        let n = room.len().min(record.len());
        room[..n].copy_from_slice(&record[..n]);
        server.received(n);
        record.rotate_left(n);
        server.look().unwrap();
        assert!(server.incoming.capacity() <= MAX_INCOMING);
        if n == 1005 {
            record = [&[22, 3, 1, 3, 232][..], &[0; 1000]].concat();
        }
    }
}
