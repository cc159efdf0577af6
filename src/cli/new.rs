//! `tinyfaas new`: a folder with a function that can be deployed as it is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::error::Error;
use super::output::{print, print_json};
use crate::function::Name;
use crate::runtimes;

/// A template: a runtime's name, and the files of `templates/NAME` with their modes.
type Template = (&'static str, &'static [(&'static str, u32, &'static str)]);

const TEMPLATES: &[Template] = &[
    ("python3", &[("fn.py", 0o644, include_str!("../../templates/python3/fn.py"))]),
    (
        "nodejs",
        &[
            ("index.js", 0o644, include_str!("../../templates/nodejs/index.js")),
            ("package.json", 0o644, include_str!("../../templates/nodejs/package.json")),
        ],
    ),
    ("binary", &[("fn.sh", 0o755, include_str!("../../templates/binary/fn.sh"))]),
    #[cfg(feature = "go")]
    ("go", &[("fn.go", 0o644, include_str!("../../templates/go/fn.go"))]),
];

/// make a folder with a small function, and print the commands that deploy and call it
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "new", help_triggers("-h", "--help"), example = "{command_name} python3 ./hello")]
pub(super) struct New {
    /// what it is written for: python3, nodejs, binary or go
    #[argh(positional, arg_name = "RUNTIME", from_str_fn(parse_runtime))]
    runtime: Template,

    /// the folder, which is made; one that is there has to be empty
    #[argh(positional, arg_name = "DIR")]
    dir: PathBuf,

    /// one JSON object instead of lines
    #[argh(switch)]
    json: bool,
}

/// The object of `--json`.
#[derive(Serialize)]
struct Made<'a> {
    env: &'a str,
    dir: &'a Path,
    files: Vec<&'a str>,
    /// What to type now.
    next: [String; 2],
}

fn parse_runtime(text: &str) -> Result<Template, String> {
    let names: Vec<_> = TEMPLATES.iter().map(|(name, _)| *name).collect();
    let found = TEMPLATES.iter().find(|(name, _)| *name == text);
    found.copied().ok_or_else(|| format!("there is no template for {text:?}: use {}", runtimes::either(&names)))
}

impl New {
    pub(super) fn run(self) -> Result<(), Error> {
        let (env, files) = self.runtime;
        let dir = self.dir.as_path();
        let failed = |e: &dyn std::fmt::Display| Error::usage(format!("{}: {e}", dir.display()));
        let shown = dir.to_str().ok_or_else(|| failed(&"the name is not UTF-8"))?;
        // `.` and `a/..` have no name of their own.
        let full = std::path::absolute(dir).map_err(|e| failed(&e))?;
        let last = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let letters: String = last.chars().filter(char::is_ascii_alphanumeric).collect();
        let name =
            Name::parse(&letters).map_err(|_| failed(&"name it as the function, in ASCII letters and digits"))?;
        make_empty(dir).map_err(|e| failed(&e))?;
        for (file, mode, text) in files {
            write(&dir.join(file), *mode, text)
                .map_err(|e| Error::usage(format!("{}: {e}", dir.join(file).display())))?;
        }
        let named = if letters == last { String::new() } else { format!(" --name {name}") };
        let folder = quoted(shown);
        let next = [format!("tinyfaas deploy {folder}{named}"), format!("tinyfaas invoke {name} --data world")];
        if self.json {
            return print_json(&Made { env, dir, files: files.iter().map(|(file, ..)| *file).collect(), next });
        }
        let made = files.iter().map(|(file, ..)| format!("wrote {}\n", dir.join(file).display())).collect::<String>();
        print(&format!("{made}{}\n", next.join("\n")))
    }
}

/// Makes the folder; one that is there has to be empty.
fn make_empty(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    match fs::read_dir(dir)?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("it is not empty: name a new folder")),
    }
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

/// A path as a shell takes it for one word that is no option.
fn quoted(path: &str) -> String {
    let path = if path.starts_with('-') { format!("./{path}") } else { path.to_owned() };
    if path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+,@:".contains(&b)) {
        path
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted("./hello"), "./hello");
        assert_eq!(quoted("-x"), "./-x");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }

    #[test]
    fn each_runtime_of_the_program_has_a_template_that_is_recognized() {
        for spec in runtimes::all() {
            let (_, files) = parse_runtime(spec.runtime.name()).unwrap();
            let found = crate::pack::detect_by(|file| files.iter().any(|(name, ..)| *name == file), "it").unwrap();
            assert_eq!(found, spec.runtime);
        }
        assert!(parse_runtime("rust").unwrap_err().contains("use python3, nodejs, binary"));
    }
}
