//! What comes, and the fate of everything else.

mod devices;
mod others;
mod settings;
#[cfg(test)]
mod tests;

use crate::source::{Row, Source};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
};
use walt_core::NodeFacts;
use walt_types::{CheckpointName, DeviceType, ImageRef, Mac, NodeName, UserName};

/// The name of the server as a device, which no other device may have.
const SERVER_NAME: &str = "walt-server";

/// What becomes of an item of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is taken over.
    Comes,
    /// It is here already.
    Here,
    /// This version has no place for it yet; it is kept for a later one.
    Kept,
    /// Something else is here in its place, and stays.
    Conflict,
    /// It cannot be taken over.
    Cannot,
}

impl Fate {
    /// All of them, in the order of the columns of a report.
    pub const ALL: [Self; 5] = [Self::Comes, Self::Here, Self::Kept, Self::Conflict, Self::Cannot];
}

/// One thing in a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Where it is: a table, or `settings`, `images`, `persist`.
    pub table: String,
    /// Its name; empty for a whole table.
    pub item: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Why, or what to do about it.
    pub note: Option<String>,
    /// For how many rows it stands.
    pub count: u64,
}

impl Item {
    /// An item that is one row.
    pub fn new(table: &str, item: impl Into<String>, fate: Fate, note: Option<String>) -> Self {
        Self { table: table.to_owned(), item: item.into(), fate, note, count: 1 }
    }
}

/// A node that is here.
#[derive(Debug, Clone)]
pub struct KnownNode {
    /// Name, model, image, kind.
    pub facts: NodeFacts,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Settings that were changed from their defaults.
    pub settings: BTreeMap<String, String>,
}

/// Another device that is here.
#[derive(Debug, Clone)]
pub struct KnownDevice {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// Its type.
    pub device_type: DeviceType,
    /// Whether a user gave it its name or its type, or configured it.
    pub is_named: bool,
    /// Settings that were changed from their defaults.
    pub settings: BTreeMap<String, String>,
}

/// What our database has.
#[derive(Debug, Clone)]
pub struct Existing {
    /// The server's address on walt-net.
    pub server_ip: Ipv4Addr,
    /// Bits of the prefix of walt-net.
    pub prefix: u8,
    /// Nodes.
    pub nodes: BTreeMap<Mac, KnownNode>,
    /// Other devices.
    pub devices: BTreeMap<Mac, KnownDevice>,
    /// How many other devices there may be.
    pub devices_max: usize,
    /// Addresses that stations have by DHCP now.
    pub leases: BTreeMap<Ipv4Addr, Mac>,
    /// References to images.
    pub images: BTreeSet<ImageRef>,
    /// Checkpoints: microseconds since 1970.
    pub checkpoints: BTreeMap<(UserName, CheckpointName), i64>,
    /// How many checkpoints a user may have.
    pub checkpoints_max: usize,
    /// Rows that were kept by an earlier import: table and row.
    pub kept: BTreeSet<(String, String)>,
}

impl Existing {
    /// A server that has nothing yet.
    pub fn empty(server_ip: Ipv4Addr, prefix: u8) -> Self {
        Self {
            server_ip,
            prefix,
            nodes: BTreeMap::new(),
            devices: BTreeMap::new(),
            devices_max: usize::MAX,
            leases: BTreeMap::new(),
            images: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
            checkpoints_max: usize::MAX,
            kept: BTreeSet::new(),
        }
    }

    fn network(&self) -> Ipv4Addr {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        Ipv4Addr::from_bits(self.server_ip.to_bits() & mask)
    }

    /// Whether a device of walt-net can have this address.
    fn is_of_walt_net(&self, ip: Ipv4Addr) -> bool {
        let size = 1_u64 << (32 - u32::from(self.prefix));
        let offset = u64::from(ip.to_bits()).wrapping_sub(u64::from(self.network().to_bits()));
        offset > 0 && offset + 1 < size
    }
}

/// How an import is wanted.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Users who have another name here.
    pub users: BTreeMap<String, UserName>,
    /// The time zone of the existing server, whose timestamps are local.
    pub zone: TimeZone,
}

/// The time zone of servers whose clocks show UTC.
pub fn utc() -> TimeZone {
    TimeZone::UTC
}

impl Wishes {
    /// The name that a user of the existing server has here.
    ///
    /// # Errors
    /// It is not a name of a user here; the sentence says what to do.
    pub fn user(&self, name: &str) -> Result<UserName, String> {
        match self.users.get(name) {
            Some(user) => Ok(user.clone()),
            None => name.parse().map_err(|e| format!("{e}: say who that is here by --user '{name}=ACCOUNT'")),
        }
    }

    /// An image of the existing server, with the name that its owner has here.
    ///
    /// # Errors
    /// It is not a name of an image here, as for [`Wishes::user`].
    pub fn image(&self, fullname: &str) -> Result<ImageRef, String> {
        let (user, name) = fullname
            .split_once('/')
            .ok_or_else(|| format!("'{fullname}' is not the full name of an image"))?;
        let name = name.parse().map_err(|e| format!("{e}"))?;
        if user == walt_types::PLATFORM_USER {
            return Ok(ImageRef::platform(name));
        }
        Ok(ImageRef::of(&self.user(user)?, name))
    }
}

/// The full name, `<user>/<name>:<tag>`, of an image that podman or docker calls so: without the registry
/// (`docker.io/`, `localhost/`), and without the `walt/` of podman's storage below it. None if it is not an image of a user.
pub fn fullname_of(name: &str) -> Option<String> {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, walt_types::DEFAULT_TAG),
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    if parts.len() > 1 && is_host(parts[0]) {
        parts.remove(0);
    }
    if parts.len() == 3 && parts[0] == "walt" {
        parts.remove(0);
    }
    match parts.as_slice() {
        ["walt", _] => None,
        [user, name] => Some(format!("{user}/{name}:{tag}")),
        _ => None,
    }
}

/// A node to be added.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Name, model, image, kind.
    pub facts: NodeFacts,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// Another device to be added, or to take the place of one that nobody has named.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// Its type.
    pub device_type: DeviceType,
    /// Whether its name says more than its type and address.
    pub is_named: bool,
}

/// A setting of a new node or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSetting {
    /// Of which one.
    pub mac: Mac,
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// A checkpoint to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheckpoint {
    /// Whose.
    pub user: UserName,
    /// Its name.
    pub name: CheckpointName,
    /// Microseconds since 1970.
    pub at: i64,
}

/// What an import does.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes to add.
    pub nodes: Vec<NewNode>,
    /// Other devices to add.
    pub devices: Vec<NewDevice>,
    /// Settings of both to set.
    pub settings: Vec<NewSetting>,
    /// Checkpoints to add.
    pub checkpoints: Vec<NewCheckpoint>,
    /// Rows to keep: table, and the row as JSON.
    pub kept: Vec<(String, String)>,
    /// Images of the dump, with the names of their owners here.
    pub images: BTreeSet<ImageRef>,
    /// The fate of everything, in the order of the dump's tables.
    pub items: Vec<Item>,
    /// What the administrator should know before the import, a sentence each.
    pub advice: Vec<String>,
}

/// Compares a dump with what is here.
pub fn make(source: &Source, existing: &Existing, wishes: &Wishes) -> Plan {
    let mut work = Work {
        source,
        existing,
        wishes,
        plan: Plan::default(),
        names: HashSet::from([SERVER_NAME.to_owned()]),
        ips: HashMap::new(),
        fates: BTreeMap::new(),
        exposed: HashMap::new(),
        rooms: existing.devices_max.saturating_sub(existing.devices.len()),
    };
    work.devices();
    work.nodes_without_devices();
    work.settings();
    work.checkpoints();
    work.kept_tables();
    work.images();
    work.rest();
    work.plan
}

/// What a device of the dump becomes, for what belongs to it.
#[derive(Debug, Clone)]
struct Becomes {
    fate: Fate,
    name: String,
    device_type: DeviceType,
    ip: Option<Ipv4Addr>,
    facts: Option<NodeFacts>,
}

struct Work<'a> {
    source: &'a Source,
    existing: &'a Existing,
    wishes: &'a Wishes,
    plan: Plan,
    /// Names that devices of the dump get, in lower case.
    names: HashSet<String>,
    /// Addresses that devices of the dump get.
    ips: HashMap<Ipv4Addr, String>,
    /// What devices of the dump become.
    fates: BTreeMap<Mac, Becomes>,
    /// Ports of the server that devices expose, and by whom.
    exposed: HashMap<u16, String>,
    /// How many more devices there may be.
    rooms: usize,
}

impl Work<'_> {
    fn item(&mut self, table: &str, item: impl Into<String>, fate: Fate, note: Option<String>) {
        self.plan.items.push(Item::new(table, item, fate, note));
    }

    /// Keeps a row for a later version; its fate.
    fn keep(&mut self, table: &str, row: &Row) -> Fate {
        // Invariant: a map of strings is JSON.
        let text = serde_json::to_string(row.values()).unwrap_or_default();
        let kept = (table.to_owned(), text);
        if self.existing.kept.contains(&kept) {
            return Fate::Here;
        }
        if !self.plan.kept.contains(&kept) {
            self.plan.kept.push(kept);
        }
        Fate::Kept
    }
}

/// A row's Ethernet address.
fn mac_of(row: &Row, column: &str) -> Result<Mac, String> {
    row.text(column).parse().map_err(|e| format!("{e}"))
}
