//! Any bytes as the JSON of an upload.

#![no_main]

#[path = "../targets/upload_bodies.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
