//! Any bytes as a URL and a redirect's address.

#![no_main]

#[path = "../targets/urls.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
