//! The formats of the state, and which server used it last: `<state-dir>/formats.json`.
//!
//! A state that a newer server has used is refused before anything in it is changed. For the database that is known from its
//! own version, and for log lines and open image shells from their files as well; the file says it of the rest, and names
//! the release.

use crate::base::{db, db::schema};
use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use walt_container::{hold::protocol, session};

/// The release of this program.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// Name of the file in the state directory.
const FILE: &str = "formats.json";
/// There while a backup is restored into the state directory, and after a restore that was interrupted.
pub const RESTORING: &str = "restoring";
/// Largest such file, in bytes.
const FILE_MAX: u64 = 1 << 16;
/// Most image shells whose files are looked at.
const SESSIONS_MAX: usize = 10_000;

/// Versions of what is in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// The release that wrote it.
    pub release: String,
    /// Of the tables.
    pub database: u32,
    /// Of the store of log lines.
    pub logs: u32,
    /// Of the image store.
    pub images: u32,
    /// Of the files of image shells.
    pub sessions: u32,
    /// Of the protocol of their holders.
    pub holders: u32,
}

/// What this program writes, without the release.
pub const OURS: Formats = Formats {
    release: String::new(),
    database: schema::VERSION,
    logs: walt_logs::VERSION,
    images: walt_images::LAYOUT_VERSION,
    sessions: session::SPEC_VERSION,
    holders: protocol::VERSION,
};

impl Formats {
    /// What this program writes.
    pub fn ours() -> Self {
        Self { release: RELEASE.to_owned(), ..OURS }
    }

    /// What is newer than this program knows: its name, and both versions.
    pub fn newer(&self) -> Option<(&'static str, u32, u32)> {
        let all = [
            ("the database", self.database, OURS.database),
            ("the store of log lines", self.logs, OURS.logs),
            ("the image store", self.images, OURS.images),
            ("an image shell", self.sessions, OURS.sessions),
            ("the holder of an image shell", self.holders, OURS.holders),
        ];
        all.into_iter().find(|(_, theirs, ours)| theirs > ours)
    }
}

fn newer(state_dir: &Path, what: &str, theirs: u32, ours: u32) -> anyhow::Error {
    let who = match recorded(state_dir) {
        Ok(Some(formats)) if formats.release != RELEASE => format!("walt-server {}", formats.release),
        _ => "a newer walt-server".to_owned(),
    };
    anyhow::anyhow!(
        "the state in {} was last used by {who}: {what} has version {theirs}, and this walt-server {RELEASE} knows version \
         {ours} only; nothing was changed: install the newer walt-server again, or go back as 'walt help show \
         server-upgrade' says",
        state_dir.display()
    )
}

/// The error for a database that is newer than this program knows.
pub fn newer_database(state_dir: &Path, version: u32) -> anyhow::Error {
    newer(state_dir, "the database", version, OURS.database)
}

/// What the file says; none without it.
fn recorded(state_dir: &Path) -> Result<Option<Formats>> {
    let path = state_dir.join(FILE);
    let read = || -> io::Result<Vec<u8>> {
        if fs::metadata(&path)?.len() > FILE_MAX {
            return Err(io::Error::other("it is too large"));
        }
        fs::read(&path)
    };
    match read() {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("cannot understand {}: remove it if it is damaged", path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Refuses a state that a newer server has used, or that a restore has not finished. Changes nothing. Returns the version of
/// the database if that must be migrated.
///
/// # Errors
/// As above, in one sentence; or it cannot be read.
pub fn check(state_dir: &Path) -> Result<Option<u32>> {
    if state_dir.join(RESTORING).exists() {
        bail!(
            "{} is from a restore that was interrupted: run 'walt-server restore' again, or remove what is in it",
            state_dir.display()
        );
    }
    let path = state_dir.join(db::FILE);
    if !path.exists() {
        return Ok(None);
    }
    let version = {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> Result<u32> {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(db::BUSY)?;
            schema::version(&connection)
        };
        open().with_context(|| format!("cannot read the database {}", path.display()))?
    };
    if version > OURS.database {
        return Err(newer_database(state_dir, version));
    }
    if let Some(formats) = recorded(state_dir)? {
        // A database that was put back by hand counts as it is.
        let formats = Formats { database: version, ..formats };
        if let Some((what, theirs, ours)) = formats.newer() {
            return Err(newer(state_dir, what, theirs, ours));
        }
    }
    let logs = walt_logs::newest_version(&state_dir.join("logs"))?;
    if logs > OURS.logs {
        return Err(newer(state_dir, "the store of log lines", logs, OURS.logs));
    }
    let sessions = newest_session(&state_dir.join("sessions"))?;
    if sessions > OURS.sessions {
        return Err(newer(state_dir, "an image shell", sessions, OURS.sessions));
    }
    Ok((1..OURS.database).contains(&version).then_some(version))
}

/// The highest version of files of image shells.
fn newest_session(dir: &Path) -> Result<u32> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let list = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        list => list.with_context(|| format!("cannot list {}", dir.display()))?,
    };
    let mut newest = 0;
    for entry in list.take(SESSIONS_MAX) {
        let dir: PathBuf = entry?.path();
        for name in ["spec.json", "state.json"] {
            // What is missing or damaged is found out by who needs it.
            let read = fs::read(dir.join(name)).ok();
            let version = read.and_then(|bytes| serde_json::from_slice::<Version>(&bytes).ok());
            newest = newest.max(version.map_or(0, |v| v.version));
        }
    }
    Ok(newest)
}

/// Records that this server uses the state.
pub fn record(state_dir: &Path) {
    let ours = Formats::ours();
    if recorded(state_dir).ok().flatten().is_some_and(|before| before == ours) {
        return;
    }
    let path = state_dir.join(FILE);
    let written = serde_json::to_vec_pretty(&ours)
        .map_err(io::Error::from)
        .and_then(|bytes| walt_sys::file::replace(&path, &bytes));
    if let Err(e) = written {
        // A full disk must not keep the server from starting.
        tracing::warn!("cannot write {}: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::Db;

    #[test]
    fn a_state_of_a_newer_server_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        assert_eq!(check(state).unwrap(), None, "a new state");
        drop(Db::open(state).unwrap());
        record(state);
        assert_eq!(check(state).unwrap(), None);
        assert_eq!(recorded(state).unwrap(), Some(Formats::ours()));

        let next = Formats { release: "9.0.0".into(), images: OURS.images + 1, ..OURS };
        fs::write(state.join(FILE), serde_json::to_vec(&next).unwrap()).unwrap();
        let said = check(state).unwrap_err().to_string();
        let versions =
            format!("the image store has version {}, and this walt-server {RELEASE} knows", OURS.images + 1);
        assert!(said.contains("was last used by walt-server 9.0.0") && said.contains(&versions), "{said}");

        let next = Formats { release: "9.0.0".into(), database: OURS.database + 1, ..OURS };
        fs::write(state.join(FILE), serde_json::to_vec(&next).unwrap()).unwrap();
        assert_eq!(check(state).unwrap(), None, "an older database was put back");
        let path = state.join(db::FILE);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", OURS.database + 1).unwrap();
        for said in [
            check(state).unwrap_err(),
            Db::open(state).err().unwrap(),
            Db::open_to_read(state).err().unwrap(),
        ] {
            let said = said.to_string();
            let versions = format!(
                "version {}, and this walt-server {RELEASE} knows version {}",
                OURS.database + 1,
                OURS.database
            );
            assert!(said.contains(&versions) && said.contains("walt-server 9.0.0"), "{said}");
        }
        Connection::open(&path).unwrap().pragma_update(None, "user_version", OURS.database - 1).unwrap();
        assert_eq!(check(state).unwrap(), Some(OURS.database - 1));

        let session = state.join("sessions/x");
        fs::create_dir_all(&session).unwrap();
        fs::write(session.join("spec.json"), r#"{"version": 77, "more": 1}"#).unwrap();
        let said = check(state).unwrap_err().to_string();
        assert!(said.contains("an image shell has version 77"), "{said}");
        fs::write(session.join("spec.json"), "damaged").unwrap();
        check(state).unwrap();

        fs::write(state.join(RESTORING), "").unwrap();
        assert!(check(state).unwrap_err().to_string().contains("a restore that was interrupted"));
    }
}
