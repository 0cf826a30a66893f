//! Settings of nodes: keys, grammars, defaults. One row per setting.

use crate::NodeFacts;
use crate::life::BootMode;
use std::collections::BTreeMap;
use walt_types::Disks;

/// One setting.
pub struct Setting {
    /// Its key on the command line and in the database.
    pub key: &'static str,
    /// Its value when nobody set it.
    pub default: &'static str,
    /// Whether it exists for physical nodes too.
    pub physical: bool,
    /// What a value looks like, for messages.
    pub grammar: &'static str,
    check: fn(&str) -> bool,
}

/// Key of whether a PC boots by Secure Boot.
pub const BOOT_SECURE: &str = "boot.secure";
/// Models whose nodes have [`BOOT_SECURE`].
const SECURE_MODELS: [&str; 1] = ["pc-x86-64"];
/// Key of the disks of a virtual node.
pub const DISKS: &str = "disks";
/// Key of the setting that says where a node has its root file system.
pub const BOOT_MODE: &str = "boot.mode";
/// Key of how often a boot that has failed is tried again.
pub const BOOT_RETRIES: &str = "boot.retries";
/// Most retries: days of them.
const RETRIES_MAX: u32 = 1000;
/// Most cores that a virtual node may have; qemu's pc machine takes 255.
const CORES_MAX: u32 = 64;
/// Least memory in MiB in which the default image boots.
const RAM_MIN_MIB: u64 = 64;
/// Most memory in MiB (4 TiB).
const RAM_MAX_MIB: u64 = 4 << 20;

/// All settings, sorted by key.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: BOOT_MODE,
        default: "auto",
        physical: true,
        grammar: "'auto', 'network', 'hybrid-volatile' or 'hybrid-persistent'",
        check: |v| v == "auto" || BootMode::from_name(v).is_some(),
    },
    Setting {
        key: BOOT_RETRIES,
        default: "9",
        physical: true,
        grammar: "a number of tries from 0 to 1000",
        check: |v| v.bytes().all(|b| b.is_ascii_digit()) && v.parse().is_ok_and(|n: u32| n <= RETRIES_MAX),
    },
    Setting {
        key: "boot.road",
        default: "direct",
        physical: false,
        grammar: "'direct' or 'pxe'",
        check: |v| v == "direct" || v == "pxe",
    },
    Setting {
        key: BOOT_SECURE,
        default: "false",
        physical: true,
        grammar: "'true' or 'false'",
        check: |v| v == "true" || v == "false",
    },
    Setting {
        key: "boot.timeout",
        default: "180",
        physical: true,
        grammar: "'none' or a number of seconds, 60 or more",
        check: |v| v == "none" || v.parse().is_ok_and(|s: u32| s >= 60),
    },
    Setting {
        key: "cpu.cores",
        default: "4",
        physical: false,
        grammar: "a number from 1 to 64",
        check: |v| v.parse().is_ok_and(|n: u32| (1..=CORES_MAX).contains(&n)),
    },
    Setting {
        key: DISKS,
        default: "none",
        physical: false,
        grammar: "'none' or disks such as 8G,1T[template=ext4]",
        check: |v| v.parse::<Disks>().is_ok(),
    },
    Setting {
        key: "mount.persist",
        default: "true",
        physical: true,
        grammar: "'true' or 'false'",
        check: |v| v == "true" || v == "false",
    },
    Setting {
        key: "ram",
        default: "512M",
        physical: false,
        grammar: "a number followed by M or G, at least 64M",
        check: |v| ram_mib(v).is_some(),
    },
];

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

/// Why settings cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not of the form `key=value`.
    #[error("'{0}' is not of the form <setting>=<value>")]
    Form(String),
    /// No such key.
    #[error("no setting is called '{0}'; there are: {known}", known = keys())]
    Unknown(String),
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

/// Reads one `key=value` and checks it against the table.
pub fn parse(text: &str) -> Result<(&'static Setting, &str), SettingError> {
    let (key, value) = text.split_once('=').ok_or_else(|| SettingError::Form(text.into()))?;
    let setting = SETTINGS.iter().find(|s| s.key == key).ok_or_else(|| SettingError::Unknown(key.into()))?;
    if setting.key == DISKS
        && let Err(why) = value.parse::<Disks>()
    {
        return Err(SettingError::Detail { key: key.into(), why: why.to_string() });
    }
    if !(setting.check)(value) {
        return Err(SettingError::Value { key: key.into(), value: value.into(), grammar: setting.grammar });
    }
    Ok((setting, value))
}

/// Checks that a node can have a setting.
///
/// # Errors
/// It cannot; the error says which nodes can.
pub fn applies(setting: &Setting, node: &NodeFacts) -> Result<(), SettingError> {
    let name = node.name.to_string();
    if setting.key == BOOT_SECURE && (node.is_virtual || !SECURE_MODELS.contains(&node.model.as_str())) {
        let [model] = SECURE_MODELS;
        return Err(SettingError::NotSecurable { key: BOOT_SECURE, model, node: name });
    }
    if !setting.physical && !node.is_virtual {
        return Err(SettingError::NotApplicable { key: setting.key.to_owned(), node: name });
    }
    Ok(())
}

/// Whether a node's firmware runs signed programs only, by its settings that were changed.
pub fn is_secure(stored: &BTreeMap<String, String>) -> bool {
    stored.get(BOOT_SECURE).is_some_and(|value| value == "true")
}

/// All settings of a node with their values, defaults included.
pub fn effective(stored: &BTreeMap<String, String>, is_virtual: bool) -> BTreeMap<&'static str, String> {
    SETTINGS
        .iter()
        .filter(|s| if is_virtual { s.key != BOOT_SECURE } else { s.physical })
        .map(|s| (s.key, stored.get(s.key).cloned().unwrap_or_else(|| s.default.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_has() {
        let stored =
            BTreeMap::from([("ram".to_owned(), "2G".to_owned()), ("gone".to_owned(), "1".to_owned())]);
        let shown = |is_virtual| {
            let all = effective(&stored, is_virtual);
            all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(true),
            "boot.mode=auto boot.retries=9 boot.road=direct boot.timeout=180 cpu.cores=4 disks=none mount.persist=true ram=2G"
        );
        // A key of an older version is not shown, and a physical node has no memory to choose.
        assert_eq!(
            shown(false),
            "boot.mode=auto boot.retries=9 boot.secure=false boot.timeout=180 mount.persist=true"
        );
    }

    #[test]
    fn which_nodes_have_a_setting() {
        let node = |model: &str, is_virtual| NodeFacts {
            name: "n1".parse().unwrap(),
            model: model.parse().unwrap(),
            image: "alice/x".parse().unwrap(),
            is_virtual,
        };
        let can =
            |text: &str, node: &NodeFacts| applies(parse(text).unwrap().0, node).map_err(|e| e.to_string());
        let (machine, machine_of_board, vm) =
            (node("pc-x86-64", false), node("rpi-4-b", false), node("pc-x86-64", true));
        for all in [&machine, &machine_of_board, &vm] {
            assert_eq!(can("boot.timeout=60", all), Ok(()));
        }
        assert_eq!(can("ram=1G", &vm), Ok(()));
        assert_eq!(
            can("ram=1G", &machine),
            Err("'ram' applies to virtual nodes only, and n1 is a physical one".into())
        );
        assert_eq!(can("boot.secure=true", &machine), Ok(()));
        for other in [&machine_of_board, &vm] {
            let why = "'boot.secure' applies to physical nodes of model pc-x86-64 only, and n1 is not one";
            assert_eq!(can("boot.secure=true", other), Err(why.into()));
        }
        let stored = |value: &str| BTreeMap::from([("boot.secure".to_owned(), value.to_owned())]);
        assert!(is_secure(&stored("true")) && !is_secure(&stored("false")) && !is_secure(&BTreeMap::new()));
    }

    #[test]
    fn grammars() {
        for good in [
            "ram=512M",
            "ram=2G",
            "cpu.cores=1",
            "mount.persist=false",
            "boot.timeout=none",
            "boot.retries=0",
            "boot.road=pxe",
            "boot.secure=true",
            "boot.mode=auto",
            "boot.mode=network",
            "disks=8G,1T[template=ext4]",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "ram",
            "ram=",
            "ram=0M",
            "ram=+5G",
            "ram=99999999999999G",
            "cpu.cores=0",
            "x=1",
            "boot.timeout=5",
            "boot.retries=",
            "boot.retries=+1",
            "boot.road=PXE",
            "boot.mode=hybrid",
            "disks=8M",
            "boot.secure=yes",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        // Bounds: the last value that is right, and the first that is not.
        for (good, bad) in [
            ("ram=64M", "ram=63M"),
            ("ram=4096G", "ram=4097G"),
            ("cpu.cores=64", "cpu.cores=65"),
            ("boot.timeout=60", "boot.timeout=59"),
            ("boot.retries=1000", "boot.retries=1001"),
        ] {
            assert!(parse(good).is_ok() && parse(bad).is_err(), "{good}, {bad}");
        }
        let why = parse("x=1").err().expect("not a setting").to_string();
        assert_eq!(
            why,
            "no setting is called 'x'; there are: boot.mode, boot.retries, boot.road, boot.secure, boot.timeout, cpu.cores, disks, mount.persist, ram"
        );
        let why = parse("disks=0G").err().expect("not a value").to_string();
        assert_eq!(why, "cannot set 'disks': the disk '0G' is too small; a disk has at least 1G");
        assert!(SETTINGS.iter().all(|s| (s.check)(s.default)));
        assert!(SETTINGS.is_sorted_by_key(|s| s.key));
    }
}
