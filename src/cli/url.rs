//! Where a server is: `HOST[:PORT]` and URLs.

use super::error::Error;

/// A URL of a function, in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// `http`, `coap`, ... in lower case.
    pub(super) scheme: String,
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    /// The port where one is given.
    pub(super) port: Option<u16>,
    /// Path and query, starting with `/`, percent-encoded.
    pub(super) target: String,
}

impl Url {
    /// Takes `scheme://host[:port][/path][?query]`; `None` where there is no `://`: it is a name then.
    pub(super) fn parse(text: &str) -> Option<Result<Self, Error>> {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let target = rest.split('#').next().unwrap_or_default();
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(host_port(authority).map(|(host, port)| Self {
            scheme: scheme.to_ascii_lowercase(),
            host,
            port,
            target: encode(&format!("{slash}{target}")),
        }))
    }
}

/// Takes `HOST`, `HOST:PORT`, an IPv6 address, or one in brackets with or without a port.
pub(super) fn host_port(text: &str) -> Result<(String, Option<u16>), Error> {
    let wrong = || Error::usage(format!("{text:?} is no host: use HOST, HOST:PORT or [IPv6]:PORT"));
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        }
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if host.is_empty() || !(host.contains(':') || host.bytes().all(name)) {
        return Err(wrong());
    }
    let port = match port {
        Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => Some(p.parse().map_err(|_| wrong())?),
        Some(_) => return Err(wrong()),
        None => None,
    };
    Ok((host.into(), port))
}

/// `host` as it stands before a port: IPv6 in brackets.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.into() }
}

/// Percent-encodes what may not stand in a path or query (RFC 3986 §3.3, §3.4); what is encoded stays so.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_brackets() {
        for (text, host, port) in [
            ("board", "board", None),
            ("board.local:81", "board.local", Some(81)),
            ("10.0.0.7:81", "10.0.0.7", Some(81)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[fe80::1]:81", "fe80::1", Some(81)),
        ] {
            assert_eq!(host_port(text), Ok((host.into(), port)), "{text}");
        }
        for wrong in [
            "", ":81", "a:", "a:b", "a:65536", "a:+1", "a b", "a/b", "u@a", "[::1", "[::1]81", "[a]", "http://a",
            "\r\n",
        ] {
            assert!(host_port(wrong).unwrap_err().text.contains("use HOST"), "{wrong}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_and_a_name_is_none() {
        assert!(Url::parse("hello").is_none());
        let url = Url::parse("HTTP://b:1/f/a b?q=\"x\"#frag").unwrap().unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str(), url.port), ("http", "b", Some(1)));
        assert_eq!(url.target, "/f/a%20b?q=%22x%22");
        assert_eq!(Url::parse("coap://[::1]").unwrap().unwrap().target, "/");
        assert_eq!(Url::parse("coap://h?q").unwrap().unwrap().target, "/?q");
        assert!(Url::parse("http:///f").unwrap().is_err());
    }

    #[test]
    fn a_target_cannot_break_the_request_line() {
        assert_eq!(encode("/a\r\nb \u{e9}%20"), "/a%0D%0Ab%20%C3%A9%20");
    }
}
