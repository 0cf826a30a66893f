//! Findings of a check of the image store.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use walt_types::{DiffId, ImageId, ViewId};

/// Answer of [`route::STORE`](crate::route::STORE): the contents of the image store, at a moment when nothing changes it. The
/// digests are for a program that reads the store's files, such as `walt-server check-store`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreLook {
    /// Number of references to images.
    pub references: usize,
    /// Number of open sessions.
    pub sessions: usize,
    /// Images in use whose configuration is valid.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub images: BTreeSet<ImageId>,
    /// Layers in use that exist.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub layers: BTreeSet<DiffId>,
    /// Views in use whose index file exists.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub views: BTreeSet<ViewId>,
    /// Objects that are missing, damaged or orphaned.
    pub findings: Vec<StoreFinding>,
}

/// Something wrong in the image store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreFinding {
    /// Kind and name: `image <hex>`, `layer <hex>`, `view <hex>`, `session <id>`, `reference <name>`, `node
    /// <name>`, or a path.
    pub object: String,
    /// What is wrong with it.
    pub fault: StoreFault,
    /// A sentence for people.
    pub message: String,
}

/// Ways in which an object of the store can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StoreFault {
    /// It is needed but does not exist.
    Missing,
    /// It exists, but its contents are not what was written.
    Damaged,
    /// It exists, but nothing needs it.
    Orphan,
}
