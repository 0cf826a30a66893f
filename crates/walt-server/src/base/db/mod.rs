//! The database: SQLite, one connection, synchronous=FULL: once a call returns, its changes are on the disk.
//!
//! Calls block for a few milliseconds at most; [`Db::with`] announces that to the async runtime.

mod bases;
mod blobs;
mod boots;
mod checkpoints;
mod devices;
mod history;
mod images;
mod indexes;
mod leases;
mod links;
mod manifests;
mod node_leases;
mod nodes;
mod schema;
mod sessions;
mod settings;
mod trash;

pub use crate::base::db::bases::BaseRow;
pub use crate::base::db::blobs::BlobRow;
pub use crate::base::db::boots::BootRow;
pub use crate::base::db::checkpoints::CheckpointRow;
pub use crate::base::db::devices::{ClaimRow, DEVICES_MAX, DeviceRow, Told, names_taken};
pub use crate::base::db::history::{By, HistoryRow};
pub use crate::base::db::images::{RefRow, forget_platform, platform, platforms, put_platform};
pub use crate::base::db::indexes::{Document, IndexRow, PushRow};
pub use crate::base::db::leases::LeaseRow;
pub use crate::base::db::links::LinkRow;
pub use crate::base::db::manifests::ManifestRow;
pub use crate::base::db::node_leases::{NodeLeaseRow, NodeWaitRow, TakingRow, Waiting};
pub use crate::base::db::nodes::NodeRow;
pub use crate::base::db::sessions::{Committing, SessionRow};
pub use crate::base::db::settings::{
    Settings, booted, booted_with, keep_booted_with, of_devices, set_of_device,
};
pub use crate::base::db::trash::TrashRow;

use crate::base::changes::Changes;
use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction};
use std::{path::Path, sync::Arc, time::Duration};

/// How long a reader waits for a writer of the database.
const BUSY: Duration = Duration::from_secs(5);

/// The database of one server.
pub struct Db {
    connection: Mutex<Connection>,
    changes: Arc<Changes>,
}

impl Db {
    /// Opens or creates `<state-dir>/walt.sqlite`, and migrates it.
    ///
    /// # Errors
    /// It cannot be opened, or was written by a newer server.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("walt.sqlite");
        let mut connection = Connection::open(&path)
            .with_context(|| format!("cannot open the database {}", path.display()))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        schema::migrate(&mut connection).with_context(|| format!("database {}", path.display()))?;
        let changes = Arc::new(Changes::default());
        let marks = changes.clone();
        connection.update_hook(Some(move |_, _: &str, table: &str, _| marks.mark_table(table)))?;
        Ok(Self { connection: Mutex::new(connection), changes })
    }

    /// Opens the database read-only, while a server may write to it.
    ///
    /// # Errors
    /// It cannot be opened, or has another version.
    pub fn open_to_read(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("walt.sqlite");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .with_context(|| format!("cannot open the database {}", path.display()))?;
        connection.busy_timeout(BUSY)?;
        schema::is_ours(&connection).with_context(|| format!("database {}", path.display()))?;
        Ok(Self { connection: Mutex::new(connection), changes: Arc::default() })
    }

    /// What has changed by this connection, and whatever else is marked there.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic within a call rolled its transaction back, so the connection is usable.
        self.connection.lock()
    }

    /// Runs `call` with the connection, without a transaction.
    pub fn with<T>(&self, call: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        blocking(|| call(&self.lock())).context("the database failed")
    }

    /// Runs `call` in one transaction: all of it or nothing.
    pub fn transaction<T, E: From<anyhow::Error>>(
        &self,
        call: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let sql = |e: rusqlite::Error| E::from(anyhow::Error::new(e).context("the database failed"));
        blocking(|| {
            let mut connection = self.lock();
            let tx = connection.transaction().map_err(sql)?;
            let value = call(&tx)?;
            tx.commit().map_err(sql)?;
            Ok(value)
        })
    }

    /// A value of the server itself; `make` creates it if missing.
    pub fn meta(&self, key: &str, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>> {
        self.transaction(|tx| {
            if let Some(value) = get_meta(tx, key)? {
                return Ok(value);
            }
            let value = make();
            tx.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (key, &value))?;
            Ok(value)
        })
    }
}

/// A value of the server itself, if it exists.
pub fn get_meta(c: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(c.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}

/// Runs blocking work; a worker thread of the runtime first hands over its other tasks.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Parses a column that was written with `Display`; failure means that the database is damaged.
fn parsed<T: std::str::FromStr>(text: String, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
    })
}
