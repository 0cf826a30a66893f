//! Devices of all types: the server, nodes, and what else has an address.

use crate::{
    actions::app::App,
    base::{
        db::{self, ClaimRow, DeviceRow, NodeRow, Settings, TrashRow},
        time::local_time,
    },
    services::{logs::SERVER_NAME, network, nodes::typed},
};
use anyhow::Result;
use std::{collections::BTreeMap, net::Ipv4Addr};
use walt_api::{Device, DeviceList, TrashedNode};
use walt_core::settings::{self, Holder};
use walt_types::{
    DeviceType, Mac, Model,
    node_set::{self, Candidate},
};

/// A device of any type.
#[derive(Debug, Clone)]
pub enum AnyDevice {
    /// The server.
    Server(Ipv4Addr),
    /// A node.
    Node(Box<NodeRow>),
    /// A switch, or a device of unknown type.
    Other(DeviceRow),
}

impl AnyDevice {
    /// Its address, if it has one.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Server(ip) => Some(*ip),
            Self::Node(row) => Some(row.ip),
            Self::Other(row) => row.ip,
        }
    }
}

impl AnyDevice {
    /// The node that it is.
    pub fn node(&self) -> Option<&NodeRow> {
        match self {
            Self::Node(row) => Some(row),
            Self::Server(_) | Self::Other(_) => None,
        }
    }

    /// Its Ethernet address; the server has several.
    pub fn mac(&self) -> Option<Mac> {
        match self {
            Self::Node(row) => Some(row.mac),
            Self::Other(row) => Some(row.mac),
            Self::Server(_) => None,
        }
    }
}

impl Candidate for AnyDevice {
    fn name(&self) -> &str {
        match self {
            Self::Server(_) => SERVER_NAME,
            Self::Node(row) => row.facts.name.as_str(),
            Self::Other(row) => row.name.as_str(),
        }
    }
    fn owner(&self) -> &str {
        match self {
            Self::Node(row) => row.facts.owner(),
            Self::Server(_) | Self::Other(_) => "",
        }
    }
}

impl node_set::Device for AnyDevice {
    fn device_type(&self) -> DeviceType {
        match self {
            Self::Server(_) => DeviceType::Server,
            Self::Node(_) => DeviceType::Node,
            Self::Other(row) => row.device_type,
        }
    }
}

/// All devices.
///
/// # Errors
/// The database fails.
pub fn all(app: &App) -> Result<Vec<AnyDevice>> {
    let (nodes, others) = app.db().with(|c| Ok((NodeRow::all(c)?, DeviceRow::all(c)?)))?;
    let server = AnyDevice::Server(app.config().server_ip());
    let nodes = nodes.into_iter().map(|row| AnyDevice::Node(Box::new(row)));
    Ok([server].into_iter().chain(nodes).chain(others.into_iter().map(AnyDevice::Other)).collect())
}

/// The device of this name, if there is one. `server` is a name of the server, too.
///
/// # Errors
/// The database fails.
pub fn find(app: &App, name: &str) -> Result<Option<AnyDevice>> {
    let called = |device: &AnyDevice| {
        device.name().eq_ignore_ascii_case(name)
            || matches!(device, AnyDevice::Server(_)) && name.eq_ignore_ascii_case("server")
    };
    Ok(all(app)?.into_iter().find(called))
}

/// All devices and the trash, for `GET /api/v1/devices`.
///
/// # Errors
/// The database fails.
pub fn list(app: &App) -> Result<DeviceList> {
    let (claims, trash) = app.db().with(|c| Ok((ClaimRow::all(c)?, TrashRow::all(c)?)))?;
    let mut stored = app.db().with(|c| Ok((NodeRow::all_settings(c)?, db::of_devices(c)?)))?;
    stored.0.append(&mut stored.1);
    let none = Settings::new();
    let one = |device: &AnyDevice| {
        let stored = device.mac().and_then(|mac| stored.0.get(&mac)).unwrap_or(&none);
        Device { config: config_of(app, device, stored), ..describe(app, device, &claims) }
    };
    let mut devices: Vec<Device> = all(app)?.iter().map(one).collect();
    devices.sort_by_cached_key(|d| (d.device_type, !d.is_virtual, d.name.to_ascii_lowercase()));
    let keep = app.config().limits.trash_keep.0;
    let trashed = |row: TrashRow| TrashedNode {
        name: row.name.to_string(),
        mac: row.mac,
        model: row.model.to_string(),
        image: row.image.full(),
        user: row.user,
        forgotten: local_time(row.forgotten),
        until: local_time(row.forgotten.saturating_add_unsigned(keep)),
    };
    let trash = trash.into_iter().map(trashed).collect();
    Ok(DeviceList { num_devices: devices.len(), devices, trash })
}

/// A device as the table of settings sees it.
pub fn holder<'a>(app: &App, device: &'a AnyDevice) -> Holder<'a> {
    let net = app.config().network.walt_net.ip;
    match device {
        AnyDevice::Node(row) => Holder::Node(&row.facts),
        other => Holder::Other {
            name: other.name(),
            device_type: node_set::Device::device_type(other),
            is_of_walt_net: other.ip().is_some_and(|ip| net.contains(ip)),
        },
    }
}

fn config_of(app: &App, device: &AnyDevice, stored: &Settings) -> BTreeMap<String, serde_json::Value> {
    let effective = settings::effective_of(stored, holder(app, device));
    effective.into_iter().map(|(key, value)| (key.to_owned(), typed(&value))).collect()
}

fn describe(app: &App, device: &AnyDevice, claims: &BTreeMap<Mac, Model>) -> Device {
    let plain = Device {
        name: device.name().to_owned(),
        ip: device.ip().map(|ip| ip.to_string()),
        mac: network::bridge_mac(app.config()),
        device_type: node_set::Device::device_type(device),
        is_virtual: false,
        model: None,
        claimed_model: None,
        searching: false,
        vendor_class: None,
        user_class: None,
        host_name: None,
        first_seen: None,
        last_seen: None,
        config: BTreeMap::new(),
    };
    match device {
        AnyDevice::Server(_) => plain,
        AnyDevice::Node(row) => Device {
            mac: row.mac,
            is_virtual: row.facts.is_virtual,
            model: Some(row.facts.model.to_string()),
            claimed_model: claims.get(&row.mac).map(ToString::to_string),
            ..plain
        },
        AnyDevice::Other(row) => {
            let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            Device {
                mac: row.mac,
                claimed_model: row.model.as_ref().map(ToString::to_string),
                searching: row
                    .model
                    .as_ref()
                    .is_some_and(|model| app.devices().searches().lock().is_running(model)),
                vendor_class: said(&row.told.vendor_class),
                user_class: said(&row.told.user_class),
                host_name: said(&row.told.host_name),
                first_seen: Some(local_time(row.first_seen)),
                last_seen: Some(local_time(row.last_seen)),
                ..plain
            }
        }
    }
}
