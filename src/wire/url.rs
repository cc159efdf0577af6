//! `http` and `https` URLs, as much of RFC 3986 as fetching an archive needs.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest URL in bytes: a redirecting server chooses it. Signed links to object stores stay below.
pub const MAX_URL: usize = 4096;

/// An absolute URL, without its fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// A DNS name in lower case, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The port, or the scheme's own.
    pub port: u16,
    /// Path and query in origin form: begins with `/`, visible ASCII.
    pub target: String,
}

impl Url {
    /// Takes a URL from outside.
    ///
    /// # Errors
    /// One line that says what is wrong. It never repeats the URL, which may hold a signature.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_URL {
            return Err("the URL is longer than 4096 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the URL holds a space, a control character or a letter beyond ASCII; write it as %XX");
        }
        let (scheme, rest) = text.split_once("://").ok_or("the URL has to begin with http:// or https://")?;
        let https = match scheme {
            s if s.eq_ignore_ascii_case("http") => false,
            s if s.eq_ignore_ascii_case("https") => true,
            _ => return Err("the URL has to begin with http:// or https://"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (host, port) = split_authority(authority)?;
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let port = port.unwrap_or(if https { 443 } else { 80 });
        Ok(Self { https, host: host.to_ascii_lowercase(), port, target })
    }

    /// The URL that a `Location` field of this one's answer names (RFC 9110 §10.2.2, RFC 3986 §5.2).
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn join(&self, location: &str) -> Result<Self, &'static str> {
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        // A colon before any slash ends a scheme.
        let first = location.split(['/', '?', '#']).next().unwrap_or_default();
        if first.contains(':') {
            return Self::parse(location);
        }
        let location = location.split('#').next().unwrap_or_default();
        if location.len() > MAX_URL || !location.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the redirect's address is too long or holds what no URL may");
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let target = match location.as_bytes().first() {
            None => self.target.clone(),
            Some(b'/') => without_dots(location),
            Some(b'?') => format!("{path}{location}"),
            Some(_) => {
                let folder = path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or("/");
                without_dots(&format!("{folder}{location}"))
            }
        };
        if target.len() > MAX_URL {
            return Err("the redirect's address is too long");
        }
        Ok(Self { target, ..self.clone() })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The host as an address, where it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The value of the `Host` field (RFC 9110 §7.2): the port only where it is not the scheme's own.
    pub fn host_field(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.https { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

/// Scheme, host and port only: paths and queries hold secrets.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host_field())
    }
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    if authority.contains('@') {
        return Err("the URL holds a user name or password; leave them out");
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("the URL's IPv6 address has no ]")?;
        host.parse::<Ipv6Addr>().map_err(|_| "the URL's IPv6 address is wrong")?;
        if !port.is_empty() && !port.starts_with(':') {
            return Err("the URL's port has to follow a colon");
        }
        (host, port.strip_prefix(':'))
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        check_name(host)?;
        (host, port)
    };
    let port = match port {
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|&p| p != 0).ok_or("the URL's port is not 1 to 65535")?)
        }
        Some(_) => return Err("the URL's port is not a number"),
    };
    Ok((host, port))
}

/// A DNS name (RFC 1035 §2.3.1, underscores as well since they are in use) or an IPv4 address in the usual form.
fn check_name(host: &str) -> Result<(), &'static str> {
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err("the URL has no host");
    }
    if host.len() > 253 || !name.split('.').all(label) {
        return Err("the URL's host is not a DNS name or an address");
    }
    // Resolvers read 127.1, 0x7f.1 and 2130706433 as addresses; nobody means them.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && (last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X"));
    if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err("the URL's host is not a DNS name or an address such as 192.0.2.1");
    }
    Ok(())
}

/// A path, with or without a query, after RFC 3986 §5.2.4.
fn without_dots(target: &str) -> String {
    let (path, query) = target.find('?').and_then(|at| target.split_at_checked(at)).unwrap_or((target, ""));
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.pop();
                }
                if last {
                    out.push("");
                }
            }
            _ => out.push(segment),
        }
    }
    format!("/{}{query}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_usual_forms_are_understood() {
        let u = url("http://Example.org");
        assert_eq!((u.https, u.host.as_str(), u.port, u.target.as_str()), (false, "example.org", 80, "/"));
        let u = url("HTTPS://board.local:8443/a/b?c=d/e#f");
        assert_eq!((u.https, u.host.as_str(), u.port, u.target.as_str()), (true, "board.local", 8443, "/a/b?c=d/e"));
        assert_eq!(u.host_field(), "board.local:8443");
        let u = url("http://[::1]:8080?q");
        assert_eq!((u.host.as_str(), u.port, u.target.as_str()), ("::1", 8080, "/?q"));
        assert_eq!(u.host_field(), "[::1]:8080");
        assert_eq!(url("https://a:443/").host_field(), "a");
        assert_eq!(url("http://192.0.2.1:").address(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(url("https://h/secret?sig=x").to_string(), "https://h");
    }

    #[test]
    fn what_is_no_plain_http_url_is_refused() {
        for text in [
            "",
            "http:",
            "http:/a",
            "http://",
            "http:///a",
            "ftp://a/",
            "file:///etc/passwd",
            "//a/b",
            "a/b",
            "http://user@a/",
            "http://user:pw@a/",
            "http://a b/",
            "http://a/\r\nX: y",
            "http://ä/",
            "http://a:0/",
            "http://a:65536/",
            "http://a:x/",
            "http://a:+1/",
            "http://a:1:2/",
            "http://[::1/",
            "http://[x]/",
            "http://[::1]x/",
            "http://a..b/",
            "http://.a/",
            "http://a/\0",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0x7f000001/",
            "http://127.0.0.0x1/",
            "http://1.2.3.4.5/",
            "http://a%00b/",
            "http://::1/",
            "http://a\\b/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse(&format!("http://a/{}", "x".repeat(MAX_URL))).is_err());
        assert!(Url::parse(&format!("http://{}/", "x".repeat(64))).is_err());
    }

    #[test]
    fn redirects_are_resolved_against_where_they_came_from() {
        let base = url("https://h:1/a/b?q");
        for (location, want) in [
            ("/c", "/c"),
            ("c", "/a/c"),
            ("../c", "/c"),
            ("../../../c", "/c"),
            ("./c/./d", "/a/c/d"),
            ("?r", "/a/b?r"),
            ("", "/a/b?q"),
            ("#f", "/a/b?q"),
            ("c/..", "/a/"),
            ("/c?x=../y#z", "/c?x=../y"),
            ("c:d/../..", ""),
        ] {
            match base.join(location) {
                Ok(u) => assert_eq!((u.target.as_str(), u.host.as_str(), u.port), (want, "h", 1), "{location}"),
                Err(_) => assert_eq!(want, "", "{location}"),
            }
        }
        assert_eq!(base.join("http://o/x").unwrap(), url("http://o/x"));
        assert_eq!(base.join("//o/x").unwrap(), url("https://o/x"));
        assert!(base.join("/a\r\nb").is_err());
        assert!(base.join("javascript:alert(1)").is_err());
    }
}
