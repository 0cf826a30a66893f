//! Names and addresses of what belongs to the networks of virtual nodes, made of what they are for: so a server finds
//! again what an earlier one made, and two servers of one machine do not meet.
//!
//! | name | what |
//! |---|---|
//! | `wn<server><network>` | bridge of a network, shared by all nodes that have it |
//! | `wt<server>-<node>`, `wx<server><card>` | tap of qemu: for walt-net, for another network |
//! | `wl<server><card>` | bridge of a shaped link: nothing else is on it |
//! | `wa<server><card>`, `wb<server><card>` | taps of the process of a shaped link: on that bridge, on the network's |
//!
//! `<server>` is a hash of its bridge, 4 digits; the others are 9, of a network's name or of a node and a network.

use crate::firewall;
use walt_types::{Mac, NetworkName};

/// First byte of made addresses: of one station, locally administered.
const LOCAL: u8 = 0x02;
/// Digits of a hash in a name: what is left of the 15 bytes of an interface.
const DIGITS: usize = 9;

/// What the names of a server's bridges for networks start with.
pub fn segment_prefix(bridge: &str) -> String {
    format!("wn{}", firewall::server_mark(bridge))
}

/// What the names of a server's bridges for shaped links start with.
pub fn link_prefix(bridge: &str) -> String {
    format!("wl{}", firewall::server_mark(bridge))
}

/// The bridge of a network of a server.
pub fn segment_name(bridge: &str, network: &NetworkName) -> String {
    if network.is_walt_net() {
        return bridge.to_owned();
    }
    format!("{}{}", segment_prefix(bridge), digits(network.as_str()))
}

/// The interfaces of the link between a node and a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkNames {
    /// The tap of qemu.
    pub tap: String,
    /// The bridge of the network.
    pub segment: String,
    /// The bridge of the link, while it is shaped.
    pub bridge: String,
    /// The tap of the link's process towards the node.
    pub node_end: String,
    /// The tap of the link's process towards the network.
    pub network_end: String,
}

/// The interfaces of the link between a node and a network, on the server of this bridge.
pub fn link_names(bridge: &str, node: Mac, network: &NetworkName) -> LinkNames {
    let card = format!("{}{}", firewall::server_mark(bridge), digits(&format!("{node} {network}")));
    LinkNames {
        tap: if network.is_walt_net() { firewall::tap_name(bridge, &node) } else { format!("wx{card}") },
        segment: segment_name(bridge, network),
        bridge: format!("wl{card}"),
        node_end: format!("wa{card}"),
        network_end: format!("wb{card}"),
    }
}

/// Ethernet address of a node's card on a network: on walt-net its own one, elsewhere one that is always the same.
pub fn card_mac(node: Mac, network: &NetworkName) -> Mac {
    if network.is_walt_net() {
        return node;
    }
    let digest = blake3::hash(format!("card {node} {network}").as_bytes());
    let [a, b, c, d, e, ..] = *digest.as_bytes();
    Mac([LOCAL, a, b, c, d, e])
}

fn digits(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);

    fn network(name: &str) -> NetworkName {
        name.parse().expect("a name")
    }

    #[test]
    fn names_fit_an_interface_and_differ() {
        let mut all = Vec::new();
        for bridge in ["walt-net", "b"] {
            for (node, name) in [(NODE, "walt-net"), (NODE, "lab"), (Mac([0x52, 0x54, 0, 1, 2, 4]), "lab")] {
                let LinkNames { tap, segment: _, bridge, node_end, network_end } =
                    link_names(bridge, node, &network(name));
                all.extend([tap, bridge, node_end, network_end]);
            }
            all.extend(["lab", "lab2"].map(|name| segment_name(bridge, &network(name))));
        }
        assert!(all.iter().all(|name| name.len() <= 15), "{all:?}");
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "two interfaces of one name");
    }

    #[test]
    fn names_stay() {
        let names = link_names("walt-net", NODE, &network("lab"));
        assert_eq!(names, link_names("walt-net", NODE, &network("lab")));
        assert_eq!(names.segment, segment_name("walt-net", &network("lab")));
        for (name, start) in [(&names.tap, "wx87c9"), (&names.bridge, "wl87c9"), (&names.segment, "wn87c9")] {
            assert!(name.starts_with(start) && name.len() == 15, "{name}");
        }
        assert!(names.bridge.starts_with(&link_prefix("walt-net")));
        assert!(names.segment.starts_with(&segment_prefix("walt-net")));
        let walt_net = link_names("walt-net", NODE, &network("walt-net"));
        assert_eq!((walt_net.tap.as_str(), walt_net.segment.as_str()), ("wt87c9-010203", "walt-net"));
    }

    #[test]
    fn cards_have_addresses_of_their_own() {
        let other = Mac([0x52, 0x54, 0, 1, 2, 4]);
        assert_eq!(card_mac(NODE, &network("walt-net")), NODE);
        let lab = card_mac(NODE, &network("lab"));
        assert_eq!(lab, card_mac(NODE, &network("lab")));
        assert_eq!(lab.0[0], 2);
        assert!(lab != card_mac(other, &network("lab")) && lab != card_mac(NODE, &network("lab2")));
    }
}
