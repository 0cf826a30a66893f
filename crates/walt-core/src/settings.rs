//! Settings of nodes and of other devices. One row per setting: its key, default, grammar, who has it, when a change
//! takes effect, and what it is for. Messages, the help page `device-config`, completion and JSON come from the table.
//!
//! A row whose grammar has a module of its own reads values by it: see `disks` and `expose`.

use crate::{NodeFacts, life::BootMode};
use std::collections::BTreeMap;
use walt_types::{DeviceType, Disks, Exposes, NetSetup, Networks, ParseError};

mod page;
#[cfg(test)]
mod tests;

pub use page::page;

/// One setting.
pub struct Setting {
    /// Its key on the command line and in the database.
    pub key: &'static str,
    /// Its value when nobody set it.
    pub default: &'static str,
    /// Who has it.
    pub holders: Holders,
    /// When a change takes effect.
    pub effect: Effect,
    /// What a value looks like, for messages: `must be …`.
    pub grammar: &'static str,
    /// What it is for: sentences for the help page.
    pub help: &'static str,
    read: fn(&str) -> Result<String, Bad>,
}

/// Who has a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holders {
    /// All devices of walt-net but the server.
    Devices,
    /// All nodes.
    Nodes,
    /// Nodes that the server runs.
    VirtualNodes,
    /// Physical nodes of the model `pc-x86-64`.
    Pcs,
}

/// When a change of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once, or at the next occasion that the setting is about.
    AtOnce,
    /// When the node boots.
    Boot,
    /// When the virtual machine of the node starts.
    Start,
}

/// Why a text is not a value.
enum Bad {
    /// The grammar of the row says it.
    Grammar,
    /// This sentence says it.
    Detail(String),
}

impl From<ParseError> for Bad {
    fn from(e: ParseError) -> Self {
        Self::Detail(e.0)
    }
}

/// Key of whether a PC boots by Secure Boot.
pub const BOOT_SECURE: &str = "boot.secure";
/// Models whose nodes have [`BOOT_SECURE`].
const SECURE_MODELS: [&str; 1] = ["pc-x86-64"];
/// Key of the disks of a virtual node.
pub const DISKS: &str = "disks";
/// Key of the networks of a virtual node.
pub const NETWORKS: &str = "networks";
/// Key of the setting that says where a node has its root file system.
pub const BOOT_MODE: &str = "boot.mode";
/// Key of the time before a virtual machine starts.
pub const BOOT_DELAY: &str = "boot.delay";
/// Key of how often a boot that takes too long is tried again.
pub const BOOT_RETRIES: &str = "boot.retries";
/// Key of the exposed ports.
pub const EXPOSE: &str = "expose";
/// Key of whether the hooks of an image may reboot a node.
pub const KEXEC_ALLOW: &str = "kexec.allow";
/// Key of what a device reaches.
pub const NETSETUP: &str = "netsetup";
/// Keys of switches, which neither nodes nor other devices have.
const SWITCH_KEYS: [&str; 4] = ["lldp.explore", "poe.reboots", "snmp.community", "snmp.version"];
/// Key of the type of a device: only devices of unknown type have it, and it is not a row of the table.
pub const TYPE: &str = "type";
/// Most cores that a virtual node may have; qemu's pc machine takes 255.
const CORES_MAX: u32 = 64;
/// Least memory in MiB in which the default image boots.
const RAM_MIN_MIB: u64 = 64;
/// Most memory in MiB (4 TiB).
const RAM_MAX_MIB: u64 = 4 << 20;
/// Least seconds of `boot.timeout`: no node boots in less.
const TIMEOUT_MIN_S: u32 = 60;
/// Most seconds of `boot.delay`.
pub const DELAY_MAX_S: u32 = 3600;
/// Seconds of which `boot.delay=random` takes one.
pub const DELAY_RANDOM_S: std::ops::RangeInclusive<u32> = 1..=10;

/// All settings, sorted by key.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: BOOT_DELAY,
        default: "0",
        holders: Holders::VirtualNodes,
        effect: Effect::AtOnce,
        grammar: "a number of seconds up to 3600, or 'random'",
        help: "Seconds that the virtual machine waits before each start; `random` is 1 to 10 seconds. It spreads the load \
               when many nodes start together; a node without it is sooner there.",
        read: |v| plain(v, boot_delay(v).is_some()),
    },
    Setting {
        key: BOOT_MODE,
        default: "auto",
        holders: Holders::Nodes,
        effect: Effect::Boot,
        grammar: "'auto', 'network', 'hybrid-volatile' or 'hybrid-persistent'",
        help: "Where the files of the node come from: see [walt help show boot-modes](boot-modes.md).",
        read: |v| plain(v, v == "auto" || BootMode::from_name(v).is_some()),
    },
    Setting {
        key: BOOT_RETRIES,
        default: "9",
        holders: Holders::Nodes,
        effect: Effect::AtOnce,
        grammar: "a number, 0 or more",
        help: "How often a boot that has failed is tried again, before the node needs a look: see [walt help show \
               node-bootup](node-bootup.md).",
        read: |v| plain(v, is_number(v) && v.parse::<u32>().is_ok()),
    },
    Setting {
        key: "boot.road",
        default: "direct",
        holders: Holders::VirtualNodes,
        effect: Effect::Start,
        grammar: "'direct' or 'pxe'",
        help: "`direct`: the virtual machine is given its kernel. `pxe`: it boots from its network card, as a PC does.",
        read: |v| plain(v, v == "direct" || v == "pxe"),
    },
    Setting {
        key: BOOT_SECURE,
        default: "false",
        holders: Holders::Pcs,
        effect: Effect::Boot,
        grammar: "'true' or 'false'",
        help: "Whether the firmware runs signed programs only: see [walt help show node-bootup](node-bootup.md).",
        read: boolean,
    },
    Setting {
        key: "boot.timeout",
        default: "180",
        holders: Holders::Nodes,
        effect: Effect::AtOnce,
        grammar: "'none' or a number of seconds, 60 or more",
        help: "Seconds after which a boot has failed.",
        read: |v| {
            let is_long = is_number(v) && v.parse().is_ok_and(|s: u32| s >= TIMEOUT_MIN_S);
            plain(v, v == "none" || is_long)
        },
    },
    Setting {
        key: "cpu.cores",
        default: "4",
        holders: Holders::VirtualNodes,
        effect: Effect::Start,
        grammar: "a number from 1 to 64",
        help: "Number of cores. A node gets no more than the server has.",
        read: |v| plain(v, is_number(v) && v.parse().is_ok_and(|n: u32| (1..=CORES_MAX).contains(&n))),
    },
    Setting {
        key: DISKS,
        default: "none",
        holders: Holders::VirtualNodes,
        effect: Effect::Start,
        grammar: "'none' or disks such as 8G,1T[template=ext4]",
        help: "Disks, and what is on new ones: see [walt help show vnode-disks](vnode-disks.md).",
        read: |v| Ok(v.parse::<Disks>().map(|_| v.to_owned())?),
    },
    Setting {
        key: EXPOSE,
        default: "none",
        holders: Holders::Devices,
        effect: Effect::AtOnce,
        grammar: "'none' or pairs of ports such as 80:8080,22:2222",
        help: "Ports of the device that are reached by ports of the server: see \
               [walt help show device-expose](device-expose.md).",
        read: |v| Ok(v.parse::<Exposes>()?.to_string()),
    },
    Setting {
        key: KEXEC_ALLOW,
        default: "true",
        holders: Holders::Nodes,
        effect: Effect::AtOnce,
        grammar: "'true' or 'false'",
        help: "Whether the next reboots may run the reboot hook of the image, which usually starts the new kernel by kexec. \
               With `false`, the node reboots by its firmware. Virtual nodes never run the hook.",
        read: boolean,
    },
    Setting {
        key: "mount.persist",
        default: "true",
        holders: Holders::Nodes,
        effect: Effect::Boot,
        grammar: "'true' or 'false'",
        help: "Whether the node has `/persist`.",
        read: boolean,
    },
    Setting {
        key: NETSETUP,
        default: "LAN",
        holders: Holders::Devices,
        effect: Effect::Boot,
        grammar: "'LAN' or 'NAT'",
        help: "What the device reaches besides walt-net. The packet filter changes at once, the default route of the device \
               at its next boot: see [walt help show device-netsetup](device-netsetup.md).",
        read: |v| v.parse::<NetSetup>().map(|v| v.to_string()).map_err(|_| Bad::Grammar),
    },
    Setting {
        key: NETWORKS,
        default: "walt-net",
        holders: Holders::VirtualNodes,
        effect: Effect::Start,
        grammar: "networks such as walt-net,lab[lat=10ms,bw=100Mbps]",
        help: "The networks that the node is on, and how good its links to them are: see [walt help show \
               vnode-networks](vnode-networks.md). A change of links only takes effect at once.",
        read: |v| Ok(v.parse::<Networks>()?.to_string()),
    },
    Setting {
        key: "ram",
        default: "512M",
        holders: Holders::VirtualNodes,
        effect: Effect::Start,
        grammar: "a number followed by M or G, at least 64M",
        help: "Memory.",
        read: |v| plain(v, ram_mib(v).is_some()),
    },
];

fn plain(value: &str, is_good: bool) -> Result<String, Bad> {
    if is_good { Ok(value.to_owned()) } else { Err(Bad::Grammar) }
}

fn boolean(value: &str) -> Result<String, Bad> {
    plain(value, value == "true" || value == "false")
}

/// Digits only: the parsers of numbers take a sign as well.
fn is_number(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit())
}

/// Memory in MiB of a value like `512M` or `2G`.
pub fn ram_mib(value: &str) -> Option<u64> {
    let (digits, factor) =
        value.strip_suffix('M').map(|d| (d, 1)).or_else(|| value.strip_suffix('G').map(|d| (d, 1024)))?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mib = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (RAM_MIN_MIB..=RAM_MAX_MIB).contains(&mib).then_some(mib)
}

/// The range of seconds from which the pause before a virtual machine starts is taken: the value of [`BOOT_DELAY`].
pub fn boot_delay(value: &str) -> Option<std::ops::RangeInclusive<u32>> {
    if value == "random" {
        return Some(DELAY_RANDOM_S);
    }
    let seconds = Some(value).filter(|v| is_number(v)).and_then(|v| v.parse().ok());
    seconds.filter(|s| *s <= DELAY_MAX_S).map(|s| s..=s)
}

/// Why settings cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not of the form `key=value`.
    #[error("'{0}' is not of the form <setting>=<value>")]
    Form(String),
    /// No such key.
    #[error("no setting is called '{0}'; there are: {known} ('walt help show device-config' explains them)", known = keys())]
    Unknown(String),
    /// A key that is there twice.
    #[error("the setting '{0}' is given twice")]
    Twice(String),
    /// A key of switches.
    #[error("'{key}' is a setting of switches, and {name} is {what}")]
    SwitchOnly {
        /// The key.
        key: String,
        /// The device.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A key of switches, and a switch.
    #[error("'{0}' is a setting of managed switches, which this version does not support")]
    NoSwitches(String),
    /// A key of nodes, and a device that is not one.
    #[error("'{key}' applies to nodes only, and {name} is {what}")]
    NodesOnly {
        /// The key.
        key: String,
        /// The device.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A key of devices of walt-net, and one that is the server, or has no address there.
    #[error("'{key}' applies to devices of walt-net other than the server, and {name} is not one")]
    NotOfWaltNet {
        /// The key.
        key: String,
        /// The device.
        name: String,
    },
    /// A key that makes no sense on this node.
    #[error("'{key}' applies to virtual nodes only, and {node} is a physical one")]
    NotApplicable {
        /// The key.
        key: String,
        /// The node.
        node: String,
    },
    /// A key for physical nodes, of models that this one is not.
    #[error("'{key}' applies to physical nodes of model {model} only, and {node} is not one")]
    NotSecurable {
        /// The key.
        key: &'static str,
        /// The model.
        model: &'static str,
        /// The node.
        node: String,
    },
    /// Several devices, of which each would have the same ports of the server.
    #[error("'{key}' can be set for one device at a time: two devices cannot have one port of the server")]
    OneAtATime {
        /// The key.
        key: String,
    },
    /// A value outside the grammar.
    #[error("'{value}' is not a value of '{key}': it must be {grammar}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is right.
        grammar: &'static str,
    },
    /// A value whose grammar has more to say.
    #[error("cannot set '{key}': {why}")]
    Detail {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

fn keys() -> String {
    SETTINGS.iter().map(|s| s.key).collect::<Vec<_>>().join(", ")
}

/// The row of a key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// Keys of the settings that take effect at this moment.
pub fn keys_of(effect: Effect) -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter(move |s| s.effect == effect).map(|s| s.key)
}

/// Whether a key is one of switches.
fn is_of_switches(key: &str) -> bool {
    SWITCH_KEYS.contains(&key)
}

/// One wanted change.
#[derive(Clone)]
pub struct Change {
    /// What changes.
    pub setting: &'static Setting,
    /// Its new value, in the one form in which it is stored; none for its default.
    pub value: Option<String>,
}

impl Change {
    /// What will hold.
    pub fn effective(&self) -> &str {
        self.value.as_deref().unwrap_or(self.setting.default)
    }
}

/// Reads one `key=value` and checks it against the table. `key=` is the default.
///
/// # Errors
/// It is not one.
pub fn parse(text: &str) -> Result<Change, SettingError> {
    let (key, value) = text.split_once('=').ok_or_else(|| SettingError::Form(text.into()))?;
    let setting = find(key).ok_or_else(|| SettingError::Unknown(key.into()))?;
    if value.is_empty() {
        return Ok(Change { setting, value: None });
    }
    match (setting.read)(value) {
        Ok(value) => Ok(Change { setting, value: Some(value) }),
        Err(Bad::Detail(why)) => Err(SettingError::Detail { key: key.into(), why }),
        Err(Bad::Grammar) => {
            Err(SettingError::Value { key: key.into(), value: value.into(), grammar: setting.grammar })
        }
    }
}

/// A device whose settings are to change.
#[derive(Debug, Clone, Copy)]
pub enum Holder<'a> {
    /// A node.
    Node(&'a NodeFacts),
    /// Something else.
    Other {
        /// Its name.
        name: &'a str,
        /// Its type.
        device_type: DeviceType,
        /// Whether it has an address of walt-net.
        is_of_walt_net: bool,
    },
}

impl Holder<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Node(facts) => facts.name.as_str(),
            Self::Other { name, .. } => name,
        }
    }

    fn device_type(&self) -> DeviceType {
        match self {
            Self::Node(_) => DeviceType::Node,
            Self::Other { device_type, .. } => *device_type,
        }
    }

    /// Whether it has a setting.
    pub fn has(&self, setting: &Setting) -> bool {
        match (self, setting.holders) {
            (Self::Node(_), Holders::Devices | Holders::Nodes) => true,
            (Self::Node(facts), Holders::VirtualNodes) => facts.is_virtual,
            (Self::Node(facts), Holders::Pcs) => {
                !facts.is_virtual && SECURE_MODELS.contains(&facts.model.as_str())
            }
            (Self::Other { device_type, is_of_walt_net, .. }, Holders::Devices) => {
                *device_type != DeviceType::Server && *is_of_walt_net
            }
            (Self::Other { .. }, _) => false,
        }
    }
}

/// Checks that a device can have a setting.
///
/// # Errors
/// It cannot; the error says which devices can.
pub fn applies(setting: &Setting, holder: Holder<'_>) -> Result<(), SettingError> {
    if holder.has(setting) {
        return Ok(());
    }
    let (key, name) = (setting.key.to_owned(), holder.name().to_owned());
    Err(match (setting.holders, holder) {
        (Holders::Devices, _) => SettingError::NotOfWaltNet { key, name },
        (_, Holder::Other { device_type, .. }) => {
            SettingError::NodesOnly { key, name, what: device_type.with_article() }
        }
        (Holders::Pcs, _) => {
            let [model] = SECURE_MODELS;
            SettingError::NotSecurable { key: setting.key, model, node: name }
        }
        _ => SettingError::NotApplicable { key, node: name },
    })
}

/// Reads changes for these devices, all of them or none.
///
/// # Errors
/// One of them is wrong, or not for one of the devices.
pub fn changes(assignments: &[String], holders: &[Holder<'_>]) -> Result<Vec<Change>, SettingError> {
    let mut changes: Vec<Change> = Vec::new();
    for text in assignments {
        let key = text.split('=').next().unwrap_or_default();
        if is_of_switches(key) {
            let other = holders.iter().find(|h| h.device_type() != DeviceType::Switch);
            if let Some(holder) = other.or(holders.first()) {
                return Err(of_switches(key, *holder));
            }
        }
        let change = parse(text)?;
        let key = change.setting.key;
        if changes.iter().any(|c| c.setting.key == key) {
            return Err(SettingError::Twice(key.to_owned()));
        }
        holders.iter().try_for_each(|holder| applies(change.setting, *holder))?;
        if key == EXPOSE && holders.len() > 1 && change.effective() != change.setting.default {
            return Err(SettingError::OneAtATime { key: key.to_owned() });
        }
        changes.push(change);
    }
    Ok(changes)
}

/// The sentence for a key of switches on a device.
fn of_switches(key: &str, holder: Holder<'_>) -> SettingError {
    match holder.device_type() {
        DeviceType::Switch => SettingError::NoSwitches(key.to_owned()),
        other => SettingError::SwitchOnly {
            key: key.to_owned(),
            name: holder.name().to_owned(),
            what: other.with_article(),
        },
    }
}

/// Whether a node's firmware runs signed programs only, by its settings that were changed.
pub fn is_secure(stored: &BTreeMap<String, String>) -> bool {
    stored.get(BOOT_SECURE).is_some_and(|value| value == "true")
}

/// What a device reaches, by its settings that were changed.
pub fn net_setup(stored: &BTreeMap<String, String>) -> NetSetup {
    stored.get(NETSETUP).and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The exposed ports of a device, by its settings that were changed.
pub fn exposes(stored: &BTreeMap<String, String>) -> Exposes {
    stored.get(EXPOSE).and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn values(
    stored: &BTreeMap<String, String>,
    has: impl Fn(&Setting) -> bool,
) -> BTreeMap<&'static str, String> {
    let value = |s: &Setting| stored.get(s.key).cloned().unwrap_or_else(|| s.default.to_owned());
    SETTINGS.iter().filter(|s| has(s)).map(|s| (s.key, value(s))).collect()
}

/// The value of one setting; empty if no setting has this key.
pub fn value<'a>(stored: &'a BTreeMap<String, String>, key: &str) -> &'a str {
    stored.get(key).map_or_else(|| find(key).map_or("", |s| s.default), String::as_str)
}

/// All settings of a node with their values, defaults included.
pub fn effective(stored: &BTreeMap<String, String>, is_virtual: bool) -> BTreeMap<&'static str, String> {
    values(stored, |s| match s.holders {
        Holders::Devices | Holders::Nodes => true,
        Holders::VirtualNodes => is_virtual,
        Holders::Pcs => !is_virtual,
    })
}

/// All settings of a device that is not a node, as [`effective`].
pub fn effective_of(stored: &BTreeMap<String, String>, holder: Holder<'_>) -> BTreeMap<&'static str, String> {
    values(stored, |s| holder.has(s))
}

/// The part of a value that a running node cannot take over: of networks, which ones there are, but not how good the links
/// to them are.
fn fixed_part(key: &str, value: &str) -> String {
    match value.parse::<Networks>() {
        Ok(networks) if key == NETWORKS => {
            networks.names().into_iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",")
        }
        _ => value.to_owned(),
    }
}

/// Settings that a running node does not have in effect, sorted: those in `booted_with`, which were changed since its
/// boot, whose value is another one now.
pub fn waiting_for_boot(
    booted_with: &BTreeMap<String, String>,
    effective: &BTreeMap<&'static str, String>,
) -> Vec<&'static str> {
    let waits = |key: &str| find(key).is_some_and(|s| s.effect != Effect::AtOnce);
    let differs = |key: &str, value: &String| {
        booted_with.get(key).is_some_and(|old| fixed_part(key, old) != fixed_part(key, value))
    };
    effective.iter().filter(|(key, value)| waits(key) && differs(key, value)).map(|(key, _)| *key).collect()
}
