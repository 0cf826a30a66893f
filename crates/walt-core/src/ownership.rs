//! Who may do what to whose nodes, and what must be asked first.
//!
//! A node belongs to the user of its image; a node that boots an image of the platform is free.
//! The rule of the house is few prohibitions and a question before anything that disturbs a teammate.

use crate::{NodeFacts, sentences};
use walt_types::UserName;

/// What an operation demands of the owner of the nodes it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nodes of others need a confirmation (boot, reboot, run, shell, console, remove, rename, config).
    OwnedOrFree,
    /// Own nodes are an error, nodes of others need a confirmation (acquire).
    FreeOrNotOwned,
    /// All nodes must be the caller's (release).
    Owned,
    /// Anybody may (show, wait, ping).
    Nothing,
}

/// What the rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Ask, showing this warning.
    Ask(String),
    /// Refuse, saying this.
    Refused {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Applies the rule to the nodes of a request.
pub fn check(demand: Demand, nodes: &[&NodeFacts], caller: &UserName) -> Verdict {
    let names = |keep: &dyn Fn(&NodeFacts) -> bool| -> Vec<&str> {
        nodes.iter().filter(|n| keep(n)).map(|n| n.name.as_str()).collect()
    };
    let mine = names(&|n| n.owner() == caller.as_str());
    let others = names(&|n| !n.is_free() && n.owner() != caller.as_str());
    let not_mine = names(&|n| n.owner() != caller.as_str());
    let hint = "see 'walt help show node-ownership'";
    match demand {
        Demand::FreeOrNotOwned if !mine.is_empty() => Verdict::Refused {
            message: format!(
                "{} already {} to you.",
                sentences::items("node", &mine),
                sentences::verb(mine.len(), "belongs", "belong")
            ),
            hint,
        },
        Demand::Owned if !not_mine.is_empty() => Verdict::Refused {
            message: format!(
                "{} {} not belong to you.",
                sentences::items("node", &not_mine),
                sentences::verb(not_mine.len(), "does", "do")
            ),
            hint,
        },
        Demand::OwnedOrFree | Demand::FreeOrNotOwned if !others.is_empty() => Verdict::Ask(format!(
            "Warning: {} {} to be used by another user.",
            sentences::items("node", &others),
            sentences::verb(others.len(), "seems", "seem")
        )),
        _ => Verdict::Allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_nodes;

    #[test]
    fn table() {
        let nodes = test_nodes();
        let alice: UserName = "alice".parse().unwrap();
        let by = |name: &str| nodes.iter().find(|n| n.name.as_str() == name).unwrap();
        let (mine, free, other) = (by("va1"), by("free1"), by("vb1"));
        let kind = |demand, node| match check(demand, &[node], &alice) {
            Verdict::Allowed => 'y',
            Verdict::Ask(_) => '?',
            Verdict::Refused { .. } => 'n',
        };
        for (demand, want) in [
            (Demand::OwnedOrFree, "yy?"),
            (Demand::FreeOrNotOwned, "ny?"),
            (Demand::Owned, "ynn"),
            (Demand::Nothing, "yyy"),
        ] {
            let got: String = [mine, free, other].into_iter().map(|n| kind(demand, n)).collect();
            assert_eq!(got, want, "{demand:?}");
        }
        assert_eq!(
            check(Demand::OwnedOrFree, &[other, mine], &alice),
            Verdict::Ask("Warning: Node vb1 seems to be used by another user.".into())
        );
    }
}
