//! The command line: which command was asked for, its exit code, and how errors are told.
//!
//! The commands that talk to a server are plain clients of its public interfaces; nothing of the server is used here but by `serve`.

use std::fmt;
use std::process::ExitCode;

use argh::FromArgs;

use crate::config::{Config, from_environment};

/// functions as a service for small boards: over HTTP, CoAP and gRPC
#[derive(FromArgs, Debug)]
#[argh(
    help_triggers("-h", "--help"),
    note = "Without a command, serve is meant: tinyfaas --http :80\n{command_name} COMMAND --help tells each command's options.",
    example = "tinyfaas serve\n  tinyfaas deploy ./hello --env python3\n  tinyfaas invoke hello --data world",
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

    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Serve(Box<Config>),
}

/// Why a command ended without doing what was asked; its text is one line, or a line and a log's tail.
#[derive(Debug, PartialEq, Eq)]
struct Error {
    kind: ErrorKind,
    text: String,
}

/// What kind of error it is: its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(dead_code, reason = "the commands that make them follow")]
enum ErrorKind {
    /// The server or the function answered an error, or the server could not start.
    Failed = 1,
    /// The command line or a local file is wrong.
    Usage = 2,
    /// No connection, or it broke.
    Unreachable = 3,
    /// The server knows no such function.
    NotFound = 4,
}

impl Error {
    fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, text)
    }

    fn usage(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the arguments ask for.
#[derive(Debug)]
enum Asked {
    Run(Command),
    Print(String),
}

/// The whole program: does what the process's arguments say, and tells errors on standard error.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            // Nobody is left to tell when standard error is closed.
            let _ = std::io::stderr().write_all(format!("tinyfaas: {error}\n").as_bytes());
            ExitCode::from(error.kind as u8)
        }
    }
}

fn run() -> Result<(), Error> {
    let mut args = Vec::new();
    for arg in std::env::args_os().skip(1) {
        args.push(arg.into_string().map_err(|a| Error::usage(format!("{a:?} is not UTF-8")))?);
    }
    // Not a command for people: it is what runs inside the handlers of `binary` functions.
    if let Some((first, rest)) = args.split_first()
        && first == "handler"
    {
        return handler(rest);
    }
    match parse(args)? {
        Asked::Print(text) => print(&text),
        Asked::Run(Command::Serve(config)) => serve(*config),
    }
}

/// Reads the arguments, and for `serve` the environment.
fn parse(args: Vec<String>) -> Result<Asked, Error> {
    let mut args = normalize(args);
    if args.first().is_some_and(|a| a == "serve") && !args.iter().any(|a| a == "--help" || a == "-h") {
        let more = from_environment(&args, &|name| std::env::var_os(name)).map_err(Error::usage)?;
        args.splice(1..1, more);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match Cli::from_args(&["tinyfaas"], &args) {
        Ok(Cli { version: true, .. }) => Ok(Asked::Print(concat!("tinyfaas ", env!("CARGO_PKG_VERSION"), "\n").into())),
        Ok(Cli { command: Some(command), .. }) => Ok(Asked::Run(command)),
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

fn serve(config: Config) -> Result<(), Error> {
    let config = config.validate().map_err(Error::usage)?;
    crate::logging::init(config.log);
    crate::serve::run(config).map_err(|e| Error::failed(e.to_string()))
}

fn handler(_args: &[String]) -> Result<(), Error> {
    Err(Error::failed("handler is not built yet"))
}

/// Prints to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) -> Result<(), Error> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}
