//! How two trees differ.

use crate::{
    cancel,
    layer::{holes, scan::Kind},
    view::{Entry, View},
};
use std::{cmp::Ordering, io};

/// How a path changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It exists in both, and these properties differ: `type`, `content`, `target`, `device`, `mode`, `owner`,
    /// `attributes`, `time`.
    Changed(Vec<&'static str>),
    /// It is gone.
    Deleted,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Below the root, without leading slash.
    pub path: Vec<u8>,
    /// Type, in the newer tree if it is there.
    pub kind: Kind,
    /// Bytes of a file or a link's target, in the newer tree if it is there; 0 for the rest.
    pub size: u64,
    /// What became of it.
    pub change: Change,
}

/// Calls `sink` with each difference between `old` and `new`, in the order of paths, until it returns false. A
/// directory of which only the time changed does not count: it means that something in it changed. A tree that is new
/// or deleted is reported with its contents.
///
/// # Errors
/// A file or its attributes cannot be read.
pub fn diff(old: &View, new: &View, sink: &mut dyn FnMut(Difference) -> bool) -> io::Result<()> {
    let mut pending = vec![(Some(old.root()), Some(new.root()))];
    while let Some((before, after)) = pending.pop() {
        cancel::check_io()?;
        let known = (
            before.and_then(|n| old.entry(n).map(|e| (n, e))),
            after.and_then(|n| new.entry(n).map(|e| (n, e))),
        );
        let found = match known {
            (None, None) => None,
            (Some((n, e)), None) => Some((old.path(n), e, Change::Deleted)),
            (None, Some((n, e))) => Some((new.path(n), e, Change::Added)),
            (Some((a, x)), Some((b, y))) => {
                let what = compare(old, (a, x), new, (b, y))?;
                (!what.is_empty()).then(|| (new.path(b), y, Change::Changed(what)))
            }
        };
        if let Some((path, entry, change)) = found {
            let size = if matches!(entry.kind, Kind::File | Kind::Symlink) { entry.size } else { 0 };
            if !sink(Difference { path, kind: entry.kind, size, change }) {
                return Ok(());
            }
        }
        let below = |view: &View, number: Option<u32>| {
            let list = number.map_or(&[][..], |n| view.children(n));
            list.iter().map(|n| (view.name(*n).to_vec(), *n)).collect::<Vec<_>>()
        };
        let start = pending.len();
        merge(&below(old, before), &below(new, after), &mut pending);
        pending[start..].reverse();
    }
    Ok(())
}

/// Pairs two sorted lists by name.
fn merge(old: &[(Vec<u8>, u32)], new: &[(Vec<u8>, u32)], out: &mut Vec<(Option<u32>, Option<u32>)>) {
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) => a.0.cmp(&b.0),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        out.push((
            (order != Ordering::Greater).then(|| old[i].1),
            (order != Ordering::Less).then(|| new[j].1),
        ));
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
}

fn compare(
    old: &View,
    (a, x): (u32, Entry<'_>),
    new: &View,
    (b, y): (u32, Entry<'_>),
) -> io::Result<Vec<&'static str>> {
    let mut what = Vec::new();
    if x.kind != y.kind {
        what.push("type");
    } else if old.same_object(a, new, b) {
        return Ok(what);
    } else if x.kind == Kind::File
        && (x.size != y.size || !holes::same(&old.open(a)?, &new.open(b)?, x.size)?)
    {
        what.push("content");
    } else if x.target != y.target {
        what.push("target");
    } else if x.rdev != y.rdev {
        what.push("device");
    }
    if x.mode != y.mode && y.kind != Kind::Symlink {
        what.push("mode");
    }
    if (x.uid, x.gid) != (y.uid, y.gid) {
        what.push("owner");
    }
    if old.xattrs(a)? != new.xattrs(b)? {
        what.push("attributes");
    }
    if what.is_empty() && x.mtime != y.mtime && y.kind != Kind::Dir {
        what.push("time");
    }
    Ok(what)
}
