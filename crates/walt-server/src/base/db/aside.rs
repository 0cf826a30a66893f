//! Copies of the database: one that is put aside before a migration, or that goes into a backup.
//!
//! `<state-dir>/db.before-v<new version>-<time>.sqlite` is what an older server has left. It is used by hand, to go back to
//! that server: `walt help show server-upgrade`.

use crate::base::{db::schema, fail_points, time};
use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// How the names of copies begin.
const PREFIX: &str = "db.before-v";
/// How they end.
const SUFFIX: &str = ".sqlite";
/// How many copies are kept: the newest ones.
pub const KEPT: usize = 3;
/// A copy while it is written.
const PART: &str = "db.before.part";
/// Room in bytes that must be free besides the copy and the migration's own journal.
const SPARE: u64 = 16 << 20;

/// Puts a copy of an older database aside, and removes old copies.
///
/// # Errors
/// There is not enough room on the disk, or it fails; the database is as before.
pub fn put(connection: &Connection, state_dir: &Path, version: u32) -> Result<()> {
    let size = fs::metadata(state_dir.join(super::FILE))?.len();
    let disk = rustix::fs::statvfs(state_dir)?;
    // The copy, and the same again for the journal of the migration.
    let (free, needed) = (disk.f_bavail * disk.f_frsize, 2 * size + SPARE);
    if free < needed {
        bail!(
            "the database has version {version} and must become version {}, but {} has {} MB free, and a copy of the database \
             and the migration need {} MB: make room, then start the server again",
            schema::VERSION,
            state_dir.display(),
            free >> 20,
            needed.div_ceil(1 << 20)
        );
    }
    let part = state_dir.join(PART);
    copy(connection, &part)?;
    fail_points::point("migrate-copied");
    let when = time::rfc3339(time::now() as i64).replace([':', '-'], "");
    let kept = state_dir.join(format!("{PREFIX}{}-{when}{SUFFIX}", schema::VERSION));
    fs::rename(&part, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    File::open(state_dir).and_then(|dir| dir.sync_all()).context("cannot write the state directory")?;
    fail_points::point("migrate-kept");
    tracing::info!(
        from = version,
        to = schema::VERSION,
        copy = %kept.display(),
        "migrating the database; a copy of it as it was is kept"
    );
    let mut copies = all(state_dir)?;
    // The times in the names sort them, within one version and mostly across.
    copies.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
    for old in copies.iter().rev().skip(KEPT) {
        if let Err(e) = fs::remove_file(old) {
            tracing::warn!("cannot remove the old copy {}: {e}", old.display());
        }
    }
    Ok(())
}

/// The copies in a state directory.
///
/// # Errors
/// It cannot be listed.
pub fn all(state_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state_dir).with_context(|| format!("cannot list {}", state_dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Writes a copy of a database as it is at one moment, whoever writes to it meanwhile. It is durable when this returns, and
/// only root can read it.
///
/// # Errors
/// The database or the disk failed.
pub fn copy(connection: &Connection, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy the database to {}", to.display());
    let (Some(dir), Some(name)) = (to.parent(), to.file_name()) else {
        bail!("{}: not a file name", to.display())
    };
    match fs::remove_file(to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).with_context(failed),
        _ => {}
    }
    // SQL takes text only, and the names of directories are bytes.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).with_context(failed)?;
    let address = format!("/proc/self/fd/{}/{}", fd.as_raw_fd(), name.to_string_lossy());
    connection.execute("VACUUM INTO ?1", [address]).with_context(failed)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).with_context(failed)?;
    File::open(to).and_then(|file| file.sync_all()).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::Db;

    /// The version of the database before checkpoints.
    const OLD: u32 = 14;

    fn old(dir: &Path) -> Connection {
        let connection = Connection::open(dir.join("walt.sqlite")).unwrap();
        schema::make_old(&connection, OLD);
        connection
            .execute("INSERT INTO refs (fullname, image_id, created) VALUES ('ann/x:latest', 'i', 5)", [])
            .unwrap();
        connection
    }

    #[test]
    fn an_older_database_is_copied_and_migrated() {
        let dir = tempfile::tempdir().unwrap();
        drop(old(dir.path()));
        let db = Db::open(dir.path()).unwrap();
        db.with(|c| {
            assert_eq!(schema::version(c)?, schema::VERSION);
            assert_eq!(c.query_row("SELECT created FROM refs", [], |r| r.get::<_, i64>(0))?, 5);
            c.execute("INSERT INTO checkpoints (user, name, at) VALUES ('ann', 'c', 1)", [])?;
            Ok(())
        })
        .unwrap();
        let [copy] = all(dir.path()).unwrap().try_into().unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let name = copy.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(&format!("db.before-v{}-2", schema::VERSION)), "{name}");
        let copy = Connection::open(&copy).unwrap();
        assert_eq!(schema::version(&copy).unwrap(), OLD);
        assert!(copy.execute("SELECT * FROM checkpoints", []).is_err(), "the copy is as it was");
        drop(db);
        Db::open(dir.path()).unwrap();
        assert_eq!(all(dir.path()).unwrap().len(), 1, "nothing to migrate, nothing to copy");
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let connection = old(dir.path());
        // In the way of the last step.
        connection.execute("CREATE TABLE checkpoints (x TEXT) STRICT", []).unwrap();
        connection.execute("CREATE INDEX between ON refs (created)", []).unwrap();
        let error = Db::open(dir.path()).err().unwrap();
        assert!(format!("{error:#}").contains("database step 14"), "{error:#}");
        assert_eq!(schema::version(&connection).unwrap(), OLD);
        assert_eq!(all(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn few_copies_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let connection = old(dir.path());
        for n in 0..KEPT + 2 {
            let name = dir.path().join(format!("{PREFIX}{n}-2020{SUFFIX}"));
            fs::write(&name, "old").unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            File::options().write(true).open(&name).unwrap().set_modified(time).unwrap();
        }
        put(&connection, dir.path(), OLD).unwrap();
        let mut left: Vec<String> = all(dir.path())
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        left.sort();
        let new = format!("{PREFIX}{}-", schema::VERSION);
        assert_eq!(left.len(), KEPT);
        assert!(left.iter().any(|n| n.starts_with(&new)), "{left:?}");
        assert!(left.iter().any(|n| n.starts_with(&format!("{PREFIX}{}-2020", KEPT + 1))), "{left:?}");
    }
}
