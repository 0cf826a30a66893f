#![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

mod loading;

use super::{
    leases::{DECLINED_MAX, DECLINED_S, OFFER_S, OFFERS_MAX},
    *,
};
use dhcproto::{
    Decodable, Decoder,
    v4::{DhcpOption, Message, MessageType, OptionCode},
};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use walt_types::Mac;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 183, 1);
const ROOT: &str = "http://192.168.183.1/boot/";
const SCRIPT: &str = "http://192.168.183.1/boot/bootstrap.ipxe";

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 183, last)
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

/// A request as it is on the wire.
fn packet(mac: Mac, ciaddr: Ipv4Addr, broadcast: bool, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0, 3, if broadcast { 0x80 } else { 0 }, 0];
    bytes.extend_from_slice(&ciaddr.octets());
    bytes.resize(28, 0);
    bytes.extend_from_slice(&mac.0);
    bytes.resize(236, 0);
    bytes.extend_from_slice(&[99, 130, 83, 99]);
    for (code, value) in options {
        bytes.extend_from_slice(&[*code, value.len() as u8]);
        bytes.extend_from_slice(value);
    }
    bytes.push(255);
    bytes
}

struct Client {
    mac: Mac,
    ciaddr: Ipv4Addr,
    broadcast: bool,
    options: Vec<(u8, Vec<u8>)>,
}

impl Client {
    fn new(last: u8) -> Self {
        Self { mac: mac(last), ciaddr: Ipv4Addr::UNSPECIFIED, broadcast: false, options: vec![] }
    }
    fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }
    fn asks(self, kind: u8) -> Request {
        let mut options: Vec<(u8, &[u8])> = self.options.iter().map(|(c, v)| (*c, v.as_slice())).collect();
        let kind = [kind];
        options.push((53, &kind));
        parse(&packet(self.mac, self.ciaddr, self.broadcast, &options)).unwrap()
    }
    fn discovers(self) -> Request {
        self.asks(1)
    }
    fn selects(self, ip: Ipv4Addr) -> Request {
        self.with(54, &SERVER.octets()).with(50, &ip.octets()).asks(3)
    }
    fn reboots_with(self, ip: Ipv4Addr) -> Request {
        self.with(50, &ip.octets()).asks(3)
    }
    fn renews(mut self, ip: Ipv4Addr) -> Request {
        self.ciaddr = ip;
        self.asks(3)
    }
}

fn server_of(prefix: u8, leases: &[Lease]) -> Server {
    let loaders = Loaders { bios: Some("pxe/bios".into()), uefi: Some("pxe/uefi".into()) };
    let config = Config { server: SERVER, prefix, loaders, script: SCRIPT.into(), root: ROOT.into() };
    Server::new(config, leases.iter().copied())
}

fn nodes() -> Vec<Node> {
    vec![Node { mac: mac(2), ip: ip(2), name: "vn1".into(), secure: false }]
}

/// The reply, with what is to be kept.
/// The outcome as the service gets it, when no machine is registered.
fn handle(server: &mut Server, request: &Request, now: u64, nodes: &[Node]) -> Outcome {
    match server.plan(request, now, nodes) {
        Plan::Reply(outcome) => outcome,
        Plan::NeedsLock => server.settle(request, now, nodes),
    }
}

fn reply(outcome: Outcome) -> (Message, Destination, Option<Saved>) {
    match outcome {
        Outcome::Answer { save, reply: Some(reply) } => {
            let message = Message::decode(&mut Decoder::new(&reply.bytes)).unwrap();
            assert!(reply.bytes.len() >= 300 && reply.bytes.len() <= 576, "{}", reply.bytes.len());
            assert_eq!(message.xid(), 0xaabb_ccdd);
            (message, reply.to, save)
        }
        other => panic!("no reply: {other:?}"),
    }
}

fn option(message: &Message, code: u8) -> Option<DhcpOption> {
    message.opts().get(OptionCode::from(code)).cloned()
}

fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

#[test]
fn a_node_gets_its_own_address_and_name() {
    let mut server = server_of(24, &[]);
    let (offer, to, save) = reply(handle(&mut server, &Client::new(2).discovers(), 100, &nodes()));
    assert_eq!((kind(&offer), offer.yiaddr(), offer.siaddr()), (MessageType::Offer, ip(2), SERVER));
    assert_eq!((to, save), (Destination::Station(ip(2)), None));
    let (ack, _, save) = reply(handle(&mut server, &Client::new(2).selects(ip(2)), 100, &nodes()));
    assert_eq!((kind(&ack), ack.yiaddr(), save), (MessageType::Ack, ip(2), None));
    for expected in [
        DhcpOption::Hostname("vn1".into()),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::BroadcastAddr(ip(255)),
        DhcpOption::DomainName("walt".into()),
        DhcpOption::DomainNameServer(vec![SERVER]),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::TFTPServerName(b"192.168.183.1".to_vec()),
        DhcpOption::AddressLeaseTime(6_000_000),
        DhcpOption::Renewal(3_000_000),
        DhcpOption::Rebinding(5_250_000),
    ] {
        let code = OptionCode::from(&expected);
        assert_eq!(ack.opts().get(code), Some(&expected));
    }
    assert!(matches!(option(&ack, 119), Some(DhcpOption::DomainSearch(names)) if names.len() == 1));
    assert_eq!(option(&ack, 3), None, "no router: nodes reach their server only");
    assert_eq!(ack.fname(), None);
    // Its address is its own, whoever asks for it, and it gets no other.
    let (nak, to, _) = reply(handle(&mut server, &Client::new(9).reboots_with(ip(2)), 100, &nodes()));
    assert_eq!(
        (kind(&nak), nak.yiaddr(), to),
        (MessageType::Nak, Ipv4Addr::UNSPECIFIED, Destination::Broadcast)
    );
    let (nak, ..) = reply(handle(&mut server, &Client::new(2).selects(ip(7)), 100, &nodes()));
    assert_eq!(kind(&nak), MessageType::Nak);
}

#[test]
fn an_unknown_device_gets_a_lease() {
    let mut server = server_of(24, &[]);
    let (offer, to, save) = reply(handle(&mut server, &Client::new(9).discovers(), 100, &nodes()));
    assert_eq!((offer.yiaddr(), to, save), (ip(3), Destination::Broadcast, None));
    // The next one gets another address while the offer holds.
    let (other, ..) = reply(handle(&mut server, &Client::new(8).discovers(), 100, &nodes()));
    assert_eq!(other.yiaddr(), ip(4));
    let (ack, to, save) = reply(handle(&mut server, &Client::new(9).selects(ip(3)), 101, &nodes()));
    let Some(Saved::Put(lease)) = save else { panic!("{save:?}") };
    assert_eq!((kind(&ack), to), (MessageType::Ack, Destination::Station(ip(3))));
    assert_eq!((lease.mac, lease.ip, option(&ack, 12)), (mac(9), ip(3), None));
    // For twelve hours; it may ask again after a half of them, and anybody after seven eighths (RFC 2131).
    assert_eq!(lease.ends, 101 + 43_200);
    for expected in
        [DhcpOption::AddressLeaseTime(43_200), DhcpOption::Renewal(21_600), DhcpOption::Rebinding(37_800)]
    {
        assert_eq!(ack.opts().get(OptionCode::from(&expected)), Some(&expected));
    }
    // After a restart, and long after: the same.
    let mut server = server_of(24, &[lease]);
    let late = lease.ends + 1_000_000;
    let (offer, ..) = reply(handle(&mut server, &Client::new(9).discovers(), late, &nodes()));
    assert_eq!(offer.yiaddr(), ip(3));
    let (ack, to, _) = reply(handle(&mut server, &Client::new(9).renews(ip(3)), late, &nodes()));
    assert_eq!((kind(&ack), ack.ciaddr(), to), (MessageType::Ack, ip(3), Destination::Station(ip(3))));
}

/// What is kept on disk is known again: an address is its station's, and free for others once it has ended.
#[test]
fn leases_of_an_earlier_server() {
    let lease = Lease { mac: mac(9), ip: ip(40), ends: 1000 };
    let (select, other) = (Client::new(9).selects(ip(40)), Client::new(9).selects(ip(41)));
    let mut server = server_of(24, &[lease]);
    let mut answer = |request: &Request, now: u64| reply(handle(&mut server, request, now, &nodes()));
    assert_eq!(answer(&Client::new(9).discovers(), 999).0.yiaddr(), ip(40));
    let (nak, ..) = answer(&Client::new(8).reboots_with(ip(40)), 999);
    assert_eq!(kind(&nak), MessageType::Nak, "it is another's");
    // An offer of the earlier server is confirmed for what the station had, and nothing else.
    assert_eq!(kind(&answer(&select, 999).0), MessageType::Ack);
    assert_eq!(kind(&answer(&other, 999).0), MessageType::Nak);
    let mut server = server_of(24, &[lease]);
    let (ack, ..) = reply(handle(&mut server, &Client::new(8).reboots_with(ip(40)), 1000, &nodes()));
    assert_eq!(kind(&ack), MessageType::Ack, "it has ended");
    // Of two that are kept for one address or one station, the later counts.
    let table = leases::Leases::restore([
        lease,
        Lease { mac: mac(8), ..lease },
        Lease { ip: ip(41), ..lease },
        Lease { ip: ip(42), ..lease },
    ]);
    assert_eq!(
        (table.of(mac(8)).map(|l| l.ip), table.of(mac(9)).map(|l| l.ip)),
        (Some(ip(40)), Some(ip(42)))
    );
    assert!(table.is_unused(ip(41)) && !table.is_unused(ip(42)));
}

#[test]
fn offers_and_leases_end_to_the_second() {
    let mut table = leases::Leases::restore([Lease { mac: mac(9), ip: ip(40), ends: 1000 }]);
    table.offer(mac(8), ip(41), 1000);
    table.decline(ip(42), 1000);
    for (address, ends) in [(ip(40), 1000), (ip(41), 1000 + OFFER_S), (ip(42), 1000 + DECLINED_S)] {
        assert!(!table.is_free_for(address, mac(1), ends - 1), "{address}");
        assert!(table.is_free_for(address, mac(1), ends), "{address}");
    }
    assert_eq!(table.offer_of(mac(8), 1000 + OFFER_S - 1), Some(ip(41)));
    assert_eq!(table.offer_of(mac(8), 1000 + OFFER_S), None);
    assert_eq!(table.longest_ended(999, |_| true), None);
    assert_eq!(table.longest_ended(1000, |_| true), Some(ip(40)));
}

#[test]
fn what_is_not_leased_cannot_be_released() {
    let lease = Lease { mac: mac(9), ip: ip(40), ends: 1000 };
    let mut server = server_of(24, &[lease]);
    for (address, now) in [(ip(41), 999), (ip(40), 1000), (ip(40), 2000)] {
        let release = Client { ciaddr: address, ..Client::new(9) }.asks(7);
        assert!(
            matches!(handle(&mut server, &release, now, &nodes()), Outcome::Ignore(_)),
            "{address} {now}"
        );
    }
    let release = Client { ciaddr: ip(40), ..Client::new(9) }.asks(7);
    assert!(matches!(handle(&mut server, &release, 999, &nodes()), Outcome::Answer { save: Some(_), .. }));
}

/// An offer reaches a station by its address only while that is on record as its own.
#[test]
fn offers_are_broadcast_to_stations_without_an_address() {
    let lease = Lease { mac: mac(9), ip: ip(40), ends: 1000 };
    let taken = vec![Node { mac: mac(2), ip: ip(40), name: "vn1".into(), secure: false }];
    for (now, nodes, offered, expected) in [
        (999, vec![], ip(40), Destination::Station(ip(40))),
        (1000, vec![], ip(40), Destination::Broadcast),
        (999, taken, ip(2), Destination::Broadcast),
    ] {
        let mut server = server_of(24, &[lease]);
        let (offer, to, _) = reply(handle(&mut server, &Client::new(9).discovers(), now, &nodes));
        assert_eq!((offer.yiaddr(), to), (offered, expected), "{now}");
    }
}

#[test]
fn replies_go_where_the_client_hears_them() {
    let mut server = server_of(24, &[]);
    let broadcast = Client { broadcast: true, ..Client::new(2) };
    let (offer, to, _) = reply(handle(&mut server, &broadcast.discovers(), 100, &nodes()));
    assert!(offer.flags().broadcast());
    assert_eq!(to, Destination::Broadcast);
    let inform = Client { ciaddr: ip(40), ..Client::new(7) }.asks(8);
    let (ack, to, save) = reply(handle(&mut server, &inform, 100, &nodes()));
    assert_eq!(
        (kind(&ack), ack.yiaddr(), to),
        (MessageType::Ack, Ipv4Addr::UNSPECIFIED, Destination::Station(ip(40)))
    );
    assert_eq!((option(&ack, 51), save), (None, None));
    let outside = Client { ciaddr: Ipv4Addr::new(10, 0, 0, 1), ..Client::new(7) }.asks(8);
    assert!(matches!(handle(&mut server, &outside, 100, &nodes()), Outcome::Ignore(_)));
}

#[test]
fn what_is_not_ours_is_refused_or_ignored() {
    let mut server = server_of(24, &[]);
    for foreign in [Ipv4Addr::new(10, 0, 0, 9), ip(0), ip(255), SERVER] {
        let (nak, to, _) = reply(handle(&mut server, &Client::new(9).reboots_with(foreign), 100, &nodes()));
        assert_eq!((kind(&nak), to), (MessageType::Nak, Destination::Broadcast), "{foreign}");
    }
    let other = Client::new(9).with(54, &ip(77).octets()).with(50, &ip(3).octets()).asks(3);
    assert!(matches!(handle(&mut server, &other, 100, &nodes()), Outcome::Ignore(_)));
    // Not what was offered.
    let (offer, ..) = reply(handle(&mut server, &Client::new(9).discovers(), 100, &nodes()));
    assert_ne!(offer.yiaddr(), ip(77));
    let (nak, ..) = reply(handle(&mut server, &Client::new(9).selects(ip(77)), 100, &nodes()));
    assert_eq!(kind(&nak), MessageType::Nak);
    // Offered before the server was restarted: it does not know, and nobody else has it.
    let (ack, ..) = reply(handle(&mut server, &Client::new(10).selects(ip(78)), 100, &nodes()));
    assert_eq!((kind(&ack), ack.yiaddr()), (MessageType::Ack, ip(78)));
    let (nak, ..) = reply(handle(&mut server, &Client::new(11).selects(ip(78)), 100, &nodes()));
    assert_eq!(kind(&nak), MessageType::Nak, "somebody has it");
    for kind in [2, 5, 6, 99] {
        assert!(matches!(handle(&mut server, &Client::new(9).asks(kind), 100, &nodes()), Outcome::Ignore(_)));
    }
    assert!(matches!(handle(&mut server, &Client::new(9).asks(3), 100, &nodes()), Outcome::Ignore(_)));
}

#[test]
fn declined_and_released() {
    let mut server = server_of(24, &[]);
    let give = |server: &mut Server, last: u8, now: u64| {
        let (offer, ..) = reply(handle(server, &Client::new(last).discovers(), now, &nodes()));
        reply(handle(server, &Client::new(last).selects(offer.yiaddr()), now, &nodes()));
        offer.yiaddr()
    };
    assert_eq!(give(&mut server, 9, 100), ip(3));
    // Somebody else's cannot be declined, or released.
    let forged = Client::new(8).with(54, &SERVER.octets()).with(50, &ip(3).octets()).asks(4);
    assert!(matches!(handle(&mut server, &forged, 100, &nodes()), Outcome::Ignore(_)));
    let forged = Client { ciaddr: ip(3), ..Client::new(8) }.asks(7);
    assert!(matches!(handle(&mut server, &forged, 100, &nodes()), Outcome::Ignore(_)));
    let decline = Client::new(9).with(54, &SERVER.octets()).with(50, &ip(3).octets()).asks(4);
    let outcome = handle(&mut server, &decline, 100, &nodes());
    assert_eq!(outcome, Outcome::Answer { save: Some(Saved::Remove(mac(9))), reply: None });
    assert_eq!(give(&mut server, 9, 101), ip(4));
    assert_eq!(give(&mut server, 8, 100 + DECLINED_S), ip(3), "it may be given again");
    let release = Client { ciaddr: ip(4), ..Client::new(9) }.asks(7);
    let Outcome::Answer { save: Some(Saved::Put(lease)), reply: None } =
        handle(&mut server, &release, 200, &nodes())
    else {
        panic!("not released")
    };
    assert_eq!((lease.ip, lease.ends), (ip(4), 200));
    assert_eq!(give(&mut server, 7, 201), ip(5), "others take what nobody will come back for");
    assert_eq!(give(&mut server, 9, 202), ip(4));
}

#[test]
fn a_full_network_takes_what_ended_first() {
    // 192.168.183.0/29: .1 is the server, .2 the node, four are left.
    let mut server = server_of(29, &[]);
    let offered = |server: &mut Server, last: u8, now: u64| match handle(
        server,
        &Client::new(last).discovers(),
        now,
        &nodes(),
    ) {
        Outcome::Answer { reply: Some(reply), .. } => Some(reply.ip),
        _ => None,
    };
    let mut ends = 0;
    for (last, now) in [(10, 100), (11, 101), (12, 102), (13, 103)] {
        let ip = offered(&mut server, last, now).unwrap();
        let (.., save) = reply(handle(&mut server, &Client::new(last).selects(ip), now, &nodes()));
        let Some(Saved::Put(lease)) = save else { panic!("{save:?}") };
        ends = lease.ends;
    }
    assert_eq!(offered(&mut server, 14, 104), None);
    assert_eq!(offered(&mut server, 14, ends + 1), Some(ip(3)), "the lease of 10 ended first");
    assert_eq!(offered(&mut server, 15, ends + 1), Some(ip(4)));
    assert_eq!(offered(&mut server, 10, ends + 1), Some(ip(5)), "its own was offered to another");
    assert_eq!(offered(&mut server, 14, ends + 2 + OFFER_S), Some(ip(3)));
}

#[test]
fn offers_and_declined_addresses_are_bounded() {
    let mut table = leases::Leases::default();
    let station = |n: usize| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
    let address = |n: usize| Ipv4Addr::from_bits(0x0a00_0000 + n as u32);
    for n in 0..=OFFERS_MAX {
        table.offer(station(n), address(n), n as u64 / 1000);
    }
    let alive = (0..=OFFERS_MAX).filter(|n| table.offer_of(station(*n), 5).is_some()).count();
    assert_eq!(alive, OFFERS_MAX);
    for n in 0..=DECLINED_MAX {
        table.decline(Ipv4Addr::from_bits(n as u32), n as u64 / 1000);
    }
    let set_aside =
        (0..=DECLINED_MAX).filter(|n| !table.is_free_for(Ipv4Addr::from_bits(*n as u32), mac(1), 1)).count();
    assert_eq!(set_aside, DECLINED_MAX);
}

#[test]
fn a_machine_that_says_it_is_a_node_is_registered() {
    for (code, class) in
        [(60, &b"walt.node.pc-x86-64"[..]), (77, b"walt.node.pc-x86-64"), (77, b"\x13walt.node.pc-x86-64")]
    {
        let mut server = server_of(24, &[]);
        let client = || Client::new(9).with(code, class).with(12, b"apu");
        let (offer, ..) = reply(handle(&mut server, &client().discovers(), 100, &nodes()));
        let request = client().selects(offer.yiaddr());
        assert_eq!(server.plan(&request, 100, &nodes()), Plan::NeedsLock);
        let registration = server.registration(&request, 100, &nodes());
        let model = "pc-x86-64".parse().unwrap();
        let expected = Registration { mac: mac(9), ip: ip(3), model, host_name: Some("apu".into()) };
        assert_eq!(registration, Some(expected));
        assert_eq!(
            server.registration(&client().discovers(), 100, &nodes()),
            None,
            "it asks for nothing yet"
        );
        assert_eq!(
            server.registration(&client().selects(ip(2)), 100, &nodes()),
            None,
            "the address of a node"
        );
        let elsewhere = client().with(54, &ip(250).octets()).with(50, &offer.yiaddr().octets()).asks(3);
        assert_eq!(server.registration(&elsewhere, 100, &nodes()), None, "it chose another server");
        let device = Client::new(9).selects(offer.yiaddr());
        assert_eq!(server.registration(&device, 100, &nodes()), None, "it does not say that it is a node");
        // It could be registered …
        let mut all = nodes();
        all.push(Node { mac: mac(9), ip: ip(3), name: "apu-000009".into(), secure: false });
        assert_eq!(server.registration(&request, 100, &all), None, "it is one");
        let (ack, ..) = reply(server.settle(&request, 100, &all));
        assert_eq!(option(&ack, 12), Some(DhcpOption::Hostname("apu-000009".into())));
        // … or could not: a device like any other.
        let mut server = server_of(24, &[]);
        reply(handle(&mut server, &client().discovers(), 100, &nodes()));
        let (.., save) = reply(handle(&mut server, &request, 100, &nodes()));
        assert!(matches!(save, Some(Saved::Put(_))));
    }
    for bad in ["walt.node.", "walt.node.../../x", "walt.node.A", "xwalt.node.pc-x86-64", "walt.node.a b"] {
        let request = Client::new(9).with(60, bad.as_bytes()).discovers();
        assert_eq!(boot::class(&request), Class::Other, "{bad}");
    }
    let both = Client::new(9).with(60, b"walt.node.rpi-b").with(77, b"walt.node.pc-x86-64").discovers();
    assert_eq!(boot::class(&both), Class::Node("pc-x86-64".parse().unwrap()), "the user class wins");
}

/// What busybox 1.35 udhcpc and the iPXE of qemu 7.2 (virtio-net) sent.
#[test]
fn a_station_is_forgotten_with_its_lease_and_its_offer() {
    let mut server = server_of(30, &[Lease { mac: mac(1), ip: ip(2), ends: 1000 }]);
    let discover = |server: &mut Server, station: u8| {
        handle(server, &Client::new(station).discovers(), 10, &[])
            != Outcome::Ignore("no address is left in the network")
    };
    assert!(!discover(&mut server, 2), "a network of one station");
    server.forget(mac(1));
    assert!(discover(&mut server, 2) && !discover(&mut server, 3));
    server.forget(mac(2));
    assert!(discover(&mut server, 3));
}

#[test]
fn a_request_to_keep_an_address() {
    let (mut server, nodes) = (server_of(24, &[]), nodes());
    let made = Request::to_keep(mac(9), ip(9));
    let sent = Client::new(9).reboots_with(ip(9));
    assert_eq!(made, Request { xid: made.xid, secs: made.secs, ..sent });
    let answer = |server: &mut Server, request: &Request| match handle(server, request, 10, &nodes) {
        Outcome::Answer { reply: Some(reply), .. } => reply,
        other => panic!("{other:?}"),
    };
    let given = answer(&mut server, &made);
    assert!(given.gives(ip(9)) && !given.gives(ip(8)));
    let refused = answer(&mut server, &Request::to_keep(mac(8), ip(9)));
    assert!(!refused.gives(ip(9)), "{refused:?}");
}

#[test]
fn captured() {
    let udhcpc = parse(include_bytes!("samples/udhcpc-discover.bin")).unwrap();
    assert_eq!((udhcpc.kind, udhcpc.vendor_class.as_str()), (MessageType::Discover, "udhcp 1.35.0"));
    assert_eq!(udhcpc.host_name.as_deref(), Some("apu.example.org"));
    let ipxe = parse(include_bytes!("samples/ipxe-discover.bin")).unwrap();
    assert_eq!((ipxe.kind, boot::class(&ipxe)), (MessageType::Discover, Class::Ipxe));
    assert_eq!((ipxe.arch, ipxe.user_class.as_str(), ipxe.machine_id.is_some()), (Some(0), "iPXE", true));
    assert!(ipxe.is_ipxe);
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
    }

    /// Any options, in any state, give no panic, and nobody gets the address of another.
    #[test]
    fn any_requests(
        requests in proptest::collection::vec(
            (0..8_u8, 0..10_u8, 0..10_u8, any::<bool>(),
             proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..6)),
            0..60,
        )
    ) {
        let mut server = server_of(29, &[]);
        let mut held: std::collections::HashMap<Ipv4Addr, (Mac, u64)> = [].into();
        for (n, (kind, last, wanted, ours, options)) in requests.into_iter().enumerate() {
            let now = 100 + n as u64 * 40;
            let mut client = Client { options, ..Client::new(last) };
            if ours {
                client = client.with(54, &SERVER.octets()).with(50, &ip(wanted).octets());
            }
            let mut all: Vec<(u8, &[u8])> = client.options.iter().map(|(c, v)| (*c, v.as_slice())).collect();
            let kind = [kind];
            all.push((53, &kind));
            let Ok(request) = parse(&packet(client.mac, Ipv4Addr::UNSPECIFIED, false, &all)) else { continue };
            if let Outcome::Answer { save, reply } = handle(&mut server, &request, now, &nodes()) {
                match save {
                    Some(Saved::Put(lease)) => {
                        prop_assert!(lease.ip != ip(2) && lease.ip != SERVER);
                        if let Some((other, ends)) = held.insert(lease.ip, (lease.mac, lease.ends)) {
                            prop_assert!(other == lease.mac || ends <= now, "{} was taken", lease.ip);
                        }
                    }
                    Some(Saved::Remove(mac)) => held.retain(|_, (m, _)| *m != mac),
                    None => {}
                }
                if let Some(reply) = reply.filter(|r| r.kind != MessageType::Nak) {
                    prop_assert_eq!(reply.ip == ip(2), request.mac == mac(2));
                }
            }
        }
    }
}

#[test]
fn a_router_is_for_those_that_are_routed() {
    let mut server = server_of(24, &[]);
    let router = |server: &mut Server, last: u8| {
        let (message, ..) = reply(handle(server, &Client::new(last).discovers(), 0, &nodes()));
        option(&message, 3)
    };
    assert_eq!((router(&mut server, 2), router(&mut server, 7)), (None, None));
    server.route([mac(2), mac(7)].into());
    for last in [2, 7] {
        assert_eq!(router(&mut server, last), Some(DhcpOption::Router(vec![SERVER])));
    }
    assert_eq!(router(&mut server, 8), None);
    server.route([mac(7)].into());
    assert_eq!(router(&mut server, 2), None);
}
