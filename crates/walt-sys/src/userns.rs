//! User namespaces: root of a container has a number of its own, which means nothing on this machine.
//!
//! ```text
//! in the container 0..65535  ◀─ uid_map ─▶  on this machine first..first+65535
//! on the disk      0..65535  ◀─ idmapped mount of layers and upper directory ─▶  first..first+65535
//!                  65536..   ◀─ both ─▶  on this machine 2^31+65536..
//! ```
//! The users above 65535 are those of a directory service, which come from anywhere below 2^31: all namespaces have
//! the same numbers for them, in the half of the numbers that no account has (uid_t as a signed number is negative).
//!
//! Files keep the numbers of the image: a mount with another mapping (mount_setattr(2), `MOUNT_ATTR_IDMAP`)
//! translates them both ways, see [`crate::mount::Overlay::ids`].
//!
//! Limits: Linux 5.19 (idmapped mounts below overlayfs) and a filesystem with idmapped mounts (ext4, xfs, btrfs,
//! f2fs; zfs since 2.2). [`probe`] finds out.

use crate::{
    During, Error, Result, checked,
    mount::{self, Overlay},
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// How many users and groups a namespace has of its own: those that 16 bits can name, as user_namespaces(7) expects of
/// a complete system (65534 is `nobody`).
pub const SIZE: u32 = 65_536;
/// The users and groups of a namespace are those below this number. Above it, nothing is left on this machine that
/// is not a special number (2^32-1 is not a user, 2^32-2 is `nobody` of older NFS).
pub const END: u32 = 0x7fff_0000;
/// Number on this machine of user 0, if it were mapped as those from [`SIZE`] on are. Nobody has an account from here
/// on: accounts are below, also those of directory services.
pub const FAR: u32 = 0x8000_0000;
/// Name of the directory in which [`probe`] works.
const PROBE_DIR: &str = ".userns-probe";
/// Error of the child of a probe if it cannot say what is wrong.
const UNKNOWN: i32 = 255;

/// Numbers in a namespace, and those on this machine that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first one in the namespace.
    pub inside: u32,
    /// The first one on this machine.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The users, and the groups, of the namespace whose root is `first` on this machine.
pub const fn map(first: u32) -> [Extent; 2] {
    [
        Extent { inside: 0, outside: first, count: SIZE },
        Extent { inside: SIZE, outside: FAR + SIZE, count: END - SIZE },
    ]
}

/// A user namespace, and a network namespace that belongs to it: the root of the one may configure the other.
///
/// They last as long as the descriptors, and what uses them.
#[derive(Debug)]
pub struct Namespaces {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace.
    pub net: OwnedFd,
    /// The number that its user and group 0 have on this machine.
    pub first: u32,
}

impl Namespaces {
    /// Makes both, by a child that lives for as long. `first` and the [`SIZE`] - 1 numbers above it should mean
    /// nothing else on this machine, and are below [`FAR`].
    pub fn new(first: u32) -> Result<Self> {
        let what = || format!("make a user namespace of the users {first} and above");
        let child = Sleeper::start(libc::CLONE_NEWUSER | libc::CLONE_NEWNET, &[]).during(what)?;
        child.map(first).during(what)?;
        let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", child.pid)).during(what);
        Ok(Self { user: open("user")?.into(), net: open("net")?.into(), first })
    }
}

/// A child in new namespaces. It waits for a byte, then does its mounts and ends; it also ends with this process.
struct Sleeper {
    pid: i32,
    /// Its closing is the child's end.
    wake: Option<io::PipeWriter>,
}

impl Sleeper {
    /// `mounts`: filesystem types and where to mount them; mounted one by one after a byte has come.
    fn start(flags: libc::c_int, mounts: &[(&CStr, &CStr)]) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let (read, write) = (reader.as_raw_fd(), writer.as_raw_fd());
        let flags = libc::c_long::from(flags | libc::SIGCHLD);
        let no_stack = 0usize;
        // SAFETY: a clone(2) without CLONE_VM is a fork: the child has its own copy of all memory, and its stack.
        // It makes system calls only (locks of libc may be held by threads that it does not have), on descriptors
        // and strings that its copy has, and ends by _exit.
        let pid = checked(unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, 0, 0, 0) })?;
        if pid == 0 {
            // SAFETY: as above; the pointers are to a local and to strings of our own copy.
            unsafe {
                libc::close(write);
                let mut byte = 0u8;
                if libc::read(read, (&raw mut byte).cast(), 1) != 1 {
                    libc::_exit(0);
                }
                for (kind, target) in mounts {
                    if libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) != 0 {
                        let errno = io::Error::last_os_error().raw_os_error();
                        libc::_exit(errno.filter(|e| (1..UNKNOWN).contains(e)).unwrap_or(UNKNOWN));
                    }
                }
                libc::_exit(0);
            }
        }
        Ok(Self { pid: pid as i32, wake: Some(writer) })
    }

    /// Writes the maps of users and groups of its user namespace.
    fn map(&self, first: u32) -> io::Result<()> {
        // All at once: the kernel takes one write.
        let lines: String =
            map(first).iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.count)).collect();
        ["uid_map", "gid_map"]
            .iter()
            .try_for_each(|name| std::fs::write(format!("/proc/{}/{name}", self.pid), &lines))
    }

    /// Starts its mounts, and waits for its end.
    fn mount(mut self) -> io::Result<()> {
        let mut wake = self.wake.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let woken = wake.write_all(&[1]);
        drop(wake);
        let status = crate::process::wait_for(std::mem::replace(&mut self.pid, 0))?;
        woken?;
        match status {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            // Nobody else waits for it, so the number is its own. Killed, since another child of that moment may
            // have a copy of our end of the pipe.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = crate::process::wait_for(self.pid);
        }
    }
}

/// Shows the directory `source` at `target` with the numbers of a user namespace for those on the disk.
pub(crate) fn attach_mapped(source: &Path, target: &Path, user: impl AsFd) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, source, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user.as_fd().as_raw_fd() as u64,
    };
    // SAFETY: both descriptors are open; the string is a constant; pointer and size describe a local that the
    // kernel only reads.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&tree, "", rustix::fs::CWD, target, empty)?)
}

/// Makes the calling thread act on files as user and group `id`, and keeps its capabilities. There is no way back:
/// for a thread that ends after this.
pub(crate) fn become_for_files(id: u32) -> io::Result<()> {
    use rustix::thread::{capabilities, set_capabilities};
    let sets = capabilities(None)?;
    crate::creds::set_fs(id, id)?;
    // Leaving user 0 has taken those that are about files from the effective ones (capabilities(7)).
    Ok(set_capabilities(None, sets)?)
}

/// Calls `f` on a thread of its own, which acts on files as user and group `id` of this machine, with the capabilities of
/// the caller: what it makes in a mapped tree belongs to root there, if `id` is the [`Namespaces::first`] of its mapping.
pub fn acting_on_files<T: Send>(id: u32, f: impl FnOnce() -> T + Send) -> Result<T> {
    let what = || format!("act on files as user {id}");
    std::thread::scope(|scope| scope.spawn(|| become_for_files(id).map(|()| f())).join())
        .unwrap_or_else(|_| Err(io::Error::other("the acting thread panicked")))
        .during(what)
}

/// Whether containers can have a user namespace here, with their layers in `dir` and their tree mounted at `root`:
/// does once what the start of one does, on a few files, and leaves nothing.
///
/// # Errors
/// What this kernel, its settings, the filesystem of `dir`, or the directories above `root` refuse.
pub fn probe(dir: &Path, root: &Path, first: u32) -> Result<()> {
    let place = dir.join(PROBE_DIR);
    let what = || format!("work in {}", place.display());
    // Left by a server that was killed at this point; nothing is mounted there, see below.
    match std::fs::remove_dir_all(&place) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).during(what),
        _ => {}
    }
    let proved = ["lower", "layer/fs", "work", "mnt"]
        .iter()
        .try_for_each(|name| std::fs::create_dir_all(place.join(name)))
        .and_then(|()| std::fs::write(place.join("lower/file"), ""))
        .during(what)
        .and_then(|()| Namespaces::new(first))
        .and_then(|namespaces| {
            // On a thread of its own, with a mount namespace that goes with it.
            std::thread::scope(|scope| scope.spawn(|| prove_overlay(&place, root, &namespaces)).join())
                .unwrap_or_else(|_| Err(io::Error::other("the probing thread panicked")).during(what))
        })
        .and_then(|()| prove_mounts(&place, first));
    let removed = std::fs::remove_dir_all(&place).during(what);
    proved.and(removed)
}

/// A change in an overlay of mapped layers has the numbers of the namespace above, and those of the image below.
fn prove_overlay(place: &Path, root: &Path, namespaces: &Namespaces) -> Result<()> {
    let what = || format!("change files in {} by mapped numbers", place.display());
    mount::unshare_mounts()?;
    mount::overlay(&Overlay {
        lowers: vec![place.join("lower")],
        base: place.to_owned(),
        upper: "layer/fs".into(),
        work: "work".into(),
        target: root.to_owned(),
        ids: Some(namespaces),
    })?;
    let change = || {
        become_for_files(namespaces.first)?;
        std::fs::remove_file(root.join("file"))?;
        std::fs::write(root.join("new"), "")
    };
    change().during(what)?;
    let below = |name: &str| std::fs::symlink_metadata(place.join("layer/fs").join(name)).during(what);
    let (new, gone, above) = (below("new")?, below("file")?, root.join("new").metadata().during(what)?);
    let mapped = (new.uid(), new.gid(), above.uid(), above.gid());
    if mapped != (0, 0, namespaces.first, namespaces.first) || !gone.file_type().is_char_device() {
        let why = io::Error::other(format!("owners are {mapped:?}"));
        return Err(Error { what: what(), source: why });
    }
    // Without capabilities, as the kernel sees root of a container. The mounts go with this thread.
    let reach = || {
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets)?;
        root.join("new").metadata().map(drop)
    };
    reach().during(|| format!("reach {} as user {}", root.display(), namespaces.first))
}

/// A container in a user namespace may mount `/proc` and `/sys` only if ours are whole: nothing mounted over parts.
fn prove_mounts(place: &Path, first: u32) -> Result<()> {
    for kind in [c"proc", c"sysfs"] {
        let what = || format!("mount {} in a user namespace", kind.to_string_lossy());
        let target = CString::new(place.join("mnt").as_os_str().as_bytes()).map_err(io::Error::from);
        let target = target.during(what)?;
        let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        let child = Sleeper::start(flags, &[(kind, &target)]).during(what)?;
        child.map(first).during(what)?;
        child.mount().during(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A range that this machine uses for nothing.
    const FIRST: u32 = 0x7900_0000;

    #[test]
    fn probe_leaves_nothing_and_tells_what_is_missing() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("state").join(PROBE_DIR).join("left")).unwrap();
        std::fs::create_dir_all(path("root")).unwrap();
        let mode = |mode| std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
        mode(0o711);
        probe(&path("state"), &path("root"), FIRST).unwrap();
        let left = |name: &str| std::fs::read_dir(path(name)).unwrap().count();
        assert_eq!((left("state"), left("root")), (0, 0));
        mode(0o700);
        let error = probe(&path("state"), &path("root"), FIRST).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EACCES), "{error}");
        assert!(error.to_string().starts_with("cannot reach "), "{error}");
        // Where nothing can be made at all.
        let error = probe(Path::new("/sys"), &path("root"), FIRST).unwrap_err().to_string();
        assert!(error.contains("/sys/.userns-probe"), "{error}");
        assert_eq!((left("state"), left("root")), (0, 0));
    }

    #[test]
    fn namespaces_are_mapped_and_belong_together() {
        let namespaces = Namespaces::new(FIRST).unwrap();
        // Only whoever is in the user namespace reads the map as it is: ask about the owner instead.
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_ne!(inode(&namespaces.user), std::fs::metadata("/proc/self/ns/user").unwrap().ino());
        assert_ne!(inode(&namespaces.net), std::fs::metadata("/proc/self/ns/net").unwrap().ino());
        /// `NS_GET_USERNS` (ioctl_ns(2)).
        const NS_GET_USERNS: libc::Ioctl = 0xb701;
        // SAFETY: the request takes no argument and returns a new descriptor.
        let owner =
            checked(unsafe { libc::ioctl(namespaces.net.as_raw_fd(), NS_GET_USERNS) }.into()).unwrap();
        // SAFETY: nobody else knows the new descriptor.
        let owner = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(owner as i32) };
        assert_eq!(inode(&owner), inode(&namespaces.user));
    }
}
