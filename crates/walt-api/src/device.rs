//! Devices: the server, nodes, switches, and what else has an address on walt-net.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use walt_types::{DeviceType, Mac};

/// Answer of [`route::DEVICES`](crate::route::DEVICES).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceList {
    /// Number of items in `devices`.
    pub num_devices: usize,
    /// All devices, sorted by type and name.
    pub devices: Vec<Device>,
    /// Forgotten physical nodes that can be restored, the last one first.
    pub trash: Vec<TrashedNode>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// Unique name.
    pub name: String,
    /// Its address; null if another device has got it in the meantime.
    pub ip: Option<String>,
    /// Its Ethernet address, its identity.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mac: Mac,
    /// Its type.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device_type: DeviceType,
    /// Whether it is a virtual node.
    #[serde(rename = "virtual")]
    pub is_virtual: bool,
    /// Hardware model of a node.
    pub model: Option<String>,
    /// The model of which it says that it is a node, if it is not a node of that model.
    pub claimed_model: Option<String>,
    /// Whether a default image for `claimed_model` is being looked for.
    pub searching: bool,
    /// Vendor class that it sent by DHCP, if it is not a node.
    pub vendor_class: Option<String>,
    /// User class that it sent by DHCP, if it is not a node.
    pub user_class: Option<String>,
    /// Host name that it sent by DHCP, if it is not a node.
    pub host_name: Option<String>,
    /// When it got its first address, `YYYY-MM-DD HH:MM:SS` in the server's local time, if it is not a node.
    pub first_seen: Option<String>,
    /// When it last got or renewed its address, if it is not a node.
    pub last_seen: Option<String>,
    /// Settings by key, defaults included.
    #[serde(default)]
    pub config: BTreeMap<String, serde_json::Value>,
}

/// A forgotten physical node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrashedNode {
    /// Its name when it was forgotten.
    pub name: String,
    /// Its Ethernet address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mac: Mac,
    /// Its model.
    pub model: String,
    /// Full reference of its image.
    pub image: String,
    /// Who forgot it.
    pub user: String,
    /// When it was forgotten, `YYYY-MM-DD HH:MM:SS` in the server's local time.
    pub forgotten: String,
    /// When it is removed from the trash.
    pub until: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts read these names.
    #[test]
    fn names_of_fields() {
        let text = r#"{"name":"unknown-000001","ip":null,"mac":"52:54:00:00:00:01","type":"unknown","virtual":false,"model":null,"claimed_model":"rpi-4-b","searching":true,"vendor_class":"udhcp","user_class":null,"host_name":null,"first_seen":null,"last_seen":null,"config":{"netsetup":"LAN"}}"#;
        let device: Device = serde_json::from_str(text).expect("a device");
        assert_eq!(device.device_type, DeviceType::Unknown);
        assert_eq!(serde_json::to_string(&device).expect("JSON"), text);
    }
}
