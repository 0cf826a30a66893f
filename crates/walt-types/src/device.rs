//! Types of devices.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// What a device of the platform is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceType {
    /// A node, virtual or physical.
    Node,
    /// The server.
    Server,
    /// A network switch.
    Switch,
    /// A machine of which nothing else is known.
    Unknown,
}

/// All types and their names.
const NAMES: [(DeviceType, &str); 4] = [
    (DeviceType::Node, "node"),
    (DeviceType::Server, "server"),
    (DeviceType::Switch, "switch"),
    (DeviceType::Unknown, "unknown"),
];

impl DeviceType {
    /// The name, as users and scripts see it.
    pub fn as_str(self) -> &'static str {
        // Invariant: each type is in the table.
        NAMES.iter().find(|(own, _)| *own == self).map_or("", |(_, name)| name)
    }

    /// With an article, for messages: `a switch`.
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Node => "a node",
            Self::Server => "the server",
            Self::Switch => "a switch",
            Self::Unknown => "a device of unknown type",
        }
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DeviceType {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(own, _)| *own).ok_or_else(|| ParseError(format!("'{text}' is not a type of devices")))
    }
}

crate::serde_by_text!(DeviceType);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (own, name) in NAMES {
            assert_eq!(name.parse(), Ok(own));
            assert_eq!((own.as_str(), format!("{own:8}|")), (name, format!("{name:8}|")));
        }
        assert!("".parse::<DeviceType>().is_err() && "Node".parse::<DeviceType>().is_err());
        let said: Vec<_> = NAMES.iter().map(|(own, _)| own.with_article()).collect();
        assert_eq!(said, ["a node", "the server", "a switch", "a device of unknown type"]);
    }
}
