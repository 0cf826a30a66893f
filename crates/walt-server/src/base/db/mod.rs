//! The database: SQLite, one connection, FULL synchronous: what a call returned is on the disk.
//!
//! Calls block for a few milliseconds at most; from async code they go through [`Db::with`], which
//! tells the runtime so.

mod bases;
mod blobs;
mod history;
mod images;
mod indexes;
mod leases;
mod manifests;
mod nodes;
mod schema;
mod sessions;

pub use crate::base::db::bases::BaseRow;
pub use crate::base::db::blobs::BlobRow;
pub use crate::base::db::history::{By, HistoryRow};
pub use crate::base::db::images::{RefRow, forget_platform, platform, platforms, put_platform};
pub use crate::base::db::indexes::{Document, IndexRow, PushRow};
pub use crate::base::db::leases::LeaseRow;
pub use crate::base::db::manifests::ManifestRow;
pub use crate::base::db::nodes::NodeRow;
pub use crate::base::db::sessions::{Committing, SessionRow};

use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction};
use std::{path::Path, time::Duration};

/// How long a reader waits for a writer of the database to get out of its way.
const BUSY: Duration = Duration::from_secs(5);

/// The database of one server.
pub struct Db(Mutex<Connection>);

impl Db {
    /// Opens `<state-dir>/walt.sqlite`, makes it if absent, and brings it up to date.
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
        Ok(Self(Mutex::new(connection)))
    }

    /// Opens the database to read it, beside the server that writes to it.
    ///
    /// # Errors
    /// It cannot be opened, or is another version's.
    pub fn open_to_read(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("walt.sqlite");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .with_context(|| format!("cannot open the database {}", path.display()))?;
        connection.busy_timeout(BUSY)?;
        schema::is_ours(&connection).with_context(|| format!("database {}", path.display()))?;
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a call rolled its transaction back, so the connection is good.
        self.0.lock()
    }

    /// Runs `call` with the connection outside any transaction of ours.
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

    /// A value of the server itself; made by `make` and stored when absent.
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

/// A value of the server itself, if it is there.
pub fn get_meta(c: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(c.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}

/// Runs blocking work; on a worker thread of the runtime, its other tasks are moved elsewhere first.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Reads a column that was written by `Display`; a value that does not parse is damage.
fn parsed<T: std::str::FromStr>(text: String, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
    })
}
