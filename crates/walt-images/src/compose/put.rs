//! One entry put into the layer, or removed from the tree.

use super::{Composer, Meta, is_below, refuse};
use crate::{
    error::{Context, Result},
    layer::{holes, scan::Kind},
};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use std::{
    fs::File,
    io::{self, Read},
};
use walt_tar::MAX_PATH;
use walt_tar::local::is_overlay_xattr;
use walt_tar::paths::{as_path, split};

impl Composer<'_> {
    /// Makes a regular file with the bytes that `write` writes; `size` is its final size, holes included.
    pub(super) fn new_file(
        &mut self,
        path: &[u8],
        meta: &Meta,
        size: u64,
        write: &mut dyn FnMut(&mut File) -> Result<()>,
    ) -> Result<()> {
        self.replace(path, size)?;
        let place = self.place(path);
        let show = self.root.show(path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(place.dir, as_path(place.name), flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(fd.on("create", &show)?);
        // Recorded first, since the file exists even if writing it fails.
        self.note(path, Kind::File, b"");
        write(&mut file)?;
        self.set_metadata(path, meta, Kind::File)
    }

    /// Puts a regular file: `size` bytes of `data`. Blocks of zeros become holes. An existing entry at `path` is
    /// replaced, a directory with its contents.
    ///
    /// Fails if `data` ends early, or if the parent of `path` is not a directory.
    pub fn put_file(&mut self, path: &[u8], meta: &Meta, size: u64, mut data: &mut dyn Read) -> Result<()> {
        let show = self.root.show(path);
        let header = walt_tar::Header::file(size);
        self.new_file(path, meta, size, &mut |file| {
            let padding = size.next_multiple_of(walt_tar::BLOCK as u64) - size;
            let mut input = (&mut data).take(size).chain(io::repeat(0).take(padding));
            match walt_tar::read_file(&mut input, &header, file, &mut |_| ()) {
                Ok(()) => Ok(()),
                Err(walt_tar::CopyError::File(e)) => Err(e).on("write", &show),
                Err(walt_tar::CopyError::Tar(e)) => Err(io::Error::other(e.0)).on("read the bytes of", &show),
            }
        })
    }

    /// Like [`Composer::put_file`], with the content of an open file: its holes are skipped without reading them.
    pub fn put_content(&mut self, path: &[u8], meta: &Meta, size: u64, from: &File) -> Result<()> {
        let show = self.root.show(path);
        self.new_file(path, meta, size, &mut |file| {
            holes::copy(from, file, size).on("copy the bytes of", &show)
        })
    }

    /// Puts a directory. An existing directory keeps its contents and gets this metadata; any other entry is
    /// replaced.
    pub fn put_dir(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        self.check_limits(path, 0)?;
        if path.is_empty() {
            self.parent = None;
        } else if self.kind(path) != Some(Kind::Dir) {
            self.enter(split(path).0)?;
            self.clear(path)?;
            let hides =
                self.below(path).and_then(|n| self.view.entry(n)).is_some_and(|e| e.kind == Kind::Dir);
            return self.make_dir(path, meta, hides);
        } else {
            self.enter(path)?;
            self.enter(split(path).0)?;
        }
        let place = self.place(path);
        let show = self.root.show(path);
        for name in place.xattr_names().on("read the extended attributes of", &show)? {
            if !is_overlay_xattr(&name) && !meta.xattrs.iter().any(|(n, _)| *n == name) {
                place.remove_xattr(&name).on("remove an extended attribute of", &show)?;
            }
        }
        self.set_metadata(path, meta, Kind::Dir)?;
        self.times.insert(path.to_vec(), meta.mtime);
        Ok(())
    }

    /// Makes `path` and missing directories above it, all with `meta`. Existing directories stay unchanged; an
    /// existing entry of another type is an error.
    pub fn make_dirs(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        match self.kind(path) {
            Some(Kind::Dir) => Ok(()),
            Some(_) => Err(refuse(path, "it is not a directory")),
            None => {
                self.make_dirs(split(path).0, meta)?;
                self.put_dir(path, meta)
            }
        }
    }

    /// Removes the contents of a directory, but not the directory.
    pub fn empty_dir(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        if path.is_empty() {
            return Err(refuse(path, "the root cannot be emptied"));
        }
        self.remove(path)?;
        self.put_dir(path, meta)
    }

    /// Puts a symbolic link.
    pub fn put_symlink(&mut self, path: &[u8], meta: &Meta, target: &[u8]) -> Result<()> {
        if target.is_empty() || target.len() >= MAX_PATH || target.contains(&0) {
            return Err(refuse(path, "the target of the link is empty, too long, or has a NUL byte"));
        }
        self.replace(path, 0)?;
        let place = self.place(path);
        let show = self.root.show(path);
        fs::symlinkat(as_path(target), place.dir, as_path(place.name)).on("create link", &show)?;
        self.set_metadata(path, meta, Kind::Symlink)?;
        self.note(path, Kind::Symlink, target);
        Ok(())
    }

    /// Puts a device or a named pipe: `kind` is [`Kind::Char`], [`Kind::Block`] or [`Kind::Fifo`], `rdev` the major and
    /// minor number.
    pub fn put_node(&mut self, path: &[u8], meta: &Meta, kind: Kind, rdev: (u32, u32)) -> Result<()> {
        let file_type = match kind {
            Kind::Char if rdev == (0, 0) => {
                return Err(refuse(path, "a character device 0:0 means a deletion in a layer"));
            }
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => return Err(refuse(path, "it is neither a device nor a named pipe")),
        };
        self.replace(path, 0)?;
        let place = self.place(path);
        let show = self.root.show(path);
        place.mknod(file_type, if kind == Kind::Fifo { (0, 0) } else { rdev }).on("create device", &show)?;
        self.set_metadata(path, meta, kind)?;
        self.note(path, kind, b"");
        Ok(())
    }

    /// Puts a hard link to the file `target` (a path of the merged tree; links are not followed). A file of the view
    /// is copied into the layer first.
    pub fn put_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let kind = self.kind(target).filter(|k| *k != Kind::Dir);
        let absent = || refuse(path, "it is a hard link to a file that does not exist");
        let kind = kind.ok_or_else(absent)?;
        if path == target {
            return Ok(());
        }
        if is_below(target, path) {
            return Err(refuse(path, "it is a hard link to a file below itself"));
        }
        if let Some(number) = self.untouched(target) {
            self.copy_up(target, number)?;
        }
        self.replace(path, 0)?;
        let (dir, name) = split(target);
        let dir = self.root.dir(dir).on("open", self.root.show(dir))?;
        let place = self.place(path);
        fs::linkat(&dir, as_path(name), place.dir, as_path(place.name), AtFlags::empty())
            .on("create hard link", self.root.show(path))?;
        let link_target = self.target(target);
        self.note(path, kind, &link_target);
        Ok(())
    }

    /// Copies an entry of the view into the layer; not for directories.
    fn copy_up(&mut self, path: &[u8], number: u32) -> Result<()> {
        let view = self.view.clone();
        let Some(entry) = view.entry(number) else { return Ok(()) };
        let meta = self.lower_meta(number, &entry)?;
        match entry.kind {
            Kind::File => {
                let file = view.open(number).on("open below", self.root.show(path))?;
                self.put_content(path, &meta, entry.size, &file)
            }
            Kind::Symlink => self.put_symlink(path, &meta, entry.target),
            kind => self.put_node(path, &meta, kind, entry.rdev),
        }
    }

    /// Removes the entry at `path` of the merged tree, a directory with its contents. Returns false if it does not
    /// exist.
    pub fn remove(&mut self, path: &[u8]) -> Result<bool> {
        if path.is_empty() {
            return Err(refuse(path, "the root cannot be removed"));
        }
        if self.kind(path).is_none() {
            return Ok(false);
        }
        self.enter(split(path).0)?;
        self.clear(path)?;
        if self.below(path).is_some() {
            self.check_limits(path, 0)?;
            let place = self.place(path);
            place.mknod(FileType::CharacterDevice, (0, 0)).on("create whiteout", self.root.show(path))?;
            self.note(path, Kind::Whiteout, b"");
        }
        Ok(true)
    }
}
