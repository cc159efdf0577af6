//! Any bytes as what people write: files of settings and of tokens, amounts and limits, a function's name.
//!
//! The first byte chooses which.

use std::fmt::{Debug, Display};

use tinyfaas::function::{Name, Runtime};
use tinyfaas::{config_file, limits, logging, quantity, tokens};

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kind % 4 {
        0 => {
            if let Err(why) = config_file::read_settings(text) {
                is_one_line(&why, text);
            }
        }
        1 => match tokens::Tokens::parse(text) {
            Ok(tokens) => assert!((1..=256).contains(&tokens.digests().count())),
            Err(why) => is_one_line(&why, text),
        },
        _ => look_at(text),
    }
}

fn look_at(text: &str) {
    reads_again(text, quantity::bytes, |n| quantity::show_bytes(*n));
    reads_again(text, quantity::duration, |time| quantity::show_duration(*time));
    for read in [limits::memory(text).is_ok(), limits::cpu(text).is_ok(), limits::timeout(text).is_ok()] {
        // Zeros in front mean nothing.
        let short = text.trim_start_matches('0').len() <= 40;
        assert!(!read || short && text.is_ascii(), "{text:?} is an amount?");
    }
    reads_again(text, limits::idle, ToString::to_string);
    reads_again(text, limits::pids, ToString::to_string);
    reads_again(text, limits::concurrency, ToString::to_string);
    reads_again(text, limits::queue, ToString::to_string);
    reads_again(text, Name::parse, ToString::to_string);
    reads_again(text, Runtime::parse, ToString::to_string);
    reads_again(text, tokens::Digest::parse, ToString::to_string);
    let _ = logging::level(text);
    if Name::parse(text).is_ok() {
        assert!(text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}

/// What is taken is shown in a form that is taken as the same.
fn reads_again<T: PartialEq + Debug>(text: &str, read: fn(&str) -> Result<T, String>, show: fn(&T) -> String) {
    match read(text) {
        Ok(value) => assert_eq!(read(&show(&value)), Ok(value)),
        Err(why) => is_one_line(&why, text),
    }
}

/// An error is one line, and not much longer than what it speaks of.
fn is_one_line(why: &(impl Display + ?Sized), text: &str) {
    let why = why.to_string();
    assert!(!why.contains('\n') && why.len() <= 400 + 8 * text.len(), "{why:?}");
}
