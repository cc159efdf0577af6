//! The man page and the completions of shells say what the command line takes: they are made from its own help, here, and kept
//! in `packaging/`, so that a release needs nothing to make them and the program does not carry them.
//!
//! `WRITE_DOCUMENTS=1 cargo test --test it documents::` writes them anew.

mod completions;
mod man;
mod pages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use crate::board::TempDir;
use crate::tools::has;

/// What an option's value is, for who completes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// There is none: a switch.
    None,
    File,
    Dir,
    /// One of these.
    Choice(&'static [&'static str]),
    Other,
}

/// Values of options that take one of a few words.
const CHOICES: [(&str, &[&str]); 6] = [
    ("--backend", &["auto", "docker", "process"]),
    ("--env", &["python3", "nodejs", "binary", "go"]),
    ("--log", &["off", "error", "warn", "info", "debug", "trace"]),
    ("--log-format", &["text", "json"]),
    ("--network", &["shared", "none"]),
    ("--reach", &["auto", "socket", "tcp"]),
];
/// Commands whose argument is the name of a function that is deployed.
const OF_A_FUNCTION: [&str; 3] = ["invoke", "logs", "delete"];

fn value(flag: &FlagInfo<'_>) -> Value {
    let FlagInfoKind::Option { arg_name } = flag.kind else { return Value::None };
    match arg_name {
        "FILE" => Value::File,
        "DIR" => Value::Dir,
        _ => {
            CHOICES.iter().find(|(long, _)| *long == flag.long).map_or(Value::Other, |(_, words)| Value::Choice(words))
        }
    }
}

fn flags<'a>(command: &'a CommandInfoWithArgs) -> impl Iterator<Item = &'a FlagInfo<'a>> {
    command.flags.iter().filter(|flag| !flag.hidden)
}

/// Its subcommands' flags as well: nobody types one of `token new` at `token`.
fn all_flags<'a>(command: &'a CommandInfoWithArgs) -> Vec<&'a FlagInfo<'a>> {
    let below = command.commands.iter().flat_map(|sub| flags(&sub.command));
    let mut all: Vec<_> = flags(command).chain(below).collect();
    all.sort_by_key(|flag| flag.long);
    all.dedup_by_key(|flag| flag.long);
    all
}

fn is_repeated(optionality: &Optionality) -> bool {
    matches!(optionality, Optionality::Repeating | Optionality::Greedy)
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

#[test]
fn what_is_packaged_says_what_the_command_line_takes() {
    let cli = tinyfaas::cli::command_line();
    for (long, _) in CHOICES {
        let is_there = cli.commands.iter().any(|sub| flags(&sub.command).any(|flag| flag.long == long));
        assert!(is_there, "no command has {long}");
    }
    for (file, text) in [
        ("man/tinyfaas.1", man::page(&cli)),
        ("completions/tinyfaas.bash", completions::bash(&cli)),
        ("completions/_tinyfaas", completions::zsh(&cli)),
        ("completions/tinyfaas.fish", completions::fish(&cli)),
    ] {
        let path = packaging().join(file);
        if std::env::var_os("WRITE_DOCUMENTS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{file} is not up to date: WRITE_DOCUMENTS=1 cargo test --test it documents::");
    }
}

/// The output of a program that has to end well, both streams.
fn said(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{text}", out.status);
    text
}

#[test]
fn the_man_page_has_no_faults() {
    if !has("man", "man-db") || !has("mandoc", "mandoc") {
        return;
    }
    let dir = TempDir::new();
    let page = dir.0.join("tinyfaas.1");
    let text = fs::read_to_string(packaging().join("man/tinyfaas.1")).unwrap();
    fs::write(&page, text.replace("@DATE@", "2026-01-02")).unwrap();
    let out = Command::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
        .arg(&page)
        .env("MANROFFSEQ", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(said(Command::new("mandoc").arg("-Tlint").arg(&page)), "");
    let shown = said(Command::new("mandoc").args(["-Tascii", "-Owidth=100"]).arg(&page));
    // Without the overstrikes that make letters bold and underlined.
    let mut plain = String::new();
    for c in shown.chars() {
        match c {
            '\u{8}' => drop(plain.pop()),
            c => plain.push(c),
        }
    }
    for word in
        ["--coap-max-body SIZE", "tinyfaas invoke", "TINYFAAS_HOST", "EXIT STATUS", "not found: no such function"]
    {
        assert!(plain.contains(word), "{word}\n{plain}");
    }
}

#[test]
fn bash_completes() {
    if !has("bash", "bash") {
        return;
    }
    let file = packaging().join("completions/tinyfaas.bash");
    let complete = |words: &[&str]| {
        let script = r#"set -u; source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tinyfaas; printf '%s\n' "${COMPREPLY[@]-}""#;
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", script, "bash"]).arg(&file).args(words).current_dir(env!("CARGO_MANIFEST_DIR"));
        said(&mut command)
    };
    assert_eq!(complete(&["tinyfaas", "de"]), "deploy\ndelete\n");
    assert_eq!(complete(&["tinyfaas", "serve", "--coap-m"]), "--coap-max-body\n--coap-multicast\n");
    assert_eq!(complete(&["tinyfaas", "--ht"]), "--http\n");
    assert_eq!(complete(&["tinyfaas", "serve", "--backend", "d"]), "docker\n");
    assert_eq!(complete(&["tinyfaas", "serve", "--http", ""]), "\n");
    assert_eq!(complete(&["tinyfaas", "serve", "--config", "Cargo.t"]), "Cargo.toml\n");
    assert_eq!(complete(&["tinyfaas", "serve", "--functions", "examp"]), "examples\n");
    assert_eq!(complete(&["tinyfaas", "token", "n"]), "new\n");
    assert_eq!(complete(&["tinyfaas", "deploy", "examp"]), "examples\n");
}

#[test]
fn fish_completes() {
    if !has("fish", "fish") {
        return;
    }
    let dir = TempDir::new();
    let file = packaging().join("completions/tinyfaas.fish");
    let complete = |line: &str| {
        let script = format!("source {}; complete -C '{line}'", file.display());
        let mut command = Command::new("fish");
        command.args(["--no-config", "-c", &script]).env("HOME", &dir.0).current_dir(env!("CARGO_MANIFEST_DIR"));
        said(&mut command).lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(complete("tinyfaas de"), ["delete", "deploy"]);
    assert_eq!(complete("tinyfaas serve --coap-m"), ["--coap-max-body", "--coap-multicast"]);
    assert_eq!(complete("tinyfaas --ht"), ["--http"]);
    assert_eq!(complete("tinyfaas serve --backend d"), ["docker"]);
    assert_eq!(complete("tinyfaas serve --config Cargo.t"), ["Cargo.toml"]);
    assert_eq!(complete("tinyfaas token n"), ["new"]);
}

#[test]
fn zsh_completes() {
    if !has("zsh", "zsh") {
        return;
    }
    // A shell of its own behind a terminal, as a person has it; waits until what has to come comes.
    let script = r#"
        zmodload zsh/zpty
        zpty shell 'TERM=dumb zsh -f -i'
        zpty -w shell "PS1=; unsetopt zle_bracketed_paste beep; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; print loaded-\$_comps[tinyfaas]"
        zpty -r -m shell out '*loaded-_tinyfaas*' || exit 1
        for pair in 'serve --coap-mu:coap-multicast ' '--ht:http ' 'serve --backend d:docker ' 'dep:deploy ' 'token n:new '; do
            zpty -n -w shell "tinyfaas ${pair%%:*}"$'\t'
            zpty -r -m shell out "*${pair#*:}*" || exit 1
            zpty -w shell $'\C-u'
        done
        print completed
    "#;
    let mut command = Command::new("timeout");
    command.args(["60", "zsh", "-f", "-c", script, "zsh"]).arg(packaging().join("completions"));
    assert!(said(&mut command).ends_with("completed\n"));
}

/// What the last column of its table names holds what it promises; a file that was renamed holds nothing.
#[test]
fn what_security_md_names_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(top.join("SECURITY.md")).unwrap();
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.contains('/') || word.ends_with(".toml"));
    let paths: Vec<String> = named
        .flat_map(|word| match word.split_once('{').and_then(|(a, rest)| Some((a, rest.split_once('}')?))) {
            Some((before, (names, after))) => names.split(',').map(|name| format!("{before}{name}{after}")).collect(),
            None => vec![word.to_owned()],
        })
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(top.join(&path).exists(), "SECURITY.md names {path}, which is not there");
    }
}
