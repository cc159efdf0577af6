//! Any bytes as the JSON of an upload: what is kept is bounded and is JSON, however the stream is cut, and what the fields
//! ask for is inside of what a function may have.
//!
//! The first byte chooses how the rest is cut.

use std::collections::HashSet;
use std::time::Duration;

use tinyfaas::function::{Limits, Runtime};
use tinyfaas::upload_request::{self, Defaults, Deploy, MAX_AUTH, MAX_ENV_BYTES, MAX_ENVS, MAX_THREADS};
use tinyfaas::wire::upload::{MAX_REST, Parsed, Parser};

/// Largest archive in bytes.
const MOST: u64 = 512;

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let (&step, bytes) = input.split_first().unwrap_or((&1, input));
    let whole = parse(bytes, bytes.len().max(1));
    assert_eq!(whole, parse(bytes, usize::from(step).max(1)), "an upload does not depend on where the stream is cut");
    let Ok((parsed, zip)) = whole else { return };
    assert!(parsed.rest.len() <= MAX_REST && zip.len() as u64 <= MOST);
    assert_eq!(parsed.zip.unwrap_or_default(), zip.len() as u64);
    // Halves of surrogate pairs are JSON (RFC 8259 §8.2), though not text: that is found out when the fields are read.
    assert!(
        serde_json::from_str::<serde::de::IgnoredAny>(&parsed.rest).is_ok()
            && parsed.rest.trim_start().starts_with('{'),
        "{:?}",
        parsed.rest
    );
    look_at(upload_request::upload(&parsed.rest, parsed.zip, &defaults()));
    look_at(upload_request::upload_url(&parsed.rest, &defaults()).map(|(deploy, _)| deploy));
    look_at(upload_request::described(&parsed.rest, "f", |_| Ok(Runtime::BINARY), &defaults()));
    if let Ok(name) = upload_request::delete(&parsed.rest) {
        assert!((1..=63).contains(&name.as_str().len()));
    }
}

fn defaults() -> Defaults {
    let timeout = Duration::from_secs(60);
    let limits = Limits { memory: 0, cpu_millis: 0, pids: 64, timeout, concurrency: 4, queue: 100 };
    Defaults { limits, idle: None, network: true }
}

fn look_at(read: Result<Deploy, String>) {
    let deploy = match read {
        Ok(deploy) => deploy,
        // What is shown of a field is 64 characters at most, each of which may be written as one of ten.
        Err(why) => return assert!(!why.contains('\n') && why.len() <= 800, "{why:?}"),
    };
    assert!(deploy.name.as_str().bytes().all(|b| b.is_ascii_alphanumeric()));
    assert!((1..=MAX_THREADS).contains(&deploy.threads));
    assert!(deploy.envs.len() <= MAX_ENVS && deploy.envs.iter().map(String::len).sum::<usize>() <= MAX_ENV_BYTES);
    let keys: HashSet<&str> = deploy.envs.iter().filter_map(|env| env.split_once('=')).map(|(key, _)| key).collect();
    assert_eq!(keys.len(), deploy.envs.len(), "each key once");
    assert!(deploy.envs.iter().all(|env| !env.contains('\0') && !env.starts_with("TINYFAAS_")));
    let limits = &deploy.limits;
    assert!((1..=4096).contains(&limits.concurrency) && limits.queue <= 65_536 && (1..=32_768).contains(&limits.pids));
    assert!(!limits.timeout.is_zero() && limits.timeout <= Duration::from_secs(24 * 3600));
    assert!(deploy.idle.is_none_or(|idle| idle >= Duration::from_secs(1)) && deploy.auth.len() <= MAX_AUTH);
    assert!(deploy.subfolder.is_empty() || deploy.subfolder.split('/').all(|part| !matches!(part, "" | "." | "..")));
}

fn parse(bytes: &[u8], step: usize) -> Result<(Parsed, Vec<u8>), String> {
    let (mut parser, mut zip) = (Parser::new(MOST), Vec::new());
    for piece in bytes.chunks(step) {
        parser.feed(piece, &mut zip).map_err(|e| e.to_string())?;
    }
    parser.finish().map(|parsed| (parsed, zip)).map_err(|e| e.to_string())
}
