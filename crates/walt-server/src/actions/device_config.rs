//! `walt device config`: settings of devices of any type, and the type of those of unknown type.

use crate::{
    actions::{device_list::AnyDevice, dhcp::say, node_actions::Request},
    base::{
        db::{DeviceRow, names_taken},
        failure::{Outcome, bad_request},
    },
};
use rusqlite::Connection;
use walt_core::{
    registration::clear_name,
    settings::{SettingError, TYPE},
};
use walt_types::{
    DeviceType, NodeName,
    node_set::{Candidate, Device},
};

impl Request<'_> {
    /// `walt device config`.
    pub(super) async fn config_devices(
        &self,
        set: &str,
        assignments: &[String],
        json: bool,
    ) -> Outcome<bool> {
        if assignments.is_empty() {
            return self.show_config("device", &self.devices(set)?, json).await;
        }
        let decision = self.app.base().decide().await;
        let devices = self.devices(set)?;
        let (types, others): (Vec<String>, Vec<String>) =
            assignments.iter().cloned().partition(|text| text.split('=').next() == Some(TYPE));
        types.iter().try_for_each(|text| check_type(text, &devices))?;
        let checked = self.check_settings(set, &others, &devices, &decision)?;
        let mut renamed = Vec::new();
        let waits = self.change_settings(&devices, checked, |tx| {
            if !types.is_empty() {
                renamed = set_switches(tx, &devices)?;
            }
            Ok(())
        })?;
        for (old, new) in renamed {
            let text = format!("Device {old} was renamed to {new} for clarity.");
            say(self.app, &text);
            self.events.out(text).await;
        }
        self.say_done(&devices, waits).await;
        Ok(true)
    }
}

/// Makes devices switches; old and new names of those that were renamed.
fn set_switches(c: &Connection, devices: &[AnyDevice]) -> anyhow::Result<Vec<(NodeName, NodeName)>> {
    let mut renamed = Vec::new();
    for device in devices {
        let AnyDevice::Other(row) = device else { continue };
        if row.device_type == DeviceType::Switch {
            continue;
        }
        let taken = names_taken(c)?;
        let is_taken = |name: &NodeName| taken.contains(&name.as_str().to_ascii_lowercase());
        let own = Some(row.told.host_name.as_str());
        let mut switch = DeviceRow { device_type: DeviceType::Switch, is_named: true, ..row.clone() };
        if let Some(name) = clear_name(&row.name, DeviceType::Switch, own, row.mac, is_taken) {
            renamed.push((row.name.clone(), name.clone()));
            switch.name = name;
        }
        switch.put(c)?;
    }
    Ok(renamed)
}

/// Refuses a type that not all of these devices can have.
fn check_type(text: &str, devices: &[AnyDevice]) -> Outcome<()> {
    let (_, value) = text.split_once('=').ok_or_else(|| bad_request(SettingError::Form(text.into())))?;
    if let Some(other) = devices.iter().find(|d| !matches!(d, AnyDevice::Other(_))) {
        let (name, what) = (other.name(), other.device_type().with_article());
        return Err(bad_request(format!(
            "'{TYPE}' applies to devices of unknown type only, and {name} is {what}"
        )));
    }
    match value {
        "switch" => Ok(()),
        _ => Err(bad_request(format!("'{value}' is not a value of '{TYPE}': it must be 'switch'"))),
    }
}
