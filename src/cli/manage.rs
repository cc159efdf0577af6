//! The commands that ask the management API one thing: `logs`, `delete`, `wipe`; and `clean`, which asks the engine.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use argh::{ArgsInfo, FromArgs};
use async_executor::StaticExecutor;

use super::board::Board;
use super::error::{Error, ErrorKind};
use super::http_client::Body;
use super::output::{copy, print, print_json};
use super::url::bracketed;
use crate::backend::BackendErrorKind;
use crate::backend::docker::{self, EngineAddress};
use crate::function::Name;
use crate::quantity::{self, count_or_zero};
use crate::worker::Workers;

/// print what the handlers wrote, of these functions or of all
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "logs",
    help_triggers("-h", "--help"),
    example = "{command_name} hello\n\
               {command_name} -f --tail 10 hello resize\n\
               {command_name} --since 10m"
)]
pub(super) struct Logs {
    /// the functions
    #[argh(positional, arg_name = "NAME", from_str_fn(parse_name))]
    name: Vec<Name>,

    /// go on with what they write from now on, also after they are deployed anew
    #[argh(switch, short = 'f')]
    follow: bool,

    /// nothing older: how long ago, 10m, or a time in UTC, 2026-01-31T12:00:00Z
    #[argh(option, arg_name = "TIME", from_str_fn(parse_since))]
    since: Option<String>,

    /// the last so many lines of each handler
    #[argh(option, arg_name = "N", from_str_fn(count_or_zero))]
    tail: Option<usize>,

    /// the server, HOST or HOST:PORT of its management API, https:// for TLS; default TINYFAAS_HOST, else 127.0.0.1:8080
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,
}

/// delete a function
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "delete", help_triggers("-h", "--help"))]
pub(super) struct Delete {
    /// the function
    #[argh(positional, arg_name = "NAME", from_str_fn(parse_name))]
    name: Name,

    /// one JSON object, when it is done
    #[argh(switch)]
    json: bool,

    /// the server, HOST or HOST:PORT of its management API, https:// for TLS; default TINYFAAS_HOST, else 127.0.0.1:8080
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,
}

/// delete every function
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "wipe", help_triggers("-h", "--help"))]
pub(super) struct Wipe {
    /// do not ask
    #[argh(switch)]
    yes: bool,

    /// one JSON object, when it is done
    #[argh(switch)]
    json: bool,

    /// the server, HOST or HOST:PORT of its management API, https:// for TLS; default TINYFAAS_HOST, else 127.0.0.1:8080
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,
}

/// remove from the Docker engine whatever a server left there; stop the server first
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "clean", help_triggers("-h", "--help"))]
pub(super) struct Clean {
    /// only what belongs to the server of this id; default: all that tinyfaas made
    #[argh(option, arg_name = "ID")]
    instance: Option<String>,

    /// the Docker engine, unix:///path or tcp://host:port; default DOCKER_HOST, else unix:///var/run/docker.sock
    #[argh(option, arg_name = "URL")]
    docker_host: Option<String>,

    /// one JSON object, when it is done
    #[argh(switch)]
    json: bool,
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Error> {
        let board = Board::find(self.host.as_deref(), self.ca.as_deref())?;
        let mut answer = board.ask("GET", &self.target(), Body::None)?;
        if self.follow {
            answer.wait_for_ever()?;
        }
        copy(|buf| answer.read(buf))
    }

    fn target(&self) -> String {
        // Names and times are letters, digits and what a query holds as it is.
        let names = self.name.iter().map(|name| format!("name={name}"));
        let since = self.since.iter().map(|since| format!("since={since}"));
        let tail = self.tail.iter().map(|tail| format!("tail={tail}"));
        let follow = self.follow.then(|| "follow=1".to_owned());
        let query: Vec<String> = names.chain(since).chain(tail).chain(follow).collect();
        if query.is_empty() { "/logs".into() } else { format!("/logs?{}", query.join("&")) }
    }
}

impl Delete {
    pub(super) fn run(self) -> Result<(), Error> {
        // A name is letters and digits: nothing in it needs an escape.
        let body = format!("{{\"name\":\"{}\"}}", self.name);
        let done = self.json.then(|| serde_json::json!({"deleted": self.name.as_str()}));
        ask_and_print(self.host, self.ca, "/delete", body.into_bytes(), done)
    }
}

impl Wipe {
    pub(super) fn run(self) -> Result<(), Error> {
        if !self.yes {
            confirm(&Board::find(self.host.as_deref(), self.ca.as_deref())?)?;
        }
        let done = self.json.then(|| serde_json::json!({"wiped": true}));
        ask_and_print(self.host, self.ca, "/wipe", Vec::new(), done)
    }
}

impl Clean {
    pub(super) fn run(self) -> Result<(), Error> {
        let variable = std::env::var("DOCKER_HOST").ok().filter(|v| !v.is_empty());
        let text = self.docker_host.or(variable);
        let engine = EngineAddress::parse(text.as_deref().unwrap_or(EngineAddress::DEFAULT)).map_err(Error::usage)?;
        let executor: &'static StaticExecutor = Box::leak(Box::new(StaticExecutor::new()));
        let clean = docker::clean(engine, executor, Workers::new(), self.instance.as_deref());
        let removed = crate::reactor::block_on(executor.run(clean)).map_err(|e| {
            let unreachable = e.kind == BackendErrorKind::Unreachable;
            Error::new(if unreachable { ErrorKind::Unreachable } else { ErrorKind::Failed }, e.text)
        })?;
        if self.json {
            return print_json(&serde_json::json!({"removed": removed}));
        }
        removed.iter().try_for_each(|line| print(&format!("removed {line}\n")))
    }
}

/// Posts `body`; what is printed is the answer, or `done` in its place once all of it is there.
fn ask_and_print(
    host: Option<String>,
    ca: Option<PathBuf>,
    target: &str,
    body: Vec<u8>,
    done: Option<serde_json::Value>,
) -> Result<(), Error> {
    let mut answer = Board::find(host.as_deref(), ca.as_deref())?.ask("POST", target, Body::Bytes(body))?;
    match done {
        None => copy(|buf| answer.read(buf)),
        Some(done) => answer.whole().and_then(|_| print_json(&done)),
    }
}

/// Asks the person at the terminal; a script has to say `--yes`.
fn confirm(board: &Board) -> Result<(), Error> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage("wipe deletes every function: say --yes where nobody can be asked"));
    }
    let question = format!("Delete every function on {}:{}? [y/N] ", bracketed(&board.host), board.port);
    let _ = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::usage("nothing was deleted")),
    }
}

/// A time as the server takes it, which counts from when it is asked.
fn parse_since(text: &str) -> Result<String, String> {
    quantity::since(text, SystemTime::UNIX_EPOCH).map(|_| text.to_owned())
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::parse(text)
}
