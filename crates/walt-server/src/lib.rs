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

pub mod actions;
pub mod base;
pub mod edge;
pub mod run;
pub mod services;

pub use run::{open, run};

use anyhow::Result;
use base::{
    config::Config,
    db::Db,
    failure::{Failure, Outcome},
    keys::Keys,
};
use services::nodes::{grants::GrantCache, hub::Hub, vnode::Supervisors};
use std::sync::{Arc, OnceLock};
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
    pub sweeps: services::nodes::sweep::Sweeps,
    /// Virtual nodes that this server keeps running.
    pub supervisors: Supervisors,
    /// Held while something is decided and changed: see [`nodes`].
    pub decisions: Mutex<()>,
    /// Writers of the store hold it for reading, housekeeping for writing: see [`images::housekeeping`].
    pub store_changes: RwLock<()>,
    /// Imports and saves pass it; housekeeping closes it when its turn does not come.
    pub store_gate: Mutex<()>,
    /// What operations under way hold in the store.
    pub pins: services::images::pins::Pins,
    /// Images that are being pushed to us.
    pub uploads: services::registries::uploads::Uploads,
    /// Addresses of containers that builds use.
    pub build_slots: actions::build::Slots,
    /// Held while default images are updated.
    pub updating: Mutex<()>,
    /// Wakes housekeeping.
    pub housekeeping: Notify,
    /// Emulation of other CPUs that the server has set up.
    pub emulation: services::images::emulation::Kept,
    /// Ports that the server does without.
    pub ports_missing: base::ports::Missing,
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
        [self.node_dir(mac), self.persist_root(mac)].iter().try_for_each(|dir| base::files::remove_tree(dir))
    }
}
