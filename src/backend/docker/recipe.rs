//! What each runtime's image is made of.

use crate::function::Runtime;
use crate::runtimes::{self, Content, File};

/// What a runtime's image is made of, and how dependencies get into it.
pub struct Recipe {
    /// The Dockerfile; its `ARG BASE` names the base image.
    pub dockerfile: &'static str,
    /// The files beside it.
    pub files: Vec<(&'static str, &'static [u8])>,
    /// The base image unless another was named.
    pub base: &'static str,
    /// Whether our own executable stands beside it as `tinyfaas`.
    pub executable: bool,
    /// The file in the archive that lists dependencies, and the command that installs them.
    pub install: Option<(&'static str, &'static [&'static str])>,
}

/// What the image of `runtime` is made of.
pub fn of(runtime: Runtime) -> Recipe {
    let spec = runtimes::spec(runtime);
    let executable = spec.files.iter().any(|file| matches!(file.content, Content::OwnExecutable));
    let install = spec.dependencies.as_ref().map(|d| (d.file, d.in_container));
    let (dockerfile, base) = (spec.dockerfile, spec.base);
    let embedded = |file: &'static File| match file.content {
        Content::Bytes(bytes) => Some((file.name, bytes)),
        Content::OwnExecutable => None,
    };
    Recipe { dockerfile, files: spec.files.iter().filter_map(embedded).collect(), base, executable, install }
}
