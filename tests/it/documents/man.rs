//! The man page, in the macros of man(7).

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use super::{flags, is_repeated};

/// Bytes of a line, unless a word is longer.
const LINE: usize = 76;

/// What is not in the command line's own help.
const ENVIRONMENT: [(&str, &str); 10] = [
    (
        "HTTP_PORT, COAP_PORT, GRPC_PORT",
        "stand in for --http, --coap and --grpc of serve: a port, or -1 to turn that front door off",
    ),
    ("TF_BACKEND", "stands in for --backend: docker, process or auto"),
    ("DOCKER_HOST", "stands in for --docker-host"),
    ("RUST_LOG", "stands in for --log"),
    ("TINYFAAS_HOST", "the server that the other commands ask, as --host"),
    (
        "TINYFAAS_TOKEN, TINYFAAS_TOKEN_FILE",
        "the token that the other commands send, or the file whose first line it is",
    ),
    ("TINYFAAS_CA", "the file of the CA that the server's certificate is from, as --ca"),
    (
        "TINYFAAS_CLIENT_CERT, TINYFAAS_CLIENT_KEY",
        "files of the certificate and the private key that the management API of a server may want; one file may hold both",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "the service manager is told of the start, of reloads, of the end, and that the server lives",
    ),
    ("LISTEN_FDS, LISTEN_FDNAMES", "sockets that the service manager opened, named http, coap, grpc or management"),
];
const FILES: [(&str, &str); 3] = [
    (
        "/etc/tinyfaas/tinyfaas.json",
        "settings of the packaged service: a JSON object, its keys serve's options without --",
    ),
    ("/var/lib/tinyfaas", "what is deployed, where root or the packaged service serves; else ~/.local/state/tinyfaas"),
    ("~/.config/tinyfaas/token", "the token that commands send where no variable names one"),
];
const SIGNALS: [(&str, &str); 2] = [
    ("SIGINT, SIGTERM", "stop the server: calls in flight finish within --grace"),
    ("SIGHUP", "has the settings, the tokens and the folder of functions read again"),
];

/// The whole page; `@DATE@` stands for the day of the release.
pub(super) fn page(cli: &CommandInfoWithArgs) -> String {
    let mut out = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(out, ".TH TINYFAAS 1 @DATE@ \"tinyFaaS {version}\" \"User Commands\"");
    let _ = writeln!(out, ".SH NAME\ntinyfaas \\- {}", text(cli.description));
    out.push_str(".SH SYNOPSIS\n.SY tinyfaas\n.RI [ COMMAND ]\n.RI [ OPTION .\\|.\\|.]\n.YS\n");
    out.push_str(".SH DESCRIPTION\n");
    out.push_str("A server and its client in one program. Functions are folders with a\n.IR fn.py ,\n.I package.json\nor\n.IR fn.sh .\n");
    out.push_str("Without a command, serve is meant. Errors are one line on standard error.\n");
    out.push_str("Sizes are written 64Ki, 10Mi or 1Gi, times 500ms, 30s, 5m or 1h.\n.SH COMMANDS\n");
    for sub in &cli.commands {
        command(&mut out, &format!("tinyfaas {}", sub.name), &sub.command);
    }
    table(&mut out, "SIGNALS", &SIGNALS);
    table(&mut out, "ENVIRONMENT", &ENVIRONMENT);
    table(&mut out, "FILES", &FILES);
    out.push_str(".SH EXIT STATUS\n");
    for error in cli.error_codes {
        let _ = writeln!(out, ".TP\n.B {}\n{}", error.code, text(error.description));
    }
    out.push_str(".SH EXAMPLES\n.EX\n");
    for example in cli.examples {
        let _ = writeln!(out, "{}", text(&example.replace("{command_name}", "tinyfaas")));
    }
    out.push_str(".EE\n.SH SEE ALSO\n.BR systemd.service (5)\n");
    out
}

fn command(out: &mut String, name: &str, command: &CommandInfoWithArgs) {
    // What has commands below it does nothing itself.
    if !command.commands.is_empty() {
        for sub in &command.commands {
            self::command(out, &format!("{name} {}", sub.name), &sub.command);
        }
        return;
    }
    let arguments: String = command.positionals.iter().map(argument).collect();
    let _ = writeln!(
        out,
        ".SS {}{arguments} [\\fIOPTION\\fR .\\|.\\|.]\n{}.",
        text(name),
        text(&capitalised(command.description))
    );
    for positional in command.positionals {
        let _ = writeln!(out, ".TP\n.I {}\n{}", text(positional.name), text(positional.description));
    }
    for flag in flags(command) {
        let _ = writeln!(out, ".TP\n{}\n{}", option(flag), text(flag.description));
    }
    for note in command.notes {
        let _ = writeln!(out, ".PP\n{}", text(&note.replace("{command_name}", name)));
    }
    if !command.examples.is_empty() {
        out.push_str(".PP\n.EX\n");
        for example in command.examples {
            let _ = writeln!(out, "{}", text(&example.replace("{command_name}", name)));
        }
        out.push_str(".EE\n");
    }
}

fn argument(positional: &PositionalInfo<'_>) -> String {
    let name = format!("\\fI{}\\fR", text(positional.name));
    match positional.optionality {
        Optionality::Required => format!(" {name}"),
        _ => format!(" [{name}]"),
    }
}

fn option(flag: &FlagInfo<'_>) -> String {
    let short = flag.short.map(|c| format!("\\fB\\-{c}\\fR, ")).unwrap_or_default();
    let value = match flag.kind {
        FlagInfoKind::Option { arg_name } => format!(" \\fI{}\\fR", text(arg_name)),
        FlagInfoKind::Switch => String::new(),
    };
    let again = if is_repeated(&flag.optionality) { " .\\|.\\|." } else { "" };
    format!("{short}\\fB{}\\fR{value}{again}", text(flag.long))
}

fn table(out: &mut String, title: &str, rows: &[(&str, &str)]) {
    let _ = writeln!(out, ".SH {title}");
    for (name, description) in rows {
        let _ = writeln!(out, ".TP\n.B {}\n{}", text(name), text(description));
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Text without what roff takes for its own, in lines that are short enough for who reads the source.
fn text(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut length = 0;
        for word in line.trim_end().split(' ') {
            let word = word.replace('\\', "\\e").replace('-', "\\-").replace('~', "\\(ti").replace('\'', "\\(aq");
            if length > 0 && length + word.len() > LINE {
                out.push('\n');
                length = 0;
            } else if length > 0 {
                out.push(' ');
            }
            // A dot at the beginning of a line is a macro's.
            let guard = if length == 0 && word.starts_with('.') { "\\&" } else { "" };
            out.push_str(guard);
            out.push_str(&word);
            length += word.len() + 1;
        }
        out.push('\n');
    }
    out.pop();
    out
}
