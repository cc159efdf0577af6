//! Any bytes as what befalls a dispatcher.

#![no_main]

#[path = "../targets/dispatch_operations.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
