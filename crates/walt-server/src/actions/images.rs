//! What users do to references: remove, rename, duplicate, clone.

use crate::actions::{clone, hub_meta, publish, search, update};
use crate::{
    actions::app::App,
    base::{
        db::{By, RefRow},
        events::Events,
        failure::{Outcome, bad_request, not_found, refused, refused_hint},
    },
    services::registries::{self, links::Link},
};
use crate::{
    actions::{image_squash, image_versions, publish_ref::Target},
    services::images::{labels, own_reference},
};
use crate::{
    actions::{publish_ref::overwrite_warning, reboot::reboot_users},
    base::state::Decision,
};
use std::sync::Arc;
use walt_api::ImageAction;
use walt_core::sentences;
use walt_types::{ImageName, ImageRef, PLATFORM_USER, UserName};

/// Carries out an action; false if not all of it was done (events have said why).
pub async fn act(
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
            clone_here(app, caller, &link, name.as_deref(), force, events).await
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
        ImageAction::FixOwner { user, sure } => fix_owner(app, caller, &user, sure, events).await,
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
    app.images().tidy_soon();
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

/// Clones an image of this server.
async fn clone_here(
    app: &Arc<App>,
    caller: &UserName,
    link: &str,
    name: Option<&str>,
    force: bool,
    events: &Events,
) -> Outcome<bool> {
    let decision = app.base().decide().await;
    let ClonePlan { found, target, wanted } = plan_clone(app, caller, link, name, force)?;
    if target.is(&found.image_id) {
        events.out(target.unchanged()).await;
        return Ok(true);
    }
    let by = By::new(caller, format!("walt image clone {link}"));
    let row = RefRow { reference: target.reference.clone(), ..found };
    app.db().transaction(|tx| row.put(tx, &by))?;
    drop(decision);
    app.images().tidy_soon();
    let own = target.reference.image();
    if own.to_string() != wanted {
        events.note(format!("The image will be recorded as '{own}'.")).await;
    }
    let rebooted = reboot_users(app, &target.users, events).await?;
    events.out(format!("Image \"{own}\" was cloned successfully (cf. walt image show).")).await;
    Ok(rebooted)
}

/// Gives all images of another user to the caller.
async fn fix_owner(app: &App, caller: &UserName, user: &str, sure: bool, events: &Events) -> Outcome<bool> {
    if user == caller.as_str() {
        return Err(refused(format!("the images of {user} are yours already.")));
    }
    let decision = app.base().decide().await;
    let rows: Vec<RefRow> =
        app.db().with(RefRow::all)?.into_iter().filter(|r| r.reference.user() == user).collect();
    if rows.is_empty() || user == PLATFORM_USER {
        return Err(not_found(format!("there is no user '{user}' who has images.")));
    }
    let mut moves = Vec::with_capacity(rows.len());
    for row in &rows {
        let target = ImageRef::of(caller, row.reference.image().clone());
        if app.db().with(|c| RefRow::get(c, &target))?.is_some() {
            return Err(refused_hint(
                format!("you have an image '{}' yourself.", target.image()),
                "rename yours first ('walt image rename').",
            ));
        }
        not_in_use(app, row, &decision)?;
        moves.push(target);
    }
    if !sure {
        let names: Vec<String> = moves.iter().map(|m| m.image().to_string()).collect();
        events
            .note(format!(
                "This would make you the owner of all images of user '{user}' ({}); {user} would not have them \
                 any more. It is meant for images of an account that is not used any more.",
                names.join(", ")
            ))
            .await;
        events
            .note(format!("If you are sure: walt advanced fix-image-owner --yes-i-know-do-it-please {user}"))
            .await;
        return Ok(true);
    }
    app.db().transaction(|tx| -> anyhow::Result<()> {
        rows.iter().zip(&moves).try_for_each(|(row, target)| RefRow::rename(tx, &row.reference, target))
    })?;
    for target in &moves {
        events.out(format!("{}: now yours.", target.image())).await;
    }
    Ok(true)
}

fn not_in_use(app: &App, row: &RefRow, _decision: &Decision<'_>) -> Outcome<()> {
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

struct ClonePlan {
    /// What is cloned.
    found: RefRow,
    /// The name that gets it.
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
    let form = || {
        bad_request(format!(
            "'{link}' is not a clonable link: use <location>:<user>/<name>[:<tag>], as 'walt image search' lists them."
        ))
    };
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
        target.fits(app, &found.image_id)?;
        if !force {
            return Err(refused_hint(
                overwrite_warning(target.users.len()),
                format!("to do it anyway: walt image clone --force {link} {}", target.reference.image()),
            ));
        }
    }
    Ok(ClonePlan { found, target, wanted })
}
