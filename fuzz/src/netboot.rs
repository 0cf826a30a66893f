//! Packets of machines on walt-net before they are nodes. An input of [`dhcp`] and [`tftp`] is a conversation:
//! packets, each behind its length in two bytes.

use std::net::Ipv4Addr;
use walt_netboot::{dhcp, dns, ra, tftp};
use walt_server::edge::netboot::files;
use walt_types::Mac;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 183, 1);
/// Length of the network's prefix: few addresses, so that clients meet.
const PREFIX: u8 = 29;
/// Seconds between two packets.
const STEP_S: u64 = 40;
/// Length of the file that is transferred: some blocks of the smallest size, the last one not full.
const FILE_LENGTH: u64 = 10_001;

fn packets(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (packet, after) = after.split_at(length);
        rest = after;
        Some(packet)
    })
}

/// Nobody is given the server's address, a node's, or one of another network.
pub fn dhcp(bytes: &[u8]) {
    let loaders = dhcp::Loaders { bios: Some("pxe/bios".into()), uefi: Some("pxe/uefi".into()) };
    let config = dhcp::Config {
        server: SERVER,
        prefix: PREFIX,
        loaders,
        script: "http://192.168.183.1/x".into(),
        root: "http://192.168.183.1/".into(),
    };
    let node = dhcp::Node {
        mac: Mac([0x52, 0x54, 0, 0, 0, 2]),
        ip: Ipv4Addr::new(192, 168, 183, 2),
        name: "vn1".into(),
        secure: false,
    };
    let check = |given: Ipv4Addr| {
        assert!(given != SERVER && given != node.ip, "{given}");
        assert_eq!(u32::from(given) >> (32 - PREFIX), u32::from(SERVER) >> (32 - PREFIX));
    };
    let mut server = dhcp::Server::new(config, []);
    for (now, packet) in (1_000_000_u64..).step_by(STEP_S as usize).zip(packets(bytes)) {
        let Ok(request) = dhcp::parse(packet) else { continue };
        let nodes = std::slice::from_ref(&node);
        if let Some(new) = server.registration(&request, now, nodes) {
            check(new.ip);
        }
        let outcome = match server.plan(&request, now, nodes) {
            dhcp::Plan::Reply(outcome) => outcome,
            dhcp::Plan::NeedsLock => server.settle(&request, now, nodes),
        };
        if let dhcp::Outcome::Answer { save: Some(dhcp::Saved::Put(lease)), .. } = outcome {
            check(lease.ip);
        }
    }
}

/// A transfer sends what is in the file, and no more at once than was agreed.
pub fn tftp(bytes: &[u8]) {
    let mut packets = packets(bytes);
    let Some(Ok(request)) = packets.next().map(tftp::request::parse) else { return };
    let window = usize::from(request.options.windowsize.unwrap_or(1));
    let check = |send: &tftp::Send| {
        if let tftp::Send::Blocks(blocks) = send {
            assert!(blocks.len() <= window, "{} blocks of {window}", blocks.len());
            assert!(blocks.iter().all(|b| b.offset + b.length as u64 <= FILE_LENGTH), "{blocks:?}");
        }
    };
    let (mut transfer, first) = tftp::Transfer::new(request.options, FILE_LENGTH);
    check(&first);
    for packet in packets {
        assert!(!transfer.wait().is_zero());
        // Nothing came in time.
        let step = if packet.is_empty() { transfer.timeout() } else { transfer.packet(packet) };
        match step {
            tftp::Step::Send(send) => check(&send),
            tftp::Step::Wait => {}
            tftp::Step::End(_) => return,
        }
    }
}

struct OneName;

impl dns::Names for OneName {
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        name.eq_ignore_ascii_case("vn1").then_some(Ipv4Addr::new(192, 168, 183, 2))
    }
    fn name(&self, ip: Ipv4Addr) -> Option<String> {
        (ip == Ipv4Addr::new(192, 168, 183, 2)).then(|| "vn1".to_owned())
    }
}

/// An answer has the number of its question.
pub fn dns(bytes: &[u8]) {
    let network = dns::Network { server: SERVER, prefix: 24 };
    if let dns::Verdict::Answer(answer) = dns::answer(bytes, network, &OneName) {
        assert_eq!(answer.get(..2), bytes.get(..2));
    }
}

/// Router solicitations.
pub fn ra(bytes: &[u8]) {
    if let Some(from) = ra::solicitation(bytes) {
        assert!(!ra::advertisement(Mac([2, 0, 0, 0, 0, 1]), from).is_empty());
    }
}

/// A path of TFTP or HTTP means a file below the node's boot directory, or nothing.
pub fn boot_path(bytes: &[u8]) {
    if let Some(file) = files::file_of_node(bytes) {
        let mut parts = file.split(|b| *b == b'/');
        assert!(parts.all(|p| !p.is_empty() && p != b"." && p != b".." && !p.contains(&0)), "{file:?}");
    }
}
