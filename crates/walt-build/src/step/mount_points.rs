//! Mount points that an image lacks.

use rustix::fs::{AtFlags, FileType, Mode as FileMode, OFlags, ResolveFlags, Timespec, Timestamps};
use std::{collections::BTreeMap, os::fd::OwnedFd, path::Path};
use walt_container::{Error, Result};
use walt_images::MAX_LINKS;
use walt_sys::userns;
use walt_tar::paths::{join, split};

/// Mount points that the image lacks: made before the command, and removed after it unless it has used them.
pub(super) struct MountPoints {
    root: OwnedFd,
    /// The number of the tree's root user.
    owner: u32,
    /// Path, whether it is a directory.
    made: Vec<(Vec<u8>, bool)>,
    /// Directories in which a mount point was made: their times before and after.
    touched: BTreeMap<Vec<u8>, (Timespec, Timespec)>,
}

impl MountPoints {
    pub fn new(root: &Path, owner: u32) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, FileMode::empty())
            .map_err(|e| Error::io("open", root, e.into()))?;
        Ok(Self { root: fd, owner, made: Vec::new(), touched: BTreeMap::new() })
    }

    fn at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, FileMode::empty(), how)
    }

    fn stat(&self, path: &[u8]) -> rustix::io::Result<rustix::fs::Stat> {
        rustix::fs::fstat(self.at(path, OFlags::PATH)?)
    }

    /// Resolves a path inside the tree, following symbolic links. Names that do not exist stay.
    fn real(&self, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let names = |path: &[u8]| {
            path.split(|b| *b == b'/')
                .rev()
                .filter(|n| !matches!(*n, b"" | b"."))
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        let (mut left, mut at, mut links) = (names(path), Vec::new(), 0);
        while let Some(name) = left.pop() {
            if name == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &name);
            let link = self
                .at(&next, OFlags::PATH | OFlags::NOFOLLOW)
                .and_then(|fd| rustix::fs::readlinkat(fd, "", Vec::new()));
            match link {
                Ok(target) => {
                    links += 1;
                    let target = target.into_bytes();
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    left.extend(names(&target));
                }
                Err(_) => at = next,
            }
        }
        Ok(at)
    }

    /// Calls `f` as the tree's root user.
    fn acting<T: Send>(&mut self, f: impl FnOnce(&mut Self) -> T + Send) -> Result<T> {
        match self.owner {
            0 => Ok(f(self)),
            owner => Ok(userns::acting_on_files(owner, || f(self))?),
        }
    }

    /// Makes a mount point and its parents, unless they exist.
    pub fn make(&mut self, target: &str, dir: bool) -> Result<()> {
        self.acting(|mount_points| mount_points.make_as_root(target, dir))?
    }

    fn make_as_root(&mut self, target: &str, dir: bool) -> Result<()> {
        let failed = |e: rustix::io::Errno| Error::io("make the mount point", Path::new(target), e.into());
        let real = self.real(target.as_bytes()).map_err(failed)?;
        let mut at = Vec::new();
        let names: Vec<&[u8]> = real.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        for (i, name) in names.iter().enumerate() {
            let next = join(&at, name);
            match self.at(&next, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(_) => {}
                Err(rustix::io::Errno::NOENT) => {
                    let is_dir = dir || i + 1 < names.len();
                    let parent = self.at(&at, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
                    let before = self.stat(&at).map(time).map_err(failed)?;
                    if is_dir {
                        rustix::fs::mkdirat(&parent, *name, FileMode::from_raw_mode(0o755))
                            .map_err(failed)?;
                    } else {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        rustix::fs::openat(&parent, *name, flags, FileMode::from_raw_mode(0o644))
                            .map_err(failed)?;
                    }
                    let after = self.stat(&at).map(time).map_err(failed)?;
                    self.touched.entry(at.clone()).and_modify(|t| t.1 = after).or_insert((before, after));
                    self.made.push((next.clone(), is_dir));
                }
                Err(e) => return Err(failed(e)),
            }
            at = next;
        }
        Ok(())
    }

    /// Removes mount points that are still as they were made. Those that the command has used or replaced stay.
    pub fn remove(&mut self) -> Result<()> {
        self.acting(Self::remove_as_root)
    }

    fn remove_as_root(&mut self) {
        while let Some((path, is_dir)) = self.made.pop() {
            let (dir, name) = split(&path);
            let Ok(parent) = self.at(dir, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let as_made = if is_dir { kind.is_dir() } else { kind.is_file() && stat.st_size == 0 };
            let Ok(now) = self.stat(dir).map(time) else { continue };
            let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            if !as_made || rustix::fs::unlinkat(&parent, name, flags).is_err() {
                continue;
            }
            // If the command has not changed the directory, it gets back its old time.
            let last = match self.touched.get(dir) {
                Some((before, after)) if *after == now => *before,
                _ => now,
            };
            let times = Timestamps { last_access: last, last_modification: last };
            let _ = rustix::fs::utimensat(&parent, ".", &times, AtFlags::empty());
            if let Some(touched) = self.touched.get_mut(dir) {
                // The next mount point in the same directory must keep this time.
                *touched = (last, last);
            }
        }
    }
}

fn time(stat: rustix::fs::Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ }
}
