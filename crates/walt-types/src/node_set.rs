//! Sets of nodes and of devices as users write them: names and keywords separated by commas. Server and client
//! share this parser.
//!
//! ```text
//! set     = [ item ] *( "," [ item ] )
//! item    = keyword / name of a device
//! keyword = "my-nodes" / "free-nodes" / "all-nodes" / "server" / "all-switches" / "explorable-switches" / "all-devices"
//! ```
//!
//! * A set of nodes is a set of devices, all of which must be nodes.
//! * Names and keywords are case-insensitive: the names of two devices cannot differ in case only.
//! * Empty items are skipped: `vn1,` is the same as `vn1`. (Completion proposes items with a comma after them.)
//! * Duplicates are merged. Members are sorted by name.

use crate::{DeviceType, PLATFORM_USER, UserName};

/// Longest set text that is read, in bytes.
const SET_TEXT_MAX: usize = 16 << 10;

/// One item of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item<'a> {
    Mine,
    Free,
    All,
    Server,
    Switches,
    Explorable,
    Devices,
    Named(&'a str),
}

/// A keyword, in lower case, and what it means.
type Keyword = (&'static str, Item<'static>);

/// The keywords. No device has one of them as its name, except the server.
const KEYWORDS: [Keyword; 8] = [
    ("my-nodes", Item::Mine),
    ("free-nodes", Item::Free),
    ("all-nodes", Item::All),
    ("server", Item::Server),
    ("walt-server", Item::Server),
    ("all-switches", Item::Switches),
    ("explorable-switches", Item::Explorable),
    ("all-devices", Item::Devices),
];

/// A node that may be a member of a set.
pub trait Candidate {
    /// Its name.
    fn name(&self) -> &str;
    /// The user part of its image's reference.
    fn owner(&self) -> &str;
}

/// A device that may be a member of a set. [`Candidate::owner`] counts for nodes only.
pub trait Device: Candidate {
    /// Its type.
    fn device_type(&self) -> DeviceType;
    /// Whether it is a switch that the server may ask what is behind its ports.
    fn is_explorable(&self) -> bool {
        false
    }
}

/// Why a set cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A name in the set is not a node.
    #[error("No device with name '{0}' found.")]
    Unknown(String),
    /// A member of a set of nodes is another device.
    #[error("{name} is not a node, it is {what}.", what = .device_type.with_article())]
    NotANode {
        /// Its name.
        name: String,
        /// What it is.
        device_type: DeviceType,
    },
    /// The set is empty.
    #[error("No matching devices found! (tip: walt help show node-ownership)")]
    Empty,
    /// The command needs exactly one node.
    #[error("this command must target 1 node only.")]
    NotOne,
    /// The text is too long.
    #[error("the node set is longer than {SET_TEXT_MAX} bytes")]
    TooLong,
}

impl SetError {
    /// What the user can do about it, if the message does not say so.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unknown(_) => Some("see 'walt node show --all'"),
            Self::NotANode { .. } => Some("see 'walt device show'"),
            Self::Empty | Self::NotOne | Self::TooLong => None,
        }
    }
}

fn keyword(text: &str) -> Option<Item<'static>> {
    KEYWORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, meaning)| *meaning)
}

fn items(text: &str) -> impl Iterator<Item = Item<'_>> {
    text.split(',').filter(|item| !item.is_empty()).map(|item| keyword(item).unwrap_or(Item::Named(item)))
}

/// Whether a word means something else than a device of this name.
pub fn is_keyword(word: &str) -> bool {
    keyword(word).is_some()
}

/// Indexes of the candidates that `belongs` says an item means, sorted by name, without duplicates.
fn members<C: Candidate>(
    text: &str,
    candidates: &[C],
    belongs: impl Fn(&C, Item<'_>) -> bool,
) -> Result<Vec<usize>, SetError> {
    if text.len() > SET_TEXT_MAX {
        return Err(SetError::TooLong);
    }
    let mut members = Vec::new();
    for item in items(text) {
        let before = members.len();
        members.extend((0..candidates.len()).filter(|&i| belongs(&candidates[i], item)));
        if let Item::Named(name) = item
            && members.len() == before
        {
            return Err(SetError::Unknown(name.to_owned()));
        }
    }
    members.sort_by_cached_key(|&i| candidates[i].name().to_ascii_lowercase());
    members.dedup();
    if members.is_empty() { Err(SetError::Empty) } else { Ok(members) }
}

/// Indexes into `devices` of the members of a set of nodes, sorted by name, without duplicates.
///
/// # Errors
/// [`SetError`], never [`SetError::NotOne`].
pub fn resolve<D: Device>(text: &str, devices: &[D], caller: &UserName) -> Result<Vec<usize>, SetError> {
    let members = resolve_devices(text, devices, caller)?;
    let other = members.iter().map(|&i| &devices[i]).find(|d| d.device_type() != DeviceType::Node);
    match other {
        None => Ok(members),
        Some(device) => {
            Err(SetError::NotANode { name: device.name().to_owned(), device_type: device.device_type() })
        }
    }
}

/// Indexes into `devices` of the members of a set of devices, sorted by name, without duplicates.
///
/// # Errors
/// [`SetError`], never [`SetError::NotOne`] or [`SetError::NotANode`].
pub fn resolve_devices<D: Device>(
    text: &str,
    devices: &[D],
    caller: &UserName,
) -> Result<Vec<usize>, SetError> {
    members(text, devices, |device, item| {
        let is = |wanted| device.device_type() == wanted;
        match item {
            Item::Named(name) => device.name().eq_ignore_ascii_case(name),
            Item::Devices => true,
            Item::Server => is(DeviceType::Server),
            Item::Switches => is(DeviceType::Switch),
            Item::Explorable => is(DeviceType::Switch) && device.is_explorable(),
            Item::All => is(DeviceType::Node),
            Item::Mine => is(DeviceType::Node) && device.owner() == caller.as_str(),
            Item::Free => is(DeviceType::Node) && device.owner() == PLATFORM_USER,
        }
    })
}

/// The member of a set of nodes that must have exactly one.
///
/// # Errors
/// [`SetError`].
pub fn resolve_one<D: Device>(text: &str, devices: &[D], caller: &UserName) -> Result<usize, SetError> {
    match resolve(text, devices, caller)?.as_slice() {
        [one] => Ok(*one),
        _ => Err(SetError::NotOne),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and owner.
    struct Node(&'static str, &'static str);

    impl Candidate for Node {
        fn name(&self) -> &str {
            self.0
        }
        fn owner(&self) -> &str {
            self.1
        }
    }

    impl Device for Node {
        fn device_type(&self) -> DeviceType {
            DeviceType::Node
        }
    }

    const FOUR: [Node; 4] =
        [Node("va1", "alice"), Node("vb1", "bob"), Node("Va3", PLATFORM_USER), Node("va2", "alice")];

    fn user(name: &str) -> UserName {
        name.parse().expect("a user name")
    }

    fn names(text: &str) -> Result<String, SetError> {
        let members = resolve(text, &FOUR, &user("alice"))?;
        Ok(members.iter().map(|&i| FOUR[i].0).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn keywords_and_names() {
        for (text, expected) in [
            ("my-nodes", "va1 va2"),
            ("free-nodes,va1,va1", "va1 Va3"),
            ("all-nodes", "va1 va2 Va3 vb1"),
            ("vb1,my-nodes,va2", "va1 va2 vb1"),
            ("vb1", "vb1"),
        ] {
            assert_eq!(names(text).as_deref(), Ok(expected), "{text}");
        }
    }

    /// Name, owner and type.
    struct Thing(&'static str, &'static str, DeviceType);

    impl Candidate for Thing {
        fn name(&self) -> &str {
            self.0
        }
        fn owner(&self) -> &str {
            self.1
        }
    }

    impl Device for Thing {
        fn device_type(&self) -> DeviceType {
            self.2
        }
        fn is_explorable(&self) -> bool {
            // Only a switch counts.
            self.0 != "sw1"
        }
    }

    #[test]
    fn sets_of_devices() {
        use DeviceType as T;
        // The names of owners of what is not a node must not count.
        let devices = [
            Thing("walt-server", PLATFORM_USER, T::Server),
            Thing("vn1", "alice", T::Node),
            Thing("vn2", PLATFORM_USER, T::Node),
            Thing("sw1", "alice", T::Switch),
            Thing("Sw2", "", T::Switch),
            Thing("unknown-1", PLATFORM_USER, T::Unknown),
        ];
        let names = |text: &str| {
            let members = resolve_devices(text, &devices, &user("alice"))?;
            Ok(members.iter().map(|&i| devices[i].0).collect::<Vec<_>>().join(" "))
        };
        for (text, expected) in [
            ("all-devices", "sw1 Sw2 unknown-1 vn1 vn2 walt-server"),
            ("server", "walt-server"),
            ("Walt-Server,SERVER", "walt-server"),
            ("all-switches,unknown-1", "sw1 Sw2 unknown-1"),
            ("Explorable-Switches", "Sw2"),
            ("all-nodes", "vn1 vn2"),
            ("my-nodes", "vn1"),
            ("free-nodes,SW1", "sw1 vn2"),
        ] {
            assert_eq!(names(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(names("vn1,nope"), Err(SetError::Unknown("nope".into())));
        assert_eq!(names(","), Err(SetError::Empty));
        // A set of nodes has the same words.
        let nodes = |text: &str| resolve(text, &devices, &user("alice"));
        assert_eq!(nodes("VN2,my-nodes"), Ok(vec![1, 2]));
        for (text, name, device_type) in [
            ("all-devices", "sw1", T::Switch),
            ("vn1,server", "walt-server", T::Server),
            ("UNKNOWN-1", "unknown-1", T::Unknown),
        ] {
            let error = nodes(text);
            assert_eq!(error, Err(SetError::NotANode { name: name.to_owned(), device_type }), "{text}");
        }
        let text = nodes("sw2").map_err(|e| e.to_string());
        assert_eq!(text, Err("Sw2 is not a node, it is a switch.".to_owned()));
        assert_eq!(resolve("explorable-switches", &FOUR, &user("alice")), Err(SetError::Empty));
    }

    #[test]
    fn case_and_empty_items() {
        for (text, expected) in [
            ("VB1,va1", "va1 vb1"),
            ("VA3", "Va3"),
            ("My-Nodes", "va1 va2"),
            ("vb1,", "vb1"),
            (",,vb1,,VB1,", "vb1"),
        ] {
            assert_eq!(names(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_resolved() {
        assert_eq!(names("va1,Nope"), Err(SetError::Unknown("Nope".into())));
        assert_eq!(names("va1, vb1"), Err(SetError::Unknown(" vb1".into())));
        for empty in ["", ",", ",,"] {
            assert_eq!(names(empty), Err(SetError::Empty), "{empty}");
        }
        assert_eq!(resolve("my-nodes", &FOUR, &user("carol")), Err(SetError::Empty));
        let long = "va1,".repeat(SET_TEXT_MAX / 4);
        assert_eq!(names(&long).as_deref(), Ok("va1"));
        assert_eq!(names(&(long + ",")), Err(SetError::TooLong));
    }

    /// The sentences are those that scripts know; for the others a hint would say the same again.
    #[test]
    fn what_to_do_about_it() {
        let hint = SetError::Unknown("x".into()).hint();
        assert!(hint.is_some_and(|h| h.contains("walt node show --all")), "{hint:?}");
        let other = SetError::NotANode { name: "x".into(), device_type: DeviceType::Switch };
        assert!(other.hint().is_some_and(|h| h.contains("walt device show")), "{other}");
        for error in [SetError::Empty, SetError::NotOne, SetError::TooLong] {
            assert_eq!(error.hint(), None, "{error}");
        }
    }

    #[test]
    fn one_node() {
        let one = |text| resolve_one(text, &FOUR, &user("alice"));
        assert_eq!(one("VB1,vb1"), Ok(1));
        assert_eq!(one("free-nodes"), Ok(2));
        assert_eq!(one("my-nodes"), Err(SetError::NotOne));
        assert_eq!(one("nope"), Err(SetError::Unknown("nope".into())));
    }

    #[test]
    fn words_that_are_not_names() {
        for (text, expected) in [("ALL-nodes", true), ("walt-server", true), ("a", false), ("", false)] {
            assert_eq!(is_keyword(text), expected, "{text}");
        }
    }
}
