//! The image store: layers, views, configurations, and how a change becomes a layer.
//!
//! ```text
//! <state>/images/layers/<hex diff-id>/fs          the layer as an overlayfs lower directory (whiteouts: 0:0 devices)
//! <state>/images/layers/<hex diff-id>/skeleton    its tar without the payloads; export replays it
//! <state>/images/layers/<hex diff-id>/implied     directories whose metadata are those of the layer below
//! <state>/images/configs/<hex image-id>.json      the OCI image configuration, bytes as they came
//! <state>/images/blobs/<hex digest>               compressed layers of images that were pushed to us, as they came
//! <state>/images/views/<view id>                  index files of views
//! <state>/images/node-tars/                          what nodes with hybrid boot copy: see `node_tar`
//! <state>/images/tmp/                             unfinished layers and blobs; emptied at start
//! <state>/sessions/<id>/layer/fs                  a session's upper directory; the rest belongs to walt-container
//! ```
//!
//! A *layer* is made by [`Store::import_tar`] (a tar from outside), [`Store::build_layer`] (from memory),
//! [`Store::prepare_commit`] and [`Store::adopt_layer`] (the upper directory of an overlay) or [`Store::compose`] (entries
//! put on top of a view, without a mount). It never changes afterwards. A [`View`] is the merged tree of an image's layers
//! and the platform layer, with numbered entries.
//!
//! The store does not know which objects are needed: references are in the caller's database, which passes what is [`Live`]
//! to [`Store::remove_unreferenced`] and [`Store::audit`]. Long work is cancelled by [`cancel`].
//!
//! ```text
//! commit:  upper ──prepare_commit──▶ (nothing changed)
//!                        │
//!                        └─▶ layer/{fs,skeleton,implied} durable ──adopt_layer──▶ layers/<hex> durable
//! ```
//!
//! Limits: 125 layers of an image ([`MAX_LAYERS`]), 4 million entries and 1 TiB (apparent) for a layer, paths of 4091
//! bytes, [`MAX_LINKS`] links followed in a path, extended headers of 1 MiB, 32 views in memory, 512 MiB of files whose
//! attributes reach a node ([`Attributed`]). A layer is keyed by its diff-id only: if its tar leaves out parent
//! directories, a mount shows these as they were below it when it was first imported, while views always take them from
//! the layers below. Renaming a lower directory in a session is a copy, and writing through one name of a hard-link group
//! of a lower layer splits the group (overlayfs without `redirect_dir` and `index`).

pub mod archive;
mod attributed;
mod audit;
mod blobs;
pub mod cancel;
mod commit;
mod compose;
pub mod compression;
mod config;
mod diff;
mod error;
mod export;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod layer;
mod node_tar;
mod pack;
mod save_rules;
mod squash;
mod store;
mod view;

pub use attributed::{Attributed, Omission};
pub use audit::{Audit, Fault, Finding, Object};
pub use blobs::NewBlob;
pub use commit::{LeftOut, Prepared};
pub use compose::{Composed, Composer, Edit, Last, Meta};
pub use config::{History, ImageConfig, RootFs, RunConfig, digest_of};
pub use diff::{Change, Difference, diff};
pub use error::{Error, Result};
pub use gc::{GcReport, Live, Totals};
pub use layer::{attributes::Skipped, holes::digest as file_digest, scan::Kind, skeleton::LayerInfo};
pub use node_tar::{BadKey, NodeTar, NodeTarKey, NodeTarReader};
pub use save_rules::{EMPTIED, Rule, SaveRules, When};
pub use store::{MAX_FOREIGN_LAYERS, MAX_LAYERS, NewEntry, NewKind, Store, Temporary, Unpacked};
pub use view::{Entry, INDEX_VERSION, MAX_LINKS, View};
pub use walt_tar::Time;
