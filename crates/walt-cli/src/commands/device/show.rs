//! `walt device show`

use crate::{
    context::Context,
    error::Failure,
    ui::{self, table::section},
};
use clap::Args;
use walt_api::{Device, DeviceList, TrashedNode};
use walt_types::DeviceType;

/// `walt device show`
#[derive(Debug, Args)]
pub struct Show {
    /// show the forgotten nodes that 'walt device restore' can bring back
    #[arg(long, conflicts_with = "json")]
    trash: bool,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let list = context.ui.watch(context.client.devices()).await?;
        if self.json {
            return ui::out_json(&list);
        }
        if self.trash {
            ui::out_text(&trash(&list.trash))?;
            if list.trash.is_empty() {
                ui::note("The trash is empty.");
            }
            return Ok(());
        }
        ui::out_text(&text(&list.devices))?;
        footnotes(&list).iter().for_each(|line| ui::note(line));
        Ok(())
    }
}

/// A table without the columns that have nothing in them.
fn filled(title: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    let kept: Vec<usize> =
        (0..columns.len()).filter(|&i| rows.iter().any(|row| !row[i].is_empty())).collect();
    let columns: Vec<&str> = kept.iter().map(|&i| columns[i]).collect();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| kept.iter().map(|&i| row[i].clone()).collect()).collect();
    section(title, &columns, &rows)
}

fn type_text(device: &Device) -> String {
    match (device.device_type, device.is_virtual) {
        (DeviceType::Node, true) => "node (virtual)".to_owned(),
        (DeviceType::Node, false) => "node (physical)".to_owned(),
        (other, _) => other.to_string(),
    }
}

fn text(devices: &[Device]) -> String {
    let rows = |is_unknown: bool| -> Vec<Vec<String>> {
        let wanted = devices.iter().filter(|d| (d.device_type == DeviceType::Unknown) == is_unknown);
        let mut rows: Vec<Vec<String>> = wanted
            .map(|d| {
                let netsetup = d.config.get("netsetup").and_then(|v| v.as_str()).unwrap_or_default();
                let ip = d.ip.clone().unwrap_or_default();
                vec![d.name.clone(), ip, d.mac.to_string(), type_text(d), netsetup.to_owned()]
            })
            .collect();
        rows.sort_by_cached_key(|row| (row[3].clone(), row[0].to_ascii_lowercase()));
        rows
    };
    let columns = ["name", "ip", "mac", "type", "netsetup"];
    filled("Known devices:", &columns, &rows(false))
        + &filled("Devices of unknown type:", &columns, &rows(true))
}

fn trash(nodes: &[TrashedNode]) -> String {
    let row = |node: &TrashedNode| {
        let TrashedNode { name, mac, model, image, user, forgotten, until } = node;
        let image = image.trim_end_matches(":latest").to_owned();
        vec![
            name.clone(),
            mac.to_string(),
            model.clone(),
            image,
            user.clone(),
            forgotten.clone(),
            until.clone(),
        ]
    };
    let columns = ["name", "mac", "model", "image", "forgotten_by", "since", "kept_until"];
    section("Forgotten nodes:", &columns, &nodes.iter().map(row).collect::<Vec<_>>())
}

fn footnotes(list: &DeviceList) -> Vec<String> {
    let mut notes = Vec::new();
    for device in &list.devices {
        let Some(claimed) = &device.claimed_model else { continue };
        let name = &device.name;
        notes.push(match (&device.model, device.searching) {
            (Some(model), _) => other_model(name, model, claimed),
            (None, true) => {
                format!(
                    "Device {name} is a node of model '{claimed}': its default image is being looked for."
                )
            }
            (None, false) => format!(
                "Device {name} says that it is a node of model '{claimed}', but it is not one yet: see \
                 'walt help show unmanaged-devices'."
            ),
        });
    }
    if list.devices.iter().any(|d| d.device_type == DeviceType::Unknown) {
        notes.push("If one of them is a switch: walt device config <name> type=switch".to_owned());
    }
    match list.trash.len() {
        0 => {}
        count => notes.push(format!("In the trash: {count} node(s), see 'walt device show --trash'.")),
    }
    notes
}

/// The note about a node whose board was swapped.
pub fn other_model(name: &str, model: &str, claimed: &str) -> String {
    format!(
        "Node {name} was registered as model '{model}', but says that it is '{claimed}' now: if its board was swapped, \
         'walt node forget {name}' makes room for the new one."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, kind: &str, ip: Option<&str>) -> Device {
        let json = serde_json::json!({
            "name": name, "ip": ip, "mac": "52:54:00:00:00:01", "type": kind, "virtual": false, "model": null,
            "claimed_model": null, "searching": false, "config": if kind == "node" { serde_json::json!({"netsetup": "NAT"}) } else { serde_json::json!({}) }, "vendor_class": null, "user_class": null, "host_name": null,
            "first_seen": null, "last_seen": null,
        });
        serde_json::from_value(json).expect("a device")
    }

    #[test]
    fn sections_are_sorted_by_type_and_empty_columns_are_left_out() {
        let virtual_node = Device { is_virtual: true, ..device("vn1", "node", Some("10.0.0.2")) };
        let devices = [
            device("walt-server", "server", Some("10.0.0.1")),
            device("sw1", "switch", None),
            virtual_node,
            device("Apu", "node", Some("10.0.0.3")),
            device("unknown-1", "unknown", None),
        ];
        let wanted = [
            "Known devices:",
            "name         ip        mac                type             netsetup",
            "-----------  --------  -----------------  ---------------  --------",
            "Apu          10.0.0.3  52:54:00:00:00:01  node (physical)  NAT     ",
            "vn1          10.0.0.2  52:54:00:00:00:01  node (virtual)   NAT     ",
            "walt-server  10.0.0.1  52:54:00:00:00:01  server                   ",
            "sw1                    52:54:00:00:00:01  switch                   ",
            "",
            "Devices of unknown type:",
            "name       mac                type   ",
            "---------  -----------------  -------",
            "unknown-1  52:54:00:00:00:01  unknown",
            "",
            "",
        ];
        assert_eq!(text(&devices), wanted.join("\n"));
    }

    #[test]
    fn notes() {
        let claims = |device| Device { claimed_model: Some("rpi-4-b".into()), ..device };
        let swapped = Device { model: Some("rpi-3-b".into()), ..claims(device("n", "node", None)) };
        let searching = Device { searching: true, ..claims(device("u1", "unknown", None)) };
        let devices = vec![swapped, searching, claims(device("u2", "unknown", None))];
        let list = DeviceList { num_devices: 3, devices, trash: Vec::new() };
        let text = footnotes(&list).join("\n");
        assert!(text.contains("model 'rpi-3-b', but says that it is 'rpi-4-b' now"), "{text}");
        assert!(
            text.contains("u1 is a node of model 'rpi-4-b': its default image is being looked for"),
            "{text}"
        );
        assert!(text.contains("u2 says that it is a node") && text.contains("type=switch"), "{text}");
        assert!(!text.contains("trash"), "{text}");
    }
}
