//! The state directory into which a backup is restored: emptied, marked until the restore is complete.
//!
//! ```text
//! in use, --force ──▶ marked "moving <name>": everything goes to <name>/ ──▶ marked "restoring" ──▶ not marked: whole
//! empty ─────────────────────────────────────────────────────────────────────▲
//! ```
//! A marked state is refused by the server ([`formats::check`]). Another restore goes on where this one was killed: what was not
//! moved yet is moved, what was restored is removed.

use crate::base::{db, fail_points, formats::RESTORING, state_lock::StateLock, store_lock, time};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// How the names of directories with what was there before begin.
const REPLACED: &str = "replaced-";
/// What the mark says while the old state is moved.
const MOVING: &str = "moving ";

/// An empty state directory, marked.
pub struct Ground {
    dir: PathBuf,
    /// Where the old state is, if there was one.
    pub replaced: Option<PathBuf>,
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).with_context(|| format!("cannot write {}", dir.display()))
}

fn mark(dir: &Path, text: &str) -> Result<()> {
    let path = dir.join(RESTORING);
    let part = dir.join(format!("{RESTORING}.part"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    sync(dir)
}

/// Names in the directory that belong to a state.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot list {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        let text = name.to_string_lossy();
        let stays = ["lock", store_lock::FILE, RESTORING, "lost+found"].contains(&text.as_ref());
        if !stays && !text.starts_with(REPLACED) {
            found.push(dir.join(name));
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    }
    .with_context(|| format!("cannot remove {}", path.display()))
}

impl Ground {
    /// Prepares the directory. With `force`, a state in it is moved into a directory of its own there.
    ///
    /// # Errors
    /// It has a state, and `force` is not given; or the disk fails.
    pub fn prepare(dir: &Path, force: bool, _lock: &StateLock) -> Result<Self> {
        let ground = |replaced| Self { dir: dir.to_owned(), replaced };
        let mark_of = dir.join(RESTORING);
        let marked = match fs::read_to_string(&mark_of) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            text => Some(text.with_context(|| format!("cannot read {}", mark_of.display()))?),
        };
        let old = entries(dir)?;
        let moving = match marked {
            Some(text) => match text.strip_prefix(MOVING) {
                Some(name) => name.to_owned(),
                None => {
                    eprintln!("Note: removing what an interrupted restore has left in {}.", dir.display());
                    old.iter().try_for_each(|path| remove(path))?;
                    return Ok(ground(None));
                }
            },
            None if old.is_empty() => {
                mark(dir, "restoring")?;
                return Ok(ground(None));
            }
            None if !force => {
                let what = if dir.join(db::FILE).exists() { "a state of a server" } else { "files" };
                bail!(
                    "{} has {what} already: choose another directory by --state-dir, or use --force to move it aside",
                    dir.display()
                );
            }
            None => {
                let name = format!("{REPLACED}{}", time::rfc3339(time::now() as i64).replace([':', '-'], ""));
                mark(dir, &format!("{MOVING}{name}"))?;
                name
            }
        };
        let aside = dir.join(Path::new(&moving).file_name().context("the mark of the restore is damaged")?);
        fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
        for path in old {
            let Some(name) = path.file_name() else { continue };
            fs::rename(&path, aside.join(name)).with_context(|| format!("cannot move {}", path.display()))?;
            fail_points::point("state-moved");
        }
        sync(&aside)?;
        mark(dir, "restoring")?;
        Ok(ground(Some(aside)))
    }

    /// The restore is complete: what was written becomes durable, then the mark goes.
    ///
    /// # Errors
    /// The disk fails; the state is still marked.
    pub fn finish(self) -> Result<Option<PathBuf>> {
        let dir = File::open(&self.dir)?;
        rustix::fs::syncfs(&dir).with_context(|| format!("cannot write {}", self.dir.display()))?;
        fs::remove_file(self.dir.join(RESTORING)).context("cannot remove the mark of the restore")?;
        sync(&self.dir)?;
        Ok(self.replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::formats;

    #[test]
    fn a_state_is_kept_and_an_interrupted_restore_is_not() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path();
        let lock = StateLock::take(dir).unwrap();
        let ground = Ground::prepare(dir, false, &lock).unwrap();
        assert!(formats::check(dir).is_err());
        fs::write(dir.join("walt.sqlite"), "half").unwrap();
        drop(ground);
        let ground = Ground::prepare(dir, false, &lock).unwrap();
        assert!(!dir.join("walt.sqlite").exists(), "removed, without --force");
        fs::create_dir(dir.join("keys")).unwrap();
        assert_eq!(ground.finish().unwrap(), None);
        formats::check(dir).unwrap();

        let said = Ground::prepare(dir, false, &lock).err().unwrap().to_string();
        assert!(said.contains("has files already"), "{said}");
        let ground = Ground::prepare(dir, true, &lock).unwrap();
        let aside = ground.finish().unwrap().unwrap();
        assert!(aside.join("keys").is_dir() && !dir.join("keys").exists());

        // Killed while the old state was moved: nothing of it is removed.
        fs::write(dir.join("walt.sqlite"), "old").unwrap();
        mark(dir, "moving replaced-2").unwrap();
        fs::create_dir(dir.join("replaced-2")).unwrap();
        fs::write(dir.join("replaced-2/moved"), "").unwrap();
        let ground = Ground::prepare(dir, false, &lock).unwrap();
        let aside = ground.finish().unwrap().unwrap();
        assert_eq!(fs::read_to_string(aside.join("walt.sqlite")).unwrap(), "old");
        assert!(aside.join("moved").exists());
    }
}
