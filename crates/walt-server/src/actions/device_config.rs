//! `walt device config`: settings of devices of any type. Those of nodes are what `walt node config` has.

use crate::{
    actions::{device_list::AnyDevice, node_actions::Request},
    base::{
        db::{DeviceRow, NodeRow, names_taken},
        failure::{Outcome, bad_request},
        state::Decision,
    },
};
use std::collections::BTreeMap;
use walt_core::{
    registration::clear_name,
    settings::{self, SettingError},
};
use walt_types::{
    DeviceType, NodeName,
    node_set::{Candidate, Device},
};

/// The setting of devices that are not nodes.
const TYPE: &str = "type";

impl Request<'_> {
    pub(super) async fn config_devices(&self, set: &str, assignments: &[String]) -> Outcome<bool> {
        let devices = self.devices(set)?;
        if assignments.is_empty() {
            return self.show_devices(&devices).await;
        }
        if devices.iter().all(|device| matches!(device, AnyDevice::Node(_))) {
            return self.config(&names(&devices), assignments).await;
        }
        let decision = self.app.base().decide().await;
        let devices = self.devices(set)?;
        for text in assignments {
            check(text, &devices)?;
        }
        let renamed = self.set_switches(&devices, &decision)?;
        for (old, new) in renamed {
            let text = format!("Device {old} was renamed to {new} for clarity.");
            tracing::info!("{text}");
            self.events.out(text).await;
        }
        self.events.out("Done.").await;
        Ok(true)
    }

    /// Makes devices switches; old and new names of those that were renamed.
    fn set_switches(
        &self,
        devices: &[AnyDevice],
        _decision: &Decision<'_>,
    ) -> Outcome<Vec<(NodeName, NodeName)>> {
        let mut renamed = Vec::new();
        self.app.db().transaction(|tx| -> anyhow::Result<()> {
            for device in devices {
                let AnyDevice::Other(row) = device else { continue };
                if row.device_type == DeviceType::Switch {
                    continue;
                }
                let taken = names_taken(tx)?;
                let is_taken = |name: &NodeName| taken.contains(&name.as_str().to_ascii_lowercase());
                let own = Some(row.told.host_name.as_str());
                let mut switch = DeviceRow { device_type: DeviceType::Switch, is_named: true, ..row.clone() };
                if let Some(name) = clear_name(&row.name, DeviceType::Switch, own, row.mac, is_taken) {
                    renamed.push((row.name.clone(), name.clone()));
                    switch.name = name;
                }
                switch.put(tx)?;
            }
            Ok(())
        })?;
        Ok(renamed)
    }

    async fn show_devices(&self, devices: &[AnyDevice]) -> Outcome<bool> {
        let stored = self.app.db().with(NodeRow::all_settings)?;
        let none = BTreeMap::new();
        let mut groups: BTreeMap<Vec<(&str, String)>, Vec<&str>> = BTreeMap::new();
        for device in devices {
            let config = match device {
                AnyDevice::Node(row) => {
                    settings::effective(stored.get(&row.mac).unwrap_or(&none), row.facts.is_virtual)
                        .into_iter()
                        .collect()
                }
                AnyDevice::Other(row) => vec![(TYPE, row.device_type.to_string())],
                AnyDevice::Server(_) => Vec::new(),
            };
            groups.entry(config).or_default().push(device.name());
        }
        self.print_config("device", &groups).await;
        Ok(true)
    }
}

fn names(devices: &[AnyDevice]) -> String {
    devices.iter().map(Candidate::name).collect::<Vec<_>>().join(",")
}

/// Refuses what is not a setting of all these devices, of which one at least is not a node.
fn check(text: &str, devices: &[AnyDevice]) -> Outcome<()> {
    let (key, value) = text.split_once('=').ok_or_else(|| bad_request(SettingError::Form(text.into())))?;
    let article = |device: &AnyDevice| device.device_type().with_article();
    if key != TYPE {
        settings::parse(text).map_err(bad_request)?;
        // Invariant: the caller has found one.
        let other = devices.iter().find(|d| !matches!(d, AnyDevice::Node(_))).expect("not a node");
        let (name, what) = (other.name(), article(other));
        return Err(bad_request(format!("'{key}' applies to nodes only, and {name} is {what}")));
    }
    if let Some(other) = devices.iter().find(|d| !matches!(d, AnyDevice::Other(_))) {
        let (name, what) = (other.name(), article(other));
        return Err(bad_request(format!(
            "'{TYPE}' applies to devices of unknown type only, and {name} is {what}"
        )));
    }
    match value {
        "switch" => Ok(()),
        _ => Err(bad_request(format!("'{value}' is not a value of '{TYPE}': it must be 'switch'"))),
    }
}
