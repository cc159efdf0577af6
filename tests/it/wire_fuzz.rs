//! The fuzz targets of the other formats and of the dispatcher, on stable: their corpora, and inputs spoilt by a seed.

use std::path::Path;

#[path = "../../fuzz/targets/dispatch_operations.rs"]
mod dispatch_operations;
#[path = "../../fuzz/targets/engine_streams.rs"]
mod engine_streams;
#[path = "../../fuzz/targets/http_messages.rs"]
mod http_messages;
#[path = "../../fuzz/targets/settings.rs"]
mod settings;
#[path = "../../fuzz/targets/upload_bodies.rs"]
mod upload_bodies;
#[path = "../../fuzz/targets/urls.rs"]
mod urls;
#[path = "../../fuzz/targets/zip_archives.rs"]
mod zip_archives;

/// Spoilt inputs of a test run for each target; fuzz/run tries more.
const INPUTS: usize = 100_000;
/// Stories of random steps that a dispatcher is told.
const STORIES: u64 = 4_000;

/// Runs the corpus of a target, and inputs that are made of it by small changes.
fn keep_their_promises(name: &str, run: fn(&[u8])) {
    keep_promises(name, INPUTS, run);
}

fn keep_promises(name: &str, inputs: usize, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 5, "the corpus is there");
    seeds.iter().for_each(|seed| run(seed));
    let mut rng = fastrand::Rng::with_seed(20_261_124);
    for _ in 0..inputs {
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

#[test]
fn urls_keep_their_promises() {
    keep_their_promises("urls", urls::run);
}

#[test]
fn settings_keep_their_promises() {
    keep_their_promises("settings", settings::run);
}

#[test]
fn engine_streams_keep_their_promises() {
    // Each is a request through the whole client.
    keep_promises("engine_streams", INPUTS / 10, engine_streams::run);
}

#[test]
fn dispatch_operations_keep_their_promises() {
    keep_their_promises("dispatch_operations", dispatch_operations::run);
    let mut story = Vec::new();
    for seed in 0..STORIES {
        // Shown only where the test fails.
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        story.clear();
        story.extend(std::iter::repeat_with(|| rng.u8(..)).take(200));
        dispatch_operations::run(&story);
    }
}
