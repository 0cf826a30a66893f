//! `walt device forget|restore`, `walt node forget`.

use crate::{
    actions::{
        device_list::{self, AnyDevice},
        node_actions::Request,
        ownership::ownership_warning,
    },
    base::{
        db::{DeviceRow, LeaseRow, NodeRow, TrashRow, blocking, names_taken},
        failure::{Outcome, not_found, refused, refused_hint},
        state::Decision,
        time::now,
    },
    services::{
        network,
        nodes::{reboot_command, trash},
    },
};
use std::{net::Ipv4Addr, time::Duration};
use walt_core::{default_image_of, life::Phase, ownership::Demand, registration::free_name, settings};
use walt_types::{DeviceType, NodeName, Span, node_set::SetError};

/// How long the end of a node's system is waited for after it acknowledged a reboot: what it writes to `/persist` later is
/// lost.
const LEAVE: Duration = Duration::from_secs(20);

impl Request<'_> {
    /// Reboots a node that runs, so that it writes its data to `/persist` and comes back as what it is then. One that
    /// does not answer is left alone: it reboots when it finds its root gone, or when somebody switches it off and on.
    async fn reboot_before(&self, node: &NodeRow) {
        let hub = self.app.nodes().hub();
        if !hub.is_linked(node.mac) {
            return;
        }
        self.events.busy(format!("Rebooting {}", node.facts.name)).await;
        let mut changed = hub.watch();
        let command = reboot_command(self.app.nodes(), node.mac).unwrap_or("REBOOT");
        if let Err(reason) = hub.command(node.mac, None, command).await {
            let text = format!(
                "{} did not reboot ({reason}). If it still runs in some minutes, switch it off and on.",
                node.facts.name
            );
            self.events.note(text).await;
            return;
        }
        let leaving = async {
            while hub.is_linked(node.mac) {
                // Invariant: the sender lives in the App that this borrows.
                changed.changed().await.expect("the hub outlives its watchers");
            }
        };
        if tokio::time::timeout(LEAVE, leaving).await.is_err() {
            tracing::info!(name = %node.facts.name, "the node takes its time to reboot");
        }
    }

    /// `walt device forget`; an unknown name is a note, since what is wanted holds already.
    pub(super) async fn forget_device(&self, name: &str, force: bool) -> Outcome<bool> {
        match device_list::find(self.app, name)? {
            None => {
                self.events.note(SetError::Unknown(name.to_owned()).to_string()).await;
                Ok(true)
            }
            Some(AnyDevice::Server(_)) => Err(refused("the server cannot be forgotten.")),
            Some(AnyDevice::Node(_)) => self.forget_node(name, force).await,
            Some(AnyDevice::Other(_)) => self.forget_other(name, force).await,
        }
    }

    /// A physical node.
    pub(super) async fn forget_node(&self, name: &str, force: bool) -> Outcome<bool> {
        let keep = span(self.app.config().limits.trash_keep);
        let node = {
            let _decision = self.app.base().decide().await;
            self.confirmed_forget(name, force, &keep)?
        };
        self.reboot_before(&node).await;
        let decision = self.app.base().decide().await;
        let node = self.same_node(&node, &decision)?;
        let name = &node.facts.name;
        trash::forget(self.app.nodes(), &node, self.caller, &decision).await?;
        blocking(|| self.app.outside().follow(Vec::new()))?;
        tracing::info!(%name, mac = %node.mac, user = %self.caller, "node forgotten");
        drop(decision);
        self.events.out("done.").await;
        self.events.note(format!("Tip: 'walt device restore {name}' brings it back, for {keep}.")).await;
        Ok(true)
    }

    /// The node to forget, once its user has agreed.
    fn confirmed_forget(&self, name: &str, force: bool, keep: &str) -> Outcome<NodeRow> {
        let node = self.members(name)?;
        let [node] = node.as_slice() else {
            return Err(refused("this command must target 1 node only."));
        };
        let name = &node.facts.name;
        if node.facts.is_virtual {
            return Err(refused(format!("{name} is a virtual node: use 'walt node remove'.")));
        }
        let mut warnings: Vec<String> =
            ownership_warning(Demand::OwnedOrFree, &[node], self.caller)?.into_iter().collect();
        if !force {
            warnings.push(format!(
                "This operation would remove node {name}{}. Its name, image, settings and /persist would be kept in the \
                 trash for {keep}, then lost.",
                if matches!(node.life.phase(now(), None), Phase::Booted(_)) { ", which is running" } else { "" },
            ));
        }
        let facts = format!("{} {}", node.mac, node.facts.image.full());
        self.app.confirmed(self.caller, &format!("forget {name}"), &facts, self.confirm, warnings)?;
        Ok(node.clone())
    }

    /// A node as it is now; refused if it was removed in the meantime, or given to somebody else.
    fn same_node(&self, node: &NodeRow, _decision: &Decision<'_>) -> Outcome<NodeRow> {
        let now = self.app.db().with(|c| NodeRow::by_mac(c, node.mac))?;
        let same = |n: &NodeRow| n.uuid == node.uuid && n.facts.image == node.facts.image;
        now.filter(same).ok_or_else(|| {
            refused(format!("{} was changed by somebody else in the meantime: try again", node.facts.name))
        })
    }

    /// A switch, or a device of unknown type.
    async fn forget_other(&self, name: &str, force: bool) -> Outcome<bool> {
        let mut dhcp = self.app.devices().dhcp().await?;
        let decision = self.app.base().decide().await;
        // It may have become a node in the meantime.
        let Some(device) = self.app.db().with(|c| DeviceRow::by_name(c, name))? else {
            return Err(refused(format!("{name} has changed in the meantime: try again")));
        };
        let DeviceRow { name, mac, .. } = &device;
        let warnings = if device.is_named && !force {
            let what = match device.device_type {
                DeviceType::Switch => "its name and its type, which users gave it",
                _ => "its name, which a user gave it",
            };
            vec![format!("This operation would remove device {name} from the record. What is lost: {what}.")]
        } else {
            Vec::new()
        };
        self.app.confirmed(
            self.caller,
            &format!("forget {name}"),
            &mac.to_string(),
            self.confirm,
            warnings,
        )?;
        self.app.devices().forget(*mac, &mut dhcp, &decision)?;
        blocking(|| network::neighbours(self.app.base()))?;
        blocking(|| self.app.outside().follow(Vec::new()))?;
        tracing::info!(%name, %mac, user = %self.caller, "device forgotten");
        self.events.out("done.").await;
        Ok(true)
    }

    /// `walt device restore`.
    pub(super) async fn restore_device(&self, name: &str) -> Outcome<bool> {
        let (row, present) = {
            let _decision = self.app.base().decide().await;
            self.confirmed_restore(name)?
        };
        if let Some(present) = &present {
            self.reboot_before(present).await;
        }
        let decision = self.app.base().decide().await;
        let present = present.map(|node| self.same_node(&node, &decision)).transpose()?;
        let (again, other) =
            self.app.db().with(|c| Ok((TrashRow::by_name(c, name)?, NodeRow::by_mac(c, row.mac)?)))?;
        if again.as_ref() != Some(&row) || other.is_some() != present.is_some() {
            return Err(refused(format!("{} has changed in the meantime: try again", row.name)));
        }
        let node = self.node_of(&row, present.as_ref(), &decision)?;
        if let Some(present) = &present {
            trash::forget(self.app.nodes(), present, self.caller, &decision).await?;
        }
        let exposes = settings::exposes(&row.settings);
        let taken = self.app.outside().taken(row.mac, &exposes)?;
        let mut restored = row.clone();
        if taken.is_some() {
            restored.settings.remove(settings::EXPOSE);
        }
        trash::restore(self.app.nodes(), &restored, &node, &decision)?;
        blocking(|| self.app.outside().follow(Vec::new()))?;
        tracing::info!(name = %node.facts.name, mac = %node.mac, user = %self.caller, "node restored");
        drop(decision);
        self.events.out(format!("Node {} was restored.", node.facts.name)).await;
        self.report_changes(&row, &node).await;
        if let Some(taken) = taken {
            self.events.note(format!("Its ports {exposes} are not exposed any more: {taken}.")).await;
        }
        Ok(true)
    }

    /// What is to be restored, and the node that its machine is now, once its user has agreed: that one goes to the trash.
    fn confirmed_restore(&self, name: &str) -> Outcome<(TrashRow, Option<NodeRow>)> {
        let row = self.app.db().with(|c| TrashRow::by_name(c, name))?.ok_or_else(|| {
            not_found(format!("No node with name '{name}' is in the trash."))
                .hint("see 'walt device show --trash'")
        })?;
        let present = self.app.db().with(|c| NodeRow::by_mac(c, row.mac))?;
        if let Some(node) = &present {
            let mut warnings: Vec<String> =
                ownership_warning(Demand::OwnedOrFree, &[node], self.caller)?.into_iter().collect();
            warnings.push(format!(
                "The machine is a node again, by the name {}. That node would go to the trash, and {} would take its place.",
                node.facts.name, row.name
            ));
            let facts = format!("{} {} {}", row.id, node.uuid, node.facts.image.full());
            self.app.confirmed(self.caller, &format!("restore {name}"), &facts, self.confirm, warnings)?;
        }
        Ok((row, present))
    }

    /// The node from the trash, with a name, an address and an image that it can have now.
    fn node_of(
        &self,
        row: &TrashRow,
        present: Option<&NodeRow>,
        _decision: &Decision<'_>,
    ) -> Outcome<NodeRow> {
        let mut node = trash::node_of(row);
        let (taken, nodes, leases, own) = self.app.db().with(|c| {
            Ok((names_taken(c)?, NodeRow::all(c)?, LeaseRow::all(c)?, DeviceRow::by_mac(c, row.mac)?))
        })?;
        // The names of what the machine is now do not count.
        let own_names = [present.map(|n| &n.facts.name), own.as_ref().map(|d| &d.name)];
        let is_taken = |name: &NodeName| {
            let own = own_names.iter().flatten().any(|n| n.as_str().eq_ignore_ascii_case(name.as_str()));
            !own && taken.contains(&name.as_str().to_ascii_lowercase())
        };
        node.facts.name = free_name(&row.name, is_taken);
        let net = self.app.config().network.walt_net.ip;
        let time = now() as u64;
        let is_free = |ip: &Ipv4Addr| {
            nodes.iter().all(|n| n.ip != *ip || n.mac == row.mac)
                && leases.iter().all(|l| l.ip != *ip || l.mac == row.mac || l.ends <= time)
        };
        let is_station = |ip: &Ipv4Addr| net.stations().any(|station| station == *ip);
        node.ip = Some(row.ip)
            .filter(is_station)
            .filter(is_free)
            .or_else(|| net.stations().find(is_free))
            .ok_or_else(|| refused(format!("no free address in {}", net.network_text())))?;
        if self.app.images().find(&node.facts.image).is_err() {
            node.facts.image = default_image_of(&row.model);
            self.app.images().find(&node.facts.image).map_err(|_| {
                refused_hint(
                    format!(
                        "neither the image {} of node {} nor the default image of its model '{}' is here",
                        row.image, row.name, row.model
                    ),
                    format!("get {} first: see 'walt help show unmanaged-devices'", node.facts.image),
                )
            })?;
        }
        Ok(node)
    }

    async fn report_changes(&self, row: &TrashRow, node: &NodeRow) {
        let mut notes = Vec::new();
        if row.name != node.facts.name {
            notes.push(format!("The name {} is taken: the node is called {}.", row.name, node.facts.name));
        }
        if row.ip != node.ip {
            notes.push(format!("Its address {} is taken: it has {} now.", row.ip, node.ip));
        }
        if row.image != node.facts.image {
            notes.push(format!("Its image {} is gone: it boots the default image of its model.", row.image));
        }
        for note in notes {
            self.events.note(note).await;
        }
    }
}

/// A time span for people, in the largest unit that fits.
fn span(span: Span) -> String {
    const UNITS: [(u64, &str); 4] = [(86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) = UNITS
        .into_iter()
        .find(|(unit, _)| span.0 >= *unit && span.0.is_multiple_of(*unit))
        .unwrap_or((1, "second"));
    let count = span.0 / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, text) in [
            (30 * 86400, "30 days"),
            (86400, "1 day"),
            (90 * 60, "90 minutes"),
            (3601, "3601 seconds"),
            (0, "0 seconds"),
        ] {
            assert_eq!(span(Span(seconds)), text);
        }
    }
}
