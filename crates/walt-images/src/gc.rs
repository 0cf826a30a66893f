//! Removing what nothing refers to.

use crate::{
    error::{Context, Error, Result},
    store::Store,
    view::view_id,
};
use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
    str::FromStr,
};
use walt_types::{DiffId, Hash256, ImageId, ViewId};

/// What the database refers to.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Images with a reference, and images in use.
    pub images: HashSet<ImageId>,
    /// Layers in addition to those of the images and views: platform layers, layers of a commit in progress.
    pub layers: HashSet<DiffId>,
    /// Blobs that manifests of pushed images refer to.
    pub blobs: HashSet<Hash256>,
    /// Views that nodes run or will boot.
    pub views: HashSet<ViewId>,
    /// Images with the platform layer that an open session sees on top of them: such a view is kept if it exists.
    pub shown: Vec<(ImageId, DiffId)>,
    /// Layers of commits in progress, with their session: they are in the store or in the session's directory.
    pub committing: Vec<(DiffId, String)>,
    /// Sessions by the name of their directory.
    pub sessions: HashSet<String>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Count of configurations.
    pub images: usize,
    /// Count of layers.
    pub layers: usize,
    /// Count of blobs.
    pub blobs: usize,
    /// Count of index files.
    pub views: usize,
    /// Count of session directories.
    pub sessions: usize,
}

/// Names in a directory of the store that are digests of type `T`, with their file name.
fn digests<T: FromStr>(dir: &Path, suffix: &str) -> Result<Vec<(T, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).on("list", dir)? {
        let name = entry.on("list", dir)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(Ok(digest)) = name.strip_suffix(suffix).map(T::from_str) {
            found.push((digest, name.to_owned()));
        }
    }
    Ok(found)
}

/// Contents of the store, whether needed or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Count of configurations.
    pub images: usize,
    /// Count of layers.
    pub layers: usize,
    /// TarDigest of the sizes of the layers' tars, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Counts the contents of the store. An unreadable layer counts with 0 bytes.
    pub fn totals(&self) -> Result<Totals> {
        let images = self.images_dir();
        let layers = digests::<DiffId>(&images.join("layers"), "")?;
        Ok(Totals {
            images: digests::<ImageId>(&images.join("configs"), ".json")?.len(),
            layers: layers.len(),
            bytes: layers.iter().filter_map(|(id, _)| self.layer_info(id).ok()).map(|info| info.size).sum(),
        })
    }

    /// Layers and views that `live` needs: its own, and those of its images and sessions.
    fn needed(&self, live: &Live) -> Result<(BTreeSet<DiffId>, BTreeSet<ViewId>)> {
        let mut layers: BTreeSet<DiffId> = live.layers.iter().copied().collect();
        let mut views: BTreeSet<ViewId> = live.views.iter().copied().collect();
        for image in &live.images {
            let own = self.config(image)?.layers()?;
            // A save compares with the tree without the platform layer.
            views.insert(view_id(&own, None));
            for (_, platform) in live.shown.iter().filter(|(i, _)| i == image) {
                views.insert(view_id(&own, Some(platform)));
            }
            layers.extend(own);
        }
        for view in &live.views {
            match self.view_layers(view) {
                Ok(list) => layers.extend(list),
                // A view that cannot be loaded keeps nothing alive; using it fails with an error.
                Err(Error::Missing { .. } | Error::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok((layers, views))
    }

    /// Removes configurations, layers, index files and session directories that `live` does not name or need.
    ///
    /// The caller makes sure that nothing is imported, built or committed meanwhile, that sessions under recovery are
    /// in `live`, and that only sessions in `live` have a mounted overlay. Fails before removing anything if a live
    /// image cannot be read.
    pub fn remove_unreferenced(&self, live: &Live) -> Result<GcReport> {
        let mut report = GcReport::default();
        let (layers, needed_views) = self.needed(live)?;
        let images = self.images_dir();
        let configs = images.join("configs");
        for (image, name) in digests::<ImageId>(&configs, ".json")? {
            if !live.images.contains(&image) {
                remove(&configs.join(name))?;
                report.images += 1;
            }
        }
        self.views.lock().forget(|id| !needed_views.contains(id));
        let blobs = images.join("blobs");
        for (blob, name) in digests::<Hash256>(&blobs, "")? {
            if !live.blobs.contains(&blob) {
                remove(&blobs.join(name))?;
                report.blobs += 1;
            }
        }
        let views = images.join("views");
        for (view, name) in digests::<ViewId>(&views, "")? {
            if !needed_views.contains(&view) {
                remove(&views.join(name))?;
                report.views += 1;
            }
        }
        for entry in fs::read_dir(self.sessions_dir()).on("list", self.sessions_dir())? {
            let entry = entry.on("list", self.sessions_dir())?;
            if !entry.file_name().to_str().is_some_and(|name| live.sessions.contains(name)) {
                remove(&entry.path())?;
                report.sessions += 1;
            }
        }
        let dir = images.join("layers");
        for (layer, name) in digests::<DiffId>(&dir, "")? {
            if !layers.contains(&layer) {
                // Moved away first: a crash leaves a whole layer or none.
                let away = images.join("tmp").join(&name);
                fs::rename(dir.join(&name), &away).on("move away", &away)?;
                remove(&away)?;
                report.layers += 1;
            }
        }
        Ok(report)
    }
}

fn remove(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).on("remove", path)?;
    if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.on("remove", path)
}
