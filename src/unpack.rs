//! Writes what an archive holds below a new folder of the file system.
//!
//! Paths were judged by [`crate::wire::zip`]; here nothing that exists is opened, so nothing is followed or overwritten.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::wire::zip::Sink;

/// A [`Sink`] that makes files and folders.
#[derive(Debug)]
pub struct Unpack {
    root: PathBuf,
}

impl Unpack {
    /// Makes the folder `root` (mode 0755), which must not exist, for an archive to be unpacked into.
    /// After an error the caller removes it.
    ///
    /// # Errors
    /// `AlreadyExists`, or as mkdir(2).
    pub fn new(root: &Path) -> io::Result<Self> {
        make_folder(root, 0o755)?;
        Ok(Self { root: root.to_owned() })
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    // The umask took bits away.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

impl Sink for Unpack {
    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        make_folder(&self.root.join(path), mode)
    }

    fn file(&mut self, path: &str, mode: u32, _size: u64, content: &mut dyn Read) -> io::Result<()> {
        // `create_new` neither follows a link nor opens what is there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.root.join(path))?;
        file.set_permissions(Permissions::from_mode(mode))?;
        io::copy(content, &mut file)?;
        Ok(())
    }

    fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        std::os::unix::fs::symlink(target, self.root.join(path))
    }
}
