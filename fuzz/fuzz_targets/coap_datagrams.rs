//! Any bytes as a story of datagrams, answers and time for a CoAP server endpoint.

#![no_main]

#[path = "../targets/coap_datagrams.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|story: &[u8]| target::run(story));
