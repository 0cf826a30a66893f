//! Is the store what the database says? Everything that is needed is there and is what was written, and nothing
//! else is there.
//!
//! Two steps, since one has to be quick and the other reads every byte. [`Store::audit`] lists directories and reads
//! configurations: the caller sees to it that nobody changes the store meanwhile. [`Store::verify`] hashes layers and
//! builds views again from the layers' files: objects never change, so it needs no such care, but what was removed
//! since the look is missing then; the caller looks again and drops what [`Audit::needs`] no more. Nothing is written.

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
    /// Something that has no name of ours.
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
    /// It is needed, and not there.
    Missing,
    /// It is there, and not what was written.
    Damaged,
    /// It is there, and nothing needs it.
    Orphan,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object.
    pub object: Object,
    /// What is wrong with it.
    pub fault: Fault,
    /// The end of a sentence that begins with the object.
    pub why: String,
}

/// A look at the directories: what is there and needed, and what is wrong already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Images whose configuration is right.
    pub images: BTreeSet<ImageId>,
    /// Layers that are there.
    pub layers: BTreeSet<DiffId>,
    /// Views whose index file is there.
    pub views: BTreeSet<ViewId>,
    /// What is missing or orphaned, sorted.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// Was the object there, and needed?
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

/// What a directory of the store holds: objects by their digest, and names that are none.
fn objects<T: FromStr + Ord + fmt::Display>(dir: &Path, suffix: &str) -> Result<(BTreeSet<T>, Vec<PathBuf>)> {
    let (mut known, mut strange) = (BTreeSet::new(), Vec::new());
    for name in names(dir)? {
        match name.strip_suffix(suffix).and_then(|hex| hex.parse::<T>().ok()) {
            // A digest has other spellings, under which it would not be found.
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
    /// Compares the directories with `live`. The caller sees to it that nobody changes the store meanwhile.
    pub fn audit(&self, live: &Live) -> Result<Audit> {
        let mut audit = Audit::default();
        let images = self.images_dir().to_owned();
        // Who needs a layer; and the views that may be there.
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
            audit.findings.push(finding(Object::Image(*image), Fault::Orphan, "no reference leads to it"));
        }
        let (layers, more) = objects::<DiffId>(&images.join("layers"), "")?;
        for layer in layers.iter().filter(|l| !needed.contains_key(l)) {
            audit.findings.push(finding(Object::Layer(*layer), Fault::Orphan, "no image has it"));
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
        let why = "nothing of a server is kept there under this name";
        audit.findings.extend(strange.into_iter().map(|p| finding(Object::File(p), Fault::Orphan, why)));
        audit.findings.sort();
        Ok(audit)
    }

    /// `views` may be there; those of `live` must be, and need their layers.
    fn audit_views(
        &self,
        live: &Live,
        mut views: BTreeSet<ViewId>,
        needed: &mut BTreeMap<DiffId, String>,
        audit: &mut Audit,
    ) -> Result<()> {
        let (found, strange) = objects::<ViewId>(&self.images_dir().join("views"), "")?;
        let why = "nothing of a server is kept there under this name";
        audit.findings.extend(strange.into_iter().map(|p| finding(Object::File(p), Fault::Orphan, why)));
        for view in &live.views {
            views.insert(*view);
            if !found.contains(view) {
                let why = "its index file is not in the store, and a node or an image needs it";
                audit.findings.push(finding(Object::View(*view), Fault::Missing, why));
            } else if let Ok(layers) = self.view_layers(view) {
                // One that cannot be read is found when views are verified.
                for layer in layers {
                    needed.entry(layer).or_insert_with(|| format!("view {view}"));
                }
            }
        }
        for view in found {
            if views.contains(&view) {
                audit.views.insert(view);
            } else {
                let why = "no image, node or session has it";
                audit.findings.push(finding(Object::View(view), Fault::Orphan, why));
            }
        }
        Ok(())
    }

    fn audit_sessions(&self, live: &Live, audit: &mut Audit) -> Result<()> {
        let found = names(self.sessions_dir())?;
        for session in live.sessions.iter().filter(|s| !found.contains(*s)) {
            let why = "its directory is gone, with all changes made in it";
            audit.findings.push(finding(Object::Session(session.clone()), Fault::Missing, why));
        }
        for name in found.into_iter().filter(|name| !live.sessions.contains(name)) {
            let why = "its directory is there, and no such session is open";
            audit.findings.push(finding(Object::Session(name), Fault::Orphan, why));
        }
        Ok(())
    }

    /// Reads all that a look found: the digest of each configuration, the digest of each layer from its files, and each
    /// view's index against one that is built again. `step` is told what comes next.
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
            let why = format!("it holds {list} instead of {}", expected.join(", "));
            return Err(Error::Damaged { path: dir, why });
        }
        let size = self.export_layer(layer, io::sink())?;
        let claimed = self.layer_info(layer)?.size;
        if size != claimed {
            let why = format!("its tar has {size} bytes, and its skeleton says {claimed}");
            return Err(Error::Damaged { path: dir, why });
        }
        Ok(())
    }
}
