//! What a device reaches: the value of the setting `netsetup`.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// What a device of walt-net reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NetSetup {
    /// Walt-net and nothing else.
    #[default]
    Lan,
    /// The world outside as well, by the address of the server.
    Nat,
}

impl NetSetup {
    /// Its name, as users and scripts see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "LAN",
            Self::Nat => "NAT",
        }
    }
}

impl FromStr for NetSetup {
    type Err = ParseError;
    /// Upper and lower case are the same.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let found = [Self::Lan, Self::Nat].into_iter().find(|own| own.name().eq_ignore_ascii_case(s));
        found.ok_or_else(|| ParseError(format!("'{s}' is neither LAN nor NAT")))
    }
}

impl fmt::Display for NetSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter() {
        for (text, own) in [("LAN", NetSetup::Lan), ("nat", NetSetup::Nat), ("Nat", NetSetup::Nat)] {
            assert_eq!(text.parse(), Ok(own));
        }
        assert_eq!(format!("{:4}|", NetSetup::Nat), "NAT |");
        for bad in ["", "LAN ", "wan"] {
            assert!(bad.parse::<NetSetup>().is_err(), "{bad}");
        }
    }
}
