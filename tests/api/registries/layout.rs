//! OCI layouts, written by hand: what a foreign program pushes for a test (OCI image layout specification).

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use walt_registry::manifest::digest_of;

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", digest_of(bytes))
}

/// What points to bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// A directory that becomes one.
pub struct Layout<'a>(&'a Path);

impl<'a> Layout<'a> {
    pub fn new(dir: &'a Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        Self(dir)
    }

    /// Adds a blob; what points to it.
    pub fn add(&self, media_type: &str, bytes: &[u8]) -> Value {
        fs::write(self.0.join("blobs/sha256").join(digest_of(bytes).to_string()), bytes).unwrap();
        descriptor(media_type, bytes)
    }

    /// Adds a document.
    pub fn add_json(&self, media_type: &str, document: &Value) -> Value {
        self.add(media_type, document.to_string().as_bytes())
    }

    /// The layout has this manifest or index.
    pub fn end(self, top: &Value) {
        fs::write(self.0.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": [top] });
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }
}
