//! Where something new is: an HTTP `location` field as Location-Path and Location-Query (RFC 7252 §5.10.7).

use crate::wire::http1::percent_decode;

/// A path and perhaps a query on this server, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(Box<str>);

/// Longest location in bytes: with it and a whole block an answer still fits a link of 1280 bytes.
const MAX: usize = 96;

impl Location {
    /// Reads a `location` field; `None` where the options cannot say it: it is on another server, relative, too long, or a
    /// segment of it is `.` or `..`.
    pub fn parse(field: &str) -> Option<Self> {
        let reference = field.split('#').next().unwrap_or_default().trim();
        // A second slash begins the name of another server (RFC 3986 §4.2).
        if !reference.starts_with('/') || reference.starts_with("//") || reference.len() > MAX {
            return None;
        }
        let location = Self(reference.into());
        let is_plain = |part: Option<String>| part.is_some_and(|part| !matches!(&*part, "." | ".."));
        (location.raw_path().all(|s| is_plain(percent_decode(s)))
            && location.raw_query().all(|p| percent_decode(p).is_some()))
        .then_some(location)
    }

    /// The segments of its path.
    pub fn path(&self) -> impl Iterator<Item = String> {
        self.raw_path().filter_map(percent_decode)
    }

    /// The parts of its query.
    pub fn query(&self) -> impl Iterator<Item = String> {
        self.raw_query().filter_map(percent_decode)
    }

    fn raw_path(&self) -> impl Iterator<Item = &str> {
        let path = self.0.split('?').next().unwrap_or_default();
        // The path `/` alone has no segment (RFC 7252 §6.4).
        path.strip_prefix('/').filter(|path| !path.is_empty()).into_iter().flat_map(|path| path.split('/'))
    }

    fn raw_query(&self) -> impl Iterator<Item = &str> {
        self.0.split_once('?').into_iter().flat_map(|(_, query)| query.split('&'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_query_are_cut_into_segments_and_parts() {
        let parts = |field: &str| {
            let location = Location::parse(field)?;
            Some((location.path().collect::<Vec<_>>().join("|"), location.query().collect::<Vec<_>>().join("|")))
        };
        let both = |path: &str, query: &str| Some((path.to_owned(), query.to_owned()));
        assert_eq!(parts("/store/17"), both("store|17", ""));
        assert_eq!(parts("/a%2Fb/%C3%BC/?x=1&y=%26#top"), both("a/b|\u{fc}|", "x=1|y=&"));
        assert_eq!(parts("/"), both("", ""));
    }

    #[test]
    fn what_the_options_cannot_say_is_none() {
        let long = format!("/{}", "a".repeat(MAX));
        for field in ["", "17", "../17", "/a/../b", "/%2e%2E/b", "//other/17", "coap://other/17", "/%4", "/%ff", &long]
        {
            assert_eq!(Location::parse(field), None, "{field}");
        }
        assert!(Location::parse(&long[..MAX]).is_some());
    }
}
