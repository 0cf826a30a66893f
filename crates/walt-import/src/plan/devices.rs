//! Devices and nodes.

use super::{Becomes, Fate, KnownNode, NewDevice, NewNode, Work, mac_of};
use crate::source::Row;
use std::net::Ipv4Addr;
use walt_core::{NodeFacts, registration};
use walt_types::{DeviceType, ImageRef, Mac, Model, NodeName};

/// What devices are called that nobody has named.
const UNNAMED: &str = "unknown";

/// Why a device does not come.
struct No {
    fate: Fate,
    why: String,
}

fn cannot(why: impl Into<String>) -> No {
    No { fate: Fate::Cannot, why: why.into() }
}

fn conflict(why: impl Into<String>) -> No {
    No { fate: Fate::Conflict, why: why.into() }
}

impl Work<'_> {
    pub(super) fn devices(&mut self) {
        for row in self.source.rows("devices") {
            let label = label(row);
            let table = if row.text("type") == "node" { "nodes" } else { "devices" };
            let done = mac_of(row, "mac").map_err(cannot).and_then(|mac| {
                if self.fates.contains_key(&mac) {
                    return Err(cannot("the dump has another device with this Ethernet address"));
                }
                match row.text("type") {
                    "server" => Ok(self.server(row)),
                    "node" => self.node(row, mac),
                    "switch" => self.other(row, mac, DeviceType::Switch),
                    "unknown" => self.other(row, mac, DeviceType::Unknown),
                    odd => Err(cannot(format!("'{odd}' is not a type of devices"))),
                }
            });
            match done {
                Ok((fate, note)) => self.item(table, label, fate, note),
                Err(No { fate, why }) => {
                    if let Ok(mac) = mac_of(row, "mac") {
                        self.fates.entry(mac).or_insert_with(|| Becomes {
                            fate,
                            name: row.text("name").to_owned(),
                            device_type: DeviceType::Unknown,
                            ip: None,
                            facts: None,
                        });
                    }
                    self.item(table, label, fate, Some(why));
                }
            }
        }
    }

    /// Nodes that are not among the devices; the existing server's database does not allow that.
    pub(super) fn nodes_without_devices(&mut self) {
        for row in self.source.rows("nodes") {
            if mac_of(row, "mac").is_ok_and(|mac| self.fates.contains_key(&mac)) {
                continue;
            }
            let why = "the table devices has no node with this Ethernet address".to_owned();
            self.item("nodes", row.text("mac"), Fate::Cannot, Some(why));
        }
    }

    fn server(&mut self, row: &Row) -> (Fate, Option<String>) {
        let ours = self.existing.server_ip;
        let old: Option<Ipv4Addr> = row.get("ip").and_then(|ip| ip.parse().ok());
        if let Some(old) = old.filter(|old| *old != ours) {
            let prefix = self.existing.prefix;
            self.plan.advice.push(format!(
                "The existing server had the address {old} on walt-net, and this one has {ours}. Nodes keep their \
                 addresses only in the same network: consider 'network: {{walt-net: {{ip: {old}/{prefix}}}}}' in \
                 /etc/walt/server.conf before the import."
            ));
        }
        (Fate::Here, Some("this server takes its place, with its own Ethernet address".to_owned()))
    }

    fn node(&mut self, row: &Row, mac: Mac) -> Result<(Fate, Option<String>), No> {
        let of = self.source.rows("nodes");
        let Some(node) = of.iter().find(|node| mac_of(node, "mac").is_ok_and(|other| other == mac)) else {
            return Err(cannot(
                "the table nodes has no row for it, so its model and its image are not known",
            ));
        };
        let model: Model = node.text("model").parse().map_err(|e| cannot(format!("{e}")))?;
        let image = match self.wishes.image(node.text("image")) {
            Ok(image) => image,
            Err(why) => return Err(cannot(format!("its image: {why}"))),
        };
        let ip = self.node_ip(row)?;
        let (name, mut notes) = self.name_for(row, DeviceType::Node, mac);
        let facts = NodeFacts { name: name.clone(), model, image, is_virtual: row.is_true("virtual") };
        let mut becomes = Becomes {
            fate: Fate::Comes,
            name: name.to_string(),
            device_type: DeviceType::Node,
            ip: Some(ip),
            facts: Some(facts.clone()),
        };
        self.claim(&name, ip)?;
        if let Some(known) = self.existing.nodes.get(&mac) {
            let differences = differences(known, &facts, ip);
            becomes.fate = if differences.is_empty() { Fate::Here } else { Fate::Conflict };
            becomes.facts = Some(known.facts.clone());
            let fate = becomes.fate;
            self.fates.insert(mac, becomes);
            let note = format!(
                "the node {} is here with {}: it is left as it is",
                known.facts.name,
                differences.join(", ")
            );
            return Ok((fate, Some(note).filter(|_| fate == Fate::Conflict)));
        }
        if let Some(device) = self.existing.devices.get(&mac)
            && device.is_named
        {
            return Err(conflict(format!(
                "it is here as the {} '{}', which a user has named or configured: 'walt device forget {1}' lets it come",
                device.device_type, device.name
            )));
        }
        self.is_free(mac, &name, ip)?;
        if !self.existing.images.contains(&facts.image) {
            notes.push(format!("its image {} is not here yet", facts.image));
        }
        if facts.is_virtual {
            notes.push("a virtual node: its disks are new and empty at its first start".to_owned());
        }
        self.plan.nodes.push(NewNode { mac, facts, ip });
        self.fates.insert(mac, becomes);
        Ok((Fate::Comes, Some(notes.join("; ")).filter(|n| !n.is_empty())))
    }

    fn other(&mut self, row: &Row, mac: Mac, device_type: DeviceType) -> Result<(Fate, Option<String>), No> {
        let mut notes = Vec::new();
        let ip: Option<Ipv4Addr> = match row.get("ip").map(str::parse) {
            None => None,
            Some(Ok(ip)) => Some(ip),
            Some(Err(_)) => {
                notes.push(format!("without its address '{}', which is not an IPv4 address", row.text("ip")));
                None
            }
        };
        let (name, more) = self.name_for(row, device_type, mac);
        notes.extend(more);
        let mut becomes = Becomes { fate: Fate::Comes, name: name.to_string(), device_type, ip, facts: None };
        match ip {
            Some(ip) => self.claim(&name, ip)?,
            None => drop(self.names.insert(name.as_str().to_ascii_lowercase())),
        }
        if let Some(known) = self.existing.nodes.get(&mac) {
            return Err(conflict(format!(
                "it is here as the node {}: it is left as it is",
                known.facts.name
            )));
        }
        let known = self.existing.devices.get(&mac);
        if let Some(known) = known {
            let is_same = known.name == name && known.ip == ip && known.device_type == device_type;
            if is_same {
                becomes.fate = Fate::Here;
                self.fates.insert(mac, becomes);
                return Ok((Fate::Here, None));
            }
            if known.is_named || known.device_type == DeviceType::Switch {
                let address = known.ip.map_or("no address".to_owned(), |ip| ip.to_string());
                return Err(conflict(format!(
                    "it is here as the {} '{}' with {address}: it is left as it is",
                    known.device_type, known.name
                )));
            }
        } else if self.rooms == 0 {
            return Err(cannot(format!(
                "there are {} devices already, the most that there may be",
                self.existing.devices_max
            )));
        }
        match ip {
            Some(ip) => self.is_free(mac, &name, ip)?,
            None => self.name_is_free(mac, &name)?,
        }
        self.rooms -= usize::from(known.is_none());
        let is_named = !name.as_str().to_ascii_lowercase().contains(UNNAMED);
        self.plan.devices.push(NewDevice { mac, name, ip, device_type, is_named });
        self.fates.insert(mac, becomes);
        Ok((Fate::Comes, Some(notes.join("; ")).filter(|n| !n.is_empty())))
    }

    /// The address of a node, which must be one of walt-net.
    fn node_ip(&self, row: &Row) -> Result<Ipv4Addr, No> {
        let text = row.get("ip").ok_or_else(|| cannot("it has no address"))?;
        let ip: Ipv4Addr =
            text.parse().map_err(|_| cannot(format!("its address '{text}' is not an IPv4 address")))?;
        if ip == self.existing.server_ip {
            return Err(cannot(format!("its address {ip} is the server's")));
        }
        if !self.existing.is_of_walt_net(ip) {
            return Err(cannot(format!(
                "its address {ip} is not one of walt-net, {}/{}: give walt-net the network of the existing server",
                self.existing.network(),
                self.existing.prefix
            )));
        }
        Ok(ip)
    }

    /// The name that a device of the dump gets: its own, if that is a name here and not taken by the dump.
    fn name_for(&self, row: &Row, of: DeviceType, mac: Mac) -> (NodeName, Vec<String>) {
        let wanted = row.text("name");
        let taken = |name: &NodeName| self.names.contains(&name.as_str().to_ascii_lowercase());
        let name = match wanted.parse::<NodeName>() {
            Ok(name) => registration::free_name(&name, taken),
            Err(_) => registration::automatic_name(of, row.get("name"), mac, taken),
        };
        let note = match wanted.parse::<NodeName>() {
            Ok(own) if own == name => None,
            Ok(_) => Some(format!(
                "it comes as {name}, since another device is called '{wanted}', regardless of case"
            )),
            Err(_) => Some(format!("it comes as {name}, since '{wanted}' is not a name of a device here")),
        };
        (name, note.into_iter().collect())
    }

    /// Gives a name and an address to a device of the dump.
    fn claim(&mut self, name: &NodeName, ip: Ipv4Addr) -> Result<(), No> {
        if let Some(other) = self.ips.get(&ip) {
            return Err(cannot(format!("its address {ip} is that of {other} as well")));
        }
        self.ips.insert(ip, name.to_string());
        self.names.insert(name.as_str().to_ascii_lowercase());
        Ok(())
    }

    fn name_is_free(&self, mac: Mac, name: &NodeName) -> Result<(), No> {
        let same = |other: &NodeName| other.as_str().eq_ignore_ascii_case(name.as_str());
        let nodes = self.existing.nodes.iter().map(|(mac, node)| (mac, &node.facts.name));
        let devices = self.existing.devices.iter().map(|(mac, device)| (mac, &device.name));
        match nodes.chain(devices).find(|(other, known)| **other != mac && same(known)) {
            Some((other, _)) => Err(conflict(format!("the name {name} is that of the device {other} here"))),
            None => Ok(()),
        }
    }

    /// Refuses a name or an address that another device has here.
    fn is_free(&self, mac: Mac, name: &NodeName, ip: Ipv4Addr) -> Result<(), No> {
        self.name_is_free(mac, name)?;
        if ip == self.existing.server_ip {
            return Err(cannot(format!("its address {ip} is the server's")));
        }
        let node = self.existing.nodes.iter().find(|(other, node)| **other != mac && node.ip == ip);
        if let Some((_, node)) = node {
            return Err(conflict(format!("the address {ip} is that of the node {} here", node.facts.name)));
        }
        let fixed = |device: &super::KnownDevice| device.is_named || device.device_type == DeviceType::Switch;
        let device = self
            .existing
            .devices
            .iter()
            .find(|(other, device)| **other != mac && device.ip == Some(ip) && fixed(device));
        if let Some((_, device)) = device {
            return Err(conflict(format!("the address {ip} is that of the device {} here", device.name)));
        }
        match self.existing.leases.get(&ip) {
            Some(other) if *other != mac => Err(conflict(format!(
                "the address {ip} is leased to the device {other}: it comes when that lease has ended"
            ))),
            _ => Ok(()),
        }
    }
}

/// A device in messages: its name and its Ethernet address.
fn label(row: &Row) -> String {
    match (row.get("name"), row.get("mac")) {
        (Some(name), Some(mac)) => format!("{name} ({mac})"),
        (Some(name), None) => name.to_owned(),
        (None, mac) => mac.unwrap_or("?").to_owned(),
    }
}

/// How a node that is here differs from that of the dump.
fn differences(known: &KnownNode, facts: &NodeFacts, ip: Ipv4Addr) -> Vec<String> {
    let own = &known.facts;
    let mut found = Vec::new();
    if own.name != facts.name {
        found.push(format!("the name {} (dump: {})", own.name, facts.name));
    }
    if known.ip != ip {
        found.push(format!("the address {} (dump: {ip})", known.ip));
    }
    if own.model != facts.model {
        found.push(format!("the model {} (dump: {})", own.model, facts.model));
    }
    let image = |image: &ImageRef| image.to_string();
    if own.image != facts.image {
        found.push(format!("the image {} (dump: {})", image(&own.image), image(&facts.image)));
    }
    if own.is_virtual != facts.is_virtual {
        let kind = if own.is_virtual { "a virtual machine" } else { "real hardware" };
        found.push(format!("{kind} as its machine"));
    }
    found
}
