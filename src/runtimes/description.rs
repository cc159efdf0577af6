//! `runtime.json`: what is said of a runtime, and whether it can be so. `build.rs` reads those of the runtimes that are part of
//! the program by the same rules.

use serde_json::{Map, Value};

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
#[derive(Debug)]
pub struct Description {
    /// The base image: the Dockerfile's `BASE` argument.
    pub base: String,
    /// Files beside it that the Dockerfile copies; `tinyfaas` is this program itself.
    pub files: Vec<String>,
    /// The files that a function can start with: one of them has to be at its top.
    pub entries: Vec<String>,
    /// What is done once a deployment.
    pub install: Option<Install>,
    /// How a handler runs as a process of the host; absent where it runs in containers alone.
    pub process: Option<Process>,
}

/// What is done once a deployment, in the function's folder.
#[derive(Debug)]
pub struct Install {
    /// The file at the function's top that asks for it.
    pub file: String,
    /// What in that file asks for it.
    pub when: When,
    /// The command; `{cache}` in it is a folder that goes when it is done, `{folder}` where the files are.
    pub command: Vec<String>,
    /// What it is called in an error.
    pub what: String,
}

/// What in a file asks for an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// That it is there.
    Present,
    /// A line that is neither empty nor a `#` comment.
    Lines,
    /// Dependencies, as npm writes them.
    Npm,
}

/// How a handler runs as a process of the host.
#[derive(Debug)]
pub struct Process {
    /// The program that has to be in `PATH`.
    pub program: String,
    /// The command line: `{program}` is that program's path, `{folder}` where the files are, `{self}` our own executable.
    pub command: Vec<String>,
    /// Environment of the handler, as the Dockerfile sets it in containers.
    pub env: Vec<(String, String)>,
}

/// Whether a Dockerfile runs anything. Its instructions may be in any case.
pub fn runs(dockerfile: &str) -> bool {
    let word = |line: &str| line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("RUN"));
    dockerfile.lines().any(word)
}

/// What an installation is called where it has no name of its own.
const INSTALLATION: &str = "installation of dependencies";

impl Description {
    /// Reads and checks one.
    ///
    /// # Errors
    /// One line that names the field, or the line, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let top = Fields::of(&value, "", &["base", "files", "entries", "install", "process"])?;
        let base = top.word("base")?;
        if base.bytes().any(|b| b <= b' ') {
            return Err("base: use an image's reference, such as alpine:3.22".into());
        }
        let files = if top.has("files") { top.files("files", 0, MAX_FILES)? } else { Vec::new() };
        if let Some(name) = files.iter().find(|name| ["Dockerfile", "runtime.json"].contains(&name.as_str())) {
            return Err(format!("files: {name} is not for the image: leave it out"));
        }
        let entries = top.files("entries", 1, MAX_ENTRIES)?;
        let install = top.value("install").map(Install::parse).transpose()?;
        let process = top.value("process").map(Process::parse).transpose()?;
        Ok(Self { base, files, entries, install, process })
    }
}

impl Install {
    fn parse(value: &Value) -> Result<Self, String> {
        let fields = Fields::of(value, "install.", &["file", "when", "command", "what"])?;
        let file = fields.word("file")?;
        check_file_name("install.file", &file)?;
        let when = match fields.value("when").map(|when| when.as_str().unwrap_or_default()) {
            None | Some("present") => When::Present,
            Some("lines") => When::Lines,
            Some("npm") => When::Npm,
            Some(_) => return Err("install.when: use \"present\", \"lines\" or \"npm\"".into()),
        };
        let what = if fields.has("what") { fields.word("what")? } else { INSTALLATION.into() };
        Ok(Self { file, when, command: fields.command("command")?, what })
    }
}

impl Process {
    fn parse(value: &Value) -> Result<Self, String> {
        let fields = Fields::of(value, "process.", &["program", "command", "env"])?;
        let (program, command) = (fields.word("program")?, fields.command("command")?);
        let env = match fields.value("env") {
            None => Vec::new(),
            Some(Value::Object(map)) if map.len() <= MAX_WORDS => map.iter().map(variable).collect::<Result<_, _>>()?,
            Some(_) => return Err(format!("process.env: use an object of up to {MAX_WORDS} strings")),
        };
        Ok(Self { program, command, env })
    }
}

fn variable((key, value): (&String, &Value)) -> Result<(String, String), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_digit = key.as_bytes().first().is_some_and(u8::is_ascii_digit);
    if !is_word(key) || is_digit || key.starts_with("TINYFAAS_") || !key.bytes().all(known) {
        let key = shown(key);
        return Err(format!(
            "process.env: {key:?} is no name for a variable: use letters, digits and _, not TINYFAAS_ first"
        ));
    }
    match value.as_str() {
        Some(value) if value.is_empty() || is_word(value) => Ok((key.clone(), value.to_owned())),
        _ => Err(format!("process.env: {key}: use a string of up to {MAX_TEXT} bytes without NUL")),
    }
}

/// The fields of an object, all of them known.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What comes before a field's name in an error.
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, prefix: &'static str, known: &[&str]) -> Result<Self, String> {
        let whole = || if prefix.is_empty() { "it".to_owned() } else { prefix.trim_end_matches('.').to_owned() };
        let map = value.as_object().ok_or_else(|| format!("{} has to be a JSON object", whole()))?;
        if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("{prefix}{:?} is unknown: there are {}", shown(key), known.join(", ")));
        }
        Ok(Self { map, prefix })
    }

    fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    fn word(&self, name: &str) -> Result<String, String> {
        let text = self.value(name).and_then(Value::as_str).filter(|text| is_word(text));
        text.map(str::to_owned).ok_or_else(|| format!("{}{name}: use a string of 1 to {MAX_TEXT} bytes", self.prefix))
    }

    fn list(&self, name: &str, least: usize, most: usize) -> Result<Vec<String>, String> {
        let list = self.value(name).and_then(Value::as_array).filter(|list| (least..=most).contains(&list.len()));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = list.and_then(|list| list.iter().map(text).collect());
        texts.ok_or_else(|| format!("{}{name}: use a list of {least} to {most} strings", self.prefix))
    }

    fn files(&self, name: &str, least: usize, most: usize) -> Result<Vec<String>, String> {
        let files = self.list(name, least, most)?;
        for (at, file) in files.iter().enumerate() {
            check_file_name(name, file)?;
            if files.iter().take(at).any(|other| other == file) {
                return Err(format!("{name}: {file} is there twice"));
            }
        }
        Ok(files)
    }

    fn command(&self, name: &str) -> Result<Vec<String>, String> {
        let words = self.list(name, 1, MAX_WORDS)?;
        let is_first = words.first().is_some_and(|word| !word.is_empty());
        if !is_first || !words.iter().all(|word| word.is_empty() || is_word(word)) {
            let field = format!("{}{name}", self.prefix);
            return Err(format!("{field}: use words of up to {MAX_TEXT} bytes without NUL, a program first"));
        }
        Ok(words)
    }
}

fn check_file_name(field: &str, name: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > MAX_FILE_NAME || name.starts_with(['.', '-']) || !name.bytes().all(known) {
        let name = shown(name);
        return Err(format!(
            "{field}: {name:?} is no file of the folder: use letters, digits, '-', '_' and '.', no folder in it"
        ));
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_FILE_NAME).collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && !text.contains('\0')
}
