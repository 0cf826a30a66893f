//! `walt advanced update-hub-meta`: updates a publisher's metadata from the images on the hub.
//!
//! The hub's registry has no list of repositories; its API lists the public ones. Private images are not described.

use crate::{
    actions::app::App,
    base::{
        events::Events,
        failure::{Outcome, refused},
        registry_config::{Kind, RegistryConfig},
    },
    services::{
        images::LABEL_MODELS,
        registries::{
            error,
            hub::{self, Metadata, Published},
            links::{path_part, tag_ok},
            open,
        },
    },
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use std::sync::Arc;
use walt_api::RegistryCredentials;
use walt_registry::{Error, Limits, MAX_PAGES, Registry, Result, Wanted, path_of, pull::resolve};
use walt_types::PLATFORM_USER;

/// Entries requested per page.
const PAGE: usize = 100;
/// Images inspected at the same time.
const PARALLEL: usize = 8;

/// Describes all images of a publisher in the metadata.
pub async fn update_hub_meta(
    app: &Arc<App>,
    platform: bool,
    credentials: Option<&RegistryCredentials>,
    events: &Events,
) -> Outcome<bool> {
    let hub = app.config().registries.iter().find(|r| r.api == Kind::DockerHub);
    let hub = hub.ok_or_else(|| refused("the docker hub is not configured as a registry of this server."))?;
    let label = |e| error::Error::of(&hub.label, e);
    let Some(credentials) = credentials else {
        return Err(error::Error::Credentials { label: hub.label.clone(), given: false }.into());
    };
    let user = if platform { PLATFORM_USER } else { credentials.username.as_str() };
    if !path_part(user) {
        return Err(refused(format!("'{user}' is not a valid user name of the docker hub.")));
    }
    events.busy(format!("Inspecting the images of {user}")).await;
    let registry = open(hub, Some(credentials))?;
    registry.ping().await.map_err(label)?;
    let metadata = scan(hub, &registry, user, events).await.map_err(label)?;
    let before = match hub::read(&registry, user).await {
        // A hub may ask for credentials for an image that does not exist.
        Err(Error::Credentials { .. }) => None,
        other => Some(other.map_err(label)?),
    };
    if before.as_ref() != Some(&metadata) {
        hub::write(&registry, user, &metadata).await.map_err(label)?;
    }
    for full in metadata.images.keys() {
        events.out(format!("{}:{full}", hub.label)).await;
    }
    events.out(format!("OK, searches find {} image(s) of {user}.", metadata.images.len())).await;
    Ok(true)
}

/// All images for nodes that a user has. A transient failure fails the scan, since no image may be left out for it.
async fn scan(hub: &RegistryConfig, registry: &Registry, user: &str, events: &Events) -> Result<Metadata> {
    let api = Registry::new(hub.hub_api(), None, Limits::default())?;
    let mut images = Vec::new();
    for name in names(&api, &format!("/v2/repositories/{user}/"), "list of repositories").await? {
        if name == hub::REPOSITORY || !path_part(&name) {
            continue;
        }
        let path = format!("/v2/repositories/{user}/{name}/tags/");
        let tags = names(&api, &path, "list of tags").await?.into_iter().filter(|t| tag_ok(t));
        images.extend(tags.map(|tag| (format!("{user}/{name}"), tag)));
    }
    let each: Vec<_> =
        images.into_iter().map(|(name, tag)| image(registry, name, tag, events).boxed()).collect();
    let found: Vec<_> = stream::iter(each).buffer_unordered(PARALLEL).try_collect().await?;
    Ok(Metadata { images: found.into_iter().flatten().collect() })
}

/// The description of an image; none if it is not for nodes.
async fn image(
    registry: &Registry,
    name: String,
    tag: String,
    events: &Events,
) -> Result<Option<(String, Published)>> {
    let full = format!("{name}:{tag}");
    match resolve(registry, &name, &tag, Wanted::Models(&[]), |c| c.label(LABEL_MODELS).is_some()).await {
        Ok(found) if found.config.label(LABEL_MODELS).is_none() => Ok(None),
        Ok(found) => {
            let labels = found.config.config.and_then(|c| c.labels).unwrap_or_default();
            Ok(Some((full, Published { labels })))
        }
        Err(e) if e.is_transient() => Err(e),
        Err(e) => {
            events.note(format!("Skipping {full}: {e}.")).await;
            Ok(None)
        }
    }
}

/// The names in a list of the hub's API, from all pages.
async fn names(api: &Registry, path: &str, what: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        next: Option<String>,
        results: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        name: String,
    }
    let mut path = format!("{path}?page_size={PAGE}");
    let mut all = Vec::new();
    for _ in 0..MAX_PAGES {
        let page: Page = match api.get_json(&path, what).await {
            // A user without repositories.
            Err(Error::NotFound { .. }) => return Ok(all),
            other => other?,
        };
        all.extend(page.results.into_iter().map(|i| i.name));
        match page.next.as_deref().and_then(path_of) {
            Some(next) => path = next,
            None => return Ok(all),
        }
    }
    Err(Error::Unfit(format!("the {what} has more than {MAX_PAGES} pages")))
}
