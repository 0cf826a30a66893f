//! Audit of the store against the database: everything that is needed exists and is what was written, and nothing
//! else exists.
//!
//! There are two steps, a quick one and one that reads every byte. [`Store::audit`] lists directories and reads
//! configurations; the caller makes sure that nobody changes the store meanwhile. [`Store::verify`] hashes layers and
//! rebuilds views from the layers' files. Objects never change, so it needs no lock, but objects that were removed
//! since the audit are reported as missing: the caller audits again and drops findings about objects that are not
//! needed any more ([`Audit::needs`]). Nothing is written.

use crate::{
    error::{Context, Error, Result},
    gc::Live,
    store::Store,
    view::view_id,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};
use walt_types::{DiffId, Hash256, ImageId, ViewId};

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// An image: its configuration.
    Image(ImageId),
    /// A layer.
    Layer(DiffId),
    /// The index file of a view.
    View(ViewId),
    /// The directory of a session.
    Session(String),
    /// A file whose name is not one of the store's.
    File(PathBuf),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(id) => write!(f, "image {id}"),
            Self::Layer(id) => write!(f, "layer {id}"),
            Self::View(id) => write!(f, "view {id}"),
            Self::Session(id) => write!(f, "session {id}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It is needed and does not exist.
    Missing,
    /// It exists and is not what was written.
    Damaged,
    /// It exists and nothing needs it.
    Orphan,
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object.
    pub object: Object,
    /// What is wrong with it.
    pub fault: Fault,
    /// The end of a sentence that begins with the object.
    pub why: String,
}

/// What exists and is needed, and what is already known to be wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Needed images with a valid configuration.
    pub images: BTreeSet<ImageId>,
    /// Needed layers that exist.
    pub layers: BTreeSet<DiffId>,
    /// Needed views with an index file.
    pub views: BTreeSet<ViewId>,
    /// What is missing or orphaned, sorted.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// Whether the object existed and was needed.
    pub fn needs(&self, object: &Object) -> bool {
        match object {
            Object::Image(id) => self.images.contains(id),
            Object::Layer(id) => self.layers.contains(id),
            Object::View(id) => self.views.contains(id),
            Object::Session(_) | Object::File(_) => false,
        }
    }
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).on("list", dir)? {
        names.insert(entry.on("list", dir)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The contents of a directory of the store: objects by their digest, and names that are not digests.
fn objects<T: FromStr + Ord + fmt::Display>(dir: &Path, suffix: &str) -> Result<(BTreeSet<T>, Vec<PathBuf>)> {
    let (mut known, mut strange) = (BTreeSet::new(), Vec::new());
    for name in names(dir)? {
        match name.strip_suffix(suffix).and_then(|hex| hex.parse::<T>().ok()) {
            // Other spellings of a digest (in capitals) would never be looked up.
            Some(id) if format!("{id}{suffix}") == name => drop(known.insert(id)),
            _ => strange.push(dir.join(name)),
        }
    }
    Ok((known, strange))
}

fn finding(object: Object, fault: Fault, why: impl Into<String>) -> Finding {
    Finding { object, fault, why: why.into() }
}

fn of_error(object: Object, error: &Error) -> Finding {
    match error {
        Error::Missing { .. } => finding(object, Fault::Missing, "it is not in the store"),
        Error::Damaged { path, why } => {
            finding(object, Fault::Damaged, format!("{why} ({})", path.display()))
        }
        other => finding(object, Fault::Damaged, other.to_string()),
    }
}

impl Store {
    /// Compares the directories with `live`. The caller makes sure that nobody changes the store meanwhile.
    pub fn audit(&self, live: &Live) -> Result<Audit> {
        let mut audit = Audit::default();
        let images = self.images_dir().to_owned();
        // Who needs each layer, and which views may exist.
        let mut needed: BTreeMap<DiffId, String> =
            live.layers.iter().map(|l| (*l, "the server's part of an image that is in use".into())).collect();
        let mut views: BTreeSet<ViewId> = BTreeSet::new();
        let mut configs = BTreeMap::new();
        for image in live.images.iter().collect::<BTreeSet<_>>() {
            match self.config(image).and_then(|c| c.layers()) {
                Ok(layers) => {
                    needed.extend(layers.iter().map(|l| (*l, format!("image {image}"))));
                    views.insert(view_id(&layers, None));
                    audit.images.insert(*image);
                    configs.insert(*image, layers);
                }
                Err(e) => audit.findings.push(of_error(Object::Image(*image), &e)),
            }
        }
        for (image, platform) in &live.shown {
            if let Some(layers) = configs.get(image) {
                views.insert(view_id(layers, Some(platform)));
            }
        }
        self.audit_views(live, views, &mut needed, &mut audit)?;
        let (configs, strange) = objects::<ImageId>(&images.join("configs"), ".json")?;
        for image in configs.iter().filter(|i| !live.images.contains(i)) {
            audit.findings.push(finding(Object::Image(*image), Fault::Orphan, "no reference points to it"));
        }
        let (layers, more) = objects::<DiffId>(&images.join("layers"), "")?;
        for layer in layers.iter().filter(|l| !needed.contains_key(l)) {
            audit.findings.push(finding(Object::Layer(*layer), Fault::Orphan, "no image uses it"));
        }
        for (layer, user) in needed {
            let coming = |(l, session): &(DiffId, String)| {
                *l == layer && self.sessions_dir().join(session).join("layer/skeleton").exists()
            };
            if layers.contains(&layer) {
                audit.layers.insert(layer);
            } else if !live.committing.iter().any(coming) {
                let why = format!("it is not in the store, and is needed by {user}");
                audit.findings.push(finding(Object::Layer(layer), Fault::Missing, why));
            }
        }
        self.audit_sessions(live, &mut audit)?;
        let mut strange = [strange, more].concat();
        let (found, others) = objects::<Hash256>(&images.join("blobs"), "")?;
        strange.extend(others);
        strange.extend(found.iter().filter(|b| !live.blobs.contains(b)).map(|b| self.blob_path(b)));
        for blob in live.blobs.iter().filter(|b| !found.contains(b)) {
            let why = "it is not in the store, and was pushed with an image that is";
            audit.findings.push(finding(Object::File(self.blob_path(blob)), Fault::Missing, why));
        }
        let tmp = images.join("tmp");
        let left = names(&tmp)?.into_iter().filter(|name| !self.is_making(name.as_ref()));
        strange.extend(left.map(|name| tmp.join(name)));
        let why = "a server keeps nothing under this name there";
        audit.findings.extend(strange.into_iter().map(|p| finding(Object::File(p), Fault::Orphan, why)));
        audit.findings.sort();
        Ok(audit)
    }

    /// `views` may exist; those of `live` must exist, and need their layers.
    fn audit_views(
        &self,
        live: &Live,
        mut views: BTreeSet<ViewId>,
        needed: &mut BTreeMap<DiffId, String>,
        audit: &mut Audit,
    ) -> Result<()> {
        let (found, strange) = objects::<ViewId>(&self.images_dir().join("views"), "")?;
        let why = "a server keeps nothing under this name there";
        audit.findings.extend(strange.into_iter().map(|p| finding(Object::File(p), Fault::Orphan, why)));
        for view in &live.views {
            views.insert(*view);
            if !found.contains(view) {
                let why = "its index file is not in the store, and a node or an image needs it";
                audit.findings.push(finding(Object::View(*view), Fault::Missing, why));
            } else if let Ok(layers) = self.view_layers(view) {
                // A damaged one is found by `verify`.
                for layer in layers {
                    needed.entry(layer).or_insert_with(|| format!("view {view}"));
                }
            }
        }
        for view in found {
            if views.contains(&view) {
                audit.views.insert(view);
            } else {
                let why = "no image, node or session uses it";
                audit.findings.push(finding(Object::View(view), Fault::Orphan, why));
            }
        }
        Ok(())
    }

    fn audit_sessions(&self, live: &Live, audit: &mut Audit) -> Result<()> {
        let found = names(self.sessions_dir())?;
        for session in live.sessions.iter().filter(|s| !found.contains(*s)) {
            let why = "its directory is missing, with all changes made in the session";
            audit.findings.push(finding(Object::Session(session.clone()), Fault::Missing, why));
        }
        for name in found.into_iter().filter(|name| !live.sessions.contains(name)) {
            let why = "its directory exists, but no such session is open";
            audit.findings.push(finding(Object::Session(name), Fault::Orphan, why));
        }
        Ok(())
    }

    /// Reads everything that an audit found: checks the digest of each configuration, the digest of each layer from
    /// its files, and the index of each view against a rebuilt one. `step` is called with each object before it is
    /// read.
    pub fn verify(&self, audit: &Audit, step: &mut dyn FnMut(&Object)) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut one = |object: Object, work: &dyn Fn() -> Result<()>| {
            step(&object);
            if let Err(e) = work() {
                findings.push(of_error(object, &e));
            }
        };
        for image in &audit.images {
            one(Object::Image(*image), &|| self.config(image).map(drop));
        }
        for layer in &audit.layers {
            one(Object::Layer(*layer), &|| self.verify_layer(layer));
        }
        for view in &audit.views {
            one(Object::View(*view), &|| self.verify_view(view));
        }
        findings
    }

    fn verify_layer(&self, layer: &DiffId) -> Result<()> {
        let dir = self.layer_dir(layer);
        let found = names(&dir)?;
        let expected = ["fs", "implied", "skeleton"];
        if !found.iter().eq(expected.iter()) {
            let list = found.into_iter().collect::<Vec<_>>().join(", ");
            let why = format!("it contains {list} instead of {}", expected.join(", "));
            return Err(Error::Damaged { path: dir, why });
        }
        let size = self.export_layer(layer, io::sink())?;
        let claimed = self.layer_info(layer)?.size;
        if size != claimed {
            let why = format!("its tar has {size} bytes instead of the {claimed} in its skeleton");
            return Err(Error::Damaged { path: dir, why });
        }
        Ok(())
    }
}
