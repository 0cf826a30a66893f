//! Sets of nodes as users write them: names and keywords separated by commas.

use crate::NodeFacts;
use walt_types::UserName;

/// Longest set text that is read, in bytes.
const SET_TEXT_MAX: usize = 16 << 10;

/// Why a set cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A name in the set is not a node.
    #[error("No device with name '{0}' found.")]
    Unknown(String),
    /// The set has no member.
    #[error("No matching devices found! (tip: walt help show node-ownership)")]
    Empty,
    /// A set was given where one node is needed.
    #[error("this command must target 1 node only.")]
    NotOne,
    /// The text is too long.
    #[error("the node set is longer than {SET_TEXT_MAX} bytes")]
    TooLong,
}

/// Indexes into `nodes` of the members of the set, in the order of their names, each once.
pub fn resolve(text: &str, nodes: &[NodeFacts], caller: &UserName) -> Result<Vec<usize>, SetError> {
    if text.len() > SET_TEXT_MAX {
        return Err(SetError::TooLong);
    }
    let mut members = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let wanted =
            |keep: &dyn Fn(&NodeFacts) -> bool| (0..nodes.len()).filter(|&i| keep(&nodes[i])).collect();
        let found: Vec<usize> = match item {
            "all-nodes" => wanted(&|_| true),
            "my-nodes" => wanted(&|n| n.owner() == caller.as_str()),
            "free-nodes" => wanted(&NodeFacts::is_free),
            name => {
                let one = wanted(&|n| n.name.as_str().eq_ignore_ascii_case(name));
                if one.is_empty() {
                    return Err(SetError::Unknown(name.to_owned()));
                }
                one
            }
        };
        members.extend(found);
    }
    members.sort_by(|&a, &b| nodes[a].name.cmp(&nodes[b].name));
    members.dedup();
    if members.is_empty() { Err(SetError::Empty) } else { Ok(members) }
}

/// The one member of a set that must have exactly one.
pub fn resolve_one(text: &str, nodes: &[NodeFacts], caller: &UserName) -> Result<usize, SetError> {
    match resolve(text, nodes, caller)?.as_slice() {
        [one] => Ok(*one),
        _ => Err(SetError::NotOne),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nodes;

    #[test]
    fn sets() {
        let (nodes, alice) = (test_nodes(), "alice".parse().unwrap());
        let names = |text| {
            resolve(text, &nodes, &alice)
                .map(|m| m.iter().map(|&i| nodes[i].name.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("my-nodes").unwrap(), "va1 va2");
        assert_eq!(names("free-nodes,va1,va1").unwrap(), "free1 va1");
        assert_eq!(names("all-nodes").unwrap(), "free1 va1 va2 vb1");
        assert_eq!(names("va1,nope"), Err(SetError::Unknown("nope".into())));
        assert_eq!(names(""), Err(SetError::Empty));
        assert_eq!(resolve_one("my-nodes", &nodes, &alice), Err(SetError::NotOne));
        assert_eq!(resolve("my-nodes", &nodes, &"carol".parse().unwrap()), Err(SetError::Empty));
    }
}
