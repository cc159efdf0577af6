//! Who may ask the management API: people and programs with a token, or whoever is on this machine; never the page of
//! another site in somebody's browser.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::host_of;
use crate::client::Client;
use crate::http_server::Head;
use crate::tokens::{Tokens, bearer};

/// Wrong tokens that an address may send in a row, and how long it takes until one of them is forgiven.
const FAILURES: u32 = 10;
const FORGIVEN_AFTER: Duration = Duration::from_secs(6);
/// Addresses whose failures are remembered; at the bound the one that failed longest ago is forgotten.
const ADDRESSES: usize = 64;

/// Endings of names that no public name has, so that no stranger's page has one: RFC 6762 §3, RFC 6761 §6.3, RFC 8375, and
/// those that ICANN keeps free or home networks use.
const PRIVATE: [&str; 6] = [".localhost", ".local", ".home.arpa", ".internal", ".lan", ".home"];

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) status: u16,
    /// A further field of the answer.
    pub(super) field: Option<(&'static str, &'static str)>,
    pub(super) text: &'static str,
}

/// Says who asks: the name of a token, or nobody where none is needed. `is_handler` tells whether a function asks, for which
/// being on this machine does not do.
///
/// # Errors
/// The answer to give instead.
pub(super) fn admit<'t>(
    head: &Head,
    tokens: Option<&'t Tokens>,
    public_host: Option<&str>,
    failures: &Failures,
    is_handler: impl FnOnce() -> bool,
) -> Result<Option<&'t str>, Denial> {
    let other_site = Denial {
        status: 403,
        field: None,
        text: "a page of another site may not ask this: open the server's own address, or use tinyfaas or curl",
    };
    if !is_own_page(head) {
        return Err(other_site);
    }
    let Some(tokens) = tokens else {
        return match is_named_as_ours(head, public_host) {
            true if is_handler() => Err(HANDLER),
            true => Ok(None),
            false => Err(NOT_OURS),
        };
    };
    let (address, now) = (Client::of(head.peer.ip()), Instant::now());
    if failures.are_too_many(address, now) {
        return Err(TOO_MANY);
    }
    let token = head.headers.get_str("authorization").and_then(bearer);
    let name = token.and_then(|token| tokens.name_of(token));
    if name.is_none() && token.is_some() {
        // Who goes on guessing fills no log: it may be on flash.
        let level = if failures.count(address, now) { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "management: a wrong token from {}", head.peer.ip());
    }
    name.map(Some).ok_or(NO_TOKEN)
}

const NOT_OURS: Denial = Denial {
    status: 421,
    field: None,
    text: "this name may be another's (DNS rebinding): use an IP address, localhost, a local name, the --public-host, or tokens",
};
const HANDLER: Denial = Denial {
    status: 403,
    field: None,
    text: "a function may not manage functions: start the server with a --token-file and send one of its tokens",
};
const TOO_MANY: Denial =
    Denial { status: 429, field: Some(("retry-after", "6")), text: "too many wrong tokens from your address: wait" };
const NO_TOKEN: Denial = Denial {
    status: 401,
    field: Some(("www-authenticate", "Bearer realm=\"tinyfaas\"")),
    text: "this needs a token: send Authorization: Bearer TOKEN, or set TINYFAAS_TOKEN for the command line",
};

/// Whether it does not come from a browser, or from a page that this server gave it (Fetch Metadata; RFC 6454 §7).
fn is_own_page(head: &Head) -> bool {
    let site = head.headers.get_str("sec-fetch-site");
    let origin = head.headers.get_str("origin").map(|origin| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|a| head.headers.get_str("host").is_some_and(|host| host.eq_ignore_ascii_case(a)))
    });
    site.is_none_or(|site| matches!(site, "same-origin" | "none")) && origin.unwrap_or(true)
}

/// Whether the name that was asked for cannot be a stranger's, whose address was made ours once his page was loaded.
fn is_named_as_ours(head: &Head, public_host: Option<&str>) -> bool {
    // HTTP/1.0 has no name; browsers always send one.
    let Some(field) = head.headers.get_str("host") else { return true };
    let host = host_of(field).trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.parse::<IpAddr>().is_ok()
        || host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<Ipv6Addr>().is_ok());
    is_address
        || !host.contains('.')
        || PRIVATE.iter().any(|end| host.ends_with(end))
        || public_host.is_some_and(|name| name.eq_ignore_ascii_case(&host))
}

/// Wrong tokens by address.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Vec<Failing>>);

#[derive(Debug)]
struct Failing {
    address: Client,
    /// When all of its failures are forgiven.
    until: Instant,
}

impl Failures {
    fn are_too_many(&self, address: Client, now: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = all.iter().find(|failing| failing.address == address);
        failing.is_some_and(|failing| failing.until > now + FORGIVEN_AFTER * (FAILURES - 1))
    }

    /// Counts one more; whether the address had none before.
    fn count(&self, address: Client, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|failing| failing.until > now);
        match all.iter_mut().find(|failing| failing.address == address) {
            Some(failing) => {
                failing.until += FORGIVEN_AFTER;
                false
            }
            None => {
                if all.len() == ADDRESSES
                    && let Some(oldest) = all.iter().enumerate().min_by_key(|(_, f)| f.until).map(|(n, _)| n)
                {
                    all.swap_remove(oldest);
                }
                all.push(Failing { address, until: now + FORGIVEN_AFTER });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens;
    use crate::wire::headers::Headers;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value.as_bytes()).unwrap();
        }
        Head { method: "POST".into(), target: "/wipe".into(), headers, peer: "10.0.0.9:5000".parse().unwrap() }
    }

    fn status(fields: &[(&str, &str)], tokens: Option<&Tokens>) -> u16 {
        admit(&head(fields), tokens, Some("board.example.org"), &Failures::default(), || false)
            .map_or_else(|d| d.status, |_| 200)
    }

    #[test]
    fn pages_of_other_sites_are_kept_out_and_our_own_are_not() {
        for (fields, expected) in [
            (&[("host", "localhost:8080")][..], 200),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], 200),
            (
                &[("host", "localhost:8080"), ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")],
                200,
            ),
            (&[("host", "localhost:8080"), ("sec-fetch-site", "none")], 200),
            (&[("host", "localhost:8080"), ("origin", "https://evil.example")], 403),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:9999")], 403),
            (&[("host", "localhost:8080"), ("origin", "null")], 403),
            (&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")], 403),
            (&[("host", "localhost:8080"), ("sec-fetch-site", "same-site")], 403),
        ] {
            assert_eq!(status(fields, None), expected, "{fields:?}");
            let tokens = Tokens::parse(&tokens::line("a", "t")).unwrap();
            let with_token = [fields, &[("authorization", "Bearer t")]].concat();
            assert_eq!(status(&with_token, Some(&tokens)), expected, "{fields:?} with a token");
        }
    }

    #[test]
    fn a_name_that_may_be_a_strangers_is_refused() {
        for ours in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "10.1.2.3",
            "board",
            "board:8080",
            "board.local",
            "a.lan:80",
            "Board.Example.org:8080",
            "board.home.arpa.",
        ] {
            assert_eq!(status(&[("host", ours)], None), 200, "{ours}");
        }
        for theirs in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"] {
            assert_eq!(status(&[("host", theirs)], None), 421, "{theirs}");
        }
        // A stranger's page has no token.
        let tokens = Tokens::parse(&tokens::line("a", "t")).unwrap();
        assert_eq!(status(&[("host", "behind.a.proxy.example"), ("authorization", "Bearer t")], Some(&tokens)), 200);
    }

    #[test]
    fn a_token_is_needed_where_there_are_tokens_and_who_has_it_is_known() {
        let tokens = Tokens::parse(&[tokens::line("ann", "t"), tokens::line("ci", "u")].concat()).unwrap();
        let failures = Failures::default();
        let ask = |fields: &[(&str, &str)]| {
            admit(&head(fields), Some(&tokens), None, &failures, || true)
                .map(|name| name.map(str::to_owned))
                .map_err(|d| d.status)
        };
        assert_eq!(ask(&[("host", "b"), ("authorization", "Bearer u")]), Ok(Some("ci".into())));
        assert_eq!(ask(&[("host", "b")]), Err(401));
        assert_eq!(ask(&[("host", "b"), ("authorization", "Basic dTp1")]), Err(401));
        assert_eq!(ask(&[("host", "b"), ("authorization", "Bearer wrong")]), Err(401));
        assert_eq!(NO_TOKEN.field, Some(("www-authenticate", "Bearer realm=\"tinyfaas\"")));
    }

    #[test]
    fn an_address_that_guesses_has_to_wait_and_others_do_not() {
        let tokens = Tokens::parse(&tokens::line("ann", "t")).unwrap();
        let failures = Failures::default();
        let ask = |token: &str| {
            let head = head(&[("host", "b"), ("authorization", token)]);
            admit(&head, Some(&tokens), None, &failures, || true).map_err(|d| d.status)
        };
        for _ in 0..FAILURES {
            assert_eq!(ask("Bearer wrong"), Err(401));
        }
        assert_eq!(ask("Bearer wrong"), Err(429));
        assert_eq!(ask("Bearer t"), Err(429), "else it would learn which one is right");
        let mut other = head(&[("host", "b"), ("authorization", "Bearer t")]);
        other.peer = "10.0.0.10:5000".parse().unwrap();
        assert_eq!(admit(&other, Some(&tokens), None, &failures, || true), Ok(Some("ann")));
    }

    #[test]
    fn failures_are_forgiven_one_by_one_and_the_table_is_bounded() {
        let failures = Failures::default();
        let (a, now) = (Client::of([10, 0, 0, 1].into()), Instant::now());
        assert!(failures.count(a, now), "the first is worth a line of the log");
        assert!((1..FAILURES).all(|_| !failures.count(a, now)));
        assert!(failures.are_too_many(a, now));
        assert!(!failures.are_too_many(a, now + FORGIVEN_AFTER));
        for n in 0..1000_u32 {
            failures.count(Client::of(n.to_be_bytes().into()), now + FORGIVEN_AFTER);
        }
        assert_eq!(failures.0.lock().unwrap().len(), ADDRESSES);
        assert!(failures.0.lock().unwrap().iter().any(|f| f.address == a), "who failed most is kept");
    }
}
