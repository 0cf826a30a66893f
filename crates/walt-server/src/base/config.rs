//! `/etc/walt/server.conf`: all keys are optional; unknown keys are refused with their line.

use crate::base::{registry_config as registries, registry_config::RegistryConfig, web_config::Web};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};
use walt_sys::{net::member::VLAN_MAX, userns};
use walt_types::Span;

/// The configuration file without `--config`; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/walt/server.conf";
/// The network of the nodes.
pub const WALT_NET: &str = "walt-net";
/// The key of [`Network::expose_on`], next to the names of networks.
const EXPOSE_ON: &str = "expose-on";
/// Longest interface name (`IFNAMSIZ` less the final NUL, netdevice(7)).
const INTERFACE_NAME_MAX: usize = 15;
/// Supported prefix lengths of networks: room for at least one node, and at most 16 bits for nodes.
const PREFIX_RANGE: std::ops::RangeInclusive<u8> = 16..=30;

/// The configuration of a server.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Networks.
    pub network: Network,
    /// Images, database, `/persist`, keys.
    pub state_dir: PathBuf,
    /// `walt.sock`, and files that need not survive a reboot.
    pub run_dir: PathBuf,
    /// Containers of image shells.
    pub containers: Containers,
    /// Virtual nodes.
    pub virtual_nodes: VirtualNodes,
    /// Limits.
    pub limits: Limits,
    /// Log lines.
    pub logs: Logs,
    /// Access to the API.
    pub api: Api,
    /// Registries of images.
    pub registries: Vec<RegistryConfig>,
    /// The read-only web API and the help pages.
    pub web: Web,
}

/// Networks of the platform.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// The network of the nodes.
    pub walt_net: WaltNet,
    /// Further networks by name, such as `walt-adm`: the server gives their interface an address, nothing else.
    pub others: BTreeMap<String, OtherNet>,
    /// Addresses of this machine on which exposed ports listen; if absent, all but that on walt-net.
    pub expose_on: Option<Vec<IpAddr>>,
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(NetworkVisitor)
    }
}

fn is_network_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Reads a map in which `walt-net` has keys of its own: `serde(flatten)` would lose the lines of mistakes.
struct NetworkVisitor;

impl<'de> serde::de::Visitor<'de> for NetworkVisitor {
    type Value = Network;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map of networks")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Network, A::Error> {
        let mut network = Network::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == WALT_NET {
                network.walt_net = map.next_value()?;
            } else if name == EXPOSE_ON {
                network.expose_on = Some(map.next_value()?);
            } else if is_network_name(&name) {
                network.others.insert(name, map.next_value()?);
            } else {
                return Err(serde::de::Error::custom(format!(
                    "'{name}' cannot name a network: lower-case letters, digits and dashes, a letter first"
                )));
            }
        }
        Ok(network)
    }
}

/// A further network of the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OtherNet {
    /// Its interface.
    pub raw_device: String,
    /// Its VLAN on that interface (IEEE 802.1Q).
    #[serde(default)]
    pub vlan: Option<u16>,
    /// How the server gets its address there.
    pub ip: OtherAddress,
}

/// How the server gets its address in a further network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherAddress {
    /// Always this one.
    Fixed(Cidr),
    /// From a DHCP server there.
    Dhcp,
}

impl<'de> Deserialize<'de> for OtherAddress {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        text.parse().map(Self::Fixed).map_err(|e| serde::de::Error::custom(format!("{e}, or 'dhcp'")))
    }
}

/// The network of the nodes, owned by the server.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WaltNet {
    /// Physical interface in the bridge; without it, the platform has virtual nodes only.
    pub raw_device: Option<String>,
    /// VLAN of walt-net on that interface (IEEE 802.1Q); without it, frames have no tag.
    pub vlan: Option<u16>,
    /// Address of the server, and prefix length.
    pub ip: Cidr,
    /// Name of the bridge.
    pub bridge: String,
}

/// Containers of image shells.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Containers {
    /// OCI runtime program.
    pub runtime: String,
    /// Addresses of containers; the first one is the server's.
    pub network: Cidr,
    /// Whether containers use a user namespace, if the kernel supports it.
    pub user_namespaces: bool,
    /// The first of [`USERS`] user and group ids of this machine for containers.
    pub first_user: u32,
}

/// Number of distinct ranges of user ids; if there are more sessions, some share a range.
pub const USER_RANGES: u32 = 1024;
/// Number of user and group ids of the machine for containers.
pub const USERS: u32 = USER_RANGES * userns::SIZE;
/// Their default start: systemd's list (UIDS-GIDS) has nothing between 0x7000_0000 and 0x7ffe_0000; directory
/// services such as sssd end at 2,000,200,000 (0x7738_2d40), subuid(5) at 600,100,000.
const FIRST_USER: u32 = 0x7800_0000;

/// Virtual nodes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct VirtualNodes {
    /// Acceleration of guests.
    pub acceleration: Acceleration,
}

/// Acceleration of guests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acceleration {
    /// KVM if the guest kernel starts under it, else emulation.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// How long an unattached session is kept, such as `7d` or `12h`.
    pub session_keep: Span,
    /// How long earlier versions of images are kept; if absent, until `walt image prune`.
    pub history_keep: Option<Span>,
    /// How long what belongs to a forgotten physical node is kept, for `walt device restore`.
    pub trash_keep: Span,
}

/// Log lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Logs {
    /// How long lines are kept.
    pub keep: Span,
    /// How much of the disk they may take; the oldest ones go first.
    pub max_size: Gigabytes,
    /// Lines per second that one node may log; more are dropped, and one line says how many.
    pub max_rate: u32,
    /// Where every line is sent besides.
    pub forward: Forward,
}

/// Where log lines are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Forward {
    /// A receiver of syslog messages (RFC 5424) by TCP: host and port.
    pub syslog: Option<String>,
    /// A Loki server: its URL.
    pub loki: Option<String>,
}

/// A size, written with its unit: `20G`, `1T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gigabytes(pub u64);

impl Gigabytes {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(1_000_000_000)
    }
}

impl<'de> Deserialize<'de> for Gigabytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let (digits, factor) = match (text.strip_suffix('G'), text.strip_suffix('T')) {
            (Some(digits), _) => (digits, 1),
            (_, Some(digits)) => (digits, 1000),
            _ => ("", 1),
        };
        let number = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
        number
            .and_then(|n: u64| n.checked_mul(factor))
            .filter(|n| *n > 0)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("'{text}' must be a size such as 20G or 1T")))
    }
}

/// Access to the API.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Api {
    /// Only members of this group (and root) may connect; everybody if absent.
    pub group: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: Network::default(),
            state_dir: "/var/lib/walt".into(),
            run_dir: "/run/walt".into(),
            containers: Containers::default(),
            virtual_nodes: VirtualNodes::default(),
            limits: Limits::default(),
            logs: Logs::default(),
            api: Api::default(),
            registries: registries::default_registries(),
            web: Web::default(),
        }
    }
}

impl Default for WaltNet {
    fn default() -> Self {
        Self {
            raw_device: None,
            vlan: None,
            ip: Cidr { addr: Ipv4Addr::new(192, 168, 183, 1), prefix: 24 },
            bridge: "walt-net".into(),
        }
    }
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            runtime: "runc".into(),
            network: Cidr { addr: Ipv4Addr::new(10, 188, 0, 0), prefix: 24 },
            user_namespaces: true,
            first_user: FIRST_USER,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { session_keep: Span(7 * 86400), history_keep: None, trash_keep: Span(30 * 86400) }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            keep: Span(90 * 86400),
            max_size: Gigabytes(20),
            max_rate: 20_000,
            forward: Forward::default(),
        }
    }
}

/// An IPv4 address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address as configured.
    pub addr: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
}

impl Cidr {
    /// The netmask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(self.prefix)))
    }
    /// First address of the network.
    pub fn network(self) -> Ipv4Addr {
        self.addr & self.mask()
    }
    /// Addresses for stations: all but network, broadcast and `self.addr`.
    pub fn stations(self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.network().to_bits();
        let last = first | !self.mask().to_bits();
        (first + 1..last).map(Ipv4Addr::from_bits).filter(move |a| *a != self.addr)
    }
    /// Whether an address is in the network.
    pub fn contains(self, addr: Ipv4Addr) -> bool {
        addr & self.mask() == self.network()
    }
    /// `network/prefix`.
    pub fn network_text(self) -> String {
        format!("{}/{}", self.network(), self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' must be an address and prefix length, such as 192.168.183.1/24");
        let (addr, prefix) = text.split_once('/').ok_or_else(bad)?;
        let cidr =
            Self { addr: addr.parse().map_err(|_| bad())?, prefix: prefix.parse().map_err(|_| bad())? };
        if !PREFIX_RANGE.contains(&cidr.prefix) {
            return Err(format!("the prefix length of '{text}' must be 16 to 30"));
        }
        Ok(cidr)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Network {
    fn check(&self) -> Result<()> {
        let net = &self.walt_net;
        if net.vlan.is_some() && net.raw_device.is_none() {
            bail!("network.walt-net.vlan: a VLAN needs the interface it is on: set raw-device");
        }
        if self.expose_on.iter().flatten().any(|addr| *addr == net.ip.addr) {
            bail!(
                "network.expose-on: {} is the address on walt-net, where nodes reach each other without it",
                net.ip.addr
            );
        }
        let cable = net.raw_device.as_deref().map(|raw| (WALT_NET, raw, net.vlan));
        let others = self.others.iter().map(|(name, o)| (name.as_str(), o.raw_device.as_str(), o.vlan));
        let mut seen = BTreeMap::new();
        for (name, raw, vlan) in cable.into_iter().chain(others) {
            if let Err(e) = walt_sys::net::check_ifname(raw) {
                bail!("network.{name}.raw-device: {e}");
            }
            if raw == net.bridge {
                bail!(
                    "network.{name}.raw-device: '{raw}' is the bridge that the server makes: name an interface"
                );
            }
            if let Some(vlan) = vlan.filter(|v| !(1..=VLAN_MAX).contains(v)) {
                bail!("network.{name}.vlan: {vlan} must be 1 to {VLAN_MAX}");
            }
            if let Some(other) = seen.insert((raw, vlan), name) {
                bail!(
                    "network.{name}.raw-device: '{raw}' is used by {other} already: use a VLAN for one of them"
                );
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads a file. Without `path`, [`DEFAULT_PATH`] is read if it exists.
    ///
    /// # Errors
    /// The file cannot be read, or is invalid; the error has line and column.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let (path, required) = path.map_or((Path::new(DEFAULT_PATH), false), |p| (p, true));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => String::new(),
            Err(e) => {
                return Err(e).with_context(|| format!("cannot read the configuration {}", path.display()));
            }
        };
        let config =
            Self::parse(&text).with_context(|| format!("the configuration {} is invalid", path.display()))?;
        Ok(config)
    }

    /// Parses and checks a configuration.
    ///
    /// # Errors
    /// The configuration is invalid; the error has the line if it is known.
    pub fn parse(text: &str) -> Result<Self> {
        // An empty document is null in YAML, and null is not a map.
        let blank = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
        let config: Self = if blank { Self::default() } else { serde_norway::from_str(text)? };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let net = &self.network.walt_net;
        let name_ok = !net.bridge.is_empty()
            && net.bridge.len() <= INTERFACE_NAME_MAX
            && net.bridge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !name_ok {
            bail!("network.walt-net.bridge: '{}' must be 1 to 15 letters, digits and dashes", net.bridge);
        }
        let containers = self.containers.network;
        if net.ip.contains(containers.network()) || containers.contains(net.ip.network()) {
            bail!("containers.network {} overlaps network.walt-net.ip", containers.network_text());
        }
        let first = self.containers.first_user;
        if !(userns::SIZE..=userns::FAR - USERS).contains(&first) {
            bail!(
                "containers.first-user: {first} must be {} to {}: the {USERS} ids from there are for containers",
                userns::SIZE,
                userns::FAR - USERS
            );
        }
        for (key, dir) in [("state-dir", &self.state_dir), ("run-dir", &self.run_dir)] {
            if !dir.is_absolute() {
                bail!("{key}: '{}' must be an absolute path", dir.display());
            }
        }
        self.web.check(net.ip.addr)?;
        self.network.check()?;
        registries::check(&self.registries)
    }

    /// Path of the API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("walt.sock")
    }
    /// Distinguishes this server's kernel objects from those of other servers on the machine: 8 hexadecimal digits.
    pub fn run_dir_hash(&self) -> String {
        blake3::hash(self.run_dir.as_os_str().as_encoded_bytes()).to_hex()[..8].to_owned()
    }
    /// Address of the server on walt-net.
    pub fn server_ip(&self) -> Ipv4Addr {
        self.network.walt_net.ip.addr
    }
    /// Name of the bridge of walt-net.
    pub fn bridge(&self) -> &str {
        &self.network.walt_net.bridge
    }
    /// Address of the server for its containers: the first one of their network.
    pub fn container_gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.containers.network.network().to_bits() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_the_documented_file() {
        for empty in ["", "# nothing\n\n"] {
            assert_eq!(Config::parse(empty).unwrap().state_dir, Path::new("/var/lib/walt"));
        }
        let text = "network:\n  walt-net: {raw-device: null, ip: 192.168.184.1/24, bridge: wn2}\n\
                    state-dir: /srv/w\nrun-dir: /run/w\ncontainers: {runtime: runc, network: 10.189.0.0/24, \
                    user-namespaces: false, first-user: 1900000000}\n\
                    virtual-nodes: {acceleration: tcg}\nlimits: {session-keep: 7d, history-keep: 90d, trash-keep: 14d}\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.bridge(), "wn2");
        assert_eq!(config.limits.session_keep, Span(604_800));
        assert_eq!(config.limits.history_keep, Some(Span(7_776_000)));
        assert_eq!(config.limits.trash_keep, Span(1_209_600));
        assert_eq!((config.containers.user_namespaces, config.containers.first_user), (false, 1_900_000_000));
        assert_eq!(config.container_gateway(), Ipv4Addr::new(10, 189, 0, 1));
        assert_eq!(config.network.walt_net.ip.stations().next(), Some(Ipv4Addr::new(192, 168, 184, 2)));
    }

    #[test]
    fn networks_with_a_cable() {
        let text = "network:\n  walt-net: {raw-device: eth1, vlan: 4094}\n  \
                    walt-adm: {raw-device: eth1, vlan: 12, ip: 10.9.0.1/24}\n";
        let network = Config::parse(text).unwrap().network;
        assert_eq!(
            (network.walt_net.raw_device.as_deref(), network.walt_net.vlan),
            (Some("eth1"), Some(4094))
        );
        let ip = Cidr { addr: Ipv4Addr::new(10, 9, 0, 1), prefix: 24 };
        let adm = OtherNet { raw_device: "eth1".into(), vlan: Some(12), ip: OtherAddress::Fixed(ip) };
        assert_eq!(network.others, BTreeMap::from([("walt-adm".into(), adm)]));
        let network = Config::parse("network: {walt-out: {raw-device: eth0, ip: dhcp}}").unwrap().network;
        assert_eq!(network.others["walt-out"].ip, OtherAddress::Dhcp);
    }

    #[test]
    fn mistakes_name_their_line() {
        let error = format!("{:#}", Config::parse("state-dir: /x\nstat-dir: /y\n").unwrap_err());
        assert!(error.contains("stat-dir") && error.contains("line 2"), "{error}");
        let text = "network:\n  walt-net:\n    raw-devise: eth1\n";
        let error = format!("{:#}", Config::parse(text).unwrap_err());
        assert!(error.contains("raw-devise") && error.contains("line 3"), "{error}");
        let error =
            format!("{:#}", Config::parse("network: {walt-net: {vlan: 5000, raw-device: e}}").unwrap_err());
        assert!(error.contains("5000 must be 1 to 4094"), "{error}");
        for bad in [
            "state-dir: x",
            "limits: {session-keep: 7}",
            "network: {walt-net: {ip: 1.2.3.4}}",
            "network: {walt-net: {ip: 1.2.3.4/33}}",
            "network: {walt-net: {bridge: 'a b'}}",
            "network: {walt-net: {raw-device: 'a b'}}",
            "network: {walt-net: {raw-device: walt-net}}",
            "network: {walt-net: {raw-device: eth1, vlan: 0}}",
            "network: {walt-net: {raw-device: eth1, vlan: 4095}}",
            "network: {walt-net: {raw-device: eth1, vlan: 5000}}",
            "network: {walt-net: {vlan: 12}}",
            "network: {walt-adm: {ip: 10.9.0.1/24}}",
            "network: {walt-adm: {raw-device: eth1, ip: dhcpv6}}",
            "network: {walt-net: {ip: dhcp}}",
            "network: {Lab 1: {raw-device: eth1, ip: 10.9.0.1/24}}",
            "network: {walt-net: {raw-device: eth1}, walt-adm: {raw-device: eth1, ip: 10.9.0.1/24}}",
            "containers: {network: 192.168.183.0/24}",
            "containers: {first-user: 1000}",
            "containers: {first-user: 4294000000}",
            "web: {listen: here}",
            "web: {listen: '192.0.2.1:0'}",
            "web: {listen: 192.168.183.1}",
            "web: {listen: 0.0.0.0}",
            "web: {listen: '0.0.0.0:80'}",
            "web: {port: 80}",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }
}
