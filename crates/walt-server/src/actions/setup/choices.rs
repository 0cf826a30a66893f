//! What the administrator wants: the current values, then the options of the command, then the answers on the terminal;
//! and the keys of the configuration that change for it.

use crate::{
    actions::setup::{
        document::Edit,
        proposal::{self, Used},
    },
    base::config::{Cidr, Config, OtherAddress, OtherNet, WALT_NET},
    services::images::default_image,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_norway::{Mapping, Value};
use std::path::PathBuf;

/// The network for the administration of switches.
pub const ADMIN_NET: &str = "walt-adm";
/// The word for "without it" in options and answers.
pub const NONE: &str = "none";
/// The word for "propose one".
pub const AUTO: &str = "auto";
/// The default image of a new server.
pub const DEFAULT_IMAGE: &str = "pc-x86-64-default";
/// The registry that a server has without configuration, as a value of `--registry`.
pub const HUB: &str = "hub";

/// The options that say what is wanted.
#[derive(Debug, Clone, Default, Args)]
pub struct Wishes {
    /// Interface with the cable to the nodes; none: virtual nodes only
    #[arg(long, value_name = "NAME|none")]
    pub interface: Option<String>,
    /// VLAN of walt-net on that interface
    #[arg(long, value_name = "NUMBER|none")]
    pub vlan: Option<String>,
    /// Address of the server on walt-net, with the length of its prefix; auto: a range that nothing uses
    #[arg(long, value_name = "CIDR|auto")]
    pub address: Option<String>,
    /// Addresses of containers on this machine
    #[arg(long, value_name = "CIDR|auto")]
    pub container_network: Option<String>,
    /// Interface of the network for the administration of switches (walt-adm)
    #[arg(long, value_name = "NAME|none")]
    pub admin_interface: Option<String>,
    /// VLAN of walt-adm on that interface
    #[arg(long, value_name = "NUMBER|none")]
    pub admin_vlan: Option<String>,
    /// Address of the server on walt-adm
    #[arg(long, value_name = "CIDR|dhcp")]
    pub admin_address: Option<String>,
    /// Registry of images; may be repeated: the list is what these options say. KEY=VALUE are further keys of the
    /// configuration, such as auth=none
    #[arg(long = "registry", value_name = "hub|LABEL=URL[,KEY=VALUE...]|none")]
    pub registries: Vec<String>,
    /// Only members of this group may use the server; none: all accounts of this machine
    #[arg(long, value_name = "NAME|none")]
    pub group: Option<String>,
    /// Default image to build; may be repeated, for other models
    #[arg(long = "default-image", value_name = "NAME|none")]
    pub images: Vec<String>,
    /// Directory of images, database, /persist
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the socket of the API
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Choices {
    /// The cable.
    pub interface: Option<String>,
    /// Its VLAN.
    pub vlan: Option<u16>,
    /// Address on walt-net.
    pub address: Cidr,
    /// Addresses of containers.
    pub containers: Cidr,
    /// The network for the administration of switches.
    pub admin: Option<OtherNet>,
    /// The registries; none leaves them as they are.
    pub registries: Option<Vec<Value>>,
    /// Who may use the server.
    pub group: Option<String>,
    /// Recipes of the default images to have.
    pub images: Vec<String>,
    /// Directory of the state.
    pub state_dir: PathBuf,
    /// Directory of the socket.
    pub run_dir: PathBuf,
}

impl Choices {
    /// The current values. An address that nobody has chosen becomes one that nothing uses: `is_chosen` says whether
    /// a key (`network.walt-net.ip`, `containers.network`) was.
    ///
    /// # Errors
    /// No range is free.
    pub fn current(
        config: &Config,
        used: &[Used],
        is_chosen: impl Fn(&[&str]) -> bool,
        images: Vec<String>,
    ) -> Result<Self> {
        let net = &config.network.walt_net;
        let address = match is_chosen(&["network", WALT_NET, "ip"]) {
            true => net.ip,
            false => free(proposal::walt_net(used), "--address")?,
        };
        let containers = match is_chosen(&["containers", "network"]) {
            true => config.containers.network,
            false => free(proposal::containers(used, address), "--container-network")?,
        };
        Ok(Self {
            interface: net.raw_device.clone(),
            vlan: net.vlan,
            address,
            containers,
            admin: config.network.others.get(ADMIN_NET).cloned(),
            registries: None,
            group: config.api.group.clone(),
            images,
            state_dir: config.state_dir.clone(),
            run_dir: config.run_dir.clone(),
        })
    }

    /// Changes what the options say.
    ///
    /// # Errors
    /// An option has a value that it cannot have.
    pub fn wish(&mut self, wishes: &Wishes, used: &[Used]) -> Result<()> {
        if let Some(text) = &wishes.interface {
            self.set_interface(Some(text.as_str()).filter(|t| *t != NONE));
        }
        if let Some(text) = &wishes.vlan {
            self.vlan = vlan(text, "--vlan")?;
            if self.interface.is_none() && self.vlan.is_some() {
                bail!("--vlan needs the interface that the VLAN is on: --interface NAME");
            }
        }
        if let Some(text) = &wishes.address {
            self.address = match text.as_str() {
                AUTO => free(proposal::walt_net(used), "--address")?,
                text => cidr(text, "--address")?,
            };
        }
        if let Some(text) = &wishes.container_network {
            self.containers = match text.as_str() {
                AUTO => free(proposal::containers(used, self.address), "--container-network")?,
                text => cidr(text, "--container-network")?,
            };
        }
        self.wish_admin(wishes)?;
        if !wishes.registries.is_empty() {
            self.registries = Some(registries(&wishes.registries)?);
        }
        if let Some(group) = &wishes.group {
            self.group = Some(group.clone()).filter(|g| g != NONE);
        }
        if !wishes.images.is_empty() {
            self.images = images(&wishes.images)?;
        }
        self.state_dir = wishes.state_dir.clone().unwrap_or_else(|| self.state_dir.clone());
        self.run_dir = wishes.run_dir.clone().unwrap_or_else(|| self.run_dir.clone());
        Ok(())
    }

    /// Another cable is not on the same VLAN.
    pub fn set_interface(&mut self, name: Option<&str>) {
        if self.interface.as_deref() != name {
            self.interface = name.map(str::to_owned);
            self.vlan = None;
        }
    }

    fn wish_admin(&mut self, wishes: &Wishes) -> Result<()> {
        if wishes.admin_interface.as_deref() == Some(NONE) {
            if wishes.admin_vlan.is_some() || wishes.admin_address.is_some() {
                bail!("--admin-interface none removes walt-adm: leave --admin-vlan and --admin-address out");
            }
            self.admin = None;
            return Ok(());
        }
        let before = self.admin.take();
        if let Some(name) = &wishes.admin_interface {
            let ip = before.as_ref().map(|b| b.ip);
            let ip = match &wishes.admin_address {
                Some(text) => admin_address(text)?,
                None => ip.context("--admin-interface needs --admin-address CIDR or --admin-address dhcp")?,
            };
            let vlan = before.filter(|b| b.raw_device == *name).and_then(|b| b.vlan);
            self.admin = Some(OtherNet { raw_device: name.clone(), vlan, ip });
        } else {
            self.admin = before;
        }
        let given = wishes.admin_vlan.is_some() || wishes.admin_address.is_some();
        let Some(admin) = &mut self.admin else {
            if given {
                bail!("--admin-vlan and --admin-address need --admin-interface NAME");
            }
            return Ok(());
        };
        if let Some(text) = &wishes.admin_address {
            admin.ip = admin_address(text)?;
        }
        if let Some(text) = &wishes.admin_vlan {
            admin.vlan = vlan(text, "--admin-vlan")?;
        }
        Ok(())
    }

    /// The keys that have another value than in `config`. In a new file, the address is written in any case.
    pub fn edits(&self, config: &Config, is_new: bool) -> Vec<Edit> {
        let net = &config.network.walt_net;
        let mut all = Vec::new();
        let mut set = |path: &[&str], differs: bool, value: Option<Value>| {
            if differs {
                all.push(Edit::new(path, value));
            }
        };
        let text = |t: &Option<String>| t.clone().map(Value::from);
        let number = |n: &Option<u16>| n.map(Value::from);
        let dir = |d: &PathBuf| Some(Value::from(d.display().to_string()));
        set(&["network", WALT_NET, "raw-device"], self.interface != net.raw_device, text(&self.interface));
        set(&["network", WALT_NET, "vlan"], self.vlan != net.vlan, number(&self.vlan));
        set(&["network", WALT_NET, "ip"], is_new || self.address != net.ip, Some(cidr_value(self.address)));
        let before = config.network.others.get(ADMIN_NET);
        match (&self.admin, before) {
            (Some(admin), Some(before)) => {
                let raw = admin.raw_device != before.raw_device;
                set(&["network", ADMIN_NET, "raw-device"], raw, Some(admin.raw_device.clone().into()));
                set(&["network", ADMIN_NET, "vlan"], admin.vlan != before.vlan, number(&admin.vlan));
                set(&["network", ADMIN_NET, "ip"], admin.ip != before.ip, Some(address_value(admin.ip)));
            }
            (admin, before) => {
                set(&["network", ADMIN_NET], admin.as_ref() != before, admin.as_ref().map(admin_value));
            }
        }
        let differs = self.containers != config.containers.network;
        set(&["containers", "network"], differs, Some(cidr_value(self.containers)));
        set(&["api", "group"], self.group != config.api.group, text(&self.group));
        let same = |list: &Vec<Value>| {
            serde_norway::from_value::<Vec<_>>(list.clone().into())
                .is_ok_and(|l: Vec<crate::base::registry_config::RegistryConfig>| l == config.registries)
        };
        if let Some(list) = &self.registries {
            set(&["registries"], !same(list), Some(list.clone().into()));
        }
        set(&["state-dir"], self.state_dir != config.state_dir, dir(&self.state_dir));
        set(&["run-dir"], self.run_dir != config.run_dir, dir(&self.run_dir));
        all
    }
}

fn free(found: Option<Cidr>, flag: &str) -> Result<Cidr> {
    found.with_context(|| {
        format!("this machine uses all ranges that could be proposed: name one by {flag} CIDR")
    })
}

/// A value that is an address and the length of its prefix.
///
/// # Errors
/// It is not; `flag` names it.
pub fn cidr(text: &str, flag: &str) -> Result<Cidr> {
    text.parse().map_err(|e| anyhow::anyhow!("{flag}: {e}"))
}

/// A value that is the number of a VLAN, or none.
///
/// # Errors
/// It is not; `flag` names it.
pub fn vlan(text: &str, flag: &str) -> Result<Option<u16>> {
    if text == NONE {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|n| (1..=walt_sys::net::member::VLAN_MAX).contains(n));
    let max = walt_sys::net::member::VLAN_MAX;
    number.map(Some).with_context(|| format!("{flag}: '{text}' must be a number from 1 to {max}, or none"))
}

/// A value of `--admin-address`.
///
/// # Errors
/// It is none.
pub fn admin_address(text: &str) -> Result<OtherAddress> {
    match text {
        "dhcp" => Ok(OtherAddress::Dhcp),
        text => Ok(OtherAddress::Fixed(
            text.parse().map_err(|e| anyhow::anyhow!("--admin-address: {e}, or 'dhcp'"))?,
        )),
    }
}

/// Recipes by their names; `none` alone is the empty list.
///
/// # Errors
/// There is no such recipe.
pub fn images(names: &[String]) -> Result<Vec<String>> {
    match names {
        [name] if name == NONE => Ok(Vec::new()),
        names => {
            let check = |name: &String| {
                default_image::recipe_config(name).map(|_| name.clone()).context("--default-image")
            };
            names.iter().map(check).collect()
        }
    }
}

/// Registries by the values of `--registry`.
///
/// # Errors
/// A value has another form.
pub fn registries(all: &[String]) -> Result<Vec<Value>> {
    match all {
        [text] if text == NONE => Ok(Vec::new()),
        all => all.iter().map(|text| registry(text)).collect(),
    }
}

/// `hub`, or `LABEL=URL[,KEY=VALUE...]`.
fn registry(text: &str) -> Result<Value> {
    let form =
        || format!("--registry: '{text}' must be hub, or LABEL=URL such as lab=https://registry.lab:5000");
    let mut map = Mapping::new();
    let mut set = |key: &str, value: Value| drop(map.insert(key.into(), value));
    if text == HUB {
        set("label", HUB.into());
        set("api", "docker-hub".into());
        set("description", "Public registry at hub.docker.com".into());
        return Ok(Value::Mapping(map));
    }
    let mut parts = text.split(',');
    let (label, url) = parts.next().and_then(|p| p.split_once('=')).with_context(form)?;
    let (protocol, host) = url.split_once("://").with_context(form)?;
    if !matches!(protocol, "https" | "http") {
        bail!("--registry: '{url}' must start with https:// or http://");
    }
    let host = host.trim_end_matches('/');
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().with_context(form)?)),
        None => (host, None),
    };
    set("label", label.into());
    set("api", "docker-registry-v2".into());
    set("host", host.into());
    // Plain HTTP has another port than the one that the configuration assumes.
    if let Some(port) = port.or((protocol == "http").then_some(80)) {
        set("port", port.into());
    }
    if protocol == "http" {
        set("protocol", "http".into());
    }
    for part in parts {
        let (key, value) = part.split_once('=').with_context(form)?;
        set(key, value.into());
    }
    Ok(Value::Mapping(map))
}

fn cidr_value(cidr: Cidr) -> Value {
    format!("{}/{}", cidr.addr, cidr.prefix).into()
}

fn address_value(address: OtherAddress) -> Value {
    match address {
        OtherAddress::Fixed(cidr) => cidr_value(cidr),
        OtherAddress::Dhcp => "dhcp".into(),
    }
}

fn admin_value(net: &OtherNet) -> Value {
    let mut map = Mapping::new();
    map.insert("raw-device".into(), net.raw_device.clone().into());
    if let Some(vlan) = net.vlan {
        map.insert("vlan".into(), vlan.into());
    }
    map.insert("ip".into(), address_value(net.ip));
    Value::Mapping(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::setup::document::{HEADER, edited};

    fn config_of(text: &str) -> Config {
        Config::parse(text).unwrap()
    }

    fn current(config: &Config) -> Choices {
        Choices::current(config, &[], |_| true, vec![DEFAULT_IMAGE.into()]).unwrap()
    }

    /// The file that these options make of a file.
    fn made(text: &str, wishes: &Wishes) -> Result<String> {
        let config = config_of(text);
        let mut choices = current(&config);
        choices.wish(wishes, &[])?;
        let new = edited(text, &choices.edits(&config, text.is_empty()))?.text;
        // What is written means what was wanted, and writing it again changes nothing.
        let (again, mut wanted) = (config_of(&new), choices.clone());
        wanted.registries = None;
        assert_eq!(Choices { images: wanted.images.clone(), ..current(&again) }, wanted, "{new}");
        assert!(choices.edits(&again, false).is_empty(), "{new}");
        Ok(new)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn files_that_options_make() {
        let none = Wishes::default();
        assert_eq!(made("", &none).unwrap(), "network:\n  walt-net: {ip: 192.168.183.1/24}\n");
        let text = "# mine\nstate-dir: /srv/w # disk\n";
        assert_eq!(made(text, &none).unwrap(), text);
        let all = Wishes {
            interface: some("eth1"),
            vlan: some("12"),
            address: some("10.1.0.1/20"),
            container_network: some("10.2.0.0/24"),
            admin_interface: some("eth1"),
            admin_vlan: some("13"),
            admin_address: some("dhcp"),
            registries: vec![
                "hub".into(),
                "lab=https://reg.lab:5000,auth=none".into(),
                "old=http://10.0.0.9/".into(),
            ],
            group: some("lab"),
            state_dir: Some("/srv/x".into()),
            run_dir: Some("/run/x".into()),
            ..Wishes::default()
        };
        let new = made(text, &all).unwrap();
        assert_eq!(
            new,
            "# mine\nstate-dir: /srv/x # disk\nnetwork:\n  walt-net: {raw-device: eth1, vlan: 12, ip: 10.1.0.1/20}\n  \
             walt-adm: {raw-device: eth1, vlan: 13, ip: dhcp}\ncontainers: {network: 10.2.0.0/24}\n\
             api: {group: lab}\nregistries:\n  - {label: hub, api: docker-hub, description: Public registry at hub.docker.com}\n  \
             - {label: lab, api: docker-registry-v2, host: reg.lab, port: 5000, auth: none}\n  \
             - {label: old, api: docker-registry-v2, host: 10.0.0.9, port: 80, protocol: http}\nrun-dir: /run/x\n"
        );
        let less = Wishes {
            interface: some("none"),
            admin_interface: some("none"),
            registries: vec!["none".into()],
            group: some("none"),
            ..Wishes::default()
        };
        let back = made(&new, &less).unwrap();
        assert!(
            back.contains("registries: []\n") && !back.contains("group") && !back.contains("eth1"),
            "{back}"
        );
        let moved = Wishes { admin_address: some("10.9.0.1/24"), vlan: some("none"), ..Wishes::default() };
        let moved = made(&new, &moved).unwrap();
        assert!(moved.contains("walt-adm: {raw-device: eth1, vlan: 13, ip: 10.9.0.1/24}"), "{moved}");
        assert!(moved.contains("walt-net: {raw-device: eth1, ip: 10.1.0.1/20}"), "{moved}");
        assert!(HEADER.lines().all(|l| l.starts_with("# ")));
    }

    #[test]
    fn options_that_do_not_fit() {
        let wishes = |f: fn(&mut Wishes)| {
            let mut w = Wishes::default();
            f(&mut w);
            format!("{:#}", made("", &w).unwrap_err())
        };
        for (said, names) in [
            (wishes(|w| w.vlan = some("7")), "--interface NAME"),
            (wishes(|w| (w.interface, w.vlan) = (some("e"), some("4095"))), "1 to 4094"),
            (wishes(|w| w.address = some("10.0.0.1")), "--address: '10.0.0.1'"),
            (wishes(|w| w.admin_interface = some("e")), "--admin-address CIDR"),
            (wishes(|w| w.admin_address = some("dhcp")), "--admin-interface NAME"),
            (wishes(|w| w.images = vec!["nope".into()]), "no recipe for 'nope'"),
            (wishes(|w| w.registries = vec!["lab".into()]), "LABEL=URL"),
            (wishes(|w| w.registries = vec!["lab=ftp://x".into()]), "https://"),
        ] {
            assert!(said.contains(names), "{said}");
        }
    }

    #[test]
    fn addresses_that_nobody_has_chosen_are_free() {
        let used =
            [Used { range: proposal::Range::parse("192.168.183.0/24").unwrap(), by: "by a test".into() }];
        let config = config_of("");
        let choose = |chosen: bool| Choices::current(&config, &used, |_| chosen, Vec::new()).unwrap().address;
        assert_eq!(choose(false), "192.168.184.1/24".parse().unwrap());
        assert_eq!(choose(true), "192.168.183.1/24".parse().unwrap());
    }
}
