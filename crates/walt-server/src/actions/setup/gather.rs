//! Gathers [`Facts`] about this machine. Nothing is changed, except that an interface which is down is brought up for
//! the time of the search for other DHCP servers.

use crate::{
    actions::{
        admin::runtime,
        setup::{
            facts::{
                BadInterface, Cgroups, Clock, DhcpSearch, Disk, Facts, Firewall, Kvm, PROGRAMS, SERVICES,
                Taken,
            },
            proposal::Range,
            service::Service,
            try_container, used,
        },
    },
    base::{
        config::{Acceleration, Config},
        db::{Db, NodeRow},
        ports,
        programs::find_program,
        sockets::could_be_bound,
    },
    services::{
        cable::{self, CableError},
        images::default_image,
        network,
        nodes::vnode,
        other_dhcp,
    },
};
use anyhow::{Context, Result};
use rustix::fs::{StatFs, statfs, statvfs};
use socket2::Type;
use std::{
    fs::File,
    net::Ipv4Addr,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use walt_client::{Client, Target};
use walt_sys::net::{
    link, member, nft,
    packet::{IPV4, PacketSocket},
};
use walt_types::Mac;
use walt_vnode::{Acceleration as Found, Account};

/// How long an interface that was brought up may take to find its carrier.
const CARRIER: Duration = Duration::from_secs(4);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(100);
/// The account that qemu has in the trial of KVM while its own does not exist: nobody.
const NOBODY: u32 = 65_534;

/// The status of the server of this configuration, if one runs.
pub fn server_status(config: &Config) -> Option<walt_api::Status> {
    let ask = async { Client::new(Target::Unix(config.socket()), None)?.status().await };
    runtime().ok()?.block_on(ask).ok()
}

/// Everything that the checks look at, before the recipe `build` is run. `say` is called before what takes seconds.
///
/// # Errors
/// The kernel does not list its interfaces, or the state cannot be read.
pub fn facts(config: &Config, build: Option<&str>, service: Service, say: &dyn Fn(&str)) -> Result<Facts> {
    let status = server_status(config);
    let runtime = &config.containers.runtime;
    let runtime_missing = find_program(runtime).is_none().then(|| runtime.clone());
    let bridge = link::get(config.bridge())?;
    let foreign_bridge =
        bridge.filter(|l| l.alias != network::alias(config)).map(|l| match l.kind.as_str() {
            "" => "a physical interface".to_owned(),
            kind if l.alias.is_empty() => kind.to_owned(),
            kind => format!("{kind}, '{}'", l.alias),
        });
    let ports = match &status {
        Some(status) => taken_by_status(status),
        None => taken(config)?,
    };
    let container = match &runtime_missing {
        None => {
            say("Starting a container");
            Some(try_container::run(runtime).map_err(|e| format!("{e:#}")))
        }
        Some(_) => None,
    };
    Ok(Facts {
        server: status.is_some(),
        missing: PROGRAMS.iter().filter(|p| find_program(p.name).is_none()).collect(),
        missing_to_build: match build {
            Some(recipe) => missing_to_build(recipe)?,
            None => Vec::new(),
        },
        is_service: matches!(service, Service::Unit { .. }),
        runtime_missing,
        container,
        ports,
        dhcp: dhcp(config, status.as_ref(), say)?,
        firewalls: firewalls(config),
        disk: disk(&config.state_dir)?,
        kvm: kvm(config, say),
        tun: Path::new("/dev/net/tun").metadata().is_ok_and(|m| m.file_type().is_char_device()),
        clock: clock()?,
        random: walt_sys::machine::random_is_ready()?,
        cgroups: cgroups(),
        interfaces: interfaces(config)?,
        foreign_bridge,
        used: used::list(config)?,
        group_missing: config.api.group.clone().filter(|g| !group_exists(g)),
        account: account_exists(),
        strangers: strangers(config)?,
    })
}

fn missing_to_build(recipe: &str) -> Result<Vec<(String, String)>> {
    let all = default_image::programs(recipe)?;
    Ok(all.into_iter().filter(|(program, _)| find_program(program).is_none()).collect())
}

/// Whether the account of qemu exists.
pub fn account_exists() -> bool {
    matches!(nix::unistd::User::from_name(vnode::ACCOUNT), Ok(Some(_)))
}

/// Whether a group exists.
pub fn group_exists(name: &str) -> bool {
    matches!(nix::unistd::Group::from_name(name), Ok(Some(_)))
}

/// Ports that a running server does without.
fn taken_by_status(status: &walt_api::Status) -> Vec<Taken> {
    let of = |missing: &walt_api::MissingPort| {
        let service = SERVICES.iter().find(|s| s.port == missing.port && s.protocol == missing.protocol)?;
        Some(Taken { service, holder: missing.pid.zip(missing.holder.clone()) })
    };
    status.ports_missing.iter().filter_map(of).collect()
}

/// Ports that this server could not bind now.
fn taken(config: &Config) -> Result<Vec<Taken>> {
    let links = link::list()?;
    // Sockets that are bound to another interface are not in the way.
    let device = links
        .iter()
        .find(|l| l.name == config.bridge())
        .or_else(|| links.iter().find(|l| !l.is_loopback))
        .map(|l| l.name.as_str());
    let mut all = Vec::new();
    for service in &SERVICES {
        let kind = if service.protocol == "tcp" { Type::STREAM } else { Type::DGRAM };
        let addr = if service.at_address { config.server_ip() } else { Ipv4Addr::UNSPECIFIED };
        if could_be_bound(device, kind, addr, service.port).is_err() {
            all.push(Taken { service, holder: ports::holder(service.port, service.protocol) });
        }
    }
    Ok(all)
}

/// Brings an interface down again when it is dropped.
struct Down<'a>(&'a str);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = member::set_down(self.0);
    }
}

fn dhcp(config: &Config, status: Option<&walt_api::Status>, say: &dyn Fn(&str)) -> Result<DhcpSearch> {
    let net = &config.network.walt_net;
    let Some(raw) = net.raw_device.as_deref() else { return Ok(DhcpSearch::NoCable) };
    let port = cable::port_name(config).unwrap_or_else(|| raw.to_owned());
    let is_ours = |m: &member::Member| m.controller.as_ref().is_some_and(|(name, _)| *name == net.bridge);
    let found = member::inspect(&port)?;
    if let (Some(status), true) = (status, found.as_ref().is_some_and(is_ours)) {
        let parsed =
            status.dhcp_servers.iter().filter_map(|s| Some((s.ip.parse().ok()?, s.mac.parse().ok()?)));
        return Ok(DhcpSearch::Found(parsed.collect()));
    }
    let not_done = |why: String| Ok(DhcpSearch::NotDone(why));
    let Some(found) = found else {
        let what = if net.vlan.is_some() { "is made when the server starts" } else { "does not exist" };
        return not_done(format!("the interface {port} {what}"));
    };
    // Whoever has this interface for something else decides whether it is brought up.
    let is_free = cable::use_of(&found, &net.bridge).is_none();
    let _down = match found.link.up {
        true => None,
        false if is_free => {
            member::set_up(&port)?;
            Some(Down(&port))
        }
        false => return not_done(format!("the interface {port} is down")),
    };
    let start = Instant::now();
    while !link::get(&port)?.is_some_and(|l| l.carrier) {
        if start.elapsed() > CARRIER {
            return not_done(format!(
                "{port} has no carrier (its cable is unplugged, or its other end is off)"
            ));
        }
        std::thread::sleep(POLL);
    }
    let seconds = other_dhcp::PATIENCE.as_secs() * other_dhcp::QUESTIONS as u64;
    say(&format!("Looking for other DHCP servers on {port} ({seconds} s)"));
    let mac: [u8; 6] = found.link.address.as_slice().try_into().unwrap_or(network::bridge_mac(config).0);
    let answers = runtime()?.block_on(async {
        let socket = PacketSocket::open(&port, IPV4)?;
        other_dhcp::search(&socket, Mac(mac), config.server_ip()).await
    });
    match answers {
        Ok(servers) => Ok(DhcpSearch::Found(servers.into_iter().collect())),
        Err(e) => not_done(format!("{e:#}")),
    }
}

fn firewalls(config: &Config) -> Result<Vec<Firewall>, String> {
    if find_program("nft").is_none() {
        // That it is missing is a finding of its own.
        return Ok(Vec::new());
    }
    let found = nft::foreign_rules(&network::alias(config)).map_err(|e| e.to_string())?;
    let of = |(chain, help): (String, nft::Help)| {
        let (what, solved) = match help {
            nft::Help::Accepted => ("a marked rule of this server accepts that of walt-net", true),
            nft::Help::Pending => ("the server adds a marked rule that accepts that of walt-net", true),
            nft::Help::None => ("a rule of the server has no effect there", false),
        };
        Firewall { message: format!("{chain} drops unknown traffic; {what}"), solved }
    };
    let mut all: Vec<_> = found.into_iter().map(of).collect();
    if nft::legacy_iptables() {
        let message = "There are rules of legacy iptables, which nft can neither show nor change";
        all.push(Firewall { message: message.into(), solved: false });
    }
    Ok(all)
}

/// Kinds of file systems by the numbers of statfs(2).
fn kind_of(stat: &StatFs) -> String {
    let kind = match stat.f_type as u64 & 0xffff_ffff {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlay",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x6969 => "nfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6573_5546 => "fuse",
        0xca45_1a4e => "bcachefs",
        other => return format!("a file system of type {other:#x}"),
    };
    kind.into()
}

fn disk(state_dir: &Path) -> Result<Disk> {
    let existing = state_dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let reading = || format!("cannot read the file system of {}", existing.display());
    let stat = statfs(existing).with_context(reading)?;
    let free = |dir: &Path| statvfs(dir).map(|v| v.f_bavail * v.f_frsize);
    let reason = |e: walt_sys::Error| e.source.to_string();
    Ok(Disk {
        path: existing.display().to_string(),
        kind: kind_of(&stat),
        handles: walt_sys::handle::self_test(existing).map_err(reason),
        free: free(existing).with_context(reading)?,
        free_for_recipes: free(Path::new(crate::services::images::recipe::WORK)).unwrap_or(u64::MAX),
    })
}

/// Kernels that a virtual machine can start, the best first: those of this machine, and those of its images.
fn kernels(state_dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        all.push(PathBuf::from(format!("/boot/vmlinuz-{}", release.trim())));
    }
    let mut others: Vec<PathBuf> = std::fs::read_dir("/boot")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"vmlinuz")))
        .collect();
    others.sort();
    all.extend(others.into_iter().rev());
    let layers = std::fs::read_dir(state_dir.join("images/layers")).into_iter().flatten().flatten();
    all.extend(layers.map(|layer| layer.path().join("fs/boot/pc-x86-64/kernel")));
    // A link of an image leads into the image, which is not the root here.
    all.retain(|path| path.symlink_metadata().is_ok_and(|m| m.is_file()));
    all
}

fn kvm(config: &Config, say: &dyn Fn(&str)) -> Kvm {
    if config.virtual_nodes.acceleration == Acceleration::Tcg {
        return Kvm::NotWanted;
    }
    if find_program(walt_vnode::PROGRAM).is_none() {
        return Kvm::Unknown(format!("{} is not installed", walt_vnode::PROGRAM));
    }
    let account = match nix::unistd::User::from_name(vnode::ACCOUNT) {
        Ok(Some(user)) => Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() },
        _ => Account { uid: NOBODY, gid: NOBODY },
    };
    if let Err(why) = walt_vnode::may_use_kvm(account) {
        return Kvm::Fails(why);
    }
    let Some(kernel) = kernels(&config.state_dir).into_iter().find_map(|path| File::open(path).ok()) else {
        return Kvm::Unknown(
            "there is no kernel in /boot, and no image yet, with which it could be tried".into(),
        );
    };
    say("Starting a kernel under KVM");
    let tried = || -> Result<walt_vnode::probe::Verdict> {
        let dir = tempfile::Builder::new().prefix("walt-setup-").tempdir_in("/var/tmp")?;
        Ok(walt_vnode::probe::run(&kernel, &dir.path().join("probe"), account, walt_vnode::PROGRAM)?)
    };
    match tried() {
        Ok(verdict) if verdict.acceleration == Found::Kvm => Kvm::Works,
        Ok(verdict) => Kvm::Fails(verdict.reason),
        Err(e) => Kvm::Unknown(format!("{e:#}")),
    }
}

fn clock() -> Result<Clock> {
    let program = std::env::current_exe().and_then(|p| p.metadata()).map_or(0, |m| m.mtime());
    let synchronised = walt_sys::machine::clock_is_synchronised().unwrap_or(false);
    Ok(Clock { synchronised, now: crate::base::time::now() as i64, program })
}

fn cgroups() -> Cgroups {
    /// `CGROUP2_SUPER_MAGIC` of statfs(2).
    const CGROUP2: u64 = 0x6367_7270;
    let Ok(stat) = statfs("/sys/fs/cgroup") else { return Cgroups::None };
    if stat.f_type as u64 == CGROUP2 {
        return Cgroups::V2;
    }
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mounted.lines().any(|l| l.contains(" - cgroup ")) {
        true => Cgroups::V1,
        false => Cgroups::None,
    }
}

fn interfaces(config: &Config) -> Result<Vec<BadInterface>> {
    let mut all: Vec<_> = cable::check(config)?
        .into_iter()
        .map(|e| BadInterface { prevents: !matches!(e, CableError::Absent { .. }), message: e.to_string() })
        .collect();
    if let Some(raw) = &config.network.walt_net.raw_device
        && is_wireless(raw)
    {
        let message = format!(
            "network.walt-net.raw-device: '{raw}' is wireless, and a wireless interface cannot be in a bridge"
        );
        all.push(BadInterface { prevents: true, message });
    }
    Ok(all)
}

/// Whether an interface is a wireless one.
pub fn is_wireless(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("wireless").exists()
}

/// Names of nodes whose address is not on walt-net.
fn strangers(config: &Config) -> Result<Vec<String>> {
    if !config.state_dir.join("walt.sqlite").exists() {
        return Ok(Vec::new());
    }
    let net = Range::from(config.network.walt_net.ip);
    let is_strange = |ip: Ipv4Addr| !Range { addr: ip, prefix: 32 }.overlaps(net);
    let db = Db::open_to_read(&config.state_dir)?;
    let nodes = db.with(NodeRow::all)?;
    Ok(nodes.into_iter().filter(|n| is_strange(n.ip)).map(|n| n.facts.name.to_string()).collect())
}
