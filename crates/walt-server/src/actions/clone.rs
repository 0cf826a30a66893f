//! `walt image clone` from a registry or a daemon.

use crate::services::registries::{docker, find, get, links::Link};
use crate::{
    actions::app::App,
    actions::{
        publish_ref::overwrite_warning,
        publish_ref::{Target, fits_all},
        reboot::reboot_users,
    },
    base::{
        db::{By, NodeRow},
        events::Events,
        failure::{Outcome, bad_request, refused_hint},
    },
};
use std::sync::Arc;
use walt_api::RegistryCredentials;
use walt_types::{ImageName, Model, UserName};

/// What is to be cloned.
#[derive(Debug)]
pub struct Request {
    /// From where.
    pub link: Link,
    /// Own name; the remote one if absent.
    pub name: Option<String>,
    /// Overwrite an own image of that name.
    pub force: bool,
    /// For the registry.
    pub credentials: Option<RegistryCredentials>,
}

/// Does it; false if nodes that use the image did not reboot.
pub async fn clone(app: &Arc<App>, caller: &UserName, request: Request, events: &Events) -> Outcome<bool> {
    let Request { link, name, force, credentials } = request;
    let own: ImageName = match &name {
        Some(name) => name.parse(),
        None => link.own_name(),
    }
    .map_err(|e| bad_request(format!("{e}.")))?;
    let target = {
        let decision = app.base().decide().await;
        Target::plan(app, caller, &own.to_string(), &decision)?
    };
    events.busy("Validating / Cloning").await;
    let used: Vec<Model> = target.users.iter().map(|n| n.facts.model.clone()).collect();
    let got = if link.location == docker::LOCATION {
        let image = docker::look(&link).await?;
        allowed(&target, &image.models, force, &link)?;
        image.get(app.images(), events).await?
    } else {
        let registry = find(app.registries(), &link.location)?;
        let wanted = if used.is_empty() { models_here(app)? } else { used };
        let image = get::look(registry, &link, credentials.as_ref(), &wanted).await?;
        allowed(&target, &image.models, force, &link)?;
        image.get(app.images(), events).await?
    };
    if name.is_none() && own.to_string() != link.path().rsplit('/').next().unwrap_or_default() {
        events.note(format!("The image will be recorded as '{own}'.")).await;
    }
    let by = By::new(caller, format!("walt image clone {}", link.text()));
    let users = target.publish_ref(app, got.image, got.created, &by).await?;
    if target.is(&got.image) {
        events.out(target.unchanged()).await;
        return Ok(true);
    }
    let rebooted = reboot_users(app, &users, events).await?;
    events.out(format!("Image \"{own}\" was cloned successfully (cf. walt image show).")).await;
    Ok(rebooted)
}

/// Models of the nodes of this platform: an index may have images for others.
fn models_here(app: &App) -> Outcome<Vec<Model>> {
    let mut models: Vec<Model> = app.db().with(NodeRow::all)?.into_iter().map(|n| n.facts.model).collect();
    models.extend(crate::services::images::MODEL_ALWAYS.parse());
    models.dedup();
    Ok(models)
}

/// Refuses to overwrite without having been told to, and what nodes that use the name cannot boot.
fn allowed(target: &Target, models: &[Model], force: bool, link: &Link) -> Outcome<()> {
    if target.present.is_none() {
        return Ok(());
    }
    fits_all(&target.users, models, &target.reference)?;
    if force {
        return Ok(());
    }
    let own = target.reference.image();
    let again = format!("to do it anyway: walt image clone --force {} {own}", link.text());
    Err(refused_hint(overwrite_warning(target.users.len()), again))
}
