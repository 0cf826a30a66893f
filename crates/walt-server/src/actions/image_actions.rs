//! Actions on images: dispatch; remove, rename, duplicate.

use crate::{
    actions::{
        app::App, audit, clone, hub_meta, image_fix_owner, image_squash, image_versions, publish, search,
        update,
    },
    base::{
        db::{By, RefRow},
        events::Events,
        failure::{Outcome, bad_request, refused_hint},
        state::Decision,
    },
    services::{
        images::own_reference,
        registries::{self, links::Link},
    },
};
use std::sync::Arc;
use walt_api::ImageAction;
use walt_core::sentences;
use walt_types::UserName;

/// Carries out an action; false if part of it failed (the events say why).
pub async fn act(
    app: &Arc<App>,
    caller: &UserName,
    action: ImageAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let deed = audit::of_image(caller, &action);
    audit::said(app, deed, carry_out(app, caller, action, confirm, events)).await
}

async fn carry_out(
    app: &Arc<App>,
    caller: &UserName,
    action: ImageAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let confirm = confirm.as_deref();
    {
        let decision = app.base().decide().await;
        for note in app.images().first_images(caller, &decision)? {
            events.note(note).await;
        }
    }
    match action {
        ImageAction::Remove { name } => remove(app, caller, &name).await,
        ImageAction::Rename { name, new_name } => rename(app, caller, &name, &new_name).await,
        ImageAction::Duplicate { name, new_name } => duplicate(app, caller, &name, &new_name).await,
        ImageAction::Clone { link, name, force, .. } if link.starts_with("walt:") => {
            clone::clone_here(app, caller, &link, name.as_deref(), force, events).await
        }
        ImageAction::Clone { link, name, force, credentials } => {
            let link = Link::parse(&link).map_err(|e| bad_request(format!("{e}.")))?;
            let request = clone::Request { link, name, force, credentials };
            clone::clone(app, caller, request, events).await
        }
        ImageAction::Rollback { name, version } => {
            image_versions::roll_back(app, caller, &name, version, confirm, events).await
        }
        ImageAction::Prune { name } => {
            image_versions::prune(app, caller, name.as_deref(), confirm, events).await
        }
        ImageAction::Squash { name } => image_squash::squash(app, caller, &name, confirm, events).await,
        ImageAction::FixOwner { user, sure } => {
            image_fix_owner::fix_owner(app, caller, &user, sure, events).await
        }
        ImageAction::Search { keyword, credentials } => {
            search::search(app, caller, keyword, credentials, events).await
        }
        ImageAction::Publish { name, registry, credentials } => {
            publish::publish(app, caller, &name, registry.as_deref(), credentials.as_ref(), events).await
        }
        ImageAction::RegistryLogin { registry, credentials } => {
            Ok(registries::login(app.registries(), &registry, &credentials, events).await?)
        }
        ImageAction::UpdateHubMeta { platform, credentials } => {
            hub_meta::update_hub_meta(app, platform, credentials.as_ref(), events).await
        }
        ImageAction::UpdateDefaultImages { credentials } => {
            update::update_default_images(app, caller, credentials, events).await
        }
    }
}

async fn remove(app: &App, caller: &UserName, name: &str) -> Outcome<bool> {
    let decision = app.base().decide().await;
    let row = app.images().find(&own_reference(caller, name)?)?;
    not_in_use(app, &row, &decision)?;
    app.db().transaction(|tx| RefRow::delete(tx, &row.reference))?;
    app.images().request_housekeeping();
    Ok(true)
}

async fn rename(app: &App, caller: &UserName, name: &str, new_name: &str) -> Outcome<bool> {
    let decision = app.base().decide().await;
    let row = app.images().find(&own_reference(caller, name)?)?;
    let target = own_reference(caller, new_name)?;
    app.images().must_be_free(&target, &decision)?;
    not_in_use(app, &row, &decision)?;
    app.db().transaction(|tx| RefRow::rename(tx, &row.reference, &target))?;
    Ok(true)
}

async fn duplicate(app: &App, caller: &UserName, name: &str, new_name: &str) -> Outcome<bool> {
    let decision = app.base().decide().await;
    let row = app.images().find(&own_reference(caller, name)?)?;
    let target = own_reference(caller, new_name)?;
    app.images().must_be_free(&target, &decision)?;
    let by = By::new(caller, format!("walt image duplicate {name} {new_name}"));
    app.db().transaction(|tx| RefRow { reference: target, ..row }.put(tx, &by))?;
    Ok(true)
}

pub(super) fn not_in_use(app: &App, row: &RefRow, _decision: &Decision<'_>) -> Outcome<()> {
    let users = app.images().nodes_using(&row.reference)?;
    if !users.is_empty() {
        let names: Vec<&str> = users.iter().map(|n| n.facts.name.as_str()).collect();
        return Err(refused_hint(
            "Sorry, cannot proceed because the image is in use.",
            format!("{}: associated with '{}'.", sentences::items("node", &names), row.reference.image()),
        ));
    }
    Ok(app.images().no_session(&row.reference)?)
}
