//! Pushed manifests: with a tag, to which a reference then points; or by digest, for an index that follows.
//!
//! Limits: [`manifest::MAX_DOCUMENT`] bytes, [`MAX_LAYERS`] layers.

use crate::{
    actions::{
        app::App,
        publish_ref::{Target, publish_refs_with},
        reboot::reboot_users,
    },
    base::{
        db::{By, Document, ManifestRow, NodeRow, PushRow, blocking},
        events::Events,
        time,
    },
    edge::registry::push::{Push, PushError, PushResult, STALL, digest_in},
    services::{
        images::{self, labels, pins::Pinned, writers::Writing},
        registries::uploads::Child,
    },
};
use anyhow::{Context, Result};
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::Response,
};
use http_body_util::{BodyExt, Limited};
use rusqlite::Connection;
use std::{
    io::{self, Read, Write},
    sync::Arc,
};
use tokio::time::timeout;
use walt_images::{ImageConfig, MAX_LAYERS, NewBlob};
use walt_registry::{
    LayerBlob,
    manifest::{self, Manifest},
};
use walt_types::{DiffId, Hash256, ImageId};

/// What a manifest describes.
pub(super) enum ManifestKind {
    /// An image for nodes, with its configuration and its layers.
    Image(Box<ImageConfig>, Vec<LayerBlob>),
    /// Something else, whose layers are not inspected; and why it is not an image for nodes.
    Other(PushError),
}

impl Push<'_> {
    /// `PUT …/manifests/<tag or digest>`.
    pub async fn manifest(&self, what: &str, body: Body) -> Result<Response> {
        match self.accept_manifest(what, body).await {
            Ok(digest) => Ok(self.created(&format!("manifests/sha256:{digest}"), &digest)),
            Err(PushError::Refused(status, code, why)) => {
                Ok(crate::edge::registry::push::refuse(status, code, &why))
            }
            Err(PushError::Failed(error)) => Err(error),
        }
    }

    async fn accept_manifest(&self, what: &str, body: Body) -> PushResult<Hash256> {
        let bytes = match timeout(STALL, Limited::new(body, manifest::MAX_DOCUMENT as usize).collect()).await
        {
            Ok(Ok(bytes)) => bytes.to_bytes().to_vec(),
            _ => return Err(PushError::invalid("the manifest is too large, or did not arrive")),
        };
        let parsed = manifest::parse(&bytes).map_err(PushError::invalid)?;
        let types = match parsed {
            manifest::Document::Image(_) => [manifest::OCI_MANIFEST, manifest::DOCKER_MANIFEST],
            manifest::Document::Index(_) => [manifest::OCI_INDEX, manifest::DOCKER_LIST],
        };
        let document = Document {
            digest: manifest::digest_of(&bytes),
            media_type: self.media_type(types)?.to_owned(),
            bytes,
        };
        let by_digest = what.starts_with("sha256:");
        if by_digest && digest_in(Some(&what.to_owned())) != Some(document.digest) {
            let why = format!("the manifest has the digest sha256:{}", document.digest);
            return Err(PushError::Refused(StatusCode::BAD_REQUEST, "DIGEST_INVALID", why));
        }
        let digest = document.digest;
        match parsed {
            manifest::Document::Index(_) if by_digest => {
                return Err(PushError::invalid(
                    "an index is accepted with a tag only, and not within another index",
                ));
            }
            manifest::Document::Index(entries) => self.index(what, document, &entries).await?,
            manifest::Document::Image(image) if by_digest => self.child(document, &image).await?,
            manifest::Document::Image(image) => self.image(what, document, &image).await?,
        }
        Ok(digest)
    }

    /// The media type of the request, which must be one of two; the first by default.
    fn media_type(&self, types: [&'static str; 2]) -> PushResult<&'static str> {
        let Some(said) = self.headers.get(header::CONTENT_TYPE) else { return Ok(types[0]) };
        let said = said.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        types.into_iter().find(|t| *t == said).ok_or_else(|| {
            let [one, other] = types;
            PushError::invalid(format!("this manifest must have the type {one} or {other}"))
        })
    }

    /// A manifest pushed by digest, which waits for an index.
    async fn child(&self, document: Document, image: &Manifest) -> PushResult<()> {
        let _housekeeping = self.app.images().housekeeping_on_drop();
        let mut pinned = self.app.images().pins().begin();
        let (config_bytes, kind) = self.inspect(image).await?;
        let (id, blobs) = match &kind {
            ManifestKind::Image(_, layers) => {
                self.get_layers(layers, &mut pinned).await?;
                let _writing = self.app.images().writing().await;
                let id = blocking(|| self.app.store().put_config_bytes(&config_bytes))?;
                pinned.image(id);
                (Some(id), compressed(layers))
            }
            ManifestKind::Other(_) => {
                let all: Vec<Hash256> = parts(image).collect();
                for digest in &all {
                    self.require_blob(digest, &config_bytes, image, &mut pinned).await?;
                }
                (None, all)
            }
        };
        let child = Child { document, image: id, blobs, _pinned: pinned };
        if !self.app.registries().uploads().add_child(&self.user, self.name, child) {
            return Err(PushError::too_many("too many manifests are waiting for an index"));
        }
        if let Some(id) = id {
            self.app.registries().uploads().forget(&self.user, &id.0);
        }
        Ok(())
    }

    /// A manifest pushed with a tag: the reference points to its image.
    async fn image(&self, tag: &str, document: Document, image: &Manifest) -> PushResult<()> {
        let (config_bytes, kind) = self.inspect(image).await?;
        let (config, layers) = match kind {
            ManifestKind::Image(config, layers) => (config, layers),
            ManifestKind::Other(why) => return Err(why),
        };
        let target = self.plan(tag).await?;
        let _housekeeping = self.app.images().housekeeping_on_drop();
        let mut pinned = self.app.images().pins().begin();
        self.get_layers(&layers, &mut pinned).await?;
        let writing = self.app.images().writing().await;
        let image_id = blocking(|| self.app.store().put_config_bytes(&config_bytes))?;
        pinned.image(image_id);
        let blobs = compressed(&layers);
        self.keep_blobs(&blobs, &writing)?;
        self.app.registries().uploads().forget(&self.user, &image_id.0);
        let Document { digest, media_type, bytes } = document;
        let row = ManifestRow { digest, media_type, bytes, image_id };
        let record = |c: &Connection| {
            row.put(c, &blobs)?;
            PushRow::put(c, &target.reference, &image_id, &digest)
        };
        self.publish_ref(tag, &target, image_id, &config, record).await
    }

    /// What a manifest describes, by its configuration; and the bytes of the configuration.
    async fn inspect(&self, image: &Manifest) -> PushResult<(Vec<u8>, ManifestKind)> {
        let digest = &image.config.digest;
        let mut bytes = Vec::new();
        let mut read = |file: std::fs::File| {
            file.take(manifest::MAX_DOCUMENT).read_to_end(&mut bytes).context("cannot read a blob")
        };
        if let Some(blob) = self.app.registries().uploads().complete(&self.user, digest) {
            read(blob.open()?)?;
        } else if let Ok(known) = self.app.store().config_bytes(&ImageId(*digest)) {
            bytes = known;
        } else if let Ok((file, _)) = self.app.store().open_blob(digest) {
            read(file)?;
        } else {
            return Err(PushError::missing(digest));
        }
        let config: ImageConfig = match serde_json::from_slice(&bytes) {
            Ok(config) => config,
            Err(e) => {
                let why = PushError::invalid(format!("the configuration of the image is invalid: {e}"));
                return Ok((bytes, ManifestKind::Other(why)));
            }
        };
        if labels::models_of(&config).is_empty()
            && let Err(why) = labels::check(&config)
        {
            return Ok((bytes, ManifestKind::Other(why.into())));
        }
        labels::fits_server(&config)?;
        // Pushed images must be served unchanged, so their layers cannot be squashed.
        manifest::check_layer_count(image.layers.len(), MAX_LAYERS).map_err(PushError::invalid)?;
        let layers = config.layers().map_err(|e| PushError::invalid(e.to_string()))?;
        let layers = manifest::pair(&image.layers, &layers).map_err(PushError::invalid)?;
        Ok((bytes, ManifestKind::Image(Box::new(config), layers)))
    }

    /// Unpacks layers from waiting blobs into the store, and pins them.
    async fn get_layers(&self, layers: &[LayerBlob], pinned: &mut Pinned) -> PushResult<()> {
        for (number, layer) in layers.iter().enumerate() {
            if let Some(blob) = self.app.registries().uploads().complete(&self.user, &layer.digest) {
                self.unpack(layers, number, &blob, pinned).await?;
                continue;
            }
            let _writing = self.app.images().writing().await;
            let plain = layer.digest == layer.diff_id.0;
            if !self.app.store().has_layer(&layer.diff_id)
                || !(plain || self.app.store().has_blob(&layer.digest))
            {
                return Err(PushError::missing(&layer.digest));
            }
            pinned.layer(layer.diff_id);
        }
        Ok(())
    }

    /// Unpacks a blob as a layer, and verifies its diff-id.
    async fn unpack(
        &self,
        layers: &[LayerBlob],
        number: usize,
        blob: &NewBlob,
        pinned: &mut Pinned,
    ) -> PushResult<()> {
        let app = self.app.clone();
        // Another push may have moved the blob into the store.
        let file = match blob.open() {
            Err(e) => app.store().open_blob(&blob.digest()).map_err(|_| e)?.0,
            Ok(file) => file,
        };
        let order: Vec<DiffId> = layers[..=number].iter().map(|l| l.diff_id).collect();
        let diff_id = layers[number].diff_id;
        let work = tokio::task::spawn_blocking(move || app.store().unpack_layer(file, &diff_id));
        let unpacked = match work.await? {
            Ok(unpacked) => unpacked,
            Err(e @ walt_images::Error::Io { .. }) => return Err(e.into()),
            Err(e) => return Err(PushError::invalid(e.to_string())),
        };
        let _writing = self.app.images().writing().await;
        blocking(|| self.app.store().keep_layers(vec![unpacked], &order))?;
        pinned.layer(diff_id);
        Ok(())
    }

    /// Makes sure that a part of a manifest that is not an image for nodes exists as a blob. A part that exists only
    /// as a layer or configuration of an image was not sent, since [`Push::upload`] reported it as present (`mount`).
    async fn require_blob(
        &self,
        digest: &Hash256,
        config_bytes: &[u8],
        image: &Manifest,
        pinned: &mut Pinned,
    ) -> PushResult<()> {
        let (app, layer) = (self.app, DiffId(*digest));
        if app.registries().uploads().complete(&self.user, digest).is_some() || app.store().has_blob(digest) {
            return Ok(());
        }
        let mut blob = app.store().new_blob()?;
        if *digest == image.config.digest {
            blob.write(config_bytes)?;
        } else {
            {
                let _writing = app.images().writing().await;
                if !app.store().has_layer(&layer) {
                    return Err(PushError::missing(digest));
                }
                pinned.layer(layer);
            }
            blob = blocking(|| -> Result<NewBlob> {
                let mut out = io::BufWriter::new(BlobWriter(blob));
                app.store().export_layer(&layer, &mut out)?;
                Ok(out.into_inner().map_err(io::IntoInnerError::into_error)?.0)
            })?;
        }
        app.registries().uploads().add(&self.user, blob);
        Ok(())
    }

    /// Moves waiting blobs into the store; all others must be there already. If one is missing, none is moved.
    pub(super) fn keep_blobs(&self, blobs: &[Hash256], _writing: &Writing<'_>) -> PushResult<()> {
        let mut waiting = Vec::new();
        for digest in blobs {
            match self.app.registries().uploads().complete(&self.user, digest) {
                Some(blob) => waiting.push(blob),
                // It may have been removed with its image since.
                None if !self.app.store().has_blob(digest) => return Err(PushError::missing(digest)),
                None => {}
            }
        }
        for blob in waiting {
            blocking(|| self.app.store().keep_blob(&blob))?;
            // Its file now belongs to the store.
            self.app.registries().uploads().forget(&self.user, &blob.digest());
        }
        Ok(())
    }

    /// What the reference points to now.
    pub(super) async fn plan(&self, tag: &str) -> PushResult<Target> {
        let decision = self.app.base().decide().await;
        Ok(Target::plan(self.app, &self.user, &format!("{}:{tag}", self.name), &decision)?)
    }

    /// Makes the reference point to an image, records the rest in the same transaction, and starts the reboot of the
    /// nodes that use it.
    pub(super) async fn publish_ref(
        &self,
        tag: &str,
        target: &Target,
        image: ImageId,
        config: &ImageConfig,
        record: impl FnOnce(&Connection) -> Result<()>,
    ) -> PushResult<()> {
        let created = images::created(config).unwrap_or_else(|| time::now() as i64);
        let by = By::new(&self.user, format!("push {}/{}:{tag}", self.user, self.name));
        let targets = std::slice::from_ref(target);
        let users = publish_refs_with(self.app, targets, image, created, &by, record).await?;
        if !users.is_empty() {
            reboot(self.app.clone(), users);
        }
        Ok(())
    }
}

fn reboot(app: Arc<App>, users: Vec<NodeRow>) {
    // A push has no terminal for these events; failures are logged.
    tokio::spawn(async move {
        let (events, _nobody) = Events::channel();
        drop(_nobody);
        if !matches!(reboot_users(&app, &users, &events).await, Ok(true)) {
            tracing::warn!("not all nodes that use a pushed image were rebooted");
        }
    });
}

/// All digests in a manifest.
pub(super) fn parts(image: &Manifest) -> impl Iterator<Item = Hash256> {
    std::iter::once(&image.config).chain(&image.layers).map(|d| d.digest)
}

/// The layers whose blobs cannot be generated from the store.
fn compressed(layers: &[LayerBlob]) -> Vec<Hash256> {
    layers.iter().filter(|l| l.digest != l.diff_id.0).map(|l| l.digest).collect()
}

/// Writes to a blob.
struct BlobWriter(NewBlob);

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
