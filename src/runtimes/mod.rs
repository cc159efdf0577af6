//! What is known of each runtime, as plain data: the files of its image, the command that runs it, its dependencies.
//!
//! A runtime is a folder: `runtime.json`, a Dockerfile, and the files that it copies ([`description`] says what may be in it).
//! Those of this repository are part of the program (`build.rs` makes a table of them), so that one executable is all there is
//! to ship; an operator adds [others](folder::load). Backends do the work that this describes.

pub mod description;
pub mod folder;

use std::collections::BTreeMap;
use std::fs::File as OpenFile;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::de::IgnoredAny;

pub use self::description::When;
use crate::function::Runtime;
use crate::wire::zip::{self, Archive};

/// Folder of a handler's own files in a container.
pub const HANDLER_DIR: &str = "/tinyfaas";
/// Longest file that declares dependencies, in bytes.
const MAX_DECLARATION: usize = 256 * 1024;
/// The name of our own executable among a runtime's files.
pub const OWN_EXECUTABLE: &str = "tinyfaas";

/// What is known of one runtime.
#[derive(Debug)]
pub struct Spec {
    /// The runtime.
    pub runtime: Runtime,
    /// The Dockerfile; its build context is [`Spec::files`].
    pub dockerfile: Content,
    /// Whether that runs anything while an image is made of it.
    pub runs: bool,
    /// Files that the image, or the folder of the host's handlers, needs.
    pub files: &'static [File],
    /// The base image where the operator names none: the Dockerfile's `BASE` argument.
    pub base: &'static str,
    /// How a handler runs as a child process; `None` where it runs in containers alone.
    pub host: Option<Host>,
    /// The files that a handler can start with, at the function's top: one of them has to be there. The first marks a
    /// folder as one of this runtime.
    pub entries: &'static [&'static str],
    /// What is installed once a deployment; `None` where there is nothing of the kind.
    pub dependencies: Option<Dependencies>,
}

/// A file of a handler's program.
#[derive(Debug)]
pub struct File {
    /// Its name, without a folder: in an image it is in [`HANDLER_DIR`].
    pub name: &'static str,
    /// Its unix mode.
    pub mode: u32,
    /// Its bytes.
    pub content: Content,
}

/// The bytes of a [`File`].
#[derive(Debug)]
pub enum Content {
    /// Embedded in our executable.
    Bytes(&'static [u8]),
    /// Our own executable, to be read from `/proc/self/exe`: it is static and runs on any base.
    OwnExecutable,
    /// A file of an operator's runtime, read when it is needed.
    Disk(PathBuf),
}

impl Content {
    /// How many bytes there are, and what reads them; `own` is our own executable. Blocking.
    ///
    /// # Errors
    /// As open(2), naming the file.
    pub fn open(&self, own: &Path) -> io::Result<(u64, Box<dyn Read>)> {
        let path = match self {
            Self::Bytes(bytes) => return Ok((bytes.len() as u64, Box::new(*bytes))),
            Self::OwnExecutable => own,
            Self::Disk(path) => path,
        };
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display()));
        let file = OpenFile::open(path).map_err(named)?;
        let size = file.metadata().map_err(named)?.len();
        // One that grows meanwhile is cut, so that what was said of its size holds.
        Ok((size, Box::new(file.take(size))))
    }
}

/// How the process backend starts a handler.
#[derive(Debug)]
pub struct Host {
    /// Program that has to be in `PATH`.
    pub program: &'static str,
    /// The command line: `{program}` is that program's path, `{folder}` the folder with [`Spec::files`], `{self}` our own executable.
    pub command: &'static [&'static str],
    /// Environment of a handler that saves memory; the function's own variables come after it. The image has it already.
    pub env: &'static [(&'static str, &'static str)],
}

/// What is installed, or built, in the function's folder once a deployment.
#[derive(Debug)]
pub struct Dependencies {
    /// File at the function's top that declares them.
    pub file: &'static str,
    /// What in that file asks for an installation.
    pub when: When,
    /// The command that installs them, in the function's folder; `{cache}` is a folder that goes when it is done, `{folder}` that
    /// with [`Spec::files`].
    pub install: &'static [&'static str],
    /// What that is called in an error.
    pub what: &'static str,
}

impl Dependencies {
    /// The words of [`Self::install`] with these folders.
    pub fn command(&self, cache: &str, folder: &str) -> impl Iterator<Item = String> {
        self.install.iter().map(move |word| word.replace("{cache}", cache).replace("{folder}", folder))
    }

    /// Whether the function in that folder of the archive asks for anything. Blocking.
    ///
    /// # Errors
    /// As [`Archive::read`]; also where [`Self::file`] is too large to be looked into.
    pub fn are_asked_for_in<R: Read + Seek>(&self, archive: &mut Archive<R>, folder: &str) -> Result<bool, zip::Error> {
        if self.when == When::Present {
            return archive.has_file(folder, self.file);
        }
        let text = archive.read(folder, self.file, MAX_DECLARATION)?;
        Ok(text.is_some_and(|text| self.are_asked_for_by(&text)))
    }

    /// Whether `file`, the text of [`Self::file`], asks for anything. A broken one does: its installer says best what is wrong.
    pub fn are_asked_for_by(&self, file: &[u8]) -> bool {
        match self.when {
            When::Present => true,
            When::Lines => {
                file.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).any(|l| !l.is_empty() && !l.starts_with(b"#"))
            }
            When::Npm => match serde_json::from_slice::<Package>(file) {
                Ok(package) => [package.dependencies, package.optional].iter().flatten().any(|d| !d.is_empty()),
                Err(_) => true,
            },
        }
    }
}

#[derive(serde::Deserialize)]
struct Package {
    dependencies: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(rename = "optionalDependencies")]
    optional: Option<BTreeMap<String, IgnoredAny>>,
}

/// The operator's runtimes, read once at the start; they are kept as long as the program runs.
static ADDED: OnceLock<Vec<Spec>> = OnceLock::new();

// `BUILT_IN`, made of the folders `runtimes/*`: python3 first, which is what is asked for most.
//
// - python3: without `site` (0.5 MB and more; it is loaded when a module needs it), and no bytecode beside the function. `.deps` is
//   where the handler looks: a function's own folder is the only one that can be written. One malloc arena instead of one a thread.
// - nodejs: no helper threads of V8: a small board gains nothing from them. The handler collects garbage when nothing runs. Without
//   the trim threshold glibc keeps what was freed: 40 MB after a body of 20 MiB.
// - binary: with one arena 0.65 MB of private memory stay after 16 callers at once, not 1.15 MB.
include!(concat!(env!("OUT_DIR"), "/runtimes.rs"));

/// Every runtime that has an image of ours to be made: those of the program, then the operator's by name.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    BUILT_IN.iter().chain(ADDED.get().into_iter().flatten())
}

/// What is known of `runtime`. There is nothing to be known of [`Runtime::IMAGE`].
pub fn find(runtime: Runtime) -> Option<&'static Spec> {
    all().find(|spec| spec.runtime == runtime)
}

/// What is known of `runtime`, which a function that was deployed has.
///
/// # Errors
/// One line, where it was taken away.
pub fn spec(runtime: Runtime) -> Result<&'static Spec, String> {
    find(runtime).ok_or_else(|| {
        format!("the env {runtime} is not here any more: its folder is to be in that of --runtimes (the log of the start says what is wrong with it)")
    })
}

/// Takes the name of a runtime that a deployment wants.
///
/// # Errors
/// One line that names those that exist.
pub fn named(text: &str) -> Result<Runtime, String> {
    let known = Runtime::parse(text).ok().filter(|runtime| *runtime == Runtime::IMAGE || find(*runtime).is_some());
    known.ok_or_else(|| format!("unknown env {text:?}: use {}", choices()))
}

/// The names that [`named`] takes, for a person: `a, b or c`.
pub fn choices() -> String {
    either(&names().chain(["image"]).collect::<Vec<_>>())
}

/// Those of [`all`], for a person.
pub fn choices_of_images() -> String {
    either(&names().collect::<Vec<_>>())
}

fn names() -> impl Iterator<Item = &'static str> {
    all().map(|spec| spec.runtime.name())
}

/// `a, b or c`.
pub fn either(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &Content) -> &'static str {
        match content {
            Content::Bytes(bytes) => std::str::from_utf8(bytes).unwrap(),
            other => panic!("{other:?} is not embedded"),
        }
    }

    #[test]
    fn dockerfiles_say_the_same_as_the_descriptions() {
        assert_eq!(BUILT_IN.first().unwrap().runtime, Runtime::PYTHON3);
        for spec in &BUILT_IN {
            let (runtime, dockerfile) = (spec.runtime, text(&spec.dockerfile));
            assert_eq!(spec.runs, runtime.name() == "go", "{runtime}");
            assert!(dockerfile.contains(&format!("ARG BASE={}\nFROM ${{BASE}}\n", spec.base)), "{runtime}");
            for File { name, .. } in spec.files {
                assert!(dockerfile.contains(&format!("COPY {name} {HANDLER_DIR}/{name}\n")), "{runtime}");
            }
            let Some(host) = &spec.host else { continue };
            for (name, value) in host.env {
                assert!(dockerfile.contains(&format!("ENV {name}={value}\n")), "{runtime}");
            }
            // The command is the same but for where things are.
            let place = |word: &&str| word.replace("{program}", host.program).replace("{folder}", HANDLER_DIR);
            let words: Vec<String> =
                host.command.iter().map(place).map(|w| w.replace("{self}", "/tinyfaas/tinyfaas")).collect();
            assert!(dockerfile.contains(&format!("CMD {words:?}\n")), "{runtime}: {words:?}");
        }
    }

    #[test]
    fn comments_and_empty_objects_ask_for_nothing() {
        let asks = |runtime, file: &[u8]| find(runtime).unwrap().dependencies.as_ref().unwrap().are_asked_for_by(file);
        assert!(!asks(Runtime::PYTHON3, b"\n# six\r\n  \n"));
        assert!(asks(Runtime::PYTHON3, b"# a\nsix\n"));
        assert!(!asks(Runtime::NODEJS, b"{}"));
        assert!(!asks(Runtime::NODEJS, br#"{"dependencies": {}, "devDependencies": {"a": "1"}}"#));
        assert!(asks(Runtime::NODEJS, br#"{"dependencies": {"a": "file:./a"}}"#));
        assert!(asks(Runtime::NODEJS, br#"{"optionalDependencies": {"a": "1"}}"#));
        assert!(asks(Runtime::NODEJS, b"{"));
    }

    #[test]
    fn only_what_is_there_can_be_asked_for() {
        for (name, runtime) in [("python3", Runtime::PYTHON3), ("image", Runtime::IMAGE)] {
            assert_eq!(named(name), Ok(runtime));
        }
        for name in ["", "cobol", "Python3", "../python3", &"a".repeat(1000)] {
            let error = named(name).unwrap_err();
            assert!(error.contains("use python3, nodejs, binary") && error.ends_with(" or image"), "{error}");
        }
        assert!(find(Runtime::IMAGE).is_none());
        assert!(spec(Runtime::IMAGE).unwrap_err().contains("--runtimes"));
    }
}
