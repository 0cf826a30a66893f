//! Facts in, findings out.

use super::*;
use crate::actions::setup::{
    facts::{BadInterface, Firewall, PROGRAMS},
    proposal::Used,
};

/// A machine on which all is as it should be.
fn good() -> Facts {
    Facts {
        server: false,
        missing: Vec::new(),
        missing_to_build: Vec::new(),
        is_service: true,
        runtime_missing: None,
        container: Some(Ok(())),
        ports: Vec::new(),
        dhcp: DhcpSearch::NoCable,
        firewalls: Ok(Vec::new()),
        disk: Disk {
            path: "/var/lib".into(),
            kind: "ext4".into(),
            handles: Ok(()),
            free: 50_000_000_000,
            free_for_recipes: 50_000_000_000,
        },
        kvm: Kvm::Works,
        tun: true,
        clock: Clock { synchronised: true, now: 2_000_000_000, program: 1_900_000_000 },
        random: true,
        cgroups: Cgroups::V2,
        interfaces: Vec::new(),
        foreign_bridge: None,
        used: Vec::new(),
        group_missing: None,
        account: true,
        strangers: Vec::new(),
    }
}

fn with_cable() -> Config {
    Config::parse("network: {walt-net: {raw-device: eth1}}").unwrap()
}

fn building() -> Intent {
    Intent { build: Some("pc-x86-64-default".into()), makes_accounts: true }
}

fn taken(port: u16, protocol: &str, holder: Option<&str>) -> Taken {
    let service = SERVICES.iter().find(|s| s.port == port && s.protocol == protocol).unwrap();
    Taken { service, holder: holder.map(|name| (7, name.to_owned())) }
}

#[test]
fn a_good_machine_is_ready() {
    let all = of(&Config::default(), &good(), &building());
    assert!(all.iter().all(|f| f.level == Level::Ok && f.remedy.is_none()), "{all:?}");
    assert!(!prevents(&all));
    let checks: Vec<&str> = all.iter().map(|f| f.check).collect();
    let expected = [
        "programs",
        "containers",
        "addresses",
        "interfaces",
        "ports",
        "firewalls",
        "disk",
        "kvm",
        "cgroups",
        "clock",
    ];
    assert_eq!(checks, expected);
}

type Change = fn(&mut Facts);

/// What makes a machine bad, whether it has a cable, how bad it is, and what is said.
const BAD: &[(Change, bool, Level, &[&str])] = &[
    (
        |f| f.missing = vec![&PROGRAMS[0]],
        false,
        Level::Problem,
        &["nft is missing", "apt-get install nftables"],
    ),
    (|f| f.missing = vec![&PROGRAMS[2]], false, Level::Warning, &["no virtual nodes", "qemu-system-x86"]),
    (
        |f| f.missing_to_build = [("mk", "mkp"), ("gcc", "gcc")].map(|(a, b)| (a.into(), b.into())).to_vec(),
        false,
        Level::Problem,
        &["pc-x86-64-default cannot be built", "mk, gcc", "apt-get install mkp gcc"],
    ),
    (
        |f| (f.runtime_missing, f.container) = (Some("crun".into()), None),
        false,
        Level::Problem,
        &["crun is missing"],
    ),
    (
        |f| f.container = Some(Err("EPERM".into())),
        false,
        Level::Warning,
        &["no image shells", "EPERM", "nest"],
    ),
    (
        |f| {
            let range = Range::parse("192.168.0.0/16").unwrap();
            f.used = vec![Used { range, by: "by a route of tun0".into() }];
        },
        false,
        Level::Problem,
        &["192.168.183.0/24 overlaps 192.168.0.0/16", "a route of tun0", "--address auto"],
    ),
    (
        |f| {
            let range = Range::parse("10.188.0.7/32").unwrap();
            f.used = vec![Used { range, by: "by docker".into() }];
        },
        false,
        Level::Problem,
        &["containers.network", "--container-network auto"],
    ),
    (
        |f| f.strangers = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec(),
        false,
        Level::Problem,
        &["6 node(s)", "a, b, c, d, e and others", "walt node remove"],
    ),
    (
        |f| f.foreign_bridge = Some("bridge".into()),
        false,
        Level::Problem,
        &["'walt-net', which this server did not make (bridge)", "network.walt-net.bridge"],
    ),
    (
        |f| f.interfaces = vec![BadInterface { prevents: true, message: "eth1 is in use".into() }],
        true,
        Level::Problem,
        &["eth1 is in use."],
    ),
    (
        |f| f.interfaces = vec![BadInterface { prevents: false, message: "no eth1".into() }],
        true,
        Level::Warning,
        &["no eth1."],
    ),
    (|f| f.ports = vec![taken(2049, "tcp", None)], false, Level::Problem, &["the kernel", "nfs-server"]),
    (
        |f| f.ports = vec![taken(111, "udp", Some("rpcbind"))],
        false,
        Level::Warning,
        &["UDP 111 (the port mapper) is held by rpcbind, process 7", "disable --now rpcbind.socket"],
    ),
    (|f| f.ports = vec![taken(67, "udp", Some("dnsmasq"))], false, Level::Warning, &["bind-dynamic"]),
    (|f| f.ports = vec![taken(67, "udp", Some("dhcpd"))], true, Level::Problem, &["INTERFACESv4"]),
    (|f| f.ports = vec![taken(80, "tcp", Some("nginx"))], true, Level::Problem, &["listen ADDRESS:80"]),
    (|f| f.ports = vec![taken(53, "tcp", Some("x"))], true, Level::Warning, &["Stop x, or make it listen"]),
    (
        |f| f.dhcp = DhcpSearch::Found(vec![([192, 0, 2, 1].into(), "02:00:00:00:00:01".parse().unwrap())]),
        true,
        Level::Warning,
        &["at 192.0.2.1 (02:00:00:00:00:01)", "Switch it off"],
    ),
    (|f| f.dhcp = DhcpSearch::NotDone("eth1 is down".into()), true, Level::Note, &["eth1 is down"]),
    (
        |f| f.firewalls = Ok(vec![Firewall { message: "ip filter INPUT drops".into(), solved: false }]),
        false,
        Level::Warning,
        &["ip filter INPUT drops.", "Make that firewall accept"],
    ),
    (
        |f| f.firewalls = Ok(vec![Firewall { message: "ip filter FORWARD drops".into(), solved: true }]),
        false,
        Level::Note,
        &["ip filter FORWARD drops."],
    ),
    (|f| f.firewalls = Err("EPERM".into()), false, Level::Problem, &["EPERM", "nf_tables"]),
    (
        |f| {
            f.disk.kind = "overlay".into();
            f.disk.handles = Err("Operation not supported".into());
        },
        false,
        Level::Problem,
        &["/var/lib (overlay)", "files by handle", "--state-dir"],
    ),
    (|f| f.disk.kind = "tmpfs".into(), false, Level::Warning, &["in memory"]),
    (|f| f.disk.free = 2_000_000_000, false, Level::Problem, &["/var/lib has 2.0 GB free", "pc-x86-64-mini"]),
    (|f| f.disk.free_for_recipes = 1_000_000, false, Level::Problem, &["/var/tmp has 0.0 GB free"]),
    (|f| f.disk.free = 5_000_000_000, false, Level::Warning, &["5.0 GB free; each"]),
    (
        |f| f.kvm = Kvm::Fails("under KVM a kernel hung for 10 s".into()),
        false,
        Level::Warning,
        &["hung for 10 s", "10 times slower", "nested"],
    ),
    (
        |f| f.kvm = Kvm::Fails("only root may use /dev/kvm; give it to the group kvm".into()),
        false,
        Level::Warning,
        &["chgrp kvm /dev/kvm"],
    ),
    (|f| f.kvm = Kvm::Fails("/dev/kvm: No such file".into()), false, Level::Warning, &["VT-x", "modprobe"]),
    (|f| f.kvm = Kvm::Unknown("no kernel".into()), false, Level::Note, &["no kernel", "falls back"]),
    (|f| f.tun = false, false, Level::Warning, &["modprobe tun"]),
    (|f| f.cgroups = Cgroups::V1, false, Level::Note, &["version 1", "unified_cgroup_hierarchy"]),
    (|f| f.cgroups = Cgroups::None, false, Level::Problem, &["mount -t cgroup2"]),
    (|f| f.random = false, false, Level::Warning, &["virtio-rng"]),
    (|f| f.clock.synchronised = false, false, Level::Note, &["NTP client"]),
    (|f| f.clock.now = 1_000_000_000, false, Level::Warning, &["this program was made later", "timedatectl"]),
];

#[test]
fn each_finding_has_its_level_and_its_remedy() {
    for (change, cable, level, says) in BAD {
        let mut facts = good();
        change(&mut facts);
        let config = if *cable { with_cable() } else { Config::default() };
        let all = of(&config, &facts, &building());
        let bad: Vec<&Finding> = all.iter().filter(|f| f.level != Level::Ok).collect();
        let [one] = bad.as_slice() else { panic!("{says:?}: {all:?}") };
        let text = format!("{} {}", one.message, one.remedy.as_deref().unwrap_or_default());
        assert_eq!(one.level, *level, "{text}");
        assert!(says.iter().all(|s| text.contains(s)), "{says:?}: {text}");
        assert_eq!(prevents(&all), *level == Level::Problem, "{text}");
        // What is bad has a remedy, in the message or after it.
        assert!(one.remedy.is_some() || one.check == "interfaces" || *level == Level::Note, "{text}");
    }
}

#[test]
fn what_setup_does_itself_is_found_by_the_check_only() {
    let facts = Facts { account: false, group_missing: Some("lab".into()), ..good() };
    let all = of(&Config::default(), &facts, &building());
    assert!(!all.iter().any(|f| f.check == "accounts"), "{all:?}");
    let all = of(&Config::default(), &facts, &Intent::default());
    let levels: Vec<Level> = all.iter().filter(|f| f.check == "accounts").map(|f| f.level).collect();
    assert_eq!(levels, [Level::Warning, Level::Problem]);
    // Without a build, no room for one is needed.
    let mut facts = good();
    facts.disk.free_for_recipes = 0;
    let all = of(&Config::default(), &facts, &Intent::default());
    assert!(!prevents(&all), "{all:?}");
    let mini = Intent { build: Some("pc-x86-64-mini".into()), makes_accounts: true };
    let mut facts = good();
    facts.disk.free = 1_000_000_000;
    let all = of(&Config::default(), &facts, &mini);
    assert!(!prevents(&all) && all.iter().any(|f| f.message.contains("1.0 GB free")), "{all:?}");
}

#[test]
fn the_service_sees_no_home_directories() {
    let config = Config::parse("state-dir: /home/lab/walt").unwrap();
    let problem = |facts: &Facts| {
        let all = of(&config, facts, &Intent::default());
        all.into_iter().find(|f| f.level == Level::Problem).map(|f| f.remedy.unwrap_or_default())
    };
    assert!(problem(&good()).unwrap().contains("ProtectHome=no"));
    assert_eq!(problem(&Facts { is_service: false, ..good() }), None);
}
