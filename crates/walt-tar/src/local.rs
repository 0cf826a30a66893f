//! Packs and unpacks files of this machine, with the rights of the user who runs the program.

use crate::{
    CopyError, Dialect, Error, Header, Time, Type, paths::split, read_file, read_header, write_file,
    write_header_as,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

/// Largest list of attribute names, and largest value, that the kernel gives, in bytes (XATTR_LIST_MAX, XATTR_SIZE_MAX).
pub const MAX_XATTR: usize = 65_536;
/// Attributes that mean the same on another machine; labels of this one's security module do not.
const XATTRS: [&[u8]; 4] = [b"user.", b"security.capability", b"system.posix_acl_", b"trusted."];
/// Prefixes of the extended attributes that overlayfs gives a meaning to.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Bytes read from a stream at once.
const CHUNK: usize = 1 << 18;

/// Why files were not packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file of this machine.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// A verb and its object's kind.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The stream.
    #[error("{0}")]
    Stream(String),
}

impl From<Error> for LocalError {
    fn from(e: Error) -> Self {
        Self::Stream(e.0)
    }
}

/// Does overlayfs give this extended attribute a meaning?
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    OVERLAY_PREFIXES.iter().any(|p| name.starts_with(p))
}

trait On<T> {
    fn on(self, what: &'static str, path: &Path) -> Result<T, LocalError>;
}

impl<T, E: Into<io::Error>> On<T> for Result<T, E> {
    fn on(self, what: &'static str, path: &Path) -> Result<T, LocalError> {
        self.map_err(|e| LocalError::File { what, path: path.to_owned(), source: e.into() })
    }
}

/// Callbacks for progress and notes while files are packed or unpacked.
pub struct Watch<'a> {
    /// Called with the number of bytes of files since the last call.
    pub progress: &'a mut dyn FnMut(u64),
    /// Called with sentences about files that cannot be copied.
    pub note: &'a mut dyn FnMut(String),
}

/// How files are packed.
#[derive(Debug, Clone)]
pub struct Packing<'a> {
    /// What `path` is called in the tar; empty for the contents of a directory, without itself.
    pub name: &'a [u8],
    /// For which programs.
    pub dialect: Dialect,
    /// User and group of all entries.
    pub owner: Option<(u32, u32)>,
}

/// Packs the file or directory `path`, which is followed if it is a link, as entries `name` and `name/…` of
/// `packing`. Links below are kept as links, names of one file as hard links, holes as holes. For a directory, `keep`
/// is called with each path below it (and whether it is a directory); a directory that is not kept is not entered.
/// Sockets are left out with a note. The end of the archive is not written ([`crate::END`]).
///
/// # Errors
/// A file cannot be read, changes meanwhile, or the stream cannot be written.
pub fn pack(
    path: &Path,
    packing: &Packing,
    out: &mut dyn Write,
    keep: &mut dyn FnMut(&[u8], bool) -> bool,
    watch: &mut Watch,
) -> Result<(), LocalError> {
    let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let name = packing.name;
    let mut pending = vec![(path.to_owned(), name.to_vec())];
    while let Some((path, name_in)) = pending.pop() {
        let is_top = name_in == name;
        let meta = if is_top { path.metadata() } else { path.symlink_metadata() };
        let meta = meta.on("read the metadata of", &path)?;
        let below = name_in[name.len()..].strip_prefix(b"/").unwrap_or(&name_in[name.len()..]);
        if !is_top && !keep(below, meta.is_dir()) {
            continue;
        }
        if meta.is_dir() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&path).on("list", &path)? {
                names.push(entry.on("list", &path)?.file_name());
            }
            names.sort_unstable();
            for child in names.into_iter().rev() {
                let name = match name_in.as_slice() {
                    b"" => child.as_bytes().to_vec(),
                    dir => [dir, b"/", child.as_bytes()].concat(),
                };
                pending.push((path.join(&child), name));
            }
        }
        if !name_in.is_empty() {
            pack_one(&path, name_in, &meta, packing, &mut first_names, out, watch)?;
        }
    }
    Ok(())
}

fn pack_one(
    path: &Path,
    name: Vec<u8>,
    meta: &std::fs::Metadata,
    packing: &Packing,
    first_names: &mut HashMap<(u64, u64), Vec<u8>>,
    out: &mut dyn Write,
    watch: &mut Watch,
) -> Result<(), LocalError> {
    let file_type = meta.file_type();
    let kind = match () {
        () if file_type.is_dir() => Type::Dir,
        () if file_type.is_symlink() => Type::Symlink,
        () if file_type.is_char_device() => Type::Char,
        () if file_type.is_block_device() => Type::Block,
        () if file_type.is_fifo() => Type::Fifo,
        () if file_type.is_socket() => {
            (watch.note)(format!("{} is a socket: left out.", path.display()));
            return Ok(());
        }
        () => Type::File,
    };
    let mut header = Header {
        kind,
        path: name,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: Time { sec: meta.mtime(), nsec: u32::try_from(meta.mtime_nsec()).unwrap_or(0) },
        xattrs: xattrs(path, kind == Type::Symlink).on("read the extended attributes of", path)?,
        ..Header::file(0)
    };
    if let Some((uid, gid)) = packing.owner {
        (header.uid, header.gid) = (uid, gid);
    }
    if kind == Type::Symlink {
        header.link = std::fs::read_link(path).on("read the link", path)?.as_os_str().as_bytes().to_vec();
    }
    if matches!(kind, Type::Char | Type::Block) {
        header.rdev = (fs::major(meta.rdev()), fs::minor(meta.rdev()));
    }
    if kind != Type::Dir && meta.nlink() > 1 {
        match first_names.entry((meta.dev(), meta.ino())) {
            std::collections::hash_map::Entry::Occupied(first) => {
                header.kind = Type::HardLink;
                header.link.clone_from(first.get());
                header.xattrs.clear();
            }
            std::collections::hash_map::Entry::Vacant(first) => drop(first.insert(header.path.clone())),
        }
    }
    if header.kind == Type::File {
        // The name may have become a link or a device meanwhile: do not open it then.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let mut options = std::fs::OpenOptions::new();
        let opened = options.read(true).custom_flags(flags).open(path);
        // The top may be a link, which is followed.
        let opened = opened.or_else(|_| std::fs::OpenOptions::new().read(true).open(path));
        let mut file = opened.on("open", path)?;
        let now = file.metadata().on("read the metadata of", path)?;
        header.size = now.len();
        return write_file(out, &header, &mut file, now.blocks(), packing.dialect, watch.progress)
            .on("copy", path);
    }
    let mut bytes = Vec::new();
    write_header_as(&mut bytes, &header, packing.dialect);
    out.write_all(&bytes).on("copy", path)
}

fn xattrs(path: &Path, link: bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; MAX_XATTR];
    let names = if link { fs::llistxattr(path, &mut list) } else { fs::listxattr(path, &mut list) };
    let n = match names {
        Ok(n) => n,
        Err(Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut all = Vec::new();
    for name in list[..n].split(|b| *b == 0) {
        let ours = XATTRS.iter().any(|p| name.starts_with(p)) && !is_overlay_xattr(name);
        if !ours {
            continue;
        }
        let mut value = vec![0; MAX_XATTR];
        let os = OsStr::from_bytes(name);
        let got = if link { fs::lgetxattr(path, os, &mut value) } else { fs::getxattr(path, os, &mut value) };
        if let Ok(n) = got {
            value.truncate(n);
            all.push((name.to_vec(), value));
        }
    }
    all.sort();
    Ok(all)
}

/// Where a tar is unpacked.
pub struct Target<'a> {
    /// An existing directory.
    pub dir: &'a Path,
    /// What the tar's entry `top` is called there; `None`: its contents go into `dir` itself.
    pub name: Option<&'a OsStr>,
    /// Name of the entry that is unpacked, with all below it; empty for all entries.
    pub top: &'a [u8],
}

/// Unpacks the entries `top` and `top/…` of a tar. Nothing is written outside of the target: no symbolic link
/// below it is followed, neither one of the tar nor one that was there. A file takes the place of a file when it is
/// complete; directories are merged. Root gives owners and devices as they are in the tar; other users own what
/// they unpack, without set-user-id, and get a note for devices.
///
/// # Errors
/// The tar is damaged or leads outside; a file cannot be written; something is a directory here and something
/// else there. What was unpacked before stays.
pub fn unpack(input: &mut dyn Read, target: &Target, watch: &mut Watch) -> Result<(), LocalError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(target.dir, flags, Mode::empty()).on("open", target.dir)?;
    let mut unpacker = Unpacker {
        target,
        root,
        is_root: rustix::process::geteuid().is_root(),
        parent: None,
        dirs: Vec::new(),
        watch,
    };
    let mut input = BufReader::with_capacity(CHUNK, input);
    let mut raw = Vec::new();
    while let Some(header) = read_header(&mut input, &mut raw)? {
        raw.clear();
        unpacker.entry(&header, &mut input)?;
    }
    unpacker.finish()
}

struct Unpacker<'a, 'b> {
    target: &'a Target<'a>,
    root: OwnedFd,
    is_root: bool,
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories of the tar: their metadata are set at the end, since a read-only one takes no entries.
    dirs: Vec<(Vec<u8>, Header)>,
    watch: &'a mut Watch<'b>,
}

impl Unpacker<'_, '_> {
    fn show(&self, path: &[u8]) -> PathBuf {
        self.target.dir.join(OsStr::from_bytes(path))
    }

    /// Where an entry goes, below the directory; `None` for the directory itself.
    fn place(&self, path: &[u8]) -> Result<Option<Vec<u8>>, LocalError> {
        let outside = || LocalError::Stream("the tar has an entry outside of what is copied".into());
        let rest = path.strip_prefix(self.target.top).ok_or_else(outside)?;
        let rest = match rest {
            b"" => rest,
            _ if self.target.top.is_empty() => rest,
            _ => rest.strip_prefix(b"/").ok_or_else(outside)?,
        };
        let name = self.target.name.map(OsStr::as_bytes).unwrap_or_default();
        Ok(match (name, rest) {
            (b"", b"") => None,
            (b"", _) => Some(rest.to_vec()),
            (_, b"") => Some(name.to_vec()),
            _ => Some([name, b"/", rest].concat()),
        })
    }

    /// Opens a directory below the root, step by step, through no link.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, LocalError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = self.root.try_clone().on("open", self.target.dir)?;
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            let next = fs::openat(&at, OsStr::from_bytes(name), flags, Mode::empty());
            at = next.on("open directory", &self.show(path))?;
        }
        Ok(at)
    }

    fn entry(&mut self, header: &Header, input: &mut impl Read) -> Result<(), LocalError> {
        let Some(path) = self.place(&header.path)? else {
            return match header.kind {
                Type::Dir => Ok(()),
                _ => Err(LocalError::Stream("the tar has no directory at its top".into())),
            };
        };
        let (dir, name) = split(&path);
        if self.parent.as_ref().is_none_or(|(open, _)| open != dir) {
            self.parent = Some((dir.to_vec(), self.open(dir)?));
        }
        let Some((_, dir)) = self.parent.take() else { return Ok(()) };
        let done = self.one(header, &path, &dir, OsStr::from_bytes(name), input);
        self.parent = Some((split(&path).0.to_vec(), dir));
        done
    }

    fn one(
        &mut self,
        header: &Header,
        path: &[u8],
        dir: &OwnedFd,
        name: &OsStr,
        input: &mut impl Read,
    ) -> Result<(), LocalError> {
        let show = self.show(path);
        let is_dir = |name: &OsStr| {
            fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
        };
        if header.kind == Type::Dir {
            match fs::mkdirat(dir, name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) if is_dir(name) => {}
                Err(e) => return Err(e).on("make directory", &show),
            }
            self.dirs.push((path.to_vec(), header.clone()));
            return Ok(());
        }
        if is_dir(name) {
            return Err(Errno::ISDIR).on("write", &show);
        }
        if header.kind == Type::File {
            let temporary = format!(".walt-cp-{}", std::process::id());
            let temporary = OsStr::new(&temporary);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::openat(dir, temporary, flags, Mode::RUSR | Mode::WUSR).on("create", &show)?;
            let mut file = File::from(fd);
            let written = read_file(input, header, &mut file, self.watch.progress)
                .map_err(|e| match e {
                    CopyError::Tar(e) => e.into(),
                    CopyError::File(source) => LocalError::File { what: "write", path: show.clone(), source },
                })
                .and_then(|()| self.set_metadata(&file, header, &show))
                .and_then(|()| fs::renameat(dir, temporary, dir, name).on("write", &show));
            if written.is_err() {
                let _ = fs::unlinkat(dir, temporary, AtFlags::empty());
            }
            return written;
        }
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e).on("replace", &show),
        }
        let made = match header.kind {
            Type::HardLink => {
                let target = self.place(&header.link)?;
                let target = target.ok_or_else(|| LocalError::Stream("a hard link to a directory".into()))?;
                let (target_dir, target_name) = split(&target);
                let from = self.open(target_dir)?;
                let from_name = OsStr::from_bytes(target_name);
                return fs::linkat(&from, from_name, dir, name, AtFlags::empty()).on("make hard link", &show);
            }
            Type::Symlink => fs::symlinkat(OsStr::from_bytes(&header.link), dir, name),
            kind => {
                let file_type = match kind {
                    Type::Char => FileType::CharacterDevice,
                    Type::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let rdev = fs::makedev(header.rdev.0, header.rdev.1);
                fs::mknodat(dir, name, file_type, Mode::RUSR | Mode::WUSR, rdev)
            }
        };
        match made {
            Err(Errno::PERM) if matches!(header.kind, Type::Char | Type::Block) => {
                (self.watch.note)(format!(
                    "{} is a device, which only root can make: left out.",
                    show.display()
                ));
                return Ok(());
            }
            other => other.on("make", &show)?,
        }
        let link = AtFlags::SYMLINK_NOFOLLOW;
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
            fs::chownat(dir, name, Some(uid), Some(gid), link).on("set the owner of", &show)?;
        }
        if header.kind != Type::Symlink {
            let mode = Mode::from_raw_mode(self.mode(header));
            fs::chmodat(dir, name, mode, AtFlags::empty()).on("set the mode of", &show)?;
        }
        fs::utimensat(dir, name, &times(header), link).on("set the time of", &show)
    }

    fn mode(&self, header: &Header) -> u32 {
        if self.is_root { header.mode } else { header.mode & 0o1777 }
    }

    /// Metadata of an open file or directory: owner, attributes, mode, time.
    fn set_metadata(&self, file: impl AsFd, header: &Header, show: &Path) -> Result<(), LocalError> {
        let fd = file.as_fd();
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
            fs::fchown(fd, Some(uid), Some(gid)).on("set the owner of", show)?;
        }
        for (name, value) in &header.xattrs {
            if is_overlay_xattr(name) {
                continue;
            }
            // Through /proc: the only way for a directory's descriptor that works on every kernel.
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            match fs::setxattr(path.as_str(), OsStr::from_bytes(name), value, XattrFlags::empty()) {
                // Not every file system, and not every user, has every attribute.
                Ok(())
                | Err(
                    Errno::PERM
                    | Errno::NOTSUP
                    | Errno::ACCESS
                    | Errno::INVAL
                    | Errno::TOOBIG
                    | Errno::RANGE
                    | Errno::NOSPC,
                ) => {}
                Err(e) => return Err(e).on("set an extended attribute of", show),
            }
        }
        fs::fchmod(fd, Mode::from_raw_mode(self.mode(header))).on("set the mode of", show)?;
        fs::futimens(fd, &times(header)).on("set the time of", show)
    }

    /// Sets the metadata of directories, the deepest first.
    fn finish(mut self) -> Result<(), LocalError> {
        for (path, header) in std::mem::take(&mut self.dirs).iter().rev() {
            let fd = self.open(path)?;
            self.set_metadata(&fd, header, &self.show(path))?;
        }
        Ok(())
    }
}

fn times(header: &Header) -> Timestamps {
    let time = Timespec { tv_sec: header.mtime.sec, tv_nsec: i64::from(header.mtime.nsec) };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn packed(path: &Path) -> Vec<u8> {
        let mut tar = Vec::new();
        let mut watch = Watch { progress: &mut |_| (), note: &mut |_| () };
        let packing = Packing { name: b"top", dialect: Dialect::Pax, owner: None };
        pack(path, &packing, &mut tar, &mut |_, _| true, &mut watch).unwrap();
        tar.extend(crate::END);
        tar
    }

    fn unpacked(tar: &[u8], dir: &Path, name: Option<&str>) -> Result<(), LocalError> {
        let mut watch = Watch { progress: &mut |_| (), note: &mut |_| () };
        let target = Target { dir, name: name.map(OsStr::new), top: b"top" };
        unpack(&mut &tar[..], &target, &mut watch)
    }

    fn entry(kind: Type, path: &str, link: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = Header { kind, path: path.into(), link: link.into(), mode: 0o644, ..Header::file(0) };
        write_header_as(&mut bytes, &header, Dialect::Pax);
        bytes
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let room = tempfile::tempdir_in("/var/tmp").unwrap();
        let from = room.path().join("from");
        let odd = from.join(OsStr::from_bytes(b"-odd \n\"'\xff"));
        std::fs::create_dir_all(&odd).unwrap();
        std::fs::write(odd.join("f"), "content").unwrap();
        std::fs::hard_link(odd.join("f"), from.join("g")).unwrap();
        symlink("nowhere/at all", from.join("link")).unwrap();
        std::fs::set_permissions(odd.join("f"), PermissionsExt::from_mode(0o640)).unwrap();
        let file = File::create(from.join("holes")).unwrap();
        file.set_len(300_000_000).unwrap();
        std::fs::set_permissions(&odd, PermissionsExt::from_mode(0o500)).unwrap();
        fs::setxattr(from.join("g"), "user.walt", b"a\0b", XattrFlags::empty()).unwrap();
        let tar = packed(&from);
        assert!(tar.len() < 100_000, "holes are not sent");
        unpacked(&tar, room.path(), Some("to")).unwrap();
        let to = room.path().join("to");
        let diff = std::process::Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(&from)
            .arg(&to)
            .output()
            .unwrap();
        assert!(diff.status.success(), "{diff:?}");
        let meta = |dir: &Path, path: &Path| {
            let meta = dir.join(path.strip_prefix(&from).unwrap()).symlink_metadata().unwrap();
            (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.nlink())
        };
        for path in [&odd, &odd.join("f"), &from.join("g"), &from.join("link"), &from.join("holes")] {
            assert_eq!(meta(&from, path), meta(&to, path), "{path:?}");
        }
        assert_eq!(xattrs(&to.join("g"), false).unwrap(), [(b"user.walt".to_vec(), b"a\0b".to_vec())]);
        assert!(to.join("holes").metadata().unwrap().blocks() < 100);
        // Once more over itself: merged, and the same again.
        unpacked(&tar, room.path(), Some("to")).unwrap();
        unpacked(&tar, &to, None).unwrap();
        assert_eq!(std::fs::read(to.join("g")).unwrap(), b"content");
    }

    #[test]
    fn nothing_is_written_outside() {
        let room = tempfile::tempdir_in("/var/tmp").unwrap();
        let (inside, outside) = (room.path().join("inside"), room.path().join("outside"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "s").unwrap();
        let out = outside.display().to_string();
        let tar = |entries: &[Vec<u8>]| [entries.concat(), crate::END.to_vec()].concat();
        let dir = entry(Type::Dir, "top", "");
        for (entries, why) in [
            (
                vec![dir.clone(), entry(Type::Symlink, "top/l", &out), entry(Type::File, "top/l/x", "")],
                "open directory",
            ),
            (
                vec![dir.clone(), entry(Type::HardLink, "top/h", "outside/secret")],
                "outside of what is copied",
            ),
            (vec![dir.clone(), entry(Type::HardLink, "top/h", "top/../../outside/secret")], "'..'"),
            (vec![dir.clone(), entry(Type::File, "top/../x", "")], "'..'"),
            (vec![entry(Type::File, "other", "")], "outside of what is copied"),
            (
                vec![
                    dir.clone(),
                    entry(Type::Symlink, "top/l", &out),
                    entry(Type::HardLink, "top/h", "top/l/secret"),
                ],
                "open directory",
            ),
        ] {
            let error = unpacked(&tar(&entries), &inside, Some("t")).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        // A link that was there is replaced, not followed.
        symlink(outside.join("secret"), inside.join("f")).unwrap();
        unpacked(&tar(&[entry(Type::File, "top", "")]), &inside, Some("f")).unwrap();
        assert!(!inside.join("f").is_symlink());
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        // What breaks off leaves the old file, and nothing half.
        std::fs::write(inside.join("kept"), "old").unwrap();
        let mut long = packed(&inside.join("kept"));
        long.truncate(600);
        assert!(unpacked(&long[..514], &inside, Some("kept")).is_err());
        assert_eq!(std::fs::read(inside.join("kept")).unwrap(), b"old");
        let names = std::fs::read_dir(&inside).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|n| !n.as_bytes().starts_with(b".walt")));
    }
}
