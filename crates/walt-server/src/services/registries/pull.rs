//! One image of a registry into the store.

use crate::services::images::writers::Writing;
use crate::{
    base::registry_config::RegistryConfig,
    services::registries::{error, links::Link, open},
};
use crate::{
    base::{
        db::{BlobRow, blocking},
        events::Events,
    },
    services::images::{
        self, Images,
        labels::{self, models_of},
        pins::Pinned,
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

/// An image of a registry that was looked at, and can be got.
pub struct RemoteImage {
    registry: Arc<Registry>,
    label: String,
    repository: String,
    resolved: Resolved,
    /// Models it is made for.
    pub models: Vec<Model>,
}

/// An image in the store that nothing refers to yet, and its pins.
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

/// Looks at an image; of an index, the one for `wanted` models.
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

/// [`inspect`] with a client that is there; an image that is no use to us is a failure, and no error of the registry.
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

/// Looks at an image that a build starts from: it need not be one for nodes. Of an index, the one for the first of these
/// platforms that it has.
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
    /// Digest of what was asked for: of the manifest, or of the index that it is in.
    pub fn named(&self) -> Hash256 {
        self.resolved.named
    }

    /// What it is for; none if it does not say.
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

    /// Gets the layers that are not here.
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
                // What was done while the disk was waited for shares the next wait.
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
        let created = self.created().unwrap_or_else(|| crate::base::time::now() as i64);
        Ok(PulledImage::new(image, created, pinned))
    }
}

/// Stores the configuration of an image from elsewhere whose layers are here.
///
/// # Errors
/// It is not a configuration, or the store failed.
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
                "Note: the image has {layers} layers, and {MAX_LAYERS} are possible here: they are squashed into one."
            ))
            .await;
    }
    Ok(blocking(|| images.store().put_foreign_config(bytes))?)
}

/// Tells how much was transferred while `work` goes on.
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
