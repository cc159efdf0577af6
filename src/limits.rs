//! The limits of a function as people write them, in an upload or as flags, and how far each may go.
//!
//! What is out of range is refused with one line that says what is right.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::quantity;

/// Least memory of a handler in bytes: engines refuse less.
const MIN_MEMORY: u64 = 6 * 1024 * 1024;
/// Processes of one handler; the most is the kernel's own default maximum.
const PIDS: RangeInclusive<u32> = 1..=32_768;
/// Longest timeout: a call is not a job.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Shortest time without a call before handlers are stopped: starting them takes its time.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Calls at once in a handler, and waiting for a function; the most of both bounds memory.
const CONCURRENCY: RangeInclusive<usize> = 1..=4096;
const QUEUE: RangeInclusive<usize> = 0..=65_536;

/// Memory of a handler in bytes; 0 for no limit.
///
/// # Errors
/// One line that says what is right.
pub fn memory(text: &str) -> Result<u64, String> {
    match quantity::bytes(text)? {
        n if n != 0 && n < MIN_MEMORY => Err(format!("{text:?} is too little: use 6Mi or more, or 0 for no limit")),
        n => Ok(n),
    }
}

/// Processor time of a handler in thousandths of a core; 0 for no limit.
///
/// # Errors
/// One line that says what is right.
pub fn cpu(text: &str) -> Result<u32, String> {
    quantity::cpu_millis(text)
}

/// Processes and threads in a handler.
///
/// # Errors
/// One line that says what is right.
pub fn pids(text: &str) -> Result<u32, String> {
    whole(text, &PIDS)
}

/// Longest time of a call.
///
/// # Errors
/// One line that says what is right.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let time = quantity::duration(text)?;
    if time > MAX_TIMEOUT { Err(format!("{text:?} is too long: use 24h or less")) } else { Ok(time) }
}

/// Calls that one handler works on at once.
///
/// # Errors
/// One line that says what is right.
pub fn concurrency(text: &str) -> Result<usize, String> {
    whole(text, &CONCURRENCY)
}

/// Calls that may wait for a handler.
///
/// # Errors
/// One line that says what is right.
pub fn queue(text: &str) -> Result<usize, String> {
    whole(text, &QUEUE)
}

/// How long nobody may have called before a function's handlers are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// They are never stopped.
    Off,
    /// They are stopped after so long.
    After(Duration),
}

impl Idle {
    /// The time, unless it is off.
    pub const fn time(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(time) => Some(time),
        }
    }
}

impl std::fmt::Display for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::After(time) => f.write_str(&quantity::show_duration(*time)),
        }
    }
}

/// Time without a call after which handlers are stopped, or `off`.
///
/// # Errors
/// One line that says what is right.
pub fn idle(text: &str) -> Result<Idle, String> {
    if text == "off" {
        return Ok(Idle::Off);
    }
    match quantity::duration(text) {
        Ok(time) if time >= MIN_IDLE => Ok(Idle::After(time)),
        Ok(_) => Err(format!("{text:?} is too short: use 1s or more, or off")),
        Err(why) => Err(format!("{why}, or off")),
    }
}

fn whole<T: TryFrom<usize> + PartialOrd + std::fmt::Display>(
    text: &str,
    range: &RangeInclusive<T>,
) -> Result<T, String> {
    let number = quantity::count_or_zero(text).ok().and_then(|n| T::try_from(n).ok());
    number.filter(|n| range.contains(n)).ok_or_else(|| {
        format!("{text:?} is out of range: use a whole number from {} to {}", range.start(), range.end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_themselves_are_taken_and_what_is_beyond_is_refused_with_what_is_right() {
        assert_eq!((memory("0"), memory("6Mi"), cpu("500m")), (Ok(0), Ok(MIN_MEMORY), Ok(500)));
        assert_eq!((pids("1"), pids("32768")), (Ok(1), Ok(32_768)));
        assert_eq!((concurrency("4096"), queue("0"), queue("65536")), (Ok(4096), Ok(0), Ok(65_536)));
        assert_eq!(timeout("24h"), Ok(MAX_TIMEOUT));
        assert_eq!((idle("off"), idle("5m")), (Ok(Idle::Off), Ok(Idle::After(Duration::from_secs(300)))));
        for (error, right) in [
            (idle("999ms").unwrap_err(), "1s or more, or off"),
            (idle("5").unwrap_err(), "such as 30s, or off"),
            (memory("6143Ki").unwrap_err(), "use 6Mi or more, or 0"),
            (memory("64MB").unwrap_err(), "such as 64Mi"),
            (cpu("half").unwrap_err(), "such as 500m"),
            (pids("0").unwrap_err(), "from 1 to 32768"),
            (pids("4294967297").unwrap_err(), "from 1 to 32768"),
            (pids("+1").unwrap_err(), "from 1 to 32768"),
            (timeout("0s").unwrap_err(), "such as 30s"),
            (timeout("25h").unwrap_err(), "24h or less"),
            (concurrency("0").unwrap_err(), "from 1 to 4096"),
            (queue("65537").unwrap_err(), "from 0 to 65536"),
            (queue("99999999999999999999").unwrap_err(), "from 0 to 65536"),
        ] {
            assert!(error.contains(right), "{error}");
        }
    }
}
