//! The `grpc-timeout` header: at most eight digits and a unit.

use std::time::Duration;

/// Reads a `grpc-timeout` value such as `500m`; `None` where it is not one.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (&unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut n = 0u64;
    for d in digits {
        n = n * 10 + u64::from(char::from(*d).to_digit(10)?);
    }
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Writes a `grpc-timeout` value that is not under `timeout` by more than the unit that eight digits allow.
pub fn format(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let units = [(timeout.as_micros(), 'u'), (timeout.as_millis(), 'm'), (u128::from(timeout.as_secs()), 'S')];
    match units.into_iter().find(|(n, _)| *n <= MOST) {
        Some((n, unit)) => format!("{n}{unit}"),
        None => format!("{MOST}S"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_known() {
        assert_eq!(parse(b"2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse(b"3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse(b"500m"), Some(Duration::from_millis(500)));
        assert_eq!(parse(b"7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse(b"0n"), Some(Duration::ZERO));
        assert_eq!(parse(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_refused() {
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789n", " 1S", "1S ", "1\u{661}S"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_written_timeout_reads_back() {
        for ms in [0, 1, 1500, 99_999, 86_400_000, 400_000_000_000] {
            let timeout = Duration::from_millis(ms);
            let text = format(timeout);
            assert!(text.len() <= 9, "{text}");
            assert_eq!(parse(text.as_bytes()), Some(timeout.min(Duration::from_secs(99_999_999))), "{text}");
        }
    }
}
