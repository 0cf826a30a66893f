//! Layers as tars for the disks of nodes: made when a node first asks for those of its view, in the background, since all
//! files of the image are read.

use crate::services::images::Images;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
};
use tokio::sync::Semaphore;
use walt_images::{NodeTar, View};
use walt_types::{DiffId, ViewId};

/// Views whose tars are made at the same time; others wait. Reading disks in parallel gains nothing.
const AT_ONCE: usize = 1;

/// Tars that are being made.
pub struct NodeTars {
    turn: Arc<Semaphore>,
    making: Mutex<HashMap<ViewId, Making>>,
}

enum Making {
    Running(Arc<AtomicU32>),
    Failed(String),
}

impl Default for NodeTars {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(AT_ONCE)), making: Mutex::default() }
    }
}

/// The tars of a view's layers.
#[derive(Debug)]
pub enum Tars {
    /// All of them, lowest first.
    Ready(Vec<NodeTar>),
    /// They are being made; so many are ready.
    Making(u32),
}

/// All layers of a view, the platform layer last.
pub fn layers_of(view: &View) -> Vec<DiffId> {
    view.layers().iter().chain(view.platform()).copied().collect()
}

/// The tars of all layers that exist.
fn existing(images: &Images, layers: &[DiffId]) -> walt_images::Result<Option<Vec<NodeTar>>> {
    (1..=layers.len()).map(|count| images.store().node_tar(&layers[..count])).collect()
}

/// The tars of a view's layers; starts to make them if they are missing. Blocks on the disk for a moment.
///
/// # Errors
/// They could not be made, or the disk failed. The next call tries again.
pub fn of(images: &Arc<Images>, view: &View) -> anyhow::Result<Tars> {
    let layers = layers_of(view);
    if let Some(tars) = existing(images, &layers)? {
        images.node_tars().making.lock().remove(view.id());
        return Ok(Tars::Ready(tars));
    }
    let mut making = images.node_tars().making.lock();
    match making.get(view.id()) {
        Some(Making::Running(ready)) => return Ok(Tars::Making(ready.load(Ordering::Relaxed))),
        Some(Making::Failed(why)) => {
            let why = why.clone();
            making.remove(view.id());
            anyhow::bail!(why);
        }
        None => {}
    }
    let ready = Arc::new(AtomicU32::new(0));
    making.insert(*view.id(), Making::Running(ready.clone()));
    tokio::spawn(make(images.clone(), *view.id(), layers, ready));
    Ok(Tars::Making(0))
}

async fn make(images: Arc<Images>, view: ViewId, layers: Vec<DiffId>, ready: Arc<AtomicU32>) {
    // Invariant: it is never closed.
    let _turn = images.node_tars().turn.acquire().await.expect("an open semaphore");
    let (store, count) = (images.clone(), ready);
    let made = tokio::task::spawn_blocking(move || -> walt_images::Result<()> {
        for top in 1..=layers.len() {
            store.store().make_node_tar(&layers[..top])?;
            count.store(top as u32, Ordering::Relaxed);
        }
        Ok(())
    });
    let failed = match made.await {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e.to_string()),
        Err(e) => Some(e.to_string()),
    };
    let mut making = images.node_tars().making.lock();
    match failed {
        None => drop(making.remove(&view)),
        Some(why) => {
            tracing::warn!(%view, "cannot prepare the layers of an image for the disks of nodes: {why}");
            making.insert(view, Making::Failed(why));
        }
    }
}
