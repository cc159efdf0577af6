//! Deploys what is in a folder: a board can be flashed with its functions on it.
//!
//! Each folder and each `.zip` file in it is a function, described by a `function.json` in the folder, or a `NAME.json` beside
//! `NAME.zip`. The folder rules over what came from it: what changed there is deployed again, what did not is left alone
//! and costs the flash no write, what is gone is deleted. What was uploaded is never touched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_channel::Receiver;
use futures_lite::FutureExt;

use crate::deploy::Deployer;
use crate::function::{Name, Origin};
use crate::pack;
use crate::shutdown::Shutdown;
use crate::store::{Digester, Spool, Store};
use crate::text_file;
use crate::upload_request::{self, Defaults, Deploy};
use crate::wire::upload::MAX_REST;
use crate::wire::zip::Writer;
use crate::worker::Workers;

/// The description of a function, in its folder.
const DESCRIPTION: &str = "function.json";
/// Most functions in the folder: their names are held.
const MAX_ENTRIES: usize = 4096;

/// What is to be deployed.
#[derive(Debug, Clone)]
pub struct Job {
    /// The folder of functions.
    pub dir: PathBuf,
    /// What holds for a function whose description says nothing else.
    pub defaults: Defaults,
    /// Largest archive in bytes.
    pub max_archive: u64,
}

/// Deploys into one server.
pub struct Provision {
    deployer: Arc<Deployer>,
    store: Arc<Store>,
    workers: Workers,
    shutdown: Shutdown,
}

/// What came of one function.
enum Outcome {
    Deployed,
    Unchanged,
}

impl Provision {
    /// Deploys with `deployer` what `store` keeps, until `shutdown`.
    pub fn new(deployer: Arc<Deployer>, store: Arc<Store>, workers: Workers, shutdown: Shutdown) -> Self {
        Self { deployer, store, workers, shutdown }
    }

    /// Does the jobs that come in, one after the other, once stored functions are back.
    pub async fn run(self, jobs: Receiver<Job>) {
        let stopped = async {
            self.shutdown.begun().await;
            None
        };
        let back = async {
            self.deployer.back().await;
            Some(())
        };
        if back.or(stopped).await.is_none() {
            return;
        }
        loop {
            let stopped = async {
                self.shutdown.begun().await;
                None
            };
            let next = async { jobs.recv().await.ok() };
            let Some(job) = next.or(stopped).await else { return };
            self.provision(&job).await;
        }
    }

    /// Deploys what is new and deletes what is gone. What fails is told in the log, and the others go on.
    async fn provision(&self, job: &Job) {
        let dir = job.dir.clone();
        let entries = match self.workers.unblock(move || entries(&dir)).await.and_then(|r| r) {
            Ok(entries) => entries,
            Err(e) => return log::error!("--functions: cannot read {}, so all stays as it is: {e}", job.dir.display()),
        };
        let mut names = BTreeSet::new();
        let (mut deployed, mut unchanged, mut failed, mut nameless) = (0, 0, 0, false);
        for path in entries {
            // A deployment under way ends in order; none begins.
            if self.shutdown.has_begun() {
                return;
            }
            let (at, defaults) = (path.clone(), job.defaults.clone());
            let described = self.workers.unblock(move || describe(&at, &defaults)).await;
            let outcome = match described.map_err(|e| e.to_string()).and_then(|r| r) {
                Err(why) => {
                    nameless = true;
                    Err(why)
                }
                Ok(request) if !names.insert(request.name.clone()) => {
                    Err(format!("another one in this folder is named {} already", request.name))
                }
                Ok(request) => self.deploy(&path, request, job.max_archive).await,
            };
            match outcome {
                Ok(Outcome::Deployed) => deployed += 1,
                Ok(Outcome::Unchanged) => unchanged += 1,
                Err(why) => {
                    failed += 1;
                    log::error!("{} is not deployed: {why}", path.display());
                }
            }
        }
        let deleted = if nameless {
            log::warn!("{}: nothing is deleted while it is not known what each is", job.dir.display());
            0
        } else {
            self.delete_others(&names).await
        };
        let dir = job.dir.display();
        log::info!("{dir}: {deployed} functions deployed, {unchanged} unchanged, {deleted} deleted, {failed} failed");
    }

    async fn deploy(&self, path: &Path, request: Deploy, most: u64) -> Result<Outcome, String> {
        self.deployer.provisionable(&request.name).map_err(|e| e.text)?;
        let name = request.name.clone();
        // Packed once for nothing, where it did change: what did not is not written to the flash.
        let (from, same) = (path.to_owned(), request.clone());
        let digest = move || -> io::Result<String> {
            let mut digester = Digester::new();
            if same.image.is_none() {
                pack(&from, &mut digester, most)?;
            }
            Ok(digester.digest(&same.deployment(PathBuf::new())))
        };
        let digest = self.workers.unblock(digest).await.and_then(|r| r).map_err(|e| e.to_string())?;
        if self.deployer.get(&name).is_some_and(|active| active.deployment().digest == digest) {
            return Ok(Outcome::Unchanged);
        }
        let (from, store, is_image) = (path.to_owned(), Arc::clone(&self.store), request.image.is_some());
        let spool = move || -> io::Result<Spool> {
            let mut spool = store.spool()?;
            if !is_image {
                pack(&from, &mut spool, most)?;
            }
            spool.flush()?;
            Ok(spool)
        };
        let spool = self.workers.unblock(spool).await.and_then(|r| r).map_err(|e| e.to_string())?;
        self.deployer.deploy(request, spool).await.map_err(|e| e.text)?;
        Ok(Outcome::Deployed)
    }

    /// Deletes what came from the folder and is not in it any more; how many that were.
    async fn delete_others(&self, names: &BTreeSet<Name>) -> usize {
        let first = self.deployer.next_after(None);
        let all = std::iter::successors(first, |last| self.deployer.next_after(Some(&last.deployment().name)));
        let mut deleted = 0;
        for active in all {
            let deployment = active.deployment();
            if deployment.origin != Origin::Folder || names.contains(&deployment.name) {
                continue;
            }
            match self.deployer.delete(&deployment.name).await {
                Ok(()) => deleted += 1,
                Err(e) => log::error!("{} is gone from the folder of functions and stays: {e}", deployment.name),
            }
        }
        deleted
    }
}

/// The folders and zip files in `dir`, sorted. Hidden ones are none, nor is what a file system puts there.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || name == "lost+found" {
            continue;
        }
        if path.is_dir() || path.extension().is_some_and(|e| e == "zip") {
            found.push(path);
        }
        if found.len() > MAX_ENTRIES {
            return Err(io::Error::other(format!("there are more than {MAX_ENTRIES} functions in it")));
        }
    }
    found.sort();
    Ok(found)
}

/// What the folder or zip file `path` is to be deployed as.
fn describe(path: &Path, defaults: &Defaults) -> Result<Deploy, String> {
    let is_dir = path.is_dir();
    let description = if is_dir { path.join(DESCRIPTION) } else { path.with_extension("json") };
    let stem = if is_dir { path.file_name() } else { path.file_stem() };
    let name = stem.and_then(|n| n.to_str()).ok_or("its name is not UTF-8")?;
    let wrong = |why: String| format!("{}: {why}", description.display());
    let text = match text_file::read(&description, MAX_REST as u64) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => "{}".to_owned(),
        text => text.map_err(|e| wrong(e.to_string()))?,
    };
    let detect = |subfolder: &str| {
        if is_dir {
            pack::detect(&path.join(subfolder))
        } else {
            pack::detect_in_zip(path, subfolder, &path.display().to_string())
        }
    };
    upload_request::described(&text, name, detect, defaults).map_err(wrong)
}

/// Writes the archive of a folder, or the zip file itself; at most `most` bytes.
fn pack(path: &Path, out: &mut dyn Write, most: u64) -> io::Result<()> {
    let mut out = Bounded { out, left: most };
    if path.is_dir() {
        // Not deflated: that would cost each start its time and 300 kB.
        return pack::write_zip(path, Writer::stored(&mut out));
    }
    io::copy(&mut File::open(path)?, &mut out).map(drop)
}

/// Refuses what is larger than it may be.
struct Bounded<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("its archive is larger than --max-upload allows"))?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
