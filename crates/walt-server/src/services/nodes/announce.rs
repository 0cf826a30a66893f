//! Says on the log of the platform when nodes are booted, and when they are down. Only changes are said.

use crate::base::{
    db::NodeRow,
    journal::{Journal, NODES},
    time,
};
use parking_lot::Mutex;
use std::collections::HashSet;
use walt_core::{
    boots::{By, Cause},
    life::LINK_GRACE_S,
};
use walt_types::Mac;

/// The nodes of which the log says last that they are booted.
#[derive(Default)]
pub struct Announced(Mutex<HashSet<Mac>>);

impl Announced {
    /// What the log of an earlier server says.
    pub fn resume(&self, node: &NodeRow) {
        if node.life.booted.is_some() {
            self.0.lock().insert(node.mac);
        }
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, mac: Mac) {
        self.0.lock().remove(&mac);
    }

    /// Says what has changed in the life of a node.
    pub fn follow(&self, journal: &Journal, node: &NodeRow, cause: &Cause) {
        let (name, life) = (&node.facts.name, &node.life);
        if life.booted.is_some() {
            if life.link_lost.is_none() && self.0.lock().insert(node.mac) {
                journal.say(NODES, &format!("node {name} is booted"));
            }
        } else if self.0.lock().remove(&node.mac) {
            journal.say(NODES, &format!("node {name} is down{}", reason(cause, node.facts.is_virtual)));
        }
    }

    /// Says that the link of a node is lost for too long; when that will be, if it is not yet.
    pub fn look(&self, journal: &Journal, node: &NodeRow) -> Option<f64> {
        let at = node.life.link_lost.filter(|_| node.life.booted.is_some())? + LINK_GRACE_S;
        if at > time::now() {
            return Some(at);
        }
        if self.0.lock().remove(&node.mac) {
            let name = &node.facts.name;
            journal.say(
                NODES,
                &format!("node {name} is down (cause: unknown, note: server-detected disconnection)"),
            );
        }
        None
    }
}

/// Why a node is down, as scripts know it.
fn reason(cause: &Cause, is_virtual: bool) -> String {
    let (why, method) = match cause.why.as_str() {
        "hard reboot requested" => ("reboot requested", Some("vnode hard-reboot")),
        "bootup timeout" => ("bootup timeout", Some("vnode hard-reboot")),
        "" => ("unknown", None),
        why => (why, Some("soft-reboot")),
    };
    let method = method.filter(|method| is_virtual || *method == "soft-reboot");
    let by = match (&cause.by, why) {
        (By::Node, "unknown") => return " (cause: unknown)".into(),
        _ => method.map(|method| format!(", method: {method}")).unwrap_or_default(),
    };
    format!(" (cause: {why}{by})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_as_scripts_know_them() {
        let cases = [
            (Cause::user("ann", "reboot requested"), " (cause: reboot requested, method: soft-reboot)"),
            (
                Cause::user("ann", "hard reboot requested"),
                " (cause: reboot requested, method: vnode hard-reboot)",
            ),
            (Cause::user("ann", "image change"), " (cause: image change, method: soft-reboot)"),
            (Cause::server("bootup timeout"), " (cause: bootup timeout, method: vnode hard-reboot)"),
            (Cause::node(), " (cause: unknown)"),
        ];
        for (cause, expected) in cases {
            assert_eq!(reason(&cause, true), expected);
        }
        let acquired = reason(&Cause::user("ann", "acquire"), false);
        assert_eq!(acquired, " (cause: acquire, method: soft-reboot)");
    }
}
