//! Manifests and indexes, OCI (image specification 1.1) and docker schema 2, and which image of an index fits a node
//! model.

use serde::Deserialize;
use serde_json::json;
use walt_images::MAX_FOREIGN_LAYERS;
use walt_types::{DiffId, Hash256, ImageId};

pub use walt_images::digest_of;

/// Largest manifest, index or configuration, in bytes.
pub const MAX_DOCUMENT: u64 = 8 << 20;
/// Largest blob, in bytes.
pub const MAX_BLOB: u64 = 256 << 30;
/// Most entries of an index.
const MAX_ENTRIES: usize = 1024;

/// Media type of OCI manifests.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of OCI indexes.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of docker's manifests, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of docker's manifest lists.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of OCI configurations.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of OCI layers with gzip.
pub(super) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Points to a blob or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it points to.
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Hash256,
    /// Their count.
    pub size: u64,
}

/// An image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
}

/// An image in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its manifest.
    pub manifest: Descriptor,
    /// CPU architecture in Go's names; empty if the index does not specify it.
    pub architecture: String,
    /// Its variant (`v7`); empty if the index does not specify it.
    pub variant: String,
    /// Operating system; empty if the index does not specify it.
    pub os: String,
}

impl IndexEntry {
    /// Whether it may be an image for Linux: attestations of docker's builder call themselves "unknown".
    pub fn may_run(&self) -> bool {
        matches!(self.os.as_str(), "linux" | "") && self.architecture != "unknown"
    }

    /// Whether it may be an image for the CPU of a model of nodes.
    pub fn is_for(&self, model: &str) -> bool {
        self.architecture.is_empty() || architectures(model).contains(&self.architecture.as_str())
    }
}

/// What a reference points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Image(Manifest),
    /// Several, for different CPUs.
    Index(Vec<IndexEntry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize, Default)]
struct RawPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
}

impl RawDescriptor {
    fn check(self, max: u64) -> Result<Descriptor, String> {
        // Only SHA-256 must be supported (image specification, "digests").
        let digest = match self.digest.strip_prefix("sha256:").map(str::parse) {
            Some(Ok(digest)) => digest,
            _ => return Err(format!("the digest '{}' is not 'sha256:<64 digits>'", sanitized(&self.digest))),
        };
        if self.size > max {
            return Err(format!("{} bytes exceed the limit of {max}", self.size));
        }
        Ok(Descriptor { media_type: self.media_type, digest, size: self.size })
    }
}

/// Untrusted text for a message: bounded, without control characters.
pub(super) fn sanitized(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads a manifest or an index.
///
/// # Errors
/// What is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Document, String> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(format!("the manifest is larger than {MAX_DOCUMENT} bytes"));
    }
    let raw: RawDocument = serde_json::from_slice(bytes)
        .map_err(|e| format!("the manifest is not valid: {}", sanitized(&e.to_string())))?;
    if raw.schema_version != 2 {
        return Err(format!("the manifest has version {} instead of 2", raw.schema_version));
    }
    // A document that is both, or declares the other media type, would be ambiguous (CVE-2021-41190).
    let says = raw.media_type.as_deref();
    match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(entries)) if says.is_none_or(|t| matches!(t, OCI_INDEX | DOCKER_LIST)) => {
            if entries.len() > MAX_ENTRIES {
                return Err(format!("the index has more than {MAX_ENTRIES} entries"));
            }
            let entry = |mut raw: RawDescriptor| {
                let platform = raw.platform.take().unwrap_or_default();
                let manifest = raw.check(MAX_DOCUMENT)?;
                let RawPlatform { architecture, variant, os } = platform;
                Ok(IndexEntry { manifest, architecture, variant, os })
            };
            Ok(Document::Index(entries.into_iter().map(entry).collect::<Result<_, String>>()?))
        }
        (Some(config), Some(layers), None)
            if says.is_none_or(|t| matches!(t, OCI_MANIFEST | DOCKER_MANIFEST)) =>
        {
            check_layer_count(layers.len(), MAX_FOREIGN_LAYERS)?;
            let config = config.check(MAX_DOCUMENT)?;
            let layers = layers.into_iter().map(|l| l.check(MAX_BLOB)).collect::<Result<_, _>>()?;
            Ok(Document::Image(Manifest { config, layers }))
        }
        _ => Err("the manifest is neither an image nor an index".into()),
    }
}

/// Refuses an image with more than `limit` layers.
///
/// # Errors
/// A sentence for the user.
pub fn check_layer_count(layers: usize, limit: usize) -> Result<(), String> {
    if layers <= limit {
        return Ok(());
    }
    Err(format!(
        "the image has {layers} layers, at most {limit} are accepted: squash it where it was made \
         ('podman build --squash-all', 'walt image squash')"
    ))
}

/// The OCI manifest of an image whose layers are in a registry; the same input gives the same bytes.
pub fn write(config: &ImageId, config_size: u64, layers: &[super::LayerBlob]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|l| {
            let digest = format!("sha256:{}", l.digest);
            json!({ "mediaType": oci_layer_type(&l.media_type), "digest": digest, "size": l.size })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": config.oci(), "size": config_size },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

/// The OCI media type of a layer with an OCI or docker media type.
fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        other => other,
    }
}

/// The CPU architectures, in Go's names, that run images for a model of nodes; best first.
pub(super) fn architectures(model: &str) -> &'static [&'static str] {
    match model {
        "pc-x86-32" => &["386"],
        m if m.starts_with("pc-") || m.starts_with("qemu-") => &["amd64"],
        // 64-bit boards run both kinds; the label of an image says which one it is for.
        "rpi-3-b" | "rpi-3-b-plus" | "rpi-4-b" | "rpi-5-b" | "rpi-400" => &["arm64", "arm"],
        m if m.starts_with("rpi-") => &["arm"],
        _ => &["amd64", "arm64", "arm", "386"],
    }
}

/// The images of an index that may fit nodes of these models, best first: those for their CPUs, then others for
/// Linux.
pub fn candidates<'a>(entries: &'a [IndexEntry], models: &[String]) -> Vec<&'a IndexEntry> {
    let mut wanted: Vec<&str> = Vec::new();
    for architecture in models.iter().flat_map(|m| architectures(m)) {
        if !wanted.contains(architecture) {
            wanted.push(architecture);
        }
    }
    let rank = |e: &IndexEntry| {
        let place = wanted.iter().position(|w| *w == e.architecture);
        place.unwrap_or(if e.architecture.is_empty() { wanted.len() } else { wanted.len() + 1 })
    };
    let mut sorted: Vec<&IndexEntry> = entries.iter().filter(|e| e.may_run()).collect();
    sorted.sort_by_key(|e| rank(e));
    sorted
}

/// Pairs layers with diff-ids; their numbers must be equal.
///
/// # Errors
/// A sentence.
pub fn pair(layers: &[Descriptor], diff_ids: &[DiffId]) -> Result<Vec<super::LayerBlob>, String> {
    if layers.len() != diff_ids.len() {
        return Err(format!(
            "the manifest has {} layers, the image's configuration {}",
            layers.len(),
            diff_ids.len()
        ));
    }
    let blob = |(layer, diff_id): (&Descriptor, &DiffId)| super::LayerBlob {
        diff_id: *diff_id,
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type.clone(),
    };
    Ok(layers.iter().zip(diff_ids).map(blob).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> String {
        format!("sha256:{}", format!("{byte:02x}").repeat(32))
    }

    fn descriptor(byte: u8, size: u64) -> serde_json::Value {
        json!({ "mediaType": "x", "digest": hash(byte), "size": size })
    }

    fn image() -> serde_json::Value {
        json!({ "schemaVersion": 2, "config": descriptor(1, 5), "layers": [descriptor(2, 7)] })
    }

    fn read(value: &serde_json::Value) -> Result<Document, String> {
        parse(value.to_string().as_bytes())
    }

    #[test]
    fn manifests_and_indexes_are_read() {
        let Ok(Document::Image(manifest)) = read(&image()) else { panic!() };
        assert_eq!((manifest.layers.len(), manifest.layers[0].size), (1, 7));
        let mut entry = descriptor(3, 9);
        entry["platform"] = json!({ "architecture": "arm64", "os": "linux", "variant": "v8" });
        let index =
            json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry, descriptor(4, 1)] });
        let Ok(Document::Index(entries)) = read(&index) else { panic!() };
        assert_eq!((entries[0].architecture.as_str(), entries[1].os.as_str()), ("arm64", ""));
    }

    #[test]
    fn nonsense_is_refused() {
        let change = |f: &dyn Fn(&mut serde_json::Value)| {
            let mut value = image();
            f(&mut value);
            read(&value).unwrap_err()
        };
        assert!(change(&|v| v["schemaVersion"] = 1.into()).contains("version 1"));
        assert!(change(&|v| v["mediaType"] = OCI_INDEX.into()).contains("neither"));
        assert!(change(&|v| v["manifests"] = json!([])).contains("neither"));
        assert!(change(&|v| v["config"]["digest"] = "sha512:00".into()).contains("sha512:00"));
        assert!(change(&|v| v["config"]["size"] = (MAX_DOCUMENT + 1).into()).contains("bytes exceed"));
        assert!(change(&|v| v["layers"][0]["size"] = (-1).into()).contains("not valid"));
        assert!(
            change(&|v| v["layers"] = vec![descriptor(2, 1); MAX_FOREIGN_LAYERS + 1].into())
                .contains("129 layers")
        );
        assert!(parse(b"<html>").is_err() && parse(b"").is_err());
    }

    #[test]
    fn an_index_is_ordered_by_models() {
        let entry = |architecture: &str, os: &str| IndexEntry {
            manifest: Descriptor { media_type: String::new(), digest: Hash256([0; 32]), size: 1 },
            architecture: architecture.into(),
            variant: String::new(),
            os: os.into(),
        };
        let all = [
            entry("unknown", "unknown"),
            entry("s390x", "linux"),
            entry("arm", "linux"),
            entry("amd64", "windows"),
            entry("amd64", "linux"),
            entry("arm64", "linux"),
        ];
        let names = |models: &[&str]| {
            let models: Vec<String> = models.iter().map(ToString::to_string).collect();
            candidates(&all, &models).into_iter().map(|e| e.architecture.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["pc-x86-64"]), ["amd64", "s390x", "arm", "arm64"]);
        assert_eq!(names(&["rpi-4-b", "pc-x86-64"]), ["arm64", "arm", "amd64", "s390x"]);
        assert_eq!(names(&["rpi-b-plus"]), ["arm", "s390x", "amd64", "arm64"]);
        assert_eq!(names(&["pc-x86-32"])[0], "s390x");
    }
}
