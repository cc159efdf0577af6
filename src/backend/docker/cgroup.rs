//! Which cgroup a container has on this machine: how much memory it has resident is read there, without asking the engine.

use std::path::PathBuf;
use std::sync::PoisonError;

use super::Inner;
use crate::backend::resident;

/// Where engines put a container's cgroup, `{id}` for its id: version 2 and 1, with either of the drivers.
const PLACES: [&str; 4] = [
    "/sys/fs/cgroup/system.slice/docker-{id}.scope",
    "/sys/fs/cgroup/docker/{id}",
    "/sys/fs/cgroup/memory/docker/{id}",
    "/sys/fs/cgroup/memory/system.slice/docker-{id}.scope",
];

/// Takes note of a container that runs: its name, and the id that the engine gave it.
pub fn note(inner: &Inner, name: &str, id: &str) {
    // The engine's word, and part of a path.
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return;
    }
    let found = PLACES.iter().map(|place| PathBuf::from(place.replace("{id}", id))).find(|dir| dir.is_dir());
    if let Some(dir) = found {
        inner.cgroups.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), dir);
    }
}

/// The container is gone.
pub fn forget(inner: &Inner, name: &str) {
    inner.cgroups.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
}

/// Bytes that its processes have resident, where that is to be seen here.
pub fn resident(inner: &Inner, name: &str) -> Option<u64> {
    let dir = inner.cgroups.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
    resident::of_cgroup(&dir)
}
