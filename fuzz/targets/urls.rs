//! Any bytes as a URL, as where a redirect leads, as the address behind a name, and as a percent-encoded path.
//!
//! The first byte says where the redirect's address begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tinyfaas::fetch::Policy;
use tinyfaas::wire::http1::{Framing, parse_request, percent_decode};
use tinyfaas::wire::url::{MAX_URL, Url};

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let (&cut, bytes) = input.split_first().unwrap_or((&0, input));
    if let Some(octets) = bytes.first_chunk::<16>() {
        judge(Ipv6Addr::from(*octets));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = percent_decode(text);
    let Some((url, location)) = text.split_at_checked(usize::from(cut)) else {
        let _ = Url::parse(text).inspect(look_at);
        return;
    };
    let Ok(url) = Url::parse(url).inspect(look_at) else { return };
    if let Ok(next) = url.join(location) {
        look_at(&next);
        assert!(next.host == url.host && next.port == url.port || location.contains("//"), "{next:?}");
    }
}

/// A URL that was taken makes one request for one host, and is the same when it is read again.
fn look_at(url: &Url) {
    assert!(url.target.len() <= MAX_URL && url.port != 0);
    let again = Url::parse(&format!("{}://{}{}", url.scheme(), url.host_field(), url.target));
    // With scheme and host it may have become too long.
    assert!(again.as_ref() == Ok(url) || url.target.len() + url.host.len() + 16 > MAX_URL, "{url:?} {again:?}");
    let head = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", url.target, url.host_field());
    let request = parse_request(head.as_bytes()).unwrap().unwrap();
    assert_eq!((request.len, request.target, request.framing), (head.len(), &*url.target, Framing::Length(0)));
    // What a resolver would read as an address is one.
    let name = url.host.strip_suffix('.').unwrap_or(&url.host);
    let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_number = match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => last.bytes().all(|b| b.is_ascii_digit()),
    };
    assert!(url.address().is_some() || !is_number, "{url:?}");
}

/// An address that is ours in IPv4 is so in each form that IPv6 has for it.
fn judge(v6: Ipv6Addr) {
    let [.., a, b, c, d] = v6.octets();
    let v4 = Ipv4Addr::new(a, b, c, d);
    for policy in [Policy::default(), Policy { allow_local: true }] {
        let _ = policy.check(v6.into());
        let wanted = policy.check(v4.into());
        assert_eq!(policy.check(IpAddr::V6(v4.to_ipv6_mapped())), wanted);
        let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        assert_eq!(policy.check(nat64.into()), wanted);
    }
    assert!(!v4.is_loopback() || Policy::default().check(v4.into()).is_err());
}
