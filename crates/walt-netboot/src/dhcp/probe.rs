//! The search for other DHCP servers: a DISCOVER in an IPv4 packet, and the OFFERs that answer it.
//!
//! The packets are made and read here, headers included, since the question goes out and the answers come in by a
//! packet socket: the server's own port 68 is closed by its packet filter.

use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode},
};
use std::net::Ipv4Addr;
use walt_types::Mac;

/// Lengths of the headers of IPv4 without options (RFC 791) and of UDP (RFC 768), in bytes.
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Ports of servers and of clients (RFC 2131 §4.1).
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Protocol number of UDP.
const UDP: u8 = 17;
/// Routers that the question may pass.
const TTL: u8 = 64;
/// What the search says it is (option 60), so that an administrator of the other server knows.
const VENDOR_CLASS: &[u8] = b"walt-server";
/// Longest packet that is read, in bytes.
pub const PACKET_MAX: usize = 1500;

/// The question: an IPv4 packet for the broadcast address.
pub fn discover(mac: Mac, xid: u32) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(xid, none, none, none, none, &mac.0);
    // The answer must not be sent to an address that nobody has.
    message.set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    options.insert(DhcpOption::ClassIdentifier(VENDOR_CLASS.to_vec()));
    let wanted = vec![OptionCode::SubnetMask, OptionCode::Router];
    options.insert(DhcpOption::ParameterRequestList(wanted));
    let mut payload = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = message.encode(&mut Encoder::new(&mut payload));
    packet(&payload)
}

/// A packet from no address to all stations.
fn packet(payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_HEADER + payload.len()) as u16;
    let total = IP_HEADER as u16 + udp_length;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, TTL, UDP, 0, 0]);
    packet.extend(Ipv4Addr::UNSPECIFIED.octets());
    packet.extend(Ipv4Addr::BROADCAST.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(CLIENT_PORT.to_be_bytes());
    packet.extend(SERVER_PORT.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    // No checksum, which IPv4 allows (RFC 768).
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// The checksum of a header of even length (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// The server that offers an address in answer to the question `xid`, if the packet is that.
pub fn offer(packet: &[u8], xid: u32) -> Option<Ipv4Addr> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let is_udp = packet.first()? >> 4 == 4 && header >= IP_HEADER && *packet.get(9)? == UDP;
    let udp = packet.get(header..).filter(|_| is_udp)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let payload = udp.get(UDP_HEADER..).filter(|_| port == CLIENT_PORT)?;
    let message = Message::decode(&mut Decoder::new(payload)).ok()?;
    let is_offer = message.opcode() == Opcode::BootReply
        && message.xid() == xid
        && message.opts().msg_type() == Some(MessageType::Offer);
    match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) if is_offer => Some(*server),
        // A server must say who it is (RFC 2131 §4.3.1, table 3). Of one that does not, the sender is known.
        _ if is_offer => Some(Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::parse;

    const XID: u32 = 0x1234_5678;

    fn mac() -> Mac {
        "02:00:00:00:00:01".parse().unwrap()
    }

    fn answer(kind: MessageType, xid: u32, server: Option<Ipv4Addr>) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(xid, none, none, none, none, &mac().0);
        message.set_opcode(Opcode::BootReply);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        server.map(|s| message.opts_mut().insert(DhcpOption::ServerIdentifier(s)));
        let mut payload = Vec::new();
        message.encode(&mut Encoder::new(&mut payload)).unwrap();
        let mut packet = packet(&payload);
        packet[12..16].copy_from_slice(&[192, 0, 2, 7]);
        packet[IP_HEADER..IP_HEADER + 4].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    #[test]
    fn the_question_is_one_that_a_server_answers() {
        let packet = discover(mac(), XID);
        assert_eq!(checksum(&packet[..IP_HEADER]), 0);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(packet[IP_HEADER..IP_HEADER + 4], [0, 68, 0, 67]);
        let request = parse(&packet[IP_HEADER + UDP_HEADER..]).unwrap();
        assert_eq!((request.kind, request.xid, request.mac), (MessageType::Discover, XID, mac()));
        assert!(request.broadcast && request.vendor_class == "walt-server");
        // It is not an answer to itself.
        assert_eq!(offer(&packet, XID), None);
    }

    #[test]
    fn an_offer_names_its_server() {
        let server = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(offer(&answer(MessageType::Offer, XID, Some(server)), XID), Some(server));
        assert_eq!(offer(&answer(MessageType::Offer, XID, None), XID), Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(offer(&answer(MessageType::Offer, XID + 1, Some(server)), XID), None);
        assert_eq!(offer(&answer(MessageType::Ack, XID, Some(server)), XID), None);
        let good = answer(MessageType::Offer, XID, Some(server));
        for (at, value) in [(0, 0x65), (0, 0x44), (9, 6), (IP_HEADER + 3, 69)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(offer(&bad, XID), None, "byte {at}");
        }
        for length in 0..IP_HEADER + UDP_HEADER + 240 {
            assert_eq!(offer(&good[..length], XID), None, "{length} bytes");
        }
    }

    #[test]
    fn checksums() {
        // RFC 1071 §3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff; 20]), 0);
    }
}
