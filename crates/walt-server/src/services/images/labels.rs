//! The labels of images, and whether this server accepts an image by its labels.

use crate::services::images::error::{Error, Result};
use walt_images::ImageConfig;
use walt_types::Model;

/// Label with the models that an image is compatible with, separated by commas.
pub const LABEL_MODELS: &str = "walt.node.models";
/// Label with the name for users' clones of a default image.
pub const LABEL_PREFERRED_NAME: &str = "walt.image.preferred-name";
/// Label with the minimum server version of an image.
pub const LABEL_MINVERSION: &str = "walt.server.minversion";
/// The version of the existing system's server that this server is equivalent to.
pub const SERVER_VERSION: u32 = 10;

/// The models in the text of [`LABEL_MODELS`]; invalid names are skipped.
pub fn models_in(label: &str) -> Vec<Model> {
    label.split(',').filter_map(|m| m.trim().parse().ok()).collect()
}

/// Models that an image is compatible with; none if it is not for nodes.
pub fn models_of(config: &ImageConfig) -> Vec<Model> {
    config.label(LABEL_MODELS).map(models_in).unwrap_or_default()
}

/// The version in the text of [`LABEL_MINVERSION`], if this server is older.
pub fn needs_version(label: Option<&str>) -> Option<u32> {
    label?.trim().parse().ok().filter(|v| *v > SERVER_VERSION)
}

/// Refuses an image that is not for nodes or not for this server; otherwise its models.
pub fn check(config: &ImageConfig) -> Result<Vec<Model>> {
    let models = models_of(config);
    if models.is_empty() {
        return Err(Error::NotForNodes);
    }
    fits_server(config)?;
    Ok(models)
}

/// Refuses an image that needs a newer server.
pub fn fits_server(config: &ImageConfig) -> Result<()> {
    match needs_version(config.label(LABEL_MINVERSION)) {
        None => Ok(()),
        Some(version) => Err(Error::NeedsNewerServer { version }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_images::RunConfig;

    #[test]
    fn images_for_nodes_of_this_server() {
        let image = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let config = Some(RunConfig { labels: Some(labels), ..RunConfig::default() });
            ImageConfig { config, ..ImageConfig::default() }
        };
        let models = check(&image(&[(LABEL_MODELS, "pc-x86-64, ,rpi-4-b,No Model")])).unwrap();
        assert_eq!(models.iter().map(Model::as_str).collect::<Vec<_>>(), ["pc-x86-64", "rpi-4-b"]);
        for bad in ["", " , ", "No Model"] {
            assert!(check(&image(&[(LABEL_MODELS, bad)])).is_err(), "{bad}");
        }
        assert!(check(&ImageConfig::default()).is_err());
        for (version, taken) in [("4", true), ("10", true), ("11", false), ("soon", true)] {
            let labels = [(LABEL_MODELS, "pc-x86-64"), (LABEL_MINVERSION, version)];
            assert_eq!(check(&image(&labels)).is_ok(), taken, "{version}");
        }
    }
}
