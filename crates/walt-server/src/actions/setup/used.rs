//! Which ranges of IPv4 addresses this machine uses: its routes, networks of docker, podman and libvirt that are not up
//! now, and leases it has got from DHCP servers.
//!
//! A file that cannot be read or understood is skipped: the proposal is then less careful, and nothing fails.

use crate::{
    actions::setup::proposal::{Range, Used},
    base::{config::Config, programs::find_program},
};
use anyhow::Result;
use serde_json::Value;
use std::{fs, net::Ipv4Addr, path::Path};
use walt_core::firewall;
use walt_sys::net::routes;

/// Routes to more than this prefix are ways to the rest of the world, such as the halves (`0.0.0.0/1`) that VPNs set.
const PREFIX_MIN: u8 = 8;
/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Networks that docker and podman have without any configuration.
const DOCKER: (&str, &str) = ("dockerd", "172.17.0.0/16");
const PODMAN: (&str, &str) = ("podman", "10.88.0.0/16");

/// All ranges, except those of a server with this configuration.
///
/// # Errors
/// The kernel does not list its routes.
pub fn list(config: &Config) -> Result<Vec<Used>> {
    let veth = firewall::veth_prefix(config.bridge());
    let is_own = |device: &str| device == config.bridge() || device.starts_with(&veth);
    let mut all: Vec<Used> = routes::list()?
        .into_iter()
        .filter(|r| r.prefix >= PREFIX_MIN && !is_own(&r.device))
        .map(|r| Used {
            range: Range { addr: r.destination, prefix: r.prefix },
            by: match r.device.as_str() {
                "" => "by a route".into(),
                device => format!("by a route of {device}"),
            },
        })
        .collect();
    all.extend(in_files(Path::new("/")));
    for (program, range) in [DOCKER, PODMAN] {
        if let Some(range) = Range::parse(range).filter(|_| find_program(program).is_some()) {
            all.push(Used { range, by: format!("by {program}, by default") });
        }
    }
    // Addresses of a network are in the network: one line for both.
    all.sort_by_key(|u| (u.range.prefix, u.range));
    let mut least: Vec<Used> = Vec::new();
    for used in all {
        if !least.iter().any(|u| u.range.prefix <= used.range.prefix && u.range.overlaps(used.range)) {
            least.push(used);
        }
    }
    Ok(least)
}

/// Ranges that files below `root` name.
fn in_files(root: &Path) -> Vec<Used> {
    let mut all = Vec::new();
    let mut each = |dir: &str, end: &str, by: &str, find: &dyn Fn(&str) -> Vec<Range>| {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { return };
        for path in entries.flatten().map(|e| e.path()) {
            let is_it = path.as_os_str().as_encoded_bytes().ends_with(end.as_bytes())
                && path.metadata().is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX);
            if let Some(text) = is_it.then(|| fs::read_to_string(&path).ok()).flatten() {
                let name = path.display();
                all.extend(find(&text).into_iter().map(|range| Used { range, by: format!("{by} ({name})") }));
            }
        }
    };
    each("etc/containers/networks", ".json", "by a network of podman", &subnets);
    each("etc/cni/net.d", ".conflist", "by a network of containers", &subnets);
    each("etc/docker", "daemon.json", "by docker", &subnets);
    each("etc/libvirt/qemu/networks", ".xml", "by a network of libvirt", &libvirt);
    let lease = "by the last lease of a DHCP server";
    each("var/lib/dhcp", ".leases", lease, &dhclient);
    each("run/systemd/netif/leases", "", lease, &networkd);
    each("var/lib/NetworkManager", ".lease", lease, &networkd);
    all
}

/// The values of `subnet`, `bip` and `base`, at any depth.
fn subnets(text: &str) -> Vec<Range> {
    fn walk(value: &Value, found: &mut Vec<Range>) {
        match value {
            Value::Array(list) => list.iter().for_each(|v| walk(v, found)),
            Value::Object(map) => {
                for (key, value) in map {
                    let range = value.as_str().and_then(Range::parse);
                    found.extend(range.filter(|_| matches!(key.as_str(), "subnet" | "bip" | "base")));
                    walk(value, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str(text) {
        walk(&value, &mut found);
    }
    found
}

/// A network by an address and its mask, or a mask of 24 bits if there is none.
fn masked(addr: &str, mask: Option<&str>) -> Option<Range> {
    let prefix = match mask.and_then(|m| m.parse::<Ipv4Addr>().ok()) {
        Some(mask) => u8::try_from(mask.to_bits().leading_ones()).ok()?,
        None => 24,
    };
    Some(Range { addr: addr.parse().ok()?, prefix })
}

/// `<ip address='192.168.122.1' netmask='255.255.255.0'>`, or with `prefix='24'`.
fn libvirt(text: &str) -> Vec<Range> {
    let value = |tag: &str, name: &str| {
        let rest = tag.split_once(&format!(" {name}="))?.1;
        let quote = rest.chars().next()?;
        Some(rest[1..].split(quote).next()?.to_owned())
    };
    let tags = text.split("<ip ").skip(1).filter_map(|rest| rest.split('>').next());
    tags.filter_map(|tag| {
        let tag = format!(" {tag}");
        let addr = value(&tag, "address")?;
        match value(&tag, "prefix") {
            Some(prefix) => Range::parse(&format!("{addr}/{prefix}")),
            None => masked(&addr, value(&tag, "netmask").as_deref()),
        }
    })
    .collect()
}

/// `fixed-address 192.0.2.7;` and `option subnet-mask 255.255.255.0;` of dhclient.leases(5).
fn dhclient(text: &str) -> Vec<Range> {
    let of = |lease: &str| {
        let value = |name: &str| {
            let line = lease.lines().find_map(|l| l.trim().strip_prefix(name))?;
            Some(line.trim().trim_end_matches(';').to_owned())
        };
        masked(&value("fixed-address ")?, value("option subnet-mask ").as_deref())
    };
    text.split("lease {").skip(1).filter_map(of).collect()
}

/// `ADDRESS=192.0.2.7` and `NETMASK=255.255.255.0`.
fn networkd(text: &str) -> Vec<Range> {
    let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
    value("ADDRESS=").and_then(|addr| masked(addr, value("NETMASK="))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_are_not_up() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            (
                "etc/containers/networks/lab.json",
                r#"{"name": "lab", "subnets": [{"subnet": "10.89.0.0/24"}]}"#,
            ),
            (
                "etc/cni/net.d/87-podman.conflist",
                r#"{"plugins": [{"ipam": {"ranges": [[{"subnet": "10.90.0.0/16"}]]}}]}"#,
            ),
            (
                "etc/docker/daemon.json",
                r#"{"bip": "172.18.0.1/16", "default-address-pools": [{"base": "10.20.0.0/16", "size": 24}]}"#,
            ),
            (
                "etc/libvirt/qemu/networks/default.xml",
                "<network>\n  <ip address='192.168.122.1' netmask='255.255.255.0'>\n  <ip family=\"ipv4\" address=\"10.1.0.1\" prefix=\"20\"/>",
            ),
            (
                "var/lib/dhcp/dhclient.eth0.leases",
                "lease {\n  fixed-address 192.168.183.9;\n  option subnet-mask 255.255.254.0;\n}\nlease {\n  fixed-address 10.7.7.7;\n}\n",
            ),
            ("run/systemd/netif/leases/2", "# x\nADDRESS=172.31.5.4\nNETMASK=255.255.0.0\n"),
            ("etc/containers/networks/broken.json", "{"),
            ("etc/containers/networks/notes.txt", r#"{"subnet": "1.0.0.0/8"}"#),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut found: Vec<String> = in_files(root.path()).iter().map(|u| u.range.to_string()).collect();
        found.sort();
        let expected = [
            "10.1.0.0/20",
            "10.20.0.0/16",
            "10.7.7.0/24",
            "10.89.0.0/24",
            "10.90.0.0/16",
            "172.18.0.0/16",
            "172.31.0.0/16",
            "192.168.122.0/24",
            "192.168.182.0/23",
        ];
        assert_eq!(found, expected);
    }
}
