//! Where serve's settings come from: flags, before the environment, before the file that `--config` names, before defaults.
//!
//! The file is a JSON object whose keys are flags' names. What it says is turned into flags, so one set of rules checks all,
//! and a new flag is a new setting. It can be read again while the server runs.

use std::fmt;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, CommandInfoWithArgs, EarlyExit, FlagInfoKind, FromArgs, Optionality};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::config::{Config, Var, from_environment};
use crate::text_file;

/// Largest file in bytes: people write it.
const MAX_FILE: u64 = 64 * 1024;

/// What a server that runs takes over from its file; for the other settings it has to be started again.
pub const LIVE: [&str; 16] = [
    "log",
    "log-format",
    "functions",
    "timeout",
    "concurrency",
    "queue",
    "memory",
    "cpu",
    "pids",
    "idle",
    "max-upload",
    "max-functions",
    "health-timeout",
    "download-timeout",
    "allow-local-urls",
    "public-host",
];

/// One setting of the file that no flag or variable overrules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    args: Vec<String>,
}

/// The layers above the file.
#[derive(Debug)]
pub struct Layers {
    /// Flags, and the environment as flags.
    given: Vec<String>,
    /// The file, if there is one.
    path: Option<PathBuf>,
}

/// What was read.
#[derive(Debug)]
pub struct Configured {
    /// All layers together.
    pub config: Config,
    /// What of it came from the file.
    pub settings: Vec<Setting>,
}

/// What was read again.
#[derive(Debug)]
pub struct Reread {
    /// The settings that hold now.
    pub now: Configured,
    /// Names of those that are other than before.
    pub changed: Vec<String>,
    /// Names of those that are other in the file, but need a restart.
    pub stuck: Vec<String>,
}

impl Layers {
    /// What `args` (serve's flags) and the environment say, and the file `path`.
    ///
    /// # Errors
    /// One line that names the variable whose value is wrong.
    pub fn new(args: &[String], path: Option<PathBuf>, var: Var<'_>) -> Result<Self, String> {
        Ok(Self { given: [args, &from_environment(args, var)?].concat(), path })
    }

    /// Reads the file, if there is one, and puts all layers together. Blocking.
    ///
    /// # Errors
    /// One line that names the flag, or the file, the line in it and the setting.
    pub fn read(&self) -> Result<Configured, String> {
        let settings = self.path.as_deref().map_or_else(|| Ok(Vec::new()), |path| self.settings(path))?;
        self.with(settings)
    }

    /// Reads the file again: of what changed since `before`, what can be taken over now is. Blocking.
    ///
    /// # Errors
    /// As [`Self::read`]; what held before goes on to hold.
    pub fn reread(&self, before: &[Setting]) -> Result<Reread, String> {
        // The whole file has to be right, not only what is taken over.
        let after = self.read()?.settings;
        let (mut changed, mut stuck) = (Vec::new(), Vec::new());
        let mut settings: Vec<Setting> = before.iter().filter(|s| !s.is_live()).cloned().collect();
        settings.extend(after.iter().filter(|s| s.is_live()).cloned());
        let only_before = before.iter().filter(|old| after.iter().all(|new| new.key != old.key));
        for key in after.iter().chain(only_before).map(|s| &s.key) {
            if means(before, key)? != means(&after, key)? {
                let names = if is_live(key) { &mut changed } else { &mut stuck };
                names.push(key.clone());
            }
        }
        Ok(Reread { now: self.with(settings)?, changed, stuck })
    }

    fn with(&self, settings: Vec<Setting>) -> Result<Configured, String> {
        let from_file = settings.iter().flat_map(|s| s.args.iter().cloned());
        let config = parse(&self.given.iter().cloned().chain(from_file).collect::<Vec<_>>())?.validate()?;
        Ok(Configured { config, settings })
    }

    fn settings(&self, path: &Path) -> Result<Vec<Setting>, String> {
        let text =
            text_file::read(path, MAX_FILE).map_err(|e| format!("--config: cannot read {}: {e}", path.display()))?;
        let mut settings = read_settings(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        settings.retain(|setting| !self.given.contains(&format!("--{}", setting.key)));
        Ok(settings)
    }
}

impl Setting {
    fn is_live(&self) -> bool {
        is_live(&self.key)
    }
}

fn is_live(key: &str) -> bool {
    LIVE.contains(&key)
}

/// What a server would be told that has only this setting.
fn means(settings: &[Setting], key: &str) -> Result<Config, String> {
    parse(settings.iter().find(|s| s.key == key).map_or(&[], |s| &s.args))
}

fn parse(args: &[String]) -> Result<Config, String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Config::from_args(&["tinyfaas", "serve"], &args).map_err(|e| one_line(&e))
}

fn one_line(e: &EarlyExit) -> String {
    e.output.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads the file's settings in their order.
///
/// # Errors
/// One line that names the line and the setting.
pub fn read_settings(text: &str) -> Result<Vec<Setting>, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let settings = Settings(&Config::get_args_info()).deserialize(&mut json);
    settings.and_then(|settings| json.end().map(|()| settings)).map_err(|e| {
        // serde_json puts the place last, also behind what is found wrong below.
        let text = e.to_string();
        format!("line {}: {}", e.line(), text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what))
    })
}

/// Reads an object of settings with the help of these flags. Each is checked where it stands, so that an error has its line.
struct Settings<'a>(&'a CommandInfoWithArgs);

impl<'de> DeserializeSeed<'de> for Settings<'_> {
    type Value = Vec<Setting>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Settings<'_> {
    type Value = Vec<Setting>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"queue\": 128}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut settings: Vec<Setting> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if settings.iter().any(|setting| setting.key == key) {
                return Err(A::Error::custom(format!("{key} is there twice")));
            }
            settings.push(setting(self.0, key, value).map_err(A::Error::custom)?);
        }
        Ok(settings)
    }
}

/// Turns an entry of the file into the flag that says the same, and checks that.
fn setting(flags: &CommandInfoWithArgs, key: String, value: Value) -> Result<Setting, String> {
    let long = format!("--{key}");
    let flag = flags.flags.iter().find(|flag| flag.long == long && key != "config" && key != "help");
    let Some(flag) = flag else { return Err(unknown(flags, &key)) };
    let repeats = flag.optionality == Optionality::Repeating;
    let args: Vec<String> = match (&flag.kind, value) {
        (FlagInfoKind::Switch, Value::Bool(true)) => vec![long],
        (FlagInfoKind::Switch, Value::Bool(false)) => Vec::new(),
        (FlagInfoKind::Switch, _) => return Err(format!("{key} is true or false")),
        (FlagInfoKind::Option { .. }, Value::String(text)) => vec![long, text],
        (FlagInfoKind::Option { .. }, Value::Number(number)) => vec![long, number.to_string()],
        (FlagInfoKind::Option { .. }, Value::Array(list)) if repeats => {
            let mut args = Vec::new();
            for item in list {
                let Value::String(text) = item else { return Err(format!("{key} is a list of strings")) };
                args.extend([long.clone(), text]);
            }
            args
        }
        (FlagInfoKind::Option { .. }, Value::Array(_)) => return Err(format!("{key} takes one value, not a list")),
        (FlagInfoKind::Option { arg_name }, value) => {
            return Err(format!("{key} is not {value} but {arg_name}, in quotes or a number"));
        }
    };
    parse(&args).map_err(|e| {
        e.strip_prefix("Error parsing option '--").map_or_else(|| e.clone(), |e| e.replacen("' with", " with", 1))
    })?;
    Ok(Setting { key, args })
}

fn unknown(flags: &CommandInfoWithArgs, key: &str) -> String {
    if key == "config" {
        return "config is a flag only: a file cannot name another".into();
    }
    let names = || flags.flags.iter().filter_map(|flag| flag.long.strip_prefix("--"));
    let alike = names().map(|name| (distance(name, key), name)).min().filter(|(far, _)| *far <= 2);
    let hint = alike.map_or_else(|| "tinyfaas serve --help lists them".into(), |(_, name)| format!("is it {name}?"));
    // As JSON has it: a name may hold the end of a line.
    let key = key.escape_debug();
    format!("{key} is no setting: they have the names of serve's flags ({hint})")
}

/// How many characters have to be put in, taken out or changed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut last = vec![i + 1];
        for (j, y) in b.bytes().enumerate() {
            let at = |row: &[usize], n: usize| row.get(n).copied().unwrap_or(usize::MAX - 1);
            let best = at(&row, j) + usize::from(x != y);
            last.push(best.min(at(&row, j + 1) + 1).min(at(&last, j) + 1));
        }
        row = last;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "config_file_tests.rs"]
mod tests;
