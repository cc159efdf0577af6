//! `token`: makes tokens, and finds the one that the commands send.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};

use super::error::Error;
use super::output::{print, print_json};
use crate::text_file;
use crate::tokens;

/// Holds the token itself.
const TOKEN: &str = "TINYFAAS_TOKEN";
/// Names a file whose first line is the token.
const TOKEN_FILE: &str = "TINYFAAS_TOKEN_FILE";
/// Where the token is looked for else, under the user's configuration.
const DEFAULT_FILE: &str = "tinyfaas/token";
/// Bytes of that file.
const MAX_TOKEN: u64 = 4096;
/// Rights of a new file: its owner alone may change who is let in.
const MODE: u32 = 0o600;

/// make tokens for the management API and for functions
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "token", help_triggers("-h", "--help"))]
pub(super) struct Token {
    #[argh(subcommand)]
    action: Action,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Action {
    New(New),
}

/// print a new token, and the line of a --token-file that lets it in
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "new",
    help_triggers("-h", "--help"),
    note = "The token is printed to standard output, once: it is kept nowhere. The line holds only its SHA-256.\n\
            The other commands send the token in TINYFAAS_TOKEN, else the one in the file that TINYFAAS_TOKEN_FILE\n\
            names, else the one in ~/.config/tinyfaas/token."
)]
struct New {
    /// whose it is: the log names it
    #[argh(positional, arg_name = "NAME", from_str_fn(parse_name))]
    name: String,

    /// file to add the line to; default: it is printed to standard error
    #[argh(option, arg_name = "FILE")]
    file: Option<PathBuf>,

    /// one JSON object with the token and the line
    #[argh(switch)]
    json: bool,
}

fn parse_name(text: &str) -> Result<String, String> {
    tokens::check_name(text).map(str::to_owned)
}

impl Token {
    pub(super) fn run(self) -> Result<(), Error> {
        let Action::New(New { name, file, json }) = self.action;
        let token = tokens::generate().map_err(|e| Error::failed(format!("cannot make a token: {e}")))?;
        let line = tokens::line(&name, &token);
        if let Some(file) = &file {
            add(file, &line)?;
        } else if !json {
            // Where standard error is closed, the token is of no use either, and can be made again.
            let _ = std::io::stderr().write_all(format!("line for --token-file: {line}").as_bytes());
        }
        if json {
            return print_json(&serde_json::json!({"name": name, "token": token, "line": line.trim_end()}));
        }
        print(&format!("{token}\n"))
    }
}

/// Adds a line to a file of tokens, which has to be right then.
fn add(path: &Path, line: &str) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::usage(format!("--file: {}: {e}", path.display()));
    let before = match text_file::read(path, tokens::MAX_FILE) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed(&e)),
    };
    let start = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    tokens::Tokens::parse(&format!("{before}{start}{line}")).map_err(|e| failed(&e))?;
    let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path);
    file.and_then(|mut file| file.write_all(format!("{start}{line}").as_bytes())).map_err(|e| failed(&e))
}

/// The token that commands send, if there is one.
///
/// # Errors
/// One line that names the variable or the file that is wrong.
pub(super) fn find() -> Result<Option<String>, Error> {
    find_by(&|name| env::var_os(name).filter(|value| !value.is_empty()))
}

fn find_by(var: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<String>, Error> {
    if let Some(token) = var(TOKEN) {
        let token = token.into_string().map_err(|_| Error::usage(format!("{TOKEN} is not UTF-8")))?;
        return one_line(&token).map(Some).map_err(|e| Error::usage(format!("{TOKEN}: {e}")));
    }
    let (path, wanted) = match var(TOKEN_FILE) {
        Some(path) => (PathBuf::from(path), true),
        None => {
            let folder = var("XDG_CONFIG_HOME").map(PathBuf::from);
            let Some(folder) = folder.or_else(|| Some(PathBuf::from(var("HOME")?).join(".config"))) else {
                return Ok(None);
            };
            (folder.join(DEFAULT_FILE), false)
        }
    };
    let failed = |e: &dyn std::fmt::Display| Error::usage(format!("{}: {e}", path.display()));
    match text_file::read(&path, MAX_TOKEN) {
        Ok(text) => one_line(&text).map(Some).map_err(|e| failed(&e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !wanted => Ok(None),
        Err(e) => Err(failed(&e)),
    }
}

/// A token alone on its line.
fn one_line(text: &str) -> Result<String, String> {
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err("there has to be one token, without spaces, and nothing else".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Tokens;

    fn folder(tag: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("tinyfaas-token-{tag}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("tinyfaas")).unwrap();
        folder
    }

    #[test]
    fn a_line_is_added_to_a_file_that_only_its_owner_may_change() {
        use std::os::unix::fs::PermissionsExt;
        let path = folder("add").join("tokens");
        add(&path, &tokens::line("a", "t")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        std::fs::write(&path, tokens::line("a", "t").trim_end()).unwrap();
        add(&path, &tokens::line("b", "u")).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!((tokens.name_of("t"), tokens.name_of("u")), (Some("a"), Some("b")));
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(add(&path, &tokens::line("a", "v")).unwrap_err().text.contains("there is a token a already"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn the_variable_wins_over_the_file_it_names_and_that_over_the_users() {
        let folder = folder("find");
        std::fs::write(folder.join("named"), "named\n").unwrap();
        let found = |set: &[(&str, &str)]| {
            let all: Vec<(String, OsString)> = set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.replace('~', folder.to_str().unwrap()).into()))
                .collect();
            find_by(&move |name| all.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
        };
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[("XDG_CONFIG_HOME", "~")]), Ok(None));
        std::fs::write(folder.join(DEFAULT_FILE), "users").unwrap();
        assert_eq!(found(&[("XDG_CONFIG_HOME", "~"), ("HOME", "/nonexistent")]), Ok(Some("users".into())));
        assert_eq!(found(&[("XDG_CONFIG_HOME", "~"), (TOKEN_FILE, "~/named")]), Ok(Some("named".into())));
        assert_eq!(found(&[(TOKEN, "x"), (TOKEN_FILE, "~/named")]), Ok(Some("x".into())));
        assert!(found(&[(TOKEN_FILE, "~/missing")]).unwrap_err().text.contains("missing"));
        assert!(found(&[(TOKEN, "two words")]).unwrap_err().text.starts_with(TOKEN));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
