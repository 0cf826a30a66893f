//! One thread acts on files as another user.
//!
//! Linux keeps credentials per thread; libc hides that by changing all threads. The raw system calls
//! here change the calling thread only. Leaving user 0 drops the file capabilities from the effective
//! set (capabilities(7)), returning to it restores them.

use crate::checked;
use std::io;
use std::marker::PhantomData;

/// Most supplementary groups of a caller; AUTH_SYS carries 16 (RFC 5531).
pub const MAX_GROUPS: usize = 16;

/// While it lives, the thread that made it creates and opens files as another user.
///
/// Dropping it restores root. If the kernel refuses that, the process ends: a thread with a wrong
/// identity must not serve anybody.
#[derive(Debug)]
pub struct ActAs {
    /// Credentials belong to the thread: the guard must not leave it.
    not_send: PhantomData<*const ()>,
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice that outlives the call; the kernel only reads it.
    checked(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets the filesystem identity and reads it back, since the calls themselves report no error.
pub(crate) fn set_fs(uid: u32, gid: u32) -> io::Result<()> {
    /// "No change" for setfsuid(2) and setfsgid(2), which answer with the present value.
    const KEEP: u32 = u32::MAX;
    // SAFETY: these calls take and return numbers; they change this thread's credentials only. The group
    // goes first: it needs CAP_SETGID, which is kept, and the order is the same both ways.
    let (g, u) = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        (libc::syscall(libc::SYS_setfsgid, KEEP), libc::syscall(libc::SYS_setfsuid, KEEP))
    };
    if (u as u32, g as u32) == (uid, gid) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

impl ActAs {
    /// Makes this thread act as `uid`, `gid` and `groups` (at most [`MAX_GROUPS`]; more is `EINVAL`).
    /// The thread must be root's with no supplementary groups that matter: they are cleared at the end.
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> io::Result<Self> {
        // The value means "no change" to the kernel, so it can be nobody's identity.
        if groups.len() > MAX_GROUPS || uid == u32::MAX || gid == u32::MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let guard = Self { not_send: PhantomData };
        set_groups(groups)?;
        set_fs(uid, gid)?;
        Ok(guard)
    }
}

impl Drop for ActAs {
    fn drop(&mut self) {
        if set_fs(0, 0).and_then(|()| set_groups(&[])).is_err() {
            // Nothing may run on this thread with the wrong identity, not even a message.
            std::process::abort();
        }
    }
}

/// Makes this thread subject to disk quotas and to the reserve of file systems for root, whomever it acts as:
/// `CAP_SYS_RESOURCE` is what lifts them (capabilities(7)).
///
/// # Errors
/// The kernel refuses; nothing has changed.
pub fn respect_quotas() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None)?;
    if sets.effective.contains(CapabilitySet::SYS_RESOURCE) {
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        set_capabilities(None, sets)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn files_belong_to_the_other_user_on_this_thread_only() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = |n: &str| dir.path().join(n);
        std::fs::write(path("secret"), "x").unwrap();
        std::fs::set_permissions(path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
        {
            let _guard = ActAs::new(1234, 2345, &[77]).unwrap();
            std::fs::write(path("mine"), "x").unwrap();
            assert_eq!(std::fs::read(path("secret")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            std::thread::scope(|s| {
                // A thread inherits from its maker; the identity of existing threads is untouched.
                s.spawn(|| std::fs::write(path("inherited"), "x").unwrap());
            });
        }
        std::fs::write(path("roots"), "x").unwrap();
        assert!(std::fs::read(path("secret")).is_ok());
        let owner = |n: &str| std::fs::metadata(path(n)).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!(owner("mine"), (1234, 2345));
        assert_eq!(owner("roots"), (0, 0));
        assert!(ActAs::new(u32::MAX, 0, &[]).is_err());
    }
}
