//! Addresses of stations that are not nodes.
//!
//! ```text
//!            offer                 request
//!   free ───────────▶ offered ───────────────▶ leased ──── ends ────▶ kept for its station,
//!    ▲  [`OFFER_S`]      │                       │ release               taken when nothing else is free
//!    └───────────────────┘                       └──────▶ ends at once
//!   declined: another station uses it; set aside for [`DECLINED_S`]
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};
use walt_types::Mac;

/// Offers that wait for their request; the oldest is forgotten for a new one.
pub const OFFERS_MAX: usize = 4096;
/// Seconds for which an offered address is kept.
pub const OFFER_S: u64 = 60;
/// Addresses that are set aside at once; the one that ends first is forgotten for a new one.
pub const DECLINED_MAX: usize = 256;
/// Seconds for which an address is not given that somebody else uses.
pub const DECLINED_S: u64 = 600;

/// One lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub mac: Mac,
    /// The address.
    pub ip: Ipv4Addr,
    /// When it ends, in seconds since the epoch.
    pub ends: u64,
}

/// The addresses that are given away.
#[derive(Debug, Default)]
pub struct Leases {
    by_mac: HashMap<Mac, Lease>,
    by_ip: BTreeMap<Ipv4Addr, Mac>,
    offers: HashMap<Mac, Lease>,
    offered: HashMap<Ipv4Addr, Mac>,
    declined: HashMap<Ipv4Addr, u64>,
}

impl Leases {
    /// From what is kept on disk; of two leases of an address or a station, the later one counts.
    pub fn restore(leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut table = Self::default();
        leases.into_iter().for_each(|lease| table.put(lease));
        table
    }

    /// The lease of a station, ended or not.
    pub fn of(&self, mac: Mac) -> Option<Lease> {
        self.by_mac.get(&mac).copied()
    }

    /// The address that a station was offered, if the offer still holds.
    pub fn offer_of(&self, mac: Mac, now: u64) -> Option<Ipv4Addr> {
        self.offers.get(&mac).filter(|o| o.ends > now).map(|o| o.ip)
    }

    /// Records a lease.
    pub fn put(&mut self, lease: Lease) {
        self.drop_offer(lease.mac);
        self.remove(lease.mac);
        if let Some(other) = self.by_ip.get(&lease.ip).copied() {
            self.remove(other);
        }
        self.by_ip.insert(lease.ip, lease.mac);
        self.by_mac.insert(lease.mac, lease);
    }

    /// Forgets a station's lease.
    pub fn remove(&mut self, mac: Mac) {
        if let Some(lease) = self.by_mac.remove(&mac) {
            self.by_ip.remove(&lease.ip);
        }
    }

    /// Forgets a station's offer.
    pub fn drop_offer(&mut self, mac: Mac) {
        if let Some(offer) = self.offers.remove(&mac) {
            self.offered.remove(&offer.ip);
        }
    }

    /// Keeps an address for a station that may ask for it.
    pub fn offer(&mut self, mac: Mac, ip: Ipv4Addr, now: u64) {
        self.drop_offer(mac);
        if let Some(other) = self.offered.get(&ip).copied() {
            self.drop_offer(other);
        }
        if self.offers.len() >= OFFERS_MAX
            && let Some(oldest) = self.offers.values().min_by_key(|o| o.ends).map(|o| o.mac)
        {
            self.drop_offer(oldest);
        }
        self.offers.insert(mac, Lease { mac, ip, ends: now + OFFER_S });
        self.offered.insert(ip, mac);
    }

    /// Sets an address aside.
    pub fn decline(&mut self, ip: Ipv4Addr, now: u64) {
        self.declined.retain(|_, ends| *ends > now);
        if self.declined.len() >= DECLINED_MAX
            && let Some(first) = self.declined.iter().min_by_key(|(_, ends)| **ends).map(|(ip, _)| *ip)
        {
            self.declined.remove(&first);
        }
        self.declined.insert(ip, now + DECLINED_S);
    }

    /// Whether nobody but this station has the address, or was offered it.
    pub fn is_free_for(&self, ip: Ipv4Addr, mac: Mac, now: u64) -> bool {
        let leased = self.by_ip.get(&ip).and_then(|m| self.by_mac.get(m));
        let offered = self.offered.get(&ip).and_then(|m| self.offers.get(m));
        let of_another = |entry: Option<&Lease>| entry.is_some_and(|l| l.mac != mac && l.ends > now);
        !of_another(leased) && !of_another(offered) && self.declined.get(&ip).is_none_or(|ends| *ends <= now)
    }

    /// Whether the address was never given, so that nobody will come back for it.
    pub fn is_unused(&self, ip: Ipv4Addr) -> bool {
        !self.by_ip.contains_key(&ip)
    }

    /// Of the addresses that `allowed` accepts and whose lease has ended, the one that ended first.
    pub fn longest_ended(&self, now: u64, allowed: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let ended = self.by_mac.values().filter(|l| l.ends <= now && allowed(l.ip));
        ended.min_by_key(|l| (l.ends, l.ip)).map(|l| l.ip)
    }
}
