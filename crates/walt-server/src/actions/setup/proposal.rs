//! Ranges of addresses: which are in use, which are proposed.

use crate::base::config::Cidr;
use std::net::Ipv4Addr;

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Any address of it.
    pub addr: Ipv4Addr,
    /// Length of the prefix, in bits, at most 32.
    pub prefix: u8,
}

impl Range {
    /// The first and the last address.
    fn ends(self) -> (u32, u32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        let first = self.addr.to_bits() & mask;
        (first, first | !mask)
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let ((a, b), (c, d)) = (self.ends(), other.ends());
        a <= d && c <= b
    }

    /// A range as text: `192.0.2.0/24`.
    pub fn parse(text: &str) -> Option<Self> {
        let (addr, prefix) = text.split_once('/')?;
        let range = Self { addr: addr.parse().ok()?, prefix: prefix.parse().ok()? };
        (range.prefix <= 32).then_some(range)
    }
}

impl From<Cidr> for Range {
    fn from(cidr: Cidr) -> Self {
        Self { addr: cidr.addr, prefix: cidr.prefix }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.ends().0), self.prefix)
    }
}

/// A range that something on this machine uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The range.
    pub range: Range,
    /// What uses it, as the rest of a sentence: `by a route of eth0`.
    pub by: String,
}

/// Those that have an address in common with `range`.
pub fn collisions(range: Range, used: &[Used]) -> Vec<&Used> {
    used.iter().filter(|u| u.range.overlaps(range)).collect()
}

/// The first address for the server on walt-net whose /24 nothing uses: the default one, its neighbours, and then
/// ranges that are rarely used elsewhere.
pub fn walt_net(used: &[Used]) -> Option<Cidr> {
    let of = |a: u8, b: u8| move |c: u8| Cidr { addr: Ipv4Addr::new(a, b, c, 1), prefix: 24 };
    let near = (183..=254).map(of(192, 168));
    let below = (100..183).rev().map(of(192, 168));
    let elsewhere = (0..=255).map(of(172, 30));
    first_free(near.chain(below).chain(elsewhere).chain((0..=255).map(of(10, 183))), used)
}

/// The first /24 for containers that nothing uses, `walt_net` neither.
pub fn containers(used: &[Used], walt_net: Cidr) -> Option<Cidr> {
    let of = |b: u8| Cidr { addr: Ipv4Addr::new(10, b, 0, 0), prefix: 24 };
    let free = (188..=254).chain((100..188).rev()).map(of);
    first_free(free.filter(|c| !Range::from(*c).overlaps(walt_net.into())), used)
}

fn first_free(mut candidates: impl Iterator<Item = Cidr>, used: &[Used]) -> Option<Cidr> {
    candidates.find(|c| collisions((*c).into(), used).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(ranges: &[&str]) -> Vec<Used> {
        ranges.iter().map(|r| Used { range: Range::parse(r).unwrap(), by: "by a test".into() }).collect()
    }

    #[test]
    fn ranges_that_meet() {
        for (a, b, meet) in [
            ("192.168.183.0/24", "192.168.183.7/32", true),
            ("192.168.183.0/24", "192.168.0.0/16", true),
            ("192.168.183.0/24", "0.0.0.0/0", true),
            ("192.168.183.0/24", "192.168.184.0/24", false),
            ("192.168.182.0/23", "192.168.183.0/24", true),
            ("255.255.255.255/32", "255.255.255.254/32", false),
        ] {
            let (a, b) = (Range::parse(a).unwrap(), Range::parse(b).unwrap());
            assert_eq!((a.overlaps(b), b.overlaps(a)), (meet, meet), "{a} {b}");
        }
        assert_eq!(Range::parse("192.0.2.77/24").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!((Range::parse("192.0.2.1/33"), Range::parse("192.0.2.1")), (None, None));
    }

    #[test]
    fn proposals_collide_with_nothing() {
        let text = |c: Option<Cidr>| c.map(|c| format!("{}/{}", c.addr, c.prefix)).unwrap_or_default();
        for (ranges, net) in [
            (&[][..], "192.168.183.1/24"),
            (&["192.168.1.0/24"], "192.168.183.1/24"),
            (&["192.168.183.128/25"], "192.168.184.1/24"),
            (&["192.168.183.0/24", "192.168.184.0/23"], "192.168.186.1/24"),
            (&["192.168.128.0/17"], "192.168.127.1/24"),
            (&["192.168.0.0/16"], "172.30.0.1/24"),
            (&["192.168.0.0/16", "172.16.0.0/12"], "10.183.0.1/24"),
            (&["0.0.0.0/1", "128.0.0.0/1"], ""),
        ] {
            assert_eq!(text(walt_net(&used(ranges))), net, "{ranges:?}");
        }
        let net: Cidr = "10.189.0.1/16".parse().unwrap();
        assert_eq!(text(containers(&used(&[]), net)), "10.188.0.0/24");
        assert_eq!(text(containers(&used(&["10.188.0.0/16"]), net)), "10.190.0.0/24");
        assert_eq!(text(containers(&used(&["10.0.0.0/8"]), net)), "");
    }
}
