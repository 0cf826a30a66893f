//! The text of our nft tables, made from what the server owns. Pure: `walt_sys::net::nft` applies it.
//!
//! Two tables, both named `walt-<bridge>`, so that several servers on one machine have their own:
//!
//! * `inet` decides what nodes and containers may reach: from a node, the services of walt-net and nothing else of this
//!   machine, on any of its addresses, IPv4 or IPv6; from a container, DNS and the world outside, but neither this
//!   machine nor the nodes.
//! * `bridge` decides what a virtual node may say: its own Ethernet and IP address, no offers of DHCP or routes, and no
//!   DHCP in the name of another station. From the cable, nobody may speak in the name of the server or of a virtual
//!   node, or offer addresses or routes to one. Frames with a VLAN tag (IEEE 802.1Q) are not forwarded: walt-net is one
//!   network, and the cable may carry others.
//!
//! Further networks of virtual nodes, and the bridges of shaped links ([`crate::segments`]), carry frames between their
//! ports only: `inet` keeps their packets from this machine, which has no address on them and answers no ARP there.
//!
//! A drop here is final whatever other tables say. An accept is not: foreign tables may still drop.
//!
//! ```text
//! from bridge ─► input ─► nodes: established ─ not our address ─ services ─ old RPC: reset ─ drop
//! from veth   ─► input ─► containers: established ─ DNS at the gateway ─ drop
//! bridge ─► elsewhere     only addresses in set `nat`, masqueraded; segments fit the smaller of both links
//! veth ─► elsewhere       masqueraded; DNS to any address is turned to ours (the image's resolv.conf names walt-net's)
//! ```
//!
//! Nodes come and go by elements of sets, so that a table is rebuilt only when the server starts.

use crate::segments;
use std::fmt::Write;
use std::net::Ipv4Addr;
use walt_types::Mac;

/// TCP ports of walt-net that nodes may reach: DNS, HTTP boot, port mapper, NFS and MOUNT, node link.
pub const NODE_TCP_PORTS: [u16; 5] = [53, 80, 111, 2049, 12347];

/// UDP ports of walt-net that nodes may reach: DNS, DHCP, TFTP, port mapper, netconsole.
pub const NODE_UDP_PORTS: [u16; 5] = [53, 67, 69, 111, 12342];

/// TCP port that nodes are refused with a reset: programs in images published for the existing system still call its RPC
/// there. A call that is dropped would take them minutes; a reset ends it at once.
pub const REFUSED_TCP_PORT: u16 = 12345;

/// Port of DNS.
const DNS: u16 = 53;

/// Priority of our filters: before those of everybody else (0), so that no accept elsewhere hides our drops' counters.
const FILTER_PRIORITY: i32 = -10;

/// Where the field `chaddr` of a DHCP message begins, in bits behind the IP header: 8 bytes of UDP, 28 of DHCP
/// (RFC 2131 §2).
const CHADDR_BIT: u32 = (8 + 28) * 8;

/// What the tables depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Name of the bridge.
    pub bridge: String,
    /// The server's address on it.
    pub address: Ipv4Addr,
    /// The bridge's Ethernet address.
    pub mac: Mac,
    /// The port of the bridge that is a cable to other machines, if there is one.
    pub cable: Option<String>,
    /// Length of the prefix of walt-net, in bits.
    pub prefix: u8,
    /// Network of the containers.
    pub container_network: Ipv4Addr,
    /// Length of the prefix of the containers' network, in bits.
    pub container_prefix: u8,
    /// The server's address on the containers' links.
    pub gateway: Ipv4Addr,
    /// What the names of the containers' links start with; see [`veth_prefix`].
    pub veth_prefix: String,
    /// Nodes whose packets to the world outside are masqueraded.
    pub nat: Vec<Ipv4Addr>,
    /// Virtual nodes, each with its tap.
    pub taps: Vec<Tap>,
}

/// A virtual node's cable, and who may speak on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// Name of the tap.
    pub ifname: String,
    /// The node's Ethernet address.
    pub mac: Mac,
    /// The node's IP address.
    pub ip: Ipv4Addr,
}

/// Name of both tables, which is also the mark on rules in foreign tables.
pub fn table_name(bridge: &str) -> String {
    format!("walt-{bridge}")
}

/// What the names of the container links of a server start with: 7 bytes, different for each bridge, so that 8 remain
/// for the container.
pub fn veth_prefix(bridge: &str) -> String {
    format!("wc{}-", server_mark(bridge))
}

/// What makes names of a server's interfaces its own: 4 digits, a hash of the name of its bridge.
pub fn server_mark(bridge: &str) -> String {
    format!("{:04x}", name_hash(bridge))
}

/// The name of a tap: the same for the same server and node, and within the 15 bytes of an interface name.
pub fn tap_name(bridge: &str, mac: &Mac) -> String {
    format!("wt{}-{}", server_mark(bridge), mac.tail())
}

/// FNV-1a, folded to 16 bits: two servers' bridges must differ, nobody attacks their names.
fn name_hash(name: &str) -> u16 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (hash >> 16) as u16 ^ hash as u16
}

/// Both tables, each replacing what is there of it, in one transaction.
pub fn ruleset(firewall: &Firewall) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_inet(&mut text, firewall).and_then(|()| write_bridge(&mut text, firewall));
    text
}

/// Removes both tables, whether they are there or not.
pub fn remove(bridge: &str) -> String {
    let table = table_name(bridge);
    ["inet", "bridge"]
        .iter()
        .map(|family| format!("table {family} {table}\ndelete table {family} {table}\n"))
        .collect()
}

/// Lets only this node speak on this tap. Apply it before the tap is attached.
pub fn add_tap(bridge: &str, tap: &Tap) -> String {
    tap_elements("add", bridge, tap)
}

/// Takes the permission back. The table must be there; the elements need not.
pub fn remove_tap(bridge: &str, tap: &Tap) -> String {
    tap_elements("add", bridge, tap) + &tap_elements("delete", bridge, tap)
}

/// Makes these the addresses that reach the world outside, and no others, in one transaction.
pub fn set_nat<'a>(bridge: &str, addresses: impl IntoIterator<Item = &'a Ipv4Addr>) -> String {
    let (table, all) = (table_name(bridge), list(addresses));
    let add =
        if all.is_empty() { String::new() } else { format!("add element inet {table} nat {{ {all} }}\n") };
    format!("flush set inet {table} nat\n{add}")
}

fn tap_elements(verb: &str, bridge: &str, tap: &Tap) -> String {
    let (table, Tap { ifname, mac, ip }) = (table_name(bridge), tap);
    format!(
        "{verb} element bridge {table} taps {{ \"{ifname}\" }}\n\
         {verb} element bridge {table} stations {{ \"{ifname}\" . {mac} }}\n\
         {verb} element bridge {table} addresses {{ \"{ifname}\" . {ip} }}\n\
         {verb} element bridge {table} virtual_macs {{ {mac} }}\n\
         {verb} element bridge {table} virtual_ips {{ {ip} }}\n\
         {verb} element bridge {table} dhcp_clients {{ {} }}\n",
        dhcp_client(tap)
    )
}

/// A tap, and the client that may ask for an address on it: nft has no type for the field `chaddr`.
fn dhcp_client(tap: &Tap) -> String {
    let [a, b, c, d, e, f] = tap.mac.0;
    format!("\"{}\" . 0x{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}", tap.ifname)
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn elements<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { String::new() } else { format!(" elements = {{ {} }};", items.join(", ")) }
}

/// In the same order, each one once.
fn unique<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all = Vec::new();
    for item in items {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    all
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn write_inet(text: &mut String, f: &Firewall) -> std::fmt::Result {
    let table = table_name(&f.bridge);
    let (bridge, veth, gateway, own) = (&f.bridge, format!("{}*", f.veth_prefix), f.gateway, f.address);
    let bits = u32::from(f.address);
    let network = Ipv4Addr::from(bits & mask(f.prefix));
    let broadcast = Ipv4Addr::from(bits | !mask(f.prefix));
    let (net_prefix, containers) = (f.prefix, format!("{}/{}", f.container_network, f.container_prefix));
    let (segments, links) = (segments::segment_prefix(bridge), segments::link_prefix(bridge));
    let (tcp, udp, nat) = (list(NODE_TCP_PORTS), list(NODE_UDP_PORTS), elements(&f.nat));
    write!(
        text,
        r#"table inet {table}
delete table inet {table}
table inet {table} {{
	set nat {{ type ipv4_addr;{nat} }}
	chain nodes {{
		ct state established,related accept
		meta nfproto ipv6 counter drop
		ip daddr != {{ {own}, {broadcast}, 255.255.255.255 }} counter drop
		icmp type echo-request accept
		udp dport {{ {udp} }} accept
		tcp dport {{ {tcp} }} accept
		tcp dport {REFUSED_TCP_PORT} counter reject with tcp reset
		counter drop
	}}
	chain containers {{
		ct state established,related accept
		ip daddr {gateway} udp dport {DNS} accept
		ip daddr {gateway} tcp dport {DNS} accept
		ip daddr {gateway} icmp type echo-request accept
		counter drop
	}}
	chain to_server {{
		type filter hook input priority {FILTER_PRIORITY}; policy accept;
		iifname "{bridge}" goto nodes
		iifname "{veth}" goto containers
		iifname "{segments}*" counter drop
		iifname "{links}*" counter drop
		iifname != "lo" ip daddr {gateway} counter drop
	}}
	chain through_server {{
		type filter hook forward priority {FILTER_PRIORITY}; policy accept;
		iifname "{bridge}" oifname "{bridge}" accept
		iifname "{segments}*" oifname "{segments}*" accept
		iifname "{links}*" oifname "{links}*" accept
		iifname "{segments}*" counter drop
		iifname "{links}*" counter drop
		oifname "{segments}*" counter drop
		oifname "{links}*" counter drop
		iifname "{bridge}" oifname "{veth}" counter drop
		iifname "{bridge}" ip saddr @nat tcp flags syn / syn,rst tcp option maxseg size set rt mtu
		oifname "{bridge}" ip daddr @nat tcp flags syn / syn,rst tcp option maxseg size set rt mtu
		iifname "{bridge}" ip saddr @nat accept
		iifname "{bridge}" counter drop
		oifname "{bridge}" ip daddr @nat ct state established,related accept
		oifname "{bridge}" counter drop
		iifname "{veth}" oifname "{veth}" counter drop
		iifname "{veth}" ip saddr {containers} accept
		iifname "{veth}" counter drop
		oifname "{veth}" ct state established,related accept
		oifname "{veth}" counter drop
	}}
	chain before_routing {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "{veth}" udp dport {DNS} dnat ip to {gateway}
		iifname "{veth}" tcp dport {DNS} dnat ip to {gateway}
	}}
	chain after_routing {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {containers} oifname != {{ "lo", "{bridge}", "{veth}" }} masquerade
		ip saddr @nat ip daddr != {network}/{net_prefix} oifname != {{ "lo", "{bridge}", "{links}*" }} masquerade
	}}
}}
"#
    )
}

fn write_bridge(text: &mut String, f: &Firewall) -> std::fmt::Result {
    let table = table_name(&f.bridge);
    let taps = elements(f.taps.iter().map(|t| format!("\"{}\"", t.ifname)));
    let stations = elements(f.taps.iter().map(|t| format!("\"{}\" . {}", t.ifname, t.mac)));
    let addresses = elements(f.taps.iter().map(|t| format!("\"{}\" . {}", t.ifname, t.ip)));
    let clients = elements(f.taps.iter().map(dhcp_client));
    // A node may have two taps: that of a shaped link's process speaks for it as well.
    let macs = elements(unique(std::iter::once(f.mac).chain(f.taps.iter().map(|t| t.mac))));
    let ips = elements(unique(std::iter::once(f.address).chain(f.taps.iter().map(|t| t.ip))));
    let cables = elements(f.cable.iter().map(|name| format!("\"{name}\"")));
    write!(
        text,
        r#"table bridge {table}
delete table bridge {table}
table bridge {table} {{
	set taps {{ type ifname;{taps} }}
	set stations {{ type ifname . ether_addr;{stations} }}
	set addresses {{ type ifname . ipv4_addr;{addresses} }}
	set dhcp_clients {{ typeof iifname . @th,{CHADDR_BIT},48;{clients} }}
	set cables {{ type ifname;{cables} }}
	set virtual_macs {{ type ether_addr;{macs} }}
	set virtual_ips {{ type ipv4_addr;{ips} }}
	chain virtual_node {{
		iifname . ether saddr != @stations counter drop
		ether type arp goto virtual_node_arp
		ether type ip goto virtual_node_ip
		ether type ip6 goto virtual_node_ip6
		counter drop
	}}
	chain virtual_node_arp {{
		iifname . arp saddr ether != @stations counter drop
		arp saddr ip 0.0.0.0 accept
		iifname . arp saddr ip != @addresses counter drop
		accept
	}}
	chain virtual_node_ip {{
		udp sport 67 counter drop
		udp dport 67 iifname . @th,{CHADDR_BIT},48 != @dhcp_clients counter drop
		ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
		iifname . ip saddr != @addresses counter drop
		accept
	}}
	chain virtual_node_ip6 {{
		icmpv6 type nd-router-advert counter drop
		udp sport 547 counter drop
		accept
	}}
	chain from_cable {{
		ether saddr @virtual_macs counter drop
		ether type arp arp saddr ip @virtual_ips counter drop
		ether type ip ip saddr @virtual_ips counter drop
		accept
	}}
	chain from_ports {{
		type filter hook prerouting priority -310; policy accept;
		iifname @taps goto virtual_node
		iifname @cables goto from_cable
	}}
	chain between_ports {{
		type filter hook forward priority -310; policy accept;
		iifname @cables ether type {{ 8021q, 8021ad }} counter drop
		oifname @cables ether type {{ 8021q, 8021ad }} counter drop
		iifname @taps ether type {{ 8021q, 8021ad }} counter drop
		iifname @cables oifname @taps ether type ip udp sport 67 counter drop
		iifname @cables oifname @taps icmpv6 type nd-router-advert counter drop
	}}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Firewall {
        Firewall {
            bridge: "walt-net".into(),
            address: Ipv4Addr::new(192, 168, 183, 1),
            mac: "02:00:00:00:00:01".parse().expect("an address"),
            cable: None,
            prefix: 24,
            container_network: Ipv4Addr::new(10, 188, 0, 0),
            container_prefix: 24,
            gateway: Ipv4Addr::new(10, 188, 0, 1),
            veth_prefix: veth_prefix("walt-net"),
            nat: vec![],
            taps: vec![],
        }
    }

    fn tap() -> Tap {
        let mac = "52:54:00:12:34:56".parse().expect("an address");
        Tap { ifname: tap_name("walt-net", &mac), mac, ip: Ipv4Addr::new(192, 168, 183, 2) }
    }

    /// The order of the rules is the security of the server: any change of the text must be meant.
    #[test]
    fn the_text_is_as_reviewed() {
        let full = Firewall {
            nat: vec![Ipv4Addr::new(192, 168, 183, 9)],
            taps: vec![tap()],
            cable: Some("eth1".into()),
            ..sample()
        };
        let reviewed = include_str!("firewall.snapshot");
        let text = ruleset(&full);
        if std::env::var_os("WALT_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/firewall.snapshot"), &text)
                .expect("write");
        }
        assert_eq!(text, reviewed);
    }

    #[test]
    fn empty_sets_have_no_elements() {
        let text = ruleset(&sample());
        for set in ["nat", "taps", "stations", "addresses", "dhcp_clients", "cables"] {
            let line = text.lines().find(|l| l.trim_start().starts_with(&format!("set {set} "))).expect(set);
            assert!(!line.contains("elements"), "{line}");
        }
        // The server's own addresses are always there.
        assert!(
            text.contains("set virtual_macs { type ether_addr; elements = { 02:00:00:00:00:01 }; }"),
            "{text}"
        );
    }

    #[test]
    fn names_fit_an_interface() {
        for bridge in ["walt-net", "b", "a-bridge-name15"] {
            assert_eq!(veth_prefix(bridge).len(), 7);
            assert!(tap_name(bridge, &tap().mac).len() <= 15);
        }
        assert_ne!(veth_prefix("walt-net"), veth_prefix("walt-net2"));
    }

    #[test]
    fn masks() {
        assert_eq!(mask(0), 0);
        assert_eq!(mask(24), 0xffff_ff00);
        assert_eq!(mask(32), u32::MAX);
        assert_eq!(mask(200), u32::MAX);
    }

    #[test]
    fn removal_is_of_both_tables_whether_they_are_there_or_not() {
        assert_eq!(
            remove("b"),
            "table inet walt-b\ndelete table inet walt-b\ntable bridge walt-b\ndelete table bridge walt-b\n"
        );
    }

    #[test]
    fn single_changes() {
        assert_eq!(
            add_tap("walt-net", &tap()).replace(&tap().ifname, "TAP"),
            "add element bridge walt-walt-net taps { \"TAP\" }\n\
             add element bridge walt-walt-net stations { \"TAP\" . 52:54:00:12:34:56 }\n\
             add element bridge walt-walt-net addresses { \"TAP\" . 192.168.183.2 }\n\
             add element bridge walt-walt-net virtual_macs { 52:54:00:12:34:56 }\n\
             add element bridge walt-walt-net virtual_ips { 192.168.183.2 }\n\
             add element bridge walt-walt-net dhcp_clients { \"TAP\" . 0x525400123456 }\n"
        );
        let remove = remove_tap("walt-net", &tap());
        assert_eq!(remove.lines().filter(|l| l.starts_with("add element")).count(), 6);
        assert_eq!(remove.lines().filter(|l| l.starts_with("delete element")).count(), 6);
        let ips = [9, 10].map(|last| Ipv4Addr::new(192, 168, 183, last));
        assert_eq!(
            set_nat("b", &ips),
            "flush set inet walt-b nat\nadd element inet walt-b nat { 192.168.183.9, 192.168.183.10 }\n"
        );
        assert_eq!(set_nat("b", &[]), "flush set inet walt-b nat\n");
    }
}
