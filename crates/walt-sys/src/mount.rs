//! Mounts, all of them meant for a mount namespace of our own.
//!
//! Overlays are mounted by mount(2) with short names relative to a directory that holds one symbolic
//! link (or, with mapped numbers, one mount) per layer: the option string is limited to one page, and a colon
//! in a path would separate layers.

use crate::{
    During, Error, Result,
    userns::{Namespaces, attach_mapped, become_for_files},
};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::collections::HashSet;
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
/// Directory next to the upper directory, with the short names of the layers.
const LINKS: &str = "l";
/// Short name, among those of the layers, of the directory of upper and work with mapped numbers.
const MAPPED_BASE: &str = "base";

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
#[derive(Debug)]
pub struct Overlay<'a> {
    /// Lower directories, the top one first. One can be there more than once: see [`overlay`].
    pub lowers: Vec<PathBuf>,
    /// Directory that contains `upper`, `work` and the short names; one filesystem.
    pub base: PathBuf,
    /// Upper directory, relative to `base`.
    pub upper: PathBuf,
    /// Work directory, relative to `base`.
    pub work: PathBuf,
    /// Mount point, an absolute path.
    pub target: PathBuf,
    /// Whose numbers the tree shows for those on the disk; `None`: the same.
    pub ids: Option<&'a Namespaces>,
}

/// Mounts an overlay in the caller's mount namespace.
///
/// Of a lower directory that is there more than once, the topmost is given to the kernel, which takes none twice
/// (`ELOOP`). The tree is the same. Let T be the topmost copy and C one below it. Wherever C would be looked at, no
/// layer above C hides what is below, so none above T does, and T was looked at before. T has what C has: a file, a
/// whiteout or an opaque directory in T ends the search before C, and a plain directory in T already gives the names
/// that the one in C would. Changes between the two lie above C and below T, and stay.
///
/// Fails with `E2BIG` for more than [`MAX_LOWERS`] layers, otherwise with the answer of mount(2).
pub fn overlay(o: &Overlay<'_>) -> Result<()> {
    let what = || format!("mount the overlay at {}", o.target.display());
    let mut seen = HashSet::new();
    let all: Vec<&Path> = o.lowers.iter().map(PathBuf::as_path).filter(|lower| seen.insert(*lower)).collect();
    if all.len() > MAX_LOWERS {
        return Err(Error { what: what(), source: io::Error::from_raw_os_error(libc::E2BIG) });
    }
    let links = o.base.join(LINKS);
    clear_names(&links).during(|| format!("name the layers in {}", links.display()))?;
    let lowers: Vec<String> = (0..all.len()).map(|n| format!("{LINKS}/{n}")).collect();
    let base = if o.ids.is_some() { Path::new(LINKS).join(MAPPED_BASE) } else { PathBuf::new() };
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{OVERLAY_OPTIONS}",
        lowers.join(":"),
        base.join(&o.upper).display(),
        base.join(&o.work).display()
    );
    let options = CString::new(options).map_err(io::Error::from).during(what)?;
    // The options are relative: a thread that shares no working directory with the others mounts.
    let work = || match o.ids {
        None => link_lowers(&links, &all).and_then(|()| mount_from(o, &options)),
        Some(ids) => mount_mapped(o, &all, &links, ids, &options),
    };
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
        .during(what)
}

fn mount_from(o: &Overlay<'_>, options: &CString) -> io::Result<()> {
    // SAFETY: unshare(CLONE_FS) only gives this thread its own working directory and umask.
    crate::checked(unsafe { libc::unshare(libc::CLONE_FS) }.into())?;
    rustix::process::chdir(&o.base)?;
    rustix::mount::mount("overlay", &o.target, "overlay", MountFlags::empty(), options.as_c_str())?;
    Ok(())
}

/// The overlay keeps what it was made of: the mounts that name its layers go again, whatever the outcome.
fn mount_mapped(
    o: &Overlay<'_>,
    lowers: &[&Path],
    links: &Path,
    ids: &Namespaces,
    options: &CString,
) -> io::Result<()> {
    let names: Vec<(PathBuf, &Path)> = (0..lowers.len())
        .map(|n| links.join(n.to_string()))
        .chain([links.join(MAPPED_BASE)])
        .zip(lowers.iter().copied().chain([o.base.as_path()]))
        .collect();
    let mut attached = Vec::new();
    let mut attach = || {
        for (name, source) in &names {
            std::fs::create_dir(name)?;
            attach_mapped(source, name, &ids.user)?;
            attached.push(name);
        }
        // Overlayfs acts on the layers as whoever mounts it: as somebody whose number they know.
        become_for_files(ids.first)?;
        mount_from(o, options)
    };
    let mounted = attach();
    let detached =
        attached.iter().rev().try_for_each(|name| rustix::mount::unmount(*name, UnmountFlags::DETACH));
    mounted.and(detached.map_err(Into::into))
}

/// Empties the directory of names. Never what they lead to: a name that is still a mount point is `EBUSY`.
fn clear_names(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn link_lowers(dir: &Path, lowers: &[&Path]) -> io::Result<()> {
    let mut numbered = lowers.iter().enumerate();
    numbered.try_for_each(|(n, lower)| std::os::unix::fs::symlink(lower, dir.join(n.to_string())))
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

/// As [`bind`], for a directory, with the numbers of a user namespace for those on the disk.
pub fn bind_mapped(source: &Path, target: &Path, ids: &Namespaces) -> Result<()> {
    attach_mapped(source, target, &ids.user)
        .during(|| format!("show {} at {} by mapped numbers", source.display(), target.display()))
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
                ids: None,
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
    fn a_lower_directory_can_be_there_twice() {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        // Mapped, the tree is reached as another user.
        std::fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let p = |s: &str| base.path().join(s);
        for d in ["below/d", "twice/d", "between", "plain/layer/fs", "mapped/layer/fs", "root"] {
            std::fs::create_dir_all(p(d)).unwrap();
        }
        for f in ["below/d/old", "below/gone", "twice/d/new"] {
            std::fs::write(p(f), f).unwrap();
        }
        let whiteout = |path: &str| {
            let (kind, mode) = (rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0));
            rustix::fs::mknodat(rustix::fs::CWD, p(path), kind, mode, 0).unwrap();
        };
        // The layer in between undoes what the lower copy did, the upper copy does it again.
        whiteout("twice/gone");
        whiteout("between/d");
        std::fs::write(p("between/gone"), "back").unwrap();
        let mapped = Namespaces::new(0x7900_0000).unwrap();
        for (name, ids) in [("plain", None), ("mapped", Some(&mapped))] {
            std::fs::create_dir(p(name).join("work")).unwrap();
            in_namespace(|| {
                overlay(&Overlay {
                    lowers: ["twice", "between", "twice", "below"].map(p).into(),
                    base: p(name),
                    upper: "layer/fs".into(),
                    work: "work".into(),
                    target: p("root"),
                    ids,
                })
                .unwrap_or_else(|e| panic!("{name}: {e}"));
                let seen = |dir: &str| -> Vec<_> {
                    std::fs::read_dir(p(dir)).unwrap().map(|e| e.unwrap().file_name()).collect()
                };
                assert_eq!((seen("root"), seen("root/d")), (vec!["d".into()], vec!["new".into()]), "{name}");
                unmount(&p("root")).unwrap();
            });
        }
    }

    #[test]
    fn too_many_layers() {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        let o = Overlay {
            lowers: (0..=MAX_LOWERS).map(|n| format!("/{n}").into()).collect(),
            base: base.path().into(),
            upper: "u".into(),
            work: "w".into(),
            target: base.path().into(),
            ids: None,
        };
        assert_eq!(overlay(&o).unwrap_err().errno(), Some(libc::E2BIG));
    }
}
