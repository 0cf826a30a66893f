//! What a check of the image store finds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use walt_types::{DiffId, ImageId, ViewId};

/// Answer of [`route::STORE`]: what the image store holds, seen while nobody changes it. The digests in it
/// are for a reader of the store's files, which `walt-server check-store` is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLook {
    /// Number of references to images.
    pub references: usize,
    /// Number of open sessions.
    pub sessions: usize,
    /// Images in use whose configuration is right.
    pub images: BTreeSet<ImageId>,
    /// Layers in use that are there.
    pub layers: BTreeSet<DiffId>,
    /// Views in use whose index file is there.
    pub views: BTreeSet<ViewId>,
    /// What is missing, or needed by nothing.
    pub findings: Vec<StoreFinding>,
}

/// Something in the image store that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreFinding {
    /// Kind and name: `image <hex>`, `layer <hex>`, `view <hex>`, `session <id>`, `reference <name>`, `node
    /// <name>`, or a path.
    pub object: String,
    /// What is wrong with it.
    pub fault: StoreFault,
    /// A sentence.
    pub message: String,
}

/// Ways in which an object of the store can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreFault {
    /// It is needed, and not there.
    Missing,
    /// It is there, and not what was written.
    Damaged,
    /// It is there, and nothing needs it.
    Orphan,
}
