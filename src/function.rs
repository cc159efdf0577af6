//! What a function is: its name, its runtime, and what it may use.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::tokens::Digest;

/// A function's name: 1 to [`Name::MAX`] ASCII letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// Longest name in bytes: it becomes part of container, image and file names.
    pub const MAX: usize = 63;

    /// Takes a name from outside.
    ///
    /// # Errors
    /// One line that says what a name may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let shown: String = text.chars().take(Self::MAX).collect();
            return Err(format!("bad function name {shown:?}: use 1 to {} ASCII letters and digits", Self::MAX));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What runs a function's code, by its name: 1 to [`Runtime::MAX`] lower-case ASCII letters and digits, a letter first.
///
/// Whether there is one of that name is for [`crate::runtimes`] to say: an operator adds some, and takes them away again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Runtime {
    /// Zeros after the name's end.
    name: [u8; Self::MAX],
    len: u8,
}

impl Runtime {
    /// Longest name in bytes: it becomes part of image and folder names.
    pub const MAX: usize = 31;

    /// `fn.py` with `fn(input)` or `fn(input, headers)`.
    pub const PYTHON3: Self = Self::literal("python3");
    /// A Node module that exports `(req, res) => …`.
    pub const NODEJS: Self = Self::literal("nodejs");
    /// `fn.sh`, body on stdin, answer on stdout.
    pub const BINARY: Self = Self::literal("binary");
    /// An image that is a handler as it is: [`Deployment::image`] names it, and no archive comes with it.
    pub const IMAGE: Self = Self::literal("image");

    /// A name that is right: for constants and the table of what is part of the program.
    pub(crate) const fn literal(text: &str) -> Self {
        let (bytes, mut name, mut at) = (text.as_bytes(), [0; Self::MAX], 0);
        while at < bytes.len() {
            name[at] = bytes[at];
            at += 1;
        }
        Self { name, len: bytes.len() as u8 }
    }

    /// The runtime's name, as `env` in an upload spells it.
    pub fn name(&self) -> &str {
        let bytes = self.name.get(..usize::from(self.len)).unwrap_or_default();
        // It is ASCII.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Takes a runtime's name from outside.
    ///
    /// # Errors
    /// One line that says what a name may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !first || text.len() > Self::MAX || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            let shown: String = text.chars().take(Self::MAX).collect();
            let most = Self::MAX;
            return Err(format!(
                "{shown:?} is no env: use one such as python3, 1 to {most} lower-case ASCII letters and digits"
            ));
        }
        Ok(Self::literal(text))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a function may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one handler in bytes; 0 for no limit.
    pub memory: u64,
    /// Processor time of one handler in thousandths of a core; 0 for no limit.
    pub cpu_millis: u32,
    /// Processes and threads in one handler.
    pub pids: u32,
    /// Longest time one call may take, waiting included.
    pub timeout: Duration,
    /// Calls one handler works on at once.
    pub concurrency: usize,
    /// Calls that may wait for a handler of the function.
    pub queue: usize,
}

/// Where a function came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// The management API.
    #[default]
    Upload,
    /// The folder of functions that `--functions` names, which rules over it.
    Folder,
}

/// Everything that a backend needs to run handlers of one deployed version of a function.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The function's name.
    pub name: Name,
    /// What runs it.
    pub runtime: Runtime,
    /// The image that its handlers are, where [`Runtime::IMAGE`] runs it: a reference as the engine takes it.
    pub image: Option<String>,
    /// How many handlers there are.
    pub threads: usize,
    /// Environment variables of the function, as `KEY=VALUE`. Never logged: they hold secrets.
    pub envs: Vec<String>,
    /// What it may use.
    pub limits: Limits,
    /// The tokens that calls need, one of them each; empty where anybody may call.
    pub auth: Vec<Digest>,
    /// Whether its handlers have a network; what installs their dependencies always has.
    pub network: bool,
    /// Its handlers are stopped when nobody called for so long; whole milliseconds.
    pub idle: Option<Duration>,
    /// Where it came from.
    pub origin: Origin,
    /// Hexadecimal digest over all the above and the files: another digest is another version.
    pub digest: String,
    /// File that starts with the function's zip archive.
    pub package: PathBuf,
    /// The folder of the archive that is the function: empty for the top, else without leading or trailing `/`.
    pub subfolder: String,
}
