//! Images: archives of `podman save` and `docker save`.

use crate::{
    actions::{app::App, import_walt10::files_of},
    base::events::Events,
    services::{
        images::{default_image, labels},
        registries::{docker, pull::PulledImage},
    },
};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};
use walt_api::Event;
use walt_images::{archive::Archive, digest_of};
use walt_import::{
    Fate, Item, Plan,
    plan::{Wishes, fullname_of},
};
use walt_types::{ImageId, ImageRef};

/// Where items of this module are in a plan.
const TABLE: &str = "images";

/// An image that comes.
pub struct Chosen {
    /// Its name here.
    pub reference: ImageRef,
    archive: Arc<Archive>,
}

/// Opens archives, and all files of directories.
///
/// # Errors
/// A file is not an archive of images.
pub fn open(paths: &[PathBuf]) -> Result<Vec<Arc<Archive>>> {
    let mut all = Vec::new();
    for path in files_of(paths)? {
        let images = Archive::all(&path).with_context(|| format!("the archive {}", path.display()))?;
        all.extend(images.into_iter().map(Arc::new));
    }
    Ok(all)
}

/// Decides about all images of the dump and of the archives. What comes is still a name to the plan.
///
/// # Errors
/// A configuration in an archive is invalid.
pub fn choose(
    plan: &mut Plan,
    archives: Vec<Arc<Archive>>,
    refs: &BTreeMap<ImageRef, ImageId>,
    wishes: &Wishes,
) -> Result<Vec<Chosen>> {
    let mut found: BTreeMap<ImageRef, Arc<Archive>> = BTreeMap::new();
    for archive in archives {
        if archive.names().is_empty() {
            let why = "an image in an archive has no name: 'podman save' it by its name".to_owned();
            plan.items.push(Item::new(TABLE, "(without a name)", Fate::Cannot, Some(why)));
        }
        for name in archive.names() {
            let why = match fullname_of(name) {
                None => "it is not an image of a user of WalT".to_owned(),
                Some(full) => match wishes.image(&full) {
                    Err(why) => why,
                    Ok(reference) => {
                        found.entry(reference).or_insert_with(|| archive.clone());
                        continue;
                    }
                },
            };
            plan.items.push(Item::new(TABLE, name.clone(), Fate::Cannot, Some(why)));
        }
    }
    let all: BTreeSet<ImageRef> = plan.images.iter().chain(found.keys()).cloned().collect();
    let mut chosen = Vec::new();
    for reference in all {
        let archive = found.remove(&reference);
        let (fate, note) = fate(&reference, archive.as_deref(), refs)?;
        plan.items.push(Item::new(TABLE, reference.full(), fate, note));
        if let Some(archive) = archive.filter(|_| fate == Fate::Comes) {
            chosen.push(Chosen { reference, archive });
        }
    }
    let comes: BTreeSet<&ImageRef> = chosen.iter().map(|image| &image.reference).collect();
    // Notes of nodes were written without knowing the archives.
    for node in plan.nodes.iter().filter(|node| comes.contains(&node.facts.image)) {
        let said = format!("its image {} is not here yet", node.facts.image);
        for item in plan.items.iter_mut().filter(|item| item.item.contains(&node.mac.to_string())) {
            let kept = item
                .note
                .take()
                .map(|note| note.split("; ").filter(|part| *part != said).collect::<Vec<_>>().join("; "));
            item.note = kept.filter(|note| !note.is_empty());
        }
    }
    Ok(chosen)
}

fn fate(
    reference: &ImageRef,
    archive: Option<&Archive>,
    refs: &BTreeMap<ImageRef, ImageId>,
) -> Result<(Fate, Option<String>)> {
    let Some(archive) = archive else {
        return Ok(match refs.contains_key(reference) {
            true => (Fate::Here, None),
            false => (Fate::Cannot, Some(remedy(reference))),
        });
    };
    match refs.get(reference) {
        Some(image) if image.0 == digest_of(archive.config_bytes()) => return Ok((Fate::Here, None)),
        Some(_) => {
            let why = "another image has this name here, and keeps it".to_owned();
            return Ok((Fate::Conflict, Some(why)));
        }
        None => {}
    }
    Ok(match labels::check(&archive.config()?) {
        Ok(_) => (Fate::Comes, None),
        Err(e) => (Fate::Cannot, Some(e.to_string())),
    })
}

/// How an image comes here that no archive has.
fn remedy(reference: &ImageRef) -> String {
    if !reference.is_platform() {
        return format!(
            "no archive has it: give one by --images, or when the server runs, if it was published: 'WALT_USERNAME={} walt \
             image clone hub:{reference}'",
            reference.user()
        );
    }
    match default_image::recipe_of(reference.image()) {
        Some(recipe) => format!(
            "no archive has it: give one by --images, or 'walt-server default-image build {recipe}' makes one"
        ),
        None => "no archive has it: give one by --images".to_owned(),
    }
}

/// An image that is in the store.
pub struct StoredImage {
    /// Its name here.
    pub reference: ImageRef,
    /// What it points to.
    pub image: PulledImage,
}

/// Copies images into the store; nothing refers to them yet.
///
/// # Errors
/// An archive is damaged, or the store fails.
pub async fn store(app: &App, chosen: &[Chosen]) -> Result<Vec<StoredImage>> {
    let (events, mut receiver) = Events::channel();
    let printing = tokio::spawn(async move {
        while let Some(event) = receiver.recv().await {
            if let Event::Note { text } = event {
                eprintln!("{text}");
            }
        }
    });
    let mut stored = Vec::new();
    for Chosen { reference, archive } in chosen {
        eprintln!("Copying the image {reference}…");
        let image = docker::store_archive(app.images(), archive, &events)
            .await
            .map_err(anyhow::Error::from)
            .with_context(|| format!("the image {reference}"))?;
        stored.push(StoredImage { reference: reference.clone(), image });
    }
    drop(events);
    printing.await?;
    Ok(stored)
}
