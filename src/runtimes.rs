//! What is known of each runtime, as plain data: the files of its image, the command that runs it, its dependencies.
//!
//! The files are embedded, so that one executable is all there is to ship. Backends do the work that this describes.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use crate::function::Runtime;

/// Folder of a handler's own files in a container.
pub const HANDLER_DIR: &str = "/tinyfaas";

/// What is known of one runtime.
#[derive(Debug)]
pub struct Spec {
    /// The runtime.
    pub runtime: Runtime,
    /// Text of the Dockerfile; its build context is [`Spec::files`].
    pub dockerfile: &'static str,
    /// Files that the image, or the folder of the host's handlers, needs.
    pub files: &'static [File],
    /// The command line of a handler in a container.
    pub command: &'static [&'static str],
    /// The base image where the operator names none: the Dockerfile's `BASE` argument.
    pub base: &'static str,
    /// How a handler runs as a child process.
    pub host: Host,
    /// Environment of a handler that saves memory; the function's own variables come after it. The image has it already.
    pub env: &'static [(&'static str, &'static str)],
    /// The files that a handler can start with, at the function's top: one of them has to be there. The first marks a
    /// folder as one of this runtime.
    pub entries: &'static [&'static str],
    /// How dependencies are declared and installed; `None` where there are none.
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
}

/// How the process backend starts a handler.
#[derive(Debug)]
pub struct Host {
    /// Program that has to be in `PATH`.
    pub interpreter: &'static str,
    /// The command line: `{interpreter}` is that program's path, `{program}` the folder with [`Spec::files`], `{self}` our own executable.
    pub command: &'static [&'static str],
}

/// How dependencies are declared and installed.
#[derive(Debug)]
pub struct Dependencies {
    /// File at the function's top that declares them.
    pub file: &'static str,
    /// The command that installs them, in the function's folder; `{cache}` is a folder that goes when it is done.
    pub install: &'static [&'static str],
}

impl Dependencies {
    /// The words of [`Self::install`] with this folder for caches.
    pub fn command(&self, cache: &str) -> impl Iterator<Item = String> {
        self.install.iter().map(move |word| word.replace("{cache}", cache))
    }
}

/// Whether `file`, the text of [`Dependencies::file`], asks for anything. A broken one does: its installer says best what is wrong.
pub fn needs_install(runtime: Runtime, file: &[u8]) -> bool {
    match runtime {
        Runtime::Python3 => {
            file.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).any(|l| !l.is_empty() && !l.starts_with(b"#"))
        }
        Runtime::Nodejs => match serde_json::from_slice::<Package>(file) {
            Ok(package) => [package.dependencies, package.optional].iter().flatten().any(|d| !d.is_empty()),
            Err(_) => true,
        },
        Runtime::Binary => false,
    }
}

#[derive(serde::Deserialize)]
struct Package {
    dependencies: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(rename = "optionalDependencies")]
    optional: Option<BTreeMap<String, IgnoredAny>>,
}

/// What is known of `runtime`.
pub const fn spec(runtime: Runtime) -> &'static Spec {
    match runtime {
        Runtime::Python3 => &PYTHON3,
        Runtime::Nodejs => &NODEJS,
        Runtime::Binary => &BINARY,
    }
}

const HANDLER_PY: &[u8] = include_bytes!("../runtimes/python3/handler.py");
const HANDLER_JS: &[u8] = include_bytes!("../runtimes/nodejs/handler.js");

static PYTHON3: Spec = Spec {
    runtime: Runtime::Python3,
    dockerfile: include_str!("../runtimes/python3/Dockerfile"),
    files: &[File { name: "handler.py", mode: 0o644, content: Content::Bytes(HANDLER_PY) }],
    // Without site (0.5 MB and more; it is loaded when a module needs it), and no bytecode written beside the function.
    command: &["python3", "-S", "-B", "/tinyfaas/handler.py"],
    base: "python:3.13-alpine",
    host: Host { interpreter: "python3", command: &["{interpreter}", "-S", "-B", "{program}/handler.py"] },
    // One malloc arena instead of one for each thread.
    env: &[("MALLOC_ARENA_MAX", "1")],
    entries: &["fn.py"],
    dependencies: Some(Dependencies {
        file: "requirements.txt",
        // The handler looks in `.deps`: a function's own folder is the only one that can be written.
        install: &[
            "python3",
            "-m",
            "pip",
            "install",
            "--no-cache-dir",
            "--no-input",
            "--disable-pip-version-check",
            "--target",
            ".deps",
            "-r",
            "requirements.txt",
        ],
    }),
};

static NODEJS: Spec = Spec {
    runtime: Runtime::Nodejs,
    dockerfile: include_str!("../runtimes/nodejs/Dockerfile"),
    files: &[File { name: "handler.js", mode: 0o644, content: Content::Bytes(HANDLER_JS) }],
    // No helper threads of V8: a small board gains nothing from them. The handler collects garbage when nothing runs.
    command: &["node", "--v8-pool-size=0", "--expose-gc", "/tinyfaas/handler.js"],
    base: "node:22-alpine",
    host: Host {
        interpreter: "node",
        command: &["{interpreter}", "--v8-pool-size=0", "--expose-gc", "{program}/handler.js"],
    },
    // Without these glibc keeps what the handler freed: 40 MB after a body of 20 MiB.
    env: &[("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_ARENA_MAX", "1")],
    entries: &["package.json", "index.js", "fn.js", "fn.mjs", "fn.cjs", "index.mjs"],
    dependencies: Some(Dependencies {
        file: "package.json",
        install: &[
            "npm",
            "install",
            "--omit=dev",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--cache={cache}",
        ],
    }),
};

static BINARY: Spec = Spec {
    runtime: Runtime::Binary,
    dockerfile: include_str!("../runtimes/binary/Dockerfile"),
    files: &[File { name: "tinyfaas", mode: 0o755, content: Content::OwnExecutable }],
    command: &["/tinyfaas/tinyfaas", "handler"],
    base: "alpine",
    host: Host { interpreter: "sh", command: &["{self}", "handler"] },
    // As for Python: after 16 callers at once 0.65 MB of private memory stay, not 1.15 MB.
    env: &[("MALLOC_ARENA_MAX", "1")],
    entries: &["fn.sh"],
    dependencies: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerfiles_say_the_same_as_the_table() {
        for runtime in Runtime::ALL {
            let spec = spec(runtime);
            assert_eq!(spec.runtime, runtime);
            assert!(spec.dockerfile.contains(&format!("ARG BASE={}\nFROM ${{BASE}}\n", spec.base)), "{runtime}");
            let quoted: Vec<String> = spec.command.iter().map(|word| format!("{word:?}")).collect();
            assert!(spec.dockerfile.contains(&format!("CMD [{}]\n", quoted.join(", "))), "{runtime}");
            for File { name, .. } in spec.files {
                assert!(spec.dockerfile.contains(&format!("COPY {name} {HANDLER_DIR}/{name}\n")), "{runtime}");
            }
            for (name, value) in spec.env {
                assert!(spec.dockerfile.contains(&format!("ENV {name}={value}\n")), "{runtime}");
            }
        }
    }

    #[test]
    fn comments_and_empty_objects_ask_for_nothing() {
        assert!(!needs_install(Runtime::Python3, b"\n# six\r\n  \n"));
        assert!(needs_install(Runtime::Python3, b"# a\nsix\n"));
        assert!(!needs_install(Runtime::Nodejs, b"{}"));
        assert!(!needs_install(Runtime::Nodejs, br#"{"dependencies": {}, "devDependencies": {"a": "1"}}"#));
        assert!(needs_install(Runtime::Nodejs, br#"{"dependencies": {"a": "file:./a"}}"#));
        assert!(needs_install(Runtime::Nodejs, br#"{"optionalDependencies": {"a": "1"}}"#));
        assert!(needs_install(Runtime::Nodejs, b"{"));
    }
}
