//! Any bytes as a zip archive.

#![no_main]

#[path = "../targets/zip_archives.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
