//! File handles of the kernel: a file's name that survives renames, closing and our restarts.
//!
//! Opening by handle needs `CAP_DAC_READ_SEARCH` and skips the permissions of the directories above, so
//! handles that come from outside must be authenticated before they get here.

use crate::{During, Result, checked};
use rustix::fs::{CWD, Mode, OFlags};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest handle of any filesystem (`MAX_HANDLE_SZ` of the kernel).
pub const MAX_HANDLE: usize = 128;

/// A filesystem's handle of one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The filesystem's own type number.
    pub kind: i32,
    /// Its bytes, at most [`MAX_HANDLE`].
    pub bytes: Vec<u8>,
}

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Raw {
    handle_bytes: u32,
    handle_type: i32,
    f_handle: [u8; MAX_HANDLE],
}

fn name_to_handle(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<FileHandle> {
    let mut raw = Raw { handle_bytes: MAX_HANDLE as u32, handle_type: 0, f_handle: [0; MAX_HANDLE] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the descriptor is open, the name ends in NUL, `raw` has room for the `handle_bytes` that it
    // announces, and both pointers outlive the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            flags,
        )
    })?;
    let length = (raw.handle_bytes as usize).min(MAX_HANDLE);
    Ok(FileHandle { kind: raw.handle_type, bytes: raw.f_handle[..length].to_vec() })
}

/// The handle of an open file (also one opened with `O_PATH`).
pub fn of_fd(fd: impl AsFd) -> io::Result<FileHandle> {
    name_to_handle(fd.as_fd(), c"", libc::AT_EMPTY_PATH)
}

/// The handle of `name` in the directory `dir`; a symbolic link is not followed.
pub fn at(dir: impl AsFd, name: &[u8]) -> io::Result<FileHandle> {
    name_to_handle(dir.as_fd(), &CString::new(name)?, 0)
}

/// Opens the file of a handle on the filesystem of `mount`, which must be open without `O_PATH`.
/// `ESTALE` means that the file is gone.
pub fn open(mount: impl AsFd, handle: &FileHandle, flags: OFlags) -> io::Result<OwnedFd> {
    if handle.bytes.len() > MAX_HANDLE {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut raw =
        Raw { handle_bytes: handle.bytes.len() as u32, handle_type: handle.kind, f_handle: [0; MAX_HANDLE] };
    raw.f_handle[..handle.bytes.len()].copy_from_slice(&handle.bytes);
    let flags = (flags | OFlags::CLOEXEC).bits();
    // SAFETY: the descriptor is open and `raw` holds the `handle_bytes` bytes that it announces.
    let fd = checked(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_fd().as_raw_fd(), &raw mut raw, flags)
    })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Checks that the filesystem of `dir` gives handles and opens them again.
pub fn self_test(dir: &Path) -> Result<()> {
    let what = || {
        format!(
            "use file handles in {} (choose a directory on ext4, xfs or btrfs; an overlay or a network \
             filesystem has none)",
            dir.display()
        )
    };
    let name = CString::new(dir.as_os_str().as_bytes()).map_err(io::Error::from).during(what)?;
    let handle = name_to_handle(CWD, &name, libc::AT_SYMLINK_FOLLOW).during(what)?;
    let mount = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during(what)?;
    let again = open(&mount, &handle, OFlags::RDONLY | OFlags::DIRECTORY).during(what)?;
    let (a, b) = (rustix::fs::fstat(&mount).during(what)?, rustix::fs::fstat(&again).during(what)?);
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)).during(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn handle_survives_a_rename_and_goes_stale() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        self_test(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), "content").unwrap();
        let d = std::fs::File::open(dir.path()).unwrap();
        let handle = at(&d, b"a").unwrap();
        assert_eq!(handle, of_fd(std::fs::File::open(dir.path().join("a")).unwrap()).unwrap());
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let mut text = String::new();
        let fd = open(&d, &handle, OFlags::RDONLY).unwrap();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        std::fs::remove_file(dir.path().join("b")).unwrap();
        let gone = open(&d, &handle, OFlags::RDONLY).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESTALE));
    }

    #[test]
    fn self_test_refuses_proc() {
        let error = self_test(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("file handles in /proc"), "{error}");
    }
}
