//! Settings: `walt node config`, `walt device config`. Everything is checked before anything changes.

use crate::{
    actions::{
        device_list::{AnyDevice, holder},
        node_actions::Request,
        ownership::ownership_warning,
    },
    base::{
        db::{self, DeviceRow, LinkRow, NodeRow, Settings, blocking},
        failure::{Failure, Outcome, bad_request, refused},
        state::Decision,
    },
    services::{
        nodes::{self, links, secure, vnode},
        outside::{self, listen::Bound},
    },
};
use rusqlite::Connection;
use serde_json::json;
use std::collections::BTreeMap;
use walt_core::{
    life::BootMode,
    ownership::Demand,
    sentences,
    settings::{self, Change, Effect, Holder},
};
use walt_types::{Disks, Mac, node_set::Candidate};

/// What is to be said of changes that are not in effect.
const REBOOT: &str = " to see new settings in effect.";

/// Checked changes, which nothing but the disk can stop any more.
pub(super) struct Checked {
    changes: Vec<Change>,
    bound: Vec<Bound>,
}

impl Request<'_> {
    /// `walt node config`.
    pub(super) async fn config(&self, set: &str, assignments: &[String], json: bool) -> Outcome<bool> {
        if assignments.is_empty() {
            let nodes: Vec<AnyDevice> =
                self.members(set)?.into_iter().map(|row| AnyDevice::Node(Box::new(row))).collect();
            return self.show_config("node", &nodes, json).await;
        }
        let decision = self.app.base().decide().await;
        let nodes: Vec<AnyDevice> =
            self.members(set)?.into_iter().map(|row| AnyDevice::Node(Box::new(row))).collect();
        let checked = self.check_settings(set, assignments, &nodes, &decision)?;
        let waits = self.change_settings(&nodes, checked, |_| Ok(()))?;
        self.say_done(&nodes, waits).await;
        Ok(true)
    }

    /// Checks changes of all these devices, and asks what is to be asked.
    pub(super) fn check_settings(
        &self,
        set: &str,
        assignments: &[String],
        devices: &[AnyDevice],
        decision: &Decision<'_>,
    ) -> Outcome<Checked> {
        let holders: Vec<Holder<'_>> = devices.iter().map(|device| holder(self.app, device)).collect();
        let changes = settings::changes(assignments, &holders).map_err(bad_request)?;
        let nodes: Vec<&NodeRow> = devices.iter().filter_map(AnyDevice::node).collect();
        let mut warnings: Vec<String> =
            ownership_warning(Demand::OwnedOrFree, &nodes, self.caller)?.into_iter().collect();
        for change in &changes {
            warnings.extend(self.warnings(change, &nodes, decision)?);
        }
        // Bound before the question: it is not asked for what cannot be.
        let bound = self.bind(&changes, devices)?;
        let facts: Vec<String> =
            nodes.iter().map(|n| format!("{}={}", n.mac, n.facts.image.full())).collect();
        let operation = format!("config {set} {}", assignments.join(" "));
        self.app.confirmed(self.caller, &operation, &facts.join(" "), self.confirm, warnings)?;
        Ok(Checked { changes, bound })
    }

    /// What is to be asked before a change: data may be lost.
    fn warnings(
        &self,
        change: &Change,
        nodes: &[&NodeRow],
        _decision: &Decision<'_>,
    ) -> Outcome<Vec<String>> {
        let mut warnings = Vec::new();
        match change.setting.key {
            settings::DISKS => {
                let wanted: Disks = change.effective().parse().map_err(bad_request)?;
                vnode::check_disk_programs(&wanted)?;
                for node in nodes {
                    let lost = walt_vnode::disks::lost(&self.app.nodes().disks_dir(node.mac), &wanted)
                        .map_err(anyhow::Error::from)?;
                    if !lost.is_empty() {
                        warnings.push(lost_data(node.facts.name.as_str(), &lost));
                    }
                }
            }
            settings::BOOT_MODE => {
                let names: Vec<&str> = nodes.iter().map(|n| n.facts.name.as_str()).collect();
                let mode = BootMode::from_name(change.effective());
                warnings.extend(mode.and_then(|mode| disk_is_prepared(&names, mode)));
            }
            settings::BOOT_SECURE if change.effective() == "true" => secure::check_loaders()?,
            _ => {}
        }
        Ok(warnings)
    }

    /// Binds the ports that a device is to have exposed.
    fn bind(&self, changes: &[Change], devices: &[AnyDevice]) -> Outcome<Vec<Bound>> {
        let wanted = changes.iter().find(|change| change.setting.key == settings::EXPOSE);
        let (Some(change), [device]) = (wanted, devices) else { return Ok(Vec::new()) };
        let exposes = change.effective().parse().map_err(bad_request)?;
        let Some(mac) = device.mac() else { return Ok(Vec::new()) };
        blocking(|| self.app.outside().bind(mac, &exposes)).map_err(|e| match e {
            outside::Error::Other(e) => Failure::from(e),
            why => refused(why).hint("nothing was changed; see 'walt help show device-expose'"),
        })
    }

    /// Makes the changes, together with what `more` does, in one transaction; whether one of them waits for a boot.
    pub(super) fn change_settings(
        &self,
        devices: &[AnyDevice],
        Checked { changes, bound }: Checked,
        more: impl FnOnce(&Connection) -> anyhow::Result<()>,
    ) -> Outcome<bool> {
        let waits = self.app.db().transaction(|tx| -> anyhow::Result<bool> {
            let mut waits = false;
            for device in devices {
                waits |= match device {
                    AnyDevice::Node(row) => change_node(tx, row, &changes)?,
                    AnyDevice::Other(row) => change_device(tx, row, &changes)?,
                    AnyDevice::Server(_) => false,
                };
            }
            more(tx)?;
            Ok(waits)
        })?;
        blocking(|| self.app.outside().follow(bound))?;
        if changes.iter().any(|change| change.setting.key == settings::NETWORKS) {
            for node in devices.iter().filter_map(AnyDevice::node) {
                blocking(|| links::apply(self.app.nodes().links(), node.mac))?;
            }
        }
        self.app.nodes().hub().signal();
        Ok(waits)
    }

    /// Prints the result of a change.
    pub(super) async fn say_done(&self, devices: &[AnyDevice], waits: bool) {
        let all_nodes = devices.iter().all(|device| device.node().is_some());
        let rest = match (waits, all_nodes) {
            (false, _) => String::new(),
            (true, true) => format!(" Reboot node(s){REBOOT}"),
            (true, false) => format!(" Reboot device(s){REBOOT}"),
        };
        self.events.out(format!("Done.{rest}")).await;
    }

    /// Prints the settings of devices, grouped by what they are, or as JSON.
    pub(super) async fn show_config(&self, noun: &str, devices: &[AnyDevice], json: bool) -> Outcome<bool> {
        let (of_nodes, of_devices, booted_with) = self
            .app
            .db()
            .with(|c| Ok((NodeRow::all_settings(c)?, db::of_devices(c)?, db::booted_with(c)?)))?;
        let of = |all: &BTreeMap<Mac, Settings>, mac: Mac| all.get(&mac).cloned().unwrap_or_default();
        let mut groups: BTreeMap<Vec<(&str, String)>, Vec<&str>> = BTreeMap::new();
        let mut list = Vec::new();
        for device in devices {
            let (config, waiting) = match device {
                AnyDevice::Node(row) => {
                    let stored = of(&of_nodes, row.mac);
                    let waiting = nodes::waiting_for_boot(row, &stored, &of(&booted_with, row.mac));
                    (settings::effective_of(&stored, holder(self.app, device)), waiting)
                }
                AnyDevice::Other(row) => {
                    let stored = of(&of_devices, row.mac);
                    let mut config = settings::effective_of(&stored, holder(self.app, device));
                    config.insert(settings::TYPE, row.device_type.to_string());
                    (config, Vec::new())
                }
                AnyDevice::Server(_) => (BTreeMap::new(), Vec::new()),
            };
            let typed: BTreeMap<&str, _> =
                config.iter().map(|(key, value)| (*key, nodes::typed(value))).collect();
            list.push(json!({"name": device.name(), "config": typed, "reboot_needed": waiting}));
            groups.entry(config.into_iter().collect()).or_default().push(device.name());
        }
        if json {
            self.events.out(format!("{:#}", json!({ format!("{noun}s"): list }))).await;
            return Ok(true);
        }
        self.print_config(noun, &groups).await;
        Ok(true)
    }

    /// Prints configurations, each with the nodes or devices that have it.
    async fn print_config(&self, noun: &str, groups: &BTreeMap<Vec<(&str, String)>, Vec<&str>>) {
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

/// Changes the settings of a node; whether one of them waits for its next boot.
fn change_node(c: &Connection, row: &NodeRow, changes: &[Change]) -> anyhow::Result<bool> {
    let before = NodeRow::settings(c, row.mac)?;
    let effective = settings::effective(&before, row.facts.is_virtual);
    let mut waits = false;
    for change in changes {
        let (key, value) = (change.setting.key, change.value.as_deref());
        if change.setting.effect != Effect::AtOnce
            && let Some(old) = effective.get(key)
        {
            if row.life.started.is_some() {
                db::keep_booted_with(c, row.mac, key, old)?;
            } else {
                // It may be starting this moment, with the settings as they were.
                waits |= old != change.effective();
            }
        }
        if key == settings::NETWORKS {
            // What links have for a while ends with a new configuration.
            LinkRow::delete_of(c, row.mac)?;
        }
        NodeRow::put_setting(c, row.mac, key, value)?;
    }
    let booted_with = db::booted_with(c)?.remove(&row.mac).unwrap_or_default();
    let waiting = nodes::waiting_for_boot(row, &NodeRow::settings(c, row.mac)?, &booted_with);
    Ok(waits || changes.iter().any(|change| waiting.contains(&change.setting.key)))
}

/// Changes the settings of a device that is not a node; whether one of them waits for its next boot. When it last booted
/// is not known.
fn change_device(c: &Connection, row: &DeviceRow, changes: &[Change]) -> anyhow::Result<bool> {
    let before = db::of_devices(c)?.remove(&row.mac).unwrap_or_default();
    let mut waits = false;
    for change in changes {
        let key = change.setting.key;
        let old = before.get(key).map_or(change.setting.default, String::as_str);
        waits |= change.setting.effect != Effect::AtOnce && old != change.effective();
        db::set_of_device(c, row.mac, key, change.value.as_deref())?;
    }
    Ok(waits)
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
