//! A session's upper directory becomes a layer.
//!
//! First everything is scanned, then decisions are made, then the directory is changed, then one pass hashes it. The
//! upper directory can serve a resumed session at any time, since only entries that are not part of the change are
//! removed.

use crate::{
    cancel,
    error::{Context, Result},
    layer::{
        disk::{self, OPAQUE, Place, Root},
        holes,
        scan::{Attributes, Kind, Node, remove, scan},
        skeleton::LayerInfo,
        write::{check, write_layer},
    },
    save_rules::{EMPTIED, LOGIN_LOGS, SaveRules, When},
    store::Store,
    view::View,
};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, ftruncate, openat};
use std::{collections::HashMap, fs::File, path::Path};
use walt_tar::Time;
use walt_tar::paths::{as_path, split};

const UNCHANGED: &str = "as it was";
const SAME_AS_PLATFORM: &str = "the server adds this file itself";
const NOT_IN_IMAGE: &str = "removed, but it is not in the image: the server adds it itself";
const SOCKET: &str = "a socket is of use only while its program runs";
const ONLY_TIME: &str = "only the time of this directory changed";

/// Something that a save left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Path below the root.
    pub path: Vec<u8>,
    /// Why, for users.
    pub reason: &'static str,
}

/// Outcome of [`Store::prepare_commit`].
#[derive(Debug)]
pub enum Prepared {
    /// Nothing changed that a save keeps.
    Unchanged {
        /// What was left out.
        left_out: Vec<LeftOut>,
    },
    /// The layer directory is complete and durable: it is to be recorded, and then adopted.
    Layer {
        /// The new layer.
        info: LayerInfo,
        /// What was left out.
        left_out: Vec<LeftOut>,
    },
}

impl Store {
    /// Makes a layer of `layer_dir/fs`, the upper directory of an overlay over `lower` that is not mounted any more.
    /// The caller has proved that nobody writes to it (remount read-only, then unmount). Leaves out what `rules` say,
    /// strips overlayfs' marks, hashes, writes the skeleton, and makes everything durable.
    ///
    /// Fails, with the upper directory as it was, on names that an OCI layer cannot hold and on more than 1 TiB; on a
    /// full disk the session can still be resumed.
    pub fn prepare_commit(&self, layer_dir: &Path, lower: &View, rules: &SaveRules) -> Result<Prepared> {
        let fs_dir = layer_dir.join("fs");
        let root = Root::open(&fs_dir).on("open", &fs_dir)?;
        let image = self.view(lower.layers(), None)?;
        let mut emptied = empty_login_logs(&root)?;
        let mut nodes = scan(&root, Attributes::All)?;
        let mut decided =
            Decisions { root: &root, lower, image: &image, rules, reasons: vec![None; nodes.len()] };
        decided.all(&mut nodes)?;
        let reasons = decided.reasons;
        let kept: Vec<bool> = reasons.iter().map(Option::is_none).collect();
        check(&nodes.iter().zip(&kept).filter(|(_, k)| **k).map(|(n, _)| n.clone()).collect::<Vec<_>>())?;
        let with_root = kept[0];
        let mut left_out: Vec<LeftOut> = nodes
            .iter()
            .zip(&reasons)
            .filter_map(|(n, r)| {
                r.filter(|r| *r != UNCHANGED).map(|reason| LeftOut { path: n.path.clone(), reason })
            })
            .collect();
        emptied.retain(|log| left_out.iter().all(|other| other.path != log.path));
        left_out.append(&mut emptied);
        if kept.iter().all(|k| !k) {
            return Ok(Prepared::Unchanged { left_out });
        }
        // Write-back of the session's data begins now and goes on while we hash.
        let early = File::open(&fs_dir).on("open", &fs_dir)?;
        let write_back = std::thread::spawn(move || disk::sync_filesystem(&early));
        strip(&root, &nodes, &kept)?;
        let nodes = compact(nodes, &kept);
        let info = write_layer(layer_dir, &root, &nodes, with_root)?;
        // Its outcome does not matter: the call below covers the same data and reports.
        let _ = write_back.join();
        self.make_durable()?;
        Ok(Prepared::Layer { info, left_out })
    }
}

/// Empties login logs that are almost all holes, which are expensive to copy. Returns their paths.
fn empty_login_logs(root: &Root) -> Result<Vec<LeftOut>> {
    let mut emptied = Vec::new();
    for path in LOGIN_LOGS {
        let (dir, name) = split(path);
        let Ok(dir) = root.at_with(dir, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS) else {
            continue;
        };
        let place = Place { dir: &dir, name };
        let Ok(stat) = place.stat() else { continue };
        let (size, there) =
            (stat.st_size.cast_unsigned(), stat.st_blocks.cast_unsigned().saturating_mul(512));
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || size.saturating_sub(there) < holes::MIN_HOLES {
            continue;
        }
        let show = root.show(path);
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&dir, as_path(name), flags, Mode::empty()).on("open", &show)?;
        ftruncate(&file, 0).on("empty", &show)?;
        place
            .set_mtime(Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 })
            .on("set the time of", &show)?;
        emptied.push(LeftOut { path: path.to_vec(), reason: EMPTIED });
    }
    Ok(emptied)
}

/// Drops the nodes that are left out, except the root, which stays the top of the tree.
fn compact(nodes: Vec<Node>, kept: &[bool]) -> Vec<Node> {
    let mut places = vec![0; nodes.len()];
    let mut out: Vec<Node> = Vec::new();
    for (i, mut node) in nodes.into_iter().enumerate() {
        if i == 0 || kept[i] {
            node.parent = places[node.parent];
            places[i] = out.len();
            out.push(node);
        }
    }
    out
}

/// Applies the decisions to the directory: removes entries that are left out and overlayfs' marks, and restores the
/// times that this changes.
fn strip(root: &Root, nodes: &[Node], kept: &[bool]) -> Result<()> {
    let mut touched = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate().rev() {
        if i > 0 && !kept[i] {
            remove(root, node)?;
            touched[node.parent] = true;
        }
    }
    for (i, node) in nodes.iter().enumerate() {
        if i > 0 && !kept[i] {
            continue;
        }
        let stale = |name: &&Vec<u8>| !(node.opaque && name.as_slice() == OPAQUE.as_bytes());
        let mut marks = node.overlay_xattrs.iter().filter(stale).peekable();
        if marks.peek().is_none() && !touched[i] {
            continue;
        }
        let (dir, name) = split(&node.path);
        let show = root.show(&node.path);
        let fd = root.dir(dir).on("open directory", root.show(dir))?;
        let place = Place { dir: &fd, name };
        for mark in marks {
            place.remove_xattr(mark).on("remove an overlay attribute of", &show)?;
        }
        if touched[i] {
            place.set_mtime(node.mtime).on("set the time of", &show)?;
        }
    }
    Ok(())
}

struct Decisions<'a> {
    root: &'a Root,
    /// What the session saw below: image and platform layer.
    lower: &'a View,
    /// What the new layer will be put on.
    image: &'a View,
    rules: &'a SaveRules,
    /// Why a node is left out; `None` is kept.
    reasons: Vec<Option<&'static str>>,
}

impl Decisions<'_> {
    /// Decides about all nodes, children before their directories.
    fn all(&mut self, nodes: &mut [Node]) -> Result<()> {
        let mut kept_below = vec![false; nodes.len()];
        // An opaque directory hides everything below it: a file in it is new even if it equals a hidden one.
        let mut covered = vec![false; nodes.len()];
        for i in 1..nodes.len() {
            let parent = nodes[i].parent;
            covered[i] = covered[parent] || nodes[parent].opaque;
        }
        let same_links = self.links_unchanged(nodes, &covered);
        for i in (0..nodes.len()).rev() {
            cancel::check()?;
            let node = &mut nodes[i];
            if node.opaque
                && !self.image.find(&node.path).is_some_and(|n| kind(self.image, n) == Some(Kind::Dir))
            {
                // There is nothing to hide: the kernel marks new directories too, and the digest must not depend on
                // that.
                node.opaque = false;
            }
            let node = &nodes[i];
            let reason = match (i, kept_below[i]) {
                // The root's own metadata may be unchanged while something in it changed.
                (0, true) => self.same_dir(node, 0)?.then_some(UNCHANGED),
                (_, true) => None,
                (_, false) => self.reason_to_leave_out(node, covered[i], same_links[i])?,
            };
            self.reasons[i] = reason;
            if reason.is_none() && i > 0 {
                kept_below[node.parent] = true;
            }
        }
        Ok(())
    }

    /// For each node: whether its file has the same names as the file below. A hard link that is copied up leaves its
    /// group, and a new hard link joins one: both are changes.
    fn links_unchanged(&self, nodes: &[Node], covered: &[bool]) -> Vec<bool> {
        let mut groups: HashMap<u64, Vec<usize>> = HashMap::new();
        let linked = |node: &Node| node.nlink > 1 && !matches!(node.kind, Kind::Dir | Kind::Whiteout);
        for (i, node) in nodes.iter().enumerate().filter(|(_, n)| linked(n)) {
            groups.entry(node.ino).or_default().push(i);
        }
        let below = |i: usize| {
            let entry = self.lower.entry(self.lower.find(&nodes[i].path)?)?;
            (!covered[i]).then_some((entry.fileid, entry.nlink as usize))
        };
        let mut same: Vec<bool> =
            (0..nodes.len()).map(|i| below(i).is_some_and(|(_, names)| names == 1)).collect();
        for group in groups.values() {
            let first = below(group[0]);
            let equal = first.is_some_and(|(_, names)| names == group.len())
                && group.iter().all(|i| below(*i) == first && nodes[*i].nlink == group.len() as u64);
            group.iter().for_each(|i| same[*i] = equal);
        }
        same
    }

    /// Why a node without kept entries below it is left out; `None` if it is kept. `covered`: a directory above it is
    /// opaque. `same_links`: its file has the same names as below.
    fn reason_to_leave_out(
        &self,
        node: &Node,
        covered: bool,
        same_links: bool,
    ) -> Result<Option<&'static str>> {
        let path = node.path.as_slice();
        if node.kind == Kind::Socket {
            return Ok(Some(SOCKET));
        }
        let in_image = self.image.find(path).filter(|_| !covered);
        let in_lower = self.lower.find(path).filter(|_| !covered);
        for rule in self.rules.matching(path) {
            let applies = match rule.when {
                When::Always => true,
                When::NewAndEmpty => {
                    in_image.is_none() && matches!(node.kind, Kind::Dir | Kind::File) && node.size == 0
                }
                When::SameContent => match in_image {
                    Some(n) => self.same_file(node, self.image, n)?,
                    None => false,
                },
            };
            if applies {
                return Ok(Some(rule.reason));
            }
        }
        match (node.kind, in_lower) {
            (Kind::Whiteout, _) => Ok(in_image.is_none().then_some(NOT_IN_IMAGE)),
            (Kind::Dir, Some(n)) if !node.opaque && kind(self.lower, n) == Some(Kind::Dir) => {
                if !self.same_dir(node, n)? {
                    return Ok(None);
                }
                match self.lower.entry(n).is_some_and(|e| e.mtime == node.mtime) {
                    true => Ok(Some(UNCHANGED)),
                    false => Ok(self.rules.quiet.then_some(ONLY_TIME)),
                }
            }
            (Kind::Dir, _) => Ok(None),
            (_, Some(n)) => {
                let entry = self.lower.entry(n);
                let untouched = same_links && entry.is_some_and(|e| e.mtime == node.mtime);
                if untouched && self.same_file(node, self.lower, n)? {
                    return Ok(Some(UNCHANGED));
                }
                if self.rules.quiet && self.lower.from_platform(n) && self.same_file(node, self.lower, n)? {
                    return Ok(Some(SAME_AS_PLATFORM));
                }
                Ok(None)
            }
            (_, None) => Ok(None),
        }
    }

    /// Whether owner, mode and attributes equal those of directory `n` of the lower view. Times are left to the
    /// caller, except the root's time in an exact save.
    fn same_dir(&self, node: &Node, n: u32) -> Result<bool> {
        let Some(entry) = self.lower.entry(n) else { return Ok(false) };
        let time = !node.path.is_empty() || self.rules.quiet || entry.mtime == node.mtime;
        let plain = time && (node.mode, node.uid, node.gid) == (entry.mode, entry.uid, entry.gid);
        Ok(plain && node.xattrs == self.xattrs(self.lower, n)?)
    }

    fn xattrs(&self, view: &View, n: u32) -> Result<disk::Xattrs> {
        view.xattrs(n).on("read the extended attributes below", self.root.show(&view.path(n)))
    }

    /// Whether type, content, owner, mode and attributes are equal. Times are left to the caller.
    fn same_file(&self, node: &Node, view: &View, n: u32) -> Result<bool> {
        let Some(entry) = view.entry(n) else { return Ok(false) };
        let plain =
            (node.kind, node.mode, node.uid, node.gid) == (entry.kind, entry.mode, entry.uid, entry.gid);
        if !plain || node.target != entry.target {
            return Ok(false);
        }
        if matches!(node.kind, Kind::Char | Kind::Block) && node.rdev != entry.rdev {
            return Ok(false);
        }
        if node.kind == Kind::File {
            if node.size != entry.size {
                return Ok(false);
            }
            let show = self.root.show(&node.path);
            let ours = self.root.file(&node.path).on("open", &show)?;
            let theirs = view.open(n).on("open below", &show)?;
            if !holes::same(&ours, &theirs, node.size).on("compare", &show)? {
                return Ok(false);
            }
        }
        Ok(node.xattrs == self.xattrs(view, n)?)
    }
}

fn kind(view: &View, n: u32) -> Option<Kind> {
    view.entry(n).map(|e| e.kind)
}
