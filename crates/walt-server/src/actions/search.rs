//! `walt image search`: searches all places at once. A place that is down, slow or broken costs one note.

use crate::{
    actions::app::App,
    base::{
        db::RefRow,
        events::Events,
        failure::Outcome,
        registry_config::{Kind, RegistryConfig},
    },
    services::{
        images::labels::{self, LABEL_MINVERSION, LABEL_MODELS},
        registries::{
            REGISTRY_TIMEOUT, docker, hub, ignored_note,
            links::{Link, path_part, tag_ok},
            open_impatient, with_time_limit,
        },
    },
};
use futures_util::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
};
use tokio::task::JoinSet;
use walt_api::{FoundImage, RegistryCredentials};
use walt_registry::{Error, Registry, Result, Wanted, pull::resolve};
use walt_types::UserName;

/// Parallel requests to one registry.
const PARALLEL: usize = 8;
/// Repositories of one registry that are searched.
const MAX_REPOSITORIES: usize = 5000;
/// Tags of one repository that are searched.
const MAX_TAGS: usize = 100;
/// Results of one search.
const MAX_RESULTS: usize = 10_000;

/// Filters the images found, and reports them to the client.
#[derive(Clone)]
struct Finder {
    keyword: Option<String>,
    events: Events,
    count: Arc<AtomicUsize>,
}

impl Finder {
    fn wants(&self, link: &Link) -> bool {
        self.keyword.as_ref().is_none_or(|k| link.text().contains(k.as_str()))
    }

    /// Reports an image, if its labels name models.
    async fn report(&self, link: &Link, place: &str, label: impl Fn(&str) -> Option<String> + Send + Sync) {
        // Labels of foreign images are not trusted.
        let models = label(LABEL_MODELS).map(|l| labels::models_in(&l)).unwrap_or_default();
        if models.is_empty() {
            return;
        }
        if !self.wants(link) || self.count.fetch_add(1, Ordering::Relaxed) >= MAX_RESULTS {
            return;
        }
        let image = FoundImage {
            user: link.user.clone(),
            name: Link { user: String::new(), ..link.clone() }.path(),
            location: place.to_owned(),
            compatibility: models.iter().map(ToString::to_string).collect(),
            clonable_link: link.text(),
            needs_server_version: labels::needs_version(label(LABEL_MINVERSION).as_deref()),
        };
        self.events.found(image).await;
    }
}

/// Searches everywhere.
pub async fn search(
    app: &Arc<App>,
    caller: &UserName,
    keyword: Option<String>,
    credentials: BTreeMap<String, RegistryCredentials>,
    events: &Events,
) -> Outcome<bool> {
    events.busy("Searching").await;
    let finder = Finder { keyword, events: events.clone(), count: Arc::default() };
    let mut places = JoinSet::new();
    for registry in app.config().registries.clone() {
        let (finder, events) = (finder.clone(), events.clone());
        let credentials = credentials.get(&registry.label).cloned();
        places.spawn(async move {
            let searched =
                with_time_limit(&registry.label, one_registry(&registry, credentials, &finder)).await;
            if let Err(e) = searched {
                events.note(ignored_note(&registry.label, &e)).await;
            }
        });
    }
    let daemon = finder.clone();
    places.spawn(async move {
        // A server without a daemon is normal.
        if let Ok(Ok(all)) = tokio::time::timeout(REGISTRY_TIMEOUT, docker::list()).await {
            for (link, labels) in all {
                daemon.report(&link, "docker daemon", |name| labels.get(name).cloned()).await;
            }
        }
    });
    for row in app.db().with(RefRow::all)? {
        if row.reference.user() == caller.as_str() {
            continue;
        }
        let config = app.store().config(&row.image_id)?;
        let image = row.reference.image();
        let link = Link {
            location: "walt".into(),
            user: row.reference.user().into(),
            name: image.name().into(),
            tag: image.tag().into(),
        };
        let place = if row.reference.is_platform() { "walt (default image)" } else { "walt (other user)" };
        finder.report(&link, place, |name| config.label(name).map(str::to_owned)).await;
    }
    while let Some(ended) = places.join_next().await {
        ended.map_err(crate::base::failure::Failure::of_task("the search of a registry"))?;
    }
    Ok(true)
}

async fn one_registry(
    config: &RegistryConfig,
    credentials: Option<RegistryCredentials>,
    finder: &Finder,
) -> Result<()> {
    let registry = open_impatient(config, credentials.as_ref())?;
    match config.api {
        Kind::DockerHub => search_hub(config, &registry, finder).await,
        Kind::DockerRegistryV2 | Kind::JfrogArtifactory => search_catalog(config, &registry, finder).await,
    }
}

async fn search_hub(config: &RegistryConfig, registry: &Registry, finder: &Finder) -> Result<()> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        results: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        name: String,
    }
    let path = format!("/v1/search?q={}&n={}", hub::REPOSITORY, hub::MAX_USERS);
    let page: Page = registry.get_json(&path, "search").await?;
    let users = page.results.iter().filter_map(|i| match i.name.rsplit_once('/') {
        Some((user, hub::REPOSITORY)) if path_part(user) => Some(user.to_owned()),
        _ => None,
    });
    let users: Vec<String> = users.take(hub::MAX_USERS).collect();
    let each: Vec<_> =
        users.into_iter().map(|user| publisher(config, registry, finder, user).boxed()).collect();
    stream::iter(each).buffer_unordered(PARALLEL).collect::<()>().await;
    Ok(())
}

async fn publisher(config: &RegistryConfig, registry: &Registry, finder: &Finder, user: String) {
    // A broken image of one publisher does not fail the search of the hub.
    let Ok(metadata) = hub::read(registry, &user).await else { return };
    for (full, image) in metadata.images {
        let Ok(link) = Link::parse(&format!("{}:{full}", config.label)) else { continue };
        // Metadata of other users' images are ignored.
        if link.user == user {
            finder.report(&link, "docker hub", |name| image.labels.get(name).cloned()).await;
        }
    }
}

async fn search_catalog(config: &RegistryConfig, registry: &Registry, finder: &Finder) -> Result<()> {
    let repositories = registry.catalog().await?;
    let repositories = repositories.into_iter().take(MAX_REPOSITORIES);
    let each: Vec<_> = repositories.map(|name| tags_of(config, registry, finder, name).boxed()).collect();
    let mut all = stream::iter(each).buffer_unordered(PARALLEL);
    while let Some(one) = all.next().await {
        one?;
    }
    Ok(())
}

async fn tags_of(
    config: &RegistryConfig,
    registry: &Registry,
    finder: &Finder,
    repository: String,
) -> Result<()> {
    if !repository.split('/').all(path_part) {
        return Ok(());
    }
    let tags = match registry.tags(&repository).await {
        // It may have been removed meanwhile, or belong to another user.
        Err(Error::NotFound { .. } | Error::Credentials { .. }) => return Ok(()),
        other => other?,
    };
    for tag in tags.into_iter().filter(|t| tag_ok(t)).take(MAX_TAGS) {
        let Ok(link) = Link::parse(&format!("{}:{repository}:{tag}", config.label)) else { continue };
        if !finder.wants(&link) {
            continue;
        }
        // Tags that are not images are skipped.
        match resolve(registry, &repository, &tag, Wanted::Models(&[]), |c| c.label(LABEL_MODELS).is_some())
            .await
        {
            Ok(image) => {
                let label = |name: &str| image.config.label(name).map(str::to_owned);
                finder.report(&link, "custom registry", label).await;
            }
            Err(e @ Error::Unreachable { .. }) => return Err(e),
            Err(_) => {}
        }
    }
    Ok(())
}
