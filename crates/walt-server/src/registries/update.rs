//! `walt advanced update-default-images`.

use super::{find, get, links::Link, publish::repository_of};
use crate::{
    App,
    db::{By, RefRow},
    events::Events,
    failure::Outcome,
    images::{actions::reboot_users, default_image, land::Target},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use walt_api::RegistryCredentials;
use walt_types::{PLATFORM_USER, UserName};

/// How long one registry may take to say what it has of one image.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes newer default images from registries, and tells of newer recipes; false if not all was done.
pub async fn update_default_images(
    app: &Arc<App>,
    caller: &UserName,
    credentials: BTreeMap<String, RegistryCredentials>,
    events: &Events,
) -> Outcome<bool> {
    events.out("Checking remote registries...").await;
    events.busy("Checking remote registries").await;
    let defaults: Vec<RefRow> = app
        .db
        .with(RefRow::all)?
        .into_iter()
        .filter(|r| r.reference.is_platform() && r.reference.image().tag() == walt_types::DEFAULT_TAG)
        .filter(|r| r.reference.image().name().ends_with("-default"))
        .collect();
    let (mut updated, mut ok, mut users) = (false, true, Vec::new());
    for row in defaults {
        let mut newest = None;
        for label in app.config.registries.iter().map(|r| r.label.clone()) {
            let Some((found, link)) = newer(app, &row, &label, credentials.get(&label)).await? else {
                continue;
            };
            let later = |(other, _): &(get::Found, Link)| other.created() < found.created();
            if newest.as_ref().is_none_or(later) {
                newest = Some((found, link));
            }
        }
        if let Some((found, link)) = newest {
            let full = row.reference.full();
            events.out(format!("Updating {full} using a newer version from {}...", link.location)).await;
            let target = Target::of(app, row.reference.clone())?;
            let by = By::new(caller, "walt advanced update-default-images");
            let landed = match found.get(app, events).await {
                Ok(got) => target.land(app, got.image, got.created, &by).await,
                Err(e) => Err(e),
            };
            match landed {
                Ok(nodes) => {
                    updated = true;
                    users.extend(nodes);
                }
                Err(e) => {
                    ok = false;
                    events.note(format!("{full} was not updated: {}", e.into_api("update").message)).await;
                }
            }
        }
        if default_image::recipe_is_newer(app, &row)? {
            let name = row.reference.image();
            events
                .note(format!(
                    "Note: this server has a newer recipe of {name}: 'walt-server default-image build {name}', as root on the server, makes it."
                ))
                .await;
        }
    }
    if !updated {
        events.out("No updates available.").await;
    }
    Ok(reboot_users(app, &users, events).await? && ok)
}

/// A newer version of a default image in a registry. A registry that has none, or fails, has none.
async fn newer(
    app: &App,
    row: &RefRow,
    label: &str,
    credentials: Option<&RegistryCredentials>,
) -> Outcome<Option<(get::Found, Link)>> {
    let registry = find(app, label)?;
    let image = row.reference.image();
    let repository = repository_of(registry, PLATFORM_USER, image)?;
    let Ok(link) = Link::parse(&format!("{label}:{repository}:{}", image.tag())) else { return Ok(None) };
    let models = crate::images::models_of(app, &row.image_id)?;
    let looked = tokio::time::timeout(LIMIT, get::look(registry, &link, credentials, &models)).await;
    let Ok(Ok(found)) = looked else {
        tracing::info!("{label} has no usable {}", row.reference);
        return Ok(None);
    };
    // Nodes of all its models go on to boot it.
    let usable = models.iter().all(|m| found.models.contains(m));
    let newer = found.created().is_some_and(|t| t > row.created) && found.image() != row.image_id;
    Ok((usable && newer).then_some((found, link)))
}
