//! What the checks find: pure, from the configuration and [`Facts`] to findings, each with its remedy.

use crate::{
    actions::setup::{
        facts::{Cgroups, Clock, DhcpSearch, Disk, Facts, Kvm, Needed, Program, RUNC, SERVICES, Taken},
        proposal::{Range, collisions},
        service::UNIT,
    },
    base::{config::Config, time},
    services::nodes::vnode,
};
use serde::Serialize;

/// Room that a default image needs while it is built, in bytes, for the recipe and for the store each.
const ROOM_TO_BUILD: u64 = 3_000_000_000;
/// The same for the small image.
const ROOM_TO_BUILD_MINI: u64 = 500_000_000;
/// Free room with which a server can go on for a while, in bytes.
const ROOM_TO_LIVE: u64 = 10_000_000_000;
/// How far the clock may be behind the date of this program, in seconds: packages are made elsewhere.
const CLOCK_MARGIN: i64 = 86_400;
/// Directories that a unit with `ProtectHome=yes` does not see (systemd.exec(5)).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Names that a finding lists at most.
const LISTED_MAX: usize = 5;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is missing.
    Note,
    /// Something does not work, or not well.
    Warning,
    /// The server cannot start, or cannot do what the configuration says.
    Problem,
}

impl Level {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, in one word.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found: a sentence.
    pub message: String,
    /// What to do: a sentence; none if there is nothing to do.
    pub remedy: Option<String>,
}

fn finding(check: &'static str, level: Level, message: impl Into<String>) -> Finding {
    Finding { check, level, message: message.into(), remedy: None }
}

impl Finding {
    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// What will be done after the checks, which changes how bad a finding is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// The recipe that will be run.
    pub build: Option<String>,
    /// Whether the missing account and the missing group will be made.
    pub makes_accounts: bool,
}

/// Whether something prevents serving.
pub fn prevents(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.level == Level::Problem)
}

/// All findings, also what is as it should be, in the order in which they are shown.
pub fn of(config: &Config, facts: &Facts, intent: &Intent) -> Vec<Finding> {
    let mut all = programs(config, facts, intent);
    all.extend(addresses(config, facts));
    all.extend(interfaces(config, facts));
    all.extend(ports(config, facts));
    all.extend(dhcp(&facts.dhcp));
    all.extend(firewalls(facts));
    all.extend(disk(config, facts, intent));
    all.extend(accounts(facts, intent));
    all.extend(machine(facts));
    all.extend(clock(&facts.clock));
    all
}

fn programs(config: &Config, facts: &Facts, intent: &Intent) -> Vec<Finding> {
    let missing = |p: &Program, name: &str, level| {
        finding("programs", level, format!("The program {name} is missing: {}.", p.effect))
            .remedy(format!("Install it: apt-get install {}", p.package))
    };
    let level = |p: &Program| if p.needed { Level::Problem } else { Level::Warning };
    let mut all: Vec<_> = facts.missing.iter().map(|p| missing(p, p.name, level(p))).collect();
    if let (Some(recipe), false) = (&intent.build, facts.missing_to_build.is_empty()) {
        let join = |words: Vec<&str>, between: &str| words.join(between);
        let names = join(facts.missing_to_build.iter().map(|(name, _)| name.as_str()).collect(), ", ");
        let packages = join(facts.missing_to_build.iter().map(|(_, p)| p.as_str()).collect(), " ");
        let message = format!("The image {recipe} cannot be built without these programs: {names}.");
        let remedy =
            format!("Install them: apt-get install {packages}; or build no image: --default-image none");
        all.push(finding("programs", Level::Problem, message).remedy(remedy));
    }
    if let Some(name) = &facts.runtime_missing {
        all.push(missing(&RUNC, name, Level::Problem));
    }
    if all.is_empty() {
        all.push(finding("programs", Level::Ok, "All programs that the server runs are installed."));
    }
    match &facts.container {
        Some(Ok(())) => {
            let runtime = &config.containers.runtime;
            all.push(finding("containers", Level::Ok, format!("{runtime} can start a container.")));
        }
        Some(Err(why)) => {
            let runtime = &config.containers.runtime;
            let message =
                format!("{runtime} cannot start a container, so there are no image shells and builds: {why}");
            let remedy = "If this machine is itself a container, allow it to nest containers, or use a virtual machine.";
            all.push(finding("containers", Level::Warning, message).remedy(remedy));
        }
        None => {}
    }
    all
}

fn addresses(config: &Config, facts: &Facts) -> Vec<Finding> {
    let net = config.network.walt_net.ip;
    let mut all = Vec::new();
    let ranges = [
        ("network.walt-net.ip", "--address", net),
        ("containers.network", "--container-network", config.containers.network),
    ];
    for (key, flag, cidr) in ranges {
        for used in collisions(cidr.into(), &facts.used).into_iter().take(LISTED_MAX) {
            let message =
                format!("{key} {} overlaps {}, which is used {}.", cidr.network_text(), used.range, used.by);
            let remedy = format!("Choose another range: walt-server setup {flag} auto");
            all.push(finding("addresses", Level::Problem, message).remedy(remedy));
        }
    }
    if !facts.strangers.is_empty() {
        let names = &facts.strangers[..facts.strangers.len().min(LISTED_MAX)];
        let more = if facts.strangers.len() > LISTED_MAX { " and others" } else { "" };
        let message = format!(
            "{} node(s) have an address outside of {}: {}{more}.",
            facts.strangers.len(),
            net.network_text(),
            names.join(", ")
        );
        let remedy = "Keep the range of walt-net, or remove these nodes first ('walt node remove', 'walt device forget').";
        all.push(finding("addresses", Level::Problem, message).remedy(remedy));
    }
    if let Some(found) = &facts.foreign_bridge {
        let message =
            format!("There is an interface '{}', which this server did not make ({found}).", config.bridge());
        let remedy = "Remove it, or set another name: network.walt-net.bridge in the configuration.";
        all.push(finding("addresses", Level::Problem, message).remedy(remedy));
    }
    if all.is_empty() {
        let (range, containers) = (Range::from(net), Range::from(config.containers.network));
        let message = format!("Nothing else uses {range} (walt-net) and {containers} (containers).");
        all.push(finding("addresses", Level::Ok, message));
    }
    all
}

fn interfaces(config: &Config, facts: &Facts) -> Vec<Finding> {
    let bad = facts.interfaces.iter().map(|i| {
        let level = if i.prevents { Level::Problem } else { Level::Warning };
        finding("interfaces", level, format!("{}.", i.message))
    });
    let mut all: Vec<_> = bad.collect();
    if all.is_empty() {
        let message = match &config.network.walt_net.raw_device {
            Some(raw) => format!("The interface {raw} can be the cable of walt-net."),
            None => {
                "There is no cable (network.walt-net.raw-device), so there are virtual nodes only.".into()
            }
        };
        all.push(finding("interfaces", Level::Ok, message));
    }
    all
}

/// What helps against programs that often have one of our ports.
fn port_remedy(taken: &Taken) -> String {
    let name = taken.holder.as_ref().map_or("", |(_, name)| name.as_str());
    let stop = |units: &str| format!("If nobody needs it: systemctl disable --now {units}");
    match (name, taken.service.port) {
        ("rpcbind" | "systemd", 111) => stop("rpcbind.socket rpcbind.service"),
        ("", 2049) | ("rpc.nfsd", _) => stop("nfs-server (the NFS server of the kernel)"),
        ("in.tftpd", _) => stop("tftpd-hpa"),
        ("dhcpd" | "kea-dhcp4", _) => {
            "Make it serve its own interfaces only, and not all (INTERFACESv4 in /etc/default/isc-dhcp-server)".into()
        }
        ("dnsmasq", _) => "Make it bind its own interfaces only: 'bind-dynamic' and 'except-interface=walt-net' in /etc/dnsmasq.conf".into(),
        ("named", _) => "Make it listen at its own addresses only: 'listen-on' in named.conf.options".into(),
        ("apache2" | "nginx" | "lighttpd" | "caddy", _) => {
            "Make it listen at addresses of its own instead of all: 'Listen ADDRESS:80' (apache2), 'listen ADDRESS:80' (nginx)".into()
        }
        ("", _) => "Find out what has it (ss -lntup), and stop it".into(),
        (name, _) => format!("Stop {name}, or make it listen at its own addresses only"),
    }
}

fn ports(config: &Config, facts: &Facts) -> Vec<Finding> {
    let has_cable = config.network.walt_net.raw_device.is_some();
    let taken = facts.ports.iter().map(|taken| {
        let s = taken.service;
        let level = match s.needed {
            Needed::Always => Level::Problem,
            Needed::Cable if has_cable => Level::Problem,
            _ => Level::Warning,
        };
        let by = match &taken.holder {
            Some((pid, name)) => format!("{name}, process {pid}"),
            None => "the kernel, or a program that cannot be seen from here".into(),
        };
        let message =
            format!("{} {} ({}) is held by {by}: {}.", s.protocol.to_uppercase(), s.port, s.name, s.effect);
        finding("ports", level, message).remedy(format!("{}.", port_remedy(taken)))
    });
    let mut all: Vec<_> = taken.collect();
    if all.is_empty() {
        let mut numbers: Vec<u16> = SERVICES.iter().map(|s| s.port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let list: Vec<String> = numbers.iter().map(u16::to_string).collect();
        all.push(finding(
            "ports",
            Level::Ok,
            format!("The ports of walt-net are free: {}.", list.join(", ")),
        ));
    }
    all
}

fn dhcp(search: &DhcpSearch) -> Vec<Finding> {
    match search {
        DhcpSearch::NoCable => Vec::new(),
        DhcpSearch::NotDone(why) => {
            let message = format!("Other DHCP servers on the cable were not searched for: {why}.");
            let remedy = "'walt-server status' shows them once the server runs.";
            vec![finding("dhcp", Level::Note, message).remedy(remedy)]
        }
        DhcpSearch::Found(servers) if servers.is_empty() => {
            vec![finding("dhcp", Level::Ok, "No other DHCP server answers on the cable.")]
        }
        DhcpSearch::Found(servers) => servers
            .iter()
            .map(|(ip, mac)| {
                let message = format!(
                    "Another DHCP server is on the cable, at {ip} ({mac}): machines may boot from it instead."
                );
                let remedy = "Switch it off, or separate the networks (another interface or VLAN). Its Ethernet address tells which machine it is.";
                finding("dhcp", Level::Warning, message).remedy(remedy)
            })
            .collect(),
    }
}

fn firewalls(facts: &Facts) -> Vec<Finding> {
    let rules = match &facts.firewalls {
        Ok(rules) => rules,
        Err(why) => {
            let message = format!("The packet filter of the kernel cannot be used: {why}");
            let remedy = "The server needs nftables: a kernel with nf_tables, and root with CAP_NET_ADMIN.";
            return vec![finding("firewalls", Level::Problem, message).remedy(remedy)];
        }
    };
    if rules.is_empty() {
        return vec![finding("firewalls", Level::Ok, "No other firewall drops the traffic of walt-net.")];
    }
    let of = |rule: &super::facts::Firewall| {
        let found = finding(
            "firewalls",
            if rule.solved { Level::Note } else { Level::Warning },
            format!("{}.", rule.message),
        );
        match rule.solved {
            true => found,
            false => found.remedy(
                "Make that firewall accept what comes from and goes to the interface walt-net, or remove it.",
            ),
        }
    };
    rules.iter().map(of).collect()
}

/// Bytes as gigabytes.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn disk(config: &Config, facts: &Facts, intent: &Intent) -> Vec<Finding> {
    let disk = &facts.disk;
    let Disk { path, kind, .. } = disk;
    let mut all = Vec::new();
    let elsewhere = "Use a directory on a disk with ext4, xfs or btrfs: walt-server setup --state-dir DIR";
    if let Err(why) = &disk.handles {
        let message = format!(
            "The file system of {path} ({kind}) cannot open files by handle, which NFS needs: {why}."
        );
        all.push(finding("disk", Level::Problem, message).remedy(elsewhere));
    } else if matches!(kind.as_str(), "tmpfs" | "ramfs") {
        let message = format!("{path} is in memory ({kind}): images and /persist are gone after a reboot.");
        all.push(finding("disk", Level::Warning, message).remedy(elsewhere));
    }
    if facts.is_service && HOMES.iter().any(|home| config.state_dir.starts_with(home)) {
        let message = format!(
            "The service {UNIT} sees no home directories, so that it cannot use {}.",
            config.state_dir.display()
        );
        let remedy = format!(
            "Use another --state-dir, or allow it: 'systemctl edit {UNIT}' with ProtectHome=no in [Service]."
        );
        all.push(finding("disk", Level::Problem, message).remedy(remedy));
    }
    let need = match intent.build.as_deref() {
        None => 0,
        Some(name) if name.ends_with("-mini") => ROOM_TO_BUILD_MINI,
        Some(_) => ROOM_TO_BUILD,
    };
    let places = [(path.as_str(), disk.free), (crate::services::images::recipe::WORK, disk.free_for_recipes)];
    for (place, free) in places.into_iter().filter(|(_, free)| *free < need) {
        let message = format!(
            "{place} has {} free, and the default image needs {} while it is built.",
            gigabytes(free),
            gigabytes(need)
        );
        let remedy = "Make room, or choose a small image: walt-server setup --default-image pc-x86-64-mini";
        all.push(finding("disk", Level::Problem, message).remedy(remedy));
    }
    if all.is_empty() && disk.free < ROOM_TO_LIVE {
        let message =
            format!("{path} has {} free; each Debian image takes about 1 GB.", gigabytes(disk.free));
        all.push(finding("disk", Level::Warning, message).remedy(elsewhere));
    }
    if all.is_empty() {
        all.push(finding(
            "disk",
            Level::Ok,
            format!("{path} is on {kind}, with {} free.", gigabytes(disk.free)),
        ));
    }
    all
}

fn accounts(facts: &Facts, intent: &Intent) -> Vec<Finding> {
    let mut all = Vec::new();
    if !facts.account && !intent.makes_accounts {
        let message = format!("The account {} is missing: there are no virtual nodes.", vnode::ACCOUNT);
        all.push(finding("accounts", Level::Warning, message).remedy("'walt-server setup' makes it."));
    }
    if let Some(group) = facts.group_missing.as_ref().filter(|_| !intent.makes_accounts) {
        let message = format!("The group '{group}' of api.group does not exist: the server does not start.");
        all.push(
            finding("accounts", Level::Problem, message)
                .remedy(format!("Make it: groupadd --system {group}")),
        );
    }
    all
}

fn machine(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    let needs_qemu = !facts.missing.iter().any(|p| p.name == walt_vnode::PROGRAM);
    match &facts.kvm {
        Kvm::Works => all.push(finding("kvm", Level::Ok, "KVM works: virtual nodes run at full speed.")),
        Kvm::NotWanted => {
            let message =
                "The configuration chooses emulation for virtual nodes (virtual-nodes.acceleration: tcg).";
            all.push(finding("kvm", Level::Note, message));
        }
        Kvm::Unknown(why) => {
            let message = format!("Whether KVM works is not known yet: {why}.");
            let remedy = "The first virtual node tries it, and falls back to emulation.";
            all.push(finding("kvm", Level::Note, message).remedy(remedy));
        }
        Kvm::Fails(why) => {
            let why = why.trim_end_matches('.');
            let message = format!(
                "KVM does not work, so virtual nodes are emulated, which is about 10 times slower: {why}."
            );
            // What the trial says (walt_vnode::probe).
            let remedy = if why.contains("only root may use") {
                "Give the device to the group kvm: chgrp kvm /dev/kvm; chmod 660 /dev/kvm"
            } else if why.contains("/dev/kvm") {
                "Enable virtualisation (VT-x, AMD-V) in the firmware, then 'modprobe kvm_intel' or 'modprobe kvm_amd'. If this machine is virtual, enable nested virtualisation on its host."
            } else {
                "If this machine is virtual, nested virtualisation does not work on its host: another host or a newer kernel there may help."
            };
            all.push(finding("kvm", Level::Warning, message).remedy(remedy));
        }
    }
    if !facts.tun && needs_qemu {
        let message = "There is no /dev/net/tun: virtual nodes have no network card.";
        all.push(finding("kvm", Level::Warning, message).remedy("Load the module: modprobe tun"));
    }
    let cgroups = match facts.cgroups {
        Cgroups::V2 => finding("cgroups", Level::Ok, "The machine has control groups of version 2."),
        Cgroups::V1 => {
            let message =
                "The machine has control groups of version 1, in which limits of image shells are weaker.";
            let remedy = "Boot it with systemd.unified_cgroup_hierarchy=1 on the kernel's command line.";
            finding("cgroups", Level::Note, message).remedy(remedy)
        }
        Cgroups::None => {
            let message = "No control groups are mounted at /sys/fs/cgroup: image shells do not start.";
            finding("cgroups", Level::Problem, message)
                .remedy("Mount them: mount -t cgroup2 none /sys/fs/cgroup")
        }
    };
    all.push(cgroups);
    if !facts.random {
        let message =
            "The kernel has not gathered enough random numbers: the server waits when it makes its keys.";
        let remedy = "Wait a minute; give a virtual machine a virtio-rng device, or install haveged.";
        all.push(finding("entropy", Level::Warning, message).remedy(remedy));
    }
    all
}

fn clock(clock: &Clock) -> Vec<Finding> {
    let text = time::local_time(clock.now);
    if clock.program > 0 && clock.now < clock.program - CLOCK_MARGIN {
        let message = format!(
            "The clock says {text}, but this program was made later: times of images and logs, and certificates of registries, will be wrong."
        );
        let remedy = "Set it: timedatectl set-ntp true, or date -s '…'";
        return vec![finding("clock", Level::Warning, message).remedy(remedy)];
    }
    if !clock.synchronised {
        let message =
            format!("Nothing keeps the clock right (it says {text}); nodes take their time from it.");
        let remedy = "Install an NTP client: apt-get install systemd-timesyncd (or chrony). A virtual machine may get its time from its host.";
        return vec![finding("clock", Level::Note, message).remedy(remedy)];
    }
    vec![finding("clock", Level::Ok, "The clock is synchronised.")]
}

#[cfg(test)]
#[path = "findings/tests.rs"]
mod tests;
