//! Any bytes as what an HTTP/1 peer sends.

#![no_main]

#[path = "../targets/http_messages.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
