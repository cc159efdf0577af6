//! Any bytes as what people write: files of settings and tokens, amounts, addresses.

#![no_main]

#[path = "../targets/settings.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
