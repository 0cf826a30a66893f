//! Unpacks a layer tar: one pass over the prefetched bytes writes the files and the skeleton.
//!
//! Rules beyond those of tar, from the OCI image specification ("layer") and our own store:
//! * `.wh.NAME` becomes the whiteout device 0:0, `.wh..wh..opq` the opaque mark of its directory; other names that
//!   start with `.wh.` are refused, and so is a 0:0 device;
//! * a whiteout and an entry of the same name, in either order: the whiteout hides the layers below, the entry stays;
//! * attributes are set as [`super::attributes`] has it: those of overlayfs are dropped, those of other systems skipped;
//! * the empty marks that aufs, docker's old file system, left at the top (`.wh..wh.aufs`, …) are ignored;
//! * a name may occur once, directories may be repeated;
//! * parents that the tar does not list are *implied*: their metadata is that of the layers below
//!   ([`super::implied`]).

use super::{
    attributes::{self, Metadata, Skipped},
    disk::{self, OPAQUE, Place, Root},
    holes,
    implied::{DirMeta, write_implied},
    prefetch::{Prefetched, prefetch},
    skeleton::{LayerInfo, SkeletonWriter},
};
use crate::{
    cancel,
    error::{Context, Error, Result},
};
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, Read},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};
use walt_tar::paths::{as_path, split};
use walt_tar::{BLOCK, Header, Region, Time, Type, read_header, read_regions};

/// Most entries of one layer.
pub(crate) const MAX_ENTRIES: u64 = 4_000_000;
/// Most bytes of all files of a layer, by their headers. Holes count, since other tools write them as zeros.
pub(crate) const MAX_APPARENT: u64 = 1 << 40;
/// Smallest run of zeros that becomes a hole, in bytes: small holes would fragment the files of a layer.
const MIN_HOLE: usize = 1 << 16;

/// Unpacks `tar` to `layer/fs`, writes `layer/skeleton` and `layer/implied`; see [`super::implied`] for the metadata
/// of the latter's directories.
pub(crate) fn import(tar: impl Read + Send, layer: &Path) -> Result<(LayerInfo, Skipped)> {
    let fs_dir = layer.join("fs");
    std::fs::create_dir(&fs_dir).on("create", &fs_dir)?;
    let mut skeleton = SkeletonWriter::create(&layer.join("skeleton"))?;
    let ((entries, implied, skipped), sum) = prefetch(tar, |input| unpack(input, &fs_dir, &mut skeleton))?;
    let info = LayerInfo { diff_id: sum.diff_id, size: sum.size, entries };
    skeleton.finish(&info)?;
    write_implied(layer, &implied)?;
    Ok((info, skipped))
}

/// Makes the entries of a decompressed tar. Returns their number, the implied directories, and the attributes that
/// were skipped.
fn unpack(
    input: &mut Prefetched,
    fs_dir: &Path,
    skeleton: &mut SkeletonWriter,
) -> Result<(u64, BTreeSet<Vec<u8>>, Skipped)> {
    let mut unpacker = Unpacker {
        root: Root::open(fs_dir).on("open", fs_dir)?,
        parent: None,
        implied: BTreeSet::from([Vec::new()]),
        dir_times: Vec::new(),
        skipped: Skipped::default(),
        default_lists: Vec::new(),
    };
    let (mut entries, mut apparent) = (0, 0u64);
    let mut raw = Vec::new();
    let mut padding = [0; BLOCK];
    loop {
        let header = read_header(input, &mut raw)?;
        skeleton.raw(&raw)?;
        raw.clear();
        let Some(header) = header else { break };
        cancel::check()?;
        entries += 1;
        apparent = apparent.saturating_add(header.file_size());
        if entries > MAX_ENTRIES || apparent > MAX_APPARENT {
            let limit =
                format!("the layer would have more than {MAX_ENTRIES} entries or {} GiB", MAX_APPARENT >> 30);
            return Err(refuse(&header.path, &limit));
        }
        let file = unpacker.entry(&header)?;
        if header.size > 0 || header.file_size() > 0 {
            let path = unpacker.root.show(&header.path);
            let file =
                file.ok_or_else(|| refuse(&header.path, "it has content but is not a regular file"))?;
            for (offset, length) in read_regions(input, &header, &mut raw)? {
                skeleton.raw(&raw)?;
                raw.clear();
                match &header.sparse {
                    None => skeleton.file(&header.path, length)?,
                    Some(_) if length == 0 => continue,
                    Some(_) => skeleton.part(&header.path, offset, length)?,
                }
                copy(input, &file, (offset, length), &path)?;
            }
            file.set_len(header.file_size()).on("write", &path)?;
            finish_file(&file, &header, &mut unpacker.skipped).on("set the metadata of", &path)?;
            let count = (header.size.next_multiple_of(BLOCK as u64) - header.size) as usize;
            let padding = &mut padding[..count];
            input.read_exact(padding).map_err(|e| Error::Layer(format!("the tar cannot be read: {e}")))?;
            raw.extend_from_slice(padding);
        } else if let Some(file) = file {
            let path = unpacker.root.show(&header.path);
            finish_file(&file, &header, &mut unpacker.skipped).on("set the metadata of", path)?;
        }
    }
    let skipped = std::mem::take(&mut unpacker.skipped);
    Ok((entries, unpacker.finish()?, skipped))
}

/// Writes a part of a file. Zeros become holes.
fn copy(input: &mut Prefetched, file: &File, (offset, length): Region, path: &Path) -> Result<()> {
    let mut left = length;
    while left > 0 {
        cancel::check()?;
        let there = input.fill_buf().map_err(|e| Error::Layer(format!("the tar cannot be read: {e}")))?;
        if there.is_empty() {
            return Err(Error::Layer("the tar ends in the middle of a file".into()));
        }
        let n = left.min(there.len() as u64) as usize;
        let piece = &there[..n];
        if n < MIN_HOLE || !holes::is_zero(piece) {
            file.write_all_at(piece, offset + length - left).on("write", path)?;
        }
        input.consume(n);
        left -= n as u64;
    }
    Ok(())
}

fn refuse(path: &[u8], why: &str) -> Error {
    Error::Layer(format!("entry '{}': {why}", String::from_utf8_lossy(path)))
}

/// Whether this is one of the empty marks that aufs kept at the top of its directories. Docker ignores them, too.
fn is_of_aufs(header: &Header) -> bool {
    let top = header.path.split(|b| *b == b'/').next();
    matches!(top, Some(b".wh..wh.aufs" | b".wh..wh.orph" | b".wh..wh.plnk")) && header.size == 0
}

struct Unpacker {
    root: Root,
    /// The directory used last: tars list the files of a directory together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    implied: BTreeSet<Vec<u8>>,
    dir_times: Vec<(Vec<u8>, Time)>,
    skipped: Skipped,
    /// Default access lists of directories. They are set at the end, since new entries would inherit them.
    default_lists: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Unpacker {
    /// Makes one entry. A regular file is returned open for writing.
    fn entry(&mut self, header: &Header) -> Result<Option<File>> {
        if header.path.is_empty() {
            self.implied.remove(b"".as_slice());
            self.directory(header)?;
            return Ok(None);
        }
        let (dir, name) = split(&header.path);
        if is_of_aufs(header) {
            return Ok(None);
        }
        if dir.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(refuse(&header.path, "a directory's name starts with '.wh.'"));
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            if header.kind != Type::File || header.size != 0 {
                return Err(refuse(&header.path, "a whiteout must be an empty file"));
            }
            self.enter(dir)?;
            return match hidden {
                b".wh..opq" => self.mark_opaque(dir),
                b"" | b"." | b".." => Err(refuse(&header.path, "this whiteout does not name a file")),
                _ if hidden.starts_with(b".wh.") => Err(refuse(&header.path, "unknown kind of whiteout")),
                _ => self.whiteout(dir, hidden),
            }
            .map(|()| None);
        }
        self.enter(dir)?;
        let place = self.place(name);
        let show = self.root.show(&header.path);
        if header.kind == Type::Dir {
            self.make_dir(&header.path)?;
            self.implied.remove(&header.path);
            self.directory(header)?;
            return Ok(None);
        }
        if let Ok(stat) = place.stat() {
            if !disk::is_whiteout(&stat) {
                return Err(refuse(&header.path, "the name occurs twice"));
            }
            place.unlink(AtFlags::empty()).on("replace", &show)?;
        }
        match header.kind {
            Type::File => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = fs::openat(place.dir, as_path(name), flags, Mode::from_raw_mode(0o600));
                return Ok(Some(File::from(fd.on("create", &show)?)));
            }
            Type::HardLink => return self.hard_link(header, name).map(|()| None),
            Type::Symlink => {
                fs::symlinkat(as_path(&header.link), place.dir, as_path(name)).on("create link", &show)?
            }
            Type::Char if header.rdev == (0, 0) => {
                return Err(refuse(
                    &header.path,
                    "a character device 0:0 is not allowed: overlayfs takes it for a whiteout",
                ));
            }
            Type::Char => place.mknod(FileType::CharacterDevice, header.rdev).on("create device", &show)?,
            Type::Block => place.mknod(FileType::BlockDevice, header.rdev).on("create device", &show)?,
            Type::Fifo => place.mknod(FileType::Fifo, (0, 0)).on("create fifo", &show)?,
            Type::Dir => {} // done above
        }
        let mut skipped = std::mem::take(&mut self.skipped);
        let done = metadata(&self.place(name), header, &mut skipped).on("set the metadata of", &show);
        self.skipped = skipped;
        done.map(|()| None)
    }

    /// Makes a directory entry. Its default access list must not apply to the files of the tar, which have their own
    /// lists.
    fn directory(&mut self, header: &Header) -> Result<()> {
        let mut now = header.clone();
        now.xattrs.retain(|(name, _)| name != attributes::INHERITED);
        let later = header.xattrs.iter().filter(|(name, _)| name == attributes::INHERITED);
        self.default_lists.extend(later.map(|(_, value)| (header.path.clone(), value.clone())));
        self.dir_metadata(&now)
    }

    fn hard_link(&self, header: &Header, name: &[u8]) -> Result<()> {
        let (target_dir, target_name) = split(&header.link);
        let absent = || refuse(&header.path, "it is a hard link to a file that this layer does not have");
        if target_name.is_empty() || header.link.split(|b| *b == b'/').any(|p| p.starts_with(b".wh.")) {
            return Err(absent());
        }
        let dir = self.root.dir(target_dir).map_err(|_| absent())?;
        let target = Place { dir: &dir, name: target_name };
        match target.stat() {
            Ok(stat) if !disk::is_whiteout(&stat) => {}
            _ => return Err(absent()),
        }
        let place = self.place(name);
        fs::linkat(&dir, as_path(target_name), place.dir, as_path(name), AtFlags::empty())
            .on("create hard link", self.root.show(&header.path))
    }

    fn place<'b>(&'b self, name: &'b [u8]) -> Place<'b> {
        match &self.parent {
            Some((_, dir)) => Place { dir, name },
            None => Place { dir: &self.root.fd, name },
        }
    }

    /// Makes `dir` the current directory. Parents that the tar did not list are created.
    fn enter(&mut self, dir: &[u8]) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == dir) {
            return Ok(());
        }
        let fd = match self.root.dir(dir) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) if !dir.is_empty() => {
                self.enter(split(dir).0)?;
                self.make_dir(dir)?;
                self.implied.insert(dir.to_vec());
                self.implied_metadata(dir)?;
                self.root.dir(dir).on("open", self.root.show(dir))?
            }
            Err(e) => return Err(e).on("open", self.root.show(dir)),
        };
        self.parent = Some((dir.to_vec(), fd));
        Ok(())
    }

    /// Makes a directory in the current one. An existing directory stays; a whiteout is replaced, and the directory
    /// becomes opaque.
    fn make_dir(&mut self, path: &[u8]) -> Result<()> {
        let place = self.place(split(path).1);
        let show = self.root.show(path);
        let mode = Mode::from_raw_mode(0o700);
        match fs::mkdirat(place.dir, as_path(place.name), mode) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e).on("create directory", &show),
        }
        let stat = place.stat().on("read the metadata of", &show)?;
        if disk::is_whiteout(&stat) {
            place.unlink(AtFlags::empty()).on("replace", &show)?;
            fs::mkdirat(place.dir, as_path(place.name), mode).on("create directory", &show)?;
            return place.set_xattr(OPAQUE.as_bytes(), b"y").on("mark as opaque", &show);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(()),
            _ => Err(refuse(path, "it is both a directory and another type of file")),
        }
    }

    /// Sets the preliminary metadata of an implied directory.
    fn implied_metadata(&mut self, path: &[u8]) -> Result<()> {
        let DirMeta { mode, uid, gid, mtime } = DirMeta::DEFAULT;
        let place = self.place(split(path).1);
        let show = self.root.show(path);
        place.chown(uid, gid).on("set the owner of", &show)?;
        place.chmod(mode).on("set the mode of", &show)?;
        self.dir_times.push((path.to_vec(), mtime));
        Ok(())
    }

    /// Sets the metadata of a directory entry, except its time, which is set at the end because adding entries
    /// changes it.
    fn dir_metadata(&mut self, header: &Header) -> Result<()> {
        let show = self.root.show(&header.path);
        let mut skipped = std::mem::take(&mut self.skipped);
        let place = match header.path.is_empty() {
            true => Place { dir: &self.root.fd, name: b"" },
            false => self.place(split(&header.path).1),
        };
        metadata(&place, header, &mut skipped).on("set the metadata of", &show)?;
        self.skipped = skipped;
        self.dir_times.push((header.path.clone(), header.mtime));
        Ok(())
    }

    fn mark_opaque(&self, dir: &[u8]) -> Result<()> {
        self.place(b"").set_xattr(OPAQUE.as_bytes(), b"y").on("mark as opaque", self.root.show(dir))
    }

    fn whiteout(&self, dir: &[u8], hidden: &[u8]) -> Result<()> {
        let place = self.place(hidden);
        let show = self.root.show(dir).join(as_path(hidden));
        match place.stat() {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                place.set_xattr(OPAQUE.as_bytes(), b"y").on("mark as opaque", show)
            }
            // The entry of this layer already hides the lower one.
            Ok(_) => Ok(()),
            Err(_) => place.mknod(FileType::CharacterDevice, (0, 0)).on("create whiteout", show),
        }
    }

    /// Sets default access lists and times of directories. Returns the implied directories.
    fn finish(mut self) -> Result<BTreeSet<Vec<u8>>> {
        if self.implied.contains(b"".as_slice()) {
            self.parent = None;
            self.implied_metadata(b"")?;
        }
        for (path, value) in &self.default_lists {
            let (dir, name) = split(path);
            let what = "set the metadata of";
            let fd = self.root.dir(dir).on(what, self.root.show(path))?;
            let place = Place { dir: &fd, name };
            let list = [(attributes::INHERITED.to_vec(), value.clone())];
            attributes::set(&list, &mut Skipped::default(), &fd, |name, value| place.set_xattr(name, value))
                .on(what, self.root.show(path))?;
        }
        for (path, mtime) in &self.dir_times {
            let (dir, name) = split(path);
            let what = "set the time of";
            let fd = self.root.dir(dir).on(what, self.root.show(path))?;
            Place { dir: &fd, name }.set_mtime(*mtime).on(what, self.root.show(path))?;
        }
        Ok(self.implied)
    }
}

/// [`metadata`] of a regular file that is open, once its bytes are written.
fn finish_file(file: &File, header: &Header, skipped: &mut Skipped) -> io::Result<()> {
    fs::fchown(file, Some(fs::Uid::from_raw(header.uid)), Some(fs::Gid::from_raw(header.gid)))?;
    attributes::set(&header.xattrs, skipped, file, |name, value| {
        Ok(fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?)
    })?;
    fs::fchmod(file, Mode::from_raw_mode(header.mode))?;
    Ok(fs::futimens(file, &disk::timestamps(header.mtime))?)
}

fn metadata(place: &Place, header: &Header, skipped: &mut Skipped) -> io::Result<()> {
    let mode = (header.kind != Type::Symlink).then_some(header.mode);
    let (uid, gid, mtime) = (header.uid, header.gid, header.mtime);
    Metadata { uid, gid, mode, mtime, xattrs: &header.xattrs }.apply(place, skipped)
}
