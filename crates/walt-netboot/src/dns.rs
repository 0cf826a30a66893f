//! DNS (RFC 1034, 1035): the zone `walt` with the names of nodes and of the server, and the reverse names of
//! walt-net. What is in neither zone is for another resolver.
//!
//! Answers come from the names that hold at that moment, so there is nothing to be loaded or notified, and
//! they may be kept for [`TTL_S`] seconds only: nodes are renamed.
//!
//! Limits: messages of one question; answers fit any UDP message.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, CNAME, NS, PTR, SOA},
    },
};
use std::net::Ipv4Addr;

/// Seconds for which an answer may be kept.
pub const TTL_S: u32 = 5;
/// The zone.
const ZONE: &[u8] = b"walt";
/// The server in its zone, and its other name.
const SERVER: &str = "server";
const SERVER_ALIAS: &str = "walt-server";
/// Ends of reverse names, from the root (RFC 1035 §3.5).
const REVERSE: [&[u8]; 2] = [b"arpa", b"in-addr"];
/// Largest answer over UDP, in bytes, that we announce (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// Fields of SOA that only matter to copies of a zone; this zone has no copies: refresh, retry, expire.
const COPIES_S: (i32, i32, i32) = (3600, 600, 86_400);
/// Bytes of the header, of which the first two are the question's number.
const HEADER: usize = 12;

/// What names hold now.
pub trait Names {
    /// Address of the node of this name, regardless of case.
    fn address(&self, name: &str) -> Option<Ipv4Addr>;
    /// Name of the node that has this address.
    fn name(&self, ip: Ipv4Addr) -> Option<String>;
}

/// The network whose names these are.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// The server's address.
    pub server: Ipv4Addr,
    /// Length of the network's prefix, in bits: 16 to 30.
    pub prefix: u8,
}

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send this answer.
    Answer(Vec<u8>),
    /// Ask another resolver.
    Forward,
    /// The message is not a query.
    Drop,
}

/// Where a name is.
enum Place {
    Elsewhere,
    Zone(Vec<Vec<u8>>),
    Reverse(Vec<u8>),
}

/// Decides about a query.
pub fn answer(query: &[u8], network: Network, names: &dyn Names) -> Verdict {
    let Ok(message) = Message::from_vec(query) else {
        return not_understood(query);
    };
    let meta = message.metadata;
    if meta.message_type != MessageType::Query {
        return Verdict::Drop;
    }
    let [question] = message.queries.as_slice() else { return Verdict::Forward };
    if meta.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        return Verdict::Forward;
    }
    let mut reply = Message::response(meta.id, meta.op_code);
    match place(question.name(), network) {
        Place::Elsewhere => return Verdict::Forward,
        Place::Zone(labels) => in_zone(&mut reply, question, &labels, network, names),
        Place::Reverse(octets) => in_reverse(&mut reply, question, &octets, network, names),
    }
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = meta.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        reply.set_edns(edns);
    }
    // A reply that cannot be encoded would be a defect; the client asks again.
    reply.to_vec().map_or(Verdict::Drop, Verdict::Answer)
}

/// A query with a readable header gets a format error (RFC 1035 §4.1.1).
fn not_understood(query: &[u8]) -> Verdict {
    match query {
        [a, b, flags, _, ..] if query.len() >= HEADER && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*a, *b]);
            let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            message.to_vec().map_or(Verdict::Drop, Verdict::Answer)
        }
        _ => Verdict::Drop,
    }
}

fn place(name: &Name, network: Network) -> Place {
    let labels: Vec<Vec<u8>> = name.iter().rev().map(<[u8]>::to_ascii_lowercase).collect();
    if labels.first().is_some_and(|l| l == ZONE) {
        return Place::Zone(labels[1..].to_vec());
    }
    let [top, next, numbers @ ..] = labels.as_slice() else { return Place::Elsewhere };
    if top != REVERSE[0] || next != REVERSE[1] {
        return Place::Elsewhere;
    }
    let octet = |l: &Vec<u8>| std::str::from_utf8(l).ok().and_then(|t| t.parse::<u8>().ok());
    let octets: Vec<u8> = numbers.iter().map_while(octet).collect();
    let is_whole = octets.len() == numbers.len() && octets.len() <= 4;
    let mut address = [0; 4];
    octets.iter().zip(&mut address).for_each(|(octet, byte)| *byte = *octet);
    let mask = u32::MAX << (32 - u32::from(network.prefix.clamp(1, 32)));
    let same = (u32::from_be_bytes(address) ^ network.server.to_bits()) & mask == 0;
    // A name of fewer octets than the prefix has is of more than our network.
    if is_whole && same && octets.len() * 8 >= usize::from(network.prefix) / 8 * 8 && octets.len() >= 2 {
        Place::Reverse(octets)
    } else {
        Place::Elsewhere
    }
}

fn in_zone(reply: &mut Message, question: &Query, labels: &[Vec<u8>], network: Network, names: &dyn Names) {
    let owner = question.name().clone();
    let label = match labels {
        [] => return at_apex(reply, question, owner),
        [label] => std::str::from_utf8(label).unwrap_or_default(),
        _ => return missing(reply, zone()),
    };
    let mut owner_of_address = owner.clone();
    let wanted = question.query_type();
    if label == SERVER_ALIAS {
        let target = in_zone_name(SERVER);
        reply.add_answer(Record::from_rdata(owner, TTL_S, RData::CNAME(CNAME(target.clone()))));
        if wanted == RecordType::CNAME {
            return;
        }
        owner_of_address = target;
    }
    let is_server = label == SERVER || label == SERVER_ALIAS;
    match if is_server { Some(network.server) } else { names.address(label) } {
        Some(ip) if matches!(wanted, RecordType::A | RecordType::ANY) => {
            reply.add_answer(Record::from_rdata(owner_of_address, TTL_S, RData::A(A(ip))));
        }
        // The name is there, and has nothing of that kind, such as an IPv6 address.
        Some(_) => {
            reply.add_authority(soa(zone()));
        }
        None => missing(reply, zone()),
    }
}

fn at_apex(reply: &mut Message, question: &Query, owner: Name) {
    match question.query_type() {
        RecordType::NS | RecordType::ANY => {
            reply.add_answer(Record::from_rdata(owner, TTL_S, RData::NS(NS(in_zone_name(SERVER)))));
        }
        RecordType::SOA => {
            reply.add_answer(soa(owner));
        }
        _ => {
            reply.add_authority(soa(owner));
        }
    }
}

fn in_reverse(reply: &mut Message, question: &Query, octets: &[u8], network: Network, names: &dyn Names) {
    let owner = question.name().clone();
    let Ok(octets) = <[u8; 4]>::try_from(octets) else {
        // A name above the addresses: it is there, and has nothing of its own.
        reply.add_authority(soa(owner));
        return;
    };
    let ip = Ipv4Addr::from(octets);
    let name = if ip == network.server { Some(SERVER.to_owned()) } else { names.name(ip) };
    match name {
        Some(name) if matches!(question.query_type(), RecordType::PTR | RecordType::ANY) => {
            reply.add_answer(Record::from_rdata(owner, TTL_S, RData::PTR(PTR(in_zone_name(&name)))));
        }
        Some(_) => {
            reply.add_authority(soa(owner.base_name()));
        }
        None => missing(reply, owner.base_name()),
    }
}

fn missing(reply: &mut Message, zone: Name) {
    reply.metadata.response_code = ResponseCode::NXDomain;
    reply.add_authority(soa(zone));
}

fn zone() -> Name {
    // Invariant: the label is valid.
    Name::from_labels([ZONE]).expect("a valid name")
}

/// A name of one label in the zone; the zone itself for what cannot be a label, which no node's name is.
fn in_zone_name(label: &str) -> Name {
    Name::from_labels([label.as_bytes(), ZONE]).unwrap_or_else(|_| zone())
}

/// How long the absence of a name may be remembered (RFC 2308 §5).
fn soa(zone: Name) -> Record {
    let (refresh, retry, expire) = COPIES_S;
    let data = SOA::new(in_zone_name(SERVER), in_zone_name("root"), 1, refresh, retry, expire, TTL_S);
    Record::from_rdata(zone, TTL_S, RData::SOA(data))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

    use super::*;
    use proptest::prelude::*;

    const NETWORK: Network = Network { server: Ipv4Addr::new(192, 168, 183, 1), prefix: 24 };

    struct Two;

    impl Names for Two {
        fn address(&self, name: &str) -> Option<Ipv4Addr> {
            match name.to_ascii_lowercase().as_str() {
                "vn1" => Some(Ipv4Addr::new(192, 168, 183, 2)),
                "pi-d327" => Some(Ipv4Addr::new(192, 168, 183, 3)),
                _ => None,
            }
        }
        fn name(&self, ip: Ipv4Addr) -> Option<String> {
            match ip.octets()[3] {
                2 => Some("vn1".into()),
                3 => Some("pi-D327".into()),
                _ => None,
            }
        }
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.metadata.recursion_desired = true;
        message
    }

    /// Response code, answers, and owner and time of the authority, as text; or what else is done.
    fn ask(name: &str, kind: RecordType) -> String {
        match answer(&query(name, kind).to_vec().unwrap(), NETWORK, &Two) {
            Verdict::Answer(bytes) => {
                let reply = Message::from_vec(&bytes).unwrap();
                assert!(reply.metadata.authoritative && reply.metadata.id == 7, "{reply:?}");
                assert!(reply.metadata.recursion_desired && reply.edns.is_none(), "{reply:?}");
                assert!(reply.all_sections().all(|r| r.ttl <= TTL_S));
                let answers = reply.answers.iter().map(|r| format!("{} {}", r.name, r.data));
                let zones = reply.authorities.iter().map(|r| format!("soa {}", r.name));
                let texts: Vec<String> = answers.chain(zones).collect();
                format!("{:?}: {}", reply.metadata.response_code, texts.join(", "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_and_addresses() {
        use RecordType as T;
        for (name, kind, expected) in [
            ("vn1.walt.", T::A, "NoError: vn1.walt. 192.168.183.2"),
            ("VN1.Walt.", T::A, "NoError: VN1.Walt. 192.168.183.2"),
            ("vn1.walt.", T::ANY, "NoError: vn1.walt. 192.168.183.2"),
            ("vn1.walt.", T::AAAA, "NoError: soa walt."),
            ("vn2.walt.", T::A, "NXDomain: soa walt."),
            ("x.vn1.walt.", T::A, "NXDomain: soa walt."),
            ("server.walt.", T::A, "NoError: server.walt. 192.168.183.1"),
            (
                "walt-server.walt.",
                T::A,
                "NoError: walt-server.walt. server.walt., server.walt. 192.168.183.1",
            ),
            ("walt-server.walt.", T::CNAME, "NoError: walt-server.walt. server.walt."),
            ("walt.", T::NS, "NoError: walt. server.walt."),
            ("walt.", T::A, "NoError: soa walt."),
            ("1.183.168.192.ip6.arpa.", T::PTR, "Forward"),
            ("1.183.168.192.in-addr.org.", T::PTR, "Forward"),
            ("2.183.168.192.in-addr.arpa.", T::PTR, "NoError: 2.183.168.192.in-addr.arpa. vn1.walt."),
            ("1.183.168.192.in-addr.arpa.", T::PTR, "NoError: 1.183.168.192.in-addr.arpa. server.walt."),
            ("9.183.168.192.in-addr.arpa.", T::PTR, "NXDomain: soa 183.168.192.in-addr.arpa."),
            ("2.183.168.192.in-addr.arpa.", T::A, "NoError: soa 183.168.192.in-addr.arpa."),
            ("183.168.192.in-addr.arpa.", T::NS, "NoError: soa 183.168.192.in-addr.arpa."),
            ("2.184.168.192.in-addr.arpa.", T::PTR, "Forward"),
            ("168.192.in-addr.arpa.", T::NS, "Forward"),
            ("1.2.183.168.192.in-addr.arpa.", T::PTR, "Forward"),
            ("example.org.", T::A, "Forward"),
            ("vn1.", T::A, "Forward"),
            ("walt.org.", T::A, "Forward"),
            (".", T::NS, "Forward"),
        ] {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
        // The name is given as it is written.
        assert!(ask("3.183.168.192.in-addr.arpa.", T::PTR).ends_with("pi-D327.walt."));
    }

    #[test]
    fn the_zone_has_a_start_of_authority() {
        let said = ask("walt.", RecordType::SOA);
        assert!(
            said.starts_with("NoError: walt. server.walt. root.walt. 1 ") && !said.contains("soa"),
            "{said}"
        );
    }

    #[test]
    fn other_classes_and_operations_are_not_ours() {
        let mut chaos = query("vn1.walt.", RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        let mut notify = query("vn1.walt.", RecordType::A);
        notify.metadata.op_code = OpCode::Notify;
        for message in [chaos, notify] {
            assert_eq!(answer(&message.to_vec().unwrap(), NETWORK, &Two), Verdict::Forward, "{message:?}");
        }
    }

    /// Zeros in the server's address: a name of too few octets is completed with zeros, and must not be taken for ours.
    #[test]
    fn a_reverse_name_of_more_than_our_network_is_not_ours() {
        let network = |prefix| Network { server: Ipv4Addr::new(10, 0, 0, 1), prefix };
        let is_ours = |name: &str, prefix| {
            let query = query(name, RecordType::NS).to_vec().unwrap();
            answer(&query, network(prefix), &Two) != Verdict::Forward
        };
        for (prefix, whole, parts) in [(24, "0.0.10", "0.10"), (16, "0.10", "10"), (25, "0.0.10", "0.10")] {
            assert!(is_ours(&format!("{whole}.in-addr.arpa."), prefix), "{whole} is /{prefix}");
            assert!(!is_ours(&format!("{parts}.in-addr.arpa."), prefix), "{parts} is more than /{prefix}");
        }
    }

    #[test]
    fn edns_is_answered_and_answers_are_not() {
        let mut message = query("vn1.walt.", RecordType::A);
        message.set_edns(Edns::new());
        let Verdict::Answer(bytes) = answer(&message.to_vec().unwrap(), NETWORK, &Two) else { panic!() };
        assert_eq!(Message::from_vec(&bytes).unwrap().edns.unwrap().max_payload(), PAYLOAD);
        assert_eq!(answer(&bytes, NETWORK, &Two), Verdict::Drop);
        let cut = &message.to_vec().unwrap()[..20];
        let Verdict::Answer(bytes) = answer(cut, NETWORK, &Two) else { panic!() };
        assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::FormErr);
        assert_eq!(answer(&cut[..5], NETWORK, &Two), Verdict::Drop);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0..40_usize) {
            let _ = answer(&bytes, NETWORK, &Two);
            let mut query = query("vn1.walt.", RecordType::A).to_vec().unwrap();
            let at = at.min(query.len());
            query.splice(at.., bytes);
            let _ = answer(&query, NETWORK, &Two);
        }
    }
}
