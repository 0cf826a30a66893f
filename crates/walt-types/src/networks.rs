//! Networks of virtual nodes: the value of the setting `networks`, and what a link does to its frames.
//!
//! ```text
//! walt-net,lab[lat=10ms,jitter=2ms,loss.up=0.5%,bw=100Mbps]
//!          └ name └ a parameter of the direction towards the node; with .up, of the one from the node
//! ```
//! [`Shape`] is what stands in the brackets. Its text is canonical: the same shape has one text only.

mod shape;

pub use shape::{
    Burst, Distribution, Impairments, QUEUE_DEFAULT, QUEUE_MAX, RATE_MAX_KBPS, Shape, Share, TIME_MAX_US,
};

use crate::ParseError;
use std::{fmt, str::FromStr};

/// The network that every node has.
pub const WALT_NET: &str = "walt-net";
/// Most networks of a node: each one is a card on its PCI bus.
pub const NETWORKS_MAX: usize = 8;
/// Longest name of a network, in characters.
pub const NETWORK_NAME_MAX: usize = 32;

/// Name of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

fn check_name(name: &str) -> Result<(), ParseError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !first || !plain {
        return Err(ParseError(format!(
            "'{name}' is not a name of a network; a name is a lower-case letter followed by lower-case letters, digits \
             and '-'"
        )));
    }
    if name.len() > NETWORK_NAME_MAX {
        let length = name.len();
        return Err(ParseError(format!(
            "the name of the network '{name}' has {length} characters; a name has at most {NETWORK_NAME_MAX}"
        )));
    }
    Ok(())
}

crate::string_type!(NetworkName, check_name);

impl NetworkName {
    /// [`WALT_NET`].
    pub fn walt_net() -> Self {
        Self(WALT_NET.to_owned())
    }

    /// Whether it is the network that every node has.
    pub fn is_walt_net(&self) -> bool {
        self.0 == WALT_NET
    }
}

/// The networks of a node, with the shape of the link to each, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(Vec<(NetworkName, Shape)>);

impl Default for Networks {
    fn default() -> Self {
        Self(vec![(NetworkName::walt_net(), Shape::default())])
    }
}

impl Networks {
    /// The networks and links, in the order of the cards: walt-net first.
    pub fn iter(&self) -> impl Iterator<Item = (&NetworkName, &Shape)> {
        let of = |walt_net| self.0.iter().filter(move |(name, _)| name.is_walt_net() == walt_net);
        of(true).chain(of(false)).map(|(name, shape)| (name, shape))
    }

    /// Their names, sorted: what a node must be rebooted for if it changes.
    pub fn names(&self) -> Vec<&NetworkName> {
        let mut names: Vec<&NetworkName> = self.0.iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// The shape of the link to a network.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.0.iter().find(|(n, _)| n.as_str() == name).map(|(_, shape)| shape)
    }

    /// The same networks with another shape of one link.
    pub fn with_shape(mut self, name: &str, shape: Shape) -> Self {
        for (network, old) in &mut self.0 {
            if network.as_str() == name {
                *old = shape;
            }
        }
        self
    }
}

impl FromStr for Networks {
    type Err = ParseError;
    /// Networks separated by commas; commas within brackets belong to a shape.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let mut networks: Vec<(NetworkName, Shape)> = Vec::new();
        for word in split(s)? {
            let (name, shape) = match word.split_once('[') {
                None => (word, Shape::default()),
                Some((name, rest)) => {
                    let shape = rest.strip_suffix(']').ok_or_else(|| {
                        ParseError(format!("'{word}' is not a network: nothing may follow the bracket ']'"))
                    })?;
                    if shape.is_empty() {
                        return Err(ParseError(format!("'{word}' has no parameter between its brackets")));
                    }
                    (name, shape.parse().map_err(|e| ParseError(format!("network {name}: {e}")))?)
                }
            };
            let name: NetworkName = name.parse()?;
            if networks.iter().any(|(n, _)| *n == name) {
                return Err(ParseError(format!(
                    "the network '{name}' is there twice; a node has one card for each"
                )));
            }
            networks.push((name, shape));
        }
        if networks.len() > NETWORKS_MAX {
            let count = networks.len();
            return Err(ParseError(format!(
                "{count} networks are too many; a node has at most {NETWORKS_MAX}"
            )));
        }
        if !networks.iter().any(|(name, _)| name.is_walt_net()) {
            return Err(ParseError(format!(
                "{WALT_NET} is missing: every node has it, since it boots from there"
            )));
        }
        Ok(Self(networks))
    }
}

/// Splits at the commas outside of brackets.
fn split(s: &str) -> Result<Vec<&str>, ParseError> {
    let (mut words, mut start, mut is_open) = (Vec::new(), 0, false);
    for (at, c) in s.char_indices() {
        match c {
            '[' | ']' if is_open == (c == '[') => {
                return Err(ParseError(format!("the brackets of '{s}' do not match")));
            }
            '[' => is_open = true,
            ']' => is_open = false,
            ',' if !is_open => {
                words.push(&s[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if is_open {
        return Err(ParseError(format!("the brackets of '{s}' do not match")));
    }
    words.push(&s[start..]);
    Ok(words)
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, shape)) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            write!(f, "{name}")?;
            if *shape != Shape::default() {
                write!(f, "[{shape}]")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
