//! What leads out of walt-net and into it: which devices reach the world outside (`netsetup`), and which of their ports
//! are reached from there (`expose`).
//!
//! ```text
//! a change in the database ─▶ follow: the packet filter and the listeners become what the database says
//!                                └ a port that cannot be bound: logged, tried again by the next `follow`
//! ```
//! A user's change binds its ports first ([`Outside::bind`]), so that a busy one is an error and nothing has changed. The
//! listeners belong to this process: the server's start makes them again. Limits: those of [`proxy`].

pub mod listen;
pub mod proxy;

use crate::{
    base::{
        db::{self, DeviceRow, NodeRow},
        journal::EXPOSE,
        state::Base,
    },
    services::network,
};
use anyhow::Result;
use listen::Bound;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};
use tokio::task::AbortHandle;
use walt_core::settings;
use walt_types::{Exposes, Mac};

/// What leads out of walt-net and into it, at run time.
pub struct Outside {
    base: Arc<Base>,
    state: Mutex<State>,
    connections: Arc<proxy::Connections>,
}

#[derive(Default)]
struct State {
    /// The addresses in the packet filter; none before the first look.
    nat: Option<BTreeSet<Ipv4Addr>>,
    /// By port of the server.
    exposed: BTreeMap<u16, Exposed>,
    /// Ports whose failure was logged.
    failed: HashSet<u16>,
}

/// A port of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The device.
    pub mac: Mac,
    /// Its port.
    pub port: u16,
}

/// A port of the server that is listened on. Its connections end with it.
struct Exposed {
    target: Target,
    bound: Bound,
    serving: AbortHandle,
}

impl Drop for Exposed {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Why a port cannot be exposed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another device has it.
    #[error("port {port} of the server leads to port {device_port} of {name} already")]
    Taken {
        /// The port of the server.
        port: u16,
        /// The port of that device.
        device_port: u16,
        /// That device.
        name: String,
    },
    /// It cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listen::Error),
    /// The database.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What the database says about exposed ports: the device's name and port, by port of the server.
fn wanted(base: &Base) -> Result<BTreeMap<u16, (Target, String)>> {
    let (nodes, stored, devices, of_devices) = base.db().with(|c| {
        Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?, DeviceRow::all(c)?, db::of_devices(c)?))
    })?;
    let of_nodes = nodes.iter().map(|n| (n.mac, n.facts.name.to_string(), stored.get(&n.mac)));
    let others = devices.iter().map(|d| (d.mac, d.name.to_string(), of_devices.get(&d.mac)));
    let mut wanted = BTreeMap::new();
    for (mac, name, settings) in of_nodes.chain(others) {
        for expose in settings.map(settings::exposes).unwrap_or_default().iter() {
            let target = Target { mac, port: expose.device_port };
            wanted.entry(expose.server_port).or_insert_with(|| (target, name.clone()));
        }
    }
    Ok(wanted)
}

/// The address of a device now.
fn address_of(base: &Base, mac: Mac) -> Result<Option<Ipv4Addr>> {
    base.db().with(|c| match NodeRow::by_mac(c, mac)? {
        Some(node) => Ok(Some(node.ip)),
        None => Ok(DeviceRow::by_mac(c, mac)?.and_then(|device| device.ip)),
    })
}

impl Outside {
    /// Nothing leads anywhere before the first [`Outside::follow`].
    pub fn new(base: Arc<Base>) -> Self {
        Self { base, state: Mutex::default(), connections: Arc::default() }
    }

    /// The first of these ports of the server that another device has.
    ///
    /// # Errors
    /// The database fails.
    pub fn taken(&self, mac: Mac, exposes: &Exposes) -> Result<Option<Error>> {
        let taken = wanted(&self.base)?;
        Ok(exposes.iter().find_map(|expose| {
            let port = expose.server_port;
            let (target, name) = taken.get(&port).filter(|(target, _)| target.mac != mac)?;
            Some(Error::Taken { port, device_port: target.port, name: name.clone() })
        }))
    }

    /// Binds the ports of the server that a device is to have and does not have yet.
    ///
    /// # Errors
    /// One is in use; the error names by whom. Nothing is bound then.
    pub fn bind(&self, mac: Mac, exposes: &Exposes) -> Result<Vec<Bound>, Error> {
        if let Some(taken) = self.taken(mac, exposes)? {
            return Err(taken);
        }
        let mut bound = Vec::new();
        for port in exposes.iter().map(|e| e.server_port) {
            if !self.state.lock().exposed.contains_key(&port) {
                bound.push(listen::bind(self.base.config(), port)?);
            }
        }
        Ok(bound)
    }

    /// Makes the packet filter and the listeners what the database says. `bound` is from [`Outside::bind`].
    ///
    /// # Errors
    /// The database or the packet filter fails. What cannot be listened on is logged.
    pub fn follow(&self, bound: Vec<Bound>) -> Result<()> {
        let nat = network::nat_addresses(&self.base)?;
        let wanted = wanted(&self.base)?;
        let mut state = self.state.lock();
        if state.nat.as_ref() != Some(&nat) {
            network::set_nat(self.base.config(), &nat)?;
            state.nat = Some(nat);
        }
        state.exposed.retain(|port, _| wanted.contains_key(port));
        state.failed.retain(|port| wanted.contains_key(port));
        let mut bound: BTreeMap<u16, Bound> = bound.into_iter().map(|b| (b.port(), b)).collect();
        for (port, (target, name)) in wanted {
            if state.exposed.get(&port).is_some_and(|exposed| exposed.target == target) {
                continue;
            }
            // The sockets stay when a port only leads to another one of the device.
            let at_hand = match state.exposed.get(&port) {
                Some(exposed) => exposed.bound.again(),
                None => bound.remove(&port).map_or_else(|| listen::bind(self.base.config(), port), Ok),
            };
            let exposed = at_hand.and_then(|bound| self.serve(bound, target));
            match exposed {
                Ok(exposed) => {
                    state.failed.remove(&port);
                    state.exposed.insert(port, exposed);
                }
                Err(e) => {
                    state.exposed.remove(&port);
                    if state.failed.insert(port) {
                        tracing::warn!(%name, "{e}; this is tried again");
                        self.base.journal().say(EXPOSE, &format!("{name}: {e}; this is tried again"));
                    }
                }
            }
        }
        Ok(())
    }

    fn serve(&self, bound: Bound, target: Target) -> Result<Exposed, listen::Error> {
        let listeners = bound.listeners()?;
        let (base, connections) = (self.base.clone(), self.connections.clone());
        let address = move || address_of(&base, target.mac);
        let walt_net = self.base.config().server_ip();
        let serving = tokio::spawn(proxy::serve(listeners, walt_net, address, target.port, connections));
        Ok(Exposed { target, bound, serving: serving.abort_handle() })
    }
}
