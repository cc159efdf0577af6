//! Completions for bash, zsh and fish.

use std::fmt::Write as _;

use argh::{CommandInfoWithArgs, FlagInfo};

use super::{OF_A_FUNCTION, Value, all_flags, is_repeated, value};

const MADE: &str =
    "# Made from the program's own help by tests/it/documents; a server that answers is asked for functions' names.";

/// The words that stand behind a command: names of commands below it.
fn below(command: &CommandInfoWithArgs) -> String {
    command.commands.iter().map(|sub| sub.name).collect::<Vec<_>>().join(" ")
}

fn takes_folder(name: &str) -> bool {
    name == "deploy"
}

pub(super) fn bash(cli: &CommandInfoWithArgs) -> String {
    let commands = below(cli);
    let mut out = format!("# shellcheck shell=bash disable=SC2207\n{MADE}\n_tinyfaas() {{\n");
    out.push_str("  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} flags='' words=''\n");
    out.push_str("  COMPREPLY=()\n  if [[ $COMP_CWORD == 1 && $cur != -* ]]; then\n");
    let _ = writeln!(out, "    COMPREPLY=($(compgen -W '{commands}' -- \"$cur\"))\n    return\n  fi");
    out.push_str("  [[ $command != -* ]] || command=serve\n  case $command:$prev in\n");
    let mut actions: Vec<(String, Vec<String>)> = Vec::new();
    for sub in &cli.commands {
        for flag in all_flags(&sub.command) {
            let action = match value(flag) {
                Value::None => continue,
                Value::File => {
                    "compopt -o filenames 2>/dev/null\n      COMPREPLY=($(compgen -f -- \"$cur\"))".to_owned()
                }
                Value::Dir => {
                    "compopt -o filenames 2>/dev/null\n      COMPREPLY=($(compgen -d -- \"$cur\"))".to_owned()
                }
                Value::Choice(words) => format!("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", words.join(" ")),
                Value::Other => "# Nothing is known of it.".to_owned(),
            };
            let option = format!("{}:{}", sub.name, flag.long);
            match actions.iter_mut().find(|(known, _)| *known == action) {
                Some((_, options)) => options.push(option),
                None => actions.push((action, vec![option])),
            }
        }
    }
    for (action, options) in actions {
        let _ = writeln!(out, "    {})\n      {action}\n      return\n      ;;", options.join(" | \\\n      "));
    }
    out.push_str("  esac\n  case $command in\n");
    for sub in &cli.commands {
        let flags: Vec<&str> = all_flags(&sub.command).iter().map(|flag| flag.long).collect();
        let _ = write!(out, "    {}) flags='{}'", sub.name, flags.join(" "));
        if !sub.command.commands.is_empty() {
            let _ = write!(out, " words='{}'", below(&sub.command));
        }
        out.push_str(" ;;\n");
    }
    out.push_str("  esac\n  if [[ $cur == -* ]]; then\n    COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n    return\n  fi\n  case $command in\n");
    let _ = writeln!(out, "    {}) words=$(tinyfaas list 2>/dev/null) ;;", OF_A_FUNCTION.join(" | "));
    for sub in cli.commands.iter().filter(|sub| takes_folder(sub.name)) {
        let _ = writeln!(
            out,
            "    {})\n      compopt -o filenames 2>/dev/null\n      COMPREPLY=($(compgen -d -- \"$cur\") $(compgen -f -X '!*.zip' -- \"$cur\"))\n      return\n      ;;",
            sub.name
        );
    }
    out.push_str("  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _tinyfaas tinyfaas\n");
    out
}

pub(super) fn zsh(cli: &CommandInfoWithArgs) -> String {
    let mut out = format!("#compdef tinyfaas\n{MADE}\n\n_tinyfaas_functions() {{\n");
    out.push_str(
        "  local -a functions\n  functions=(${(f)\"$(tinyfaas list 2>/dev/null)\"})\n  compadd -a functions\n}\n\n",
    );
    out.push_str("_tinyfaas() {\n  local command=$words[2]\n  if (( CURRENT == 2 )) && [[ $command != -* ]]; then\n    local -a commands=(\n");
    for sub in &cli.commands {
        let _ = writeln!(out, "      {}", quoted(&format!("{}:{}", sub.name, sub.command.description)));
    }
    out.push_str("    )\n    _describe command commands\n    return\n  fi\n");
    out.push_str("  if [[ $command == -* ]]; then\n    command=serve\n  else\n    shift words\n    (( CURRENT-- ))\n  fi\n  case $command in\n");
    for sub in &cli.commands {
        let _ = writeln!(out, "    {})\n      _arguments \\", sub.name);
        let specs: Vec<String> = all_flags(&sub.command).into_iter().map(|flag| quoted(&zsh_flag(flag))).collect();
        let _ = write!(out, "        {}", specs.join(" \\\n        "));
        let words = below(&sub.command);
        if !words.is_empty() {
            let _ = write!(out, " \\\n        {}", quoted(&format!("1:command:({words})")));
        } else if OF_A_FUNCTION.contains(&sub.name) {
            out.push_str(" \\\n        '1:function:_tinyfaas_functions'");
        } else if takes_folder(sub.name) {
            out.push_str(" \\\n        '1:folder or zip file:_files'");
        }
        out.push_str("\n      ;;\n");
    }
    out.push_str("  esac\n}\n\n_tinyfaas \"$@\"\n");
    out
}

fn zsh_flag(flag: &FlagInfo<'_>) -> String {
    let again = if is_repeated(&flag.optionality) { "*" } else { "" };
    let description = flag.description.replace(['[', ']'], "");
    let action = match value(flag) {
        Value::None => String::new(),
        Value::File => ":file:_files".to_owned(),
        Value::Dir => ":folder:_files -/".to_owned(),
        Value::Choice(words) => format!(":value:({})", words.join(" ")),
        Value::Other => ":value: ".to_owned(),
    };
    format!("{again}{}[{description}]{action}", flag.long)
}

pub(super) fn fish(cli: &CommandInfoWithArgs) -> String {
    let commands = below(cli);
    let mut out = format!("{MADE}\nfunction __tinyfaas_serves\n    __fish_seen_subcommand_from serve\n");
    let _ = writeln!(out, "    or not __fish_seen_subcommand_from {commands}\nend\ncomplete -c tinyfaas -f");
    for sub in &cli.commands {
        let _ = writeln!(
            out,
            "complete -c tinyfaas -n __fish_use_subcommand -a {} -d {}",
            sub.name,
            fish_quoted(sub.command.description)
        );
    }
    for sub in &cli.commands {
        // Options without a command are serve's.
        let seen = match sub.name {
            "serve" => "__tinyfaas_serves".to_owned(),
            name => format!("'__fish_seen_subcommand_from {name}'"),
        };
        for flag in all_flags(&sub.command) {
            let value = match value(flag) {
                Value::None => String::new(),
                Value::File => " -r -F".to_owned(),
                Value::Dir => " -x -a '(__fish_complete_directories)'".to_owned(),
                Value::Choice(words) => format!(" -x -a '{}'", words.join(" ")),
                Value::Other => " -x".to_owned(),
            };
            let long = flag.long.trim_start_matches('-');
            let _ =
                writeln!(out, "complete -c tinyfaas -n {seen} -l {long}{value} -d {}", fish_quoted(flag.description));
        }
        let words = below(&sub.command);
        if !words.is_empty() {
            let _ = writeln!(out, "complete -c tinyfaas -n {seen} -a '{words}'");
        } else if OF_A_FUNCTION.contains(&sub.name) {
            let _ = writeln!(out, "complete -c tinyfaas -n {seen} -a '(tinyfaas list 2>/dev/null)'");
        } else if takes_folder(sub.name) {
            let _ = writeln!(out, "complete -c tinyfaas -n {seen} -F");
        }
    }
    out
}

/// Within single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Within fish's single quotes, where only these two are special.
fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
