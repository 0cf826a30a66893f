//! Files of an image with extended attributes that NFS does not transport: file capabilities, access lists, user
//! attributes.
//!
//! Nodes read their image by NFSv3, which has none of them. So the platform layer contains a small ext4 file system
//! with complete copies of these files in their directories, and a node stacks it between the image and its layer in
//! RAM:
//! ```text
//! view ──Attributed::of──▶ which files, which are omitted ──NewKind::Attributed──▶ a file of the platform layer
//! node: overlay of  RAM  over  that file system (loop, read-only)  over  the image (NFS)
//! ```
//! Nothing is copied into the node's RAM, and no program of the image is needed. Files are complete rather than
//! metadata only (`metacopy` of overlayfs): with that option, changes made by a node would be metadata without
//! content too, and `walt node save` reads them.

mod ext4;

use crate::{
    error::{Context, Result},
    layer::{disk::Xattrs, scan::Kind},
    store::{NewEntry, NewKind},
    view::View,
};
use ext4::{Content, Object};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    sync::Arc,
};
use walt_tar::paths::as_path;

/// Most bytes of all these files of an image; the server's disk stores them twice.
const MAX_TOTAL: u64 = 512 << 20;
/// Most bytes of files with user attributes only: tools of other systems set those on every file they touch.
const MAX_USER: u64 = 64 << 20;
/// Most files and directories.
const MAX_COUNT: usize = 1 << 16;
/// User attributes in which container tools keep notes about each file they unpack.
const CONTAINER_TOOLS: [&[u8]; 3] = [b"user.containers.", b"user.fuseoverlayfs.", b"user.rootlesscontainers"];

/// What a node would miss without an attribute. If a file has several, the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Capability,
    AccessList,
    User,
}

fn class(name: &[u8]) -> Option<Class> {
    match name {
        b"security.capability" => Some(Class::Capability),
        b"system.posix_acl_access" | b"system.posix_acl_default" => Some(Class::AccessList),
        _ if CONTAINER_TOOLS.iter().any(|note| name.starts_with(note)) => None,
        _ => name.starts_with(b"user.").then_some(Class::User),
    }
}

/// Why nodes get a file without its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Omission {
    /// The file, or all such files together, are too large.
    Size,
    /// Its attributes are too large, or not in the form that Linux writes.
    Attributes,
}

impl Omission {
    /// The reason, as the end of a sentence that starts with "without their attributes: ".
    pub fn why(self) -> String {
        match self {
            Self::Size => format!(
                "an image can have {} MiB and {MAX_COUNT} of such files, and {} MiB of those with user attributes only",
                MAX_TOTAL >> 20,
                MAX_USER >> 20
            ),
            Self::Attributes => "the attributes are too large or damaged".into(),
        }
    }
}

/// The files of an image whose attributes reach its nodes.
#[derive(Debug)]
pub struct Attributed {
    view: Arc<View>,
    /// Their numbers in the view and their attributes, including the directories above them. Sorted: a directory
    /// comes before its entries.
    chosen: BTreeMap<u32, Xattrs>,
    /// Metadata of directories which the platform layer changes: mode, user, group.
    changed: HashMap<u32, (u32, u32, u32)>,
    omitted: Vec<(Omission, Vec<u8>)>,
}

impl Attributed {
    /// Finds these files in the view of an image. `platform` has the entries that will be put on top of it, by path:
    /// files that they replace are skipped.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn of(view: &Arc<View>, platform: &BTreeMap<Vec<u8>, NewEntry>) -> Result<Self> {
        let mut found = find(view).on("read the attributes of", as_path(b"the image"))?;
        found.retain(|(_, number, _)| {
            let path = view.path(*number);
            let is_dir = view.entry(*number).is_some_and(|e| e.kind == Kind::Dir);
            !replaced(platform, &path, is_dir)
        });
        // Most important first, then smallest first, so that a large file does not take the space of many small ones.
        let size = |number: u32| view.entry(number).filter(|e| e.kind == Kind::File).map_or(0, |e| e.size);
        found.sort_by_key(|(class, number, _)| (*class, size(*number), *number));
        let mut this = Self {
            view: view.clone(),
            chosen: BTreeMap::new(),
            changed: HashMap::new(),
            omitted: Vec::new(),
        };
        let mut names: HashMap<u32, Vec<u32>> = HashMap::new();
        for (_, number, _) in &found {
            let Some(entry) = view.entry(*number) else { continue };
            if entry.kind != Kind::Dir && entry.nlink > 1 {
                names.entry(entry.fileid).or_default().push(*number);
            }
        }
        let (mut total, mut user) = (0, 0);
        for (class, number, xattrs) in found {
            let more = size(number) + ext4::BLOCK;
            let no_room = total + more > MAX_TOTAL
                || (class == Class::User && user + more > MAX_USER)
                || size(number) > ext4::MAX_FILE
                || this.chosen.len() >= MAX_COUNT;
            let why = if no_room { Some(Omission::Size) } else { None };
            if let Some(why) = why.or_else(|| (!ext4::fits(&xattrs)).then_some(Omission::Attributes)) {
                this.omitted.push((why, view.path(number)));
                continue;
            }
            this.choose(number, xattrs);
            total += more;
            user += if class == Class::User { more } else { 0 };
        }
        this.keep_names_together(&names);
        for number in this.chosen.keys() {
            if let Some(entry) = platform.get(&view.path(*number)) {
                this.changed.insert(*number, (entry.mode, entry.uid, entry.gid));
            }
        }
        this.omitted.sort();
        Ok(this)
    }

    /// Whether the image has no such file.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Whether there are user attributes among their attributes.
    pub fn of_users(&self) -> bool {
        self.chosen.values().flatten().any(|(name, _)| class(name) == Some(Class::User))
    }

    /// Files that nodes get without their attributes: the reason, and the path below the root.
    pub fn omitted(&self) -> &[(Omission, Vec<u8>)] {
        &self.omitted
    }

    /// Chooses an object and the directories above it.
    fn choose(&mut self, number: u32, xattrs: Xattrs) {
        self.chosen.insert(number, xattrs);
        let mut at = number;
        while at != self.view.root() {
            at = self.view.parent(at);
            self.chosen.entry(at).or_default();
        }
    }

    /// Keeps either all names of a hard-linked file or none: one file must not become two.
    fn keep_names_together(&mut self, names: &HashMap<u32, Vec<u32>>) {
        for all in names.values() {
            let here = all.iter().filter(|n| self.chosen.contains_key(n)).count();
            let nlink = self.view.entry(all[0]).map_or(0, |e| e.nlink as usize);
            if here > 0 && here == nlink {
                continue;
            }
            for number in all {
                if self.chosen.remove(number).is_some() {
                    self.omitted.push((Omission::Size, self.view.path(*number)));
                }
            }
        }
    }

    /// Writes the file system into an empty file.
    ///
    /// # Errors
    /// A file of the image cannot be read, or the disk is full.
    pub fn write(&self, out: &File) -> io::Result<()> {
        let view = &self.view;
        let (mut objects, mut numbers): (Vec<Object>, Vec<u32>) = (Vec::new(), Vec::new());
        let (mut of_number, mut of_inode) = (HashMap::new(), HashMap::new());
        for (number, xattrs) in &self.chosen {
            let Some(entry) = view.entry(*number) else { continue };
            let parent = of_number.get(&view.parent(*number)).copied().unwrap_or_default();
            let own = *of_inode.entry(entry.fileid).or_insert(objects.len());
            of_number.insert(*number, own);
            if own == objects.len() {
                let (mode, uid, gid) =
                    self.changed.get(number).copied().unwrap_or((entry.mode, entry.uid, entry.gid));
                let content = match entry.kind {
                    Kind::Dir => Content::Dir(Vec::new(), parent),
                    Kind::Char => Content::Char(entry.rdev.0, entry.rdev.1),
                    Kind::Block => Content::Block(entry.rdev.0, entry.rdev.1),
                    Kind::Fifo => Content::Fifo,
                    _ => Content::File(entry.size),
                };
                // A directory has its own entry "."
                let links = if entry.kind == Kind::Dir { 1 } else { 0 };
                let (mtime, xattrs) = (entry.mtime, xattrs.clone());
                objects.push(Object { mode, uid, gid, mtime, links, content, xattrs });
                numbers.push(*number);
            }
            objects[own].links += 1;
            if *number != view.root() {
                if entry.kind == Kind::Dir {
                    objects[parent].links += 1;
                }
                if let Content::Dir(names, _) = &mut objects[parent].content {
                    names.push((view.name(*number).to_vec(), own));
                }
            }
        }
        ext4::write(&objects, &mut |object| view.open(numbers[object]), out)
    }
}

/// Is a path of the image something else under these entries?
fn replaced(platform: &BTreeMap<Vec<u8>, NewEntry>, path: &[u8], is_dir: bool) -> bool {
    let hides = |path: &[u8]| platform.get(path).is_some_and(|e| !matches!(e.kind, NewKind::Dir));
    let above = path.iter().enumerate().filter(|(_, b)| **b == b'/').any(|(at, _)| hides(&path[..at]));
    above || hides(path) || (!is_dir && platform.contains_key(path))
}

/// All objects with such attributes, and these.
fn find(view: &View) -> io::Result<Vec<(Class, u32, Xattrs)>> {
    let mut found = Vec::new();
    for dir in 0..view.len() {
        if view.entry(dir).is_some_and(|e| e.kind == Kind::Dir) {
            view.attribute_names(dir, &mut |number, names| {
                if names.iter().any(|name| class(name).is_some()) {
                    found.push(number);
                }
            })?;
        }
    }
    found.push(view.root());
    let mut all = Vec::new();
    for number in found {
        let mut xattrs = view.xattrs(number)?;
        xattrs.retain(|(name, _)| class(name).is_some());
        // Neither NFS nor anybody else gives a symbolic link an attribute of these kinds.
        let is_link = view.entry(number).is_some_and(|e| e.kind == Kind::Symlink);
        if let Some(class) = xattrs.iter().filter_map(|(name, _)| class(name)).min()
            && !is_link
        {
            all.push((class, number, xattrs));
        }
    }
    Ok(all)
}
