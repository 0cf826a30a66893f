//! That something has changed: what was read from the database, or listed, may be out of date.
//!
//! The marks of tables are set by the database itself (`sqlite3_update_hook`), so that no change can be forgotten. They
//! are set before a transaction ends: whoever takes them and then reads waits for the lock of the database, and so sees it.

use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::Notify;

/// Parts of the state, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts(u8);

impl Parts {
    /// None.
    pub const NONE: Self = Self(0);
    /// Nodes with their settings, leases and queue.
    pub const NODES: Self = Self(1);
    /// References to images.
    pub const IMAGES: Self = Self(2);
    /// Image shells.
    pub const SESSIONS: Self = Self(4);
    /// Operations under way.
    pub const OPERATIONS: Self = Self(8);
    /// All of them.
    pub const ALL: Self = Self(15);

    /// Whether it has all of `other`.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What depends on a table.
    fn of_table(table: &str) -> Self {
        match table {
            "nodes" | "settings" | "booted_with" | "node_leases" | "node_waits" | "node_takings"
            | "model_claims" => Self::NODES,
            "refs" => Self::IMAGES,
            "sessions" => Self::SESSIONS,
            _ => Self::NONE,
        }
    }
}

/// The parts that have changed since somebody looked.
#[derive(Debug, Default)]
pub struct Changes {
    marked: AtomicU8,
    wake: Notify,
}

impl Changes {
    /// These have changed.
    pub fn mark(&self, parts: Parts) {
        if parts != Parts::NONE {
            self.marked.fetch_or(parts.0, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }

    /// A row of this table has changed.
    pub fn mark_table(&self, table: &str) {
        self.mark(Parts::of_table(table));
    }

    /// What is marked; the marks are taken away.
    pub fn take(&self) -> Parts {
        Parts(self.marked.swap(0, Ordering::SeqCst))
    }

    /// Whether anything is marked.
    pub fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst) != 0
    }

    /// Waits for a mark. For one task.
    pub async fn marked(&self) {
        while !self.is_marked() {
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::Db;

    #[tokio::test]
    async fn the_database_says_what_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        let run = |sql: &str| db.with(|c| Ok(c.execute(sql, [])?)).unwrap();
        run("INSERT INTO meta (key, value) VALUES ('k', x'00')");
        assert_eq!(db.changes().take(), Parts::NONE);
        run("INSERT INTO refs (fullname, image_id, created) VALUES ('ann/x:latest', 'i', 1)");
        db.changes().marked().await;
        assert_eq!(db.changes().take(), Parts::IMAGES);
        assert!(!db.changes().is_marked());
        run("UPDATE refs SET created = 2 WHERE fullname = 'ann/x:latest'");
        assert_eq!(db.changes().take(), Parts::IMAGES);
        run("DELETE FROM refs WHERE fullname = 'ann/x:latest'");
        assert_eq!(db.changes().take(), Parts::IMAGES);
        // Each table in the list exists: a renamed one would be missed.
        for table in [
            "nodes",
            "settings",
            "booted_with",
            "node_leases",
            "node_waits",
            "node_takings",
            "model_claims",
            "sessions",
        ] {
            db.with(|c| {
                Ok(c.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, i64>(0))?)
            })
            .unwrap();
            assert_ne!(Parts::of_table(table), Parts::NONE);
        }
        db.changes().mark(Parts::OPERATIONS.and(Parts::SESSIONS));
        let taken = db.changes().take();
        assert!(taken.has(Parts::OPERATIONS) && taken.has(Parts::SESSIONS) && !taken.has(Parts::NODES));
    }
}
