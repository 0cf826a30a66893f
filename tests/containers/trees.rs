//! Trees of files as builds make them: ours, read from the store, and buildah's, mounted; how they differ.

use std::collections::hash_map::DefaultHasher;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::Hasher,
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};
use walt_images::{Kind, View};

/// Mount points that buildah leaves in an image whose commands ran.
const LEFT_BY_BUILDAH: [&str; 9] = [
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/run/.containerenv",
    "/run/secrets",
    "/sys",
    "/run",
];

/// One object of a tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    /// Type, mode, owner, content or target, device, attributes.
    pub facts: String,
    pub mtime: (i64, i64),
    /// Equal for names of one file.
    same: Option<u64>,
}

/// Names with bytes that are not UTF-8 stay different ones.
fn name(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02x}")));
    }
    text
}

pub(super) type Tree = BTreeMap<String, Object>;

pub(super) fn digest(mut input: impl Read) -> String {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).unwrap();
    let mut hash = DefaultHasher::new();
    hash.write(&bytes);
    format!("{} bytes {:x}", bytes.len(), hash.finish())
}

fn attributes(all: &[(Vec<u8>, Vec<u8>)]) -> String {
    let shown = all.iter().filter(|(n, _)| !n.starts_with(b"trusted.overlay."));
    shown.map(|(n, v)| format!(" {}={v:?}", String::from_utf8_lossy(n))).collect()
}

/// A tree of ours.
pub(super) fn ours(view: &View) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![view.root()];
    while let Some(number) = pending.pop() {
        let entry = view.entry(number).unwrap();
        let what = match entry.kind {
            Kind::File => format!("file {}", digest(view.open(number).unwrap())),
            Kind::Symlink => format!("link {}", name(entry.target)),
            Kind::Char | Kind::Block => format!("{:?} {:?}", entry.kind, entry.rdev).to_lowercase(),
            other => format!("{other:?}").to_lowercase(),
        };
        let mode = if entry.kind == Kind::Symlink { 0o777 } else { entry.mode };
        let xattrs = attributes(&view.xattrs(number).unwrap());
        let facts = format!("{mode:o} {}:{} {what}{xattrs}", entry.uid, entry.gid);
        let same = (entry.nlink > 1 && entry.kind != Kind::Dir).then_some(u64::from(entry.fileid));
        let mtime = (entry.mtime.sec, i64::from(entry.mtime.nsec));
        tree.insert(format!("/{}", name(&view.path(number))), Object { facts, mtime, same });
        pending.extend_from_slice(view.children(number));
    }
    tree
}

/// A tree that is mounted.
pub(super) fn mounted(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            "dir".into()
        } else if kind.is_symlink() {
            format!("link {}", name(fs::read_link(&path).unwrap().as_os_str().as_bytes()))
        } else if kind.is_file() {
            format!("file {}", digest(fs::File::open(&path).unwrap()))
        } else {
            let rdev = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            match (kind.is_char_device(), kind.is_block_device()) {
                (true, _) => format!("char {rdev:?}"),
                (_, true) => format!("block {rdev:?}"),
                _ => "fifo".into(),
            }
        };
        let xattrs = attributes(&xattrs(&path));
        let facts = format!("{:o} {}:{} {what}{xattrs}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        let same = (meta.nlink() > 1 && !kind.is_dir()).then_some(meta.ino());
        let path = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let path = format!("/{}", name(path));
        tree.insert(path, Object { facts, mtime: (meta.mtime(), meta.mtime_nsec()), same });
    }
    tree
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut all = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 65_536];
        let n = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value).unwrap_or(0);
        value.truncate(n);
        all.push((name.to_vec(), value));
    }
    all.sort();
    all
}

/// Sets of names that are one file; names that buildah's storage shares with nothing that is seen are no set.
fn sets(tree: &Tree) -> BTreeSet<Vec<&str>> {
    let mut by_file: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (name, object) in tree {
        if let Some(same) = object.same {
            by_file.entry(same).or_default().push(name);
        }
    }
    by_file.into_values().filter(|names| names.len() > 1).collect()
}

/// How two trees differ. Times of what the builds made (after `start`) are times of the builds.
pub(super) fn differences(ours: &Tree, theirs: &Tree, start: i64) -> Vec<String> {
    let mut found = Vec::new();
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        match (ours.get(name), theirs.get(name)) {
            (Some(a), Some(b)) => {
                // The top of buildah's storage has a mode of its own.
                if a.facts != b.facts && name != "/" {
                    found.push(format!("{name}: {} / buildah: {}", a.facts, b.facts));
                }
                let by_build = |o: &Object| o.mtime.0 >= start;
                // buildah rounds to seconds where it copies from an image.
                let rounded = a.mtime.0 + i64::from(a.mtime.1 >= 500_000_000);
                let same =
                    a.mtime == b.mtime || (b.mtime.1 == 0 && [a.mtime.0, rounded].contains(&b.mtime.0));
                if !(same || by_build(a) && by_build(b) || made_for_mounts(name)) {
                    found.push(format!("{name}: time {:?} / buildah: {:?}", a.mtime, b.mtime));
                }
            }
            (Some(a), None) => found.push(format!("{name}: {} / buildah: nothing", a.facts)),
            (None, Some(_)) if LEFT_BY_BUILDAH.contains(&name.as_str()) => {}
            (None, Some(b)) => found.push(format!("{name}: nothing / buildah: {}", b.facts)),
            (None, None) => {}
        }
    }
    if sets(ours) != sets(theirs) {
        found.push(format!("hard links: {:?} / buildah: {:?}", sets(ours), sets(theirs)));
    }
    found
}

/// Directories in which buildah makes and removes files of its own while a command runs.
fn made_for_mounts(name: &str) -> bool {
    LEFT_BY_BUILDAH.contains(&name) || matches!(name, "/" | "/etc" | "/run" | "/mnt")
}
