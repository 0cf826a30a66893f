//! Reading the merged tree: entries of the new layer, and of the view below it.

use super::{Composer, Last, MAX_LENGTH, MAX_NAME, refuse};
use crate::{error::Result, layer::scan::Kind, view::MAX_LINKS};
use walt_tar::MAX_PATH;
use walt_tar::paths::join;
use walt_tar::paths::split;

impl Composer<'_> {
    /// The number of the view's entry that is visible at `path`, unless the layer has an entry at `path` itself.
    pub(super) fn below(&self, path: &[u8]) -> Option<u32> {
        let mut dir = path;
        while !dir.is_empty() {
            dir = split(dir).0;
            match self.upper.get(dir) {
                Some(upper) if upper.kind != Kind::Dir || upper.opaque => return None,
                _ => {}
            }
        }
        self.view.find(path)
    }

    /// The view's entry that is visible at `path`; `None` if nothing is there, or an entry of this layer.
    pub fn untouched(&self, path: &[u8]) -> Option<u32> {
        if self.upper.contains_key(path) { None } else { self.below(path) }
    }

    /// Type of the entry at a path of the merged tree (from [`Composer::resolve`]); `None` if there is none.
    pub fn kind(&self, path: &[u8]) -> Option<Kind> {
        match self.upper.get(path) {
            Some(upper) => Some(upper.kind).filter(|k| *k != Kind::Whiteout),
            None => self.view.entry(self.below(path)?).map(|e| e.kind),
        }
    }

    pub(super) fn target(&self, path: &[u8]) -> Vec<u8> {
        match self.upper.get(path) {
            Some(upper) => upper.target.clone(),
            None => {
                let entry = self.below(path).and_then(|n| self.view.entry(n));
                entry.map(|e| e.target.to_vec()).unwrap_or_default()
            }
        }
    }

    /// Resolves `path` as the kernel does for a process with the merged tree as its root and working directory. The
    /// result is below the root and free of links; parts that do not exist stay as they are.
    ///
    /// Fails after 40 links, on names over 255 bytes or with NUL, on paths over 4091 bytes, and where a path
    /// continues below something that is not a directory.
    pub fn resolve(&self, path: &[u8], last: Last) -> Result<Vec<u8>> {
        let mut left: Vec<Vec<u8>> = Vec::new();
        let push = |left: &mut Vec<Vec<u8>>, path: &[u8]| {
            let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
            left.extend(parts.rev().map(<[u8]>::to_vec));
        };
        push(&mut left, path);
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(name) = left.pop() {
            if name == b".." {
                at.truncate(split(&at).0.len());
                continue;
            }
            if name.len() > MAX_NAME || name.contains(&0) || at.len() + name.len() >= MAX_LENGTH {
                return Err(refuse(path, "the path or a name in it is too long, or has a NUL byte"));
            }
            let next = join(&at, &name);
            match self.kind(&next) {
                Some(Kind::Symlink) if !left.is_empty() || last == Last::Follow => {
                    links += 1;
                    let target = self.target(&next);
                    if links > MAX_LINKS || left.len() + target.len() > MAX_LINKS * MAX_PATH {
                        return Err(refuse(path, "too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    push(&mut left, &target);
                    continue;
                }
                Some(kind) if kind != Kind::Dir && !left.is_empty() => {
                    return Err(refuse(&next, "it is not a directory"));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }
}
