//! Any bytes as what a gRPC caller sends.

#![no_main]

#[path = "../targets/grpc_messages.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
