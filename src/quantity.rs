//! Amounts as people write them: bytes (`64Ki`), times (`30s`), counts.
//!
//! Parsing is strict, and an error says what would be right. What is shown can be parsed again.

use std::time::{Duration, SystemTime};

/// Longest time that is taken, in seconds (one year): adding it to a clock never overflows.
const MAX_SECONDS: u64 = 365 * 24 * 3600;

/// Takes a number of bytes: `0`, `4096`, `64Ki`, `10Mi`, `2Gi`.
///
/// # Errors
/// One line that says which forms there are.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: use bytes, or a number with Ki, Mi or Gi, such as 64Mi");
    let (number, unit) = split(text);
    let scale = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.and_then(|n| n.checked_mul(scale)).ok_or_else(wrong)
}

/// Takes a length of time over zero and up to a year: `500ms`, `30s`, `5m`, `1h`.
///
/// # Errors
/// One line that says which forms there are.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: use a number over 0 with ms, s, m or h, such as 30s");
    let (number, unit) = split(text);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .and_then(|n| n.checked_mul(millis))
        .filter(|n| (1..=MAX_SECONDS * 1000).contains(n))
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

/// Takes a moment: how long before `now`, `10m`, or a time as RFC 3339 writes it in UTC, `2026-01-31T12:00:00Z`.
///
/// # Errors
/// One line that says which forms there are.
pub fn since(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let ago = duration(text).ok().map(|ago| now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
    ago.or_else(|| humantime::parse_rfc3339(text).ok()).ok_or_else(|| {
        format!("{text:?} is no time: say how long ago, such as 10m, or when in UTC, such as 2026-01-31T12:00:00Z")
    })
}

/// Takes processor time in thousandths of a core: `500m`, `2` (cores), `0`; up to 1024 cores.
///
/// # Errors
/// One line that says which forms there are.
pub fn cpu_millis(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no processor time: use cores, or thousandths of one with m, such as 500m");
    let (number, unit) = split(text);
    let millis = match unit {
        "" => number.and_then(|n| n.checked_mul(1000)),
        "m" => number,
        _ => None,
    };
    millis.filter(|&n| n <= 1024 * 1000).and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)
}

/// A number of bytes in the largest unit that it is whole in.
pub fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    show(bytes, &units, "")
}

/// A length of time, whole milliseconds, in the largest unit that it is whole in.
pub fn show_duration(time: Duration) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    show(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &units, "ms")
}

/// Processor time in cores where it is whole cores, else in thousandths.
pub fn show_cpu_millis(millis: u32) -> String {
    show(u64::from(millis), &[(1000, "")], if millis == 0 { "" } else { "m" })
}

fn show(number: u64, units: &[(u64, &str)], smallest: &str) -> String {
    let unit = units.iter().find(|(scale, _)| number > 0 && number.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{number}{smallest}"), |(scale, unit)| format!("{}{unit}", number / scale))
}

/// Takes a count of at least 1.
///
/// # Errors
/// One line that says what is right.
pub fn count(text: &str) -> Result<usize, String> {
    match number(text).and_then(|n| usize::try_from(n).ok()) {
        Some(n) if n > 0 => Ok(n),
        _ => Err(format!("{text:?} is no count: use a whole number of at least 1")),
    }
}

/// Takes a count that may be 0.
///
/// # Errors
/// One line that says what is right.
pub fn count_or_zero(text: &str) -> Result<usize, String> {
    number(text)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| format!("{text:?} is no count: use a whole number of at least 0"))
}

/// Splits `10Mi` in its number and its unit.
fn split(text: &str) -> (Option<u64>, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (number(digits), unit)
}

/// Digits and nothing else: `str::parse` takes a sign too.
fn number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units_and_nothing_else() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64Ki"), Ok(65_536));
        assert_eq!(bytes("10Mi"), Ok(10_485_760));
        assert_eq!(bytes("2Gi"), Ok(2_147_483_648));
        for wrong in
            ["", "Ki", "64k", "64KB", "64 Ki", "-1", "+1", "1.5Mi", "64Ki ", "99999999999999999999", "17179869184Gi"]
        {
            let error = bytes(wrong).unwrap_err();
            assert!(error.contains("such as 64Mi"), "{wrong}: {error}");
        }
    }

    #[test]
    fn processor_time_is_in_cores_or_thousandths() {
        assert_eq!(cpu_millis("500m"), Ok(500));
        assert_eq!(cpu_millis("2"), Ok(2000));
        assert_eq!(cpu_millis("0"), Ok(0));
        assert_eq!(cpu_millis("1024"), Ok(1_024_000));
        for wrong in ["", "m", "0.5", "-1", "+1", "1025", "500M", "500 m", "4294967297m", "18446744073709551615"] {
            assert!(cpu_millis(wrong).unwrap_err().contains("such as 500m"), "{wrong}");
        }
    }

    #[test]
    fn times_need_a_unit_and_are_over_zero_and_at_most_a_year() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("8760h"), Ok(Duration::from_secs(MAX_SECONDS)));
        for wrong in ["", "30", "0s", "s", "-1s", "1.5s", "30S", "1d", "8761h", "18446744073709551615h"] {
            let error = duration(wrong).unwrap_err();
            assert!(error.contains("such as 30s"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_the_shortest_form_that_says_the_same() {
        for text in ["0", "1", "1000", "1Ki", "1025", "64Mi", "1025Ki", "3Gi"] {
            assert_eq!(show_bytes(bytes(text).unwrap()), text);
        }
        for text in ["1ms", "1500ms", "1s", "90s", "2m", "61m", "1h", "25h"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0", "1m", "500m", "1", "1500m", "1024"] {
            assert_eq!(show_cpu_millis(cpu_millis(text).unwrap()), text);
        }
        assert_eq!(show_duration(duration("60s").unwrap()), "1m");
    }

    #[test]
    fn counts_are_whole_numbers() {
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count_or_zero("0"), Ok(0));
        for wrong in ["0", "", "-1", "+1", "1.0", "x", "99999999999999999999"] {
            assert!(count(wrong).unwrap_err().contains("at least 1"), "{wrong}");
        }
        for wrong in ["", "-1", "1k"] {
            assert!(count_or_zero(wrong).unwrap_err().contains("at least 0"), "{wrong}");
        }
    }
}
