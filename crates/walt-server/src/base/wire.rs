//! What is known about the cable of walt-net and the addresses of further networks while the server runs.

use parking_lot::Mutex;
use std::{collections::BTreeMap, net::Ipv4Addr};
use tokio::sync::Notify;
use walt_api::DhcpServer;

/// The state of the cable.
#[derive(Default)]
pub struct Wire {
    problem: Mutex<Option<String>>,
    carrier: Mutex<Option<bool>>,
    servers: Mutex<Vec<DhcpServer>>,
    connected: Notify,
    addresses: Mutex<BTreeMap<String, Option<(Ipv4Addr, u8)>>>,
    addressed: Notify,
}

impl Wire {
    /// Why the interface is not in the bridge.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Records why the interface is not in the bridge, or that it is; whether that has changed.
    pub fn set_problem(&self, problem: Option<String>) -> bool {
        let mut known = self.problem.lock();
        let changed = *known != problem;
        *known = problem;
        changed
    }

    /// Records whether the interface has a carrier; whether that has changed.
    pub fn set_carrier(&self, carrier: bool) -> bool {
        let changed = self.carrier.lock().replace(carrier) != Some(carrier);
        if changed && carrier {
            self.connected.notify_one();
        }
        changed
    }

    /// Waits until the cable is plugged in.
    pub async fn connected(&self) {
        self.connected.notified().await;
    }

    /// Other DHCP servers that answered the last search.
    pub fn servers(&self) -> Vec<DhcpServer> {
        self.servers.lock().clone()
    }

    /// What a DHCP server of a further network has said: nothing yet, that it gives no address any more (`Some(None)`), or
    /// an address with the length of its prefix.
    pub fn address(&self, network: &str) -> Option<Option<(Ipv4Addr, u8)>> {
        self.addresses.lock().get(network).copied()
    }

    /// Records what a DHCP server of a further network says; whether that is news.
    pub fn set_address(&self, network: &str, address: Option<(Ipv4Addr, u8)>) -> bool {
        let changed = self.addresses.lock().insert(network.to_owned(), address) != Some(address);
        if changed {
            self.addressed.notify_one();
        }
        changed
    }

    /// Waits until an address has changed.
    pub async fn addressed(&self) {
        self.addressed.notified().await;
    }

    /// Replaces the list of other DHCP servers; the list before.
    pub fn set_servers(&self, servers: Vec<DhcpServer>) -> Vec<DhcpServer> {
        std::mem::replace(&mut self.servers.lock(), servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_news() {
        let wire = Wire::default();
        assert!(!wire.set_problem(None));
        assert!(wire.set_problem(Some("gone".into())) && !wire.set_problem(Some("gone".into())));
        assert!(wire.set_problem(None));
        assert_eq!(wire.address("walt-adm"), None);
        let address = Some((Ipv4Addr::new(10, 9, 0, 7), 24));
        assert!(wire.set_address("walt-adm", address) && !wire.set_address("walt-adm", address));
        assert!(wire.set_address("walt-adm", None));
        assert_eq!(wire.address("walt-adm"), Some(None));
        assert!(wire.set_carrier(false) && !wire.set_carrier(false) && wire.set_carrier(true));
    }
}
