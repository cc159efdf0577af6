//! `tinyfaas doctor`: what keeps a server from working on this machine, and what to do about it.
//!
//! It reads the settings that serve would, makes nothing, and waits for nothing longer than [`PATIENCE`].

mod engine;
mod here;
mod server;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;

use super::error::Error;
use super::output::{harmless, print, print_json};
use crate::config::Config;
use crate::config_file::Layers;

/// Time for one of the checks.
const PATIENCE: Duration = Duration::from_secs(20);

/// check what a server needs on this machine, and the server that runs; says what to do
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "doctor",
    help_triggers("-h", "--help"),
    note = "Run it as the user that serves, with its variables and its --config. The exit code is 1 where there is a problem.",
    example = "{command_name}\nsudo {command_name} --config /etc/tinyfaas/tinyfaas.json"
)]
pub(super) struct Doctor {
    /// file of settings that the server is started with
    #[argh(option, arg_name = "FILE")]
    config: Option<PathBuf>,

    /// folder for what is deployed, where serve is told so
    #[argh(option, arg_name = "DIR")]
    state_dir: Option<String>,

    /// what runs handlers, where serve is told so: docker, process or auto
    #[argh(option, arg_name = "NAME")]
    backend: Option<String>,

    /// the Docker engine, where serve is told so
    #[argh(option, arg_name = "URL")]
    docker_host: Option<String>,

    /// folder of runtimes besides ours, where serve is told so
    #[argh(option, arg_name = "DIR")]
    runtimes: Option<String>,

    /// one JSON object instead of lines
    #[argh(switch)]
    json: bool,

    /// the server, HOST or HOST:PORT of its management API, https:// for TLS; default TINYFAAS_HOST, else that of the settings
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Problem,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Check {
    status: Status,
    /// What was looked at.
    name: String,
    /// How it is.
    found: String,
    /// What to do, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { status: Status::Ok, name: name.into(), found: found.into(), advice: None }
    }

    fn warning(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warning, name: name.into(), found: found.into(), advice: Some(advice.into()) }
    }

    fn problem(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Problem, name: name.into(), found: found.into(), advice: Some(advice.into()) }
    }

    /// One line: engines and registries may say more than that.
    fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Problem => "problem",
        };
        let advice = self.advice.as_deref().map_or_else(String::new, |advice| format!(" - {advice}"));
        let line = format!("{status}: {}: {}{advice}", self.name, self.found);
        harmless(line.replace(['\n', '\t'], " ").as_bytes()) + "\n"
    }
}

/// The object of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Error> {
        let mut flags = Vec::new();
        let given = [
            ("--state-dir", &self.state_dir),
            ("--backend", &self.backend),
            ("--docker-host", &self.docker_host),
            ("--runtimes", &self.runtimes),
        ];
        for (flag, value) in given {
            flags.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        let layers = Layers::new(&flags, self.config.clone(), &|name| std::env::var_os(name));
        let config = layers.and_then(|layers| layers.read()).map_err(Error::usage)?.config;
        let board = server::board(self.host.as_deref(), self.ca.as_deref(), &config)?;
        let mut checks = Vec::new();
        let mut add = |found: Vec<Check>| {
            let printed = if self.json { Ok(()) } else { found.iter().try_for_each(|check| print(&check.line())) };
            checks.extend(found);
            printed
        };
        let (of_server, runs) = server::check(board);
        let is_here = self.host.is_none();
        // First: what they need is looked for on the engine.
        add(bounded("runtimes", &config, here::runtimes))?;
        add(bounded("engine", &config, engine::check))?;
        add(bounded("ports", &config, move |config| here::ports(config, runs && is_here)))?;
        add(bounded("state directory", &config, here::state_dir))?;
        add(bounded("this machine", &config, here::machine))?;
        add(of_server)?;
        let problems = checks.iter().filter(|check| check.status == Status::Problem).count();
        if self.json {
            print_json(&Report { ok: problems == 0, checks: &checks })?;
        }
        match problems {
            0 => Ok(()),
            1 => Err(Error::failed("there is 1 problem")),
            n => Err(Error::failed(format!("there are {n} problems"))),
        }
    }
}

/// What `check` finds within [`PATIENCE`]. One that hangs (a network's file system, an engine that is stuck) is left behind, and ends
/// with the process.
fn bounded(name: &str, config: &Config, check: impl FnOnce(&Config) -> Vec<Check> + Send + 'static) -> Vec<Check> {
    let (send, found) = mpsc::channel();
    let config = config.clone();
    let work = move || {
        let _ = send.send(check(&config));
    };
    let failed = |why: String| vec![Check::problem(name, why, "find out what it waits for and run doctor again")];
    if let Err(e) = std::thread::Builder::new().spawn(work) {
        return failed(format!("cannot be checked: {e}"));
    }
    found.recv_timeout(PATIENCE).unwrap_or_else(|_| failed(format!("nothing is known of it after {PATIENCE:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_whatever_it_found() {
        let check = Check::problem("engine", "it said:\n\x1b[2Jno", "start it");
        assert_eq!(check.line(), "problem: engine: it said: [2Jno - start it\n");
        assert_eq!(Check::ok("clock", "2026").line(), "ok: clock: 2026\n");
    }
}
