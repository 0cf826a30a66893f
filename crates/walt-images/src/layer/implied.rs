//! Implied directories, which a layer's tar does not list: their metadata is that of the layers below, and is set
//! once those are stored.

use super::disk::{OPAQUE, Place, Root};
use crate::error::{Context, Result};
use rustix::{
    fs::{self, FileType, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use walt_tar::Time;
use walt_tar::paths::split;

/// Mode of an implied directory that no layer below has.
pub(crate) const IMPLIED_MODE: u32 = 0o755;

/// Metadata of a directory in the layers below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirMeta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
}

impl DirMeta {
    /// Metadata of an implied directory that no layer below has.
    pub const DEFAULT: Self = Self { mode: IMPLIED_MODE, uid: 0, gid: 0, mtime: Time { sec: 0, nsec: 0 } };
}

/// Writes the list of implied directories (NUL after each; the root is an empty name).
pub(crate) fn write_implied(layer: &Path, implied: &BTreeSet<Vec<u8>>) -> Result<()> {
    let path = layer.join("implied");
    let mut bytes = Vec::new();
    for name in implied {
        bytes.extend_from_slice(name);
        bytes.push(0);
    }
    std::fs::write(&path, bytes).on("write", path)
}

/// Reads the list of implied directories.
pub(crate) fn read_implied(layer: &Path) -> Result<BTreeSet<Vec<u8>>> {
    let path = layer.join("implied");
    let bytes = std::fs::read(&path).on("read", path)?;
    Ok(bytes.split_inclusive(|b| *b == 0).map(|n| n[..n.len() - 1].to_vec()).collect())
}

/// Sets the metadata of the implied directories of the layer in `layer` to what they have in the layers `below`
/// (given as directories, lowest first). Directories that no layer has keep theirs.
pub(crate) fn inherit_metadata(layer: &Path, below: &[PathBuf]) -> Result<()> {
    let implied = read_implied(layer)?;
    if implied.is_empty() || below.is_empty() {
        return Ok(());
    }
    let below = below.iter().map(|dir| Lower::open(dir)).collect::<Result<Vec<_>>>()?;
    let fs_dir = layer.join("fs");
    let root = Root::open(&fs_dir).on("open", &fs_dir)?;
    for path in &implied {
        let show = root.show(path);
        let Some(meta) = metadata_below(&below, path).on("read the metadata below for", &show)? else {
            continue;
        };
        let (dir, name) = split(path);
        let dir = root.dir(dir).on("open", &show)?;
        let place = Place { dir: &dir, name };
        place.chown(meta.uid, meta.gid).on("set the owner of", &show)?;
        place.chmod(meta.mode).on("set the mode of", &show)?;
        place.set_mtime(meta.mtime).on("set the time of", &show)?;
    }
    Ok(())
}

/// A layer below.
struct Lower {
    root: Root,
    implied: BTreeSet<Vec<u8>>,
}

/// What a layer has at a path.
enum Presence {
    /// A directory; its own metadata counts if the layer's tar lists it.
    Directory(DirMeta, bool),
    /// Something that hides the layers below it.
    Hidden,
    Nothing,
}

impl Lower {
    fn open(layer: &Path) -> Result<Self> {
        let fs_dir = layer.join("fs");
        Ok(Self { root: Root::open(&fs_dir).on("open", &fs_dir)?, implied: read_implied(layer)? })
    }

    fn presence(&self, path: &[u8]) -> rustix::io::Result<Presence> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match self.root.at_with(path, flags, ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => {
                let stat = fs::fstat(&fd)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Ok(Presence::Hidden);
                }
                let mtime = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
                let meta = DirMeta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime };
                Ok(Presence::Directory(meta, !self.implied.contains(path)))
            }
            // A parent is a file, a link or a whiteout.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(Presence::Hidden),
            Err(Errno::NOENT) => match self.is_below_opaque(path)? {
                true => Ok(Presence::Hidden),
                false => Ok(Presence::Nothing),
            },
            Err(e) => Err(e),
        }
    }

    /// Whether a directory above `path` hides those of the layers below it.
    fn is_below_opaque(&self, path: &[u8]) -> rustix::io::Result<bool> {
        let mut dir = path;
        while !dir.is_empty() {
            dir = split(dir).0;
            match self.root.at_with(dir, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS) {
                Ok(fd) => {
                    let opaque = Place { dir: &fd, name: b"" }.xattr(OPAQUE.as_bytes());
                    if opaque.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?.is_some() {
                        return Ok(true);
                    }
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

/// Metadata of the directory at `path` in the merged layers, by the rules of a view: the highest visible layer that
/// lists it counts.
fn metadata_below(below: &[Lower], path: &[u8]) -> rustix::io::Result<Option<DirMeta>> {
    let mut fallback = None;
    for layer in below.iter().rev() {
        match layer.presence(path)? {
            Presence::Directory(meta, true) => return Ok(Some(meta)),
            // Otherwise the lowest layer that implies it, whose metadata was set first.
            Presence::Directory(meta, false) => fallback = Some(meta),
            Presence::Hidden => break,
            Presence::Nothing => {}
        }
    }
    Ok(fallback)
}
