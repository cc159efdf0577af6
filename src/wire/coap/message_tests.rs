//! Messages as bytes, and the differential test against `coap-lite`.

use super::*;

#[test]
fn a_request_is_read_as_it_stands() {
    let m = Message::parse(b"\x44\x01\xc4\x09\x74\x65\x73\x74\xb7example\xc1\x32\xffhi").unwrap();
    assert_eq!((m.kind, m.code, m.id), (Kind::Con, Code::GET, 0xc409));
    assert_eq!(m.token.as_bytes(), b"test");
    assert_eq!(m.options.collect::<Vec<_>>(), [(11, &b"example"[..]), (23, &b"2"[..])]);
    assert_eq!(m.payload, b"hi");
}

#[test]
fn long_deltas_and_lengths_survive_a_round_trip() {
    let mut buf = Vec::new();
    let values = [(0, 0), (12, 12), (25, 13), (60, 268), (600, 269), (2000, 1034), (65000, 3), (65000, 0)];
    let mut w = Writer::new(&mut buf, Kind::Non, Code::POST, 7, &Token::new(b"12345678").unwrap());
    for (number, len) in values {
        w.option(number, &vec![b'x'; len]);
    }
    w.payload(b"\xff");
    let m = Message::parse(&buf).unwrap();
    assert_eq!(m.options.map(|(n, v)| (n, v.len())).collect::<Vec<_>>(), values);
    assert_eq!(m.payload, b"\xff");
    assert_eq!(m.token.as_bytes(), b"12345678");
}

#[test]
fn numbers_have_no_leading_zero_bytes() {
    let mut buf = Vec::new();
    Writer::new(&mut buf, Kind::Ack, Code::CONTENT, 1, &Token::default())
        .uint(12, 0)
        .uint(14, 60)
        .uint(28, 256)
        .uint(60, u32::MAX);
    assert_eq!(buf, b"\x60\x45\x00\x01\xc0\x21\x3c\xd2\x01\x01\x00\xd4\x13\xff\xff\xff\xff");
}

#[test]
fn format_errors_of_a_confirmable_message_ask_for_a_reset() {
    let reset = Err(Malformed::Reset(0x0102));
    for bytes in [
        &b"\x49\x01\x01\x02123456789"[..], // token of 9 bytes
        b"\x4f\x01\x01\x02123456789012345",
        b"\x44\x01\x01\x02abc",          // token cut
        b"\x40\x01\x01\x02\xff",         // marker without payload
        b"\x40\x01\x01\x02\xf0",         // delta 15
        b"\x40\x01\x01\x02\x0f",         // length 15
        b"\x40\x01\x01\x02\xd0",         // delta cut
        b"\x40\x01\x01\x02\xe0\x01",     // delta cut
        b"\x40\x01\x01\x02\x05abcd",     // value cut
        b"\x40\x01\x01\x02\xe0\xff\xff", // number over 65535
        b"\x40\x20\x01\x02",             // class 1
        b"\x40\xc0\x01\x02",             // class 6
        b"\x40\xe1\x01\x02",             // class 7
        b"\x41\x00\x01\x02a",            // empty with a token
        b"\x40\x00\x01\x02a",            // empty with more
    ] {
        assert_eq!(Message::parse(bytes), reset, "{bytes:02x?}");
        let mut other = bytes.to_vec();
        for first in [0x10, 0x20, 0x30] {
            other[0] = bytes[0] | first;
            assert_eq!(Message::parse(&other), Err(Malformed::Ignore), "{other:02x?}");
        }
    }
}

#[test]
fn too_short_datagrams_and_other_versions_are_ignored() {
    for bytes in [&b""[..], b"\x40", b"\x40\x01\x01", b"\x00\x01\x01\x02", b"\x80\x01\x01\x02", b"\xc0\x01\x01\x02"] {
        assert_eq!(Message::parse(bytes), Err(Malformed::Ignore));
    }
}

#[test]
fn codes_are_written_and_read_with_two_digits_of_detail() {
    assert_eq!(Code::CONTENT.to_string(), "2.05");
    assert_eq!(Code::CONTINUE.to_string(), "2.31");
    assert_eq!(Code::parse("4.04"), Some(Code::NOT_FOUND));
    for bad in ["", "2.5", "2.32", "3.00", "6.00", "0.01", "2,05", "2.050", "x.01"] {
        assert_eq!(Code::parse(bad), None, "{bad}");
    }
}

/// Another make reads what we write, and we read what it writes; seeded, so a failure comes again.
#[test]
fn coap_lite_agrees() {
    let mut rng = fastrand::Rng::with_seed(7252);
    let mut buf = Vec::new();
    for _ in 0..2000 {
        let token: Vec<u8> = (0..rng.usize(0..=8)).map(|_| rng.u8(..)).collect();
        let mut options: Vec<(u16, Vec<u8>)> = (0..rng.usize(0..6))
            .map(|_| (rng.u16(..2000), (0..rng.usize(0..300)).map(|_| rng.u8(..)).collect()))
            .collect();
        options.sort_by_key(|o| o.0);
        let payload: Vec<u8> = (0..rng.usize(0..20)).map(|_| rng.u8(..)).collect();
        let id = rng.u16(..);
        let mut w = Writer::new(&mut buf, Kind::Con, Code::PUT, id, &Token::new(&token).unwrap());
        for (number, value) in &options {
            w.option(*number, value);
        }
        w.payload(&payload);

        let packet = coap_lite::Packet::from_bytes(&buf).unwrap();
        assert_eq!((packet.get_token(), packet.header.message_id), (&token[..], id));
        assert_eq!(packet.payload, payload);
        let theirs: Vec<(u16, Vec<u8>)> =
            packet.options().flat_map(|(n, values)| values.iter().map(|v| (*n, v.clone()))).collect();
        assert_eq!(theirs, options);

        let bytes = packet.to_bytes_internal_or(&buf);
        let m = Message::parse(&bytes).unwrap();
        assert_eq!(m.options.map(|(n, v)| (n, v.to_vec())).collect::<Vec<_>>(), options);
        assert_eq!(m.payload, payload);
    }
}

/// `coap-lite` refuses to write more than 1280 bytes; then our own bytes stand in for its.
trait ToBytes {
    fn to_bytes_internal_or(&self, ours: &[u8]) -> Vec<u8>;
}

impl ToBytes for coap_lite::Packet {
    fn to_bytes_internal_or(&self, ours: &[u8]) -> Vec<u8> {
        if ours.len() > 1200 { ours.to_vec() } else { self.to_bytes().unwrap() }
    }
}
