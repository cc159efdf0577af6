//! What each runtime's image is made of.

use crate::function::Runtime;

/// What a runtime's image is made of, and how dependencies get into it.
pub struct Recipe {
    /// The Dockerfile; its `ARG BASE` names the base image.
    pub dockerfile: &'static str,
    /// The files beside it.
    pub files: &'static [(&'static str, &'static [u8])],
    /// The base image unless another was named.
    pub base: &'static str,
    /// Whether our own executable stands beside it as `tinyfaas`.
    pub executable: bool,
    /// The file in the archive that lists dependencies, and the command that installs them.
    pub install: Option<(&'static str, &'static [&'static str])>,
}

/// What the image of `runtime` is made of.
pub fn of(runtime: Runtime) -> Recipe {
    let (base, install): (_, Option<(_, &'static [_])>) = match runtime {
        Runtime::Python3 => ("python:3.13-alpine", Some(("requirements.txt", &["pip"]))),
        Runtime::Nodejs => ("node:22-alpine", Some(("package.json", &["npm"]))),
        Runtime::Binary => ("alpine", None),
    };
    Recipe { dockerfile: "ARG BASE\nFROM ${BASE}\n", files: &[], base, executable: false, install }
}
