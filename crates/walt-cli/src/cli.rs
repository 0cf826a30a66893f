//! The grammar of the command line: `walt CATEGORY SUBCOMMAND [options] [positionals]`.
//!
//! Options may stand anywhere after the subcommand, as `--opt value` or `--opt=value`. They cannot be abbreviated or
//! repeated; `--` ends them. `node run` takes everything after its set of nodes as the command.

use crate::{
    commands::Category,
    error::{Failure, STATUS_UNKNOWN, STATUS_USAGE},
    help,
};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use std::error::Error as _;
use std::ffi::OsString;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "walt", disable_help_subcommand = true, subcommand_required = true)]
pub struct Cli {
    #[command(subcommand)]
    category: Category,
}

/// A command line that the grammar accepts.
#[derive(Debug)]
pub struct CommandLine {
    category: Category,
    /// Names of the category and the subcommand.
    path: Vec<String>,
}

impl CommandLine {
    /// Runs the command.
    ///
    /// # Errors
    /// The command failed; if its arguments are wrong, the failure carries the command's help.
    pub async fn run(self) -> Result<(), Failure> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        self.category.run().await.map_err(|failure| failure.with_help(|| help::text(&Cli::command(), &path)))
    }
}

/// Reads the arguments (without the program's name).
///
/// # Errors
/// A help text or a usage error, to be shown instead of running a command.
pub fn parse(arguments: Vec<OsString>) -> Result<CommandLine, Failure> {
    let arguments = protect_remote_command(arguments);
    let root = Cli::command();
    let words: Vec<&str> = arguments.iter().take(2).map_while(|a| a.to_str()).collect();
    let path = help::path(&root, &words);
    if path.len() == arguments.len() && help::find(&root, &path).has_subcommands() {
        let text = format!("No sub-command given\n------\n{}", help::text(&root, &path));
        return Err(Failure::Help { text, status: 1 });
    }
    let full = std::iter::once(OsString::from("walt")).chain(arguments.iter().cloned());
    let error = match Cli::try_parse_from(full) {
        Ok(Cli { category }) => {
            return Ok(CommandLine { category, path: path.into_iter().map(str::to_owned).collect() });
        }
        Err(error) => error,
    };
    let help = help::text(&root, &path);
    Err(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Failure::Help { text: help, status: 0 },
        kind => {
            let status = if kind == ErrorKind::InvalidSubcommand { STATUS_UNKNOWN } else { STATUS_USAGE };
            Failure::Usage { reason: usage_error(&error), help: Some(help), status }
        }
    })
}

/// One sentence about what is wrong.
fn usage_error(error: &clap::Error) -> String {
    let value = |kind| error.get(kind).map(|v| v.to_string()).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            format!("Unknown sub-command '{}'", value(ContextKind::InvalidSubcommand))
        }
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => {
                let names: Vec<String> = missing.iter().map(|m| argument(m)).collect();
                format!("missing {}", names.join(", "))
            }
            _ => format!("missing {}", argument(&value(ContextKind::InvalidArg))),
        },
        ErrorKind::ArgumentConflict => {
            let (one, other) = (value(ContextKind::InvalidArg), value(ContextKind::PriorArg));
            match other.as_str() {
                _ if one == other => format!("{} cannot be used multiple times", argument(&one)),
                "" => format!("{} cannot be used with other options", argument(&one)),
                _ => format!("{} cannot be used with {}", argument(&one), argument(&other)),
            }
        }
        ErrorKind::ValueValidation => {
            let (what, given) = (argument(&value(ContextKind::InvalidArg)), value(ContextKind::InvalidValue));
            match error.source().and_then(|e| e.downcast_ref::<std::num::ParseIntError>()) {
                Some(_) => format!("invalid value '{given}' for {what}: a whole number is expected"),
                None => {
                    let why = error.source().map(|e| format!(": {e}")).unwrap_or_default();
                    format!("invalid value '{given}' for {what}{why}")
                }
            }
        }
        ErrorKind::UnknownArgument => {
            let word = value(ContextKind::InvalidArg);
            if word.starts_with('-') {
                format!("unknown option '{word}'")
            } else {
                format!("unexpected argument '{word}'")
            }
        }
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
            words.join(" ")
        }
    }
}

/// An argument as the help names it: an option without its value; alternatives are joined by "or".
fn argument(text: &str) -> String {
    let one = |part: &str| match part.trim_matches(['<', '>', '[', ']']).split_once([' ', '=']) {
        Some((option, _)) => option.trim_end_matches('[').to_owned(),
        None => part.trim_matches(['<', '>', '[', ']', '.']).to_owned(),
    };
    let parts: Vec<String> = text.split('|').map(one).collect();
    let name = parts.join(" or ");
    if name.starts_with('-') { name } else { name.to_lowercase() }
}

/// Inserts `--` after the set of nodes of `node run`, where the options of the remote command begin.
fn protect_remote_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_run = arguments.len() > 2 && arguments[0] == "node" && arguments[1] == "run";
    if !is_run {
        return arguments;
    }
    // All options of `node run` are switches, so the first other word is the set.
    let Some(set) = (2..arguments.len()).find(|&i| !arguments[i].as_encoded_bytes().starts_with(b"-")) else {
        return arguments;
    };
    if arguments[2..set].iter().any(|a| a == "--") {
        return arguments;
    }
    if arguments.get(set + 1).is_some_and(|next| next != "--") {
        arguments.insert(set + 1, "--".into());
    }
    arguments
}

#[cfg(test)]
mod tests;
