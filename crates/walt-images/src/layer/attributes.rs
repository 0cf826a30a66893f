//! Which extended attributes of a tar are set on disk: one table, with a reason per line.
//!
//! A layer's skeleton keeps the bytes of the tar, so attributes that are not set here are still exported. Mounts and
//! nodes see what is on disk.

use super::disk::{Place, has_room};
use rustix::io::Errno;
use std::{collections::BTreeSet, io};
use walt_tar::Time;

/// Most names of attributes in a note; the others are only counted.
const MAX_SHOWN: usize = 4;
/// Longest name in a note, in characters.
const MAX_NAME: usize = 60;

/// How an attribute is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Left out silently: only the store sets it.
    Drop,
    /// Set, or the entry is refused.
    Must,
    /// Set if the disk takes it, else skipped and counted.
    Try,
    /// Skipped and counted.
    Skip,
}

/// The table: the first line with a prefix of the name counts. Names without such a prefix do not belong to a Linux
/// name space and are skipped: marks of other systems (`com.apple.provenance`), and records in which other tar
/// programs keep properties that Linux does not have.
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
    (b"security.ima", Treatment::Try, "a signature, which kernels without the key ignore"),
    (b"security.", Treatment::Try, "a label, which means something under the same policy only"),
    (b"trusted.", Treatment::Try, "a mark of a file system of many machines (gluster, lustre)"),
    (b"user.", Treatment::Try, "an application's; disks have room for 4 KiB, and on links none"),
    (b"system.", Treatment::Skip, "made by the file system that it came from (nfs4_acl, cifs_acl, ntfs)"),
];

/// The default access list of a directory, which new entries inherit. It is set after all entries of the directory
/// were made, since those have their own lists or none.
pub(crate) const INHERITED: &[u8] = b"system.posix_acl_default";

/// How the attribute with this name is treated.
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

    /// Adds the attributes that were skipped elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for name in other.names.iter().take(MAX_SHOWN + 1 - self.names.len().min(MAX_SHOWN + 1)) {
            self.names.insert(name.clone());
        }
    }

    /// A sentence for the user; `None` if nothing was skipped.
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
        let what = if self.count == 1 { "attribute" } else { "attributes" };
        (self.count > 0).then(|| {
            format!(
                "{} file {what} ({}{more}) cannot be stored here: left out.",
                self.count,
                names.join(", ")
            )
        })
    }
}

/// Whether this error means that the file cannot have the attribute.
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

/// Sets attributes by `set`, as the table says.
///
/// # Errors
/// A required attribute could not be set, or the disk is full.
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
                io::Error::new(e.kind(), format!("cannot set its required attribute '{name}': {e}"))
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
        assert!(note.starts_with("5 file attributes (SCHILY.fflags, btrfs.compression, "), "{note}");
        assert!(note.ends_with(", …) cannot be stored here: left out."), "{note}");
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
