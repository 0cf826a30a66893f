//! Settings: the column `conf` of devices, a JSON object.

use super::{Becomes, Fate, NewSetting, Work, mac_of};
use crate::source::Row;
use serde_json::Value;
use std::collections::BTreeMap;
use walt_core::settings::{self, Change, EXPOSE, Holder, NETSETUP};
use walt_types::{DeviceType, Mac};

/// Where items of this module are in a plan, and rows that are kept.
const TABLE: &str = "settings";
/// Settings of switches, for which this version has no place yet.
const OF_SWITCHES: [&str; 4] = ["lldp.explore", "poe.reboots", "snmp.community", "snmp.version"];
/// A setting whose value is not printed.
const SECRET: &str = "snmp.community";

/// What becomes of a setting.
type Verdict = (Fate, Option<String>);

impl Work<'_> {
    pub(super) fn settings(&mut self) {
        self.exposed_here();
        for row in self.source.rows("devices") {
            let Some(text) = row.get("conf") else { continue };
            let name = row.get("name").unwrap_or(row.text("mac"));
            let Ok(mac) = mac_of(row, "mac") else { continue };
            let values: BTreeMap<String, Value> = match serde_json::from_str(text) {
                Ok(values) => values,
                Err(e) => {
                    let why = format!("its column conf is not a JSON object: {e}");
                    self.item(TABLE, name, Fate::Cannot, Some(why));
                    continue;
                }
            };
            for (key, value) in values {
                let (fate, note) = self.setting(mac, &key, &value);
                let shown = if key == SECRET { "…".to_owned() } else { as_text(&key, &value) };
                self.item(TABLE, format!("{name} {key}={shown}"), fate, note);
            }
        }
    }

    fn setting(&mut self, mac: Mac, key: &str, value: &Value) -> Verdict {
        let Some(becomes) = self.fates.get(&mac).cloned() else {
            return (Fate::Cannot, Some("the server has no settings".to_owned()));
        };
        // Of a device that does not come, only the settings of a node that is here can be compared.
        let is_here = becomes.facts.is_some();
        if becomes.fate == Fate::Cannot || becomes.fate == Fate::Conflict && !is_here {
            return (becomes.fate, Some("its device does not come".to_owned()));
        }
        if OF_SWITCHES.contains(&key) && becomes.device_type == DeviceType::Switch {
            let fields = [("mac", mac.to_string()), ("key", key.to_owned()), ("value", as_text(key, value))];
            let fate = self.keep(TABLE, &Row::of(fields));
            return (fate, Some("this version does not manage switches yet".to_owned()));
        }
        let change = match read(&becomes, self.existing, key, value) {
            Ok(change) => change,
            Err(why) => return (Fate::Cannot, Some(why)),
        };
        match becomes.fate {
            Fate::Comes => self.new_setting(mac, &becomes, change),
            _ => self.known_setting(mac, &change),
        }
    }

    fn new_setting(&mut self, mac: Mac, becomes: &Becomes, change: Change) -> Verdict {
        let key = change.setting.key;
        if key == EXPOSE
            && let Some(why) = self.expose(&becomes.name, change.effective())
        {
            return (Fate::Conflict, Some(why));
        }
        if let Some(value) = change.value.filter(|value| value != change.setting.default) {
            self.plan.settings.push(NewSetting { mac, key, value });
        }
        (Fate::Comes, None)
    }

    /// A setting of a device that is here.
    fn known_setting(&self, mac: Mac, change: &Change) -> Verdict {
        let node = self.existing.nodes.get(&mac).map(|node| &node.settings);
        let device = self.existing.devices.get(&mac).map(|device| &device.settings);
        let Some(stored) = node.or(device) else {
            return (Fate::Conflict, Some("its device does not come".to_owned()));
        };
        let own = settings::value(stored, change.setting.key);
        if own == change.effective() {
            return (Fate::Here, None);
        }
        (Fate::Conflict, Some(format!("it is '{own}' here, and is left as it is")))
    }

    /// Ports of the server that devices which are here expose.
    fn exposed_here(&mut self) {
        let nodes = self.existing.nodes.values().map(|n| (n.facts.name.to_string(), &n.settings));
        let devices = self.existing.devices.values().map(|d| (d.name.to_string(), &d.settings));
        for (name, stored) in nodes.chain(devices) {
            for port in settings::exposes(stored).iter() {
                self.exposed.insert(port.server_port, name.clone());
            }
        }
    }

    /// Gives ports of the server to a new device; why not.
    fn expose(&mut self, name: &str, value: &str) -> Option<String> {
        let ports: Vec<u16> =
            value.parse::<walt_types::Exposes>().ok()?.iter().map(|port| port.server_port).collect();
        if let Some((port, other)) = ports.iter().find_map(|port| self.exposed.get_key_value(port)) {
            return Some(format!("port {port} of the server leads to {other}"));
        }
        self.exposed.extend(ports.into_iter().map(|port| (port, name.to_owned())));
        None
    }
}

/// Reads a setting by the table of ours, for the device that it is of.
fn read(becomes: &Becomes, existing: &super::Existing, key: &str, value: &Value) -> Result<Change, String> {
    let holder = match &becomes.facts {
        Some(facts) => Holder::Node(facts),
        None => Holder::Other {
            name: &becomes.name,
            device_type: becomes.device_type,
            is_of_walt_net: becomes.ip.is_some_and(|ip| existing.is_of_walt_net(ip)),
        },
    };
    let text = format!("{key}={}", as_text(key, value));
    let changes = settings::changes(&[text], &[holder]).map_err(|e| e.to_string())?;
    changes.into_iter().next().ok_or_else(|| "it has no value".to_owned())
}

/// A value as the command line writes it. The existing server stores `netsetup` as a number.
fn as_text(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if key == NETSETUP => match number.as_u64() {
            Some(0) => "LAN".to_owned(),
            Some(1) => "NAT".to_owned(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
