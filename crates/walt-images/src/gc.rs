//! Removing what nothing refers to, and finding what is missing or damaged.

use crate::{
    error::{Context, Error, Result},
    store::Store,
};
use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::Path,
    str::FromStr,
    sync::PoisonError,
};
use walt_types::{DiffId, ImageId, ViewId};

/// What the database refers to.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Images with a reference, or in use.
    pub images: HashSet<ImageId>,
    /// Layers beyond those of the images and views: platform layers, layers of a commit under way.
    pub layers: HashSet<DiffId>,
    /// Views that nodes run.
    pub views: HashSet<ViewId>,
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
    /// Count of index files.
    pub views: usize,
    /// Count of session directories.
    pub sessions: usize,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind and name of the object.
    pub what: String,
    /// A sentence.
    pub why: String,
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

impl Store {
    /// Layers that `live` needs: its own, and those of its images and views.
    fn live_layers(&self, live: &Live) -> Result<BTreeSet<DiffId>> {
        let mut layers: BTreeSet<DiffId> = live.layers.iter().copied().collect();
        for image in &live.images {
            layers.extend(self.config(image)?.layers()?);
        }
        for view in &live.views {
            match self.view_by_id(view) {
                Ok(view) => layers.extend(view.layers().iter().chain(view.platform())),
                // A view that cannot be loaded holds nothing: whoever uses it is told when it does.
                Err(Error::Missing { .. } | Error::Damaged { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(layers)
    }

    /// Removes configurations, layers, index files and session directories that `live` does not name or need.
    ///
    /// The caller sees to it that nothing is imported, built or committed meanwhile, that sessions under recovery are in
    /// `live`, and that no session's overlay is mounted unless it is in `live`. Fails before removing anything if a live
    /// image cannot be read.
    pub fn remove_unreferenced(&self, live: &Live) -> Result<GcReport> {
        let mut report = GcReport::default();
        let layers = self.live_layers(live)?;
        let images = self.images_dir();
        let configs = images.join("configs");
        for (image, name) in digests::<ImageId>(&configs, ".json")? {
            if !live.images.contains(&image) {
                remove(&configs.join(name))?;
                report.images += 1;
            }
        }
        self.views.lock().unwrap_or_else(PoisonError::into_inner).forget(|id| !live.views.contains(id));
        let views = images.join("views");
        for (view, name) in digests::<ViewId>(&views, "")? {
            if !live.views.contains(&view) {
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
                // Out of the way first: a crash leaves a whole layer or none.
                let away = images.join("tmp").join(&name);
                fs::rename(dir.join(&name), &away).on("move away", &away)?;
                remove(&away)?;
                report.layers += 1;
            }
        }
        Ok(report)
    }

    /// Looks at everything that `live` needs: configurations, layers (their whole content is hashed) and index files.
    pub fn check(&self, live: &Live) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let mut note = |what: String, error: Error| problems.push(Problem { what, why: error.to_string() });
        let mut layers: BTreeSet<DiffId> = live.layers.iter().copied().collect();
        for image in &live.images {
            match self.config(image).and_then(|c| c.layers()) {
                Ok(list) => layers.extend(list),
                Err(e) => note(format!("image {image}"), e),
            }
        }
        for view in &live.views {
            match self.view_by_id(view) {
                Ok(view) => layers.extend(view.layers().iter().chain(view.platform())),
                Err(e) => note(format!("view {view}"), e),
            }
        }
        for layer in layers {
            if let Err(e) = self.export_layer(&layer, io::sink()) {
                note(format!("layer {layer}"), e);
            }
        }
        Ok(problems)
    }
}

fn remove(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).on("remove", path)?;
    if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.on("remove", path)
}
