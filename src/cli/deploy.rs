//! `tinyfaas deploy`: a folder, a zip file or a URL becomes a function.
//!
//! The upload is made while it is sent: zip, base64 and JSON stream through one another, and nothing stands whole in memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use serde::{Deserialize, Serialize};

use super::board::Board;
#[cfg(feature = "assist")]
use super::changes;
use super::error::Error;
#[cfg(feature = "assist")]
use super::error::ErrorKind;
use super::http_client::Body;
#[cfg(feature = "assist")]
use super::output::tell;
use super::output::{Ask, Progress, Told, harmless, print, print_json};
use crate::function::{Name, Runtime};
use crate::limits::{self, Idle};
use crate::pack;
use crate::quantity::{self, count};
use crate::tokens::Tokens;
use crate::wire::zip;

/// What is waited for once all is sent: dependencies may be installed first.
const WAITING: &str = "waiting for the server to install and start it";

/// deploy a function from a folder, a zip file, a URL or an image, and wait until it answers; prints its URLs
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "deploy",
    help_triggers("-h", "--help"),
    example = "{command_name} ./hello --threads 2 --env-var GREETING=hi --memory 64Mi\n\
               {command_name} --url https://example.org/functions.zip --subfolder hello --name hello --env python3\n\
               {command_name} --image example.org/hello:1 --name hello"
)]
pub(super) struct Deploy {
    /// the function's folder, or a zip file of it
    #[argh(positional, arg_name = "DIR")]
    dir: Option<PathBuf>,

    /// let the server fetch the zip from this URL
    #[argh(option, arg_name = "URL")]
    url: Option<String>,

    /// folder of the URL's zip that is the function; default: its top
    #[argh(option, arg_name = "PATH")]
    subfolder: Option<String>,

    /// image that is a handler as it is (docs/functions.md), by its name in the server's engine; needs --name
    #[argh(option, arg_name = "REF")]
    image: Option<String>,

    /// the function's name, letters and digits; default: the folder's or the zip file's
    #[argh(option, arg_name = "NAME")]
    name: Option<String>,

    /// python3, nodejs, binary, go or one of the server's own; default: by the folder's files (fn.py, package.json, fn.sh, fn.go)
    #[argh(option, arg_name = "ENV", from_str_fn(parse_env))]
    env: Option<Runtime>,

    /// how many handlers; default 1
    #[argh(option, arg_name = "N", from_str_fn(count), default = "1")]
    threads: usize,

    /// an environment variable of the function; may be repeated
    #[argh(option, arg_name = "KEY=VALUE", from_str_fn(parse_variable))]
    env_var: Vec<String>,

    /// most memory of a handler, such as 64Mi, 0 for no limit; the server has a default for this and the following
    #[argh(option, arg_name = "SIZE", from_str_fn(limits::memory))]
    memory: Option<u64>,

    /// most processor time of a handler in cores, 2 or 500m, 0 for no limit
    #[argh(option, arg_name = "CORES", from_str_fn(limits::cpu))]
    cpu: Option<u32>,

    /// most processes and threads in a handler
    #[argh(option, arg_name = "N", from_str_fn(limits::pids))]
    pids: Option<u32>,

    /// longest time for one call, waiting included, such as 30s
    #[argh(option, arg_name = "TIME", from_str_fn(limits::timeout))]
    timeout: Option<Duration>,

    /// calls that one handler works on at once
    #[argh(option, arg_name = "N", from_str_fn(limits::concurrency))]
    concurrency: Option<usize>,

    /// calls that may wait for a handler
    #[argh(option, arg_name = "N", from_str_fn(limits::queue))]
    queue: Option<usize>,

    /// stop its handlers after this time without a call, such as 5m, or off; the next call starts them
    #[argh(option, arg_name = "TIME", from_str_fn(limits::idle))]
    idle: Option<Idle>,

    /// file of tokens (tinyfaas token new), one of which each call needs; default: anybody may call
    #[argh(option, arg_name = "FILE")]
    auth: Option<PathBuf>,

    /// its handlers reach no network; what it depends on is installed all the same
    #[argh(switch)]
    no_network: bool,

    /// deploy again whenever a file changes, until ctrl-C; a deployment that fails leaves the one before
    #[cfg(feature = "assist")]
    #[argh(switch)]
    watch: bool,

    /// one JSON object instead of its URLs
    #[argh(switch)]
    json: bool,

    /// the server, HOST or HOST:PORT of its management API, https:// for TLS; default TINYFAAS_HOST, else 127.0.0.1:8080
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What both ways to deploy say about a function.
#[derive(Serialize)]
struct About<'a> {
    name: &'a str,
    env: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    threads: usize,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    envs: &'a [String],
    #[serde(skip_serializing_if = "Limits::is_empty")]
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    auth: &'a [String],
    /// The server's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subfolder_path: Option<&'a str>,
}

/// The limits that were named.
#[derive(Serialize, Default, PartialEq)]
struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<usize>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What was deployed.
struct Deployed {
    name: Name,
    runtime: Runtime,
    /// The server's: a URL a line.
    answer: Vec<u8>,
}

/// The object of `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    env: &'a str,
    urls: Vec<&'a str>,
}

impl Deployed {
    fn print(&self, json: bool) -> Result<(), Error> {
        let text = String::from_utf8_lossy(&self.answer);
        if !json {
            return print(&text);
        }
        print_json(&Shown {
            name: self.name.as_str(),
            env: self.runtime.name(),
            urls: text.split_whitespace().collect(),
        })
    }
}

/// What is uploaded.
enum Package {
    Folder(PathBuf),
    Zip(File),
}

impl Deploy {
    pub(super) fn run(self) -> Result<(), Error> {
        let board = Board::find(self.host.as_deref(), self.ca.as_deref())?;
        #[cfg(feature = "assist")]
        if self.watch {
            return self.watch(&board);
        }
        self.deploy(&board)?.print(self.json)
    }

    /// Deploys whenever the folder changes, until the process is ended.
    #[cfg(feature = "assist")]
    fn watch(&self, board: &Board) -> Result<(), Error> {
        let (Some(dir), None, None) = (&self.dir, &self.url, &self.image) else {
            return Err(Error::usage("--watch needs a folder or a zip file of this machine"));
        };
        // Taken before it is packed: what changes meanwhile is another change.
        let mut deployed = changes::mark(dir).ok();
        match self.deploy(board) {
            Ok(done) => done.print(self.json)?,
            // Not mended by an edit.
            Err(e) if e.kind == ErrorKind::Usage => return Err(e),
            Err(e) => tell(&e),
        }
        let mut before = deployed;
        loop {
            std::thread::sleep(changes::PAUSE);
            let now = changes::mark(dir).ok();
            if now.is_some() && now == before && now != deployed {
                deployed = now;
                match self.deploy(board) {
                    Ok(done) if self.json => done.print(true)?,
                    Ok(done) => print(&format!("{} is deployed again\n", done.name))?,
                    Err(e) => tell(&e),
                }
            }
            before = now;
        }
    }

    /// Deploys once.
    fn deploy(&self, board: &Board) -> Result<Deployed, Error> {
        let progress = Arc::new(Progress::new(self.json));
        let (name, runtime, target, body) = match (&self.dir, &self.url, &self.image) {
            (Some(dir), None, None) if self.subfolder.is_none() => {
                let (name, runtime, package) = self.read(dir)?;
                let about = self.about(&name, runtime, None)?;
                let body = upload(about, package, Arc::clone(&progress), ask(board, &name));
                (name, runtime, "/upload", body)
            }
            (None, None, Some(_)) if self.subfolder.is_none() => {
                if self.env.is_some_and(|env| env != Runtime::IMAGE) {
                    return Err(Error::usage("--env is not for --image: leave one of them out"));
                }
                let name = self.checked_name(None)?;
                let about = self.about(&name, Runtime::IMAGE, None)?;
                (name, Runtime::IMAGE, "/upload", Body::Bytes(about.into_bytes()))
            }
            (_, None, _) if self.subfolder.is_some() => {
                return Err(Error::usage("--subfolder goes with --url: deploy that folder itself"));
            }
            (None, Some(url), None) => {
                let last = self.subfolder.as_deref().and_then(|s| s.trim_end_matches('/').rsplit('/').next());
                let name = self.checked_name(last)?;
                let runtime = self.env.ok_or_else(|| Error::usage("--url needs --env, such as python3"))?;
                let about = self.about(&name, runtime, Some(url))?;
                (name, runtime, "/uploadURL", Body::Bytes(about.into_bytes()))
            }
            _ => {
                return Err(Error::usage(
                    "deploy takes either a folder, or --url, or --image (see tinyfaas deploy --help)",
                ));
            }
        };
        if let Body::Bytes(_) = body {
            progress.wait(WAITING, ask(board, &name));
        }
        let answer = board.ask("POST", target, body).and_then(|mut answer| answer.whole());
        progress.end();
        Ok(Deployed { name, runtime, answer: answer? })
    }

    /// The function's name and env by a folder or a zip file, and what to send.
    fn read(&self, dir: &Path) -> Result<(Name, Runtime, Package), Error> {
        let unusable = |e: io::Error| Error::usage(format!("cannot deploy {}: {e}", dir.display()));
        let meta = std::fs::metadata(dir).map_err(unusable)?;
        let (runtime, package) = if meta.is_dir() {
            let runtime = self.env.map_or_else(|| pack::detect(dir), Ok).map_err(Error::usage)?;
            (runtime, Package::Folder(dir.into()))
        } else {
            let runtime = self.env.ok_or_else(|| Error::usage("a zip file needs --env, such as python3"))?;
            (runtime, Package::Zip(open_zip(dir).map_err(unusable)?))
        };
        // `.` and `..` have no name of their own.
        let full = dir.canonicalize().map_err(unusable)?;
        let stem = if meta.is_dir() { full.file_name() } else { full.file_stem() };
        let name = self.checked_name(stem.and_then(|n| n.to_str()))?;
        Ok((name, runtime, package))
    }

    fn checked_name(&self, default: Option<&str>) -> Result<Name, Error> {
        match (&self.name, default) {
            (Some(name), _) => Name::parse(name).map_err(Error::usage),
            (None, Some(name)) => Name::parse(name).map_err(|e| Error::usage(format!("{e}, and give it with --name"))),
            (None, None) => Err(Error::usage("the function needs a name: give --name")),
        }
    }

    fn about(&self, name: &Name, runtime: Runtime, url: Option<&str>) -> Result<String, Error> {
        let tokens = self.auth.as_deref().map(Tokens::read).transpose();
        let tokens = tokens.map_err(|e| Error::usage(format!("--auth: {e}")))?;
        let auth: Vec<String> = tokens.iter().flat_map(Tokens::digests).map(ToString::to_string).collect();
        let about = About {
            name: name.as_str(),
            env: runtime.name(),
            image: self.image.as_deref(),
            threads: self.threads,
            envs: &self.env_var,
            limits: Limits {
                memory: self.memory.map(quantity::show_bytes),
                cpu: self.cpu.map(quantity::show_cpu_millis),
                pids: self.pids,
                timeout: self.timeout.map(quantity::show_duration),
                concurrency: self.concurrency,
                queue: self.queue,
            },
            idle: self.idle.map(|idle| idle.to_string()),
            auth: &auth,
            network: self.no_network.then_some(false),
            url,
            subfolder_path: self.subfolder.as_deref(),
        };
        serde_json::to_string(&about).map_err(|e| Error::failed(e.to_string()))
    }
}

/// The body of an upload: the zip comes last, so that the server can refuse the rest before it.
fn upload(mut about: String, package: Package, progress: Arc<Progress>, ask: Ask) -> Body {
    about.truncate(about.len() - 1);
    Body::Chunked(Box::new(move |out| {
        let mut out = Counted { out, sent: 0, progress: &progress };
        out.write_all(about.as_bytes())?;
        out.write_all(b",\"zip\":\"")?;
        let mut base64 = EncoderWriter::new(&mut out, &STANDARD);
        match package {
            Package::Folder(dir) => pack::write_zip(&dir, zip::Writer::new(&mut base64))?,
            Package::Zip(mut file) => io::copy(&mut file, &mut base64).map(drop)?,
        }
        base64.finish()?;
        drop(base64);
        out.write_all(b"\"}")?;
        progress.wait(WAITING, ask);
        Ok(())
    }))
}

/// What `GET /functions/NAME/deployment` tells.
#[derive(Deserialize)]
struct Stage {
    step: String,
    lines: u64,
    log: Vec<String>,
}

/// Asks the server how far the deployment of `name` is. The original's knows no such path, which is no error.
fn ask(board: &Board, name: &Name) -> Ask {
    let (board, target, mut seen) = (board.clone(), format!("/functions/{name}/deployment"), 0);
    Box::new(move || {
        let answer = board.ask("GET", &target, Body::None).and_then(|mut answer| answer.whole()).ok()?;
        let stage: Stage = serde_json::from_slice(&answer).ok()?;
        let new = usize::try_from(stage.lines.saturating_sub(seen)).unwrap_or(usize::MAX);
        seen = stage.lines;
        let known = stage.log.len();
        let missed = (new > known).then(|| format!("[{} lines]", new - known));
        let lines = stage.log.iter().skip(known.saturating_sub(new)).map(|line| harmless(line.as_bytes()));
        Some(Told { step: harmless(stage.step.as_bytes()), lines: missed.into_iter().chain(lines).collect() })
    })
}

/// Counts what goes through, and shows it.
struct Counted<'a> {
    out: &'a mut dyn Write,
    sent: u64,
    progress: &'a Progress,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        self.progress.sent(self.sent);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Opens a zip file; any other kind of file is more likely a slip than a function.
fn open_zip(path: &Path) -> io::Result<File> {
    let mut magic = [0; 2];
    let read = File::open(path)?.read_exact(&mut magic);
    if read.is_err() || &magic != b"PK" {
        return Err(io::Error::other("it is neither a folder nor a zip file"));
    }
    File::open(path)
}

fn parse_env(text: &str) -> Result<Runtime, String> {
    Runtime::parse(text)
}

fn parse_variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains('\0') => Ok(text.into()),
        _ => Err("use KEY=VALUE".into()),
    }
}
