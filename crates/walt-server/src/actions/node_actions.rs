//! Actions on nodes: dispatch; remove, rename, reboot, wait. `forget` is in [`super::device_forget`].
//!
//! Every change is decided and made with a [`Decision`] and in one transaction, so that what a user confirmed is what
//! happens.

use crate::{
    actions::{
        app::App,
        audit,
        node_leases::Terms,
        node_save::{self, Save},
        ownership::{check_ownership, nodes_of, one_node, owned_node, ownership_warning},
        publish_ref::{Target, overwrite_warning},
        reboot::{reboot_nodes, wait_booted},
    },
    base::{
        db::{NodeRow, blocking, names_taken},
        events::Events,
        failure::{Outcome, bad_request, refused, refused_hint},
        state::Decision,
    },
};
use std::{sync::Arc, time::Duration};
use walt_api::{NodeAction, resource::ItemResult};
use walt_core::{boots::Cause, ownership::Demand};
use walt_types::{Mac, NodeName, UserName};

/// Carries out an action; false if part of it failed (the events say why).
pub async fn act(
    app: &Arc<App>,
    caller: &UserName,
    action: NodeAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let deed = audit::of_node(app, caller, &action);
    audit::said(app, deed, carry_out(app, caller, action, confirm, events)).await
}

async fn carry_out(
    app: &Arc<App>,
    caller: &UserName,
    action: NodeAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let request = Request { app, caller, confirm: confirm.as_deref(), events };
    match action {
        NodeAction::Create { name, image, force } => request.create(&name, image.as_deref(), force).await,
        NodeAction::Remove { name } => request.remove(&name).await,
        NodeAction::Forget { name } => request.forget_node(&name, false).await,
        NodeAction::Rename { name, new_name } => request.rename(&name, &new_name).await,
        NodeAction::Boot { nodes, image } => request.boot(&nodes, &image).await,
        NodeAction::Acquire { nodes, lease, hold, queue } => {
            let terms = Terms::new(lease, hold)?;
            match queue {
                None => request.acquire(&nodes, &terms).await,
                Some(tag) => request.acquire_in_turn(&nodes, &terms, &tag).await,
            }
        }
        NodeAction::Lease { nodes, change, hold } => request.lease(&nodes, change, hold).await,
        NodeAction::Beat { hold } => request.beat(&hold).await,
        NodeAction::EndHold { hold } => request.end_hold(&hold).await,
        NodeAction::Release { nodes } => request.release(&nodes).await,
        NodeAction::Reboot { nodes, hard } => request.reboot(&nodes, hard).await,
        NodeAction::Wait { nodes, timeout } => request.wait(&nodes, timeout).await,
        NodeAction::Blink { node, seconds } => request.blink(&node, seconds).await,
        NodeAction::Save { node, image, dry_run } => request.save(&node, &image, dry_run).await,
        NodeAction::Link { nodes, network, changes, seconds } => {
            request.link(&nodes, &network, &changes, seconds).await
        }
        NodeAction::Config { nodes, settings, json } => request.config(&nodes, &settings, json).await,
    }
}

/// One action on nodes and who asks for it; the files `node_*.rs` carry out some of them.
pub(super) struct Request<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) caller: &'a UserName,
    pub(super) confirm: Option<&'a str>,
    pub(super) events: &'a Events,
}

impl Request<'_> {
    /// Resolves a set of nodes and checks their ownership.
    pub(super) fn nodes(
        &self,
        set: &str,
        demand: Demand,
        operation: &str,
        _decision: &Decision<'_>,
    ) -> Outcome<Vec<NodeRow>> {
        let chosen = self.members(set)?;
        let nodes: Vec<&NodeRow> = chosen.iter().collect();
        check_ownership(self.app, self.caller, demand, &nodes, operation, self.confirm)?;
        Ok(chosen)
    }

    /// Resolves a set of nodes, for operations that everybody may do.
    pub(super) fn members(&self, set: &str) -> Outcome<Vec<NodeRow>> {
        nodes_of(self.app, self.caller, set)
    }

    pub(super) fn name_is_free(&self, name: &NodeName, _decision: &Decision<'_>) -> Outcome<()> {
        let taken = self.app.db().with(names_taken)?;
        match taken.contains(&name.as_str().to_ascii_lowercase()) {
            false => Ok(()),
            true => Err(refused(format!("Failed: a device with name '{name}' already exists."))),
        }
    }

    async fn remove(&self, name: &str) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let operation = format!("remove {name}");
        let node = owned_node(self.app, self.caller, name, Demand::OwnedOrFree, &operation, self.confirm)?;
        if !node.facts.is_virtual {
            let text = format!("FAILED: {} is a real node (not virtual).", node.facts.name);
            return Err(refused_hint(text, "use 'walt node forget'"));
        }
        self.app.nodes().forget(&node, &decision).await?;
        blocking(|| self.app.logs().forget(node.mac));
        blocking(|| self.app.outside().follow(Vec::new()))?;
        Ok(true)
    }

    pub(super) async fn rename(&self, name: &str, new_name: &str) -> Outcome<bool> {
        let new_name: NodeName = new_name.parse().map_err(|e| bad_request(format!("{e}.")))?;
        let decision = self.app.base().decide().await;
        let operation = format!("rename {name} {new_name}");
        let node = owned_node(self.app, self.caller, name, Demand::OwnedOrFree, &operation, self.confirm)?;
        let only_case = node.facts.name.as_str().eq_ignore_ascii_case(new_name.as_str());
        if !only_case {
            self.name_is_free(&new_name, &decision)?;
        }
        self.app.db().with(|c| NodeRow::set_name(c, node.mac, &new_name))?;
        self.app.nodes().hub().signal();
        Ok(true)
    }

    async fn reboot(&self, set: &str, hard: bool) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::OwnedOrFree, &format!("reboot {set}"), &decision)?;
        drop(decision);
        let why = if hard { "hard reboot requested" } else { "reboot requested" };
        reboot_nodes(self.app, nodes, hard, &Cause::user(self.caller.as_str(), why), self.events).await
    }

    async fn wait(&self, set: &str, timeout: Option<u64>) -> Outcome<bool> {
        let nodes = self.members(set)?;
        let macs: Vec<Mac> = nodes.iter().map(|n| n.mac).collect();
        let waiting = wait_booted(self.app, &macs, Some(self.events));
        let times = match timeout {
            None => waiting.await?,
            Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), waiting).await {
                Ok(times) => times?,
                Err(_) => {
                    self.events.note("Timeout was reached.").await;
                    return Ok(false);
                }
            },
        };
        for (name, seconds) in times {
            self.events
                .item(ItemResult::of_node(name.to_string(), Ok(format!("booted in {seconds:.1} s"))))
                .await;
            self.events.out(format!("Node {name}: booted in {seconds:.1} s.")).await;
        }
        Ok(true)
    }

    async fn save(&self, node: &str, image: &str, dry_run: bool) -> Outcome<bool> {
        let save = {
            let decision = self.app.base().decide().await;
            let row = one_node(self.app, self.caller, node)?;
            let target = Target::plan(self.app, self.caller, image, &decision)?;
            // One question for both: the node belongs to somebody else, and an image is overwritten.
            let ownership = ownership_warning(Demand::OwnedOrFree, &[&row], self.caller)?;
            let mut warnings: Vec<String> = ownership.into_iter().collect();
            if target.present.is_some() && !dry_run {
                warnings.push(overwrite_warning(target.users.len()));
            }
            let present = target.present.as_ref().map(|p| p.image_id.to_string()).unwrap_or_default();
            let facts = format!("{} {} {present}", row.mac, row.facts.image.full());
            let operation = format!("save {node} {image}");
            self.app.confirmed(self.caller, &operation, &facts, self.confirm, warnings)?;
            Save { node: row, target, dry_run }
        };
        node_save::save(self.app, self.caller, save, self.events).await
    }
}

pub(super) fn names_of<'a>(rows: &[&'a NodeRow]) -> Vec<&'a str> {
    rows.iter().map(|r| r.facts.name.as_str()).collect()
}
