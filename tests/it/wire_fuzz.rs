//! The fuzz targets of the other wire formats, on stable: their corpora, and inputs spoilt by a seed.

use std::path::Path;

#[path = "../../fuzz/targets/http_messages.rs"]
mod http_messages;
#[path = "../../fuzz/targets/upload_bodies.rs"]
mod upload_bodies;
#[path = "../../fuzz/targets/zip_archives.rs"]
mod zip_archives;

/// Spoilt inputs of a test run for each target; fuzz/run tries more.
const INPUTS: usize = 100_000;

/// Runs the corpus of a target, and inputs that are made of it by small changes.
fn keep_their_promises(name: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 5, "the corpus is there");
    seeds.iter().for_each(|seed| run(seed));
    let mut rng = fastrand::Rng::with_seed(20_261_124);
    for _ in 0..INPUTS {
        let mut input = seeds[rng.usize(..seeds.len())].clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..input.len().max(1));
            match rng.u8(..4) {
                0 if !input.is_empty() => input[at] ^= 1 << rng.u8(..8),
                1 if !input.is_empty() => input[at] = rng.u8(..),
                2 => input.truncate(at),
                _ => input.insert(at.min(input.len()), b"\r\n/.:;\"0\0"[rng.usize(..9)]),
            }
        }
        run(&input);
    }
}

#[test]
fn http_messages_keep_their_promises() {
    keep_their_promises("http_messages", http_messages::run);
}

#[test]
fn zip_archives_keep_their_promises() {
    keep_their_promises("zip_archives", zip_archives::run);
}

#[test]
fn upload_bodies_keep_their_promises() {
    keep_their_promises("upload_bodies", upload_bodies::run);
}
