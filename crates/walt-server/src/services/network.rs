//! The server's network configuration of the machine, which `down` removes: packet filter, bridge, permanent
//! neighbours, forwarding for containers, accept rules in other firewalls.

use crate::{
    base::state::Base,
    base::{
        config::Config,
        db::{self, DeviceRow, LeaseRow, NodeRow},
    },
    services::cable,
};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};
use walt_core::{firewall, segments};
use walt_sys::net::{bridge, container, link, neighbour, nft, sysctl, uplink};
use walt_types::{NetSetup, NetworkName};

/// Largest packet assumed when the server has no uplink, in bytes (Ethernet's).
pub(super) const MTU_DEFAULT: u32 = 1500;

/// Ethernet address of a bridge: a function of its name and its server, so that nodes' ARP caches stay valid when the
/// bridge is created again.
pub fn bridge_mac(config: &Config) -> walt_types::Mac {
    walt_types::Mac(walt_sys::net::mac_from_seed(&alias(config)))
}

/// The mark of this server's bridge, and of its rules in other programs' chains.
pub(super) fn alias(config: &Config) -> String {
    format!("{ALIAS_WORD}{} {}", config.state_dir.display(), config.bridge())
}

fn bridge_spec(config: &Config) -> bridge::BridgeSpec {
    let net = &config.network.walt_net;
    bridge::BridgeSpec {
        name: net.bridge.clone(),
        alias: alias(config),
        address: Some((net.ip.addr, net.ip.prefix)),
        mac: bridge_mac(config).0,
    }
}

/// The rules, with the taps of all virtual nodes and the addresses `nat`, so that none is cut off when the server
/// restarts.
fn filter(config: &Config, nodes: &[NodeRow], nat: Vec<Ipv4Addr>) -> firewall::Firewall {
    let net = &config.network.walt_net;
    firewall::Firewall {
        bridge: net.bridge.clone(),
        address: net.ip.addr,
        mac: bridge_mac(config),
        cable: cable::port_name(config),
        prefix: net.ip.prefix,
        container_network: config.containers.network.network(),
        container_prefix: config.containers.network.prefix,
        gateway: config.container_gateway(),
        veth_prefix: firewall::veth_prefix(&net.bridge),
        nat,
        taps: nodes.iter().filter(|n| n.facts.is_virtual).flat_map(|node| taps(config, node)).collect(),
    }
}

/// The interfaces on which a virtual node speaks on walt-net: its tap, and while its link is shaped, that of the link.
fn taps(config: &Config, node: &NodeRow) -> [firewall::Tap; 2] {
    let names = segments::link_names(config.bridge(), node.mac, &NetworkName::walt_net());
    [names.tap, names.network_end].map(|ifname| firewall::Tap { ifname, mac: node.mac, ip: node.ip })
}

/// Permits the traffic of a new virtual node on its tap.
pub fn add_tap(config: &Config, node: &NodeRow) -> Result<()> {
    let add = taps(config, node).map(|tap| firewall::add_tap(config.bridge(), &tap));
    nft::apply(&add.concat()).context("cannot add the packet filter rules of a node")?;
    neighbour::set(config.bridge(), node.ip, node.mac.0).context("cannot set the neighbour of a node")
}

/// Removes the permission for the tap of a removed node.
pub fn remove_tap(config: &Config, node: &NodeRow) -> Result<()> {
    let remove = taps(config, node).map(|tap| firewall::remove_tap(config.bridge(), &tap));
    nft::apply(&remove.concat()).context("cannot remove the packet filter rules of a node")?;
    neighbour::remove(config.bridge(), node.ip).context("cannot remove the neighbour of a node")
}

/// Addresses of the devices whose setting `netsetup` is NAT.
pub fn nat_addresses(base: &Base) -> Result<BTreeSet<Ipv4Addr>> {
    let (nodes, stored, devices, of_devices) = base.db().with(|c| {
        Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?, DeviceRow::all(c)?, db::of_devices(c)?))
    })?;
    let is_nat = |settings: Option<&db::Settings>| {
        settings.is_some_and(|s| walt_core::settings::net_setup(s) == NetSetup::Nat)
    };
    let of_nodes = nodes.iter().filter(|n| is_nat(stored.get(&n.mac))).map(|n| n.ip);
    let others = devices.iter().filter(|d| is_nat(of_devices.get(&d.mac))).filter_map(|d| d.ip);
    let net = base.config().network.walt_net.ip;
    Ok(of_nodes.chain(others).filter(|ip| net.contains(*ip)).collect())
}

/// Makes these the addresses whose packets to the world outside are masqueraded, and no others.
pub fn set_nat(config: &Config, addresses: &BTreeSet<Ipv4Addr>) -> Result<()> {
    nft::apply(&firewall::set_nat(config.bridge(), addresses))
        .context("cannot change the packet filter for the setting 'netsetup'")
}

/// The link of a session's container.
pub fn container_network(config: &Config, slot: u32) -> Result<container::ContainerNetwork> {
    let ip = config
        .containers
        .network
        .stations()
        .filter(|ip| *ip != config.container_gateway())
        .nth(slot as usize)
        .with_context(|| {
            format!("no free address in containers.network {}", config.containers.network.network_text())
        })?;
    let mtu = uplink::get()?.map_or(MTU_DEFAULT, |u| u.mtu);
    Ok(container::ContainerNetwork {
        host_ifname: format!("{}{slot}", firewall::veth_prefix(config.bridge())),
        ip,
        gateway: config.container_gateway(),
        mtu,
    })
}

/// The forwarding settings from before the first WalT server of this machine enabled forwarding. All servers share
/// this file; the last one to go down restores the settings.
const FORWARDING_RECORD: &str = "/run/walt-forwarding.json";
/// First word of the alias of every server's bridge.
const ALIAS_WORD: &str = "walt ";

/// Whether another server of this machine has its bridge up.
fn others_are_up() -> Result<bool> {
    Ok(link::list()?.iter().any(|l| l.alias.starts_with(ALIAS_WORD)))
}

/// Sets everything up, or repairs what is missing.
pub fn up(base: &Base) -> Result<()> {
    let config = base.config();
    let nodes = base.db().with(NodeRow::all)?;
    let nat = nat_addresses(base)?.into_iter().collect();
    nft::apply(&firewall::ruleset(&filter(config, &nodes, nat)))
        .context("cannot set up the packet filter")?;
    bridge::ensure(&bridge_spec(config)).context("cannot set up the bridge of walt-net")?;
    cable::up(base)?;
    if let Some(previous) = sysctl::enable_forwarding()? {
        std::fs::write(FORWARDING_RECORD, serde_json::to_vec(&previous)?)
            .with_context(|| format!("cannot write {FORWARDING_RECORD}"))?;
    }
    neighbours(base)?;
    beside_foreign_firewalls(config)?;
    Ok(())
}

/// Sets permanent neighbours for all nodes and leases, so that no other station receives their traffic.
pub fn neighbours(base: &Base) -> Result<()> {
    let (nodes, leases) = base.db().with(|c| Ok((NodeRow::all(c)?, LeaseRow::all(c)?)))?;
    // Nodes override leases: a node may have taken over the address of a lease.
    let leases = leases.into_iter().map(|l| (l.ip, l.mac.0));
    let wanted: BTreeMap<_, _> = leases.chain(nodes.into_iter().map(|n| (n.ip, n.mac.0))).collect();
    neighbour::sync(base.config().bridge(), &wanted).context("cannot set the neighbours of walt-net")
}

/// Sets the permanent neighbour of a new physical node.
pub fn node_neighbour(config: &Config, node: &NodeRow) -> Result<()> {
    neighbour::set(config.bridge(), node.ip, node.mac.0).context("cannot set the neighbour of a node")
}

/// Removes the permanent neighbour of a removed physical node.
pub fn remove_neighbour(config: &Config, node: &NodeRow) -> Result<()> {
    neighbour::remove(config.bridge(), node.ip).context("cannot remove the neighbour of a node")
}

/// Sets the permanent neighbour of a station with a lease.
pub fn lease_neighbour(config: &Config, lease: &walt_netboot::dhcp::Lease) -> Result<()> {
    neighbour::set(config.bridge(), lease.ip, lease.mac.0).context("cannot set the neighbour of a device")
}

/// Adds accept rules to other programs' chains that would drop our traffic.
pub fn beside_foreign_firewalls(config: &Config) -> Result<()> {
    let containers = format!("{}*", firewall::veth_prefix(config.bridge()));
    // What passes between ports of a bridge passes the chains of others too, on machines with br_netfilter.
    let networks = format!("{}*", segments::segment_prefix(config.bridge()));
    let links = format!("{}*", segments::link_prefix(config.bridge()));
    let interfaces = [config.bridge(), &containers, &networks, &links];
    let chains = nft::accept_in_foreign_chains(&alias(config), &interfaces)
        .context("cannot read the rules of other programs")?;
    for chain in chains {
        tracing::info!(
            ?chain,
            "another firewall drops forwarded packets: added a marked rule that accepts our traffic"
        );
    }
    Ok(())
}

/// Rules of other programs that would drop our traffic, and whether rules of ours prevent it.
pub fn foreign_rules(config: &Config) -> Result<Vec<walt_api::ForeignRule>> {
    let found = nft::foreign_rules(&alias(config)).context("cannot read the rules of other programs")?;
    let mut rules: Vec<_> = found
        .into_iter()
        .map(|(chain, help)| {
            let what = match help {
                nft::Help::Accepted => "drops unknown traffic; a marked rule of ours accepts our traffic",
                nft::Help::Pending => "drops unknown traffic; a rule of ours will be added within a minute",
                nft::Help::None => "drops unknown traffic at a point where a rule of ours has no effect: configure it to accept the traffic of walt-net",
            };
            let accepted = help == nft::Help::Accepted;
            walt_api::ForeignRule { message: format!("{chain} {what}"), chain, accepted }
        })
        .collect();
    if nft::legacy_iptables() {
        rules.push(walt_api::ForeignRule {
            chain: "iptables".into(),
            accepted: false,
            message: "rules of legacy iptables exist, which nft can neither show nor change: make them accept the traffic of walt-net".into(),
        });
    }
    Ok(rules)
}

/// Removes everything.
pub fn down(config: &Config) -> Result<()> {
    cable::down(config)?;
    super::segments::down(config)?;
    bridge::remove(&bridge_spec(config)).context("cannot remove the bridge of walt-net")?;
    nft::apply(&firewall::remove(config.bridge())).context("cannot remove our packet filter")?;
    nft::remove_marked(&alias(config)).context("cannot remove our rules from other firewalls")?;
    if !others_are_up()?
        && let Ok(text) = std::fs::read(FORWARDING_RECORD)
    {
        let previous: sysctl::Previous =
            serde_json::from_slice(&text).with_context(|| format!("{FORWARDING_RECORD} is damaged"))?;
        sysctl::restore(&previous)?;
        std::fs::remove_file(FORWARDING_RECORD)
            .with_context(|| format!("cannot remove {FORWARDING_RECORD}"))?;
    }
    Ok(())
}
