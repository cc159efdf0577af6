//! Every path of an archive as a pair of hashes: enough to find duplicates, twins and conflicts in little memory.
//!
//! Two different paths with one hash would be refused as twins, never taken for one another; at 64 bits and some
//! thousand paths nobody meets that by chance, and who makes it on purpose only has his own archive refused.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder that an entry names.
    Directory,
    /// A folder that only other entries' names imply.
    Implied,
    File,
    Symlink,
}

#[derive(Debug)]
struct Seen {
    exact: u64,
    mode: u16,
    kind: Kind,
    told: bool,
}

/// All paths of one archive, and which folders the sink was told of.
#[derive(Debug, Default)]
pub(super) struct Paths {
    by_folded: BTreeMap<u64, Seen>,
}

/// The paths of the folders above `path`, outermost first.
pub(super) fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// As a file system that ignores case would see it.
fn fold(path: &str) -> u64 {
    hash(&path.to_lowercase())
}

impl Paths {
    /// How many paths are known.
    pub(super) fn len(&self) -> u64 {
        self.by_folded.len() as u64
    }

    /// Remembers an entry and the folders above it.
    pub(super) fn add(&mut self, path: &str, kind: Kind, mode: u32) -> Result<(), &'static str> {
        for folder in folders_above(path) {
            self.add_one(folder, Kind::Implied, 0o755)?;
        }
        self.add_one(path, kind, mode)
    }

    fn add_one(&mut self, path: &str, kind: Kind, mode: u32) -> Result<(), &'static str> {
        let (exact, mode) = (hash(path), mode as u16);
        let Some(seen) = self.by_folded.get_mut(&fold(path)) else {
            self.by_folded.insert(fold(path), Seen { exact, mode, kind, told: false });
            return Ok(());
        };
        if seen.exact != exact {
            return Err("another entry's name differs only in upper and lower case; rename one");
        }
        match (seen.kind, kind) {
            (Kind::Directory | Kind::Implied, Kind::Implied) => Ok(()),
            (Kind::Directory | Kind::Implied, Kind::Directory) => {
                (seen.kind, seen.mode) = (Kind::Directory, mode);
                Ok(())
            }
            (Kind::Symlink, Kind::Implied | Kind::Directory) => {
                Err("it would be written through a symbolic link of the same archive")
            }
            (Kind::File, Kind::File) | (Kind::Symlink, Kind::Symlink) => Err("it is in the archive twice"),
            _ => Err("the archive has a file, a folder or a link of the same name as well"),
        }
    }

    /// What is at exactly this path.
    pub(super) fn kind(&self, path: &str) -> Option<Kind> {
        self.by_folded.get(&fold(path)).filter(|seen| seen.exact == hash(path)).map(|seen| seen.kind)
    }

    /// The mode of the folder at `path` where the sink was not told of it yet; from now on it was.
    pub(super) fn tell(&mut self, path: &str) -> Option<u32> {
        let seen = self.by_folded.get_mut(&fold(path)).filter(|seen| !seen.told)?;
        seen.told = true;
        Some(u32::from(seen.mode))
    }

    /// Forgets what the sink was told of.
    pub(super) fn start_over(&mut self) {
        self.by_folded.values_mut().for_each(|seen| seen.told = false);
    }
}
