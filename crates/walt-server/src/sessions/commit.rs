//! Saving and discarding a session.
//!
//! The order of a save, each step durable before the next: the container is stopped and the overlay
//! sealed; one pass over the upper directory hashes it and writes the skeleton; the commit is recorded;
//! the layer is renamed into the store; one transaction makes the image known, moves the reference and
//! ends the session. Only then it is "saved". A crash before the record leaves the session as it was, to
//! be resumed; after it, [`recover`] goes on.

use super::{dir_of, drop_session, of_image, own};
use crate::{
    App,
    db::{Committing, NodeRow, RefRow, SessionRow, blocking},
    events::Events,
    failure::{Failure, Outcome, refused},
    images::{
        self,
        actions::{nodes_using, overwrite_warning, reboot_users},
    },
};
use anyhow::{Context, Result};
use std::sync::Arc;
use walt_api::SessionAction;
use walt_images::{History, Prepared, SaveRules};
use walt_types::{ImageRef, UserName};

/// Carries out an action; false if not all of it was done (events have said why).
pub async fn act(
    app: &Arc<App>,
    caller: &UserName,
    action: SessionAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    match action {
        SessionAction::Save { session, name, yes } => {
            save(app, caller, &session, name.as_deref(), yes, confirm.as_deref(), events).await
        }
        SessionAction::Discard { session } => {
            let row = own(app, caller, &session)?;
            drop_session(app, &row).await?;
            Ok(true)
        }
        SessionAction::DiscardImage { image } => {
            let row = of_image(app, &images::own_reference(caller, &image)?)?;
            drop_session(app, &row).await?;
            events
                .out(format!(
                    "The shell session of image {} was ended; its changes were dropped.",
                    row.image.image()
                ))
                .await;
            Ok(true)
        }
    }
}

/// What a save is going to do, as the user has agreed to it.
struct Plan {
    row: SessionRow,
    target: ImageRef,
    /// What the target means now; none if it is a new name.
    present: Option<RefRow>,
    users: Vec<NodeRow>,
}

fn plan(app: &App, caller: &UserName, session: &str, name: Option<&str>) -> Outcome<Plan> {
    let row = own(app, caller, session)?;
    let target = match name {
        Some(name) => images::own_reference(caller, name)?,
        None => row.image.clone(),
    };
    let present = app.db.with(|c| RefRow::get(c, &target))?;
    if present.is_some() && target != row.image {
        return Err(refused("Bad name: Image already exists."));
    }
    let users = if present.is_some() { nodes_using(app, &target)? } else { Vec::new() };
    Ok(Plan { row, target, present, users })
}

async fn save(
    app: &Arc<App>,
    caller: &UserName,
    session: &str,
    name: Option<&str>,
    yes: bool,
    confirm: Option<&str>,
    events: &Events,
) -> Outcome<bool> {
    let plan = {
        let _decision = app.decisions.lock().await;
        let plan = plan(app, caller, session, name)?;
        if plan.present.is_some() && !yes {
            let users: Vec<String> = plan.users.iter().map(|n| n.mac.to_string()).collect();
            let image = plan.present.as_ref().map(|p| p.image_id.to_string()).unwrap_or_default();
            let operation = format!("save {session} {}", plan.target.full());
            let facts = format!("{image} {}", users.join(" "));
            app.confirmed(caller, &operation, &facts, confirm, vec![overwrite_warning(plan.users.len())])?;
        }
        plan
    };
    // From here on the client may go: what was agreed to is done to the end.
    let (app, events) = (app.clone(), events.clone());
    let work = tokio::spawn(async move { commit(&app, plan, &events).await });
    work.await.map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the save ended abnormally")))?
}

async fn commit(app: &Arc<App>, plan: Plan, events: &Events) -> Outcome<bool> {
    events.busy("Saving").await;
    let dir = dir_of(app, &plan.row.id);
    if let Some(client) = super::holder(app, &plan.row).await? {
        let sealed = client.seal().await.map_err(|e| refused(format!("the session cannot be saved: {e}")))?;
        for note in sealed {
            events.note(note).await;
        }
    }
    let changes = app.store_changes.read().await;
    let mut config = app.store.config(&plan.row.image_id).map_err(anyhow::Error::new)?;
    let lower = super::shell::view_of(app, &plan.row)?;
    let layer_dir = dir.join("layer");
    let rules = SaveRules::standard();
    let prepared = blocking(|| app.store.prepare_commit(&layer_dir, &lower, &rules))
        .map_err(|e| refused(format!("the session cannot be saved, and is kept: {e}")))?;
    let layer = match prepared {
        Prepared::Unchanged { .. } => {
            drop(changes);
            drop_session(app, &plan.row).await?;
            let rest = match plan.present {
                Some(_) => format!("image {} is left as it was", plan.target.image()),
                None => "no image was made".into(),
            };
            events.out(format!("Nothing changed: {rest}.")).await;
            return Ok(true);
        }
        Prepared::Layer { info, .. } => info,
    };
    let created = crate::now() as i64;
    let comment = format!("walt image shell {}", plan.row.image.image());
    let history = History {
        created: Some(crate::rfc3339(created)),
        created_by: Some(comment),
        author: Some(plan.row.user.to_string()),
        ..History::default()
    };
    config.created.clone_from(&history.created);
    config.push_layer(&layer.diff_id, history);
    let image_id = app.store.put_config_before(&config, &layer.diff_id).map_err(anyhow::Error::new)?;
    let commit = Committing {
        diff_id: layer.diff_id,
        image_id,
        target: plan.target.clone(),
        expected: plan.present.as_ref().map(|p| p.image_id),
        created,
    };
    let decision = app.decisions.lock().await;
    let now = app.db.with(|c| RefRow::get(c, &plan.target))?.map(|r| r.image_id);
    if now != commit.expected {
        return Err(refused(format!(
            "image {} was changed by somebody else meanwhile; the session is kept: save it under another name",
            plan.target.image()
        )));
    }
    app.db.with(|c| SessionRow::set_committing(c, &plan.row.id, Some(&commit)))?;
    finish(app, &plan.row, &commit)?;
    let users = nodes_using(app, &plan.target)?;
    drop((decision, changes));
    app.housekeeping.notify_one();
    if plan.present.is_none() {
        events.out(format!("New image {} saved.", plan.target.image())).await;
        events
            .note(format!("Tip: 'walt node boot <node> {}' lets a node boot it.", plan.target.image()))
            .await;
        return Ok(true);
    }
    events.out(format!("Image {} updated.", plan.target.image())).await;
    if users.is_empty() {
        events
            .note(format!("Tip: 'walt node boot <node> {}' lets a node boot it.", plan.target.image()))
            .await;
    }
    reboot_users(app, &users, events).await
}

/// The part of a commit that follows its record; recovery calls it again.
fn finish(app: &App, row: &SessionRow, commit: &Committing) -> Result<()> {
    let dir = dir_of(app, &row.id);
    blocking(|| app.store.adopt_layer(&dir.join("layer"), &commit.diff_id))?;
    app.db.transaction(|tx| -> Result<()> {
        let reference =
            RefRow { reference: commit.target.clone(), image_id: commit.image_id, created: commit.created };
        reference.put(tx)?;
        SessionRow::delete(tx, &row.id)
    })?;
    // The session is over; what is left of its directory is rubbish that housekeeping would remove too.
    if let Err(e) = blocking(|| super::remove_dir(app, &row.id)) {
        tracing::warn!("{e:#}");
    }
    Ok(())
}

/// Ends the commits that an earlier server had begun, then drops the rows whose directory is gone.
///
/// # Errors
/// A commit cannot be ended.
pub async fn recover(app: &Arc<App>) -> Result<()> {
    let _decision = app.decisions.lock().await;
    for row in app.db.with(SessionRow::all)? {
        if let Some(commit) = &row.committing {
            finish(app, &row, commit).with_context(|| format!("cannot end the save of {}", commit.target))?;
            tracing::info!(image = %commit.target, "ended a save that an earlier server had begun");
        } else if !dir_of(app, &row.id).is_dir() {
            app.db.with(|c| SessionRow::delete(c, &row.id))?;
        }
    }
    Ok(())
}
