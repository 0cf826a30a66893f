//! Candidates that need no server.

use super::{
    kinds::{Kind, Members},
    place::Place,
    reply::Candidate,
};
use crate::topics;
use walt_types::networks;

/// Keywords of sets of nodes, and what they mean.
const NODE_WORDS: [(&str, &str); 3] = [
    ("my-nodes", "the nodes that you own"),
    ("free-nodes", "the nodes that nobody owns"),
    ("all-nodes", "all nodes"),
];
/// Keywords of sets of devices besides them.
const DEVICE_WORDS: [(&str, &str); 4] = [
    ("server", "the server"),
    ("all-switches", "all switches"),
    ("explorable-switches", "switches with lldp.explore=true"),
    ("all-devices", "all devices"),
];
/// Ranges of history.
const HISTORY: [(&str, &str); 5] = [
    ("none", "no past lines"),
    ("full", "all past lines"),
    ("-5m:", "the last five minutes"),
    ("-1h:", "the last hour"),
    ("-1d:", "the last day"),
];
/// Changes of links that have no value.
const LINK_WORDS: [(&str, &str); 3] =
    [("down", "nothing passes"), ("up", "frames pass"), ("reset", "as the setting 'networks' says")];

impl Place {
    /// The part of a set before its last item.
    pub fn set_start(&self) -> &[u8] {
        &self.partial[..self.partial.iter().rposition(|b| *b == b',').map_or(0, |at| at + 1)]
    }

    /// Whether it is a set.
    pub fn is_set(&self) -> bool {
        matches!(self.kind, Kind::Set(_))
    }

    /// Whether lower and upper case are the same.
    pub fn ignores_case(&self) -> bool {
        matches!(self.kind, Kind::Set(_) | Kind::Node(_) | Kind::Device | Kind::OtherDevice | Kind::Words(_))
    }

    /// Items of a set as whole words, without those that are in it.
    pub fn items<'a>(&self, items: impl IntoIterator<Item = (&'a str, String)>) -> Vec<Candidate> {
        let start = self.set_start();
        let has = |item: &str| start.split(|b| *b == b',').any(|i| i.eq_ignore_ascii_case(item.as_bytes()));
        let items = items.into_iter().filter(|(item, _)| !has(item));
        items.map(|(item, help)| Candidate::word(item, help).behind(start)).collect()
    }

    /// The network link's or node's `key=` before the value, and the key.
    pub fn key(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.partial).ok()?;
        text.split_once('=').map(|(key, _)| key)
    }
}

/// What may stand at a place.
pub fn candidates(place: &Place) -> Vec<Candidate> {
    let words = |words: &[(&str, &str)]| -> Vec<Candidate> {
        words
            .iter()
            .map(|(word, help)| Candidate { open: word.ends_with(':'), ..Candidate::word(*word, *help) })
            .collect()
    };
    match place.kind {
        Kind::Words(words) => words.iter().map(|word| Candidate::word(*word, "")).collect(),
        Kind::Set(members) => {
            let devices = if members == Members::Nodes { &[][..] } else { &DEVICE_WORDS[..] };
            place.items(NODE_WORDS.iter().chain(devices).map(|(word, help)| (*word, (*help).to_owned())))
        }
        Kind::ImageOrDefault => {
            words(&[("default", "the default image of its model: the node is free then")])
        }
        Kind::CloneLink => words(&[
            ("walt:", "images of other users and of the platform"),
            ("docker:", "images of the docker daemon of the server"),
        ]),
        Kind::Registry => words(&[("auto", "the only one")]),
        Kind::History => words(&HISTORY),
        Kind::Topic => topics::all().iter().map(|t| Candidate::word(t.topic, t.title)).collect(),
        Kind::LinkChange => link_changes(place),
        Kind::NodeCopy if place.before.first().is_some_and(|source| is_remote(source)) => {
            words(&[("booted-image", "the same path in the image that the node boots")])
        }
        _ => Vec::new(),
    }
}

/// Whether a side of a copy is `<entity>:<path>`.
pub fn is_remote(operand: &str) -> bool {
    operand.contains(':') && !operand.starts_with(['/', '.'])
}

fn link_changes(place: &Place) -> Vec<Candidate> {
    if let Some(key) = place.key() {
        let value = |value: &&str| Candidate {
            hidden: key.len() + 1,
            ..Candidate::word(format!("{key}={value}"), "")
        };
        return networks::usual_values(key).iter().map(value).collect();
    }
    let earlier = place.before.get(2..).unwrap_or_default();
    let has = |key: &str| earlier.iter().any(|word| word.split('=').next() == Some(key));
    let keys = networks::parameters().flat_map(|name| [name.to_owned(), format!("{name}.up")]);
    let keys = keys.filter(|key| !has(key)).map(|key| Candidate::open(format!("{key}="), ""));
    // A word that has no value stands alone.
    let words = LINK_WORDS.iter().filter(|_| earlier.is_empty());
    words.map(|(word, help)| Candidate::word(*word, *help)).chain(keys).collect()
}
