//! `walt node config`: settings of nodes.

use crate::{
    actions::{node_actions::Request, ownership::ownership_warning},
    base::{
        db::{LinkRow, NodeRow, blocking},
        failure::{Outcome, bad_request},
        state::Decision,
    },
    services::nodes::{links, secure, vnode},
};
use std::collections::BTreeMap;
use walt_core::{life::BootMode, ownership::Demand, sentences, settings};
use walt_types::{Disks, Networks};

impl Request<'_> {
    pub(super) async fn config(&self, set: &str, assignments: &[String]) -> Outcome<bool> {
        if assignments.is_empty() {
            return self.show_config(set).await;
        }
        let decision = self.app.base().decide().await;
        let nodes = self.members(set)?;
        let mut changes = Vec::new();
        for text in assignments {
            let (setting, value) = settings::parse(text).map_err(bad_request)?;
            for node in &nodes {
                settings::applies(setting, &node.facts).map_err(bad_request)?;
            }
            changes.push((setting.key, value));
        }
        if changes.contains(&(settings::BOOT_SECURE, "true")) {
            secure::check_loaders()?;
        }
        self.ask(set, assignments, &nodes, &changes, &decision)?;
        self.app.db().transaction(|tx| -> anyhow::Result<()> {
            for node in &nodes {
                if changes.iter().any(|(key, _)| *key == settings::NETWORKS) {
                    LinkRow::delete_of(tx, node.mac)?;
                }
                for (key, value) in &changes {
                    NodeRow::set_setting(tx, node.mac, key, value)?;
                }
            }
            Ok(())
        })?;
        self.app.nodes().hub().signal();
        let links_changed = self.apply_networks(&nodes, &changes)?;
        let at_once = changes
            .iter()
            .all(|(key, _)| *key == "boot.timeout" || (*key == settings::NETWORKS && links_changed));
        let rest = if at_once { "" } else { " Reboot node(s) to see new settings in effect." };
        self.events.out(format!("Done.{rest}")).await;
        Ok(true)
    }

    /// Gives the links of nodes the shapes of a changed setting `networks`. False if a node must be rebooted for it,
    /// since it runs with other networks.
    fn apply_networks(&self, nodes: &[NodeRow], changes: &[(&str, &str)]) -> Outcome<bool> {
        let Some((_, value)) = changes.iter().rfind(|(key, _)| *key == settings::NETWORKS) else {
            return Ok(false);
        };
        let wanted: Networks = value.parse().map_err(bad_request)?;
        let mut at_once = true;
        for node in nodes {
            let mut cards = links::cards_of_running(self.app.nodes(), node.mac)?;
            cards.sort();
            at_once &= cards.iter().eq(wanted.names());
            blocking(|| links::apply(self.app.nodes(), node.mac))?;
        }
        Ok(at_once)
    }

    /// One question for all: nodes of others, and data that is lost.
    fn ask(
        &self,
        set: &str,
        assignments: &[String],
        nodes: &[NodeRow],
        changes: &[(&str, &str)],
        _decision: &Decision<'_>,
    ) -> Outcome<()> {
        let rows: Vec<&NodeRow> = nodes.iter().collect();
        let mut warnings: Vec<String> =
            ownership_warning(Demand::OwnedOrFree, &rows, self.caller)?.into_iter().collect();
        // As in the database, the last value of a key counts.
        if let Some((_, value)) = changes.iter().rfind(|(key, _)| *key == settings::DISKS) {
            let wanted: Disks = value.parse().map_err(bad_request)?;
            vnode::check_disk_programs(&wanted)?;
            for node in nodes {
                let lost = walt_vnode::disks::lost(&self.app.nodes().disks_dir(node.mac), &wanted)
                    .map_err(anyhow::Error::from)?;
                if !lost.is_empty() {
                    warnings.push(lost_data(node.facts.name.as_str(), &lost));
                }
            }
        }
        if let Some((_, value)) = changes.iter().rfind(|(key, _)| *key == settings::BOOT_MODE) {
            let names: Vec<&str> = nodes.iter().map(|n| n.facts.name.as_str()).collect();
            warnings.extend(BootMode::from_name(value).and_then(|mode| disk_is_prepared(&names, mode)));
        }
        let facts: Vec<String> =
            nodes.iter().map(|n| format!("{}={}", n.mac, n.facts.image.full())).collect();
        let operation = format!("config {set} {}", assignments.join(" "));
        self.app.confirmed(self.caller, &operation, &facts.join(" "), self.confirm, warnings)
    }

    async fn show_config(&self, set: &str) -> Outcome<bool> {
        let nodes = self.members(set)?;
        let stored = self.app.db().with(NodeRow::all_settings)?;
        let mut groups: BTreeMap<Vec<(&str, String)>, Vec<&str>> = BTreeMap::new();
        let none = BTreeMap::new();
        for node in &nodes {
            let settings = stored.get(&node.mac).unwrap_or(&none);
            let effective = settings::effective(settings, node.facts.is_virtual).into_iter().collect();
            groups.entry(effective).or_default().push(node.facts.name.as_str());
        }
        self.print_config("node", &groups).await;
        Ok(true)
    }

    /// Prints configurations, each with the nodes or devices that have it.
    pub(super) async fn print_config(&self, noun: &str, groups: &BTreeMap<Vec<(&str, String)>, Vec<&str>>) {
        for (number, (config, names)) in groups.iter().enumerate() {
            if number > 0 {
                self.events.out("").await;
            }
            let subject = sentences::items(noun, names);
            let have = sentences::verb(names.len(), "has", "have");
            if config.is_empty() {
                self.events.out(format!("{subject} {have} no config option available.")).await;
                continue;
            }
            self.events.out(format!("{subject} {have} the following config applied:")).await;
            for (key, value) in config {
                self.events.out(format!("{key}={value}")).await;
            }
        }
    }
}

/// The warning before a node may write to a disk that it was not given.
fn disk_is_prepared(names: &[&str], mode: BootMode) -> Option<String> {
    let erased = match mode {
        BootMode::Network => return None,
        BootMode::HybridVolatile => {
            "\nIf that disk was used in mode hybrid-persistent, the changes kept there are erased."
        }
        BootMode::HybridPersistent => "",
    };
    let use_it = sentences::verb(names.len(), "uses", "use");
    Some(format!(
        "Warning: {} {use_it} the first disk with a directory walt_hybrid, from the next boot on.\nWithout such a disk, a \
         file system is made on the first internal disk that is empty: no partitions, nothing but zeros at its start \
         and end.\nA disk with anything else on it is not touched.{erased}",
        sentences::items("node", names)
    ))
}

/// The warning before disks are made anew or removed.
fn lost_data(node: &str, disks: &[String]) -> String {
    let (them, have) = (sentences::items("disk", disks), sentences::verb(disks.len(), "its", "their"));
    let lose = sentences::verb(disks.len(), "loses", "lose");
    format!("Warning: {them} of node {node} {lose} all {have} data at the next reboot.")
}
