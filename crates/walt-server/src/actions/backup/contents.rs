//! What goes into a backup.

use super::{
    manifest::{Images, Reference},
    parts::Parts,
    sink::Sink,
};
use crate::{
    base::{
        config::Config,
        db::{Db, HistoryRow, RefRow, aside},
        store_lock::StoreLock,
    },
    services::{
        images::{live::live, pins::Pins},
        logs,
    },
};
use anyhow::{Context, Result};
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};
use walt_images::Store;
use walt_tar::local::{Packing, Watch, pack};

/// Name of a copy of the database in the state directory, while a backup is made.
const COPY: &str = "backup.sqlite";
/// How often the list of log files is read again, since one of them has got another name meanwhile.
const LISTINGS: usize = 5;
/// Directories whose files are small and few.
const SMALL: [&str; 2] = ["keys", "logs-forward"];
/// Directories with what nodes have in `/persist`.
const PERSIST: [&str; 2] = ["persist", "trash"];

/// What a restored server does not have: image shells, which are open on one machine only; what is made again when it is
/// needed; and which views running nodes read.
const LEFT_OUT: &str = "
    DELETE FROM sessions;
    DELETE FROM platforms;
    DELETE FROM grants;
    DELETE FROM build_cache;
";

/// The copy of the database, which is removed in the end.
pub struct Copy {
    path: PathBuf,
    /// What nobody has to look for: sentences.
    pub left_out: Vec<String>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // If this fails, the next backup removes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Copy {
    /// Copies the database as it is now, whether a server runs or not.
    ///
    /// # Errors
    /// It is not one of this version, or the disk is full.
    pub fn make(state_dir: &Path, _lock: &StoreLock) -> Result<Self> {
        let copy = Self { path: state_dir.join(COPY), left_out: Vec::new() };
        Db::open_to_read(state_dir)?.with(|c| aside::copy(c, &copy.path))?;
        copy.without_what_stays()
    }

    fn without_what_stays(mut self) -> Result<Self> {
        let connection = Connection::open(&self.path)?;
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        let shells: i64 = connection.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))?;
        if shells > 0 {
            self.left_out.push(format!("{shells} open image shell(s), with the changes that were not saved"));
        }
        connection.execute_batch(LEFT_OUT)?;
        connection.execute_batch("VACUUM")?;
        connection.close().map_err(|(_, e)| e)?;
        Ok(self)
    }

    /// Opens it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(&self) -> Result<Db> {
        Db::open_file_to_read(&self.path)
    }

    /// Puts it into the backup.
    ///
    /// # Errors
    /// As in [`Sink::write`].
    pub fn put(&self, sink: &mut Sink, place: &str) -> Result<()> {
        sink.copy(&format!("{place}/walt.sqlite"), &self.path).map(drop)
    }
}

/// Keys and other small files, and the configuration.
pub fn small_files(sink: &mut Sink, place: &str, config: &Config, file: Option<&Path>) -> Result<()> {
    for dir in SMALL {
        for (name, path) in files(&config.state_dir.join(dir))? {
            sink.copy(&format!("{place}/{dir}/{name}"), &path)?;
        }
    }
    if let Some(file) = file {
        sink.copy(&format!("{place}/server.conf"), file)?;
    }
    Ok(())
}

/// The regular files in a directory, by name; none if it does not exist.
fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = || format!("cannot list {}", dir.display());
    let list = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        list => list.with_context(failed)?,
    };
    let mut found = Vec::new();
    for entry in list {
        let entry = entry.with_context(failed)?;
        if entry.file_type().with_context(failed)?.is_file() {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The store of log lines. Files only grow until they are compressed under another name; the catalogue comes last, since it
/// names what is in the others.
pub fn logs(sink: &mut Sink, place: &str, config: &Config) -> Result<()> {
    let dir = logs::dir(config);
    let (mut done, mut listings) = (BTreeSet::new(), 0);
    loop {
        let mut gone = false;
        for (name, path) in files(&dir)? {
            let wanted = name.ends_with(".log") || name.ends_with(".zst");
            if wanted && !done.contains(&name) {
                gone |= !sink.copy(&format!("{place}/logs/{name}"), &path)?;
                done.insert(name);
            }
        }
        listings += 1;
        if !gone || listings >= LISTINGS {
            break;
        }
    }
    sink.copy(&format!("{place}/logs/catalogue"), &dir.join("catalogue")).map(drop)
}

/// The names of images, and what they point to.
pub fn references(db: &Db, store: &Store) -> Result<Vec<Reference>> {
    let rows = db.with(RefRow::all)?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let layers = store.config(&row.image_id)?.layers()?;
        let history = db.with(|c| HistoryRow::of(c, &row.reference))?;
        found.push(Reference {
            name: row.reference.full(),
            image_id: row.image_id.to_string(),
            layers: layers.iter().map(ToString::to_string).collect(),
            made_by: history.into_iter().find(|h| h.image_id == row.image_id).map(|h| h.by.command),
        });
    }
    Ok(found)
}

/// The images that the copy of the database refers to; sentences about what is missing.
///
/// # Errors
/// A configuration is missing or damaged, or as in [`Sink::write`].
pub fn images(
    sink: &mut Sink,
    db: &Db,
    store: &Store,
    how: Images,
    _lock: &StoreLock,
) -> Result<Vec<String>> {
    let live = live(db, &Pins::default())?;
    for image in live.images.iter().copied().collect::<BTreeSet<_>>() {
        let path = format!("images/configs/{image}.json");
        if !sink.has(&path) {
            let bytes = store.config_bytes(&image)?;
            sink.write(&path, bytes.len() as u64, |to| Ok(to.write_all(&bytes)?))?;
        }
    }
    if how == Images::Digests {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    for blob in live.blobs.iter().copied().collect::<BTreeSet<_>>() {
        let path = format!("images/blobs/{blob}");
        if sink.has(&path) {
            continue;
        }
        if !store.has_blob(&blob) {
            missing.push(format!("the compressed layer {blob}, which is missing in the store"));
            continue;
        }
        let (mut file, size) = store.open_blob(&blob)?;
        sink.write(&path, size, |to| Ok(io::copy(&mut file, &mut { to }).map(drop)?))?;
    }
    for layer in store.needed_layers(&live)? {
        let path = format!("images/layers/{layer}.tar");
        if sink.has(&path) {
            continue;
        }
        if !store.has_layer(&layer) {
            missing.push(format!("layer {layer}, which is missing in the store"));
            continue;
        }
        let size = store.layer_info(&layer)?.size;
        sink.write(&path, size, |to| {
            store.export_layer(&layer, to).map(drop).with_context(|| format!("cannot copy layer {layer}"))
        })?;
        crate::base::fail_points::point("backup-layer");
    }
    Ok(missing)
}

/// What nodes have in `/persist`, file by file, while they may write; sentences about files that could not be copied.
///
/// # Errors
/// The disk fails, or as in [`Sink::write`].
pub fn persist(sink: &mut Sink, place: &str, state_dir: &Path) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut out = Parts::new(sink, format!("{place}/persist"));
    for dir in PERSIST {
        let path = state_dir.join(dir);
        if !path.exists() {
            continue;
        }
        let packing =
            Packing { name: dir.as_bytes(), dialect: walt_tar::Dialect::Pax, owner: None, changing: true };
        let mut note = |text: String| notes.push(text);
        let mut watch = Watch { progress: &mut |_| {}, note: &mut note };
        pack(&path, &packing, &mut out, &mut |_, _| true, &mut watch)
            .context("cannot copy /persist of the nodes")?;
    }
    out.write_all(&walt_tar::END)?;
    out.finish()?;
    Ok(notes)
}
