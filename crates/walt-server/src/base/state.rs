//! The state below the services: configuration, database, keys, and the lock of decisions.

use crate::base::{
    config::Config, db::Db, files::make_dir, journal::Journal, keys::Keys, metrics::Metrics,
    operations::Operations, ports::Missing, random::random, state_lock::StateLock, wire::Wire,
};
use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};
use walt_core::confirm;
use walt_types::UserName;

/// Length of the token key, in bytes.
const TOKEN_KEY_LEN: usize = 32;

/// The state of one server below its services.
pub struct Base {
    config: Config,
    db: Db,
    keys: Keys,
    metrics: Metrics,
    operations: Arc<Operations>,
    ports_missing: Missing,
    wire: Wire,
    journal: Journal,
    decisions: Mutex<()>,
    token_key: [u8; TOKEN_KEY_LEN],
}

/// The lock of decisions: what its holder has read stays true until it is dropped. A parameter of every function that
/// needs it.
#[derive(Debug)]
pub struct Decision<'a>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

impl Base {
    /// Opens the state of a server whose lock is held.
    ///
    /// # Errors
    /// Part of it cannot be used; the error says which and why.
    pub fn open(config: Config, _held: &StateLock) -> Result<Self> {
        make_dir(&config.state_dir, 0o700)?;
        // 0711: users can reach walt.sock in it, but cannot list it.
        make_dir(&config.run_dir, 0o711)?;
        // NFS needs file handles for /persist.
        walt_sys::handle::self_test(&config.state_dir).with_context(|| {
            format!(
                "state-dir {} is on a file system that cannot open files by handle (such as an overlay): use a directory on a disk (ext4, xfs, btrfs)",
                config.state_dir.display()
            )
        })?;
        let db = Db::open(&config.state_dir)?;
        let keys = Keys::open(&config.state_dir)?;
        let token_key = db.meta("token-key", || random::<TOKEN_KEY_LEN>().to_vec())?;
        Ok(Self {
            metrics: Metrics::default(),
            operations: Arc::new(Operations::new(db.changes().clone())),
            db,
            keys,
            config,
            ports_missing: Missing::default(),
            wire: Wire::default(),
            journal: Journal::new(),
            decisions: Mutex::new(()),
            token_key: token_key
                .try_into()
                .map_err(|_| anyhow::anyhow!("the database is damaged: token-key"))?,
        })
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Database.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Keys of the platform.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Figures that are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Actions under way.
    pub fn operations(&self) -> &Arc<Operations> {
        &self.operations
    }

    /// Ports that the server could not bind.
    pub fn ports_missing(&self) -> &Missing {
        &self.ports_missing
    }

    /// The cable of walt-net.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// What happens on the platform, on its way to the log store.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes the lock of decisions.
    pub async fn decide(&self) -> Decision<'_> {
        Decision(self.decisions.lock().await)
    }

    /// The key of this server's tokens.
    pub fn token_key(&self) -> &[u8; TOKEN_KEY_LEN] {
        &self.token_key
    }

    /// The token that confirms an operation of a user in the state described by `facts`.
    pub fn confirmation(&self, caller: &UserName, operation: &str, facts: &str) -> String {
        confirm::token(&self.token_key, caller.as_str(), operation, facts)
    }

    /// Parent of the control groups of this server's containers and virtual nodes, in all hierarchies.
    pub fn cgroup_root(&self) -> String {
        format!("/walt/{}", self.config.run_dir_hash())
    }
}
