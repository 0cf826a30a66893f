//! The decisions of the server: which address, which options, to whom.

use super::{
    Request,
    boot::{self, Advice, Class, Loaders},
    leases::{Lease, Leases, OFFER_S, OFFERS_MAX},
    wire::OPTION_IPXE,
};
use dhcproto::{
    Encodable, Encoder,
    v4::{DhcpOption, Flags, MIN_PACKET_SIZE, Message, MessageType, Opcode, UnknownOption},
};
use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};
use walt_types::{Mac, Model};

/// Seconds for which a node may use its address. Initial RAM disks ask once and never again, so that this is
/// for ever; the number is that of the existing system.
const NODE_LEASE_S: u64 = 6_000_000;
/// Seconds for which an unknown device may use its address.
const DEVICE_LEASE_S: u64 = 12 * 3600;
/// Domain of nodes, and the only one that names are looked up in.
const DOMAIN: &str = "walt";
/// [`DOMAIN`] as option 119 has it (RFC 3397, RFC 1035 §3.1).
const SEARCH_LIST: &[u8] = b"\x04walt\x00";
/// Longest name of a boot file, in bytes: the field has room for a final NUL too (RFC 2131 §2).
pub const FILE_MAX: usize = 127;
/// Sub-option of iPXE by which it does not wait for a proxy (<https://ipxe.org/howto/dhcpd>).
const IPXE_NO_PROXY: [u8; 3] = [176, 1, 1];
/// Hardware type of Ethernet comes from the client; 6 bytes of address.
const ETHERNET_LEN: usize = 6;

/// What does not change while a server runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server's address.
    pub server: Ipv4Addr,
    /// Length of the network's prefix, in bits: 16 to 30.
    pub prefix: u8,
    /// Boot loaders that it has; paths of at most [`FILE_MAX`] bytes.
    pub loaders: Loaders,
    /// URL of the script for stock iPXE, of at most [`FILE_MAX`] bytes.
    pub script: String,
    /// URL of the boot files, with a slash at its end.
    pub root: String,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its boot address.
    pub mac: Mac,
    /// Its permanent address.
    pub ip: Ipv4Addr,
    /// Its name.
    pub name: String,
    /// Whether its firmware runs signed programs only.
    pub secure: bool,
}

/// A machine that says it is a node, or whose firmware can only be a node's, and is not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its boot address.
    pub mac: Mac,
    /// The address that it will keep.
    pub ip: Ipv4Addr,
    /// Its model.
    pub model: Model,
    /// The name that it gives itself.
    pub host_name: Option<String>,
}

/// What is to be kept on disk before a reply is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// This lease.
    Put(Lease),
    /// This station's lease is gone.
    Remove(Mac),
}

/// Where a reply goes, on port 68.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To 255.255.255.255.
    Broadcast,
    /// To an address that the station has, or is being given; its Ethernet address is known to be the
    /// request's, so that nobody is asked for it.
    Station(Ipv4Addr),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub to: Destination,
    /// Its kind, for the log.
    pub kind: MessageType,
    /// The address that it gives or refuses.
    pub ip: Ipv4Addr,
}

impl Reply {
    /// Whether it confirms that the station has this address.
    pub fn gives(&self, ip: Ipv4Addr) -> bool {
        self.kind == MessageType::Ack && self.ip == ip
    }
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is sent, and why.
    Ignore(&'static str),
    /// Keep `save` on disk, then send `reply`.
    Answer {
        /// The change of what is kept.
        save: Option<Saved>,
        /// The message.
        reply: Option<Reply>,
    },
}

/// What is to be done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It gives no address away: this is the outcome.
    Reply(Outcome),
    /// It may change who has which address: see that nobody else does meanwhile, register the machine if
    /// [`Server::registration`] says so, and call [`Server::settle`].
    NeedsLock,
}

/// The DHCP server of one network.
#[derive(Debug)]
pub struct Server {
    config: Config,
    leases: Leases,
    /// What firmware said when it looked for a server.
    told: HashMap<Mac, Told>,
    /// Stations that are told that the server is their router.
    routed: HashSet<Mac>,
}

/// What a station said of itself in a discover. Some firmware leaves it out when it asks for the address: early EEPROMs
/// of the Raspberry Pi 4 (<https://github.com/raspberrypi/rpi-eeprom/issues/87>).
#[derive(Debug)]
struct Told {
    vendor_class: String,
    arch: Option<u16>,
    machine_id: Option<Vec<u8>>,
    ends: u64,
}

/// What one request is decided on.
struct Facts<'a> {
    request: &'a Request,
    now: u64,
    own: Option<&'a Node>,
    /// Holders of permanent addresses.
    by_ip: HashMap<Ipv4Addr, Mac>,
}

impl<'a> Facts<'a> {
    fn new(request: &'a Request, now: u64, nodes: &'a [Node]) -> Self {
        let own = nodes.iter().find(|n| n.mac == request.mac);
        Self { request, now, own, by_ip: nodes.iter().map(|n| (n.ip, n.mac)).collect() }
    }
}

impl Server {
    /// A server that knows these leases.
    pub fn new(config: Config, leases: impl IntoIterator<Item = Lease>) -> Self {
        Self { config, leases: Leases::restore(leases), told: HashMap::new(), routed: HashSet::new() }
    }

    /// What does not change.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes these the stations to which the server is the router. Others have none: they reach their network only.
    pub fn route(&mut self, stations: HashSet<Mac>) {
        self.routed = stations;
    }

    /// What is to be done about a request. `now` is in seconds since the epoch; `nodes` are all that are registered at
    /// that time.
    pub fn plan(&mut self, request: &Request, now: u64, nodes: &[Node]) -> Plan {
        self.listen(request, now);
        let request = &self.completed(request, now);
        let facts = Facts::new(request, now, nodes);
        if facts.own.is_some() {
            // What it had before it was a node.
            self.leases.remove(request.mac);
        }
        Plan::Reply(match request.kind {
            MessageType::Request if facts.own.is_none() => return Plan::NeedsLock,
            MessageType::Release if self.released(&facts).is_some() => return Plan::NeedsLock,
            MessageType::Request => self.request(&facts),
            MessageType::Release => Outcome::Ignore("it releases nothing: nodes keep their addresses"),
            MessageType::Discover => self.discover(&facts),
            MessageType::Decline => self.decline(&facts),
            MessageType::Inform => self.inform(&facts),
            _ => Outcome::Ignore("it is not a message of a client"),
        })
    }

    /// The node that the sender of a request would be: it says that it is one, or its firmware can only be a node's; it is
    /// not registered, and may have the address that it asks for.
    pub fn registration(&self, request: &Request, now: u64, nodes: &[Node]) -> Option<Registration> {
        let request = &self.completed(request, now);
        let facts = Facts::new(request, now, nodes);
        let model = boot::model(request)?;
        let ip = requested(request).filter(|_| request.kind == MessageType::Request)?;
        let is_ours = request.server.is_none_or(|s| s == self.config.server);
        let is_new = facts.own.is_none() && is_ours && self.is_due(&facts, ip);
        is_new.then(|| Registration { mac: request.mac, ip, model, host_name: request.host_name.clone() })
    }

    /// The outcome of a request that [`Plan::NeedsLock`], with what holds while nobody else gives addresses away.
    pub fn settle(&mut self, request: &Request, now: u64, nodes: &[Node]) -> Outcome {
        let request = &self.completed(request, now);
        let facts = Facts::new(request, now, nodes);
        if facts.own.is_some() {
            self.leases.remove(request.mac);
        }
        match request.kind {
            MessageType::Request => self.request(&facts),
            MessageType::Release => match self.released(&facts) {
                Some(ended) => {
                    self.leases.put(ended);
                    Outcome::Answer { save: Some(Saved::Put(ended)), reply: None }
                }
                None => Outcome::Ignore("it releases nothing any more"),
            },
            _ => Outcome::Ignore("it gives no address away"),
        }
    }

    /// Remembers what a station says of itself while it looks for a server; what runs on it later says something else.
    fn listen(&mut self, request: &Request, now: u64) {
        if request.kind != MessageType::Discover {
            return;
        }
        self.told.remove(&request.mac);
        if !matches!(boot::class(request), Class::Board(_) | Class::Firmware(..)) {
            return;
        }
        if self.told.len() >= OFFERS_MAX
            && let Some(oldest) = self.told.iter().min_by_key(|(_, t)| t.ends).map(|(mac, _)| *mac)
        {
            self.told.remove(&oldest);
        }
        let Request { vendor_class, arch, machine_id, .. } = request.clone();
        self.told.insert(request.mac, Told { vendor_class, arch, machine_id, ends: now + OFFER_S });
    }

    /// The request, with what its station said of itself before where the request says nothing.
    fn completed(&self, request: &Request, now: u64) -> Request {
        let mut request = request.clone();
        let says_nothing = request.kind == MessageType::Request
            && request.vendor_class.is_empty()
            && request.user_class.is_empty()
            && !request.is_ipxe;
        if let Some(told) = self.told.get(&request.mac).filter(|t| says_nothing && t.ends > now) {
            request.vendor_class.clone_from(&told.vendor_class);
            request.arch = request.arch.or(told.arch);
            request.machine_id = request.machine_id.or_else(|| told.machine_id.clone());
        }
        request
    }

    /// Forgets a station that is not a node: its lease, and what it was offered.
    pub fn forget(&mut self, mac: Mac) {
        self.leases.drop_offer(mac);
        self.leases.remove(mac);
        self.told.remove(&mac);
    }

    fn discover(&mut self, facts: &Facts<'_>) -> Outcome {
        let Some(ip) = self.choose(facts) else {
            return Outcome::Ignore("no address is left in the network");
        };
        if facts.own.is_none() {
            self.leases.offer(facts.request.mac, ip, facts.now);
        }
        Outcome::Answer { save: None, reply: Some(self.grant(facts, MessageType::Offer, ip)) }
    }

    /// RFC 2131 §4.3.2. The server owns the network: what it cannot confirm it refuses, so that a station
    /// that comes from elsewhere does not wait.
    fn request(&mut self, facts: &Facts<'_>) -> Outcome {
        let request = facts.request;
        if request.server.is_some_and(|s| s != self.config.server) {
            self.leases.drop_offer(request.mac);
            return Outcome::Ignore("it chose another server");
        }
        let Some(ip) = requested(request) else {
            return Outcome::Ignore("it asks for no address");
        };
        if !self.is_due(facts, ip) {
            self.leases.drop_offer(request.mac);
            return Outcome::Answer { save: None, reply: Some(self.refuse(request, ip)) };
        }
        if facts.own.is_some() {
            return Outcome::Answer { save: None, reply: Some(self.grant(facts, MessageType::Ack, ip)) };
        }
        let lease = Lease { mac: request.mac, ip, ends: facts.now + DEVICE_LEASE_S };
        self.leases.put(lease);
        let reply = self.grant(facts, MessageType::Ack, ip);
        Outcome::Answer { save: Some(Saved::Put(lease)), reply: Some(reply) }
    }

    /// Whether a station may have the address that it asks for.
    fn is_due(&self, facts: &Facts<'_>, ip: Ipv4Addr) -> bool {
        let request = facts.request;
        match facts.own {
            Some(node) => node.ip == ip,
            None => {
                let offered = self.leases.offer_of(request.mac, facts.now);
                let held = self.leases.of(request.mac).map(|lease| lease.ip);
                let mut known = [offered, held].into_iter().flatten().peekable();
                // A station of which nothing is known may have an address that is nobody's: another server's, before
                // this one, or one that was offered before the server was restarted. To refuse it costs a ROM half a
                // minute.
                let is_known = known.peek().is_none() || known.any(|known| known == ip);
                (is_known || request.server.is_none()) && self.may_have(facts, ip)
            }
        }
    }

    fn decline(&mut self, facts: &Facts<'_>) -> Outcome {
        let request = facts.request;
        let Some(ip) = request.requested.filter(|_| request.server == Some(self.config.server)) else {
            return Outcome::Ignore("it declines nothing of ours");
        };
        let had = self.leases.of(request.mac).is_some_and(|l| l.ip == ip);
        if !had && self.leases.offer_of(request.mac, facts.now) != Some(ip) {
            return Outcome::Ignore("it declines an address that is not its own");
        }
        self.leases.drop_offer(request.mac);
        self.leases.remove(request.mac);
        self.leases.decline(ip, facts.now);
        Outcome::Answer { save: had.then_some(Saved::Remove(request.mac)), reply: None }
    }

    /// The lease that a station gives back. It is kept, but ended: the station gets the address again if nobody needed
    /// it meanwhile.
    fn released(&self, facts: &Facts<'_>) -> Option<Lease> {
        let request = facts.request;
        let lease = self.leases.of(request.mac)?;
        (lease.ip == request.ciaddr && lease.ends > facts.now).then_some(Lease { ends: facts.now, ..lease })
    }

    fn inform(&self, facts: &Facts<'_>) -> Outcome {
        if !self.is_station(facts.request.ciaddr) {
            return Outcome::Ignore("it asks about an address outside the network");
        }
        Outcome::Answer { save: None, reply: Some(self.grant(facts, MessageType::Ack, facts.request.ciaddr)) }
    }

    /// The address for a station: its own, the one it asks for, an unused one, the one unused for longest.
    fn choose(&self, facts: &Facts<'_>) -> Option<Ipv4Addr> {
        if let Some(node) = facts.own {
            return Some(node.ip);
        }
        let mac = facts.request.mac;
        let before = self.leases.of(mac).map(|l| l.ip).or_else(|| self.leases.offer_of(mac, facts.now));
        let wanted = [before, facts.request.requested];
        if let Some(ip) = wanted.into_iter().flatten().find(|ip| self.may_have(facts, *ip)) {
            return Some(ip);
        }
        let unused = |ip: &Ipv4Addr| self.leases.is_unused(*ip) && self.may_have(facts, *ip);
        self.stations()
            .find(unused)
            .or_else(|| self.leases.longest_ended(facts.now, |ip| self.may_have(facts, ip)))
    }

    /// Whether a station that is not a node may have this address.
    fn may_have(&self, facts: &Facts<'_>, ip: Ipv4Addr) -> bool {
        self.is_station(ip)
            && !facts.by_ip.contains_key(&ip)
            && self.leases.is_free_for(ip, facts.request.mac, facts.now)
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.config.prefix.min(32))).unwrap_or(0)
    }

    fn network(&self) -> u32 {
        self.config.server.to_bits() & self.mask()
    }

    fn broadcast(&self) -> u32 {
        self.network() | !self.mask()
    }

    /// All addresses that stations may have.
    fn stations(&self) -> impl Iterator<Item = Ipv4Addr> {
        let all = (self.network()..self.broadcast()).map(Ipv4Addr::from_bits);
        all.filter(|ip| self.is_station(*ip))
    }

    fn is_station(&self, ip: Ipv4Addr) -> bool {
        let bits = ip.to_bits();
        bits & self.mask() == self.network()
            && bits != self.network()
            && bits != self.broadcast()
            && ip != self.config.server
    }

    fn message(&self, request: &Request, kind: MessageType) -> Message {
        let mut message = Message::new_with_id(
            request.xid,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &request.mac.0[..ETHERNET_LEN],
        );
        message.set_opcode(Opcode::BootReply);
        if request.broadcast {
            message.set_flags(Flags::default().set_broadcast());
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(self.config.server));
        if let Some(id) = &request.client_id {
            options.insert(DhcpOption::ClientIdentifier(id.clone()));
        }
        message
    }

    /// An offer or a confirmation. There is no time server (option 42): this server does not serve the time yet, and
    /// systems would wait for it.
    fn grant(&self, facts: &Facts<'_>, kind: MessageType, ip: Ipv4Addr) -> Reply {
        let (request, server) = (facts.request, self.config.server);
        let mut message = self.message(request, kind);
        message.set_siaddr(server);
        let is_inform = request.kind == MessageType::Inform;
        if is_inform || !request.ciaddr.is_unspecified() {
            message.set_ciaddr(request.ciaddr);
        }
        let config = &self.config;
        let mut advice = boot::advice(request, &config.script, &config.root, &config.loaders);
        if facts.own.is_some_and(|node| node.secure) && boot::is_uefi_pc(request) {
            advice.file = Some(boot::SECURE_LOADER.to_owned());
        }
        let file = advice.file.as_deref().filter(|f| f.len() <= FILE_MAX);
        if let Some(file) = file {
            message.set_fname(file.as_bytes());
        }
        let options = message.opts_mut();
        if !is_inform {
            let seconds = if facts.own.is_some() { NODE_LEASE_S } else { DEVICE_LEASE_S } as u32;
            options.insert(DhcpOption::AddressLeaseTime(seconds));
            // RFC 2131 §4.4.5.
            options.insert(DhcpOption::Renewal(seconds / 2));
            options.insert(DhcpOption::Rebinding(seconds / 8 * 7));
        }
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::from_bits(self.mask())));
        if self.routed.contains(&request.mac) {
            options.insert(DhcpOption::Router(vec![server]));
        }
        options.insert(DhcpOption::BroadcastAddr(Ipv4Addr::from_bits(self.broadcast())));
        options.insert(DhcpOption::DomainNameServer(vec![server]));
        options.insert(DhcpOption::DomainName(DOMAIN.into()));
        options.insert(DhcpOption::Unknown(UnknownOption::new(119.into(), SEARCH_LIST.to_vec())));
        options.insert(DhcpOption::TFTPServerName(server.to_string().into_bytes()));
        if let Some(node) = facts.own {
            options.insert(DhcpOption::Hostname(node.name.clone()));
        }
        boot_options(options, request, &advice);
        if let Some(file) = file.filter(|_| request.wants_file_option) {
            // Old ROMs of Intel read on beyond the option until they find a NUL; others cut it off.
            options.insert(DhcpOption::BootfileName([file.as_bytes(), &[0]].concat()));
        }
        if !is_inform {
            message.set_yiaddr(ip);
        }
        Reply { bytes: encode(&message), to: self.destination(facts, kind, ip), kind, ip }
    }

    /// RFC 2131 §4.1. An offer to a station that has no address on record is broadcast, as the RFC allows
    /// where unicast is not possible: the kernel would ask who has an address that nobody has yet.
    fn destination(&self, facts: &Facts<'_>, kind: MessageType, ip: Ipv4Addr) -> Destination {
        let request = facts.request;
        let is_recorded = facts.own.is_some_and(|n| n.ip == ip)
            || self.leases.of(request.mac).is_some_and(|l| l.ip == ip && l.ends > facts.now);
        if !request.ciaddr.is_unspecified() && kind == MessageType::Ack {
            Destination::Station(request.ciaddr)
        } else if request.broadcast || !is_recorded {
            Destination::Broadcast
        } else {
            Destination::Station(ip)
        }
    }

    fn refuse(&self, request: &Request, ip: Ipv4Addr) -> Reply {
        let kind = MessageType::Nak;
        let mut message = self.message(request, kind);
        let why = format!("{ip} is not for {}", request.mac);
        message.opts_mut().insert(DhcpOption::Message(why));
        Reply { bytes: encode(&message), to: Destination::Broadcast, kind, ip }
    }
}

/// The address that a station asks for, or has.
fn requested(request: &Request) -> Option<Ipv4Addr> {
    request.requested.or(Some(request.ciaddr).filter(|ip| !ip.is_unspecified()))
}

fn boot_options(options: &mut dhcproto::v4::DhcpOptions, request: &Request, advice: &Advice) {
    if let Some(class) = advice.class {
        options.insert(DhcpOption::ClassIdentifier(class.as_bytes().to_vec()));
    }
    if let Some(vendor) = &advice.vendor {
        options.insert(DhcpOption::VendorExtensions(vendor.clone()));
    }
    if let Some(id) = &request.machine_id {
        options.insert(DhcpOption::Unknown(UnknownOption::new(97.into(), id.clone())));
    }
    if advice.for_ipxe {
        options.insert(DhcpOption::Unknown(UnknownOption::new(OPTION_IPXE.into(), IPXE_NO_PROXY.to_vec())));
    }
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MIN_PACKET_SIZE);
    // Invariant: encoding fails for numbers that do not fit a buffer only, and this one grows.
    message.encode(&mut Encoder::new(&mut bytes)).expect("a vector grows");
    // Old ROMs drop what is shorter than BOOTP's 300 bytes.
    bytes.resize(bytes.len().max(MIN_PACKET_SIZE), 0);
    bytes
}
