//! Counts cheap HTTP/2 frames, so that a peer that sends little else can be told from one that makes calls.
//!
//! `h2` bounds what each frame can make it hold, but answers any number of PING and SETTINGS frames and lets streams be
//! opened and reset without end (CVE-2019-9512, CVE-2019-9515, CVE-2019-9518, CVE-2023-44487). Here every frame that
//! asks for work without being part of a call costs credit; calls, bytes that the peer let us send, and time give it
//! back.

use std::time::{Duration, Instant};

/// Credit that a peer starts with and never passes: allows for a burst, such as a full house of streams cancelled.
pub const CREDIT_MAX: i64 = 1000;
/// Credit that comes back each second.
pub const CREDIT_PER_SECOND: i64 = 200;
/// Each so many bytes sent to the peer earn one credit: its WINDOW_UPDATE and PING frames go with them.
pub const BYTES_PER_CREDIT: usize = 512;

/// What a call earns: clients send up to two WINDOW_UPDATE frames and a PING with each.
const HEADERS: i64 = 2;
/// What a piece of a call's body earns.
const DATA: i64 = 1;
/// What any other frame costs.
const OTHER: i64 = -1;
/// What giving up a stream costs: more than opening it earned.
const RESET: i64 = -4;

/// Length in bytes of the client's connection preface, RFC 9113 §3.4.
const PREFACE: usize = 24;
/// Length in bytes of a frame header, RFC 9113 §4.1.
const HEADER: usize = 9;

/// Follows the frame headers in what a peer sends.
#[derive(Debug)]
pub struct FloodMeter {
    credit: i64,
    /// Bytes sent that did not earn a whole credit yet.
    sent: usize,
    refilled: Instant,
    /// Bytes to pass over before the next frame header.
    skip: usize,
    header: [u8; HEADER],
    header_len: usize,
}

impl FloodMeter {
    /// A meter for a connection that starts at `now` with the client's preface.
    pub fn new(now: Instant) -> Self {
        Self { credit: CREDIT_MAX, sent: 0, refilled: now, skip: PREFACE, header: [0; HEADER], header_len: 0 }
    }

    /// Counts `bytes` that were received; `false` when the peer's credit is used up.
    #[must_use]
    pub fn received(&mut self, bytes: &[u8], now: Instant) -> bool {
        let mut rest = bytes;
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = rest.get(skipped..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            // Not empty and nothing to skip: this byte belongs to a frame header.
            if let (Some((&byte, after)), Some(place)) = (rest.split_first(), self.header.get_mut(self.header_len)) {
                *place = byte;
                self.header_len += 1;
                rest = after;
            }
            if self.header_len == HEADER {
                self.header_len = 0;
                let [a, b, c, kind, ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.credit = (self.credit + value(kind, self.skip)).min(CREDIT_MAX);
            }
        }
        if self.credit <= CREDIT_MAX / 2 {
            self.refill(now);
        }
        self.credit > 0
    }

    /// Counts `n` bytes that were sent to the peer.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        // What the peer makes us send in answer to cheap frames is far less than a credit's worth.
        self.credit = (self.credit + i64::try_from(self.sent / BYTES_PER_CREDIT).unwrap_or(0)).min(CREDIT_MAX);
        self.sent %= BYTES_PER_CREDIT;
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).min(Duration::from_secs(60));
        let earned = i64::try_from(passed.as_millis()).unwrap_or(0) * CREDIT_PER_SECOND / 1000;
        if earned > 0 {
            self.refilled = now;
            self.credit = (self.credit + earned).min(CREDIT_MAX);
        }
    }
}

/// What a frame of this type (RFC 9113 §6) and payload length earns.
const fn value(kind: u8, length: usize) -> i64 {
    match kind {
        0 if length > 0 => DATA,
        1 => HEADERS,
        3 => RESET,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE_BYTES: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        bytes.resize(HEADER + usize::from(length), kind);
        bytes
    }

    fn started(now: Instant) -> FloodMeter {
        let mut meter = FloodMeter::new(now);
        assert!(meter.received(PREFACE_BYTES, now));
        meter
    }

    /// How many times `frames` can be received before the credit is used up; at most 100,000.
    fn allowed(meter: &mut FloodMeter, frames: &[u8], now: Instant) -> usize {
        (0..100_000).take_while(|_| meter.received(frames, now)).count()
    }

    #[test]
    fn pings_settings_priorities_and_unknown_frames_use_credit_up() {
        let now = Instant::now();
        for (kind, length) in [(2, 5), (4, 0), (6, 8), (8, 4), (9, 0), (0, 0), (77, 3)] {
            assert_eq!(allowed(&mut started(now), &frame(kind, length), now), 999, "type {kind}");
        }
    }

    #[test]
    fn streams_opened_and_reset_use_credit_up() {
        let now = Instant::now();
        let rapid = [frame(1, 20), frame(3, 4)].concat();
        assert_eq!(allowed(&mut started(now), &rapid, now), 498);
    }

    #[test]
    fn calls_with_their_pings_and_window_updates_go_on_forever() {
        let now = Instant::now();
        let call = [frame(1, 20), frame(0, 30), frame(8, 4), frame(8, 4), frame(6, 8)].concat();
        assert_eq!(allowed(&mut started(now), &call, now), 100_000);
    }

    #[test]
    fn frames_are_counted_wherever_the_bytes_are_cut() {
        let now = Instant::now();
        let stream = [PREFACE_BYTES.to_vec(), frame(6, 8), frame(1, 200), frame(4, 0), frame(3, 4)].concat();
        for i in 0..=stream.len() {
            let mut meter = FloodMeter::new(now);
            assert!(meter.received(&stream[..i], now));
            assert!(meter.received(&stream[i..], now));
            assert_eq!(meter.credit, CREDIT_MAX - 1 - 4, "cut at {i}");
        }
    }

    #[test]
    fn time_and_sent_bytes_give_credit_back() {
        let now = Instant::now();
        let mut meter = started(now);
        assert_eq!(allowed(&mut meter, &frame(6, 8), now), 999);
        assert_eq!(allowed(&mut meter, &frame(6, 8), now + Duration::from_secs(1)), 199);
        meter.sent(10 * BYTES_PER_CREDIT);
        assert_eq!(allowed(&mut meter, &frame(6, 8), now + Duration::from_secs(1)), 9);
    }
}
