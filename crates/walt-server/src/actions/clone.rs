//! `walt image clone` from a registry or a daemon.

use crate::{
    actions::{
        app::App,
        publish_ref::{Target, check_models_of, overwrite_warning},
        reboot::reboot_users,
    },
    base::{
        db::{By, NodeRow, RefRow},
        events::Events,
        failure::{Failure, Outcome, bad_request, not_found, refused, refused_hint},
    },
    services::{
        images::labels,
        registries::{
            docker, find,
            links::{Link, not_a_link},
            pull,
        },
    },
};
use std::sync::Arc;
use walt_api::RegistryCredentials;
use walt_types::{ImageName, ImageRef, Model, PLATFORM_USER, UserName};

/// What is to be cloned.
#[derive(Debug)]
pub struct Request {
    /// Where to clone from.
    pub link: Link,
    /// Name of the clone; the remote name if absent.
    pub name: Option<String>,
    /// Overwrite an own image of that name.
    pub force: bool,
    /// For the registry.
    pub credentials: Option<RegistryCredentials>,
}

/// Clones an image; false if a node that uses it did not reboot.
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
    let pulled = if link.location == docker::LOCATION {
        let image = docker::inspect(&link).await?;
        allowed(&target, &image.models, force, &link)?;
        image.pull(app.images(), events).await?
    } else {
        let registry = find(app.registries(), &link.location)?;
        let wanted = if used.is_empty() { models_here(app)? } else { used };
        let image = pull::inspect(registry, &link, credentials.as_ref(), &wanted).await?;
        allowed(&target, &image.models, force, &link)?;
        image.pull(app.images(), events).await?
    };
    let by = By::new(caller, format!("walt image clone {}", link.text()));
    let users = target.publish_ref(app, pulled.image, pulled.created, &by).await?;
    if target.points_to(&pulled.image) {
        events.out(target.unchanged()).await;
        return Ok(true);
    }
    let renamed = name.is_none() && own.to_string() != link.path().rsplit('/').next().unwrap_or_default();
    finish(app, &target, renamed, &users, events).await
}

/// The end of each clone: what it was recorded as, the reboot of the nodes that use it, and the result.
async fn finish(
    app: &Arc<App>,
    target: &Target,
    renamed: bool,
    users: &[NodeRow],
    events: &Events,
) -> Outcome<bool> {
    let own = target.reference.image();
    if renamed {
        events.note(format!("The image will be recorded as '{own}'.")).await;
    }
    let rebooted = reboot_users(app, users, events).await?;
    events.out(format!("Image \"{own}\" was cloned successfully (cf. walt image show).")).await;
    Ok(rebooted)
}

/// The question before a clone overwrites an image of the caller.
fn needs_force(target: &Target, link: &str) -> Failure {
    let own = target.reference.image();
    let hint = format!("to do it anyway: walt image clone --force {link} {own}");
    refused_hint(overwrite_warning(target.users.len()), hint)
}

/// Models of the nodes of this platform, for the choice from an index.
fn models_here(app: &App) -> Outcome<Vec<Model>> {
    let mut models: Vec<Model> = app.db().with(NodeRow::all)?.into_iter().map(|n| n.facts.model).collect();
    models.extend(crate::services::images::MODEL_ALWAYS.parse());
    models.dedup();
    Ok(models)
}

/// Refuses to overwrite an image without `force`, and an image that the nodes using the name cannot boot.
fn allowed(target: &Target, models: &[Model], force: bool, link: &Link) -> Outcome<()> {
    if target.present.is_none() {
        return Ok(());
    }
    check_models_of(&target.users, models, &target.reference)?;
    if force { Ok(()) } else { Err(needs_force(target, &link.text())) }
}

/// Clones an image of this server.
pub async fn clone_here(
    app: &Arc<App>,
    caller: &UserName,
    link: &str,
    name: Option<&str>,
    force: bool,
    events: &Events,
) -> Outcome<bool> {
    let decision = app.base().decide().await;
    let ClonePlan { found, target, wanted } = plan_clone(app, caller, link, name, force)?;
    if target.points_to(&found.image_id) {
        events.out(target.unchanged()).await;
        return Ok(true);
    }
    let by = By::new(caller, format!("walt image clone {link}"));
    let row = RefRow { reference: target.reference.clone(), ..found };
    app.db().transaction(|tx| row.put(tx, &by))?;
    drop(decision);
    app.images().request_housekeeping();
    let renamed = target.reference.image().to_string() != wanted;
    finish(app, &target, renamed, &target.users, events).await
}

struct ClonePlan {
    /// What is cloned.
    found: RefRow,
    /// The name of the clone.
    target: Target,
    wanted: String,
}

fn plan_clone(
    app: &App,
    caller: &UserName,
    link: &str,
    name: Option<&str>,
    force: bool,
) -> Outcome<ClonePlan> {
    let form = || bad_request(format!("{}.", not_a_link(link)));
    let (location, rest) = link.split_once(':').ok_or_else(form)?;
    if location != "walt" {
        return Err(form());
    }
    let source: ImageRef = rest.parse().map_err(|_| form())?;
    if source.user() == caller.as_str() {
        return Err(refused("this image is already in your working set."));
    }
    let found = app.db().with(|c| RefRow::get(c, &source))?.ok_or_else(|| {
        if source.user() == PLATFORM_USER {
            let missing = app.images().find(&source).err();
            return missing.map_or_else(|| not_found("No such remote image."), Into::into);
        }
        not_found("No such remote image. (tip: walt image show --all)")
    })?;
    labels::check(&app.store().config(&found.image_id)?)?;
    let wanted = name.map_or_else(|| source.image().to_string(), str::to_owned);
    let image: ImageName = wanted.parse().map_err(|e| bad_request(format!("{e}.")))?;
    let target = Target::of(app, ImageRef::of(caller, image))?;
    if target.present.is_some() {
        target.check_models(app, &found.image_id)?;
        if !force {
            return Err(needs_force(&target, link));
        }
    }
    Ok(ClonePlan { found, target, wanted })
}
