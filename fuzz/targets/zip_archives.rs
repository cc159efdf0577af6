//! Any bytes as a zip archive: whatever is handed out stays inside the function's folder and inside the bounds.

use std::collections::HashSet;
use std::io::{Cursor, Error, Read, Result};

use tinyfaas::wire::zip::{Archive, Bounds, Sink};

const BOUNDS: Bounds = Bounds { entries: 64, unpacked: 256 * 1024, ratio: 200 };

/// Looks at what comes out.
#[derive(Default)]
struct Watched {
    folders: HashSet<String>,
    others: HashSet<String>,
    unpacked: u64,
}

impl Watched {
    fn look_at(&self, path: &str) {
        assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{path:?}");
        assert!(!self.others.contains(path) && !self.folders.contains(path), "{path:?} comes twice");
        if let Some((folder, _)) = path.rsplit_once('/') {
            assert!(self.folders.contains(folder), "{path:?} comes before its folder");
        }
    }
}

impl Sink for Watched {
    fn directory(&mut self, path: &str, _: u32) -> Result<()> {
        self.look_at(path);
        self.folders.insert(path.into());
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn Read) -> Result<()> {
        self.look_at(path);
        assert_eq!(mode & !0o777, 0, "no bit of {mode:o} gives anybody another's rights");
        self.others.insert(path.into());
        self.unpacked += size;
        assert!(self.unpacked <= BOUNDS.unpacked);
        let read = std::io::copy(&mut content.take(size + 1), &mut std::io::sink())?;
        if read != size { Err(Error::other("not as long as it says")) } else { Ok(()) }
    }

    fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.look_at(path);
        self.others.insert(path.into());
        let mut depth = path.split('/').count() as i32 - 1;
        for segment in target.split('/') {
            depth += match segment {
                "" | "." => 0,
                ".." => -1,
                _ => 1,
            };
            assert!(depth >= 0, "{path:?} leads outside: {target:?}");
        }
        assert!(!target.starts_with('/'), "{target:?}");
        Ok(())
    }
}

/// Runs one input; panics where a promise is broken.
pub fn run(input: &[u8]) {
    let Ok(mut archive) = Archive::open(Cursor::new(input), input.len() as u64, &BOUNDS) else { return };
    let mut watched = Watched::default();
    let visited = archive.visit("", &mut watched);
    assert_eq!(archive.check("").is_ok(), visited.is_ok(), "{visited:?}");
    let _ = archive.check("a");
    assert!((watched.folders.len() + watched.others.len()) as u64 <= BOUNDS.entries);
}
