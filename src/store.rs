//! What is deployed, on disk: one file a function, written whole before it takes its name.
//!
//! `STATE/functions/NAME.fn` is the function's zip archive, then its description as JSON, then a [`Footer`]. It is
//! spooled under another name, synced, renamed over the old one, and the folder is synced: after a power cut either the
//! old or the new function is there, whole. A function costs the flash one write of its archive.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::function::{Deployment, Limits, Name, Runtime};

/// Version of the description; another one is set aside, not guessed at.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"tinyfn01";
/// Longest description in bytes; envs and limits are bounded far below it.
const MAX_META: u32 = 256 * 1024;
const ENDING: &str = "fn";

/// The state directory of one running instance.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    instance: String,
    /// Held for as long as the instance runs: a second one is refused.
    _lock: File,
}

/// An archive that is being written and does not belong to a function yet. Removed when dropped.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    crc: crc32fast::Hasher,
    len: u64,
    keep: bool,
}

/// The end of a function's file: how long its parts are and a checksum over all before the checksum.
struct Footer {
    zip: u64,
    meta: u32,
    crc: u32,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    name: String,
    env: String,
    threads: usize,
    envs: Vec<String>,
    subfolder: String,
    memory: u64,
    cpu_millis: u32,
    pids: u32,
    timeout_ms: u64,
    concurrency: usize,
    queue: usize,
    /// Absent where it is off, as in files of before there was such a thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_ms: Option<u64>,
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
            DirBuilder::new().recursive(true).mode(mode).create(dir.join(folder)).map_err(|e| failed("make", e))?;
        }
        let lock = dir.join("lock");
        OpenOptions::new().append(true).create(true).mode(0o600).open(&lock).map_err(|e| failed("write", e))?;
        // Not kept open for writing: that would keep its file system from being remounted read-only.
        let lock = File::open(&lock).map_err(|e| failed("read", e))?;
        match lock.try_lock() {
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
            fs::remove_file(left.path()).map_err(|e| failed("clear", e))?;
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
        let path = self.dir.join("spool").join(format!("{:016x}", fastrand::u64(..)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Spool {
            path,
            file: BufWriter::new(file),
            hash: Sha256::new(),
            crc: crc32fast::Hasher::new(),
            len: 0,
            keep: false,
        })
    }

    /// Makes the sealed `spool` the function `name`, in place of the one of that name. It survives a power cut once this
    /// returned. Returns where its file is. Blocking.
    ///
    /// # Errors
    /// As fsync(2) and rename(2): the function that was there is still there.
    pub fn commit(&self, spool: &mut Spool, name: &Name) -> io::Result<PathBuf> {
        spool.file.get_ref().sync_all()?;
        let path = self.path(name.as_str());
        fs::rename(&spool.path, &path)?;
        spool.keep = true;
        self.sync_functions()?;
        Ok(path)
    }

    /// Removes the function of that name; one that is not there is no error. Blocking.
    ///
    /// # Errors
    /// As unlink(2) and fsync(2).
    pub fn remove(&self, name: &Name) -> io::Result<()> {
        match fs::remove_file(self.path(name.as_str())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.sync_functions(),
        }
    }

    /// Every function that is stored whole, by name. What is damaged is set aside under another name and reported in the
    /// log. Blocking.
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
            match read(&path) {
                Ok(deployment) => found.push(deployment),
                Err(e) => {
                    let aside = path.with_extension("damaged");
                    log::error!("stored function {} is damaged ({e}); kept as {}", path.display(), aside.display());
                    fs::rename(&path, &aside)?;
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
        File::open(self.dir.join("functions"))?.sync_all()
    }
}

impl Spool {
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
        let mut hash = self.hash.clone();
        // A struct of numbers and strings always becomes JSON.
        hash.update(serde_json::to_vec(&Meta::of(deployment)).unwrap_or_default());
        // 128 bits tell versions apart as well as all 256 do, and fit where names are short.
        hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    /// Writes what follows the archive: from now on the file is the function, but for its name. Blocking.
    ///
    /// # Errors
    /// As write(2).
    pub fn seal(&mut self, deployment: &Deployment) -> io::Result<()> {
        let zip = self.len;
        let meta = serde_json::to_vec(&Meta::of(deployment))?;
        let mut tail = meta;
        let meta = u32::try_from(tail.len()).map_err(io::Error::other)?;
        tail.extend_from_slice(MAGIC);
        tail.extend_from_slice(&zip.to_le_bytes());
        tail.extend_from_slice(&meta.to_le_bytes());
        self.crc.update(&tail);
        tail.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        self.file.write_all(&tail)?;
        self.file.flush()
    }
}

impl Write for Spool {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        let written = buf.get(..n).unwrap_or_default();
        self.hash.update(written);
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
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Footer {
    const SIZE: usize = 24;

    fn parse(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (zip, rest) = rest.split_first_chunk()?;
        let (meta, rest) = rest.split_first_chunk()?;
        let (crc, _) = rest.split_first_chunk()?;
        Some(Self { zip: u64::from_le_bytes(*zip), meta: u32::from_le_bytes(*meta), crc: u32::from_le_bytes(*crc) })
    }
}

impl Meta {
    fn of(d: &Deployment) -> Self {
        Self {
            version: VERSION,
            name: d.name.as_str().to_owned(),
            env: d.runtime.name().to_owned(),
            threads: d.threads,
            envs: d.envs.clone(),
            subfolder: d.subfolder.clone(),
            memory: d.limits.memory,
            cpu_millis: d.limits.cpu_millis,
            pids: d.limits.pids,
            timeout_ms: u64::try_from(d.limits.timeout.as_millis()).unwrap_or(u64::MAX),
            concurrency: d.limits.concurrency,
            queue: d.limits.queue,
            idle_ms: d.idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn into_deployment(self, package: &Path, digest: String) -> Result<Deployment, String> {
        Ok(Deployment {
            name: Name::parse(&self.name)?,
            runtime: Runtime::parse(&self.env)?,
            threads: self.threads.max(1),
            envs: self.envs,
            limits: Limits {
                memory: self.memory,
                cpu_millis: self.cpu_millis,
                pids: self.pids,
                timeout: Duration::from_millis(self.timeout_ms),
                concurrency: self.concurrency.max(1),
                queue: self.queue,
            },
            idle: self.idle_ms.map(Duration::from_millis),
            digest,
            package: package.to_owned(),
            subfolder: self.subfolder,
        })
    }
}

/// Bytes of a sealed function's file that are its archive: they come first. Blocking.
///
/// # Errors
/// The file cannot be read, or is no function.
pub fn archive_len(file: &mut File) -> io::Result<u64> {
    let whole = file.seek(SeekFrom::End(0))?;
    let footer = footer(file, whole)?.ok_or_else(|| io::Error::other("the function's file is damaged"))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(footer.zip)
}

fn footer(file: &mut File, whole: u64) -> io::Result<Option<Footer>> {
    let Some(at) = whole.checked_sub(Footer::SIZE as u64) else { return Ok(None) };
    let mut bytes = [0; Footer::SIZE];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(Footer::parse(&bytes).filter(|f| f.zip.checked_add(u64::from(f.meta)) == Some(at)))
}

/// Reads and checks one stored function.
fn read(path: &Path) -> Result<Deployment, String> {
    let text = |e: io::Error| e.to_string();
    let mut file = File::open(path).map_err(text)?;
    let whole = file.seek(SeekFrom::End(0)).map_err(text)?;
    let footer = footer(&mut file, whole).map_err(text)?.ok_or("it was cut or is no function of this version")?;
    if footer.meta > MAX_META {
        return Err("its description is too long".into());
    }
    file.seek(SeekFrom::Start(0)).map_err(text)?;
    let (mut crc, mut hash) = (crc32fast::Hasher::new(), Sha256::new());
    let mut buf = [0; 8192];
    let mut left = footer.zip;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let piece = buf.get_mut(..most).unwrap_or_default();
        file.read_exact(piece).map_err(text)?;
        crc.update(piece);
        hash.update(&*piece);
        left -= most as u64;
    }
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(text)?;
    let checked = tail.get(..tail.len().saturating_sub(4)).unwrap_or_default();
    crc.update(checked);
    if crc.finalize() != footer.crc {
        return Err("its checksum does not match".into());
    }
    let meta = tail.get(..footer.meta as usize).unwrap_or_default();
    hash.update(meta);
    let digest = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let meta: Meta = serde_json::from_slice(meta).map_err(|e| e.to_string())?;
    if meta.version != VERSION {
        return Err(format!("it has version {}, this program knows {VERSION}", meta.version));
    }
    meta.into_deployment(path, digest)
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
    let mut file = File::create(&new)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(tag: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("tinyfaas-store-{tag}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn deployment(name: &str) -> Deployment {
        Deployment {
            name: Name::parse(name).unwrap(),
            runtime: Runtime::Binary,
            threads: 3,
            envs: vec!["KEY=a secret".into()],
            limits: Limits {
                memory: 1 << 26,
                cpu_millis: 500,
                pids: 32,
                timeout: Duration::from_millis(1500),
                concurrency: 4,
                queue: 5,
            },
            idle: Some(Duration::from_millis(2500)),
            digest: String::new(),
            package: PathBuf::new(),
            subfolder: "a/b".into(),
        }
    }

    fn put(store: &Store, name: &str, archive: &[u8]) -> PathBuf {
        let mut spool = store.spool().unwrap();
        spool.write_all(archive).unwrap();
        spool.seal(&deployment(name)).unwrap();
        store.commit(&mut spool, &Name::parse(name).unwrap()).unwrap()
    }

    #[test]
    fn what_was_stored_comes_back_with_the_digest_it_was_started_under() {
        let dir = Dir::new("back");
        let store = Store::open(&dir.0).unwrap();
        let mut spool = store.spool().unwrap();
        spool.write_all(b"archive").unwrap();
        let digest = spool.digest(&deployment("f"));
        spool.seal(&deployment("f")).unwrap();
        let path = store.commit(&mut spool, &deployment("f").name).unwrap();
        let instance = store.instance().to_owned();
        drop((spool, store));
        let store = Store::open(&dir.0).unwrap();
        assert_eq!(store.instance(), instance);
        let loaded = store.load().unwrap();
        let expected = Deployment { digest, package: path.clone(), ..deployment("f") };
        assert_eq!(format!("{loaded:?}"), format!("{:?}", [expected]));
        assert_eq!(archive_len(&mut File::open(path).unwrap()).unwrap(), 7);
    }

    #[test]
    fn another_version_has_another_digest() {
        let dir = Dir::new("digest");
        let store = Store::open(&dir.0).unwrap();
        let mut spool = store.spool().unwrap();
        let first = spool.digest(&deployment("f"));
        assert_ne!(first, spool.digest(&Deployment { threads: 4, ..deployment("f") }));
        spool.write_all(b"x").unwrap();
        assert_ne!(first, spool.digest(&deployment("f")));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_set_aside_and_the_others_are_loaded() {
        let dir = Dir::new("damage");
        let store = Store::open(&dir.0).unwrap();
        put(&store, "good", b"archive");
        let path = put(&store, "bad", b"archive");
        let whole = fs::read(&path).unwrap();
        let damaged = (0..whole.len()).map(|cut| whole[..cut].to_vec()).chain((0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let names: Vec<_> = store.load().unwrap().into_iter().map(|d| d.name.to_string()).collect();
            assert_eq!(names, ["good"]);
            assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
        }
    }

    #[test]
    fn a_spool_that_is_not_committed_leaves_nothing() {
        let dir = Dir::new("spool");
        let store = Store::open(&dir.0).unwrap();
        let mut spool = store.spool().unwrap();
        spool.write_all(b"archive").unwrap();
        let path = spool.path().to_owned();
        assert_eq!((spool.size(), path.exists()), (7, true));
        drop(spool);
        assert!(!path.exists());
        fs::write(&path, b"left by a crash").unwrap();
        drop(store);
        Store::open(&dir.0).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn removing_is_final_and_removing_again_is_no_error() {
        let dir = Dir::new("remove");
        let store = Store::open(&dir.0).unwrap();
        put(&store, "f", b"archive");
        let name = Name::parse("f").unwrap();
        store.remove(&name).unwrap();
        store.remove(&name).unwrap();
        assert!(store.load().unwrap().is_empty());
    }

    #[test]
    fn a_second_instance_on_the_same_directory_is_refused() {
        let dir = Dir::new("second");
        let _first = Store::open(&dir.0).unwrap();
        let refused = Store::open(&dir.0).unwrap_err();
        assert!(refused.contains("--state-dir"), "{refused}");
    }
}
