//! `tinyfaas list`: the functions' names, or all that is known of them as a table or as JSON.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use serde::Deserialize;

use super::board::Board;
use super::error::Error;
use super::http_client::Body;
use super::output::{columns, copy, cut, harmless, print};

/// print the names of the functions, or with --long how they are
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
pub(super) struct List {
    /// a table with state, calls and limits; handlers that are not well on lines of their own
    #[argh(switch)]
    long: bool,

    /// all that is known, as JSON
    #[argh(switch)]
    json: bool,

    /// the server, HOST or HOST:PORT of its management API, https:// for TLS; default TINYFAAS_HOST, else 127.0.0.1:8080
    #[argh(option, arg_name = "HOST")]
    host: Option<String>,

    /// PEM file of the CA that its certificate is from; default TINYFAAS_CA, else the public ones
    #[argh(option, arg_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What the table shows of a function.
#[derive(Deserialize)]
struct Function {
    name: String,
    env: String,
    state: String,
    calls: u64,
    in_flight: u64,
    waiting: u64,
    limits: Limits,
    idle: Option<String>,
    /// Absent in what servers answer that know nothing of it: there all have one.
    #[serde(default = "yes")]
    network: bool,
    envs: Vec<String>,
    digest: String,
    handlers: Vec<Handler>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Limits {
    memory: String,
    cpu: String,
    pids: u64,
    timeout: String,
    concurrency: u64,
    queue: u64,
}

#[derive(Deserialize)]
struct Handler {
    id: Option<String>,
    state: String,
    restarts: u64,
    reason: Option<String>,
}

impl List {
    pub(super) fn run(self) -> Result<(), Error> {
        let target = if self.long || self.json { "/functions" } else { "/list" };
        let mut answer = Board::find(self.host.as_deref(), self.ca.as_deref())?.ask("GET", target, Body::None)?;
        if self.json || !self.long {
            return copy(|buf| answer.read(buf));
        }
        let functions: Vec<Function> = serde_json::from_slice(&answer.whole()?)
            .map_err(|e| Error::failed(format!("the server's list of functions is not understood: {e}")))?;
        let text = harmless_lines(&table(&functions));
        print(&columns().map_or_else(|| text.clone(), |columns| cut(&text, columns)))
    }
}

/// Reasons come from handlers and engines.
fn harmless_lines(text: &str) -> String {
    let text = harmless(text.as_bytes());
    if text.is_empty() { text } else { text + "\n" }
}

const HEAD: [&str; 18] = [
    "NAME",
    "ENV",
    "STATE",
    "HANDLERS",
    "CALLS",
    "NOW",
    "WAITING",
    "MEMORY",
    "CPU",
    "PIDS",
    "TIMEOUT",
    "CONCURRENCY",
    "QUEUE",
    "IDLE",
    "NETWORK",
    "RESTARTS",
    "DIGEST",
    "ENVS",
];

/// Aligned columns; what is to be known of a handler follows its function.
fn table(functions: &[Function]) -> String {
    let rows: Vec<[String; HEAD.len()]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(functions.iter().map(row)).collect();
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
        // The first row is the head.
        let handlers = n.checked_sub(1).and_then(|n| functions.get(n)).map_or(&[][..], |f| &f.handlers);
        for (n, handler) in handlers.iter().enumerate() {
            text.push_str(&handler_line(n + 1, handler).unwrap_or_default());
        }
    }
    text
}

fn row(f: &Function) -> [String; HEAD.len()] {
    let well = f.handlers.iter().filter(|h| h.state == "healthy").count();
    let unless_zero = |amount: &str| if amount == "0" { "-".to_owned() } else { amount.to_owned() };
    let limits = &f.limits;
    [
        f.name.clone(),
        f.env.clone(),
        f.state.clone(),
        format!("{well}/{}", f.handlers.len()),
        f.calls.to_string(),
        f.in_flight.to_string(),
        f.waiting.to_string(),
        unless_zero(&limits.memory),
        unless_zero(&limits.cpu),
        limits.pids.to_string(),
        limits.timeout.clone(),
        limits.concurrency.to_string(),
        limits.queue.to_string(),
        f.idle.clone().unwrap_or_else(|| "-".to_owned()),
        if f.network { "yes" } else { "no" }.to_owned(),
        f.handlers.iter().map(|h| h.restarts).sum::<u64>().to_string(),
        f.digest.chars().take(8).collect(),
        if f.envs.is_empty() { "-".to_owned() } else { f.envs.join(",") },
    ]
}

/// What a person wants to know of a handler: nothing while it never failed.
fn handler_line(number: usize, handler: &Handler) -> Option<String> {
    let reason = handler.reason.as_ref()?;
    let id = handler.id.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
    Some(format!("  handler {number}{id} is {}; restarts: {}, last: {reason}\n", handler.state, handler.restarts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_handlers_that_failed_have_a_line() {
        let json = r#"[
            {"name":"a","env":"python3","threads":2,"digest":"0123456789abcdef","state":"degraded","calls":12345,
             "in_flight":1,"waiting":0,"limits":{"memory":"64Mi","cpu":"500m","pids":32,"timeout":"30s",
             "concurrency":8,"queue":64},"idle":"5m","network":false,"envs":["KEY","OTHER"],"handlers":[
             {"id":"h1","state":"healthy","in_flight":1,"restarts":0,"reason":null},
             {"id":null,"state":"backing off","in_flight":0,"restarts":3,"reason":"it exited with status 9"}]},
            {"name":"longname","env":"binary","threads":1,"digest":"00","state":"healthy","calls":0,"in_flight":0,
             "waiting":0,"limits":{"memory":"0","cpu":"0","pids":256,"timeout":"1m","concurrency":8,"queue":0},
             "idle":null,"envs":[],"handlers":[{"id":"h2","state":"healthy","in_flight":0,"restarts":1,"reason":"gone"}]}]"#;
        let text = table(&serde_json::from_str::<Vec<Function>>(json).unwrap());
        let cells = |line: usize| -> Vec<_> {
            let line = text.lines().nth(line).unwrap();
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(cells(0), HEAD);
        let row = ["a", "python3", "degraded", "1/2", "12345", "1", "0", "64Mi", "500m", "32", "30s", "8", "64", "5m"];
        assert_eq!(cells(1), [&row[..], &["no", "3", "01234567", "KEY,OTHER"]].concat());
        assert_eq!(cells(3)[7..9], ["-", "-"]);
        assert_eq!(cells(3)[14], "yes");
        assert_eq!(text.lines().nth(2), Some("  handler 2 is backing off; restarts: 3, last: it exited with status 9"));
        assert_eq!(text.lines().nth(4), Some("  handler 1 (h2) is healthy; restarts: 1, last: gone"));
        let column = |line: usize, what: &str| text.lines().nth(line).unwrap().find(what).unwrap();
        assert_eq!(column(0, "ENV"), column(1, "python3"));
        assert_eq!(column(0, "ENV"), column(3, "binary"));
    }
}
