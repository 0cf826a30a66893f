//! Interfaces of the machine that the configuration gives to the platform: the cable of walt-net, which becomes a port
//! of its bridge, and the interfaces of further networks, which get an address.
//!
//! ```text
//!   absent ──appears──▶ checked ──in use──▶ refused: the start of the server fails; later, it is an error in the log
//!      ▲                   │ free
//!      └────vanishes────── in the bridge ──down──▶ as it was found
//! ```
//! How an interface was found is written to [`RECORD`] before it is changed, so that `down` can restore it whenever the
//! server died. A record of an earlier boot of the machine counts for nothing: the kernel has forgotten our changes.

use crate::base::{
    config::{Config, OtherAddress, OtherNet},
    state::Base,
    wire::Wire,
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{fmt::Write as _, net::IpAddr, path::PathBuf};
use walt_api::Cable;
use walt_sys::net::{NetError, link, member, member::Member, sysctl};

/// File of the state directory with the interfaces as they were found.
const RECORD: &str = "interfaces.json";
/// Interfaces that a message lists at most.
const LISTED_MAX: usize = 12;

/// Why an interface cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum CableError {
    /// It does not exist: it may be misspelt, or an adapter that is not plugged in.
    #[error(
        "network.{network}.raw-device: there is no network interface '{device}' ({others}); it is used as soon as it appears"
    )]
    Absent {
        /// Name of the network.
        network: String,
        /// Name of the interface.
        device: String,
        /// The interfaces that exist, as text.
        others: String,
    },
    /// It is in use by something else.
    #[error("network.{network}.raw-device: the interface '{device}' {use_}")]
    InUse {
        /// Name of the network.
        network: String,
        /// Name of the interface.
        device: String,
        /// What uses it, and what to do.
        use_: String,
    },
    /// The kernel refused.
    #[error("network.{network}: {source}")]
    Kernel {
        /// Name of the network.
        network: String,
        /// Its answer.
        source: NetError,
    },
    /// The record cannot be written.
    #[error("{0:#}")]
    Record(anyhow::Error),
}

/// One interface as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    device: String,
    /// Its index, which tells an adapter that came back from the one before; 0 for an interface that the server makes.
    index: u32,
    was_up: bool,
    made: bool,
    attached: bool,
    ipv6: Option<sysctl::Previous>,
    address: Option<(IpAddr, u8)>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    boot_id: String,
    found: Vec<Found>,
}

impl Record {
    fn path(config: &Config) -> PathBuf {
        config.state_dir.join(RECORD)
    }

    /// The record of this boot of the machine; empty if there is none.
    fn load(config: &Config) -> Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("cannot read the boot id of the kernel")?
            .trim()
            .to_owned();
        let path = Self::path(config);
        let record: Self = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged: remove it", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(if record.boot_id == boot_id { record } else { Self { boot_id, found: Vec::new() } })
    }

    fn save(&self, config: &Config) -> Result<()> {
        let path = Self::path(config);
        if self.found.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(e).with_context(|| format!("cannot remove {}", path.display()))
                }
                _ => Ok(()),
            };
        }
        walt_sys::file::replace(&path, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds an interface. If it is known already, what it was like before stays.
    fn add(&mut self, config: &Config, found: Found) -> Result<()> {
        match self.found.iter_mut().find(|f| f.device == found.device) {
            Some(known) if known.index == found.index => {
                known.attached |= found.attached;
                known.ipv6 = known.ipv6.take().or(found.ipv6);
                known.address = known.address.or(found.address);
            }
            // An adapter of the same name has come back.
            Some(known) => *known = found,
            None => self.found.push(found),
        }
        self.save(config)
    }

    /// Notes the address that an interface gets from us.
    fn note_address(&mut self, config: &Config, link: &link::Link, address: (IpAddr, u8)) -> Result<()> {
        match self.found.iter_mut().find(|f| f.made && f.device == link.name) {
            Some(made) => {
                made.address = Some(address);
                self.save(config)
            }
            None => self.add(config, Found { address: Some(address), ..Found::of(link) }),
        }
    }

    /// Removes the address that an interface got from us, unless it is the one that is wanted.
    fn drop_address(&mut self, config: &Config, device: &str, wanted: Option<(IpAddr, u8)>) -> Result<()> {
        let Some(known) = self.found.iter_mut().find(|f| f.device == device) else { return Ok(()) };
        let Some((ip, prefix)) = known.address.filter(|a| Some(*a) != wanted) else { return Ok(()) };
        member::remove_address(device, ip, prefix)?;
        known.address = None;
        self.save(config)
    }
}

impl Found {
    fn of(link: &link::Link) -> Self {
        Self {
            device: link.name.clone(),
            index: link.index,
            was_up: link.up,
            made: false,
            attached: false,
            ipv6: None,
            address: None,
        }
    }

    /// Puts the interface back as it was found. An interface that is gone is as good.
    fn restore(&self) -> Result<()> {
        if self.made {
            return Ok(link::remove(&self.device)?);
        }
        if link::get(&self.device)?.is_none_or(|l| l.index != self.index) {
            return Ok(());
        }
        if let Some((address, prefix)) = self.address {
            member::remove_address(&self.device, address, prefix)?;
        }
        if self.attached {
            member::detach(&self.device)?;
        }
        if !self.was_up {
            member::set_down(&self.device)?;
        }
        if let Some(ipv6) = &self.ipv6 {
            sysctl::restore(ipv6)?;
        }
        Ok(())
    }
}

/// The interface that is the port of the bridge, if the platform has a cable.
pub fn port_name(config: &Config) -> Option<String> {
    let net = &config.network.walt_net;
    let raw = net.raw_device.as_deref()?;
    Some(net.vlan.map_or_else(|| raw.to_owned(), |vlan| member::vlan_name(raw, vlan)))
}

/// What uses an interface that would be a port of the bridge, and what to do about it.
fn use_of(member: &Member, bridge: &str) -> Option<String> {
    let own = "walt-net needs an interface of its own";
    if member.is_loopback {
        return Some(format!("is the machine's loopback interface: {own}"));
    }
    if member.link.kind == "bridge" {
        return Some(format!("is a bridge itself: name one of its ports, after taking it out ({own})"));
    }
    if member.is_default {
        return Some(format!("carries the default route, so the machine would lose its network: {own}"));
    }
    if let Some((name, kind)) = member.controller.as_ref().filter(|(name, _)| name != bridge) {
        let kind = if kind.is_empty() { "interface" } else { kind };
        return Some(format!("belongs to the {kind} '{name}': take it out first ({own})"));
    }
    let address = member.addresses.first()?;
    Some(format!(
        "has the address {address}: remove it from the system's network configuration ({own}, and the server's address is that of network.walt-net.ip)"
    ))
}

/// The names of the interfaces that exist, for a message.
fn existing() -> String {
    let Ok(links) = link::list() else { return "the kernel lists none".into() };
    let names: Vec<_> = links
        .into_iter()
        .filter(|l| !l.is_loopback && l.alias.is_empty() && l.kind != "bridge")
        .map(|l| l.name)
        .take(LISTED_MAX)
        .collect();
    match names.as_slice() {
        [] => "the machine has no other".into(),
        names => format!("the machine has {}", names.join(", ")),
    }
}

fn kernel(network: &str) -> impl FnOnce(NetError) -> CableError {
    let network = network.to_owned();
    |source| CableError::Kernel { network, source }
}

/// The interface with this VLAN on it, if one is named, made if necessary.
fn device(
    config: &Config,
    record: &mut Record,
    network: &str,
    raw: &str,
    vlan: Option<u16>,
) -> Result<Member, CableError> {
    let absent = || CableError::Absent { network: network.into(), device: raw.into(), others: existing() };
    let below = member::inspect(raw).map_err(kernel(network))?.ok_or_else(absent)?;
    let Some(vlan) = vlan else { return Ok(below) };
    let name = member::vlan_name(raw, vlan);
    record.add(config, Found::of(&below.link)).map_err(CableError::Record)?;
    if link::get(&name).map_err(kernel(network))?.is_none() {
        let made = Found { device: name.clone(), index: 0, made: true, ..Found::of(&below.link) };
        record.add(config, made).map_err(CableError::Record)?;
    }
    member::ensure_vlan(raw, vlan).map_err(kernel(network))?;
    member::inspect(&name).map_err(kernel(network))?.ok_or_else(absent)
}

/// Puts the interface of walt-net into the bridge, unless it is there.
fn connect(config: &Config, record: &mut Record) -> Result<(), CableError> {
    const NETWORK: &str = "walt-net";
    let net = &config.network.walt_net;
    let Some(raw) = &net.raw_device else { return Ok(()) };
    let port = device(config, record, NETWORK, raw, net.vlan)?;
    let is_ours = port.controller.as_ref().is_some_and(|(name, _)| *name == net.bridge);
    if !is_ours {
        if let Some(use_) = use_of(&port, &net.bridge) {
            let device = port.link.name.clone();
            return Err(CableError::InUse { network: NETWORK.into(), device, use_ });
        }
        let key = format!("net/ipv6/conf/{}/disable_ipv6", port.link.name);
        let before = sysctl::get(&key).map_err(kernel(NETWORK))?;
        let ipv6 = before.map(|value| sysctl::Previous { key, value });
        let is_made = record.found.iter().any(|f| f.made && f.device == port.link.name);
        if !is_made {
            let found = Found { attached: true, ipv6, ..Found::of(&port.link) };
            record.add(config, found).map_err(CableError::Record)?;
        }
        // A port needs no address of its own, not even the one that IPv6 makes.
        sysctl::set_interface("ipv6", &port.link.name, "disable_ipv6", "1").map_err(kernel(NETWORK))?;
    }
    member::attach(&port.link.name, &net.bridge).map_err(kernel(NETWORK))
}

/// Gives the interface of a further network its address: the fixed one, or what a DHCP server there has said.
fn address(
    config: &Config,
    record: &mut Record,
    wire: &Wire,
    name: &str,
    net: &OtherNet,
) -> Result<(), CableError> {
    let device = device(config, record, name, &net.raw_device, net.vlan)?;
    let wanted = match net.ip {
        OtherAddress::Fixed(ip) => Some((IpAddr::V4(ip.addr), ip.prefix)),
        OtherAddress::Dhcp => match wire.address(name) {
            Some(given) => given.map(|(ip, prefix)| (IpAddr::V4(ip), prefix)),
            // An address from before the server was restarted stays until the DHCP server has answered.
            None => return set_up(config, record, name, &device),
        },
    };
    record.drop_address(config, &device.link.name, wanted).map_err(CableError::Record)?;
    let Some((ip, prefix)) = wanted else { return Ok(()) };
    if !device.addresses.contains(&format!("{ip}/{prefix}")) {
        record.note_address(config, &device.link, (ip, prefix)).map_err(CableError::Record)?;
    }
    member::add_address(&device.link.name, ip, prefix).map_err(kernel(name))
}

/// Brings an interface up, so that a DHCP client can ask on it.
fn set_up(config: &Config, record: &mut Record, name: &str, device: &Member) -> Result<(), CableError> {
    if device.link.up {
        return Ok(());
    }
    if !record.found.iter().any(|f| f.device == device.link.name) {
        record.add(config, Found::of(&device.link)).map_err(CableError::Record)?;
    }
    member::set_up(&device.link.name).map_err(kernel(name))
}

/// Takes over the interfaces at the start of the server, and gives back those of an earlier configuration.
///
/// # Errors
/// An interface is in use by something else, or the kernel refuses. A missing interface is an error in the log only.
pub fn up(base: &Base) -> Result<()> {
    let config = base.config();
    let mut record = Record::load(config)?;
    let wanted: Vec<String> = wanted(config);
    let (keep, gone): (Vec<_>, Vec<_>) = record.found.drain(..).partition(|f| wanted.contains(&f.device));
    gone.iter().rev().try_for_each(Found::restore).context("cannot give back an interface")?;
    record.found = keep;
    record.save(config)?;
    for (name, net) in &config.network.others {
        match address(config, &mut record, base.wire(), name, net) {
            Err(e @ CableError::Absent { .. }) => tracing::error!("{e}"),
            other => other?,
        }
    }
    match connect(config, &mut record) {
        Err(e @ CableError::Absent { .. }) => {
            tracing::error!("{e}");
            base.wire().set_problem(Some(e.to_string()));
        }
        other => other?,
    }
    Ok(())
}

/// Names of all interfaces that the configuration needs.
fn wanted(config: &Config) -> Vec<String> {
    let net = &config.network.walt_net;
    let cable = net.raw_device.as_deref().map(|raw| (raw, net.vlan));
    let others = config.network.others.values().map(|n| (n.raw_device.as_str(), n.vlan));
    cable
        .into_iter()
        .chain(others)
        .flat_map(|(raw, vlan)| [Some(raw.to_owned()), vlan.map(|v| member::vlan_name(raw, v))])
        .flatten()
        .collect()
}

/// Follows the interfaces: one that has appeared is taken over, and a change of the cable is logged.
///
/// # Errors
/// The record cannot be read.
pub fn follow(base: &Base) -> Result<()> {
    let config = base.config();
    let mut record = Record::load(config)?;
    for (name, net) in &config.network.others {
        if let Err(e) = address(config, &mut record, base.wire(), name, net) {
            tracing::debug!("{e}");
        }
    }
    let Some(port) = port_name(config) else { return Ok(()) };
    let outcome = connect(config, &mut record).map_err(|e| e.to_string());
    let is_connected = outcome.is_ok();
    if base.wire().set_problem(outcome.clone().err()) {
        match outcome {
            Ok(()) => tracing::warn!("the interface '{port}' is back, and in walt-net again"),
            Err(e) => tracing::error!("nodes behind the cable cannot reach the server: {e}"),
        }
    }
    let carrier = is_connected && link::get(&port)?.is_some_and(|l| l.carrier);
    if base.wire().set_carrier(carrier) && is_connected {
        match carrier {
            true => tracing::info!("the cable of '{port}' is connected"),
            false => tracing::warn!("the cable of '{port}' is unplugged, or its other end is off"),
        }
    }
    Ok(())
}

/// Gives back all interfaces as they were found.
///
/// # Errors
/// The kernel refuses.
pub fn down(config: &Config) -> Result<()> {
    let mut record = Record::load(config)?;
    while let Some(found) = record.found.pop() {
        found.restore().with_context(|| format!("cannot give back the interface {}", found.device))?;
        record.save(config)?;
    }
    Ok(())
}

/// The cable for the status; `None` if the platform has none.
///
/// # Errors
/// The kernel does not answer.
pub fn describe(config: &Config, problem: Option<String>) -> Result<Option<Cable>> {
    let Some(port) = port_name(config) else { return Ok(None) };
    let net = &config.network.walt_net;
    let found = member::inspect(&port)?;
    let attached =
        found.as_ref().and_then(|m| m.controller.as_ref()).is_some_and(|(name, _)| *name == net.bridge);
    Ok(Some(Cable {
        device: net.raw_device.clone().unwrap_or_default(),
        vlan: net.vlan,
        attached,
        carrier: attached && found.as_ref().is_some_and(|m| m.link.carrier),
        speed: if attached { member::speed(&port)? } else { None },
        mtu: found.map(|m| m.link.mtu),
        problem: problem.filter(|_| !attached),
    }))
}

/// What `check-config` says about the interfaces of this machine: problems that the start of the server would meet.
///
/// # Errors
/// The kernel does not answer.
pub fn check(config: &Config) -> Result<Vec<String>> {
    let net = &config.network.walt_net;
    let mut problems = Vec::new();
    let mut see = |network: &str, raw: &str, is_port: bool| -> Result<()> {
        let (network, device) = (network.to_owned(), raw.to_owned());
        match member::inspect(raw)? {
            None => {
                problems.push(CableError::Absent { network, device, others: existing() }.to_string());
            }
            Some(member) if is_port => {
                let is_ours = member.controller.as_ref().is_some_and(|(name, _)| *name == net.bridge);
                if let Some(use_) = use_of(&member, &net.bridge).filter(|_| !is_ours) {
                    problems.push(CableError::InUse { network, device, use_ }.to_string());
                }
            }
            Some(_) => {}
        }
        Ok(())
    };
    if let Some(raw) = &net.raw_device {
        see("walt-net", raw, net.vlan.is_none())?;
    }
    for (name, other) in &config.network.others {
        see(name, &other.raw_device, false)?;
    }
    Ok(problems)
}

/// The cable as a line of the status.
pub fn text(cable: &Cable) -> String {
    let mut out = cable.device.clone();
    // Writing to a String cannot fail.
    if let Some(vlan) = cable.vlan {
        let _ = write!(out, ", VLAN {vlan}");
    }
    if let Some(problem) = &cable.problem {
        return problem.clone();
    }
    out += match (cable.attached, cable.carrier) {
        (false, _) => ": not in the bridge of walt-net",
        (true, false) => ": unplugged, or its other end is off",
        (true, true) => ": connected",
    };
    if let Some(speed) = cable.speed.filter(|_| cable.carrier) {
        let _ = write!(out, ", {speed} Mbit/s");
    }
    if let Some(mtu) = cable.mtu.filter(|mtu| *mtu != super::network::MTU_DEFAULT) {
        let _ = write!(out, ", MTU {mtu}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> Member {
        let link = link::Link {
            index: 7,
            name: "eth1".into(),
            kind: String::new(),
            alias: String::new(),
            mtu: 1500,
            controller: None,
            address: vec![2, 0, 0, 0, 0, 1],
            up: false,
            carrier: false,
            is_loopback: false,
            below: None,
        };
        Member { link, controller: None, addresses: Vec::new(), is_default: false, is_loopback: false }
    }

    #[test]
    fn an_interface_in_use_is_refused_with_a_reason() {
        assert_eq!(use_of(&free(), "walt-net"), None);
        let why = |change: fn(&mut Member)| {
            let mut member = free();
            change(&mut member);
            use_of(&member, "walt-net").expect("it is in use")
        };
        assert!(why(|m| m.is_loopback = true).contains("loopback"));
        assert!(why(|m| m.is_default = true).contains("default route"));
        assert!(why(|m| m.link.kind = "bridge".into()).contains("bridge itself"));
        assert!(why(|m| m.controller = Some(("br0".into(), "bridge".into()))).contains("bridge 'br0'"));
        assert!(why(|m| m.controller = Some(("bond0".into(), "bond".into()))).contains("bond 'bond0'"));
        assert!(why(|m| m.addresses = vec!["192.0.2.5/24".into()]).contains("192.0.2.5/24"));
        let mut ours = free();
        ours.controller = Some(("walt-net".into(), "bridge".into()));
        assert_eq!(use_of(&ours, "walt-net"), None);
    }

    #[test]
    fn what_was_found_first_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: dir.path().into(), ..Config::default() };
        let mut record = Record::load(&config).unwrap();
        assert!(record.found.is_empty() && !record.boot_id.is_empty());
        let first = Found { was_up: true, ..Found::of(&free().link) };
        record.add(&config, first.clone()).unwrap();
        record.add(&config, Found::of(&free().link)).unwrap();
        assert_eq!(Record::load(&config).unwrap().found, std::slice::from_ref(&first));
        // An adapter that came back has another index.
        let again = Found { index: 9, ..Found::of(&free().link) };
        record.add(&config, again.clone()).unwrap();
        assert_eq!(Record::load(&config).unwrap().found, [again]);
        // Another boot of the machine.
        record.boot_id = "other".into();
        record.save(&config).unwrap();
        assert!(Record::load(&config).unwrap().found.is_empty());
        record.found.clear();
        record.save(&config).unwrap();
        assert!(!Record::path(&config).exists());
    }

    #[test]
    fn lines_of_the_status() {
        let cable = Cable {
            device: "eth1".into(),
            vlan: None,
            attached: true,
            carrier: true,
            speed: Some(1000),
            mtu: Some(1500),
            problem: None,
        };
        assert_eq!(text(&cable), "eth1: connected, 1000 Mbit/s");
        let cable = Cable { vlan: Some(12), mtu: Some(9000), carrier: false, ..cable };
        assert_eq!(text(&cable), "eth1, VLAN 12: unplugged, or its other end is off, MTU 9000");
        let cable = Cable { attached: false, problem: Some("gone".into()), ..cable };
        assert_eq!(text(&cable), "gone");
    }
}
