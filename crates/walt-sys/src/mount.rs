//! Mounts, all of them meant for a mount namespace of our own.
//!
//! Overlays are mounted by mount(2) with short names relative to a directory that holds one symbolic
//! link per layer: the option string is limited to one page, and a colon in a path would separate layers.

use crate::{During, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

/// Most lower directories of one overlay: an image's 125 layers and the platform layer.
pub const MAX_LOWERS: usize = 126;
/// Overlay options that keep the upper directory a complete difference, on every kernel default.
///
/// `redirect_dir=nofollow`: a layer cannot point elsewhere; `metacopy=off`: data is copied up with its
/// metadata; `index=off`: no hard-link index outside the upper; `xino=off`: one filesystem, not needed.
const OVERLAY_OPTIONS: &str = "redirect_dir=nofollow,metacopy=off,index=off,xino=off";
/// Directory beside the upper that holds the short names of the layers.
const LINKS: &str = "l";

/// Gives the calling thread, and what it starts later, its own mount namespace in which nothing
/// propagates back. Call it before other threads exist.
pub fn unshare_mounts() -> Result<()> {
    // SAFETY: unshare changes kernel state of the calling thread only; no memory is shared or lost.
    crate::checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
        .during(|| "make a mount namespace".into())?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during(|| "make all mounts private".into())
}

/// What to overlay, and where.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// Lower directories, the top one first.
    pub lowers: Vec<PathBuf>,
    /// Directory that contains `upper`, `work` and the short names; one filesystem.
    pub base: PathBuf,
    /// Upper directory, relative to `base`.
    pub upper: PathBuf,
    /// Work directory, relative to `base`.
    pub work: PathBuf,
    /// Mount point, an absolute path.
    pub target: PathBuf,
}

/// Mounts an overlay in the caller's mount namespace.
///
/// Fails with `E2BIG` for more than [`MAX_LOWERS`] layers, otherwise with the answer of mount(2).
pub fn overlay(o: &Overlay) -> Result<()> {
    let what = || format!("mount the overlay at {}", o.target.display());
    if o.lowers.len() > MAX_LOWERS {
        return Err(Error { what: what(), source: io::Error::from_raw_os_error(libc::E2BIG) });
    }
    link_lowers(&o.base.join(LINKS), &o.lowers)?;
    let lowers: Vec<String> = (0..o.lowers.len()).map(|n| format!("{LINKS}/{n}")).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{OVERLAY_OPTIONS}",
        lowers.join(":"),
        o.upper.display(),
        o.work.display()
    );
    let options = CString::new(options).map_err(io::Error::from).during(what)?;
    // The options are relative: a thread that shares no working directory with the others mounts.
    std::thread::scope(|scope| scope.spawn(|| mount_from(o, &options)).join())
        .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
        .during(what)
}

fn mount_from(o: &Overlay, options: &CString) -> io::Result<()> {
    // SAFETY: unshare(CLONE_FS) only gives this thread its own working directory and umask.
    crate::checked(unsafe { libc::unshare(libc::CLONE_FS) }.into())?;
    rustix::process::chdir(&o.base)?;
    rustix::mount::mount("overlay", &o.target, "overlay", MountFlags::empty(), options.as_c_str())?;
    Ok(())
}

fn link_lowers(dir: &Path, lowers: &[PathBuf]) -> Result<()> {
    let what = || format!("name the layers in {}", dir.display());
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).during(what),
        _ => {}
    }
    std::fs::create_dir(dir).during(what)?;
    for (n, lower) in lowers.iter().enumerate() {
        std::os::unix::fs::symlink(lower, dir.join(n.to_string())).during(what)?;
    }
    Ok(())
}

/// Mounts a tmpfs; `options` as in tmpfs(5), for example `mode=755,size=64m`.
pub fn tmpfs(target: &Path, options: &str) -> Result<()> {
    let what = || format!("mount a tmpfs at {}", target.display());
    let options = CString::new(options).map_err(io::Error::from).during(what)?;
    rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .during(what)
}

/// Shows `source` at `target` as well.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    rustix::mount::mount_bind(source, target)
        .during(|| format!("bind {} to {}", source.display(), target.display()))
}

/// Makes the whole filesystem at `target` read-only. `EBUSY` means that a file in it is open for
/// writing, in whatever mount namespace.
pub fn remount_ro(target: &Path) -> Result<()> {
    rustix::mount::mount_remount(target, MountFlags::RDONLY, "")
        .during(|| format!("make {} read-only", target.display()))
}

/// Unmounts; never lazily, so `EBUSY` means that it is still in use in this mount namespace.
pub fn unmount(target: &Path) -> Result<()> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).during(|| format!("unmount {}", target.display()))
}

/// Writes everything of the filesystem that contains `path` to its disk; reports errors of write-back.
pub fn syncfs(path: &Path) -> Result<()> {
    let what = || format!("write {} to the disk", path.display());
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during(what)?;
    rustix::fs::syncfs(&fd).during(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` on a thread with its own mount namespace (tests run as root; else they say so).
    fn in_namespace(f: impl FnOnce() + Send) {
        std::thread::scope(|s| {
            s.spawn(|| {
                // SAFETY: unshare changes kernel state of this thread only.
                unsafe { libc::unshare(libc::CLONE_FS) };
                unshare_mounts().expect("the tests of mounts need root");
                f();
            });
        });
    }

    #[test]
    fn overlay_keeps_changes_in_upper_and_tells_writers() {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        let p = |s: &str| base.path().join(s);
        for d in ["a:colon", "b", "s/layer/fs", "s/work", "s/root"] {
            std::fs::create_dir_all(p(d)).unwrap();
        }
        std::fs::write(p("a:colon/f"), "top").unwrap();
        std::fs::write(p("b/f"), "bottom").unwrap();
        std::fs::write(p("b/g"), "bottom").unwrap();
        in_namespace(|| {
            let target = p("s/root");
            overlay(&Overlay {
                lowers: vec![p("a:colon"), p("b")],
                base: p("s"),
                upper: "layer/fs".into(),
                work: "work".into(),
                target: target.clone(),
            })
            .unwrap();
            assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "top");
            let writer = std::fs::File::create(target.join("new")).unwrap();
            assert_eq!(remount_ro(&target).unwrap_err().errno(), Some(libc::EBUSY));
            drop(writer);
            // Other tests fork meanwhile, and a child holds our files until its exec.
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while let Err(e) = remount_ro(&target) {
                assert!(e.errno() == Some(libc::EBUSY) && std::time::Instant::now() < limit, "{e}");
                std::thread::yield_now();
            }
            unmount(&target).unwrap();
        });
        assert!(p("s/layer/fs/new").exists());
        assert!(!p("s/root/new").exists());
    }

    #[test]
    fn too_many_layers() {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        let o = Overlay {
            lowers: vec!["/".into(); MAX_LOWERS + 1],
            base: base.path().into(),
            upper: "u".into(),
            work: "w".into(),
            target: base.path().into(),
        };
        assert_eq!(overlay(&o).unwrap_err().errno(), Some(libc::E2BIG));
    }
}
