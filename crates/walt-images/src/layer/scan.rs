//! Reading a layer directory: every entry, parents first, names of a directory sorted byte-wise.

use super::disk::{self, OPAQUE, Place, Root, Xattrs};
use crate::{
    cancel,
    error::{Context, Error, Result},
};
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, OFlags},
};
use walt_tar::local::is_overlay_xattr;
use walt_tar::paths::{as_path, split};
use walt_tar::{MAX_PATH, Time};

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
    /// Unix socket: exists in a session's upper directory only, never in a layer.
    Socket,
    /// Hides what is below: only in a layer directory, never in a view.
    Whiteout,
}

/// One entry of a layer directory.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Path below the root; empty for the root itself.
    pub path: Vec<u8>,
    /// Position of the parent in the list; the root's is itself.
    pub parent: usize,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Time,
    pub rdev: (u32, u32),
    pub ino: u64,
    pub nlink: u64,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Directories: hides the directory below.
    pub opaque: bool,
    /// Extended attributes without overlayfs' own; empty unless requested.
    pub xattrs: Xattrs,
    /// Extended attributes of overlayfs; empty unless requested.
    pub overlay_xattrs: Vec<Vec<u8>>,
}

impl Node {
    pub fn name(&self) -> &[u8] {
        split(&self.path).1
    }
}

/// What [`scan`] reads of extended attributes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Attributes {
    /// Only whether directories are opaque.
    Opaque,
    /// All.
    All,
}

fn kind(stat: &fs::Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice if disk::is_whiteout(stat) => Kind::Whiteout,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    }
}

fn node(root: &Root, dir: &OwnedFd, path: Vec<u8>, parent: usize, attributes: Attributes) -> Result<Node> {
    let place = Place { dir, name: split(&path).1 };
    let stat = place.stat().on("read the metadata of", root.show(&path))?;
    let kind = kind(&stat);
    let (mut xattrs, mut overlay_xattrs, mut opaque) = (Vec::new(), Vec::new(), false);
    let what = "read the extended attributes of";
    if attributes == Attributes::All && kind != Kind::Whiteout {
        for (name, value) in place.xattrs().on(what, root.show(&path))? {
            if name == OPAQUE.as_bytes() {
                opaque = value == b"y";
            }
            if is_overlay_xattr(&name) {
                overlay_xattrs.push(name);
            } else {
                xattrs.push((name, value));
            }
        }
    } else if kind == Kind::Dir {
        opaque = place.xattr(OPAQUE.as_bytes()).on(what, root.show(&path))?.as_deref() == Some(b"y");
    }
    let target = if kind == Kind::Symlink {
        let target = fs::readlinkat(dir, as_path(place.name), Vec::new());
        target.on("read the link", root.show(&path))?.into_bytes()
    } else {
        Vec::new()
    };
    Ok(Node {
        parent,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == Kind::File { stat.st_size.cast_unsigned() } else { 0 },
        mtime: Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 },
        rdev: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        ino: stat.st_ino,
        nlink: stat.st_nlink,
        target,
        opaque,
        xattrs,
        overlay_xattrs,
        path,
    })
}

/// Lists the names of a directory, sorted. Whiteouts are sorted among the others.
fn names(root: &Root, path: &[u8], dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let what = "list the directory";
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir).on(what, root.show(path))? {
        let entry = entry.on(what, root.show(path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads the whole tree below `root`. The first entry is the root.
///
/// Fails on paths of 4096 bytes or more, which neither tar programs nor system calls accept.
pub(crate) fn scan(root: &Root, attributes: Attributes) -> Result<Vec<Node>> {
    let mut nodes = vec![node(root, &root.fd, Vec::new(), 0, attributes)?];
    // Directories being listed, the current one last. Only that one is open, so depth does not cost descriptors.
    let mut pending: Vec<(usize, std::vec::IntoIter<Vec<u8>>, Option<OwnedFd>)> = Vec::new();
    let open = |path: &[u8]| {
        root.at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            .on("open directory", root.show(path))
    };
    let fd = open(b"")?;
    pending.push((0, names(root, b"", &fd)?.into_iter(), Some(fd)));
    while let Some((parent, list, dir)) = pending.last_mut() {
        cancel::check()?;
        let Some(name) = list.next() else {
            pending.pop();
            continue;
        };
        let mut path = nodes[*parent].path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        if path.len() >= MAX_PATH - ".wh.".len() {
            let start = String::from_utf8_lossy(&path[..100]).into_owned();
            return Err(Error::Commit(format!("the path '{start}…' is longer than 4091 bytes")));
        }
        let open_dir = match dir {
            Some(fd) => fd,
            None => dir.insert(open(&nodes[*parent].path)?),
        };
        let entry = node(root, open_dir, path, *parent, attributes)?;
        let position = nodes.len();
        let is_dir = entry.kind == Kind::Dir;
        nodes.push(entry);
        if is_dir {
            *dir = None;
            let path = &nodes[position].path;
            let fd = open(path)?;
            let list = names(root, path, &fd)?;
            pending.push((position, list.into_iter(), Some(fd)));
        }
    }
    Ok(nodes)
}

/// Removes one entry; a directory must be empty.
pub(crate) fn remove(root: &Root, node: &Node) -> Result<()> {
    let (dir, name) = split(&node.path);
    let flags = if node.kind == Kind::Dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let fd = root.dir(dir).on("open directory", root.show(dir))?;
    Place { dir: &fd, name }.unlink(flags).on("remove", root.show(&node.path))
}
