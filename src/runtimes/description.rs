//! `runtime.json`: what is said of a runtime, and whether it can be so. `build.rs` reads those of the runtimes that are part of
//! the program by the same rules.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Files of a handler's program.
const MAX_FILES: usize = 32;
/// Files that a function may start with.
const MAX_ENTRIES: usize = 16;
/// Words of a command, and variables of its environment.
const MAX_WORDS: usize = 64;
/// Longest word, variable or image reference in bytes.
const MAX_TEXT: usize = 1024;
/// Longest name of a file in bytes.
const MAX_FILE_NAME: usize = 64;

/// One `runtime.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The base image: the Dockerfile's `BASE` argument.
    pub base: String,
    /// Files beside it that the Dockerfile copies; `tinyfaas` is this program itself.
    #[serde(default)]
    pub files: Vec<String>,
    /// The files that a function can start with: one of them has to be at its top.
    pub entries: Vec<String>,
    /// What is done once a deployment.
    pub install: Option<Install>,
    /// How a handler runs as a process of the host; absent where it runs in containers alone.
    pub process: Option<Process>,
}

/// What is done once a deployment, in the function's folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The file at the function's top that asks for it.
    pub file: String,
    /// What in that file asks for it.
    #[serde(default)]
    pub when: When,
    /// The command; `{cache}` in it is a folder that goes when it is done, `{folder}` where the files are.
    pub command: Vec<String>,
    /// What it is called in an error.
    #[serde(default = "installation")]
    pub what: String,
}

/// What in a file asks for an installation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// That it is there.
    #[default]
    Present,
    /// A line that is neither empty nor a `#` comment.
    Lines,
    /// Dependencies, as npm writes them.
    Npm,
}

/// How a handler runs as a process of the host.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The program that has to be in `PATH`.
    pub program: String,
    /// The command line: `{program}` is that program's path, `{folder}` where the files are, `{self}` our own executable.
    pub command: Vec<String>,
    /// Environment of the handler, as the Dockerfile sets it in containers.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

fn installation() -> String {
    "installation of dependencies".into()
}

impl Description {
    /// Reads and checks one.
    ///
    /// # Errors
    /// One line that names the field, or the line, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let description: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        description.check()?;
        Ok(description)
    }

    fn check(&self) -> Result<(), String> {
        if !is_word(&self.base) || self.base.bytes().any(|b| b <= b' ') {
            return Err("base: use an image's reference, such as alpine:3.22".into());
        }
        count("files", self.files.len(), 0, MAX_FILES)?;
        file_names("files", &self.files)?;
        if let Some(name) = self.files.iter().find(|name| ["Dockerfile", "runtime.json"].contains(&name.as_str())) {
            return Err(format!("files: {name} is not for the image: leave it out"));
        }
        count("entries", self.entries.len(), 1, MAX_ENTRIES)?;
        file_names("entries", &self.entries)?;
        if let Some(install) = &self.install {
            file_names("install.file", std::slice::from_ref(&install.file))?;
            words("install.command", &install.command)?;
            words("install.what", std::slice::from_ref(&install.what))?;
        }
        if let Some(process) = &self.process {
            words("process.program", std::slice::from_ref(&process.program))?;
            words("process.command", &process.command)?;
            count("process.env", process.env.len(), 0, MAX_WORDS)?;
            let is_key = |key: &str| {
                is_word(key)
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !key.as_bytes().first().is_some_and(u8::is_ascii_digit)
                    && !key.starts_with("TINYFAAS_")
            };
            if let Some(key) = process.env.keys().find(|key| !is_key(key)) {
                let shown: String = key.chars().take(MAX_FILE_NAME).collect();
                return Err(format!(
                    "process.env: {shown:?} is no name for a variable: use letters, digits and _, not TINYFAAS_ first"
                ));
            }
            if process.env.values().any(|value| value.len() > MAX_TEXT || value.contains('\0')) {
                return Err(format!("process.env: use values of up to {MAX_TEXT} bytes without NUL"));
            }
        }
        Ok(())
    }
}

fn count(field: &str, len: usize, least: usize, most: usize) -> Result<(), String> {
    if (least..=most).contains(&len) { Ok(()) } else { Err(format!("{field}: name {least} to {most} of them")) }
}

fn file_names(field: &str, names: &[String]) -> Result<(), String> {
    for (at, name) in names.iter().enumerate() {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > MAX_FILE_NAME || name.starts_with(['.', '-']) || !name.bytes().all(known) {
            let shown: String = name.chars().take(MAX_FILE_NAME).collect();
            return Err(format!(
                "{field}: {shown:?} is no file of the folder: use letters, digits, '-', '_' and '.', no folder in it"
            ));
        }
        if names.iter().take(at).any(|other| other == name) {
            return Err(format!("{field}: {name} is there twice"));
        }
    }
    Ok(())
}

fn words(field: &str, words: &[String]) -> Result<(), String> {
    count(field, words.len(), 1, MAX_WORDS)?;
    if words.first().is_none_or(String::is_empty) || !words.iter().all(|word| word.is_empty() || is_word(word)) {
        return Err(format!("{field}: use words of up to {MAX_TEXT} bytes without NUL, none empty in the first place"));
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && !text.contains('\0')
}
