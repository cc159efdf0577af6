//! An archive that is on its way to be a function.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::disk::{self, NewFile};
use super::format::{self, Digester};
use crate::function::Deployment;

/// An archive that is being written and does not belong to a function yet. Removed when dropped.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: BufWriter<NewFile>,
    hash: Digester,
    crc: crc32fast::Hasher,
    len: u64,
    keep: bool,
}

impl Spool {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(NewFile::create(&path)?),
            path,
            hash: Digester::new(),
            crc: crc32fast::Hasher::new(),
            len: 0,
            keep: false,
        })
    }

    /// Has the content on the disk, then takes the name `path`.
    pub(super) fn become_file(&mut self, path: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync()?;
        disk::rename(&self.path, path)?;
        self.keep = true;
        Ok(())
    }
    /// Where the archive is: it starts the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the archive so far.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The digest of a deployment of this archive: hexadecimal, over the archive and all of `deployment` but its digest
    /// and path.
    pub fn digest(&self, deployment: &Deployment) -> String {
        self.hash.clone().digest(deployment)
    }

    /// Writes what follows the archive: from now on the file is the function, but for its name. Blocking.
    ///
    /// # Errors
    /// As write(2).
    pub fn seal(&mut self, deployment: &Deployment) -> io::Result<()> {
        let tail = format::tail(deployment, self.len, self.crc.clone())?;
        self.file.write_all(&tail)?;
        self.file.flush()
    }
}

impl Write for Spool {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        let written = buf.get(..n).unwrap_or_default();
        self.hash.write_all(written)?;
        self.crc.update(written);
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is removed at the next start.
            let _ = disk::remove_file(&self.path);
        }
    }
}
