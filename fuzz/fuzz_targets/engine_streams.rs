//! Any bytes as what a Docker engine answers.

#![no_main]

#[path = "../targets/engine_streams.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
