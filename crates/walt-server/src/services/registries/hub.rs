//! Metadata of publishers on the docker hub, by which a search finds their images.
//!
//! Each publisher has an image `<user>/walt_metadata:latest` whose label `metadata` is base64 of
//! `{"walt.user.images": {"<user>/<name>:<tag>": {"labels": {…}}}}`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use walt_images::{ImageConfig, RunConfig};
use walt_registry::{Error, Registry, Result, Wanted, pull::resolve, push};

/// Name of the image.
pub const REPOSITORY: &str = "walt_metadata";
/// Its label.
const LABEL: &str = "metadata";
/// Users whose metadata are read in one search.
pub const MAX_USERS: usize = 100;
/// Largest metadata, in bytes.
const MAX_METADATA: usize = 4 << 20;

/// Metadata of one publisher.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Images by full name.
    #[serde(rename = "walt.user.images", default)]
    pub images: BTreeMap<String, Published>,
}

/// One image.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Parses the label. Its base64 may contain line breaks.
pub fn parse(label: &str) -> Option<Metadata> {
    if label.len() > MAX_METADATA {
        return None;
    }
    let text: String = label.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let json = STANDARD.decode(text).ok()?;
    // serde would accept an array for a struct whose fields have defaults.
    json.starts_with(b"{").then(|| serde_json::from_slice(&json).ok())?
}

/// The metadata of a publisher; empty if there are none.
///
/// # Errors
/// The registry failed, or the metadata image is invalid.
pub async fn read(registry: &Registry, user: &str) -> Result<Metadata> {
    match resolve(registry, &format!("{user}/{REPOSITORY}"), "latest", Wanted::Models(&[]), |_| true).await {
        Ok(found) => Ok(found.config.label(LABEL).and_then(parse).unwrap_or_default()),
        Err(Error::NotFound { .. }) => Ok(Metadata::default()),
        Err(e) => Err(e),
    }
}

/// Adds an image to the metadata of its publisher.
///
/// # Errors
/// The registry refused or failed.
pub async fn announce(
    registry: &Registry,
    user: &str,
    full: &str,
    labels: BTreeMap<String, String>,
) -> Result<()> {
    // The user has just pushed successfully: metadata that cannot be read do not exist yet.
    let mut metadata = match read(registry, user).await {
        Err(Error::Credentials { .. }) => Metadata::default(),
        other => other?,
    };
    if metadata.images.get(full).is_some_and(|known| known.labels == labels) {
        return Ok(());
    }
    metadata.images.insert(full.to_owned(), Published { labels });
    write(registry, user, &metadata).await
}

/// Replaces the metadata of a publisher.
///
/// # Errors
/// The registry refused or failed, or the metadata are too large.
pub async fn write(registry: &Registry, user: &str, metadata: &Metadata) -> Result<()> {
    // Invariant: maps of strings are JSON.
    let text = STANDARD.encode(serde_json::to_vec(metadata).expect("metadata are JSON"));
    if text.len() > MAX_METADATA {
        let images = metadata.images.len();
        return Err(Error::Unfit(format!("{user} has too many images ({images}) to describe them")));
    }
    let labels = Some([(LABEL.to_owned(), text)].into());
    let mut config =
        ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    config.config = Some(RunConfig { labels, ..RunConfig::default() });
    let repository = format!("{user}/{REPOSITORY}");
    // Some registries refuse images without layers.
    let layer = push::empty_layer(registry, &repository).await?;
    config.push_layer(&layer.diff_id, walt_images::History::default());
    let bytes = serde_json::to_vec(&config).expect("a configuration is JSON"); // as above
    push::finish(registry, &repository, "latest", &bytes, &[layer]).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_publishers() {
        let text = STANDARD.encode(
            r#"{"walt.user.images":{"ann/x:latest":{"labels":{"walt.node.models":"pc-x86-64"},"id":"7"}}}"#,
        );
        let (one, two) = text.split_at(20);
        let metadata = parse(&format!("{one}\n{two}\n")).unwrap();
        assert_eq!(metadata.images["ann/x:latest"].labels["walt.node.models"], "pc-x86-64");
        assert_eq!(parse(&STANDARD.encode("{}")), Some(Metadata::default()));
        for bad in ["%", "", &STANDARD.encode("[]"), &STANDARD.encode(r#"{"walt.user.images":[]}"#)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
