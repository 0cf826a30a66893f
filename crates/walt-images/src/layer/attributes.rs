//! Which extended attributes of a tar are set on the disk: one table, a reason per line.
//!
//! A layer's skeleton keeps the tar's bytes, so that a layer with attributes that are not set here is still given back as
//! it was. What mounts and nodes see is what the disk has.

use super::disk::{Place, has_room};
use rustix::io::Errno;
use std::{collections::BTreeSet, io};
use walt_tar::Time;

/// Names of attributes that a note tells; the others are counted.
const MAX_SHOWN: usize = 4;
/// Longest name that a note tells, in characters.
const MAX_NAME: usize = 60;

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Left out without a word: it is ours to set.
    Drop,
    /// Set, or the entry is refused.
    Must,
    /// Set if the disk takes it, else skipped and counted.
    Try,
    /// Skipped and counted.
    Skip,
}

/// The table: the first line counts whose prefix a name has. Names without such a prefix are of no Linux name space and
/// are skipped: they are marks of other systems (`com.apple.provenance`), and records by which other tar programs keep
/// what this system has no place for.
const TREATMENTS: [(&[u8], Treatment, &str); 10] = [
    (b"trusted.overlay.", Treatment::Drop, "overlayfs would take it for a mark of its own"),
    (b"user.overlay.", Treatment::Drop, "overlayfs would take it for a mark of its own"),
    (
        b"security.capability",
        Treatment::Must,
        "the rights of a program: without them it fails where nobody looks",
    ),
    (
        b"system.posix_acl_",
        Treatment::Must,
        "who may read: without it, more may (the group's bits are its mask)",
    ),
    (b"security.evm", Treatment::Skip, "signed for another file system's inode: a wrong one locks the file"),
    (b"security.ima", Treatment::Try, "a signature, which kernels without the key do not look at"),
    (b"security.", Treatment::Try, "a label, which means something under the same policy only"),
    (b"trusted.", Treatment::Try, "a mark of a file system of many machines (gluster, lustre)"),
    (b"user.", Treatment::Try, "an application's; disks have room for 4 KiB, and on links none"),
    (b"system.", Treatment::Skip, "made by the file system that it came from (nfs4_acl, cifs_acl, ntfs)"),
];

/// What new entries of a directory get as their list of who may access them. A directory gets it when it has all its
/// entries, which have lists of their own or none.
pub(crate) const INHERITED: &[u8] = b"system.posix_acl_default";

/// What becomes of the attribute of this name.
pub(crate) fn treatment(name: &[u8]) -> Treatment {
    TREATMENTS
        .iter()
        .find(|(prefix, ..)| name.starts_with(prefix))
        .map_or(Treatment::Skip, |(_, treatment, _)| *treatment)
}

/// Attributes that were not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    count: u64,
    names: BTreeSet<Vec<u8>>,
}

impl Skipped {
    fn add(&mut self, name: &[u8]) {
        self.count += 1;
        if self.names.len() <= MAX_SHOWN {
            self.names.insert(name.to_vec());
        }
    }

    /// Adds those of another place.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for name in other.names.iter().take(MAX_SHOWN + 1 - self.names.len().min(MAX_SHOWN + 1)) {
            self.names.insert(name.clone());
        }
    }

    /// What the user should know of it, a sentence; none if nothing was skipped.
    pub fn note(&self) -> Option<String> {
        let shown = |name: &Vec<u8>| {
            String::from_utf8_lossy(name)
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_NAME)
                .collect::<String>()
        };
        let names: Vec<String> = self.names.iter().take(MAX_SHOWN).map(shown).collect();
        let more = if self.names.len() > MAX_SHOWN { ", …" } else { "" };
        let (what, are) = if self.count == 1 { ("attribute", "means") } else { ("attributes", "mean") };
        (self.count > 0).then(|| {
            format!(
                "{} {what} of files ({}{more}) {are} nothing here: left out.",
                self.count,
                names.join(", ")
            )
        })
    }
}

/// Does this answer of the kernel say that the place cannot have the attribute?
fn is_no_place(e: &io::Error) -> bool {
    let odd =
        [Errno::NOTSUP, Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::TOOBIG, Errno::RANGE, Errno::NOSPC];
    Errno::from_io_error(e).is_some_and(|e| odd.contains(&e))
}

/// Metadata of a new entry of a layer.
pub(crate) struct Metadata<'a> {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits; `None` for a symbolic link, which has none.
    pub mode: Option<u32>,
    pub mtime: Time,
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Metadata<'_> {
    /// Sets the owner, then attributes (chown clears capabilities), then the mode (chown clears set-user-id), then the
    /// time.
    pub fn apply(&self, place: &Place, skipped: &mut Skipped) -> io::Result<()> {
        place.chown(self.uid, self.gid)?;
        set(self.xattrs, skipped, place.dir, |name, value| place.set_xattr(name, value))?;
        if let Some(mode) = self.mode {
            place.chmod(mode)?;
        }
        place.set_mtime(self.mtime)
    }
}

/// Has `set` set the attributes that the table says.
///
/// # Errors
/// One that must be set was not; or the disk is full.
pub(crate) fn set(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    skipped: &mut Skipped,
    dir: impl rustix::fd::AsFd,
    set: impl Fn(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    for (name, value) in xattrs {
        match treatment(name) {
            Treatment::Drop => {}
            Treatment::Skip => skipped.add(name),
            Treatment::Must => set(name, value).map_err(|e| {
                let name = String::from_utf8_lossy(name);
                io::Error::new(e.kind(), format!("its attribute '{name}' cannot be set, and has to be: {e}"))
            })?,
            Treatment::Try => match set(name, value) {
                Ok(()) => {}
                // "No space" is the answer of a full disk, too.
                Err(e) if e.kind() == io::ErrorKind::StorageFull && !has_room(&dir) => return Err(e),
                Err(e) if is_no_place(&e) => skipped.add(name),
                Err(e) => return Err(e),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_counted_and_what_must_be_set_is_not() {
        let all =
            |names: &[&str]| names.iter().map(|n| (n.as_bytes().to_vec(), b"v".to_vec())).collect::<Vec<_>>();
        let dir = std::fs::File::open(".").unwrap();
        let no = |errno: Errno| move |_: &[u8], _: &[u8]| Err(errno.into());
        let mut skipped = Skipped::default();
        let foreign = all(&[
            "com.apple.provenance",
            "system.nfs4_acl",
            "SCHILY.fflags",
            "security.evm",
            "btrfs.compression",
        ]);
        set(&foreign, &mut skipped, &dir, |_, _| panic!("nothing is set")).unwrap();
        let note = skipped.note().unwrap();
        assert!(note.starts_with("5 attributes of files (SCHILY.fflags, btrfs.compression, "), "{note}");
        assert!(note.ends_with(", …) mean nothing here: left out."), "{note}");
        for errno in [Errno::NOTSUP, Errno::TOOBIG, Errno::PERM, Errno::NOSPC] {
            let mut skipped = Skipped::default();
            set(&all(&["user.x", "trusted.lov", "security.selinux"]), &mut skipped, &dir, no(errno)).unwrap();
            assert_eq!(skipped.count, 3, "{errno}");
            for must in ["security.capability", "system.posix_acl_access", "system.posix_acl_default"] {
                let error = set(&all(&[must]), &mut skipped, &dir, no(errno)).unwrap_err().to_string();
                assert!(error.contains(must), "{error}");
            }
        }
        let mut skipped = Skipped::default();
        assert!(set(&all(&["user.x"]), &mut skipped, &dir, no(Errno::IO)).is_err());
        set(&all(&["trusted.overlay.opaque", "user.overlay.x"]), &mut skipped, &dir, no(Errno::IO)).unwrap();
        assert_eq!(skipped.note(), None);
    }
}
