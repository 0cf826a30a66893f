//! `walt node acquire --queue`: waits until nodes are available, in the order of [`walt_core::node_queue`].

use crate::{
    actions::{
        node_actions::Request,
        node_leases::{Terms, tenure, until},
        ownership::standing,
        reboot::reboot_nodes,
    },
    base::{
        db::{NodeRow, NodeWaitRow},
        failure::{Outcome, not_found, refused, refused_hint},
        time::now,
    },
    services::nodes::queue::{Place, QUEUE_MAX},
};
use std::{collections::BTreeSet, time::Duration};
use walt_core::{
    boots::Cause,
    node_queue::{self, Wait},
    sentences,
};
use walt_types::{ClientTag, Mac};

/// Longest time between two looks at the nodes: an owner can also change by what does not wake the queue.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

impl Request<'_> {
    /// Acquires nodes when it is the caller's turn.
    pub(super) async fn acquire_in_turn(&self, set: &str, terms: &Terms, tag: &ClientTag) -> Outcome<bool> {
        if let Some(nodes) = self.granted_before(set, tag).await? {
            let names: Vec<&str> = nodes.iter().map(|n| n.facts.name.as_str()).collect();
            let belong = sentences::verb(names.len(), "belongs", "belong");
            self.events.out(format!("{} {belong} to you now.", sentences::items("node", &names))).await;
            let cause = Cause::user(self.caller.as_str(), "acquire");
            return reboot_nodes(self.app, nodes, false, &cause, self.events).await;
        }
        let queue = self.app.nodes().queue();
        let place = {
            let decision = self.app.base().decide().await;
            let nodes = self.members(set)?;
            self.refuse_own(&nodes)?;
            let macs: BTreeSet<Mac> = nodes.iter().map(|n| n.mac).collect();
            let place = queue.enter(self.app.db(), (self.caller, tag), macs, &decision)?;
            place.ok_or_else(|| {
                refused_hint(format!("the queue for nodes is full ({QUEUE_MAX} places)."), "try again later")
            })?
        };
        let mut changed = queue.watch();
        let mut told = String::new();
        loop {
            changed.mark_unchanged();
            let decision = self.app.base().decide().await;
            if place.is_lost() {
                return Err(refused(format!(
                    "another program of yours has taken over the place '{tag}' in the queue."
                )));
            }
            let nodes = self.waited_for(&place)?;
            let (waits, now) = (queue.waits(), now());
            let is_available =
                |mac| nodes.iter().any(|n| n.mac == mac && standing(n, Vec::new(), now).is_available());
            if node_queue::is_next(&waits, &place.wait, is_available) {
                return self.acquire_nodes(decision, nodes, terms, Some(place)).await;
            }
            drop(decision);
            self.refuse_own(&nodes)?;
            let text = situation(&nodes, &waits, &place.wait, now);
            if text != told {
                self.events.note(text.clone()).await;
                let names: Vec<&str> = nodes.iter().map(|n| n.facts.name.as_str()).collect();
                self.events.busy(format!("Waiting for {}", sentences::items("node", &names))).await;
                told = text;
            }
            let ends = nodes.iter().filter_map(|n| n.lease.as_ref()?.end()).filter(|end| *end > now);
            let pause = ends.map(|end| until(end, LOOK_INTERVAL)).min().unwrap_or(LOOK_INTERVAL);
            // Invariant: the sender lives in the App that we borrow.
            let _ = tokio::time::timeout(pause, changed.changed()).await;
        }
    }

    /// Refuses nodes that belong to the caller without an end: waiting for oneself would never end.
    fn refuse_own(&self, nodes: &[NodeRow]) -> Outcome<()> {
        let own = |n: &&NodeRow| n.facts.owner() == self.caller.as_str() && n.lease.is_none();
        let names: Vec<&str> = nodes.iter().filter(own).map(|n| n.facts.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let belong = sentences::verb(names.len(), "belongs", "belong");
        Err(refused_hint(
            format!("{} already {belong} to you.", sentences::items("node", &names)),
            "see 'walt help show node-ownership'",
        ))
    }

    /// The nodes that a place is for, as they are now.
    fn waited_for(&self, place: &Place) -> Outcome<Vec<NodeRow>> {
        let rows = self.app.db().with(NodeRow::all)?;
        let nodes: Vec<NodeRow> =
            rows.into_iter().filter(|row| place.wait.nodes.contains(&row.mac)).collect();
        if nodes.len() < place.wait.nodes.len() {
            return Err(not_found("a node was removed while waiting for it"));
        }
        Ok(nodes)
    }

    /// What the same place has got already: the server died when its client was to be told.
    async fn granted_before(&self, set: &str, tag: &ClientTag) -> Outcome<Option<Vec<NodeRow>>> {
        let _decision = self.app.base().decide().await;
        let Some(granted) = self.app.db().with(|c| NodeWaitRow::granted(c, self.caller, tag))? else {
            return Ok(None);
        };
        let nodes = self.members(set)?;
        let same = nodes.iter().map(|n| n.mac).collect::<BTreeSet<_>>() == granted;
        let own = nodes.iter().all(|n| n.facts.owner() == self.caller.as_str());
        Ok((same && own).then_some(nodes))
    }
}

/// What somebody waits for.
fn situation(nodes: &[NodeRow], waits: &[Wait], wait: &Wait, now: f64) -> String {
    let names: Vec<&str> = nodes.iter().map(|n| n.facts.name.as_str()).collect();
    let mut ahead: Vec<&str> = node_queue::ahead(waits, wait).map(|w| w.user.as_str()).collect();
    let number = ahead.len() + 1;
    ahead.dedup();
    let mut text = format!("You are number {number} in the queue for {}.", sentences::items("node", &names));
    if let Some(users) = sentences::and(&ahead) {
        text += &format!(" Before you: {users}.");
    }
    for node in nodes.iter().filter(|n| !standing(n, Vec::new(), now).is_available()) {
        text += &format!("\nNode {} {}", node.facts.name, tenure(node, now));
    }
    text
}
