//! What stands at the cursor, by the table of commands.

use super::{
    kinds::{self, Kind},
    reply::Candidate,
};
use clap::{Arg, ArgAction, Command};

/// What may stand at the cursor.
#[derive(Debug)]
pub enum At {
    /// One of these words.
    Words(Vec<Candidate>),
    /// A value.
    Value(Place),
}

/// The place of a value.
#[derive(Debug, Clone)]
pub struct Place {
    /// What it is.
    pub kind: Kind,
    /// What stands before it in the same word, such as `--image=`.
    pub prefix: Vec<u8>,
    /// What of it is there.
    pub partial: Vec<u8>,
    /// The positional arguments before it.
    pub before: Vec<String>,
}

/// Words that have been read.
#[derive(Default)]
struct Read<'a> {
    positionals: Vec<String>,
    used: Vec<&'a Arg>,
    /// The option whose value comes next.
    pending: Option<&'a Arg>,
    /// After `--`, or in a command for nodes.
    options_ended: bool,
}

/// The place after `words`, where `partial` is. `words` begin with a category.
pub fn find(root: &Command, words: &[Vec<u8>], partial: &[u8]) -> At {
    let (mut command, mut path, mut words) = (root, Vec::new(), words);
    while command.has_subcommands() {
        let Some((first, rest)) = words.split_first() else {
            return At::Words(subcommands(command, partial));
        };
        let Some(found) = command.find_subcommand(&*String::from_utf8_lossy(first)) else { return nothing() };
        (command, words) = (found, rest);
        path.push(found.get_name());
    }
    let path = path.join(" ");
    let mut read = Read::default();
    for word in words {
        read.word(command, word);
        if path == "node run" && !read.positionals.is_empty() {
            return nothing();
        }
    }
    let value = |arg: &Arg, prefix: &[u8]| {
        let kind = kinds::of(&path, arg.get_id().as_str()).unwrap_or(Kind::Free);
        let before = read.positionals.clone();
        Place { kind, prefix: prefix.to_vec(), partial: partial[prefix.len()..].to_vec(), before }
    };
    if let Some(option) = read.pending {
        return At::Value(value(option, b""));
    }
    if !read.options_ended && partial.starts_with(b"-") {
        return match partial.iter().position(|b| *b == b'=') {
            Some(equals) => match option_of(command, &partial[..equals]) {
                Some(option) if option.get_action().takes_values() => {
                    At::Value(value(option, &partial[..=equals]))
                }
                _ => nothing(),
            },
            None => At::Words(options(command, &read.used)),
        };
    }
    match positional(command, &read) {
        Some(arg) => {
            let place = value(arg, b"");
            let is_optional = !arg.is_required_set();
            match place.kind {
                Kind::Free if partial.is_empty() && is_optional => At::Words(options(command, &read.used)),
                _ => At::Value(place),
            }
        }
        None if partial.is_empty() && !read.options_ended => At::Words(options(command, &read.used)),
        None => nothing(),
    }
}

fn nothing() -> At {
    At::Words(Vec::new())
}

/// The positional argument that comes next.
fn positional<'a>(command: &'a Command, read: &Read<'_>) -> Option<&'a Arg> {
    // What follows `--` may be a command, of which nothing is known.
    if read.options_ended && command.get_positionals().any(Arg::is_last_set) {
        return None;
    }
    let all: Vec<&Arg> = command.get_positionals().filter(|a| !a.is_last_set()).collect();
    let many = all.last().filter(|a| matches!(a.get_action(), ArgAction::Append));
    all.get(read.positionals.len()).or(many).copied()
}

impl<'a> Read<'a> {
    fn word(&mut self, command: &'a Command, word: &[u8]) {
        if self.pending.take().is_some() {
            return;
        }
        if self.options_ended || !word.starts_with(b"-") || word == b"-" {
            self.positionals.push(String::from_utf8_lossy(word).into_owned());
            return;
        }
        if word == b"--" {
            self.options_ended = true;
            return;
        }
        let equals = word.iter().position(|b| *b == b'=');
        match option_of(command, &word[..equals.unwrap_or(word.len())]) {
            Some(option) => {
                self.used.push(option);
                let needs_value = option.get_action().takes_values() && !option.is_require_equals_set();
                if needs_value && equals.is_none() {
                    self.pending = Some(option);
                }
            }
            // Such as -30m.
            None if positional(command, self).is_some_and(Arg::is_allow_hyphen_values_set) => {
                self.positionals.push(String::from_utf8_lossy(word).into_owned());
            }
            None => {}
        }
    }
}

/// The option of a word such as `--image` or `-y`.
fn option_of<'a>(command: &'a Command, word: &[u8]) -> Option<&'a Arg> {
    let word = std::str::from_utf8(word).ok()?;
    command.get_arguments().find(|arg| match word.strip_prefix("--") {
        Some(long) => {
            arg.get_long() == Some(long)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
        }
        None => word
            .strip_prefix('-')
            .is_some_and(|short| arg.get_short().is_some_and(|s| short.chars().eq(std::iter::once(s)))),
    })
}

fn subcommands(command: &Command, partial: &[u8]) -> Vec<Candidate> {
    if partial.starts_with(b"-") {
        return vec![help()];
    }
    let mut found = Vec::new();
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        found.push(Candidate::word(sub.get_name(), about.clone()));
        found.extend(sub.get_visible_aliases().map(|alias| Candidate::word(alias, about.clone())));
    }
    found
}

fn help() -> Candidate {
    Candidate::word("--help", "print the help of this command")
}

/// The options that may still be given.
fn options(command: &Command, used: &[&Arg]) -> Vec<Candidate> {
    let mut found = Vec::new();
    let excluded = |arg: &Arg| {
        used.iter().any(|u| {
            let again = u.get_id() == arg.get_id() && !matches!(arg.get_action(), ArgAction::Append);
            let conflict =
                |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id());
            again || conflict(u, arg) || conflict(arg, u)
        })
    };
    for arg in command.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set() && !excluded(a)) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let names = arg.get_long().into_iter().chain(arg.get_visible_aliases().into_iter().flatten());
        for name in names.filter(|name| *name != "help") {
            found.push(Candidate::word(format!("--{name}"), help.clone()));
            if arg.is_require_equals_set() {
                found.push(Candidate::open(format!("--{name}="), help.clone()));
            }
        }
    }
    found.sort_by(|a, b| a.value.cmp(&b.value));
    found.push(help());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::complete::kinds::{Members, Nodes};
    use clap::CommandFactory;

    fn at(line: &str) -> At {
        let words: Vec<Vec<u8>> = line.split(' ').map(|w| w.as_bytes().to_vec()).collect();
        let (partial, words) = words.split_last().unwrap();
        find(&Cli::command(), words, partial)
    }

    fn names(line: &str) -> Vec<String> {
        match at(line) {
            At::Words(words) => words.into_iter().map(|w| String::from_utf8(w.value).unwrap()).collect(),
            At::Value(place) => panic!("{line}: {place:?}"),
        }
    }

    fn place(line: &str) -> Place {
        match at(line) {
            At::Value(place) => place,
            At::Words(words) => panic!("{line}: {words:?}"),
        }
    }

    #[test]
    fn commands_and_options() {
        assert_eq!(names("")[..3], ["image", "node", "log"]);
        assert!(!names("").contains(&"proxy".to_owned()));
        assert!(names("node ").contains(&"deploy".to_owned()));
        assert!(names("advanced ").contains(&"rescan-hub-account".to_owned()));
        assert_eq!(names("node -"), ["--help"]);
        assert_eq!(names("node reboot n --"), ["--hard", "--yes", "--help"]);
        assert_eq!(names("node reboot --hard n "), ["--yes", "--help"]);
        assert_eq!(names("node reboot -y n -"), ["--hard", "--help"]);
        assert!(names("image shell i --").contains(&"--save=".to_owned()));
        assert!(
            !names("image shell --discard i --").contains(&"--resume".to_owned()),
            "they exclude each other"
        );
        // Nothing to propose for the regular expression, which may be left out.
        assert!(names("log show ").contains(&"--nodes".to_owned()));
        assert!(names("no such ").is_empty() && names("node shw ").is_empty());
    }

    #[test]
    fn values_have_a_place() {
        for (line, kind) in [
            ("node boot ", Kind::Set(Members::Nodes)),
            ("node boot vn1 d", Kind::ImageOrDefault),
            ("node deploy vn1 ", Kind::ImageOrDefault),
            ("node boot -y vn1 ", Kind::ImageOrDefault),
            ("node boot -- vn1 ", Kind::ImageOrDefault),
            ("node wait --timeout 5 ", Kind::Set(Members::Nodes)),
            ("node wait --timeout -1 ", Kind::Set(Members::Nodes)),
            ("node create --image ", Kind::Image),
            ("node create ", Kind::Free),
            ("node config vn1 ram=1G n", Kind::Setting),
            ("node remove ", Kind::Node(Nodes::Virtual)),
            ("node link vn1 lab lat=1ms l", Kind::LinkChange),
            ("log show --nodes ", Kind::Set(Members::Issuers)),
            ("log show --history ", Kind::History),
            ("help show ", Kind::Topic),
            ("image cp a ", Kind::ImageCopy),
            ("image build --from-dir ", Kind::Directory),
        ] {
            assert_eq!(place(line).kind, kind, "{line}");
        }
        let save = place("image shell i --save=a:b");
        assert_eq!((save.kind, &*save.prefix, &*save.partial), (Kind::Image, &b"--save="[..], &b"a:b"[..]));
        assert_eq!(place("node link vn1 lab lat=1ms l").before, ["vn1", "lab", "lat=1ms"]);
        assert!(names("image shell i --nope=").is_empty());
        assert_eq!(place("image rollback i ").kind, Kind::EarlierVersion);
    }

    /// What follows belongs to the nodes.
    #[test]
    fn remote_commands_are_left_alone() {
        assert_eq!(place("node run --term ").kind, Kind::Set(Members::Nodes));
        for line in ["node run vn1 ", "node run vn1 -", "node run vn1 -- l", "node run --term vn1 ls -"] {
            assert!(names(line).is_empty(), "{line}");
        }
        assert!(names("node lease n --hold -- ").is_empty());
    }
}
