//! The network functions against the real kernel, each test in a network namespace of its own. Needs root, `nft`
//! and `ip`.

#![allow(clippy::unwrap_used)] // Helpers of tests fail by panicking, as tests do.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;
use walt_sys::net::bridge::{self, BridgeSpec, Origin};
use walt_sys::net::container::{ContainerNetwork, setup_container_network};
use walt_sys::net::{
    NetError, in_netns, link, mac_from_seed, member, neighbour, new_netns, nft, sysctl, tap, uplink,
};

const RULES: &str = include_str!("../../walt-core/src/firewall.snapshot");
/// What the reviewed ruleset calls the links of containers.
fn veth(n: u8) -> String {
    let start = RULES.find("iifname \"wc").expect("a prefix") + "iifname \"".len();
    format!("{}{n}", &RULES[start..start + RULES[start..].find('*').expect("a star")])
}

/// Runs a test inside a fresh namespace, which vanishes with everything in it.
fn isolated(test: impl FnOnce(&OwnedFd) + Send) {
    let netns = new_netns().expect("a network namespace (root is needed)");
    in_netns(&netns, || {
        run("ip link set lo up");
        test(&netns);
        Ok(())
    })
    .expect("inside the namespace");
}

fn run(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output =
        Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn spec() -> BridgeSpec {
    BridgeSpec {
        name: "walt-net".into(),
        alias: "walt /test".into(),
        address: Some((Ipv4Addr::new(192, 168, 183, 1), 24)),
        mac: mac_from_seed("test"),
    }
}

fn sysctl_of(key: &str) -> String {
    sysctl::get(&format!("net/{key}")).unwrap().unwrap_or_default()
}

#[test]
fn a_bridge_is_made_adopted_and_removed() {
    isolated(|_| {
        assert_eq!(bridge::ensure(&spec()).unwrap(), Origin::Made);
        let made = link::get("walt-net").unwrap().unwrap();
        assert_eq!((made.kind.as_str(), made.alias.as_str(), made.up), ("bridge", "walt /test", true));
        assert_eq!(made.address, mac_from_seed("test"));
        let detail = run("ip -d link show walt-net");
        assert!(detail.contains("forward_delay 0 ") && detail.contains("mcast_snooping 0 "), "{detail}");
        assert!(run("ip addr show walt-net").contains("192.168.183.1/24"));
        assert!(!run("ip addr show walt-net").contains("inet6"));
        assert_eq!(sysctl_of("ipv4/conf/walt-net/arp_ignore"), "1");
        assert_eq!(sysctl_of("ipv4/conf/walt-net/arp_announce"), "2");

        let moved = BridgeSpec { address: Some((Ipv4Addr::new(10, 9, 8, 1), 20)), ..spec() };
        assert_eq!(bridge::ensure(&moved).unwrap(), Origin::Adopted);
        let addresses = run("ip addr show walt-net");
        assert!(addresses.contains("10.9.8.1/20") && !addresses.contains("192.168.183.1"), "{addresses}");
        assert_eq!(link::get("walt-net").unwrap().unwrap().index, made.index);

        bridge::remove(&moved).unwrap();
        bridge::remove(&moved).unwrap();
        assert_eq!(link::get("walt-net").unwrap(), None);
    });
}

#[test]
fn somebody_elses_bridge_is_refused_and_kept() {
    isolated(|_| {
        run("ip link add walt-net type bridge");
        let refused = bridge::ensure(&spec()).unwrap_err();
        assert!(matches!(refused, NetError::NotOurs { .. }), "{refused}");
        assert!(matches!(bridge::remove(&spec()), Err(NetError::NotOurs { .. })));
        run("ip link del walt-net");
        run("ip link add walt-net type veth peer name other0");
        let refused = bridge::ensure(&spec()).unwrap_err().to_string();
        assert!(refused.contains("not a bridge"), "{refused}");
        assert!(link::get("walt-net").unwrap().is_some());
    });
}

#[test]
fn neighbours_are_exactly_the_registered_ones() {
    isolated(|_| {
        bridge::ensure(&spec()).unwrap();
        let (a, b) = (Ipv4Addr::new(192, 168, 183, 2), Ipv4Addr::new(192, 168, 183, 3));
        neighbour::set("walt-net", a, [2, 0, 0, 0, 0, 1]).unwrap();
        let wanted = neighbour::Neighbours::from([(a, [2, 0, 0, 0, 0, 9]), (b, [2, 0, 0, 0, 0, 2])]);
        neighbour::sync("walt-net", &wanted).unwrap();
        neighbour::sync("walt-net", &wanted).unwrap();
        assert_eq!(neighbour::list("walt-net").unwrap(), wanted);
        assert!(run("ip neigh show dev walt-net").contains("PERMANENT"));
        neighbour::remove("walt-net", a).unwrap();
        neighbour::remove("walt-net", a).unwrap();
        assert_eq!(neighbour::list("walt-net").unwrap().len(), 1);
        assert!(matches!(neighbour::sync("absent", &wanted), Err(NetError::NoLink(_))));
    });
}

#[test]
fn a_tap_lives_as_long_as_its_descriptor() {
    isolated(|_| {
        bridge::ensure(&spec()).unwrap();
        let fd = tap::open("wt0", "walt-net", "tap of vn1").unwrap();
        let port = link::get("wt0").unwrap().unwrap();
        assert_eq!(port.controller, Some(link::get("walt-net").unwrap().unwrap().index));
        assert_eq!((port.alias.as_str(), port.up), ("tap of vn1", true));
        let busy = tap::open("wt0", "walt-net", "again").unwrap_err().to_string();
        assert!(busy.contains("busy"), "{busy}");
        drop(fd);
        assert_eq!(link::get("wt0").unwrap(), None);
        assert!(matches!(tap::open("wt1", "absent", "x"), Err(NetError::NoLink(_))));
        assert_eq!(link::get("wt1").unwrap(), None, "a tap that could not be attached is gone");
        assert!(tap::open("a name too long for it", "walt-net", "x").is_err());
    });
}

#[test]
fn a_bridge_without_address_is_for_its_ports_only() {
    isolated(|_| {
        let lab = BridgeSpec { name: "wn1".into(), alias: "walt /test lab".into(), address: None, ..spec() };
        // One that was made a moment before its server was killed has no alias yet.
        run("ip link add wn1 type bridge");
        assert_eq!(bridge::ensure(&lab).unwrap(), Origin::Adopted);
        assert_eq!(bridge::ensure(&lab).unwrap(), Origin::Adopted);
        let made = link::get("wn1").unwrap().unwrap();
        assert_eq!((made.alias.as_str(), made.up), ("walt /test lab", true));
        let flags = run("ip -o link show wn1");
        assert!(flags.contains("NOARP"), "{flags}");
        assert_eq!(run("ip -o address show dev wn1"), "");
        // With an address, one of this name would be somebody's.
        run("ip link add wn2 type bridge");
        let other = BridgeSpec { name: "wn2".into(), ..spec() };
        assert!(matches!(bridge::ensure(&other), Err(NetError::NotOurs { .. })));
        bridge::remove(&lab).unwrap();
        assert!(link::get("wn1").unwrap().is_none());
    });
}

#[test]
fn a_plain_tap_moves_between_bridges() {
    isolated(|_| {
        for name in ["wn1", "wl1"] {
            let made = BridgeSpec { name: name.into(), alias: "walt /test".into(), address: None, ..spec() };
            bridge::ensure(&made).unwrap();
        }
        let tap = tap::open_plain("wa1", "wn1", "link", 77).unwrap();
        let details = run("ip -d -o link show wa1");
        assert!(details.contains("qlen 77") && details.contains("vnet_hdr off"), "{details}");
        let controller = || link::get("wa1").unwrap().unwrap().controller;
        let index = |name: &str| Some(link::get(name).unwrap().unwrap().index);
        assert_eq!(controller(), index("wn1"));
        member::attach("wa1", "wl1").unwrap();
        assert_eq!(controller(), index("wl1"));
        assert!(tap::open_plain("wa1", "wn1", "link", 77).unwrap_err().to_string().contains("busy"));
        drop(tap);
        assert!(link::get("wa1").unwrap().is_none());
    });
}

#[test]
fn sysctls_come_back() {
    isolated(|_| {
        let before = sysctl_of("ipv4/ip_forward");
        let previous = sysctl::enable_forwarding().unwrap();
        assert_eq!(sysctl_of("ipv4/ip_forward"), "1");
        assert_eq!(sysctl::enable_forwarding().unwrap(), None);
        if let Some(previous) = previous {
            assert_eq!(previous.value, before);
            sysctl::restore(&previous).unwrap();
        }
        assert_eq!(sysctl_of("ipv4/ip_forward"), before);
    });
}

#[test]
fn the_uplink_is_the_default_route() {
    isolated(|_| {
        assert_eq!(uplink::get().unwrap(), None);
        run("ip link add up0 mtu 1400 type veth peer name other0");
        run("ip addr add 10.1.1.2/24 dev up0");
        run("ip link set up0 up");
        run("ip route add default via 10.1.1.1");
        assert_eq!(uplink::get().unwrap(), Some(uplink::Uplink { ifname: "up0".into(), mtu: 1400 }));
    });
}

/// A container reaches DNS on any address (answered at the gateway) and nothing else of the machine; what it sends on
/// is masqueraded.
#[test]
fn a_container_reaches_dns_and_the_world_only() {
    isolated(|_| {
        sysctl::enable_forwarding().unwrap();
        bridge::ensure(&spec()).unwrap();
        nft::apply(RULES).unwrap();
        nft::apply(RULES).unwrap();
        // The world outside: one namespace behind an uplink.
        let world = new_netns().unwrap();
        setup_world(&world);
        let container = new_netns().unwrap();
        let network = ContainerNetwork {
            host_ifname: veth(1),
            ip: Ipv4Addr::new(10, 188, 0, 5),
            gateway: Ipv4Addr::new(10, 188, 0, 1),
            mtu: 1400,
        };
        setup_container_network(&container, &network).unwrap();
        setup_container_network(&container, &network).unwrap();

        let dns = UdpSocket::bind("10.188.0.1:53").unwrap();
        dns.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ssh = TcpListener::bind("0.0.0.0:22").unwrap();
        let asked = in_netns(&container, || {
            assert!(run("ip link show eth0").contains("mtu 1400"));
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            // The resolver of the image is the server's address on walt-net.
            socket.send_to(b"question", "192.168.183.1:53").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            Ok(socket)
        })
        .unwrap();
        let mut buffer = [0; 64];
        let (n, from) = dns.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.ip().to_string().as_str()), (&b"question"[..], "10.188.0.5"));
        dns.send_to(b"answer", from).unwrap();
        let (n, from) = asked.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.to_string().as_str()), (&b"answer"[..], "192.168.183.1:53"));

        let wait = Duration::from_millis(400);
        let (reached, refused) = in_netns(&container, || {
            let reach = |a: &str| std::net::TcpStream::connect_timeout(&a.parse().unwrap(), wait);
            let peer = reach("203.0.113.1:7").map(|_| ());
            let own = ["10.188.0.1:22", "192.168.183.1:22", "203.0.113.2:22"].map(|a| reach(a).is_err());
            Ok((peer.is_ok(), own))
        })
        .unwrap();
        assert!(reached, "the world outside");
        assert_eq!(refused, [true; 3], "ssh of the machine, by each of its addresses");
        drop(ssh);
        assert!(link::get(&veth(1)).unwrap().is_some());
        drop(container);
    });
}

/// A namespace at 203.0.113.1 with a listener on port 7, which knows no route to the containers' network.
fn setup_world(world: &OwnedFd) {
    let uplink = ContainerNetwork {
        host_ifname: "up0".into(),
        ip: Ipv4Addr::new(203, 0, 113, 1),
        gateway: Ipv4Addr::new(203, 0, 113, 2),
        mtu: 1500,
    };
    setup_container_network(world, &uplink).unwrap();
    let listener = in_netns(world, || {
        run("ip route del default");
        Ok(TcpListener::bind("0.0.0.0:7").unwrap())
    })
    .unwrap();
    std::thread::spawn(move || listener.accept().map(drop));
}

/// A virtual node that takes another Ethernet or IP address is not heard.
#[test]
fn a_virtual_node_cannot_forge() {
    isolated(|_| {
        bridge::ensure(&spec()).unwrap();
        nft::apply(RULES).unwrap();
        let node = new_netns().unwrap();
        let cable = ContainerNetwork {
            host_ifname: "cable0".into(),
            ip: Ipv4Addr::new(192, 168, 183, 2),
            gateway: Ipv4Addr::new(192, 168, 183, 1),
            mtu: 1500,
        };
        setup_container_network(&node, &cable).unwrap();
        run("ip addr flush dev cable0");
        run("ip link set cable0 master walt-net");
        let in_node = |f: &(dyn Fn() -> bool + Sync)| in_netns(&node, || Ok(f())).unwrap();
        let ping = || Command::new("busybox").args(["ping", "-c1", "-W1", "192.168.183.1"]).output().unwrap();
        in_node(&|| run("ip link set eth0 address 52:54:00:00:00:02").is_empty());
        nft::apply(
            "add element bridge walt-walt-net taps { \"cable0\" }
             add element bridge walt-walt-net stations { \"cable0\" . 52:54:00:00:00:02 }
             add element bridge walt-walt-net addresses { \"cable0\" . 192.168.183.2 }
             add element bridge walt-walt-net dhcp_clients { \"cable0\" . 0x525400000002 }",
        )
        .unwrap();
        assert!(in_node(&|| ping().status.success()), "its own addresses");
        let server = UdpSocket::bind("192.168.183.1:67").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let client = in_netns(&node, || Ok(UdpSocket::bind("192.168.183.2:68").unwrap())).unwrap();
        // The forged one first: it would be received first.
        for last in [3, 2] {
            let mut message = [0; 300];
            message[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, last]);
            client.send_to(&message, "192.168.183.1:67").unwrap();
        }
        let mut heard = [0; 300];
        server.recv_from(&mut heard).unwrap();
        assert_eq!(heard[33], 2, "DHCP in the name of another");
        in_node(&|| {
            run("ip addr add 192.168.183.3/32 dev eth0");
            run("ip route replace 192.168.183.1 dev eth0 src 192.168.183.3").is_empty()
        });
        assert!(!in_node(&|| ping().status.success()), "another IP address");
        in_node(&|| {
            run("ip route replace 192.168.183.1 dev eth0 src 192.168.183.2");
            run("ip link set eth0 address 52:54:00:00:00:03").is_empty()
        });
        assert!(!in_node(&|| ping().status.success()), "another Ethernet address");
        in_node(&|| run("ip link set eth0 address 52:54:00:00:00:02").is_empty());
        assert!(in_node(&|| ping().status.success()), "its own addresses again");
    });
}

/// A station on the bridge reaches the services only, on the own address only.
#[test]
fn a_node_reaches_services_only() {
    isolated(|_| {
        bridge::ensure(&spec()).unwrap();
        nft::apply(RULES).unwrap();
        let node = new_netns().unwrap();
        // A cable: a veth pair with one end in the bridge.
        let cable = ContainerNetwork {
            host_ifname: "cable0".into(),
            ip: Ipv4Addr::new(192, 168, 183, 2),
            gateway: Ipv4Addr::new(192, 168, 183, 1),
            mtu: 1500,
        };
        setup_container_network(&node, &cable).unwrap();
        run("ip addr flush dev cable0");
        run("ip link set cable0 master walt-net");
        run("ip addr add 203.0.113.9/32 dev lo");
        let _listeners =
            ["0.0.0.0:2049", "0.0.0.0:22", "0.0.0.0:12347"].map(|a| TcpListener::bind(a).unwrap());
        let wait = Duration::from_millis(400);
        let reached = in_netns(&node, || {
            let addresses =
                ["192.168.183.1:2049", "192.168.183.1:12347", "192.168.183.1:22", "203.0.113.9:2049"];
            let reach = |a: &str| std::net::TcpStream::connect_timeout(&a.parse().unwrap(), wait).is_ok();
            Ok(addresses.map(reach))
        })
        .unwrap();
        assert_eq!(reached, [true, true, false, false]);
        nft::remove_table("inet", "walt-walt-net").unwrap();
        nft::remove_table("bridge", "walt-walt-net").unwrap();
        nft::remove_table("bridge", "walt-walt-net").unwrap();
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn foreign_firewalls_get_one_marked_rule_and_lose_it() {
    isolated(|_| {
        nft::apply(RULES).unwrap();
        nft::apply(
            "table ip filter {
               chain DOCKER-USER { counter return; }
               chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
               chain INPUT { type filter hook input priority 0; policy accept; }
             }
             table inet fw {
               chain inp { type filter hook input priority 5; policy accept; ct state established accept; counter reject; }
             }",
        )
        .unwrap();
        let before = run("nft list ruleset");
        let chains = nft::foreign_chains().unwrap();
        let names: Vec<String> = chains.iter().map(|c| format!("{c} {}", c.insert_into)).collect();
        assert_eq!(names, ["inet fw inp inp", "ip filter FORWARD DOCKER-USER"]);
        for _ in 0..2 {
            nft::accept_in_foreign_chains("walt-walt-net", &["walt-net", "wc0000-*"]).unwrap();
            let text = run("nft list ruleset");
            assert_eq!(text.matches("comment \"walt-walt-net\"").count(), 2 + 4, "{text}");
        }
        nft::remove_marked("walt-walt-net").unwrap();
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn a_bad_ruleset_is_refused_with_what_nft_said() {
    isolated(|_| {
        let error = nft::apply("table inet walt-x { chain c { nonsense } }").unwrap_err().to_string();
        assert!(error.contains("syntax error"), "{error}");
        assert_eq!(run("nft list ruleset"), "");
    });
}
