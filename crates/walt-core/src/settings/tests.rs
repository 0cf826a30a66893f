#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

use super::*;

fn node(model: &str, is_virtual: bool) -> NodeFacts {
    NodeFacts {
        name: "n1".parse().unwrap(),
        model: model.parse().unwrap(),
        image: "alice/x".parse().unwrap(),
        is_virtual,
    }
}

fn other(device_type: DeviceType, is_of_walt_net: bool) -> Holder<'static> {
    Holder::Other { name: "d1", device_type, is_of_walt_net }
}

fn stored(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What `key=value` is stored as, or why it is refused.
fn read(text: &str) -> Result<String, String> {
    parse(text).map(|change| change.effective().to_owned()).map_err(|e| e.to_string())
}

/// Of a row: values and what they are stored as, and what is not a value.
type Values = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

/// Of each row.
const VALUES: &[Values] = &[
    (
        "boot.delay",
        &[("0", "0"), ("3600", "3600"), ("random", "random")],
        &["-1", "3601", "+5", "1s", "Random"],
    ),
    (
        "boot.mode",
        &[("network", "network"), ("hybrid-volatile", "hybrid-volatile"), ("auto", "auto")],
        &["hybrid", "none"],
    ),
    ("boot.retries", &[("0", "0"), ("4294967295", "4294967295")], &["-1", "+1", "4294967296", "none"]),
    ("boot.road", &[("pxe", "pxe"), ("direct", "direct")], &["PXE", "ipxe"]),
    ("boot.secure", &[("true", "true"), ("false", "false")], &["yes", "True"]),
    ("boot.timeout", &[("60", "60"), ("none", "none")], &["59", "+60", "4294967296", "0"]),
    ("cpu.cores", &[("1", "1"), ("64", "64")], &["0", "65", "+1", "two"]),
    ("disks", &[("8G,1T[template=ext4]", "8G,1T[template=ext4]"), ("none", "none")], &["8M", "0G"]),
    ("expose", &[("80:8080,22:2222", "80:8080,22:2222"), ("none", "none")], &["80", "80:8080,81:8080"]),
    ("kexec.allow", &[("true", "true"), ("false", "false")], &["no"]),
    ("mount.persist", &[("true", "true"), ("false", "false")], &["0"]),
    ("netsetup", &[("lan", "LAN"), ("Nat", "NAT"), ("NAT", "NAT")], &["WAN", "none"]),
    (
        "networks",
        &[
            ("walt-net", "walt-net"),
            ("lab[lat=10ms,loss.up=1%],walt-net", "lab[lat=10ms,loss.up=1%],walt-net"),
        ],
        &["lab", "walt-net,lab[lat=-1ms]"],
    ),
    ("ram", &[("64M", "64M"), ("4096G", "4096G")], &["63M", "4097G", "0M", "+5G", "1g", "99999999999999G"]),
];

#[test]
fn every_row_has_good_and_bad_values_and_a_default() {
    let keys: Vec<&str> = VALUES.iter().map(|(key, ..)| *key).collect();
    let rows: Vec<&str> = SETTINGS.iter().map(|s| s.key).collect();
    for (key, good, bad) in VALUES {
        for (text, value) in *good {
            assert_eq!(read(&format!("{key}={text}")), Ok((*value).to_owned()), "{key}={text}");
        }
        for text in *bad {
            let why = read(&format!("{key}={text}")).expect_err(text);
            assert!(why.contains(&format!("'{key}'")), "{why}");
        }
    }
    for row in SETTINGS {
        // The default is a value like another, in the form in which it is stored; `key=` is the default.
        assert!(keys.contains(&row.key), "{} is not tested", row.key);
        assert_eq!(read(&format!("{}={}", row.key, row.default)), Ok(row.default.to_owned()));
        let unset = parse(&format!("{}=", row.key)).unwrap();
        assert_eq!((unset.value, unset.setting.default), (None, row.default));
        assert!(row.help.ends_with('.'), "{}", row.help);
    }
    assert!(rows.is_sorted());
}

#[test]
fn messages() {
    assert_eq!(
        read("x=1"),
        Err("no setting is called 'x'; there are: boot.delay, boot.mode, boot.retries, boot.road, boot.secure, \
             boot.timeout, cpu.cores, disks, expose, kexec.allow, mount.persist, netsetup, networks, ram ('walt help show \
             device-config' explains them)"
            .into())
    );
    assert_eq!(read("ram"), Err("'ram' is not of the form <setting>=<value>".into()));
    assert_eq!(
        read("disks=0G"),
        Err("cannot set 'disks': the disk '0G' is too small; a disk has at least 1G".into())
    );
    assert_eq!(read("netsetup=x"), Err("'x' is not a value of 'netsetup': it must be 'LAN' or 'NAT'".into()));
    assert_eq!(
        read("expose=80:1,81:1"),
        Err("cannot set 'expose': port 1 of the server is in it twice".into())
    );
}

#[test]
fn all_changes_or_none() {
    let (machine, vm) = (node("pc-x86-64", false), node("pc-x86-64", true));
    let why = |assignments: &[&str], holders: &[Holder<'_>]| {
        let assignments: Vec<String> = assignments.iter().map(|a| (*a).to_owned()).collect();
        changes(&assignments, holders).map(|c| c.len()).map_err(|e| e.to_string())
    };
    let (vm, machine) = (Holder::Node(&vm), Holder::Node(&machine));
    let (switch, unknown) = (other(DeviceType::Switch, true), other(DeviceType::Unknown, true));
    assert_eq!(why(&["ram=1G", "netsetup=nat", "boot.timeout="], &[vm]), Ok(3));
    assert_eq!(why(&["ram=1G", "ram=2G"], &[vm]), Err("the setting 'ram' is given twice".into()));
    assert_eq!(
        why(&["netsetup=nat", "ram=1G"], &[vm, machine]),
        Err("'ram' applies to virtual nodes only, and n1 is a physical one".into())
    );
    assert_eq!(
        why(&["expose=80:80"], &[vm, unknown]),
        Err("'expose' can be set for one device at a time: two devices cannot have one port of the server"
            .into())
    );
    for nothing in ["expose=none", "expose="] {
        assert_eq!(why(&[nothing], &[vm, unknown]), Ok(1));
    }
    assert_eq!(
        why(&["snmp.version=2"], &[switch, vm]),
        Err("'snmp.version' is a setting of switches, and n1 is a node".into())
    );
    assert_eq!(
        why(&["lldp.explore=true"], &[unknown]),
        Err("'lldp.explore' is a setting of switches, and d1 is a device of unknown type".into())
    );
    assert_eq!(
        why(&["poe.reboots=true"], &[switch]),
        Err("'poe.reboots' is a setting of managed switches, which this version does not support".into())
    );
    assert_eq!(why(&["ram=1G"], &[switch]), Err("'ram' applies to nodes only, and d1 is a switch".into()));
    for holder in [other(DeviceType::Server, true), other(DeviceType::Switch, false)] {
        let text = "'netsetup' applies to devices of walt-net other than the server, and d1 is not one";
        assert_eq!(why(&["netsetup=NAT"], &[holder]), Err(text.into()));
    }
    assert_eq!(why(&["netsetup=NAT"], &[switch, unknown, machine]), Ok(1));
}

/// A link changes while the node runs; a network card does not.
#[test]
fn networks_wait_for_a_boot_and_links_do_not() {
    let waiting = |old: &str, new: &str| {
        let effective = BTreeMap::from([(NETWORKS, new.to_owned())]);
        waiting_for_boot(&stored(&[(NETWORKS, old)]), &effective)
    };
    assert!(waiting("walt-net,lab", "lab[lat=10ms],walt-net").is_empty());
    assert_eq!(waiting("walt-net", "walt-net,lab"), [NETWORKS]);
    assert_eq!(waiting("walt-net,lab[bw=1Mbps]", "walt-net"), [NETWORKS]);
}

#[test]
fn what_a_device_has() {
    let changed = stored(&[("ram", "2G"), ("gone", "1")]);
    let shown = |all: BTreeMap<&str, String>| {
        all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        shown(effective(&changed, true)),
        "boot.delay=0 boot.mode=auto boot.retries=9 boot.road=direct boot.timeout=180 cpu.cores=4 disks=none \
         expose=none kexec.allow=true mount.persist=true netsetup=LAN networks=walt-net \
         ram=2G"
    );
    // A key of an older version is not shown, and a physical node has no memory to choose.
    assert_eq!(
        shown(effective(&changed, false)),
        "boot.mode=auto boot.retries=9 boot.secure=false boot.timeout=180 expose=none kexec.allow=true \
         mount.persist=true netsetup=LAN"
    );
    let nat = stored(&[("netsetup", "NAT")]);
    assert_eq!(shown(effective_of(&nat, other(DeviceType::Switch, true))), "expose=none netsetup=NAT");
    assert_eq!(shown(effective_of(&nat, other(DeviceType::Switch, false))), "");
    assert_eq!(shown(effective_of(&nat, other(DeviceType::Server, true))), "");
    let facts = node("rpi-4-b", false);
    assert!(!effective_of(&nat, Holder::Node(&facts)).contains_key("boot.secure"));
}

#[test]
fn which_nodes_have_a_setting() {
    let can = |text: &str, facts: &NodeFacts| {
        applies(parse(text).unwrap().setting, Holder::Node(facts)).map_err(|e| e.to_string())
    };
    let (machine, board, vm) = (node("pc-x86-64", false), node("rpi-4-b", false), node("pc-x86-64", true));
    for all in [&machine, &board, &vm] {
        assert_eq!(can("boot.timeout=60", all), Ok(()));
    }
    assert_eq!(can("ram=1G", &vm), Ok(()));
    assert_eq!(can("boot.secure=true", &machine), Ok(()));
    for other in [&board, &vm] {
        let why = "'boot.secure' applies to physical nodes of model pc-x86-64 only, and n1 is not one";
        assert_eq!(can("boot.secure=true", other), Err(why.into()));
    }
    assert!(is_secure(&stored(&[("boot.secure", "true")])));
    assert!(!is_secure(&stored(&[("boot.secure", "false")])) && !is_secure(&BTreeMap::new()));
}

#[test]
fn what_reaches_out_and_in() {
    assert_eq!(net_setup(&stored(&[("netsetup", "NAT")])), NetSetup::Nat);
    assert_eq!(net_setup(&BTreeMap::new()), NetSetup::Lan);
    assert_eq!(exposes(&stored(&[("expose", "80:8080")])).to_string(), "80:8080");
    assert!(exposes(&BTreeMap::new()).is_empty());
    assert_eq!((boot_delay("7"), boot_delay("random"), boot_delay("x")), (Some(7..=7), Some(1..=10), None));
}

#[test]
fn what_waits_for_a_boot() {
    let effective = effective(&stored(&[("ram", "2G"), ("netsetup", "NAT"), ("boot.retries", "1")]), true);
    let booted_with = [("ram", "1G"), ("netsetup", "NAT"), ("boot.retries", "9"), ("mount.persist", "true")];
    // The same value again is in effect, and what takes effect at once does not wait.
    assert_eq!(waiting_for_boot(&stored(&booted_with), &effective), ["ram"]);
    assert_eq!(
        keys_of(Effect::Boot).collect::<Vec<_>>(),
        ["boot.mode", "boot.secure", "mount.persist", "netsetup"]
    );
    assert_eq!(
        keys_of(Effect::Start).collect::<Vec<_>>(),
        ["boot.road", "cpu.cores", "disks", "networks", "ram"]
    );
}

/// The page has what the table says. `WALT_UPDATE_SNAPSHOTS=1` writes it.
#[test]
fn the_help_page_is_made_from_the_table() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/help/device-config.md");
    const MARK: &str = "## All settings\n\n";
    let text = std::fs::read_to_string(FILE).unwrap();
    let (start, rest) = text.split_once(MARK).expect("a section with all settings");
    let (_, end) = rest.split_once("\n## ").expect("a section behind it");
    let made = format!("{start}{MARK}{}\n## {end}", page());
    if std::env::var_os("WALT_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(FILE, &made).unwrap();
    }
    assert!(
        made == text,
        "docs/help/device-config.md is not what the table says: run this test with WALT_UPDATE_SNAPSHOTS=1"
    );
}
