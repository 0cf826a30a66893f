//! The daemon: configuration, wiring, HTTP handlers, database, drivers.
//!
//! ```text
//!  walt.sock ─▶ api ─▶ nodes / images / sessions ─▶ walt-core (decides)
//!                          │        │        │            db (remembers)
//!                          ▼        ▼        ▼
//!                       walt-vnode  walt-images  holder processes
//!  walt-net  ─▶ nfs (views, /persist), node link, netboot (DHCP, TFTP, DNS, router advertisements)
//! ```
//! The server may die at any moment; what outlives it (qemu, holders, bridge, rules) is adopted by the
//! next one at its start ([`run`]), and `walt-server down` ([`admin`]) is what takes it all away.
//!
//! Limits are named constants beside the code they bound.

pub mod admin;
pub mod api;
pub mod check_store;
pub mod config;
pub mod db;
mod dns;
mod events;
mod fail;
mod failure;
pub mod images;
pub mod keys;
mod lock;
pub mod netboot;
mod network;
mod node_logs;
pub mod nodes;
mod peers;
pub mod ports;
mod recent;
pub mod registries;
pub mod run;
pub mod sessions;
pub mod status;

pub use lock::StateLock;
pub use run::{open, run};

use anyhow::{Context, Result};
use config::Config;
use db::Db;
use failure::{Failure, Outcome};
use keys::Keys;
use nodes::{exports::GrantCache, hub::Hub, vnode::Supervisors};
use std::{
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Mutex, Notify, RwLock};
use walt_core::confirm;
use walt_images::Store;
use walt_types::{Mac, UserName};

/// Everything of one server.
pub struct App {
    /// Configuration.
    pub config: Config,
    /// Database.
    pub db: Db,
    /// Image store.
    pub store: Store,
    /// Keys of the platform.
    pub keys: Keys,
    /// Live links of nodes, and the signal of changes.
    pub hub: Hub,
    /// What nodes may read, in memory.
    pub grants: GrantCache,
    /// The NFS server, once it serves.
    pub nfs: OnceLock<Arc<walt_nfsd::Server>>,
    /// For which boots of nodes `/persist` was swept.
    pub sweeps: nodes::sweep::Sweeps,
    /// Virtual nodes that this server keeps running.
    pub supervisors: Supervisors,
    /// Held while something is decided and changed: see [`nodes`].
    pub decisions: Mutex<()>,
    /// Writers of the store hold it for reading, housekeeping for writing: see [`images::housekeeping`].
    pub store_changes: RwLock<()>,
    /// Imports and saves pass it; housekeeping closes it when its turn does not come.
    pub store_gate: Mutex<()>,
    /// What operations under way hold in the store.
    pub pins: images::pins::Pins,
    /// Images that are being pushed to us.
    pub uploads: registries::receive::Uploads,
    /// Addresses of containers that builds use.
    pub build_slots: images::build::Slots,
    /// Held while default images are updated.
    pub updating: Mutex<()>,
    /// Wakes housekeeping.
    pub housekeeping: Notify,
    /// Emulation of other CPUs that the server has set up.
    pub emulation: images::emulation::Kept,
    /// Ports that the server does without.
    pub ports_missing: ports::Missing,
    /// Whether containers have user namespaces, once it was found out.
    pub user_namespaces: OnceLock<walt_api::UserNamespaces>,
    /// When this server was started, in seconds since the epoch.
    pub started: i64,
    /// Told when the server is to take everything down and end.
    pub down: Notify,
    token_key: [u8; 32],
}

impl AsRef<Store> for App {
    fn as_ref(&self) -> &Store {
        &self.store
    }
}

impl App {
    /// Checks that the user has agreed: without warnings nothing is asked, else the token must be the one
    /// of this operation in this state.
    pub fn confirmed(
        &self,
        caller: &UserName,
        operation: &str,
        facts: &str,
        given: Option<&str>,
        warnings: Vec<String>,
    ) -> Outcome<()> {
        let facts = format!("{facts}\n{}", warnings.join("\n"));
        let token = confirm::token(&self.token_key, caller.as_str(), operation, &facts);
        if warnings.is_empty() || given == Some(token.as_str()) {
            return Ok(());
        }
        Err(Failure::ask(warnings, token))
    }

    /// Control group below which those of our containers and virtual nodes are, in all hierarchies.
    pub fn cgroup_root(&self) -> String {
        format!("/walt/{}", self.config.run_dir_hash())
    }

    /// Directory of `/persist` of a node.
    pub fn persist_root(&self, mac: Mac) -> std::path::PathBuf {
        self.config.state_dir.join("persist").join(mac.dashed())
    }

    /// Directory of a node's run-time files: console, sockets.
    pub fn node_dir(&self, mac: Mac) -> std::path::PathBuf {
        self.config.state_dir.join("nodes").join(mac.dashed())
    }

    /// Deletes what a removed node leaves: console log and `/persist`.
    pub fn forget_node_files(&self, mac: Mac) -> Result<()> {
        [self.node_dir(mac), self.persist_root(mac)].iter().try_for_each(|dir| remove_tree(dir))
    }
}

/// Removes a directory and all in it; its absence is success.
fn remove_tree(dir: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    // A clock before 1970 is not worth an error path: it reads as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Invariant: getrandom(2) fails on kernels older than 3.17 only.
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}

/// A random UUID (RFC 9562 version 4).
pub fn random_uuid() -> String {
    let mut b = random::<16>();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `YYYY-MM-DD HH:MM:SS` in the server's local time.
pub fn local_time(seconds: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| String::new(), |t| t.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A time as RFC 3339 in UTC, as OCI configurations have it.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |t| t.to_string())
}
