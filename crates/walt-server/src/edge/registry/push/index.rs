//! Pushed indexes: several images, or content that belongs to images, under one tag.
//!
//! Their manifests are pushed first, by digest, and wait for the index, or belong to an image that the repository
//! has. A reference points to one image, so it points to the image of the index that fits best ([`best`]). The tag
//! serves the index as long as the reference points to that image, and everything in the index can be pulled by
//! digest. Content that is not an image for nodes is kept unchanged and not inspected.
//!
//! Limits: [`MAX_CHILDREN`] manifests; for waiting ones, those of [`crate::services::registries::uploads`].

use crate::{
    actions::{app::App, publish_ref::Target},
    base::db::{Document, IndexRow, ManifestRow, NodeRow, PushRow, RefRow},
    edge::registry::push::{Push, PushError, PushResult, manifest::parts},
    services::{
        images::{MODEL_ALWAYS, labels::models_of, writers::Writing},
        registries::{
            manifests::{self, Stored},
            uploads,
        },
    },
};
use anyhow::Result;
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use walt_registry::manifest::{self, IndexEntry};
use walt_types::{Hash256, ImageId, Model};

/// Most manifests that an index names.
const MAX_CHILDREN: usize = 64;

/// A manifest listed in an index.
enum Child {
    /// It was pushed and waits.
    Waits(Arc<uploads::Child>),
    /// It is stored in the repository.
    Kept(Stored),
}

impl Child {
    fn document(&self) -> &Document {
        match self {
            Self::Waits(child) => &child.document,
            Self::Kept(stored) => &stored.document,
        }
    }

    fn image(&self) -> Option<ImageId> {
        match self {
            Self::Waits(child) => child.image,
            Self::Kept(stored) => stored.image,
        }
    }
}

impl Push<'_> {
    /// An index pushed with a tag.
    pub(super) async fn index(
        &self,
        tag: &str,
        document: Document,
        entries: &[IndexEntry],
    ) -> PushResult<()> {
        if entries.len() > MAX_CHILDREN {
            let why =
                format!("the index has {} manifests, at most {MAX_CHILDREN} are accepted", entries.len());
            return Err(PushError::invalid(why));
        }
        let _housekeeping = self.app.images().housekeeping_on_drop();
        let mut pinned = self.app.images().pins().begin();
        // Nothing that is found may be removed until the index is recorded.
        let writing = self.app.images().writing().await;
        let names = manifests::repository(self.app.images(), self.user.as_str(), self.name)?;
        let indexes = manifests::indexes(self.app.images(), &names)?;
        let mut found: BTreeMap<Hash256, Child> = BTreeMap::new();
        for entry in entries {
            let child = self.find(entry, &names, &indexes)?;
            if let Some(image) = child.image() {
                pinned.image(image);
            }
            found.insert(entry.manifest.digest, child);
        }
        let mut candidates = Vec::new();
        for entry in entries.iter().filter(|e| e.may_run()) {
            let Some(image) = found[&entry.manifest.digest].image() else { continue };
            let models = models_of(&self.app.store().config(&image)?);
            if !models.is_empty() {
                candidates.push((entry, image, models));
            }
        }
        let target = self.plan(tag).await?;
        let wanted = wanted(self.app, &target)?;
        let made_for: Vec<(&IndexEntry, &[Model])> =
            candidates.iter().map(|(e, _, m)| (*e, &m[..])).collect();
        let Some(number) = best(&made_for, &wanted) else {
            return Err(PushError::invalid(format!(
                "none of the index's manifests is an image for WalT nodes, on Linux, with a label {}",
                crate::services::images::LABEL_MODELS
            )));
        };
        let image = candidates[number].1;
        target.check_models(self.app, &image)?;
        self.record(tag, &target, image, document, &found, &writing).await
    }

    /// The manifest of an entry, checked against the entry.
    fn find(&self, entry: &IndexEntry, names: &[RefRow], indexes: &BTreeSet<Hash256>) -> PushResult<Child> {
        let digest = &entry.manifest.digest;
        let said = entry.manifest.media_type.as_str();
        if matches!(said, manifest::OCI_INDEX | manifest::DOCKER_LIST) {
            return Err(PushError::invalid(format!(
                "sha256:{digest} is an index within an index, which is not supported: list its manifests instead"
            )));
        }
        let found = match self.app.registries().uploads().child(&self.user, self.name, digest) {
            Some(child) => Child::Waits(child),
            None => match manifests::manifest_in(self.app.images(), names, indexes, digest)? {
                Some(stored) => Child::Kept(stored),
                None => {
                    let what =
                        "push the complete index, with 'skopeo copy --all' or 'podman manifest push --all'";
                    let why = format!("the manifest sha256:{digest} is missing: {what}");
                    return Err(PushError::unknown(why));
                }
            },
        };
        let document = found.document();
        let (size, media_type) = (document.bytes.len() as u64, &document.media_type);
        if entry.manifest.size != size {
            return Err(PushError::invalid(format!(
                "the manifest sha256:{digest} has {size} bytes, but {} in the index",
                entry.manifest.size
            )));
        }
        if !said.is_empty() && said != media_type {
            return Err(PushError::invalid(format!(
                "the manifest sha256:{digest} is a {media_type}, but has another type in the index"
            )));
        }
        Ok(found)
    }

    /// Records an index and its content, and makes the reference point to `image`.
    async fn record(
        &self,
        tag: &str,
        target: &Target,
        image: ImageId,
        document: Document,
        found: &BTreeMap<Hash256, Child>,
        writing: &Writing<'_>,
    ) -> PushResult<()> {
        let digest = document.digest;
        let mut row = IndexRow { document, images: Vec::new(), others: Vec::new(), blobs: Vec::new() };
        let mut manifests = Vec::new();
        for child in found.values() {
            let document = child.document().clone();
            match (child, child.image()) {
                (Child::Waits(waiting), Some(image_id)) => {
                    let Document { digest, media_type, bytes } = document;
                    manifests.push((ManifestRow { digest, media_type, bytes, image_id }, &waiting.blobs));
                    row.images.push(image_id);
                }
                (Child::Kept(_), Some(image_id)) => row.images.push(image_id),
                (_, None) => {
                    if let Ok(manifest::Document::Image(other)) = manifest::parse(&document.bytes) {
                        row.blobs.extend(parts(&other));
                    }
                    row.others.push(document);
                }
            }
        }
        let all: BTreeSet<Hash256> =
            manifests.iter().flat_map(|(_, blobs)| blobs.iter()).chain(&row.blobs).copied().collect();
        self.keep_blobs(&all.into_iter().collect::<Vec<_>>(), writing)?;
        let config = self.app.store().config(&image)?;
        let record = |c: &Connection| -> Result<()> {
            for (manifest, blobs) in &manifests {
                manifest.put(c, blobs)?;
            }
            row.put(c)?;
            PushRow::put(c, &target.reference, &image, &digest)
        };
        self.publish_ref(tag, target, image, &config, record).await?;
        for digest in found.keys() {
            self.app.registries().uploads().forget_child(&self.user, self.name, digest);
        }
        Ok(())
    }
}

/// The models that the image should be compatible with: of the nodes that use the reference, else of its current
/// image, else of all nodes, as for a clone.
fn wanted(app: &App, target: &Target) -> PushResult<BTreeSet<Model>> {
    if !target.users.is_empty() {
        return Ok(target.users.iter().map(|n| n.facts.model.clone()).collect());
    }
    if let Some(present) = &target.present {
        return Ok(models_of(&app.store().config(&present.image_id)?).into_iter().collect());
    }
    let mut models: BTreeSet<Model> =
        app.db().with(NodeRow::all)?.into_iter().map(|n| n.facts.model).collect();
    models.extend(MODEL_ALWAYS.parse().ok());
    Ok(models)
}

/// Index of the best of these images, given with their models: the image for most of the wanted models by CPU and
/// label, else by label; the first among equals.
fn best(images: &[(&IndexEntry, &[Model])], wanted: &BTreeSet<Model>) -> Option<usize> {
    let score = |(entry, models): &(&IndexEntry, &[Model])| {
        let labelled = wanted.iter().filter(|m| models.contains(m));
        (labelled.clone().filter(|m| entry.is_for(m.as_str())).count(), labelled.count())
    };
    // max_by_key returns the last of equals, hence rev().
    images.iter().enumerate().rev().max_by_key(|(_, image)| score(image)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_registry::manifest::Descriptor;

    #[test]
    fn the_image_that_fits_best() {
        let entry = |architecture: &str| IndexEntry {
            manifest: Descriptor { media_type: String::new(), digest: Hash256([0; 32]), size: 1 },
            architecture: architecture.into(),
            variant: String::new(),
            os: "linux".into(),
        };
        let models = |text: &str| -> Vec<Model> { text.split(' ').map(|m| m.parse().unwrap()).collect() };
        let choose = |images: &[(&str, &str)], wanted: &str| {
            let images: Vec<_> =
                images.iter().map(|(cpu, made_for)| (entry(cpu), models(made_for))).collect();
            let images: Vec<_> = images.iter().map(|(e, m)| (e, &m[..])).collect();
            best(&images, &models(wanted).into_iter().collect())
        };
        let two = [("arm64", "rpi-4-b"), ("amd64", "pc-x86-64")];
        assert_eq!(choose(&two, "pc-x86-64"), Some(1));
        assert_eq!(choose(&two, "rpi-4-b"), Some(0));
        // Equals, and none at all: the order of the index.
        assert_eq!(choose(&two, "pc-x86-64 rpi-4-b"), Some(0));
        assert_eq!(choose(&two, "rpi-b"), Some(0));
        assert_eq!(choose(&[], "rpi-b"), None);
        // One label for all CPUs: the CPU decides; if the index does not tell it, the label.
        let same = [("arm64", "pc-x86-64 rpi-4-b"), ("amd64", "pc-x86-64 rpi-4-b")];
        assert_eq!(choose(&same, "pc-x86-64"), Some(1));
        assert_eq!(choose(&[("arm64", "rpi-4-b"), ("", "pc-x86-64")], "pc-x86-64"), Some(1));
        assert_eq!(choose(&[("arm64", "rpi-4-b"), ("386", "pc-x86-64")], "pc-x86-64"), Some(1));
        // Most models of several nodes.
        let three = [("arm64", "rpi-4-b"), ("arm", "rpi-b rpi-2-b"), ("amd64", "pc-x86-64")];
        assert_eq!(choose(&three, "pc-x86-64 rpi-b rpi-2-b"), Some(1));
    }
}
