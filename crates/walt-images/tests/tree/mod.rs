//! Trees, of a directory and of a view, as they are compared.

// Tests fail by panicking: unwrap is their assertion, in helper functions too.
#![allow(clippy::unwrap_used, missing_docs)]

use rustix::fs::FileType;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};
use walt_images::{Kind, View};

pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What is compared of one path.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub size: u64,
    pub content: Vec<u8>,
    pub mtime: (i64, u32),
    pub rdev: (u32, u32),
    pub xattrs: Xattrs,
}

#[derive(Debug, PartialEq)]
pub struct Tree {
    pub paths: BTreeMap<Vec<u8>, Seen>,
    /// Sets of names that share an inode.
    pub links: BTreeSet<BTreeSet<Vec<u8>>>,
}

fn digest(mut file: fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Sha256::digest(&bytes).to_vec()
}

pub fn xattrs(path: &Path) -> Xattrs {
    let mut list = vec![0; 65536];
    let n = rustix::fs::llistxattr(path, &mut list).unwrap();
    let names = list[..n].split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(b"trusted.overlay."));
    let mut all: Xattrs = names
        .map(|name| {
            let mut value = vec![0; 65536];
            let n = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            (name.to_vec(), value[..n].to_vec())
        })
        .collect();
    all.sort();
    all
}

fn groups(names: Vec<(u64, Vec<u8>)>) -> BTreeSet<BTreeSet<Vec<u8>>> {
    let mut groups: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (object, name) in names {
        groups.entry(object).or_default().insert(name);
    }
    groups.into_values().filter(|g| g.len() > 1).collect()
}

pub fn tree_of_dir(root: &Path) -> Tree {
    let (mut paths, mut names) = (BTreeMap::new(), Vec::new());
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(OsStr::from_bytes(&path));
        let full = if path.is_empty() { root.to_owned() } else { full };
        let meta = full.symlink_metadata().unwrap();
        let (mut size, mut content, mut rdev) = (meta.len(), Vec::new(), (0, 0));
        let kind = match FileType::from_raw_mode(meta.mode()) {
            FileType::Directory => {
                size = 0;
                for entry in fs::read_dir(&full).unwrap() {
                    let name = entry.unwrap().file_name();
                    let parent = path.split(|b| *b == b'/').filter(|p| !p.is_empty());
                    pending.push(parent.chain([name.as_bytes()]).collect::<Vec<_>>().join(&b'/'));
                }
                Kind::Dir
            }
            FileType::RegularFile => {
                content = digest(fs::File::open(&full).unwrap());
                Kind::File
            }
            FileType::Symlink => {
                content = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
                Kind::Symlink
            }
            FileType::CharacterDevice => {
                rdev = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
                Kind::Char
            }
            FileType::Fifo => Kind::Fifo,
            other => panic!("{other:?} at {full:?}"),
        };
        if kind != Kind::Dir {
            names.push((meta.ino(), path.clone()));
        }
        let mtime = (meta.mtime(), meta.mtime_nsec() as u32);
        let (mode, owner) = (meta.mode() & 0o7777, (meta.uid(), meta.gid()));
        paths.insert(path, Seen { kind, mode, owner, size, content, mtime, rdev, xattrs: xattrs(&full) });
    }
    Tree { paths, links: groups(names) }
}

pub fn tree_of_view(view: &View) -> Tree {
    let (mut paths, mut names) = (BTreeMap::new(), Vec::new());
    let mut pending = vec![view.root()];
    while let Some(number) = pending.pop() {
        let entry = view.entry(number).unwrap();
        for child in view.children(number) {
            assert_eq!(view.parent(*child), number);
            assert_eq!(view.lookup(number, view.name(*child)), Some(*child));
            pending.push(*child);
        }
        let path = view.path(number);
        assert_eq!(view.find(&path), Some(number));
        if entry.kind != Kind::Dir {
            names.push((u64::from(entry.fileid), path.clone()));
        }
        let content = match entry.kind {
            Kind::File => digest(view.open(number).unwrap()),
            _ => entry.target.to_vec(),
        };
        let seen = Seen {
            kind: entry.kind,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            size: if entry.kind == Kind::Dir { 0 } else { entry.size },
            content,
            mtime: (entry.mtime.sec, entry.mtime.nsec),
            rdev: entry.rdev,
            xattrs: view.xattrs(number).unwrap(),
        };
        paths.insert(path, seen);
    }
    Tree { paths, links: groups(names) }
}

pub fn differences(a: &Tree, b: &Tree) -> String {
    let mut out = String::new();
    for path in a.paths.keys().chain(b.paths.keys()).collect::<BTreeSet<_>>() {
        let (a, b) = (a.paths.get(path), b.paths.get(path));
        if a != b {
            out += &format!("{:?}:\n  {a:?}\n  {b:?}\n", String::from_utf8_lossy(path));
        }
    }
    format!("{out}links {:?}\n      {:?}", a.links, b.links)
}
