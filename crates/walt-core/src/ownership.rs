//! Who may do what to whose nodes, and what must be asked first.
//!
//! A node belongs to the user of its image; a node that boots an image of the platform is free.
//! The rule of the house is few prohibitions and a question before anything that disturbs a teammate.
//!
//! A node whose owner's lease is over may be taken (acquire, boot) without a question, as a free one. Whatever else would
//! disturb what still runs there asks as before. Nodes for which others wait in the queue are not taken without a question.

use crate::{NodeFacts, sentences};
use walt_types::UserName;

/// A node in a request, and what else counts.
#[derive(Debug, Clone)]
pub struct Standing<'a> {
    /// The node.
    pub node: &'a NodeFacts,
    /// Whether its owner has a lease that is over.
    pub is_over: bool,
    /// Who waits for it in the queue, in order.
    pub waiting: Vec<UserName>,
}

impl<'a> Standing<'a> {
    /// A node without a lease, for which nobody waits.
    pub fn plain(node: &'a NodeFacts) -> Self {
        Self { node, is_over: false, waiting: Vec::new() }
    }

    /// Whether it may be taken without a question: it is free, or its owner's lease is over.
    pub fn is_available(&self) -> bool {
        self.node.is_free() || self.is_over
    }
}

/// What an operation demands of the owner of the nodes it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nodes of others need a confirmation (reboot, run, shell, console, remove, rename, config).
    OwnedOrFree,
    /// Nodes of others need a confirmation, unless their lease is over (boot).
    Takes,
    /// Own nodes are an error, nodes of others need a confirmation, unless their lease is over (acquire).
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
pub fn check(demand: Demand, nodes: &[Standing<'_>], caller: &UserName) -> Verdict {
    let names = |keep: &dyn Fn(&Standing<'_>) -> bool| -> Vec<&str> {
        nodes.iter().filter(|n| keep(n)).map(|n| n.node.name.as_str()).collect()
    };
    let is_mine = |n: &Standing<'_>| n.node.owner() == caller.as_str();
    let mine = names(&is_mine);
    let not_mine = names(&|n| !is_mine(n));
    let takes = matches!(demand, Demand::Takes | Demand::FreeOrNotOwned);
    let others = names(&|n| !n.node.is_free() && !is_mine(n) && !(takes && n.is_over));
    let hint = "see 'walt help show node-ownership'";
    match demand {
        Demand::FreeOrNotOwned if !mine.is_empty() => {
            return Verdict::Refused {
                message: format!(
                    "{} already {} to you.",
                    sentences::items("node", &mine),
                    sentences::verb(mine.len(), "belongs", "belong")
                ),
                hint,
            };
        }
        Demand::Owned if !not_mine.is_empty() => {
            return Verdict::Refused {
                message: format!(
                    "{} {} not belong to you.",
                    sentences::items("node", &not_mine),
                    sentences::verb(not_mine.len(), "does", "do")
                ),
                hint,
            };
        }
        Demand::Nothing | Demand::Owned => return Verdict::Allowed,
        _ => {}
    }
    let mut warnings = Vec::new();
    if !others.is_empty() {
        warnings.push(format!(
            "Warning: {} {} to be used by another user.",
            sentences::items("node", &others),
            sentences::verb(others.len(), "seems", "seem")
        ));
    }
    if takes {
        warnings.extend(nodes.iter().filter(|n| !is_mine(n)).filter_map(|n| waited_for(n, caller)));
    }
    if warnings.is_empty() { Verdict::Allowed } else { Verdict::Ask(warnings.join("\n")) }
}

/// The warning before a node is taken for which others wait.
fn waited_for(node: &Standing<'_>, caller: &UserName) -> Option<String> {
    let mut users: Vec<&str> =
        node.waiting.iter().filter(|user| *user != caller).map(UserName::as_str).collect();
    users.dedup();
    let wait = sentences::verb(users.len(), "waits", "wait");
    let who = sentences::and(&users)?;
    Some(format!("Warning: {who} {wait} for node {} in the queue.", node.node.name))
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
        let kind = |demand, node: Standing<'_>| match check(demand, &[node], &alice) {
            Verdict::Allowed => 'y',
            Verdict::Ask(_) => '?',
            Verdict::Refused { .. } => 'n',
        };
        // Mine, free, another user's; then mine and another user's whose leases are over.
        for (demand, want) in [
            (Demand::OwnedOrFree, "yy?y?"),
            (Demand::Takes, "yy?yy"),
            (Demand::FreeOrNotOwned, "ny?ny"),
            (Demand::Owned, "ynnyn"),
            (Demand::Nothing, "yyyyy"),
        ] {
            let plain = [mine, free, other].map(Standing::plain);
            let over = [mine, other].map(|node| Standing { is_over: true, ..Standing::plain(node) });
            let got: String = plain.into_iter().chain(over).map(|n| kind(demand, n)).collect();
            assert_eq!(got, want, "{demand:?}");
        }
        assert_eq!(
            check(Demand::OwnedOrFree, &[Standing::plain(other), Standing::plain(mine)], &alice),
            Verdict::Ask("Warning: Node vb1 seems to be used by another user.".into())
        );
        let over = Standing { is_over: true, ..Standing::plain(other) };
        let available = [Standing::plain(mine), Standing::plain(free), over].map(|s| s.is_available());
        assert_eq!(available, [false, true, true]);
    }

    #[test]
    fn nobody_is_overtaken_without_a_question() {
        let nodes = test_nodes();
        let [alice, bob, eve]: [UserName; 3] = ["alice", "bob", "eve"].map(|name| name.parse().unwrap());
        let by = |name: &str| nodes.iter().find(|n| n.name.as_str() == name).unwrap();
        let wanted = |node, waiting: &[&UserName]| Standing {
            waiting: waiting.iter().map(|u| (*u).clone()).collect(),
            ..Standing::plain(node)
        };
        let free = by("free1");
        for (waiting, warning) in [
            ([&bob].as_slice(), "Warning: bob waits for node free1 in the queue."),
            (&[&bob, &alice, &eve], "Warning: bob and eve wait for node free1 in the queue."),
        ] {
            for demand in [Demand::Takes, Demand::FreeOrNotOwned] {
                let verdict = check(demand, &[wanted(free, waiting)], &alice);
                assert_eq!(verdict, Verdict::Ask(warning.into()));
            }
            assert_eq!(check(Demand::OwnedOrFree, &[wanted(free, waiting)], &alice), Verdict::Allowed);
        }
        assert_eq!(check(Demand::Takes, &[wanted(free, &[&alice])], &alice), Verdict::Allowed);
        // The owner may boot another image.
        assert_eq!(check(Demand::Takes, &[wanted(by("va1"), &[&bob])], &alice), Verdict::Allowed);
        let both = check(Demand::Takes, &[wanted(by("vb1"), &[&eve])], &alice);
        let text = "Warning: Node vb1 seems to be used by another user.\nWarning: eve waits for node vb1 in the queue.";
        assert_eq!(both, Verdict::Ask(text.into()));
    }
}
