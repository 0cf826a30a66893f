//! The help texts of `--help`, made from the grammar.

use clap::{Arg, ArgAction, Command};

/// Commands whose usage is written by hand.
const USAGES: [(&str, &str); 3] = [
    (
        "image build",
        "    walt image build --from-url <git-repo-url> [--sub-dir <path>] <image-name>
    walt image build --from-dir <local-directory> <image-name>

See 'walt help show image-build' for more info.",
    ),
    (
        "image cp",
        "    walt image cp <local-path> <image>:<path>
    walt image cp <image>:<path> <local-path>",
    ),
    (
        "node cp",
        "    walt node cp <local-path> <node>:<path>
    walt node cp <node>:<path> <local-path>
    walt node cp <node>:<path> booted-image",
    ),
];

/// The longest prefix of `words` that names a category or a subcommand.
pub fn path<'a>(root: &Command, words: &[&'a str]) -> Vec<&'a str> {
    let mut command = root;
    let mut path = Vec::new();
    for word in words {
        match command.find_subcommand(word) {
            Some(found) => command = found,
            None => break,
        }
        path.push(*word);
    }
    path
}

/// The command of a path.
pub fn find<'a>(root: &'a Command, path: &[&str]) -> &'a Command {
    path.iter().fold(root, |command, word| command.find_subcommand(word).unwrap_or(command))
}

/// Help of the top level, of a category, or of a command.
pub fn text(root: &Command, path: &[&str]) -> String {
    let command = find(root, path);
    match path {
        _ if !command.has_subcommands() => command_help(command, path),
        [] => format!(
            "\nWalT platform control tool.\nVersion: {}\n\n\
             Usage:\n    walt CATEGORY SUBCOMMAND [args...]\n\n\
             Help about a given category or subcommand:\n    walt CATEGORY --help\n    \
             walt CATEGORY SUBCOMMAND --help\n\n\
             Help about WalT in general:\n    walt help show\n\nCategories:\n{}",
            env!("CARGO_PKG_VERSION"),
            list(command)
        ),
        _ => {
            let category = path.join(" ");
            format!(
                "\nWalT platform control tool\n-> {}\n\n\
                 Usage:\n    walt {category} SUBCOMMAND [args...]\n\n\
                 Help about a given subcommand:\n    walt {category} SUBCOMMAND --help\n\n\
                 Help about WalT in general:\n    walt help show\n\nSub-commands:\n{}",
                about(command),
                list(command)
            )
        }
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn list(command: &Command) -> String {
    let shown: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    let mut rows = Vec::new();
    for c in &shown {
        let name = c.get_name();
        rows.push((name.to_owned(), about(c)));
        rows.extend(c.get_visible_aliases().map(|alias| (alias.to_owned(), format!("the same as '{name}'"))));
    }
    // If the commands are sorted by name, an alias takes its place in that order.
    if shown.is_sorted_by_key(|c| c.get_name()) {
        rows.sort();
    }
    two_columns(rows)
}

fn two_columns(rows: Vec<(String, String)>) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, text)| format!("    {name:width$}  {text}").trim_end().to_owned() + "\n")
        .collect()
}

fn command_help(command: &Command, path: &[&str]) -> String {
    let name = path.join(" ");
    let mut usage = format!("    walt {name} [SWITCHES]");
    for positional in command.get_positionals() {
        usage += &format!(" {}", positional_text(positional));
    }
    if let Some((_, own)) = USAGES.iter().find(|(command, _)| *command == name) {
        usage = (*own).to_owned();
    }
    let mut text = format!("{}\n\nUsage:\n{usage}\n", about(command));
    if let Some(more) = command.get_after_help() {
        text += &format!("\n{more}\n");
    }
    text += "\nMeta-switches:\n    -h, --help  Prints this help message and quits\n";
    let mut switches: Vec<&Arg> =
        command.get_arguments().filter(|a| !a.is_positional() && a.get_long() != Some("help")).collect();
    switches.sort_by_key(|a| a.get_long());
    if !switches.is_empty() {
        text += "\nSwitches:\n";
        text += &two_columns(switches.iter().map(|a| (switch_text(a), arg_help(command, a))).collect());
    }
    text
}

fn positional_text(arg: &Arg) -> String {
    let name = arg.get_id().as_str();
    let many = matches!(arg.get_action(), ArgAction::Append);
    match arg.get_default_values().first() {
        Some(default) => format!("[{name}={}]", default.to_string_lossy()),
        None if many => format!("{name}..."),
        None if arg.is_required_set() => name.to_owned(),
        None => format!("[{name}=None]"),
    }
}

fn switch_text(arg: &Arg) -> String {
    let mut text = String::new();
    if let Some(short) = arg.get_short() {
        text += &format!("-{short}, ");
    }
    text += &format!("--{}", arg.get_long().unwrap_or_default());
    if arg.get_action().takes_values() {
        let value = arg.get_value_names().and_then(|names| names.first()).map_or("VALUE:str", |v| v.as_str());
        text += &if arg.is_require_equals_set() { format!("[={value}]") } else { format!(" {value}") };
    }
    text
}

fn arg_help(command: &Command, arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let excluded: Vec<String> = command
        .get_arg_conflicts_with(arg)
        .iter()
        .filter_map(|a| a.get_long())
        .map(|long| format!("--{long}"))
        .collect();
    if let Some(default) = arg.get_default_values().first()
        && !arg.is_hide_default_value_set()
    {
        text += &format!("; the default is {}", default.to_string_lossy());
    }
    if !excluded.is_empty() {
        text += &format!("; excludes {}", excluded.join(", "));
    }
    text
}
