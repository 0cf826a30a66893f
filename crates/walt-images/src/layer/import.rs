//! Unpacking a layer tar: one pass that hashes, writes files and keeps the skeleton.
//!
//! Rules beyond those of tar, from the OCI image specification ("layer") and our own store:
//! * `.wh.NAME` becomes the whiteout device 0:0, `.wh..wh..opq` the opaque mark of its directory; other names that
//!   start with `.wh.` are refused, and so is a 0:0 device;
//! * a whiteout beside an entry of the same name hides what lies below and keeps the entry, in either order;
//! * overlayfs' own attributes are dropped;
//! * a name may occur once, directories may be repeated;
//! * parents that the tar does not name are *implied*: their metadata is that of the layer below.

use super::{
    disk::{self, OPAQUE, Place, Root, as_path, split},
    skeleton::{LayerInfo, SkeletonWriter},
};
use crate::error::{Context, Error, Result};
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};
use walt_tar::{BLOCK, Header, Time, Type, read_header};
use walt_types::{DiffId, Hash256};

/// Most entries of one layer.
pub(crate) const MAX_ENTRIES: u64 = 4_000_000;
/// Most bytes of one layer's files together, by their headers.
pub(crate) const MAX_APPARENT: u64 = 1 << 40;
/// Bytes read from the tar at once.
const CHUNK: usize = 1 << 18;
/// Mode of an implied directory that no lower layer has.
const IMPLIED_MODE: u32 = 0o755;

/// Metadata of a directory in the layers below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirMeta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
}

/// Answers what directory the layers below have at a path.
pub(crate) type Below<'a> = &'a dyn Fn(&[u8]) -> Option<DirMeta>;

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// Undoes gzip or zstd compression, seen from the first bytes.
pub(crate) fn plain<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    let unreadable = |e: io::Error| Error::Layer(format!("the tar cannot be read: {e}"));
    let start = input.fill_buf().map_err(unreadable)?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(CHUNK, flate2::bufread::MultiGzDecoder::new(input)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::Decoder::with_buffer(input).map_err(unreadable)?;
        Box::new(BufReader::with_capacity(CHUNK, decoder))
    } else {
        Box::new(input)
    })
}

/// Unpacks `tar` to `layer/fs`, writes `layer/skeleton` and, if there are any, `layer/implied`.
pub(crate) fn import(tar: impl Read, layer: &Path, below: Below) -> Result<LayerInfo> {
    let fs_dir = layer.join("fs");
    std::fs::create_dir(&fs_dir).on("create", &fs_dir)?;
    let mut input = Hashing { inner: plain(tar)?, hash: Sha256::new(), count: 0 };
    let mut skeleton = SkeletonWriter::create(&layer.join("skeleton"))?;
    let mut unpacker = Unpacker {
        root: Root::open(&fs_dir).on("open", &fs_dir)?,
        parent: None,
        implied: BTreeSet::from([Vec::new()]),
        dir_times: Vec::new(),
        below,
    };
    let (mut entries, mut apparent) = (0, 0u64);
    let mut raw = Vec::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let header = read_header(&mut input, &mut raw)?;
        skeleton.raw(&raw)?;
        raw.clear();
        let Some(header) = header else { break };
        if header.sparse.is_some() {
            // Export gives the same bytes again: the skeleton has no record for a file in pieces.
            return Err(refuse(&header.path, "sparse entries are refused; make the tar without --sparse"));
        }
        entries += 1;
        apparent = apparent.saturating_add(header.size);
        if entries > MAX_ENTRIES || apparent > MAX_APPARENT {
            let limit = format!("it has more than {MAX_ENTRIES} entries or {} GiB", MAX_APPARENT >> 30);
            return Err(Error::Layer(limit));
        }
        let file = unpacker.entry(&header)?;
        if header.size > 0 {
            let path = unpacker.root.show(&header.path);
            let mut file = file.ok_or_else(|| refuse(&header.path, "it has bytes but is no file"))?;
            skeleton.file(&header.path, header.size)?;
            copy(&mut input, &mut file, header.size, &mut buffer, &path)?;
            unpacker.finish_file(&header)?;
            let padding = (header.size.next_multiple_of(BLOCK as u64) - header.size) as usize;
            let padding = &mut buffer[..padding];
            input.read_exact(padding).map_err(|e| Error::Layer(format!("the tar cannot be read: {e}")))?;
            raw.extend_from_slice(padding);
        } else if file.is_some() {
            unpacker.finish_file(&header)?;
        }
    }
    let implied = unpacker.finish()?;
    let info =
        LayerInfo { diff_id: DiffId(Hash256(input.hash.finalize().into())), size: input.count, entries };
    skeleton.finish(&info)?;
    write_implied(layer, &implied)?;
    Ok(info)
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

fn copy(input: &mut impl Read, file: &mut File, size: u64, buffer: &mut [u8], path: &Path) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let want = left.min(buffer.len() as u64) as usize;
        let n = match input.read(&mut buffer[..want]) {
            Ok(0) => return Err(Error::Layer("the tar ends in the middle of a file".into())),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::Layer(format!("the tar cannot be read: {e}"))),
        };
        file.write_all(&buffer[..n]).on("write", path)?;
        left -= n as u64;
    }
    Ok(())
}

fn refuse(path: &[u8], why: &str) -> Error {
    Error::Layer(format!("entry '{}': {why}", String::from_utf8_lossy(path)))
}

struct Unpacker<'a> {
    root: Root,
    /// The last directory used: tars list a directory's files together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    implied: BTreeSet<Vec<u8>>,
    dir_times: Vec<(Vec<u8>, Time)>,
    below: Below<'a>,
}

impl Unpacker<'_> {
    /// Makes one entry; a regular file is returned open for its bytes.
    fn entry(&mut self, header: &Header) -> Result<Option<File>> {
        if header.path.is_empty() {
            self.implied.remove(b"".as_slice());
            self.dir_metadata(header)?;
            return Ok(None);
        }
        let (dir, name) = split(&header.path);
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
                b"" | b"." | b".." => Err(refuse(&header.path, "it hides nothing that can exist")),
                _ if hidden.starts_with(b".wh.") => {
                    Err(refuse(&header.path, "this kind of whiteout is not known"))
                }
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
            self.dir_metadata(header)?;
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
                    "a character device 0:0 is refused, overlayfs takes it for a whiteout",
                ));
            }
            Type::Char => place.mknod(FileType::CharacterDevice, header.rdev).on("create device", &show)?,
            Type::Block => place.mknod(FileType::BlockDevice, header.rdev).on("create device", &show)?,
            Type::Fifo => place.mknod(FileType::Fifo, (0, 0)).on("create fifo", &show)?,
            Type::Dir => {} // done above
        }
        metadata(&place, header).on("set the metadata of", &show)?;
        Ok(None)
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

    /// Metadata of a regular file, once its bytes are written.
    fn finish_file(&self, header: &Header) -> Result<()> {
        let place = self.place(split(&header.path).1);
        metadata(&place, header).on("set the metadata of", self.root.show(&header.path))
    }

    fn place<'b>(&'b self, name: &'b [u8]) -> Place<'b> {
        match &self.parent {
            Some((_, dir)) => Place { dir, name },
            None => Place { dir: &self.root.fd, name },
        }
    }

    /// Makes `dir` the current directory, creating what the tar did not name.
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

    /// Makes a directory in the current one. One that exists stays; a whiteout makes place and leaves it opaque.
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
            _ => Err(refuse(path, "it is a directory and something else")),
        }
    }

    fn implied_metadata(&mut self, path: &[u8]) -> Result<()> {
        let default = DirMeta { mode: IMPLIED_MODE, uid: 0, gid: 0, mtime: Time::default() };
        let meta = (self.below)(path).unwrap_or(default);
        let place = self.place(split(path).1);
        let show = self.root.show(path);
        place.chown(meta.uid, meta.gid).on("set the owner of", &show)?;
        place.chmod(meta.mode).on("set the mode of", &show)?;
        self.dir_times.push((path.to_vec(), meta.mtime));
        Ok(())
    }

    /// Metadata of a directory entry; its time is set at the end, when nothing more is put into it.
    fn dir_metadata(&mut self, header: &Header) -> Result<()> {
        let show = self.root.show(&header.path);
        if header.path.is_empty() {
            let place = Place { dir: &self.root.fd, name: b"" };
            metadata(&place, header).on("set the metadata of", &show)?;
        } else {
            let place = self.place(split(&header.path).1);
            metadata(&place, header).on("set the metadata of", &show)?;
        }
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
            // The entry of this layer hides the lower one by itself.
            Ok(_) => Ok(()),
            Err(_) => place.mknod(FileType::CharacterDevice, (0, 0)).on("create whiteout", show),
        }
    }

    /// Sets the directories' times and gives the list of the implied ones.
    fn finish(mut self) -> Result<BTreeSet<Vec<u8>>> {
        if self.implied.contains(b"".as_slice()) {
            self.parent = None;
            self.implied_metadata(b"")?;
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

/// Owner, then attributes (chown clears capabilities), then mode (chown clears set-user-id), then time.
pub(crate) fn metadata(place: &Place, header: &Header) -> io::Result<()> {
    place.chown(header.uid, header.gid)?;
    for (name, value) in &header.xattrs {
        if !disk::is_overlay_xattr(name) {
            place.set_xattr(name, value)?;
        }
    }
    if header.kind != Type::Symlink {
        place.chmod(header.mode)?;
    }
    place.set_mtime(header.mtime)
}
