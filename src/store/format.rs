//! The file of one function: its zip archive, then its description as JSON, then a [`Footer`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::function::{Deployment, Limits, Name, Origin, Runtime};
use crate::tokens;

/// Version of the description; another one is left alone, not guessed at.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"tinyfn01";
/// Longest description in bytes; envs and limits are bounded far below it.
const MAX_META: u32 = 256 * 1024;

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
    /// Hexadecimal; absent where anybody may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    auth: Vec<String>,
    /// Whether its handlers have no network; absent where they have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_network: bool,
    /// Absent where an archive is run, not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// Whether it came from the folder of functions; absent where it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    provisioned: bool,
}

/// Tells versions of a function apart: a hash over its archive, which is written here, and its description.
#[derive(Debug, Clone)]
pub struct Digester(Sha256);

/// Why a stored function cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is not what was written.
    Damaged(String),
    /// It may be whole, but not for this program, or not now.
    Other(String),
}

impl Digester {
    /// No archive yet.
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// The digest of a deployment of this archive: hexadecimal, over the archive and all of `deployment` but its digest
    /// and path.
    pub fn digest(self, deployment: &Deployment) -> String {
        // A struct of numbers and strings always becomes JSON.
        self.of(&meta(deployment).unwrap_or_default())
    }

    fn of(mut self, meta: &[u8]) -> String {
        self.0.update(meta);
        // 128 bits tell versions apart as well as all 256 do, and fit where names are short.
        self.0.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The description of a deployment.
fn meta(deployment: &Deployment) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Meta::of(deployment))?)
}

/// What follows an archive of `zip` bytes, whose checksum so far is `crc`.
pub(super) fn tail(deployment: &Deployment, zip: u64, mut crc: crc32fast::Hasher) -> io::Result<Vec<u8>> {
    let mut tail = meta(deployment)?;
    let meta = u32::try_from(tail.len()).map_err(io::Error::other)?;
    tail.extend_from_slice(MAGIC);
    tail.extend_from_slice(&zip.to_le_bytes());
    tail.extend_from_slice(&meta.to_le_bytes());
    crc.update(&tail);
    tail.extend_from_slice(&crc.finalize().to_le_bytes());
    Ok(tail)
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
            auth: d.auth.iter().map(ToString::to_string).collect(),
            no_network: !d.network,
            image: d.image.clone(),
            provisioned: d.origin == Origin::Folder,
        }
    }

    fn into_deployment(self, package: &Path, digest: String) -> Result<Deployment, String> {
        Ok(Deployment {
            name: Name::parse(&self.name)?,
            runtime: Runtime::parse(&self.env)?,
            image: self.image,
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
            auth: self.auth.iter().map(|digest| tokens::Digest::parse(digest)).collect::<Result<_, _>>()?,
            network: !self.no_network,
            idle: self.idle_ms.map(Duration::from_millis),
            origin: if self.provisioned { Origin::Folder } else { Origin::Upload },
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
pub(super) fn read(path: &Path) -> Result<Deployment, Unusable> {
    let text = |e: io::Error| Unusable::Other(e.to_string());
    let damaged = |what: &str| Unusable::Damaged(what.to_owned());
    let mut file = File::open(path).map_err(text)?;
    let whole = file.seek(SeekFrom::End(0)).map_err(text)?;
    let footer = footer(&mut file, whole).map_err(text)?;
    let footer = footer.ok_or_else(|| damaged("it was cut or is no function of this version"))?;
    if footer.meta > MAX_META {
        return Err(damaged("its description is too long"));
    }
    file.seek(SeekFrom::Start(0)).map_err(text)?;
    let (mut crc, mut hash) = (crc32fast::Hasher::new(), Digester::new());
    let mut buf = [0; 8192];
    let mut left = footer.zip;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let piece = buf.get_mut(..most).unwrap_or_default();
        file.read_exact(piece).map_err(text)?;
        crc.update(piece);
        hash.0.update(&*piece);
        left -= most as u64;
    }
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(text)?;
    let checked = tail.get(..tail.len().saturating_sub(4)).unwrap_or_default();
    crc.update(checked);
    if crc.finalize() != footer.crc {
        return Err(damaged("its checksum does not match"));
    }
    let meta = tail.get(..footer.meta as usize).unwrap_or_default();
    let digest = hash.of(meta);
    let meta: Meta = serde_json::from_slice(meta).map_err(|e| Unusable::Other(e.to_string()))?;
    if meta.version != VERSION {
        return Err(Unusable::Other(format!("it has version {}, this program knows {VERSION}", meta.version)));
    }
    let named = path.file_stem().is_some_and(|stem| stem == meta.name.as_str());
    if !named {
        return Err(Unusable::Other(format!("it is the file of {:?}", meta.name)));
    }
    meta.into_deployment(path, digest).map_err(Unusable::Other)
}
