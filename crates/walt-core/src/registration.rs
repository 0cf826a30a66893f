//! What a machine is called that the server did not make: it shows up by DHCP and registers itself.

use walt_types::{Mac, NodeName};

/// Longest part of a machine's own name that is taken over, so that the suffixes fit a DNS label.
const OWN_PART_MAX: usize = 48;
/// What a node without a name of its own is called.
const TYPE: &str = "node";

/// The name of a new node: the one that the machine gives itself or `node`, with the end of its Ethernet
/// address, and a number if that is taken.
pub fn automatic_name(host_name: Option<&str>, mac: Mac, is_taken: impl Fn(&NodeName) -> bool) -> NodeName {
    let tail = mac.tail();
    let base = host_name
        .map(own_part)
        .map(|own| if own.ends_with(&format!("-{tail}")) { own } else { format!("{own}-{tail}") })
        .filter(|name| name.parse::<NodeName>().is_ok())
        .unwrap_or_else(|| format!("{TYPE}-{tail}"));
    let numbered = (2_u64..).map(|n| format!("{base}-{n}"));
    std::iter::once(base.clone())
        .chain(numbered)
        .filter_map(|name| name.parse().ok())
        .find(|name| !is_taken(name))
        // Invariant: names with a number are valid, and only finitely many are taken.
        .expect("some number is free")
}

fn own_part(host_name: &str) -> String {
    let label = host_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let own: String = label.chars().map(clean).take(OWN_PART_MAX).collect();
    own.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let mac: Mac = "52:54:00:18:d5:5d".parse().unwrap();
        let named = |host: Option<&str>| automatic_name(host, mac, |_| false).to_string();
        assert_eq!(named(None), "node-18d55d");
        assert_eq!(named(Some("Pi_4.example.org")), "pi-4-18d55d");
        assert_eq!(named(Some("pi-18d55d")), "pi-18d55d");
        assert_eq!(named(Some("server")), "server-18d55d");
        for bad in ["", "4pi", "..", "-", "é", "../../etc"] {
            assert_eq!(named(Some(bad)), "node-18d55d", "{bad}");
        }
        assert!(named(Some(&"a".repeat(300))).len() <= 63);
        let taken = |name: &NodeName| ["node-18d55d", "node-18d55d-2"].contains(&name.as_str());
        assert_eq!(automatic_name(None, mac, taken).as_str(), "node-18d55d-3");
    }
}
