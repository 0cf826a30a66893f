//! Pins: objects that operations under way have made or need. Housekeeping does not remove them.
//!
//! Pins are kept in memory and end with the server: if a build or download is killed, housekeeping removes its layers
//! later.

use parking_lot::{Mutex, MutexGuard};
use std::{collections::BTreeMap, sync::Arc};
use walt_images::Live;
use walt_types::{DiffId, ImageId};

#[derive(Debug, Default)]
struct Counts {
    layers: BTreeMap<DiffId, usize>,
    images: BTreeMap<ImageId, usize>,
    sessions: BTreeMap<String, usize>,
}

/// All pins of a server.
#[derive(Debug, Default, Clone)]
pub struct Pins(Arc<Mutex<Counts>>);

/// Pins of one operation, released when dropped.
#[derive(Debug)]
pub struct Pinned {
    pins: Pins,
    layers: Vec<DiffId>,
    images: Vec<ImageId>,
    sessions: Vec<String>,
}

impl Pins {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic cannot leave the counts half changed.
        self.0.lock()
    }

    /// An operation without pins.
    pub fn begin(&self) -> Pinned {
        Pinned { pins: self.clone(), layers: Vec::new(), images: Vec::new(), sessions: Vec::new() }
    }

    /// Adds the pinned objects to the live ones.
    pub fn add_to(&self, live: &mut Live) {
        let counts = self.counts();
        live.layers.extend(counts.layers.keys().copied());
        live.images.extend(counts.images.keys().copied());
        live.sessions.extend(counts.sessions.keys().cloned());
    }
}

impl Pinned {
    /// Pins a layer. The layer must have been found in the store under a
    /// [`Writing`](crate::services::images::writers::Writing) that is still held.
    pub fn layer(&mut self, layer: DiffId) {
        *self.pins.counts().layers.entry(layer).or_default() += 1;
        self.layers.push(layer);
    }

    /// Pins an image with its layers, as [`Pinned::layer`].
    pub fn image(&mut self, image: ImageId) {
        *self.pins.counts().images.entry(image).or_default() += 1;
        self.images.push(image);
    }

    /// Pins a directory below `sessions/`, by its name.
    pub fn session(&mut self, name: &str) {
        *self.pins.counts().sessions.entry(name.to_owned()).or_default() += 1;
        self.sessions.push(name.to_owned());
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, keys: &[K]) {
            for key in keys {
                if let Some(count) = counts.get_mut(key) {
                    *count -= 1;
                }
            }
            counts.retain(|_, count| *count > 0);
        }
        let mut counts = self.pins.counts();
        less(&mut counts.layers, &self.layers);
        less(&mut counts.images, &self.images);
        less(&mut counts.sessions, &self.sessions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_types::Hash256;

    #[test]
    fn what_two_hold_stays_until_both_let_go() {
        let pins = Pins::default();
        let layer = DiffId(Hash256([1; 32]));
        let (mut one, mut two) = (pins.begin(), pins.begin());
        one.layer(layer);
        two.layer(layer);
        let held = || {
            let mut live = Live::default();
            pins.add_to(&mut live);
            live.layers.contains(&layer)
        };
        drop(one);
        assert!(held());
        drop(two);
        assert!(!held());
    }
}
