//! The fuzz target for gRPC messages, on stable: its corpus, and a million inputs from a seed.

use std::path::Path;

use tinyfaas::cli::grpc_client::framed_gzip;
use tinyfaas::wire::grpc::message::{Data, HealthCheckRequest, framed};

#[path = "../../fuzz/targets/grpc_messages.rs"]
mod target;

/// How many inputs a test run tries.
const INPUTS: usize = 1_000_000;

#[test]
fn every_input_of_the_corpus_keeps_the_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/grpc_messages");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "the corpus is there");
    for file in files {
        target::run(&std::fs::read(file).unwrap());
    }
}

#[test]
fn a_million_seeded_inputs_keep_the_promises() {
    let data = Data { function_identifier: "echo".into(), data: "hello".into(), payload: Some("bytes".into()) };
    let health = framed(&HealthCheckRequest { service: "echo".into() });
    let ping = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x08\x06\0\0\0\0\0";
    let seeds = [
        framed(&data).to_vec(),
        [framed(&data), health].concat(),
        framed_gzip(b"hello hello hello").to_vec(),
        framed_gzip(b"hello hello hello")[5..].to_vec(),
        ping.to_vec(),
        b"500m".to_vec(),
        b"grpc.health.v1.Health".to_vec(),
    ];
    let mut rng = fastrand::Rng::with_seed(20_261_123);
    let mut input = Vec::new();
    for _ in 0..INPUTS {
        input.clear();
        input.extend([rng.u8(..20), rng.u8(..40)]);
        input.extend_from_slice(&seeds[rng.usize(..seeds.len())]);
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..input.len());
            match rng.u8(..5) {
                0 => input[at] ^= 1 << rng.u8(..8),
                1 => input[at] = rng.u8(..),
                2 => input.truncate(at.max(2)),
                3 => input.insert(at, rng.u8(..)),
                _ => input.extend_from_within(at..),
            }
        }
        target::run(&input);
    }
}
