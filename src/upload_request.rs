//! What the JSON of the management API asks for, checked field by field.
//!
//! Input is the *rest* that [`crate::wire::upload`] leaves: bounded JSON without the archive. Unknown fields are
//! ignored, as the Go program does; within `limits`, which it does not know, they are refused, since a limit with a
//! typing error would be no limit. `null` counts as absent: a Go client sends it for an empty list.
//!
//! No error repeats the value of an environment variable: it may be a secret.

mod query;
mod values;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::function::{Deployment, Limits, Name, Origin, Runtime};
use crate::limits;
use crate::runtimes;
use crate::tokens::Digest;
use crate::wire::url::Url;
use crate::wire::zip::path;
pub use query::{Put, put};
use values::{LIMITS, Limit, List, Scalar};

/// Most handlers of one function: each is a process, and often a container.
pub const MAX_THREADS: usize = 64;
/// Bytes of all environment variables of a function together; they are held in memory and handed to each handler.
pub const MAX_ENV_BYTES: usize = 32 * 1024;
/// Environment variables of a function; each costs an allocation.
pub const MAX_ENVS: usize = 512;
/// Tokens of a function; each is compared for each call.
pub const MAX_AUTH: usize = 64;
/// Longest reference of an image in bytes.
const MAX_REFERENCE: usize = 255;
/// Prefix of the variables that we set for a handler ourselves.
const OWN_PREFIX: &str = "TINYFAAS_";
/// Characters of a wrong value that an error repeats.
const SHOWN: usize = 40;

/// What a deployment asks for, wherever its archive comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The function's name.
    pub name: Name,
    /// What runs it.
    pub runtime: Runtime,
    /// The image that its handlers are, where no archive comes with it.
    pub image: Option<String>,
    /// How many handlers, 1 to [`MAX_THREADS`].
    pub threads: usize,
    /// `KEY=VALUE`, each key once.
    pub envs: Vec<String>,
    /// The function's limits: those that were asked for, the defaults for the rest.
    pub limits: Limits,
    /// Time without a call after which its handlers are stopped.
    pub idle: Option<Duration>,
    /// The tokens that calls need; empty where anybody may call.
    pub auth: Vec<Digest>,
    /// Whether its handlers have a network.
    pub network: bool,
    /// The folder of the archive that is the function: empty for the top, else without `/` around it.
    pub subfolder: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Deploy {
    /// The deployment of the archive in the file `package`; it has no digest yet.
    pub fn deployment(self, package: PathBuf) -> Deployment {
        Deployment {
            name: self.name,
            runtime: self.runtime,
            image: self.image,
            threads: self.threads,
            envs: self.envs,
            limits: self.limits,
            auth: self.auth,
            network: self.network,
            idle: self.idle,
            origin: self.origin,
            digest: String::new(),
            package,
            subfolder: self.subfolder,
        }
    }
}

/// What holds for a function whose deployment says nothing else.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Its limits.
    pub limits: Limits,
    /// Time without a call after which its handlers are stopped.
    pub idle: Option<Duration>,
    /// Whether handlers have a network: where not, no function may ask for one.
    pub network: bool,
}

/// Reads the body of `/upload`: `zip` says whether it held an archive.
///
/// # Errors
/// One line that names the field and what it should be. HTTP 400.
pub fn upload(rest: &str, zip: Option<u64>, defaults: &Defaults) -> Result<Deploy, String> {
    let fields = parse(rest)?;
    if fields.image()?.is_some() {
        return match zip {
            None | Some(0) => fields.deploy(defaults),
            Some(_) => Err("zip: no archive comes with an image: leave one of them out".into()),
        };
    }
    match zip {
        None => Err("zip is missing: send the archive in base64".into()),
        Some(0) => Err("zip is empty: send the archive in base64".into()),
        Some(_) => fields.deploy(defaults),
    }
}

/// Reads the body of `/uploadURL`.
///
/// # Errors
/// As [`upload`].
pub fn upload_url(rest: &str, defaults: &Defaults) -> Result<(Deploy, Url), String> {
    let fields = parse(rest)?;
    if fields.is_image() {
        return Err("image: nothing is fetched for it: use /upload".into());
    }
    let url = match &fields.url {
        None => return Err("url is missing: it has to be the http or https address of a zip archive".into()),
        Some(Scalar::Text(text)) => Url::parse(text).map_err(|why| format!("url: {why}"))?,
        Some(_) => return Err("url has to be a string".into()),
    };
    Ok((fields.deploy(defaults)?, url))
}

/// Reads the description that is beside a function's code, with the same fields: what it leaves out is `name`, one
/// handler, and the runtime that `detect` finds in the function's folder of the archive.
///
/// # Errors
/// One line that names the field and what it should be, or as `detect`.
pub fn described(
    text: &str,
    name: &str,
    detect: impl FnOnce(&str) -> Result<Runtime, String>,
    defaults: &Defaults,
) -> Result<Deploy, String> {
    let known = ["name", "env", "image", "threads", "envs", "limits", "idle", "auth", "network", "subfolder_path"];
    let keys: BTreeMap<String, IgnoredAny> = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    // Nobody else's clients send it: a field with a typing error would be no field.
    if let Some(key) = keys.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("{:?} is unknown: there are {}", cut(key), known.join(", ")));
    }
    let mut fields = parse(text)?;
    fields.name.get_or_insert_with(|| Scalar::Text(name.to_owned()));
    fields.threads.get_or_insert(Scalar::Number(1));
    if fields.env.is_none() && !fields.is_image() {
        let runtime = detect(fields.subfolder()?)?;
        fields.env = Some(Scalar::Text(runtime.name().to_owned()));
    }
    Ok(Deploy { origin: Origin::Folder, ..fields.deploy(defaults)? })
}

/// Reads the body of `/delete`: the function's name.
///
/// # Errors
/// As [`upload`].
pub fn delete(rest: &str) -> Result<Name, String> {
    parse(rest)?.name()
}

fn parse(rest: &str) -> Result<Fields, String> {
    serde_json::from_str(rest).map_err(|e| {
        // Values are never part of it: what has the wrong type was taken as `Scalar::Other`.
        let text = e.to_string();
        format!("not the JSON that was expected: {}", text.split(" at line ").next().unwrap_or_default())
    })
}

/// The fields as they came; a duplicate is refused by serde.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    name: Option<Scalar>,
    env: Option<Scalar>,
    image: Option<Scalar>,
    threads: Option<Scalar>,
    envs: Option<List>,
    limits: Option<Limit>,
    idle: Option<Scalar>,
    auth: Option<List>,
    network: Option<Scalar>,
    subfolder_path: Option<Scalar>,
    url: Option<Scalar>,
}

impl Fields {
    fn name(&self) -> Result<Name, String> {
        Name::parse(text(&self.name, "name", "1 to 63 ASCII letters and digits")?).map_err(|e| format!("name: {e}"))
    }

    fn subfolder(&self) -> Result<&str, String> {
        match &self.subfolder_path {
            None => Ok(""),
            Some(Scalar::Text(text)) => path::subfolder(text).map_err(|why| format!("subfolder_path: {why}")),
            Some(_) => Err("subfolder_path has to be a string: a folder of the archive".into()),
        }
    }

    /// Whether it is an image that is asked for, rightly or not.
    fn is_image(&self) -> bool {
        let named = matches!(&self.env, Some(Scalar::Text(env)) if env == Runtime::IMAGE.name());
        self.image.is_some() && self.env.is_none() || named
    }

    fn runtime(&self) -> Result<Runtime, String> {
        if self.is_image() {
            return Ok(Runtime::IMAGE);
        }
        let runtime = text(&self.env, "env", &runtimes::choices())?;
        runtimes::named(&cut(runtime)).map_err(|e| format!("env: {e}"))
    }

    /// The image's reference, where it is one that is asked for.
    fn image(&self) -> Result<Option<String>, String> {
        if !self.is_image() {
            return match self.image {
                None => Ok(None),
                Some(_) => Err("image goes with the env image: leave out image, or env".into()),
            };
        }
        if self.subfolder_path.is_some() {
            return Err("subfolder_path: no archive comes with an image: leave it out".into());
        }
        let reference = text(&self.image, "image", "an image's reference such as example.org/hello:1")?;
        if is_reference(reference) {
            return Ok(Some(reference.to_owned()));
        }
        Err(format!("image: {:?} is no reference of an image: use one such as example.org/hello:1", cut(reference)))
    }

    fn deploy(self, defaults: &Defaults) -> Result<Deploy, String> {
        let (runtime, image) = (self.runtime()?, self.image()?);
        let threads = match self.threads {
            Some(Scalar::Number(n)) if (1..=MAX_THREADS as u64).contains(&n) => n as usize,
            None => return Err(format!("threads is missing: it has to be a number from 1 to {MAX_THREADS}")),
            Some(_) => return Err(format!("threads has to be a whole number from 1 to {MAX_THREADS}")),
        };
        let subfolder = self.subfolder()?;
        let idle = match &self.idle {
            None => defaults.idle,
            Some(Scalar::Text(text)) => limits::idle(&cut(text)).map_err(|why| format!("idle: {why}"))?.time(),
            Some(_) => return Err("idle has to be a string such as \"5m\", or \"off\"".into()),
        };
        let network = match self.network {
            None => defaults.network,
            Some(Scalar::Flag(true)) if !defaults.network => {
                return Err(
                    "network: this server gives functions none (--network none): leave it out, or use false".into()
                );
            }
            Some(Scalar::Flag(network)) => network,
            Some(_) => return Err("network has to be true or false".into()),
        };
        Ok(Deploy {
            name: self.name()?,
            runtime,
            image,
            threads,
            subfolder: subfolder.to_owned(),
            limits: match self.limits {
                None => defaults.limits.clone(),
                Some(limits) => limits.apply(&defaults.limits)?,
            },
            idle,
            network,
            origin: Origin::Upload,
            auth: self.auth.map_or_else(|| Ok(Vec::new()), List::auth)?,
            envs: self.envs.map_or_else(|| Ok(Vec::new()), List::envs)?,
        })
    }
}

fn text<'a>(field: &'a Option<Scalar>, name: &str, what: &str) -> Result<&'a str, String> {
    match field {
        Some(Scalar::Text(text)) => Ok(text),
        None => Err(format!("{name} is missing: it has to be {what}")),
        Some(_) => Err(format!("{name} has to be a string: {what}")),
    }
}

/// Whether an image may be called so: nothing that could lead elsewhere in the path of a request to the engine.
fn is_reference(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b);
    let is_part =
        |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && part.bytes().all(known);
    text.len() <= MAX_REFERENCE && text.split('/').all(is_part)
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Checks one environment variable: its key.
fn env_key(entry: &str) -> Result<&str, String> {
    let (key, value) = entry.split_once('=').ok_or("has no =: write KEY=VALUE")?;
    let first = key.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("has a wrong key: use letters, digits and _, not a digit first, then = and the value".into());
    }
    if value.contains('\0') {
        return Err(format!("({}) holds a NUL byte, which no environment variable can", cut(key)));
    }
    if key.starts_with(OWN_PREFIX) {
        return Err(format!("({}) begins with {OWN_PREFIX}: such names are tinyFaaS's own", cut(key)));
    }
    Ok(key)
}

impl List {
    fn auth(self) -> Result<Vec<Digest>, String> {
        let Self::Texts(entries) = self else {
            return Err("auth has to be a list of the SHA-256 of tokens, in hexadecimal".into());
        };
        if entries.len() > MAX_AUTH {
            return Err(format!("auth has more than {MAX_AUTH} entries"));
        }
        let digest = |(n, entry): (usize, &Scalar)| match entry {
            Scalar::Text(text) => Digest::parse(text).map_err(|why| format!("auth[{n}]: {why}")),
            _ => Err(format!("auth[{n}] has to be a string")),
        };
        entries.iter().enumerate().map(digest).collect()
    }

    fn envs(self) -> Result<Vec<String>, String> {
        let entries = match self {
            Self::Texts(entries) => entries,
            Self::TooLong => return Err(format!("envs has more than {MAX_ENVS} entries")),
            Self::Other => return Err("envs has to be a list of strings KEY=VALUE".into()),
        };
        let mut envs = Vec::with_capacity(entries.len());
        for (n, entry) in entries.into_iter().enumerate() {
            match entry {
                Scalar::Text(entry) => envs.push(entry),
                _ => return Err(format!("envs[{n}] has to be a string KEY=VALUE")),
            }
        }
        check_envs(&envs)?;
        Ok(envs)
    }
}

/// Checks environment variables as `KEY=VALUE`, also those of the command line.
///
/// # Errors
/// One line that names the entry by its number and at most its key.
pub fn check_envs(envs: &[String]) -> Result<(), String> {
    if envs.len() > MAX_ENVS {
        return Err(format!("envs has more than {MAX_ENVS} entries"));
    }
    if envs.iter().map(|entry| entry.len() + 1).sum::<usize>() > MAX_ENV_BYTES {
        return Err(format!("envs is larger than {MAX_ENV_BYTES} bytes together"));
    }
    let mut keys = HashSet::new();
    for (n, entry) in envs.iter().enumerate() {
        let key = env_key(entry).map_err(|why| format!("envs[{n}] {why}"))?;
        if !keys.insert(key) {
            return Err(format!("envs[{n}] ({}) is there twice", cut(key)));
        }
    }
    Ok(())
}

impl Limit {
    fn apply(self, defaults: &Limits) -> Result<Limits, String> {
        let fields = match self {
            Self::Fields(fields) => fields,
            Self::Unknown(key) => {
                return Err(format!("limits.{key:?} is unknown: there are {}", LIMITS.join(", ")));
            }
            Self::Twice(key) => return Err(format!("limits.{key} is there twice")),
            Self::Other => return Err("limits has to be an object such as {\"memory\":\"64Mi\"}".into()),
        };
        let mut limits = defaults.clone();
        for (name, value) in LIMITS.into_iter().zip(fields.by_name) {
            if let Some(value) = value {
                set(&mut limits, name, &value).map_err(|why| format!("limits.{name}: {why}"))?;
            }
        }
        Ok(limits)
    }
}

fn set(to: &mut Limits, name: &str, value: &Scalar) -> Result<(), String> {
    let number = || amount(value, "a whole number such as 8");
    match name {
        "memory" => to.memory = limits::memory(&amount(value, "a size such as \"64Mi\"")?)?,
        "cpu" => to.cpu_millis = limits::cpu(&amount(value, "an amount such as \"500m\"")?)?,
        "timeout" => match value {
            Scalar::Text(text) => to.timeout = limits::timeout(&cut(text))?,
            _ => return Err("has to be a string such as \"30s\"".into()),
        },
        "pids" => to.pids = limits::pids(&number()?)?,
        "concurrency" => to.concurrency = limits::concurrency(&number()?)?,
        _ => to.queue = limits::queue(&number()?)?,
    }
    Ok(())
}

/// An amount: a string, or a number without a unit.
fn amount(value: &Scalar, what: &str) -> Result<String, String> {
    match value {
        Scalar::Text(text) => Ok(cut(text)),
        Scalar::Number(n) => Ok(n.to_string()),
        Scalar::Flag(_) | Scalar::Other => Err(format!("has to be {what}")),
    }
}

#[cfg(test)]
#[path = "upload_request_tests.rs"]
mod tests;
