//! Router advertisements (RFC 4861): iPXE asks for a router when its interface comes up, and waits for
//! seconds if nobody answers. The answer says that there is none: lifetime 0, no prefix. So nobody gets an
//! IPv6 address from it.
//!
//! Packets here begin with the IPv6 header. walt-net has no IPv6 otherwise: the address that an answer comes
//! from is made from the bridge's Ethernet address, and exists in these packets only.
//!
//! Limits: solicitations of at most [`PACKET_MAX`] bytes, without extension headers.

use std::net::Ipv6Addr;
use walt_types::Mac;

/// Largest solicitation that is looked at, in bytes.
pub const PACKET_MAX: usize = 1500;
/// Length of the IPv6 header.
const HEADER: usize = 40;
/// Next header: ICMPv6.
const ICMPV6: u8 = 58;
/// The hop limit that shows that no router has forwarded the packet (RFC 4861 §6.1.1).
const HOP_LIMIT: u8 = 255;
/// Types of ICMPv6 (RFC 4861 §4.1, §4.2).
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Option: Ethernet address of the sender (RFC 4861 §4.6.1), of one unit of 8 bytes.
const SOURCE_ADDRESS: u8 = 1;
/// Fields of an advertisement before its options.
const ADVERTISEMENT_LEN: usize = 16;
/// Fields of a solicitation before its options.
const SOLICITATION_LEN: usize = 8;
/// All nodes of a link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The address from which a station asks for routers; unspecified before it has one. `None` if the packet is
/// no valid solicitation (RFC 4861 §6.1.1).
pub fn solicitation(packet: &[u8]) -> Option<Ipv6Addr> {
    let (header, rest) = packet.split_at_checked(HEADER).filter(|_| packet.len() <= PACKET_MAX)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // Ethernet pads short frames.
    let body = rest.get(..length).filter(|b| b.len() >= SOLICITATION_LEN)?;
    let is_right = header[0] >> 4 == 6 && header[6] == ICMPV6 && header[7] == HOP_LIMIT;
    if !is_right || body[0] != SOLICITATION || body[1] != 0 {
        return None;
    }
    let source = Ipv6Addr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?);
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?);
    let has_address = options(&body[SOLICITATION_LEN..])?.contains(&SOURCE_ADDRESS);
    let is_odd = source.is_multicast() || source.is_unspecified() && has_address;
    // A right checksum makes the sum 0.
    (!is_odd && checksum(source, target, body) == 0).then_some(source)
}

/// Kinds of the options; `None` if one has no length or is cut.
fn options(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut kinds = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        let units = usize::from(*rest.first()?);
        bytes = bytes.get(units * 8..).filter(|_| units > 0)?;
        kinds.push(kind);
    }
    Some(kinds)
}

/// The answer to a station that asked from `to`.
pub fn advertisement(bridge: Mac, to: Ipv6Addr) -> Vec<u8> {
    let (source, target) = (link_local(bridge), if to.is_unspecified() { ALL_NODES } else { to });
    let mut body = vec![0; ADVERTISEMENT_LEN];
    // All other fields are 0: no flags, no lifetime as a router, nothing said about times and hops.
    body[0] = ADVERTISEMENT;
    body.extend_from_slice(&[SOURCE_ADDRESS, 1]);
    body.extend_from_slice(&bridge.0);
    let sum = checksum(source, target, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, ICMPV6, HOP_LIMIT];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&target.octets());
    packet.extend_from_slice(&body);
    packet
}

/// The link-local address of an Ethernet station (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// RFC 4443 §2.3: over the pseudo-header and the message.
fn checksum(source: Ipv6Addr, target: Ipv6Addr, body: &[u8]) -> u16 {
    let trailer = [(body.len() as u32).to_be_bytes(), [0, 0, 0, ICMPV6]].concat();
    let parts = [&source.octets()[..], &target.octets(), &trailer, body];
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    // At most 1500 bytes: the sum fits. Only the last part may have an odd length.
    let mut sum: u32 = parts.iter().flat_map(|part| part.chunks(2)).map(word).map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking: unwrap is their assertion")]

    use super::*;
    use proptest::prelude::*;

    fn asked(source: Ipv6Addr, option: &[u8]) -> Vec<u8> {
        let target: Ipv6Addr = "ff02::2".parse().unwrap();
        let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        body.extend_from_slice(option);
        let sum = checksum(source, target, &body);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, ICMPV6, HOP_LIMIT];
        packet.extend_from_slice(&source.octets());
        packet.extend_from_slice(&target.octets());
        packet.extend_from_slice(&body);
        packet
    }

    /// From the iPXE of qemu 7.2, virtio-net.
    #[test]
    fn captured() {
        let packet = include_bytes!("samples/ipxe-solicitation.bin");
        assert_eq!(solicitation(packet), Some("fe80::5054:ff:fe12:3456".parse().unwrap()));
    }

    #[test]
    fn questions() {
        let source: Ipv6Addr = "fe80::5054:ff:fe12:3456".parse().unwrap();
        let option = [1, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56];
        assert_eq!(solicitation(&asked(source, &option)), Some(source));
        assert_eq!(solicitation(&asked(Ipv6Addr::UNSPECIFIED, &[])), Some(Ipv6Addr::UNSPECIFIED));
        let padded = [asked(source, &option), vec![0; 10]].concat();
        assert_eq!(solicitation(&padded), Some(source));
        assert_eq!(solicitation(&asked(Ipv6Addr::UNSPECIFIED, &option)), None, "an address without one");
        assert_eq!(solicitation(&asked(ALL_NODES, &[])), None, "a multicast source");
        assert_eq!(solicitation(&asked(source, &[1, 0, 0, 0, 0, 0, 0, 0])), None, "an option without length");
        assert_eq!(solicitation(&asked(source, &[1, 2, 0, 0, 0, 0, 0, 0])), None, "an option that is cut");
        // A code that RFC 4861 does not know, with a checksum that is right.
        let mut coded = asked(source, &option);
        coded[41] = 1;
        coded[42..44].fill(0);
        let sum = checksum(source, "ff02::2".parse().unwrap(), &coded[HEADER..]);
        coded[42..44].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(solicitation(&coded), None, "a code");
        let mut multicast = asked(ALL_NODES, &option);
        multicast[40] = SOLICITATION;
        assert_eq!(solicitation(&multicast), None, "a multicast source with an address");
        for (at, value, why) in [
            (0, 0x40, "IPv4"),
            (7, 254, "it was forwarded"),
            (6, 17, "UDP"),
            (40, 134, "an answer"),
            (42, 1, "sum"),
        ] {
            let mut packet = asked(source, &option);
            packet[at] = value;
            assert_eq!(solicitation(&packet), None, "{why}");
        }
    }

    #[test]
    fn answers() {
        assert_eq!(
            link_local("52:54:a1:b2:c3:d4".parse().unwrap()),
            "fe80::5054:a1ff:feb2:c3d4".parse::<Ipv6Addr>().unwrap()
        );
        let bridge = "02:00:00:00:00:01".parse().unwrap();
        let to = "fe80::1".parse().unwrap();
        let packet = advertisement(bridge, to);
        assert_eq!(link_local(bridge), "fe80::ff:fe00:1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(packet.len(), 64);
        assert_eq!(packet[40], ADVERTISEMENT);
        assert_eq!(packet[46..48], [0, 0], "lifetime as a router");
        assert_eq!(checksum(link_local(bridge), to, &packet[40..]), 0);
        assert_eq!(advertisement(bridge, Ipv6Addr::UNSPECIFIED)[24..40], ALL_NODES.octets());
    }

    /// The example of RFC 1071, section 3, as the end of a message; the pseudo-header is added by hand.
    #[test]
    fn checksums() {
        let body = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        // ff02::1 twice, a length of 8 and the protocol: 0xff02 + 1 + 0xff02 + 1 + 8 + 58, and the RFC's 0x2ddf0.
        let sum: u32 = 2 * (0xff02 + 1) + 8 + 58 + 0x2_ddf0;
        let folded = (sum & 0xffff) + (sum >> 16);
        assert_eq!(checksum(ALL_NODES, ALL_NODES, &body), !(folded as u16));
        assert_eq!(
            checksum(ALL_NODES, ALL_NODES, &body[..7]),
            checksum(ALL_NODES, ALL_NODES, &body) + 0xf7 + 1
        );
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = solicitation(&bytes);
        }
    }
}
