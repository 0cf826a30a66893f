//! Layers as tars that nodes unpack on their own disks (hybrid boot), by the tar of busybox.
//!
//! ```text
//! <state>/images/node-tars/<key>/skeleton   the tar without the payloads
//! <state>/images/node-tars/<key>/sums       what else a node has to know of it
//! ```
//! busybox ignores PAX headers, sets the owner and time of no symbolic link, sets times of directories before their
//! entries are made, and knows neither sparse files nor attributes. So a tar has, next to the layer itself:
//!
//! | member | what |
//! |---|---|
//! | `fs/…` | the layer as a lower directory for overlayfs: whiteouts are devices 0:0, there are no opaque directories |
//! | `dirs` | a tar with the directories alone, to be unpacked last |
//! | `links` | pairs of `<uid>:<gid>` and a symbolic link, for those that are not root's |
//! | `sparse`, `data/<n>` | triples of a file with large holes, its size, and the regions that `data/<n>` has, in MiB |
//! | `entries`, `files` | names to be checked: all, and the files whose content is |
//!
//! Names in lists begin with `./`, are relative to `fs`, and end with NUL. Nodes check a copy by its *seal*: the SHA-256
//! of `stat -c '%f %u %g %N'` of all entries, of the content of all files, and of the regions of sparse files.
//!
//! The *key* of a tar names everything that it depends on. That is the layer alone, unless the layer has opaque
//! directories (they become whiteouts of what is below) or leaves out parent directories (they have the metadata of those
//! below): then it is also the layers below.
//!
//! Limits: attributes are left out ([`crate::Attributed`] has those that nodes get); times are whole seconds.

mod make;
mod read;

pub use read::NodeTarReader;

use crate::{
    error::{Context, Error, Result},
    layer::skeleton::SkeletonReader,
    store::Store,
};
use sha2::{Digest, Sha256};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};
use walt_types::{DiffId, Hash256};

/// First line of `sums`: incremented when the same layers give another tar.
const VERSION: &str = "walt node tar 1";

/// Names a tar: the layer, and a digest of the layers below if it depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeTarKey {
    layer: DiffId,
    below: Option<Hash256>,
}

impl NodeTarKey {
    /// The layer.
    pub fn layer(&self) -> &DiffId {
        &self.layer
    }

    fn alone(layer: DiffId) -> Self {
        Self { layer, below: None }
    }

    fn over(layer: DiffId, below: &[DiffId]) -> Self {
        let mut hash = Sha256::new();
        for layer in below {
            hash.update(layer.0.0);
        }
        Self { layer, below: Some(Hash256(hash.finalize().into())) }
    }
}

impl fmt::Display for NodeTarKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.below {
            None => write!(f, "{}", self.layer),
            Some(below) => write!(f, "{}-{below}", self.layer),
        }
    }
}

/// A text is not a [`NodeTarKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a layer's tar")]
pub struct BadKey;

impl FromStr for NodeTarKey {
    type Err = BadKey;

    fn from_str(text: &str) -> std::result::Result<Self, BadKey> {
        let (layer, below) = match text.split_once('-') {
            None => (text, None),
            Some((layer, below)) => (layer, Some(below.parse().map_err(|_| BadKey)?)),
        };
        let key = Self { layer: layer.parse().map_err(|_| BadKey)?, below };
        // Other spellings of a digest would be names of other files.
        if key.to_string() == text { Ok(key) } else { Err(BadKey) }
    }
}

/// What a node has to know of a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTar {
    /// Its name.
    pub key: NodeTarKey,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: Hash256,
    /// Room that its files take on a disk, in KiB.
    pub unpacked_kib: u64,
    /// What the unpacked files are checked by.
    pub seal: Hash256,
}

impl Store {
    fn node_tars(&self) -> PathBuf {
        self.images_dir().join("node-tars")
    }

    /// The tar of the topmost of `layers` (lowest first), if it was made.
    ///
    /// # Errors
    /// The disk failed.
    pub fn node_tar(&self, layers: &[DiffId]) -> Result<Option<NodeTar>> {
        let Some((top, below)) = layers.split_last() else { return Ok(None) };
        for key in [NodeTarKey::alone(*top), NodeTarKey::over(*top, below)] {
            match self.read_node_tar(key) {
                Ok(tar) => return Ok(Some(tar)),
                Err(Error::Missing { .. } | Error::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn read_node_tar(&self, key: NodeTarKey) -> Result<NodeTar> {
        let dir = self.node_tars().join(key.to_string());
        let path = dir.join("sums");
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { kind: "tar for nodes of layer", id: key.layer.to_string() });
            }
            other => other.on("read", &path)?,
        };
        let mut lines = text.lines();
        let version = lines.next();
        let kib = lines.next().and_then(|line| line.parse().ok());
        let seal = lines.next().and_then(|line| line.parse().ok());
        let (Some(VERSION), Some(unpacked_kib), Some(seal)) = (version, kib, seal) else {
            return Err(Error::Damaged { path, why: "it is not a list of sums of this version".into() });
        };
        let info = SkeletonReader::open(&dir.join("skeleton"))?.info();
        Ok(NodeTar { key, bytes: info.size, sha256: info.diff_id.0, unpacked_kib, seal })
    }

    /// Removes the tars of layers that are not in the store any more; their number.
    ///
    /// # Errors
    /// The disk failed.
    pub fn remove_old_node_tars(&self) -> Result<usize> {
        let dir = self.node_tars();
        let mut removed = 0;
        for entry in fs::read_dir(&dir).on("list", &dir)? {
            let name = entry.on("list", &dir)?.file_name();
            let key: Option<NodeTarKey> = name.to_str().and_then(|name| name.parse().ok());
            if !key.is_some_and(|key| self.has_layer(&key.layer)) {
                remove(&dir.join(name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = fs::remove_dir_all(path).or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => fs::remove_file(path),
    });
    removed.on("remove", path)
}
