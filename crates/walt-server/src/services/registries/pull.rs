//! Pulls images from registries into the store.

use crate::{
    base::{
        db::{BlobRow, blocking},
        events::Events,
        registry_config::RegistryConfig,
        time,
    },
    services::{
        images::{
            self, Images,
            labels::{self, models_of},
            pins::Pinned,
            writers::Writing,
        },
        registries::{error, links::Link, open},
    },
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use walt_api::RegistryCredentials;
use walt_images::{ImageConfig, MAX_LAYERS, Skipped};
use walt_registry::{
    Error, LayerBlob, Platform, Registry, Wanted,
    pull::{Progress, Pull, Resolved, resolve},
};
use walt_types::{DiffId, Hash256, ImageId, Model};

/// How often progress is reported.
const TICK: Duration = Duration::from_millis(250);

/// An image of a registry that was inspected, and can be pulled.
pub struct RemoteImage {
    registry: Arc<Registry>,
    label: String,
    repository: String,
    resolved: Resolved,
    /// Models that it is compatible with.
    pub models: Vec<Model>,
}

/// A pulled image: in the store, pinned, and not referred to yet.
pub struct PulledImage {
    /// The image.
    pub image: ImageId,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    _pinned: Pinned,
}

impl PulledImage {
    /// An image that is in the store and pinned.
    pub fn new(image: ImageId, created: i64, pinned: Pinned) -> Self {
        Self { image, created, _pinned: pinned }
    }
}

/// Inspects an image; of an index, the one for the `wanted` models.
pub async fn inspect(
    config: &RegistryConfig,
    link: &Link,
    credentials: Option<&RegistryCredentials>,
    wanted: &[Model],
) -> error::Result<RemoteImage> {
    let registry = open(config, credentials)?;
    inspect_with(registry, config, link, wanted).await.unwrap_or_else(|e| {
        Err(match e {
            Error::NotFound { .. } => error::Error::NoSuchImage,
            other => error::Error::of(&config.label, other),
        })
    })
}

/// As [`inspect`], with an open client. An unusable image is an inner error, not an error of the registry.
pub async fn inspect_with(
    registry: Arc<Registry>,
    config: &RegistryConfig,
    link: &Link,
    wanted: &[Model],
) -> walt_registry::Result<error::Result<RemoteImage>> {
    let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let fits = |image: &ImageConfig| {
        let models = models_of(image);
        !models.is_empty() && (wanted.is_empty() || models.iter().any(|m| wanted.contains(m)))
    };
    let repository = link.repository();
    let resolved = resolve(&registry, &repository, &link.tag, Wanted::Models(&names), fits).await?;
    let models = labels::check(&resolved.config);
    Ok(models
        .map(|models| RemoteImage { registry, label: config.label.clone(), repository, resolved, models })
        .map_err(Into::into))
}

/// Inspects a base image of a build, which need not be for nodes. Of an index, it selects the image for the most
/// wanted of these platforms.
pub async fn inspect_base(
    registry: Arc<Registry>,
    config: &RegistryConfig,
    repository: &str,
    reference: &str,
    platforms: &[Platform],
) -> walt_registry::Result<RemoteImage> {
    let fits = |image: &ImageConfig| {
        Platform::of(image).is_none_or(|p| platforms.iter().any(|wanted| wanted.accepts(&p)))
    };
    let resolved = resolve(&registry, repository, reference, Wanted::Platforms(platforms), fits).await?;
    if !matches!(resolved.config.os.as_str(), "" | "linux") {
        return Err(Error::Unfit(format!(
            "{repository} is for the operating system '{}'",
            resolved.config.os
        )));
    }
    let models = models_of(&resolved.config);
    Ok(RemoteImage {
        registry,
        label: config.label.clone(),
        repository: repository.to_owned(),
        resolved,
        models,
    })
}

impl RemoteImage {
    /// Digest of the requested document: the manifest, or the index that contains it.
    pub fn named(&self) -> Hash256 {
        self.resolved.named
    }

    /// Its platform; none if its configuration does not tell.
    pub fn platform(&self) -> Option<Platform> {
        Platform::of(&self.resolved.config)
    }

    /// When it was made, in seconds since the epoch.
    pub fn created(&self) -> Option<i64> {
        images::created(&self.resolved.config)
    }

    /// The image's id.
    pub fn image(&self) -> ImageId {
        ImageId(walt_registry::manifest::digest_of(&self.resolved.config_bytes))
    }

    /// Pulls the missing layers.
    pub async fn pull(&self, images: &Arc<Images>, events: &Events) -> error::Result<PulledImage> {
        let _housekeeping = images.housekeeping_on_drop();
        let mut pinned = images.pins().begin();
        let layers = &self.resolved.layers;
        let missing: Vec<LayerBlob> = {
            let _writing = images.writing().await;
            let mut seen = BTreeSet::new();
            let absent = layers.iter().filter(|l| {
                let here = images.store().has_layer(&l.diff_id);
                if here {
                    pinned.layer(l.diff_id);
                }
                !here && seen.insert(l.diff_id)
            });
            absent.cloned().collect()
        };
        let progress = Progress::default();
        let order: Vec<DiffId> = layers.iter().map(|l| l.diff_id).collect();
        let mut skipped = Skipped::default();
        let mut pull = Pull::start(&self.registry, &self.repository, &missing, images, &progress);
        let work = async {
            while let Some(first) = pull.next().await {
                let mut unpacked = vec![first.map_err(|e| error::Error::of(&self.label, e))?];
                // Layers that arrived in the meantime are synced together.
                while let Some(next) = pull.ready() {
                    unpacked.push(next.map_err(|e| error::Error::of(&self.label, e))?);
                }
                unpacked.iter().for_each(|u| skipped.merge(u.skipped()));
                let kept: Vec<DiffId> = unpacked.iter().map(|u| u.info().diff_id).collect();
                let _writing = images.writing().await;
                blocking(|| images.store().keep_layers(unpacked, &order))?;
                kept.into_iter().for_each(|layer| pinned.layer(layer));
                crate::base::fail_points::point("pull-layer");
            }
            let writing = images.writing().await;
            let image =
                put_config(images, events, &self.resolved.config_bytes, layers.len(), &writing).await?;
            pinned.image(image);
            if let Some(note) = skipped.note() {
                events.note(format!("Note: {note}")).await;
            }
            crate::base::fail_points::point("pull-config");
            error::Result::Ok(image)
        };
        let total = missing.iter().map(|l| l.size).sum();
        let image = report_progress(work, events, "Downloading", &progress, total).await?;
        images.db().transaction(|tx| -> anyhow::Result<()> {
            for layer in layers {
                BlobRow::put(tx, layer, &self.label, &self.repository)?;
            }
            Ok(())
        })?;
        let created = self.created().unwrap_or_else(|| time::now() as i64);
        Ok(PulledImage::new(image, created, pinned))
    }
}

/// Stores the configuration of a foreign image whose layers are in the store.
///
/// # Errors
/// The configuration is invalid, or the store failed.
pub async fn put_config(
    images: &Images,
    events: &Events,
    bytes: &[u8],
    layers: usize,
    _writing: &Writing<'_>,
) -> error::Result<ImageId> {
    if layers > MAX_LAYERS {
        events
            .note(format!(
                "Note: the image has {layers} layers, but at most {MAX_LAYERS} are supported: squashing them into one."
            ))
            .await;
    }
    Ok(blocking(|| images.store().put_foreign_config(bytes))?)
}

/// Reports the transferred bytes while `work` runs.
pub async fn report_progress<T, E>(
    work: impl Future<Output = std::result::Result<T, E>>,
    events: &Events,
    label: &str,
    progress: &Progress,
    total: u64,
) -> std::result::Result<T, E> {
    let mut work = std::pin::pin!(work);
    let mut reported = 0;
    loop {
        match tokio::time::timeout(TICK, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                let bytes = progress.bytes();
                if bytes != reported {
                    reported = bytes;
                    events.progress(label, bytes, total).await;
                }
            }
        }
    }
}
