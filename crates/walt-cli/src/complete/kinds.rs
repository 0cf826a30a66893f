//! What a value of each argument and option is. A test looks that each of them is here.

/// A kind of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything: nothing is proposed.
    Free,
    /// One of these words, or something else.
    Words(&'static [&'static str]),
    /// A node.
    Node(Nodes),
    /// A set.
    Set(Members),
    /// A device.
    Device,
    /// A device that is not a node.
    OtherDevice,
    /// A forgotten node.
    Forgotten,
    /// An image of the user.
    Image,
    /// The same, or `default`.
    ImageOrDefault,
    /// An image of anybody, maybe with `@VERSION`.
    ImageVersion,
    /// What can be cloned.
    CloneLink,
    /// A registry, or `auto`.
    Registry,
    /// Another user who has images.
    ImageOwner,
    /// An earlier version of the image before it.
    EarlierVersion,
    /// A boot of the node before it.
    Boot,
    /// A checkpoint.
    Checkpoint,
    /// A range of history.
    History,
    /// A help topic.
    Topic,
    /// `setting=value` of the set before it.
    Setting,
    /// A network of the set before it.
    Network,
    /// A change of a link.
    LinkChange,
    /// A side of a copy to or from images.
    ImageCopy,
    /// A side of a copy to or from nodes.
    NodeCopy,
    /// A directory of this machine.
    Directory,
}

/// Which nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// All.
    All,
    /// Those that the server runs.
    Virtual,
    /// The others.
    Physical,
}

/// Members of sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// Nodes.
    Nodes,
    /// Devices.
    Devices,
    /// What logs.
    Issuers,
}

/// Usual spans of time.
const SPANS: Kind = Kind::Words(&["10m", "1h", "4h", "1d"]);

/// Kinds of arguments of one command, by command and argument. They count before those of [`ARGUMENTS`].
const OF_COMMANDS: &[(&str, &str, Kind)] = &[
    ("device forget", "device_name", Kind::Device),
    ("device restore", "device_name", Kind::Forgotten),
    ("device shell", "device_name", Kind::OtherDevice),
    ("image clone", "image_name", Kind::Free),
    ("image cp", "src", Kind::ImageCopy),
    ("image cp", "dst", Kind::ImageCopy),
    ("log add-checkpoint", "checkpoint_name", Kind::Free),
    ("log add-checkpoint", "date", Kind::Words(&["-10s", "-1m", "-1h"])),
    ("node console", "node_name", Kind::Node(Nodes::Virtual)),
    ("node cp", "src", Kind::NodeCopy),
    ("node cp", "dst", Kind::NodeCopy),
    ("node create", "node_name", Kind::Free),
    ("node forget", "node_name", Kind::Node(Nodes::Physical)),
    ("node link", "duration", SPANS),
    ("node lease", "change", Kind::Words(&["+1h", "2h", "1d", "none"])),
    ("node remove", "node_name", Kind::Node(Nodes::Virtual)),
];

/// Kinds of all other arguments and options.
const ARGUMENTS: &[(&str, Kind)] = &[
    ("build_arg", Kind::Free),
    ("changes", Kind::LinkChange),
    ("checkpoint_name", Kind::Checkpoint),
    ("clonable_image_link", Kind::CloneLink),
    ("cmdargs", Kind::Free),
    ("command", Kind::Free),
    ("configuration", Kind::Setting),
    ("device_name", Kind::Device),
    ("device_port", Kind::Free),
    ("device_set", Kind::Set(Members::Devices)),
    ("duration", Kind::Free),
    ("format", Kind::Free),
    ("from_dir", Kind::Directory),
    ("from_url", Kind::Free),
    ("grace", SPANS),
    ("history", Kind::History),
    ("image", Kind::Image),
    ("image_a", Kind::ImageVersion),
    ("image_b", Kind::ImageVersion),
    ("image_name", Kind::Image),
    ("image_name_or_default", Kind::ImageOrDefault),
    ("issuers", Kind::Set(Members::Issuers)),
    ("keyword", Kind::Free),
    ("listen", Kind::Words(&["127.0.0.1", "0.0.0.0"])),
    ("local_port", Kind::Free),
    ("logline_regexp", Kind::Free),
    ("mode", Kind::Words(&["ANY", "ALL"])),
    ("network", Kind::Network),
    ("new_image_name", Kind::Free),
    ("new_name", Kind::Free),
    ("new_node_name", Kind::Free),
    ("node_name", Kind::Node(Nodes::All)),
    ("node_port", Kind::Free),
    ("node_set", Kind::Set(Members::Nodes)),
    ("number", Kind::Boot),
    ("old_name", Kind::Device),
    ("old_node_name", Kind::Node(Nodes::All)),
    ("other_user", Kind::ImageOwner),
    ("port", Kind::Free),
    ("registry", Kind::Registry),
    ("save", Kind::Image),
    ("secret", Kind::Free),
    ("span", SPANS),
    ("streams", Kind::Words(&["platform.*", "daemon.*", "netconsole", "virtualconsole"])),
    ("sub_dir", Kind::Free),
    ("target", Kind::Free),
    ("time_margin", Kind::Free),
    ("timeout", Kind::Free),
    ("topic", Kind::Topic),
    ("user", Kind::Words(&["root"])),
    ("version", Kind::EarlierVersion),
];

/// The kind of an argument of a command, such as `node boot`; `None` if it is not in the tables.
pub fn of(command: &str, argument: &str) -> Option<Kind> {
    let own = OF_COMMANDS.iter().find(|(c, a, _)| *c == command && *a == argument).map(|(_, _, kind)| *kind);
    own.or_else(|| ARGUMENTS.iter().find(|(a, _)| *a == argument).map(|(_, kind)| *kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{Command, CommandFactory};
    use std::collections::BTreeSet;

    #[test]
    fn each_argument_has_a_kind_and_each_kind_an_argument() {
        let root = Cli::command();
        let (mut missing, mut seen) = (Vec::new(), BTreeSet::new());
        let leaves: Vec<(String, &Command)> = root
            .get_subcommands()
            .filter(|c| !c.is_hide_set())
            .flat_map(|c| c.get_subcommands().map(move |s| (format!("{} {}", c.get_name(), s.get_name()), s)))
            .collect();
        for (name, command) in &leaves {
            for argument in command.get_arguments().filter(|a| a.get_action().takes_values()) {
                let id = argument.get_id().as_str();
                seen.insert((name.as_str(), id));
                if of(name, id).is_none() {
                    missing.push(format!("{name}: {id}"));
                }
            }
        }
        assert!(missing.is_empty(), "completion does not know: {missing:?}");
        for (command, argument, _) in OF_COMMANDS {
            assert!(seen.contains(&(*command, *argument)), "{command} has no {argument}");
        }
        for (argument, _) in ARGUMENTS {
            assert!(seen.iter().any(|(_, a)| a == argument), "no command has {argument}");
        }
    }
}
