//! Runtimes that an operator adds: each is a folder in the one that `--runtimes` names, and its name is the runtime's.
//!
//! They are read once, at the start, and all that can be wrong with one is told then. What is large, the files for its image, is only
//! looked at: it is read when an image is made of it.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use super::description::{self, Description, Install, Process};
use super::{ADDED, BUILT_IN, Content, Dependencies, File, Host, OWN_EXECUTABLE, Spec};
use crate::function::Runtime;
use crate::text_file;

/// Runtimes in the folder.
const MAX_RUNTIMES: usize = 64;
/// Largest `runtime.json` and Dockerfile in bytes: people write them.
const MAX_TEXT: u64 = 16 * 1024;
/// Largest file for an image in bytes; it goes to the engine as a stream.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A runtime that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name, where it can be one.
    pub runtime: Option<Runtime>,
    /// One line: the file, the field, and what would be right.
    pub text: String,
}

/// Reads the folders in `dir` and makes those known that can be used; returns what is wrong with the others. Blocking, and for the
/// start alone: what is known stays so.
///
/// # Errors
/// One line: `dir` cannot be read.
pub fn load(dir: &Path) -> Result<Vec<Fault>, String> {
    let (found, faults) = read(dir).map_err(|e| format!("--runtimes: cannot read {}: {e}", dir.display()))?;
    for spec in &found {
        log::info!("env {} is that of {}", spec.runtime, dir.join(spec.runtime.name()).display());
    }
    // A second start in one process would find the first one's: the program has one.
    let _ = ADDED.set(found);
    Ok(faults)
}

fn read(dir: &Path) -> io::Result<(Vec<Spec>, Vec<Fault>)> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut paths: Vec<_> = fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "lost+found" {
            continue;
        }
        let runtime = Runtime::parse(&name);
        let read = runtime.clone().and_then(|runtime| one(&path, runtime));
        match read {
            Ok(_) if found.len() == MAX_RUNTIMES => {
                let text = format!("{}: there are more than {MAX_RUNTIMES} runtimes: take some away", dir.display());
                faults.push(Fault { runtime: None, text });
                break;
            }
            Ok(spec) => found.push(spec),
            Err(why) => faults.push(Fault { runtime: runtime.ok(), text: format!("{}: {why}", path.display()) }),
        }
    }
    Ok((found, faults))
}

fn one(path: &Path, runtime: Runtime) -> Result<Spec, String> {
    if runtime == Runtime::IMAGE || BUILT_IN.iter().any(|spec| spec.runtime == runtime) {
        return Err(format!(
            "{runtime} is part of the program: give the folder another name (--runtime-base and --runtime-image change what {runtime} is made from)"
        ));
    }
    let read = |file: &str| text_file::read(&path.join(file), MAX_TEXT).map_err(|e| format!("{file}: {e}"));
    let description = Description::parse(&read("runtime.json")?).map_err(|why| format!("runtime.json: {why}"))?;
    let dockerfile = read("Dockerfile")?;
    if !dockerfile.lines().any(|line| line.trim() == "ARG BASE" || line.trim().starts_with("ARG BASE=")) {
        return Err("Dockerfile: has no line ARG BASE: it is to begin with ARG BASE and FROM ${BASE}".into());
    }
    let files = description.files.into_iter().map(|name| file(path, name)).collect::<Result<Vec<_>, _>>()?;
    Ok(Spec {
        runtime,
        dockerfile: Content::Disk(path.join("Dockerfile")),
        runs: description::runs(&dockerfile),
        files: Vec::leak(files),
        base: leak(description.base),
        host: description.process.map(host),
        entries: leak_all(description.entries),
        dependencies: description.install.map(dependencies),
    })
}

fn file(path: &Path, name: String) -> Result<File, String> {
    if name == OWN_EXECUTABLE {
        return Ok(File { name: leak(name), mode: 0o755, content: Content::OwnExecutable });
    }
    let from = path.join(&name);
    let meta = fs::metadata(&from).map_err(|e| format!("runtime.json: files: {name}: {e}"))?;
    check_file(&meta).map_err(|why| format!("runtime.json: files: {name} {why}"))?;
    let mode = if is_executable(&meta) { 0o755 } else { 0o644 };
    Ok(File { name: leak(name), mode, content: Content::Disk(from) })
}

fn check_file(meta: &Metadata) -> Result<(), String> {
    if !meta.is_file() {
        return Err("is no file: name files alone".into());
    }
    if meta.len() > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes: have the base image contain it"));
    }
    Ok(())
}

fn is_executable(meta: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o100 != 0
}

fn host(process: Process) -> Host {
    let env = process.env.into_iter().map(|(key, value)| (leak(key), leak(value))).collect::<Vec<_>>();
    Host { program: leak(process.program), command: leak_all(process.command), env: Vec::leak(env) }
}

fn dependencies(install: Install) -> Dependencies {
    let Install { file, when, command, what } = install;
    Dependencies { file: leak(file), when, install: leak_all(command), what: leak(what) }
}

/// It is wanted as long as the program runs, and read once: as for what is part of it.
fn leak(text: String) -> &'static str {
    String::leak(text)
}

fn leak_all(texts: Vec<String>) -> &'static [&'static str] {
    Vec::leak(texts.into_iter().map(leak).collect::<Vec<_>>())
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
