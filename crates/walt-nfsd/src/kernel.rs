//! File handles of the kernel, between `walt-sys` and the protocol.

use rustix::fs::OFlags;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use walt_nfs::vfs::Result;
use walt_nfs::{KernelHandle, Status};
use walt_sys::handle::{self, FileHandle};

fn short(handle: std::io::Result<FileHandle>) -> Result<KernelHandle> {
    let handle = handle.map_err(|e| super::status(&e))?;
    // ext4, xfs, btrfs and tmpfs have short handles, and nothing else passes the server's self test.
    KernelHandle::new(handle.kind, &handle.bytes).ok_or(Status::ServerFault)
}

/// The handle of a name in a directory. Does not follow a symbolic link.
pub fn at(dir: impl AsFd, name: &[u8]) -> Result<KernelHandle> {
    short(handle::at(dir, name))
}

/// The handle of an open file.
pub fn of(file: impl AsFd) -> Result<KernelHandle> {
    short(handle::of_fd(file))
}

/// Opens a file of the file system that `mount` lies on. Skips the permissions of the directories above
/// it, so it is only for handles whose MAC was right.
pub fn open(mount: BorrowedFd<'_>, handle: &KernelHandle, flags: OFlags) -> Result<File> {
    let handle = FileHandle { kind: handle.kind, bytes: handle.bytes().to_vec() };
    let fd = handle::open(mount, &handle, flags | OFlags::CLOEXEC).map_err(|e| super::status(&e))?;
    Ok(File::from(fd))
}
