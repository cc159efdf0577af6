//! The command line: which command was asked for, its exit code, and how errors are told.
//!
//! The commands that talk to a server are plain clients of its public interfaces; nothing of the server is used here but by `serve`.

mod board;
#[cfg(feature = "assist")]
mod changes;
pub mod coap_client;
mod deploy;
#[cfg(feature = "assist")]
mod doctor;
mod error;
pub mod grpc_client;
mod http_client;
mod invoke;
mod list;
mod manage;
#[cfg(feature = "assist")]
mod new;
mod output;
mod token;
mod url;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs, SubCommand, SubCommandInfo};

use error::Error;

use crate::config::Config;
use crate::config_file::Layers;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit, target and flavour as `cross/build` names them.
const BUILD: &str = match option_env!("TINYFAAS_BUILD") {
    Some(build) => build,
    None => "not a release",
};

/// functions as a service for small boards: over HTTP, CoAP and gRPC
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    help_triggers("-h", "--help"),
    note = "Without a command, serve is meant: tinyfaas --http :80\n{command_name} COMMAND --help tells each command's options.",
    example = "tinyfaas serve\ntinyfaas deploy ./hello\ntinyfaas invoke hello --data world",
    error_code(0, "done"),
    error_code(1, "failed: the server or the function answered an error, or serve could not start or run on"),
    error_code(2, "the command line is wrong, or a local file cannot be used"),
    error_code(3, "the server cannot be reached, or the connection broke"),
    error_code(4, "not found: no such function, or the function itself answered so")
)]
struct Cli {
    /// print the version
    #[argh(switch, short = 'V')]
    version: bool,

    /// with --version: one JSON object instead of a line
    #[argh(switch)]
    json: bool,

    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Serve(Box<Config>),
    Deploy(Box<deploy::Deploy>),
    Invoke(Box<invoke::Invoke>),
    List(list::List),
    Logs(manage::Logs),
    Delete(manage::Delete),
    Wipe(manage::Wipe),
    Clean(manage::Clean),
    Token(token::Token),
    #[cfg(feature = "assist")]
    New(new::New),
    #[cfg(feature = "assist")]
    Doctor(doctor::Doctor),
}

/// By hand, as the derived one does not see through boxes.
impl ArgsInfo for Command {
    fn get_args_info() -> CommandInfoWithArgs {
        fn of<C: ArgsInfo + SubCommand>() -> SubCommandInfo {
            SubCommandInfo { name: C::COMMAND.name, command: C::get_args_info() }
        }
        let commands = vec![
            of::<Config>(),
            of::<deploy::Deploy>(),
            of::<invoke::Invoke>(),
            of::<list::List>(),
            of::<manage::Logs>(),
            of::<manage::Delete>(),
            of::<manage::Wipe>(),
            of::<manage::Clean>(),
            of::<token::Token>(),
            #[cfg(feature = "assist")]
            of::<new::New>(),
            #[cfg(feature = "assist")]
            of::<doctor::Doctor>(),
        ];
        CommandInfoWithArgs { commands, ..Default::default() }
    }
}

/// All commands with their options: what man page and completions are made from (`tests/it/documents`). The program itself has
/// no use for it, so what is shipped does not contain it.
pub fn command_line() -> CommandInfoWithArgs {
    Cli::get_args_info()
}

/// What the arguments ask for.
#[derive(Debug)]
enum Asked {
    /// The command, and its arguments.
    Run(Command, Vec<String>),
    Print(String),
}

/// The whole program: does what the process's arguments say, and tells errors on standard error.
pub fn main() -> ExitCode {
    let run = arguments().and_then(|args| match args.split_first() {
        // Not commands for people: a handler starts as the one or runs as the other.
        Some((first, rest)) if first == "jail" => Ok(crate::backend::process::jail::run(rest)),
        Some((first, rest)) if first == "handler" => Ok(crate::handler::run(rest)),
        _ => run(args).map(|()| ExitCode::SUCCESS),
    });
    run.unwrap_or_else(|error| {
        output::tell(&error);
        ExitCode::from(error.kind as u8)
    })
}

fn arguments() -> Result<Vec<String>, Error> {
    let utf8 = |arg: OsString| arg.into_string().map_err(|a| Error::usage(format!("{a:?} is not UTF-8")));
    std::env::args_os().skip(1).map(utf8).collect()
}

fn run(args: Vec<String>) -> Result<(), Error> {
    match parse(args)? {
        Asked::Print(text) => output::print(&text),
        Asked::Run(command, args) => command.run(&args),
    }
}

impl Command {
    fn run(self, args: &[String]) -> Result<(), Error> {
        match self {
            // It is put together once more, with what else tells it something.
            Self::Serve(config) => serve(args, config.config),
            Self::Deploy(command) => command.run(),
            Self::Invoke(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Logs(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::Wipe(command) => command.run(),
            Self::Clean(command) => command.run(),
            Self::Token(command) => command.run(),
            #[cfg(feature = "assist")]
            Self::New(command) => command.run(),
            #[cfg(feature = "assist")]
            Self::Doctor(command) => command.run(),
        }
    }
}

/// Reads the arguments.
fn parse(args: Vec<String>) -> Result<Asked, Error> {
    let mut args = normalize(args);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match Cli::from_args(&["tinyfaas"], &words) {
        Ok(Cli { version: true, json: true, .. }) => {
            // Neither has anything in it that JSON escapes.
            Ok(Asked::Print(format!("{{\"version\":\"{VERSION}\",\"build\":\"{BUILD}\"}}\n")))
        }
        Ok(Cli { version: true, .. }) => Ok(Asked::Print(format!("tinyfaas {VERSION} ({BUILD})\n"))),
        Ok(Cli { command: Some(command), .. }) => Ok(Asked::Run(command, args.split_off(1))),
        Ok(Cli { command: None, .. }) => Err(Error::usage("no command: tinyfaas --help lists them")),
        Err(argh::EarlyExit { output, status: Ok(()) }) => Ok(Asked::Print(output)),
        Err(argh::EarlyExit { output, status: Err(()) }) => {
            let line: Vec<&str> = output.split_whitespace().collect();
            Err(Error::usage(format!("{} (see --help)", line.join(" "))))
        }
    }
}

/// Options whose value is anything at all, so that one with `--` and `=` in it is not taken apart.
const FREE_TEXT: [&str; 4] = ["--data", "--header", "--query", "--env-var"];

/// Puts in what may be left out, and writes in argh's form what it does not read: `--name=value`, and `-` for standard input.
fn normalize(args: Vec<String>) -> Vec<String> {
    let mut out = Vec::with_capacity(args.len() + 2);
    if args.first().is_none_or(|a| a.starts_with('-') && !matches!(a.as_str(), "-h" | "--help" | "-V" | "--version")) {
        out.push("serve".to_string());
    }
    let mut ended = false;
    for arg in args {
        let previous = out.last().map_or("", String::as_str);
        let is_value = FREE_TEXT.contains(&previous);
        let after_switch = !previous.starts_with("--") || previous == "--async";
        ended |= arg == "--" && !is_value;
        match arg.split_once('=') {
            Some((name, value)) if !ended && !is_value && name.starts_with("--") => {
                out.push(name.into());
                out.push(value.into());
            }
            _ if arg == "-" && !ended && after_switch => out.extend(["--file".into(), "-".into()]),
            _ => out.push(arg),
        }
    }
    out
}

fn serve(flags: &[String], file: Option<PathBuf>) -> Result<(), Error> {
    let layers = Layers::new(flags, file, &|name| std::env::var_os(name)).map_err(Error::usage)?;
    let configured = layers.read().map_err(Error::usage)?;
    crate::logging::init(configured.config.log, configured.config.log_format);
    crate::serve::run(layers, configured).map_err(|e| Error::failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(args: &[&str]) -> String {
        normalize(args.iter().map(|a| (*a).into()).collect()).join(" ")
    }

    fn asked(args: &[&str]) -> Result<Asked, Error> {
        parse(args.iter().map(|a| (*a).into()).collect())
    }

    #[test]
    fn serve_is_meant_where_no_command_is_named() {
        assert_eq!(normal(&[]), "serve");
        assert_eq!(normal(&["--http", ":80"]), "serve --http :80");
        assert_eq!(normal(&["list"]), "list");
        for top in ["-h", "--help", "-V", "--version"] {
            assert_eq!(normal(&[top]), top);
        }
        assert!(matches!(asked(&["--http", ":80"]), Ok(Asked::Run(Command::Serve(_), _))));
    }

    #[test]
    fn a_value_may_follow_an_equals_sign_and_free_text_is_left_alone() {
        assert_eq!(normal(&["serve", "--http=:80"]), "serve --http :80");
        assert_eq!(normal(&["deploy", "d", "--env-var=A=B=C"]), "deploy d --env-var A=B=C");
        assert_eq!(normal(&["invoke", "f", "--data", "--a=b"]), "invoke f --data --a=b");
        assert_eq!(normal(&["invoke", "--", "--a=b"]), "invoke -- --a=b");
    }

    #[test]
    fn a_lone_dash_is_standard_input() {
        assert_eq!(normal(&["invoke", "f", "-"]), "invoke f --file -");
        assert_eq!(normal(&["invoke", "f", "--async", "-"]), "invoke f --async --file -");
        assert_eq!(normal(&["invoke", "f", "--file", "-"]), "invoke f --file -");
        assert_eq!(normal(&["invoke", "f", "--data", "-"]), "invoke f --data -");
    }

    #[test]
    fn help_and_version_are_printed_and_a_wrong_argument_is_one_line() {
        assert!(matches!(asked(&["--version"]), Ok(Asked::Print(text)) if text.starts_with("tinyfaas ")));
        for command in Command::get_args_info().commands.iter().map(|sub| sub.name) {
            let Ok(Asked::Print(top)) = asked(&["--help"]) else { panic!("no help") };
            assert!(top.contains(&format!("  {command} ")), "{command}");
            let Ok(Asked::Print(help)) = asked(&[command, "--help"]) else { panic!("no help of {command}") };
            assert!(help.starts_with(&format!("Usage: tinyfaas {command}")), "{help}");
        }
        for wrong in [&["lisst"][..], &["serve", "--htp", ":80"], &["delete"], &["invoke", "f", "--method", "A B"]] {
            let error = asked(wrong).unwrap_err();
            assert_eq!((error.kind, error.text.lines().count()), (error::ErrorKind::Usage, 1), "{error}");
        }
    }
}
