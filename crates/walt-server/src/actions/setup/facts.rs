//! What the checks look at: facts about this machine, without a judgement.

use crate::actions::setup::proposal::Used;
use std::net::Ipv4Addr;
use walt_types::Mac;

/// A program that the server runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its Debian package.
    pub package: &'static str,
    /// What is missing without it.
    pub effect: &'static str,
    /// Whether the server does not start without it.
    pub needed: bool,
}

/// The programs, besides the runtime of containers, whose name is in the configuration.
pub const PROGRAMS: [Program; 3] = [
    Program { name: "nft", package: "nftables", effect: "the server does not start", needed: true },
    Program { name: "ssh", package: "openssh-client", effect: "the server does not start", needed: true },
    Program {
        name: walt_vnode::PROGRAM,
        package: "qemu-system-x86",
        effect: "there are no virtual nodes",
        needed: false,
    },
];

/// The runtime of containers, if the configuration does not name another one.
pub const RUNC: Program =
    Program { name: "runc", package: "runc", effect: "the server does not start", needed: true };

/// A port that the server wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// What is served.
    pub name: &'static str,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
    /// Whether it is bound to the server's address on walt-net, not to all of the bridge.
    pub at_address: bool,
    /// What is missing without it.
    pub effect: &'static str,
    /// For whom it is indispensable.
    pub needed: Needed,
}

/// Who cannot be served without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Nobody: the server does not start.
    Always,
    /// Machines behind the cable.
    Cable,
    /// Something is missing, and nodes boot.
    Never,
}

/// The ports; those of `web.listen` and of users' exposed ports are not among them.
pub const SERVICES: [Service; 10] = {
    const fn service(
        name: &'static str,
        protocol: &'static str,
        port: u16,
        effect: &'static str,
        needed: Needed,
    ) -> Service {
        let at_address = matches!(port, 53 | 80);
        Service { name, protocol, port, at_address, effect, needed }
    }
    let start = "the server does not start";
    let names = "nodes cannot resolve names";
    let nfs = "nodes whose images do not name the NFS port cannot boot";
    [
        service("NFS", "tcp", 2049, start, Needed::Always),
        service("the node link", "tcp", 12347, start, Needed::Always),
        service("DHCP", "udp", 67, "machines that boot by their own firmware get no address", Needed::Cable),
        service(
            "TFTP",
            "udp",
            69,
            "machines that boot by their own firmware get no boot loader",
            Needed::Cable,
        ),
        service("HTTP boot", "tcp", 80, "nodes cannot load kernels over the network", Needed::Cable),
        service("DNS", "udp", 53, names, Needed::Never),
        service("DNS", "tcp", 53, names, Needed::Never),
        service("the port mapper", "tcp", 111, nfs, Needed::Never),
        service("the port mapper", "udp", 111, nfs, Needed::Never),
        service("netconsole", "udp", 12342, "messages of nodes' kernels are not logged", Needed::Never),
    ]
};

/// A port that something else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// For what it is wanted.
    pub service: &'static Service,
    /// The process that has it: number and name; none if the kernel has it, or it cannot be found.
    pub holder: Option<(u32, String)>,
}

/// The search for other DHCP servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpSearch {
    /// There is no cable on which one could be.
    NoCable,
    /// It was not possible; why, as a clause.
    NotDone(String),
    /// The servers that have answered.
    Found(Vec<(Ipv4Addr, Mac)>),
}

/// The disk of the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The directory, or the nearest one above it that exists.
    pub path: String,
    /// Kind of the file system.
    pub kind: String,
    /// Whether it opens files by handle; if not, what the kernel says.
    pub handles: Result<(), String>,
    /// Free bytes.
    pub free: u64,
    /// Free bytes where recipes work (`/var/tmp`).
    pub free_for_recipes: u64,
}

/// Whether virtual nodes can use KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// A kernel has started under it.
    Works,
    /// It does not work; why.
    Fails(String),
    /// It could not be tried; why.
    Unknown(String),
    /// The configuration says emulation.
    NotWanted,
}

/// The clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Whether something keeps it right.
    pub synchronised: bool,
    /// What it says, in seconds since the epoch.
    pub now: i64,
    /// When this program was made, in seconds since the epoch; 0 if unknown.
    pub program: i64,
}

/// Control groups of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 only.
    V2,
    /// Version 1, or both.
    V1,
    /// None are mounted.
    None,
}

/// A rule of another firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// What it does, and what helps, as a sentence without its full stop.
    pub message: String,
    /// Whether a rule of ours lets our traffic pass.
    pub solved: bool,
}

/// What is wrong with an interface of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadInterface {
    /// Whether the server does not start.
    pub prevents: bool,
    /// What is wrong, and what to do, as a sentence without its full stop.
    pub message: String,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether a server of this configuration answers.
    pub server: bool,
    /// Programs that are not installed.
    pub missing: Vec<&'static Program>,
    /// What the recipe that will be run calls and is not installed: programs with their Debian packages.
    pub missing_to_build: Vec<(String, String)>,
    /// The configured runtime of containers, if it is not installed.
    pub runtime_missing: Option<String>,
    /// Whether the runtime can start a container; if not, what it says. None if it is not installed.
    pub container: Option<Result<(), String>>,
    /// Ports that something else has.
    pub ports: Vec<Taken>,
    /// Other DHCP servers.
    pub dhcp: DhcpSearch,
    /// Other firewalls; if they cannot be read, why.
    pub firewalls: Result<Vec<Firewall>, String>,
    /// The disk.
    pub disk: Disk,
    /// Whether the service of systemd would run the server, which sees no home directories.
    pub is_service: bool,
    /// KVM.
    pub kvm: Kvm,
    /// Whether there is `/dev/net/tun`.
    pub tun: bool,
    /// The clock.
    pub clock: Clock,
    /// Whether the kernel gives random numbers.
    pub random: bool,
    /// Control groups.
    pub cgroups: Cgroups,
    /// What is wrong with the interfaces of the configuration.
    pub interfaces: Vec<BadInterface>,
    /// What the interface is that has the name of the bridge and is not ours.
    pub foreign_bridge: Option<String>,
    /// Ranges that are in use, except by this server.
    pub used: Vec<Used>,
    /// The group of `api.group`, if it does not exist.
    pub group_missing: Option<String>,
    /// Whether the account of qemu exists.
    pub account: bool,
    /// Nodes whose address is not on walt-net.
    pub strangers: Vec<String>,
}
