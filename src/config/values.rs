//! The values of flags.

use super::{BackendChoice, Exposed, HANDLER_UIDS, Network, Reach, RuntimeImage};
use crate::function::Runtime;

pub(super) fn parse_backend(text: &str) -> Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice::Auto),
        "docker" => Ok(BackendChoice::Docker),
        "process" => Ok(BackendChoice::Process),
        _ => Err(format!("unknown backend {text:?}: use docker, process or auto")),
    }
}

pub(super) fn parse_reach(text: &str) -> Result<Reach, String> {
    match text {
        "auto" => Ok(Reach::Auto),
        "socket" => Ok(Reach::Socket),
        "tcp" => Ok(Reach::Tcp),
        _ => Err(format!("unknown way {text:?} to reach a container: use auto, socket or tcp")),
    }
}

pub(super) fn parse_network(text: &str) -> Result<Network, String> {
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match text {
        "shared" => Ok(Network::Shared),
        "none" => Ok(Network::None),
        _ if !text.is_empty() && text.bytes().all(named) => Ok(Network::Named(text.into())),
        _ => Err(format!("{text:?} is no network: use shared, none or the name of one")),
    }
}

pub(super) fn parse_exposed(text: &str) -> Result<Exposed, String> {
    let (path, writable) = text.strip_suffix(":ro").map_or((text, true), |path| (path, false));
    if !path.starts_with('/') {
        return Err(format!("{text:?} is no absolute path: use /PATH, or /PATH:ro for reading alone"));
    }
    Ok(Exposed { path: path.into(), writable })
}

pub(super) fn parse_uid(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|uid| HANDLER_UIDS.contains(uid)).ok_or_else(|| {
        format!(
            "{text:?} is no user for functions: use a number from {} to {}",
            HANDLER_UIDS.start(),
            HANDLER_UIDS.end()
        )
    })
}

pub(super) fn parse_runtime_image(text: &str) -> Result<RuntimeImage, String> {
    match text.split_once('=') {
        Some((env, image)) if !image.is_empty() && !image.bytes().any(|b| b <= b' ') => {
            Ok(RuntimeImage { runtime: Runtime::parse(env)?, image: image.into() })
        }
        _ => Err(format!("{text:?} names no image for a runtime: use ENV=IMAGE, such as python3=python:3.13-alpine")),
    }
}
