//! What the store does to the disk so that it lasts, in one place: tests record it and play every power cut (`power_cut`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

#[cfg(test)]
use super::power_cut::{Op, record};

/// A file that is being made.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    #[cfg(test)]
    path: std::path::PathBuf,
}

impl NewFile {
    /// Makes a file (mode 0600) where none is.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        #[cfg(test)]
        record(Op::Create(path.into()));
        Ok(Self {
            file,
            #[cfg(test)]
            path: path.into(),
        })
    }

    /// Has the content on the disk before it returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        #[cfg(test)]
        record(Op::Sync(self.path.clone()));
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        #[cfg(test)]
        record(Op::Write(self.path.clone(), bytes[..n].to_vec()));
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a folder and those above it where they are missing, and has the names of those it made on the disk.
pub(super) fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(|above| !above.exists()) => {
            path.parent().map_or(Ok(()), |above| make_folder(above, mode))?;
            return make_folder(path, mode);
        }
        result => result?,
    }
    #[cfg(test)]
    record(Op::Folder(path.into()));
    path.parent().map_or(Ok(()), sync_folder)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    record(Op::Rename(from.into(), to.into()));
    Ok(())
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    #[cfg(test)]
    record(Op::Remove(path.into()));
    Ok(())
}

/// A folder that cannot be synced any more, as on flash that is worn out.
#[cfg(test)]
pub(crate) static BROKEN: std::sync::Mutex<Option<std::path::PathBuf>> = std::sync::Mutex::new(None);

#[cfg(test)]
fn broken_for_tests(path: &Path) -> io::Result<()> {
    match BROKEN.lock().unwrap().as_deref() == Some(path) {
        true => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
        false => Ok(()),
    }
}

/// Has the names in a folder on the disk before it returns.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    broken_for_tests(path)?;
    File::open(path)?.sync_all()?;
    #[cfg(test)]
    record(Op::SyncFolder(path.into()));
    Ok(())
}
