//! What a node fetches to copy its image to its disk (hybrid boot), identified by its address.
//!
//! | path below `/node/` | answer |
//! |---|---|
//! | `boot-mode` | `auto`, `network`, `hybrid-volatile` or `hybrid-persistent`: what the node is to look for |
//! | `<view>/layers` | the layers of the view, below; 503 while the server prepares them |
//! | `<view>/layers/<key>` | the tar of one of them ([`walt_images::NodeTar`]) |
//!
//! The view must be granted to the node: it has mounted it, and the server keeps it. The list of layers is text:
//! ```text
//! layer <key> <bytes of the tar> <SHA-256 of the tar> <KiB on a disk> <seal>      lowest first
//! attributed <path of a file in the last of them>                                if there is one
//! end
//! ```
//! Everything here may block on the disk.

use crate::{
    actions::app::App,
    base::db::NodeRow,
    services::{
        images::{
            node_tars::{self, Tars},
            platform,
        },
        nodes,
    },
};
use anyhow::Result;
use std::{net::Ipv4Addr, sync::Arc};
use walt_images::{NodeTar, NodeTarKey, NodeTarReader, View};
use walt_types::ViewId;

/// Where these paths are.
pub const ROOT: &str = "/node/";

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    BootMode,
    Layers(ViewId),
    Tar(ViewId, NodeTarKey),
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// A text.
    Text(String),
    /// The tar of a layer.
    Tar(NodeTar),
    /// It is not ready yet; the text says how far it is.
    Later(String),
    /// It does not exist, or is not for this machine.
    Missing,
}

fn wanted(path: &str) -> Option<Wanted> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["boot-mode"] => Some(Wanted::BootMode),
        [view, "layers"] => Some(Wanted::Layers(view.parse().ok()?)),
        [view, "layers", key] => Some(Wanted::Tar(view.parse().ok()?, key.parse().ok()?)),
        _ => None,
    }
}

/// What the path (below [`ROOT`]) is for the machine at this address. Called within the runtime.
///
/// # Errors
/// The server failed.
pub fn answer(app: &Arc<App>, peer: Ipv4Addr, path: &str) -> Result<Answer> {
    let Some(wanted) = wanted(path) else { return Ok(Answer::Missing) };
    let Some(node) = app.db().with(|c| NodeRow::by_ip(c, peer))? else { return Ok(Answer::Missing) };
    match wanted {
        Wanted::BootMode => Ok(Answer::Text(format!("{}\n", nodes::boot_mode(app.nodes(), &node)?))),
        Wanted::Layers(view) => match granted(app, &node, &view)? {
            None => Ok(Answer::Missing),
            Some(view) => Ok(match node_tars::of(app.images(), &view)? {
                Tars::Making(ready) => Answer::Later(format!("{ready} layers are ready\n")),
                Tars::Ready(tars) => Answer::Text(list(&view, &tars)),
            }),
        },
        Wanted::Tar(view, key) => {
            let Some(view) = granted(app, &node, &view)? else { return Ok(Answer::Missing) };
            let layers = node_tars::layers_of(&view);
            for (below, layer) in layers.iter().enumerate() {
                if layer == key.layer()
                    && let Some(tar) = app.store().node_tar(&layers[..=below])?
                    && tar.key == key
                {
                    return Ok(Answer::Tar(tar));
                }
            }
            Ok(Answer::Missing)
        }
    }
}

fn granted(app: &App, node: &NodeRow, view: &ViewId) -> Result<Option<Arc<View>>> {
    let grants = app.db().with(|c| NodeRow::grants(c, node.mac))?;
    if !grants.contains(view) {
        return Ok(None);
    }
    match app.store().view_by_id(view) {
        Err(walt_images::Error::Missing { .. }) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn list(view: &View, tars: &[NodeTar]) -> String {
    let mut text = String::new();
    for NodeTar { key, bytes, sha256, unpacked_kib, seal } in tars {
        text.push_str(&format!("layer {key} {bytes} {sha256} {unpacked_kib} {seal}\n"));
    }
    // A path that is not text is one that no script of ours finds either.
    if let Some(path) = platform::attributed(view).and_then(|path| String::from_utf8(path).ok()) {
        text.push_str(&format!("attributed {path}\n"));
    }
    text + "end\n"
}

/// Opens a tar at an offset.
///
/// # Errors
/// The server failed.
pub fn open(app: &App, tar: &NodeTar, offset: u64) -> Result<NodeTarReader> {
    Ok(app.store().open_node_tar(&tar.key, offset)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_paths_mean() {
        let digest = "ab".repeat(32);
        let view: ViewId = digest.parse().unwrap();
        let key = format!("{digest}-{}", "01".repeat(32));
        assert_eq!(wanted("boot-mode"), Some(Wanted::BootMode));
        assert_eq!(wanted(&format!("{digest}/layers")), Some(Wanted::Layers(view)));
        let tar = wanted(&format!("{digest}/layers/{key}"));
        assert_eq!(tar, Some(Wanted::Tar(view, key.parse().unwrap())));
        for bad in [
            "",
            "boot-mode/",
            "x/layers",
            "layers",
            &format!("{digest}/layers/"),
            &format!("{digest}/layers/../x"),
        ] {
            assert_eq!(wanted(bad), None, "{bad}");
        }
    }
}
