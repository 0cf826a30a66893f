//! Incomplete pushes: blobs that wait for their manifest, and manifests that wait for their index.
//!
//! They are kept in memory, with files in the store's `tmp`, and lost when the server ends. Layers of waiting
//! manifests are in the store, and pinned.
//!
//! Limits per user: [`MAX_UPLOADS`] uploads and waiting blobs with [`MAX_WAITING`] bytes in total, each of at most
//! [`MAX_BLOB`](walt_registry::manifest::MAX_BLOB) bytes; [`MAX_MANIFESTS`] manifests with [`MAX_MANIFEST_BYTES`] in
//! total. Whatever is not used for [`KEEP`] is dropped.

use crate::{base::db::Document, services::images::pins::Pinned};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use walt_images::NewBlob;
use walt_types::{Hash256, ImageId, UserName};

/// Uploads and waiting blobs of one user.
const MAX_UPLOADS: usize = 512;
/// Total bytes of these, at which new uploads are refused.
const MAX_WAITING: u64 = 64 << 30;
/// Manifests of one user that wait for an index.
const MAX_MANIFESTS: usize = 256;
/// Total bytes of these manifests, which are in memory.
const MAX_MANIFEST_BYTES: usize = 16 << 20;
/// How long they are kept unused.
const KEEP: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Pending<T> {
    what: T,
    user: UserName,
    touched: Instant,
}

impl<T> Pending<T> {
    fn new(what: T, user: &UserName) -> Self {
        Self { what, user: user.clone(), touched: Instant::now() }
    }
}

/// A manifest that was pushed by its digest.
#[derive(Debug)]
pub struct Child {
    /// The manifest.
    pub document: Document,
    /// Its image, in the store, if it is an image for nodes.
    pub image: Option<ImageId>,
    /// Blobs to keep with it: waiting, or in the store.
    pub blobs: Vec<Hash256>,
    /// Pins the image.
    pub _pinned: Pinned,
}

/// The user, the repository, and the digest.
type ChildKey = (UserName, String, Hash256);

/// All incomplete pushes.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By id, except those that are being written to.
    open: HashMap<String, Pending<NewBlob>>,
    /// By user and digest.
    complete: HashMap<(UserName, Hash256), Pending<Arc<NewBlob>>>,
    children: HashMap<ChildKey, Pending<Arc<Child>>>,
}

impl Uploads {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock();
        state.open.retain(|_, w| w.touched.elapsed() < KEEP);
        state.complete.retain(|_, w| w.touched.elapsed() < KEEP);
        state.children.retain(|_, w| w.touched.elapsed() < KEEP);
        state
    }

    /// Drops whatever has waited for too long.
    pub fn drop_old(&self) {
        drop(self.state());
    }

    /// Whether a user may begin another upload.
    pub fn has_room(&self, user: &UserName) -> bool {
        let state = self.state();
        let open = state.open.values().filter(|w| w.user == *user).map(|w| w.what.size());
        let complete = state.complete.values().filter(|w| w.user == *user).map(|w| w.what.size());
        let (count, bytes) = open.chain(complete).fold((0, 0), |(n, sum), size| (n + 1, sum + size));
        count < MAX_UPLOADS && bytes < MAX_WAITING
    }

    /// Removes an upload of a user, to write to it.
    pub fn take(&self, user: &UserName, id: &str) -> Option<NewBlob> {
        let mut state = self.state();
        match state.open.get(id) {
            Some(waiting) if waiting.user == *user => state.open.remove(id).map(|w| w.what),
            _ => None,
        }
    }

    /// Keeps an unfinished upload.
    pub fn put_back(&self, user: &UserName, id: &str, blob: NewBlob) {
        self.state().open.insert(id.to_owned(), Pending::new(blob, user));
    }

    /// Keeps a complete blob.
    pub fn add(&self, user: &UserName, blob: NewBlob) {
        let digest = blob.digest();
        self.state().complete.insert((user.clone(), digest), Pending::new(Arc::new(blob), user));
    }

    /// A complete blob of a user that waits for its manifest.
    pub fn complete(&self, user: &UserName, digest: &Hash256) -> Option<Arc<NewBlob>> {
        let mut state = self.state();
        let waiting = state.complete.get_mut(&(user.clone(), *digest))?;
        waiting.touched = Instant::now();
        Some(waiting.what.clone())
    }

    /// Removes a blob, once it is stored elsewhere.
    pub fn forget(&self, user: &UserName, digest: &Hash256) {
        self.state().complete.remove(&(user.clone(), *digest));
    }

    /// Keeps a manifest until its index arrives; false if too many manifests of its user wait.
    pub fn add_child(&self, user: &UserName, repository: &str, child: Child) -> bool {
        let key = (user.clone(), repository.to_owned(), child.document.digest);
        let mut state = self.state();
        let others = state.children.iter().filter(|(k, w)| w.user == *user && **k != key);
        let (count, bytes) =
            others.fold((0, 0), |(n, sum), (_, w)| (n + 1, sum + w.what.document.bytes.len()));
        let has_room = count < MAX_MANIFESTS && bytes + child.document.bytes.len() <= MAX_MANIFEST_BYTES;
        if has_room {
            state.children.insert(key, Pending::new(Arc::new(child), user));
        }
        has_room
    }

    /// A manifest that waits for its index; renews its time and that of its blobs.
    pub fn child(&self, user: &UserName, repository: &str, digest: &Hash256) -> Option<Arc<Child>> {
        let mut state = self.state();
        let waiting = state.children.get_mut(&(user.clone(), repository.to_owned(), *digest))?;
        let now = Instant::now();
        waiting.touched = now;
        let child = waiting.what.clone();
        for blob in &child.blobs {
            if let Some(waiting) = state.complete.get_mut(&(user.clone(), *blob)) {
                waiting.touched = now;
            }
        }
        Some(child)
    }

    /// Removes a manifest, once it is stored with its index.
    pub fn forget_child(&self, user: &UserName, repository: &str, digest: &Hash256) {
        self.state().children.remove(&(user.clone(), repository.to_owned(), *digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::images::pins::Pins;

    #[test]
    fn manifests_that_wait_have_bounds() {
        let uploads = Uploads::default();
        let [ann, bob]: [UserName; 2] = ["ann", "bob"].map(|n| n.parse().unwrap());
        let child = |number: u32, size: usize| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            let document =
                Document { digest: Hash256(digest), media_type: String::new(), bytes: vec![0; size] };
            Child { document, image: None, blobs: Vec::new(), _pinned: Pins::default().begin() }
        };
        for number in 0..MAX_MANIFESTS as u32 {
            assert!(uploads.add_child(&ann, "x", child(number, 1)), "{number}");
        }
        assert!(!uploads.add_child(&ann, "x", child(9999, 1)), "one too many");
        assert!(uploads.add_child(&ann, "x", child(5, 2)), "one that waits already takes its own place");
        assert!(uploads.add_child(&bob, "x", child(9999, MAX_MANIFEST_BYTES)), "others have room");
        assert!(!uploads.add_child(&bob, "x", child(1, 1)), "too many bytes");

        let digest = child(5, 1).document.digest;
        assert!(uploads.child(&ann, "x", &digest).is_some());
        assert!(uploads.child(&ann, "y", &digest).is_none() && uploads.child(&bob, "x", &digest).is_none());
        uploads.forget_child(&ann, "x", &digest);
        assert!(uploads.child(&ann, "x", &digest).is_none());
    }
}
