//! Folders for what handlers write: one for each, gone with it, where the system keeps what is temporary. On most boards that
//! is memory, which counts as the handler's own.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

/// The folder of an instance's scratch folders.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, empty; in `otherwise` where the system has no place for temporary files.
    ///
    /// # Errors
    /// With the folder that cannot be made.
    pub(super) fn open(instance: &str, otherwise: &Path) -> Result<Self, String> {
        let made = Self::make_in(&std::env::temp_dir().join(format!("tinyfaas-{instance}")));
        made.or_else(|_| {
            let dir = otherwise.join("tmp");
            Self::make_in(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))
        })
    }

    fn make_in(dir: &Path) -> io::Result<Self> {
        // What is there is of an earlier run, or of somebody who is not to read what handlers write: it goes, or we do not use it.
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Others may pass through, and list nothing.
        DirBuilder::new().mode(0o711).create(dir)?;
        Ok(Self(dir.to_owned()))
    }

    /// Makes the folder of the handler `id`, which `user` owns where we may choose.
    ///
    /// # Errors
    /// As mkdir(2) and chown(2).
    pub(super) fn make(&self, id: &str, user: Option<u32>) -> io::Result<PathBuf> {
        let dir = self.0.join(id);
        DirBuilder::new().mode(0o700).create(&dir)?;
        if let Some(user) = user {
            chown(&dir, Some(user), Some(user))?;
        }
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
