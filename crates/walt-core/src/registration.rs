//! What a machine is, and what it is called, that the server did not make: it shows up by DHCP.

use walt_types::{DeviceType, Mac, NodeName};

/// Longest part of a machine's own name that is taken over, so that the suffixes fit a DNS label.
const OWN_PART_MAX: usize = 48;
/// Longest text of a machine that is kept, in characters.
const TOLD_MAX: usize = 100;
/// The word in names of devices of unknown type.
const UNKNOWN: &str = "unknown";
/// Prefixes of the Ethernet addresses of Netgear's switches.
const SWITCHES: [[u8; 3]; 3] = [[0x6c, 0xb0, 0xce], [0x28, 0xc6, 0x8e], [0x44, 0x94, 0xfc]];

/// The type of a device that does not say what it is.
pub fn type_of(mac: Mac) -> DeviceType {
    match SWITCHES.iter().any(|prefix| mac.0.starts_with(prefix)) {
        true => DeviceType::Switch,
        false => DeviceType::Unknown,
    }
}

/// The name of a new device: the one that the machine gives itself or its type, with the end of its Ethernet
/// address, and a number if that is taken.
pub fn automatic_name(
    of: DeviceType,
    host_name: Option<&str>,
    mac: Mac,
    is_taken: impl Fn(&NodeName) -> bool,
) -> NodeName {
    let tail = mac.tail();
    let base = host_name
        .map(own_part)
        .map(|own| if own.ends_with(&format!("-{tail}")) { own } else { format!("{own}-{tail}") })
        .and_then(|name| name.parse::<NodeName>().ok())
        // Invariant: a type and six digits are a name.
        .unwrap_or_else(|| format!("{of}-{tail}").parse().expect("a valid name"));
    free_name(&base, is_taken)
}

/// The name of a device whose type becomes known, if its present one says that it is unknown: for clarity, it
/// gets an automatic one.
pub fn clear_name(
    present: &NodeName,
    of: DeviceType,
    host_name: Option<&str>,
    mac: Mac,
    is_taken: impl Fn(&NodeName) -> bool,
) -> Option<NodeName> {
    let says_unknown = |name: &str| name.to_ascii_lowercase().contains(UNKNOWN);
    let own = host_name.filter(|name| !says_unknown(name));
    says_unknown(present.as_str()).then(|| automatic_name(of, own, mac, is_taken))
}

/// This name, or if it is taken, the same with the first number that is free.
pub fn free_name(wanted: &NodeName, is_taken: impl Fn(&NodeName) -> bool) -> NodeName {
    let numbered = (2_u64..).map(|n| {
        let number = format!("-{n}");
        // A name that is as long as can be loses its end to the number.
        let room = NodeName::MAX - number.len();
        let start = wanted.as_str();
        format!("{}{number}", &start[..start.len().min(room)])
    });
    std::iter::once(wanted.as_str().to_owned())
        .chain(numbered)
        .filter_map(|name| name.parse().ok())
        .find(|name| !is_taken(name))
        // Invariant: names with a number are valid, and only finitely many are taken.
        .expect("some number is free")
}

/// A text that a machine sent, as it is kept: without control characters, and cut.
pub fn told(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TOLD_MAX).collect()
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
    use DeviceType as T;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x18, 0xd5, 0x5d]);

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn names() {
        let named = |host: Option<&str>| automatic_name(T::Node, host, MAC, |_| false).to_string();
        assert_eq!(named(None), "node-18d55d");
        assert_eq!(named(Some("Pi_4.example.org")), "pi-4-18d55d");
        assert_eq!(named(Some("pi-18d55d")), "pi-18d55d");
        assert_eq!(named(Some("server")), "server-18d55d");
        for bad in ["", "4pi", "..", "-", "é", "../../etc"] {
            assert_eq!(named(Some(bad)), "node-18d55d", "{bad}");
        }
        assert!(named(Some(&"a".repeat(300))).len() <= 63);
        let taken = |name: &NodeName| ["node-18d55d", "node-18d55d-2"].contains(&name.as_str());
        assert_eq!(automatic_name(T::Node, None, MAC, taken).as_str(), "node-18d55d-3");
        for (of, start) in [(T::Unknown, "unknown"), (T::Switch, "switch")] {
            assert_eq!(automatic_name(of, None, MAC, |_| false).as_str(), format!("{start}-18d55d"));
            assert_eq!(automatic_name(of, Some("tv"), MAC, |_| false).as_str(), "tv-18d55d");
        }
    }

    #[test]
    fn names_that_say_unknown() {
        let clear = |present: &str, host| {
            let found = clear_name(&name(present), T::Switch, host, MAC, |n| n.as_str() == "switch-18d55d-2");
            found.map(|n| n.to_string())
        };
        assert_eq!(clear("unknown-18d55d", None).as_deref(), Some("switch-18d55d"));
        assert_eq!(clear("my-Unknown", Some("apu")).as_deref(), Some("apu-18d55d"));
        assert_eq!(clear("unknown-18d55d", Some("Unknown")).as_deref(), Some("switch-18d55d"));
        assert_eq!(clear("printer", Some("apu")), None);
    }

    #[test]
    fn names_with_numbers() {
        let from = |wanted: &str, taken: &[&str]| {
            free_name(&name(wanted), |n| taken.contains(&n.as_str())).to_string()
        };
        assert_eq!(from("pi", &[]), "pi");
        assert_eq!(from("pi", &["pi", "pi-2"]), "pi-3");
        let long = "a".repeat(63);
        assert_eq!(from(&long, &[&long]), format!("{}-2", "a".repeat(61)));
        let dashed = format!("{}-bc", "a".repeat(60));
        assert_eq!(from(&dashed, &[&dashed]), format!("{}--2", "a".repeat(60)));
        let almost = "a".repeat(62);
        assert_eq!(from(&almost, &[&almost]), format!("{}-2", "a".repeat(61)));
        assert_eq!(from("aaa", &["aaa"]), "aaa-2");
    }

    #[test]
    fn types() {
        for (mac, expected) in [
            ("6c:b0:ce:00:00:01", T::Switch),
            ("28:c6:8e:00:00:01", T::Switch),
            ("44:94:fc:18:d5:5d", T::Switch),
            ("44:94:fd:00:00:01", T::Unknown),
            ("52:54:00:6c:b0:ce", T::Unknown),
        ] {
            assert_eq!(type_of(mac.parse().unwrap()), expected, "{mac}");
        }
    }

    #[test]
    fn what_machines_say_is_cut() {
        assert_eq!(told("PXEClient\u{1b}[31m\0é"), "PXEClient[31mé");
        assert_eq!(told(&"é".repeat(101)), "é".repeat(100));
    }
}
