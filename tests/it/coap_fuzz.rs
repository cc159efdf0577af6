//! The fuzz target for CoAP datagrams, on stable: its corpus, and a million datagrams from a seed.

use std::path::Path;

#[path = "../../fuzz/targets/coap_datagrams.rs"]
mod target;

use target::Story;

#[test]
fn every_story_of_the_corpus_ends_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/coap_datagrams");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "the corpus is there");
    for file in files {
        target::run(&std::fs::read(file).unwrap());
    }
}

/// Datagrams that make sense, to be spoilt: each option we know, each type, both block directions.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        &b"\x40\x00\x12\x34"[..],
        b"\x70\x00\x00\x01",
        b"\x60\x00\x00\x01",
        b"\x41\x01\x00\x01t\xb1f",
        b"\x51\x02\x00\x02t\xb1f\xffbody",
        b"\x44\x03\x00\x03tokn\xb1g\x05x/y z\x10\x41a=1\xffbody",
        b"\x41\x01\x00\x04t\x60\x51f",
        b"\x41\x01\x00\x05t\x61\x01\x51f",
        b"\x41\x05\x00\x06t\x60\x51f\x11\x32\xff{}",
        b"\x41\x01\x00\x07t\xb1f\xc1\x16",
        b"\x41\x01\x00\x08t\xb1f\xc1\x20",
        b"\x51\x01\x00\x09t\xbb.well-known\x04core",
        b"\x41\x01\x00\x0at\xbb.well-known\x04core\x44rt=*\x81\x00",
        b"\x41\x02\x00\x0bt\xb1f\xd1\xea\x1a\xffx",
        b"\x41\x02\x00\x0ct\xb1f\x45async\xffx",
        b"\x41\x01\x00\x0dt\x91x\x21f",
        b"\x41\x01\x00\x0et\xb1f\xd4\x18coap://x",
        b"\x41\x02\x00\x0ft\xb1f\xd1\x03\x08\xff0123456789abcdef",
        b"\x41\x02\x00\x10t\xb1f\xd1\x03\x18\xff0123456789abcdef",
        b"\x41\x02\x00\x11t\xb1f\xd1\x03\x20\xffend",
    ]
    .iter()
    .map(|seed| seed.to_vec())
    .collect();
    let long: Vec<u8> = b"\x41\x02\x00\x12t\xb1f\xd1\x03\x0e\xff".iter().copied().chain([b'x'; 1024]).collect();
    seeds.push(long);
    seeds
}

fn spoil(rng: &mut fastrand::Rng, seeds: &[Vec<u8>], datagram: &mut Vec<u8>) {
    datagram.clear();
    datagram.extend_from_slice(&seeds[rng.usize(..seeds.len())]);
    // Few message ids, so that some are repeated.
    if rng.bool() {
        datagram[3] = rng.u8(..32);
    }
    for _ in 0..[0, 0, 1, 1, 2, 5][rng.usize(..6)] {
        match rng.u8(..5) {
            0 if !datagram.is_empty() => {
                let at = rng.usize(..datagram.len());
                datagram[at] ^= 1 << rng.u8(..8);
            }
            1 if !datagram.is_empty() => {
                let at = rng.usize(..datagram.len());
                datagram[at] = rng.u8(..);
            }
            2 => datagram.truncate(rng.usize(..=datagram.len())),
            3 => datagram.insert(rng.usize(..=datagram.len()), rng.u8(..)),
            _ => {
                let other = &seeds[rng.usize(..seeds.len())];
                datagram.extend_from_slice(&other[rng.usize(..other.len())..]);
            }
        }
    }
}

/// A failure names its seed; `TINYFAAS_FUZZ_SEED` begins there, and `TINYFAAS_FUZZ_INPUTS` asks for more.
#[test]
fn a_million_datagrams_do_no_harm() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (first, inputs): (u64, u64) = (number("TINYFAAS_FUZZ_SEED", 0), number("TINYFAAS_FUZZ_INPUTS", 1_000_000));
    const EACH: u64 = 500;
    let seeds = seeds();
    let mut datagram = Vec::new();
    for seed in first..first + inputs.div_ceil(EACH) {
        // Shown only where the test fails.
        println!("TINYFAAS_FUZZ_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut story = Story::default();
        for _ in 0..EACH {
            spoil(&mut rng, &seeds, &mut datagram);
            story.datagram(rng.u8(..), rng.u8(..16) == 0, &datagram);
            match rng.u8(..6) {
                0 | 1 => story.answer(rng.u8(..), rng.usize(..3000)),
                2 => story.wait(rng.u64(..1_000)),
                3 if rng.u8(..10) == 0 => story.wait(rng.u64(..400_000)),
                _ => {}
            }
        }
        story.end();
    }
}
