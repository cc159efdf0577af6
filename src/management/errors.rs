//! `GET /errors`: the last calls that failed, as JSON.

use serde::Serialize;

use crate::dispatch::errors::Failed;

/// A call that failed.
#[derive(Serialize)]
struct Shown<'a> {
    function: &'a str,
    protocol: &'static str,
    status: u16,
    /// Not a time of the day: a board without a clock of its own does not know that.
    seconds_ago: u64,
    /// The id of the last one.
    call: &'a str,
    times: u32,
    text: &'a str,
}

/// A JSON array of them, one a line.
pub(super) fn array(errors: &[Failed]) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for (n, failed) in errors.iter().enumerate() {
        out.extend_from_slice(if n == 0 { b"\n" } else { b",\n" });
        let shown = Shown {
            function: &failed.function,
            protocol: failed.protocol.name(),
            status: failed.status,
            seconds_ago: failed.at.elapsed().as_secs(),
            call: failed.id.as_str(),
            times: failed.times,
            text: &failed.text,
        };
        // A struct of numbers and strings always becomes JSON.
        out.append(&mut serde_json::to_vec(&shown).unwrap_or_default());
    }
    out.extend_from_slice(if errors.is_empty() { b"]\n" } else { b"\n]\n" });
    out
}
