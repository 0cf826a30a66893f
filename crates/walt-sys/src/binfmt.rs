//! binfmt_misc: handlers by which the kernel runs programs in other formats (Linux,
//! Documentation/admin-guide/binfmt-misc.rst).

use crate::{During, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Where machines usually have it mounted.
const MOUNTED: &str = "/proc/sys/fs/binfmt_misc";
/// File that takes new handlers.
const REGISTER: &str = "register";
/// File with the state of binfmt_misc: enabled or disabled.
const STATUS: &str = "status";
/// Largest text of a handler that is read, in bytes; the kernel writes a page at most.
const TEXT_MAX: u64 = 4096;
/// What removes a handler, written to its file.
const REMOVE: &[u8] = b"-1";

/// The kernel's handlers. Since Linux 6.7 they are gone once nothing has the filesystem open or mounted any more;
/// older kernels keep them until they are removed.
#[derive(Debug)]
pub struct Binfmt {
    dir: OwnedFd,
    /// Without a mount of the machine: one of our own, which has no place in any tree.
    _mount: Option<OwnedFd>,
}

impl Binfmt {
    /// Opens the machine's mount, else a private one. The kernel loads its module if needed.
    ///
    /// # Errors
    /// `ENODEV`: the kernel has no binfmt_misc. `EPERM`: not root.
    pub fn open() -> Result<Self> {
        let what = || "open binfmt_misc".into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(dir) = rustix::fs::open(MOUNTED, flags, Mode::empty())
            && rustix::fs::statat(&dir, REGISTER, rustix::fs::AtFlags::empty()).is_ok()
        {
            return Ok(Self { dir, _mount: None });
        }
        let fs = rustix::mount::fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC).during(what)?;
        rustix::mount::fsconfig_create(fs.as_fd()).during(what)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount =
            rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).during(what)?;
        let dir = rustix::fs::openat(&mount, ".", flags, Mode::empty()).during(what)?;
        Ok(Self { dir, _mount: Some(mount) })
    }

    /// Whether handlers work at all: an administrator can switch all of them off.
    pub fn is_enabled(&self) -> Result<bool> {
        Ok(self.read(STATUS)?.trim() == "enabled")
    }

    /// All handlers: name, and what the kernel says about it.
    pub fn handlers(&self) -> Result<Vec<(String, String)>> {
        let entries = rustix::fs::Dir::read_from(&self.dir).during(|| "list binfmt_misc".into())?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.during(|| "list binfmt_misc".into())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".", "..", REGISTER, STATUS].contains(&name.as_str()) {
                continue;
            }
            // It may have been removed meanwhile.
            if let Ok(text) = self.read(&name) {
                found.push((name, text));
            }
        }
        Ok(found)
    }

    /// Adds a handler, in the words of the kernel's documentation; it comes before the others. `EEXIST`: the name
    /// is taken. `ENOENT`: its program is not there.
    pub fn register(&self, handler: &str) -> Result<()> {
        self.write(REGISTER, handler.as_bytes())
    }

    /// Removes a handler; its absence is success.
    pub fn remove(&self, name: &str) -> Result<()> {
        match self.write(name, REMOVE) {
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn read(&self, name: &str) -> Result<String> {
        let what = || format!("read {name} of binfmt_misc");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty()).during(what)?;
        let mut text = String::new();
        std::fs::File::from(file).take(TEXT_MAX).read_to_string(&mut text).during(what)?;
        Ok(text)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let what = || format!("write {name} of binfmt_misc");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty()).during(what)?;
        // In one call: the kernel takes each write for a whole handler.
        match std::fs::File::from(file).write(bytes).during(what)? {
            n if n == bytes.len() => Ok(()),
            n => Err(Error { what: what(), source: io::Error::other(format!("{n} bytes were taken")) }),
        }
    }
}
