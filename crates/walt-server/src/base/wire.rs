//! What is known about the cable of walt-net while the server runs, for its status.

use parking_lot::Mutex;
use tokio::sync::Notify;
use walt_api::DhcpServer;

/// The state of the cable.
#[derive(Default)]
pub struct Wire {
    problem: Mutex<Option<String>>,
    carrier: Mutex<Option<bool>>,
    servers: Mutex<Vec<DhcpServer>>,
    connected: Notify,
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
        assert!(wire.set_carrier(false) && !wire.set_carrier(false) && wire.set_carrier(true));
    }
}
