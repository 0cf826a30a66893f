//! Files that a node removed while it had them open, and that it left behind when it crashed.
//!
//! An NFS client that removes an open file gives it a name of its own and removes that at the last close
//! ("silly rename"; Linux, `fs/nfs/unlink.c`: `.nfs`, the number of the file and a counter, in hexadecimal).
//! A client that crashes in between never does.

use super::{Export, Persist, errno, kind, openat};
use crate::kernel;
use rustix::fs::{AtFlags, OFlags, RawDir};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use walt_nfs::vfs::Result;
use walt_nfs::{FileType, KernelHandle};

/// Most names of an export that one sweep looks at; what it does not reach stays until a later boot.
const MAX_LOOKED_AT: u64 = 5_000_000;
/// Digits behind `.nfs`: 16 of the file's number and 8 of the counter.
const SILLY_DIGITS: usize = 24;

/// What a sweep did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Names that were looked at.
    pub names: u64,
    /// Files that were removed.
    pub removed: u64,
}

fn is_silly(name: &[u8]) -> bool {
    name.strip_prefix(b".nfs").is_some_and(|rest| {
        rest.len() == SILLY_DIGITS && rest.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl Persist {
    /// Removes what was left behind before `before`, in seconds since 1970: the time at which its node booted.
    /// Directories are reached by handle, one at a time: nothing that the node does meanwhile leads out of
    /// the export.
    ///
    /// # Errors
    /// The export's root cannot be read. A directory below that cannot is left out.
    pub fn sweep(&self, x: &Export, before: i64) -> Result<Swept> {
        self.sweep_at_most(x, before, MAX_LOOKED_AT)
    }

    /// [`Persist::sweep`], which ends after `limit` names.
    pub(super) fn sweep_at_most(&self, x: &Export, before: i64, limit: u64) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut directories = vec![x.root];
        let mut buffer = vec![MaybeUninit::uninit(); super::DIRECTORY_BUFFER];
        while let Some(handle) = directories.pop() {
            let listed = x.directory(&handle).and_then(|(dir, _)| {
                self.sweep_directory(x, &dir, (before, limit), &mut directories, &mut swept, &mut buffer)
            });
            match listed {
                Err(status) if handle == x.root => return Err(status),
                // It was removed meanwhile, or the disk has an error, which is reported where it is read.
                Err(status) => tracing::debug!(export = x.id, %status, "a directory was not swept"),
                Ok(()) if swept.names >= limit => {
                    tracing::warn!(export = x.id, "a sweep ended after {limit} names");
                    break;
                }
                Ok(()) => {}
            }
        }
        Ok(swept)
    }

    /// One directory; those in it are added to `directories`.
    fn sweep_directory(
        &self,
        x: &Export,
        dir: &File,
        (before, limit): (i64, u64),
        directories: &mut Vec<KernelHandle>,
        swept: &mut Swept,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<()> {
        let mut removed = false;
        let mut entries = RawDir::new(dir, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            swept.names += 1;
            match entry.file_type() {
                rustix::fs::FileType::Directory => directories.extend(kernel::at(dir, name)),
                // A file system whose directories do not have types.
                rustix::fs::FileType::Unknown if !is_silly(name) => {
                    let opened = openat(dir, name, OFlags::PATH | OFlags::DIRECTORY);
                    directories.extend(opened.and_then(kernel::of));
                }
                _ if is_silly(name) && self.sweep_file(x, dir, name, before) => {
                    swept.removed += 1;
                    removed = true;
                }
                _ => {}
            }
            if swept.names >= limit {
                break;
            }
        }
        if removed {
            self.sync(dir)?;
        }
        Ok(())
    }

    /// Whether the file was as old as that, and is gone.
    fn sweep_file(&self, x: &Export, dir: &File, name: &[u8], before: i64) -> bool {
        let Ok(fd) = openat(dir, name, OFlags::PATH) else { return false };
        // The change time is that of the renaming or of something later.
        let old = |s: rustix::fs::Stat| kind(&s) != FileType::Directory && s.st_ctime < before;
        if !rustix::fs::fstat(&fd).is_ok_and(old)
            || rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_err()
        {
            return false;
        }
        if let Ok(handle) = kernel::of(fd.as_fd()) {
            self.files.forget(x.id, &handle);
        }
        true
    }
}
