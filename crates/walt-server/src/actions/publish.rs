//! `walt image publish`.

use crate::{
    actions::app::App,
    base::{
        db::BlobRow,
        events::Events,
        failure::{Outcome, bad_request, refused_hint},
        registry_config::{Kind, RegistryConfig},
    },
    services::{
        images::own_reference,
        registries::{error, find, hub, links::path_part, open, pull::report_progress},
    },
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use walt_api::RegistryCredentials;
use walt_registry::{
    LayerBlob, Registry,
    pull::Progress,
    push::{self, KnownBlob},
};
use walt_types::{DiffId, ImageName, UserName};

/// The registry to publish to, or the request to choose one.
fn chosen<'a>(app: &'a App, label: Option<&str>) -> Outcome<&'a RegistryConfig> {
    let all = &app.config().registries;
    match (label.filter(|l| *l != "auto"), all.as_slice()) {
        (_, []) => {
            Err(refused_hint("no registry is configured on this server.", "see 'walt help show registries'"))
        }
        (Some(label), _) => Ok(find(app.registries(), label)?),
        (None, [one]) => Ok(one),
        (None, several) => {
            let lines: Vec<String> =
                several.iter().map(|r| format!("  {:<12} {}", r.label, r.description)).collect();
            let table = format!("  {:<12} Description\n{}", "Registry", lines.join("\n"));
            Err(bad_request(format!(
                "there are several registries, specify `--registry` with one of:\n{table}"
            )))
        }
    }
}

/// The name of a user's image in a registry.
pub fn repository_of(registry: &RegistryConfig, user: &str, image: &ImageName) -> Outcome<String> {
    let owner = match &registry.repository {
        Some(repository) => repository.as_str(),
        None => user,
    };
    if !owner.split('/').all(path_part) {
        return Err(bad_request(format!("'{owner}' cannot be part of an image name in a registry.")));
    }
    Ok(format!("{owner}/{}", image.name()))
}

/// Publishes an image.
pub async fn publish(
    app: &Arc<App>,
    caller: &UserName,
    name: &str,
    label: Option<&str>,
    credentials: Option<&RegistryCredentials>,
    events: &Events,
) -> Outcome<bool> {
    let row = app.images().find(&own_reference(caller, name)?)?;
    let config = chosen(app, label)?;
    let user = credentials.map_or(caller.as_str(), |c| c.username.as_str());
    let image = row.reference.image();
    let repository = repository_of(config, user, image)?;
    events.busy("Validating / Publishing").await;
    let registry = open(config, credentials)?;
    registry.ping().await.map_err(|e| error::Error::of(&config.label, e))?;
    let mut pinned = app.images().pins().begin();
    {
        // It may have been removed since the check above.
        let _writing = app.images().writing().await;
        pinned.image(app.images().find(&row.reference)?.image_id);
    }
    let bytes = app.store().config_bytes(&row.image_id)?;
    let layers = app.store().config(&row.image_id).and_then(|c| c.layers())?;
    let progress = Progress::default();
    let work = async {
        let blobs = push_layers(app, config, &registry, &repository, &layers, &progress).await?;
        let digest = push::finish(&registry, &repository, image.tag(), &bytes, &blobs).await;
        Outcome::Ok((blobs, digest.map_err(|e| error::Error::of(&config.label, e))?))
    };
    let (blobs, digest) = report_progress(work, events, "Publishing", &progress, 0).await?;
    remember(app, config, &repository, &blobs)?;
    if config.api == Kind::DockerHub {
        let labels = app.store().config(&row.image_id)?;
        let labels = labels.config.and_then(|c| c.labels).unwrap_or_default();
        let full = format!("{repository}:{}", image.tag());
        hub::announce(&registry, user, &full, labels)
            .await
            .map_err(|e| error::Error::of(&config.label, e))?;
    }
    events.note(format!("Digest: sha256:{digest}")).await;
    events.out("OK, image was published at:").await;
    let tag =
        if image.tag() == walt_types::DEFAULT_TAG { String::new() } else { format!(":{}", image.tag()) };
    events.out(format!("{}:{repository}{tag}", config.label)).await;
    Ok(true)
}

async fn push_layers(
    app: &Arc<App>,
    config: &RegistryConfig,
    registry: &Registry,
    repository: &str,
    layers: &[DiffId],
    progress: &Progress,
) -> Outcome<Vec<LayerBlob>> {
    let each: Vec<_> = layers
        .iter()
        .map(|layer| push_layer(app, config, registry, repository, *layer, progress).boxed())
        .collect();
    stream::iter(each).buffered(push::PARALLEL).try_collect().await
}

async fn push_layer(
    app: &Arc<App>,
    config: &RegistryConfig,
    registry: &Registry,
    repository: &str,
    layer: DiffId,
    progress: &Progress,
) -> Outcome<LayerBlob> {
    let known = app.db().with(|c| BlobRow::of(c, &layer))?;
    let known = known
        .into_iter()
        .map(|row| KnownBlob {
            repository: (row.registry == config.label).then_some(row.repository),
            blob: row.blob,
        })
        .collect();
    let pushed = push::layer(registry, repository, layer, known, app.images().clone(), progress).await;
    Ok(pushed.map_err(|e| error::Error::of(&config.label, e))?)
}

fn remember(app: &App, config: &RegistryConfig, repository: &str, blobs: &[LayerBlob]) -> Outcome<()> {
    app.db().transaction(|tx| -> anyhow::Result<()> {
        blobs.iter().try_for_each(|blob| BlobRow::put(tx, blob, &config.label, repository))
    })?;
    Ok(())
}
