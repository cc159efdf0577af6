//! What is deployed, on disk: one file a function, written whole before it takes its name.
//!
//! `STATE/functions/NAME.fn` is the function's zip archive, then what was asked for, with a checksum (see [`format`]). It
//! is spooled under another name, synced, renamed over the old one, and the folder is synced: after a power cut either the
//! old or the new function is there, whole. A function costs the flash one write of its archive.

#[cfg(test)]
pub(crate) mod disk;
#[cfg(not(test))]
mod disk;
mod format;
mod spool;

pub use format::{Digester, archive_len};
pub use spool::Spool;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use disk::NewFile;
use format::Unusable;

use crate::function::{Deployment, Name};

const ENDING: &str = "fn";
/// How long a lock is waited for: one that was killed while it started a process leaves it to that process, until it runs its
/// own program.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The state directory of one running instance.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    instance: String,
    /// Held for as long as the instance runs: a second one is refused.
    _lock: File,
}

impl Store {
    /// Opens the state directory, making what is missing, and locks it.
    ///
    /// # Errors
    /// One line: it cannot be written, or another instance uses it.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let failed = |what: &str, e: io::Error| format!("cannot {what} the state directory {}: {e}", dir.display());
        // 0711: handlers under users of their own reach their sockets below it, and list nothing.
        for (folder, mode) in [("", 0o711), ("functions", 0o700), ("spool", 0o700), ("run", 0o711)] {
            disk::make_folder(&dir.join(folder), mode).map_err(|e| failed("make", e))?;
        }
        // A start that was killed may have made them and not have got this far.
        disk::sync_folder(dir).map_err(|e| failed("write", e))?;
        let lock = dir.join("lock");
        OpenOptions::new().append(true).create(true).mode(0o600).open(&lock).map_err(|e| failed("write", e))?;
        // Not kept open for writing: that would keep its file system from being remounted read-only.
        let lock = File::open(&lock).map_err(|e| failed("read", e))?;
        match lock_within(&lock, LOCK_PATIENCE) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another tinyfaas uses the state directory {}: stop it, or name another with --state-dir",
                    dir.display()
                ));
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", e)),
        }
        for left in fs::read_dir(dir.join("spool")).map_err(|e| failed("read", e))?.flatten() {
            disk::remove_file(&left.path()).map_err(|e| failed("clear", e))?;
        }
        let instance = instance(dir).map_err(|e| failed("write", e))?;
        Ok(Self { dir: dir.to_owned(), instance, _lock: lock })
    }

    /// What tells this instance's containers from those of others; the same as long as the state directory lives.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Where backends keep what lives as long as a handler.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A new file for an archive. Blocking.
    ///
    /// # Errors
    /// As open(2).
    pub fn spool(&self) -> io::Result<Spool> {
        Spool::create(self.dir.join("spool").join(format!("{:016x}", fastrand::u64(..))))
    }

    /// Makes the sealed `spool` the function `name`, in place of the one of that name. Returns where its file is, and whether
    /// it survives a power cut: an error there is fsync(2)'s for the folder, and the next start finds the one or the other.
    /// Blocking.
    ///
    /// # Errors
    /// As fsync(2) and rename(2): the function that was there is still there.
    pub fn commit(&self, spool: &mut Spool, name: &Name) -> io::Result<(PathBuf, io::Result<()>)> {
        let path = self.path(name.as_str());
        spool.become_file(&path)?;
        Ok((path, self.sync_functions()))
    }

    /// Removes the function of that name; one that is not there is no error. Returns whether it stays away after a power cut,
    /// as [`Self::commit`] does. Blocking.
    ///
    /// # Errors
    /// As unlink(2): the function is still there.
    pub fn remove(&self, name: &Name) -> io::Result<io::Result<()>> {
        match disk::remove_file(&self.path(name.as_str())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(self.sync_functions()),
        }
    }

    /// Every function that is stored whole, by name. What is damaged is set aside under another name; that, and what
    /// cannot be used for another reason, is told in the log. Blocking.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(&self) -> io::Result<Vec<Deployment>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir.join("functions"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != ENDING) {
                continue;
            }
            match format::read(&path) {
                Ok(deployment) => found.push(deployment),
                Err(Unusable::Damaged(why)) => set_aside(&path, &why),
                Err(Unusable::Other(why)) => {
                    log::error!("stored function {} is not started, and left as it is: {why}", path.display());
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join("functions").join(name).with_extension(ENDING)
    }

    fn sync_functions(&self) -> io::Result<()> {
        disk::sync_folder(&self.dir.join("functions"))
    }
}

/// Takes the lock, which may become free yet.
fn lock_within(lock: &File, patience: Duration) -> Result<(), TryLockError> {
    let end = Instant::now() + patience;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
}

/// Moves a damaged function out of the way. The next start finds it again where that fails.
fn set_aside(path: &Path, why: &str) {
    let aside = path.with_extension("damaged");
    match disk::rename(path, &aside) {
        Ok(()) => log::error!("stored function {} is damaged ({why}); kept as {}", path.display(), aside.display()),
        Err(e) => log::error!("stored function {} is damaged ({why}), and stays: {e}", path.display()),
    }
}

/// The instance's id, made once.
fn instance(dir: &Path) -> io::Result<String> {
    let path = dir.join("instance");
    match fs::read_to_string(&path) {
        Ok(id) if id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()) => return Ok(id),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let id = format!("{:016x}", fastrand::u64(..));
    let new = dir.join("spool").join("instance");
    let mut file = NewFile::create(&new)?;
    file.write_all(id.as_bytes())?;
    file.sync()?;
    disk::rename(&new, &path)?;
    disk::sync_folder(dir)?;
    Ok(id)
}

#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
