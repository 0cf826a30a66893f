//! OCI image configurations.
//!
//! Source: OCI image specification 1.1, "config". Fields we do not use are kept as they are.

use crate::{
    error::{Context, Error, Result},
    store::{MAX_LAYERS, Store},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::PathBuf};
use walt_types::{DiffId, Hash256, ImageId};

/// Largest configuration accepted, in bytes (as in container runtimes).
const MAX_CONFIG: usize = 8 << 20;

/// An OCI image configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was created, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub author: Option<String>,
    /// CPU architecture, in Go's names (`amd64`, `arm`, `arm64`).
    pub architecture: String,
    /// Operating system: `linux`.
    pub os: String,
    /// What a container of the image runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RunConfig>,
    /// The layers.
    pub rootfs: RootFs,
    /// How the image was made, oldest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<History>>,
    /// All other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a container of the image runs with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunConfig {
    /// `NAME=value` entries.
    #[serde(rename = "Env", default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Labels, `walt.node.models` among them.
    #[serde(rename = "Labels", default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// All other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers of an image, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, with their prefix.
    pub diff_ids: Vec<String>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One step of the creation of an image.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<String>,
    /// By which command.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub author: Option<String>,
    /// Anything.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
    /// Whether it created no layer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty_layer: Option<bool>,
}

impl ImageConfig {
    /// The layers, lowest first.
    pub fn layers(&self) -> Result<Vec<DiffId>> {
        let digest = |text: &String| match text.strip_prefix("sha256:").map(str::parse) {
            Some(Ok(id)) => Ok(id),
            _ => Err(Error::Layer(format!(
                "the image configuration's diff_id '{text}' is not 'sha256:<64 digits>'"
            ))),
        };
        self.rootfs.diff_ids.iter().map(digest).collect()
    }

    /// Puts a layer on top, with its history entry.
    pub fn push_layer(&mut self, layer: &DiffId, history: History) {
        self.rootfs.diff_ids.push(layer.oci());
        self.history.get_or_insert_default().push(history);
    }

    /// Value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// SHA-256 of some bytes: the digest of an OCI blob.
pub fn digest_of(bytes: &[u8]) -> Hash256 {
    Hash256(Sha256::digest(bytes).into())
}

impl Store {
    fn config_path(&self, image: &ImageId) -> PathBuf {
        self.images_dir().join("configs").join(format!("{image}.json"))
    }

    /// Stores a configuration made here. Durable when this returns.
    pub fn put_config(&self, config: &ImageConfig) -> Result<ImageId> {
        let bytes = serde_json::to_vec(config)
            .map_err(|e| Error::Layer(format!("the configuration cannot be written: {e}")))?;
        self.put_config_bytes(&bytes)
    }

    /// Like [`Store::put_config`], for a commit in progress: the layer `coming` is prepared and not adopted yet. The
    /// configuration has to be durable before the commit is recorded, and the record before the adoption.
    pub fn put_config_before(&self, config: &ImageConfig, coming: &DiffId) -> Result<ImageId> {
        let bytes = serde_json::to_vec(config)
            .map_err(|e| Error::Layer(format!("the configuration cannot be written: {e}")))?;
        self.write_config(&bytes, Some(coming))
    }

    /// Stores a configuration from outside, byte for byte, after checking it. Its layers must be in the store.
    pub fn put_config_bytes(&self, bytes: &[u8]) -> Result<ImageId> {
        self.write_config(bytes, None)
    }

    fn write_config(&self, bytes: &[u8], coming: Option<&DiffId>) -> Result<ImageId> {
        let config = ImageConfig::parse(bytes)?;
        let layers = config.layers()?;
        if layers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers { count: layers.len(), max: MAX_LAYERS });
        }
        if let Some(missing) = layers.iter().find(|l| coming != Some(*l) && !self.has_layer(l)) {
            return Err(Error::Missing { kind: "layer", id: missing.to_string() });
        }
        let image = ImageId(digest_of(bytes));
        let path = self.config_path(&image);
        if path.exists() {
            return Ok(image);
        }
        self.write_file("write the image configuration", &path, bytes)?;
        Ok(image)
    }

    /// The bytes of a configuration; their digest is the image's id, which is checked.
    pub fn config_bytes(&self, image: &ImageId) -> Result<Vec<u8>> {
        let path = self.config_path(image);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing { kind: "image", id: image.to_string() });
            }
            other => other.on("read the image configuration", &path)?,
        };
        if digest_of(&bytes) != image.0 {
            return Err(Error::Damaged { path, why: "its digest is wrong".into() });
        }
        Ok(bytes)
    }

    /// A stored configuration.
    pub fn config(&self, image: &ImageId) -> Result<ImageConfig> {
        ImageConfig::parse(&self.config_bytes(image)?)
    }
}

impl ImageConfig {
    /// Reads a configuration of at most [`MAX_CONFIG`] bytes.
    ///
    /// # Errors
    /// It is larger, or not one of an OCI image.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_CONFIG {
            return Err(Error::Layer(format!(
                "the image configuration is larger than {} MiB",
                MAX_CONFIG >> 20
            )));
        }
        serde_json::from_slice(bytes)
            .map_err(|e| Error::Layer(format!("the image configuration is not valid: {e}")))
    }
}
