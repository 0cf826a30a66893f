//! Saves and discards sessions.
//!
//! The order of a save, each step durable before the next: the container is stopped and the overlay sealed; one pass
//! over the upper directory hashes it and writes the skeleton; if the image has the maximum number of layers, they
//! are squashed for the new one; the commit is recorded; the layer is renamed into the store; one transaction moves
//! the reference to the new image and ends the session. Only then the session is saved. After a crash before the
//! record, the session can be resumed; after a crash behind it, [`recover`] completes the save.

use crate::{
    actions::{app::App, publish_ref::Target, reboot::announce_and_reboot},
    base::{
        db::{By, Committing, RefRow, SessionRow, blocking},
        events::Events,
        fail_points,
        failure::{Failure, Outcome, refused},
        files::remove_tree,
        state::Decision,
        time,
    },
    services::{
        images::{history_entry, own_reference, squashed_note},
        sessions::{dir_of, drop_session, of_image, own},
    },
};
use anyhow::{Context, Result};
use std::sync::Arc;
use walt_api::SessionAction;
use walt_images::{Prepared, SaveRules};
use walt_types::{ImageRef, UserName};

/// Carries out an action; false if part of it failed (the events say why).
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
            let row = own(app.sessions(), caller, &session)?;
            drop_session(app.sessions(), &row).await?;
            Ok(true)
        }
        SessionAction::DiscardImage { image } => {
            let row = of_image(app.sessions(), &own_reference(caller, &image)?)?;
            drop_session(app.sessions(), &row).await?;
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

/// A save, as the user confirmed it.
struct Plan {
    row: SessionRow,
    target: Target,
}

fn plan(
    app: &App,
    caller: &UserName,
    session: &str,
    name: Option<&str>,
    _decision: &Decision<'_>,
) -> Outcome<Plan> {
    let row = own(app.sessions(), caller, session)?;
    let reference = match name {
        Some(name) => own_reference(caller, name)?,
        None => row.image.clone(),
    };
    let target = Target::of_session(app, reference)?;
    if target.present.is_some() && target.reference != row.image {
        return Err(refused("Bad name: Image already exists."));
    }
    Ok(Plan { row, target })
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
        let decision = app.base().decide().await;
        let plan = plan(app, caller, session, name, &decision)?;
        plan.target.check_consent(app, caller, &format!("save {session}"), confirm, yes, &decision)?;
        plan
    };
    // From here on the client may disconnect: a confirmed save is completed.
    let (app, events) = (app.clone(), events.clone());
    let work = tokio::spawn(async move { commit(&app, plan, &events).await });
    work.await.map_err(Failure::of_task("the save"))?
}

async fn commit(app: &Arc<App>, plan: Plan, events: &Events) -> Outcome<bool> {
    events.busy("Saving").await;
    let dir = dir_of(app.sessions(), &plan.row.id);
    if let Some(client) = crate::services::sessions::holder(app.sessions(), &plan.row).await? {
        let sealed = client.seal().await.map_err(|e| refused(format!("cannot save the session: {e}")))?;
        for note in sealed {
            events.note(note).await;
        }
    }
    fail_points::point("save-sealed");
    let housekeeping = app.images().housekeeping_on_drop();
    let writing = app.images().writing().await;
    let mut config = app.store().config(&plan.row.image_id)?;
    let lower = crate::actions::shell::view_of(app, &plan.row)?;
    let layer_dir = dir.join("layer");
    let rules = SaveRules::standard();
    let prepared = blocking(|| app.store().prepare_commit(&layer_dir, &lower, &rules))
        .map_err(|e| refused(format!("cannot save the session, which is kept: {e}")))?;
    let layer = match prepared {
        Prepared::Unchanged { .. } => {
            drop(writing);
            drop_session(app.sessions(), &plan.row).await?;
            let text = match plan.target.present {
                Some(_) => plan.target.unchanged(),
                None => "Nothing changed: no image was made.".into(),
            };
            events.out(text).await;
            return Ok(true);
        }
        Prepared::Layer { info, .. } => info,
    };
    fail_points::point("save-prepared");
    let created = time::now() as i64;
    let by = By::new(&plan.row.user, command_of(&plan.row.image));
    let history = history_entry(&by, created);
    config.created.clone_from(&history.created);
    let squashed = blocking(|| app.store().make_room(&mut config, history.created.clone()))
        .map_err(|e| refused(format!("cannot squash the image to save the session, which is kept: {e}")))?;
    config.push_layer(&layer.diff_id, history);
    let image_id = app.store().put_config_before(&config, &layer.diff_id)?;
    fail_points::point("save-config");
    let commit = Committing {
        diff_id: layer.diff_id,
        image_id,
        target: plan.target.reference.clone(),
        expected: plan.target.present.as_ref().map(|p| p.image_id),
        created,
    };
    let decision = app.base().decide().await;
    plan.target.check_unchanged(app, "the session is kept; save it under another name", &decision)?;
    app.db().with(|c| SessionRow::set_committing(c, &plan.row.id, Some(&commit)))?;
    fail_points::point("save-recorded");
    finish(app, &plan.row, &commit, &decision)?;
    let users = app.images().nodes_using(&plan.target.reference)?;
    drop((decision, writing, housekeeping));
    if squashed {
        events.note(squashed_note()).await;
    }
    let unused = users.is_empty();
    let rebooted = announce_and_reboot(app, users, plan.target.published(), events).await?;
    if unused {
        let name = plan.target.reference.image();
        events.note(format!("Tip: 'walt node boot <node> {name}' boots a node with it.")).await;
    }
    Ok(rebooted)
}

/// The command for the history.
fn command_of(image: &ImageRef) -> String {
    format!("walt image shell {}", image.image())
}

/// The part of a commit after its record; recovery runs it again.
fn finish(app: &App, row: &SessionRow, commit: &Committing, _decision: &Decision<'_>) -> Result<()> {
    let dir = dir_of(app.sessions(), &row.id);
    blocking(|| app.store().adopt_layer(&dir.join("layer"), &commit.diff_id))?;
    fail_points::point("save-adopted");
    let by = By::new(&row.user, command_of(&row.image));
    app.db().transaction(|tx| -> Result<()> {
        let reference =
            RefRow { reference: commit.target.clone(), image_id: commit.image_id, created: commit.created };
        reference.put(tx, &by)?;
        SessionRow::delete(tx, &row.id)
    })?;
    fail_points::point("save-referenced");
    // The session has ended; housekeeping would remove its directory too.
    if let Err(e) = blocking(|| remove_tree(&crate::services::sessions::dir_of(app.sessions(), &row.id))) {
        tracing::warn!("{e:#}");
    }
    Ok(())
}

/// Completes the commits that an earlier server began, then drops the rows whose directory is gone.
///
/// # Errors
/// A commit cannot be completed.
pub async fn recover(app: &Arc<App>) -> Result<()> {
    let decision = app.base().decide().await;
    for row in app.db().with(SessionRow::all)? {
        if let Some(commit) = &row.committing {
            finish(app, &row, commit, &decision)
                .with_context(|| format!("cannot complete the save of {}", commit.target))?;
            tracing::info!(image = %commit.target, "completed a save that an earlier server began");
        } else if !dir_of(app.sessions(), &row.id).is_dir() {
            app.db().with(|c| SessionRow::delete(c, &row.id))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;
    use walt_images::{History, ImageConfig, NewEntry, NewKind};
    use walt_types::DiffId;

    fn file(path: &str, text: &str) -> NewEntry {
        let kind = NewKind::File(text.into());
        NewEntry { path: path.into(), mode: 0o644, uid: 0, gid: 0, kind }
    }

    fn image_of(layer: &DiffId) -> ImageConfig {
        let mut config =
            ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        config.push_layer(layer, History::default());
        config
    }

    /// A server whose predecessor was killed after it had recorded the commit of session `s`.
    fn killed_server(dir: &std::path::Path) -> (Arc<App>, Committing) {
        let config = Config { state_dir: dir.join("state"), run_dir: dir.join("run"), ..Config::default() };
        let app = crate::actions::app::tests::open(config).unwrap();
        let layer = app.store().build_layer(vec![file("old", "old")], None).unwrap();
        let base = app.store().view(&[layer.diff_id], None).unwrap();
        let platform = app.store().build_layer(vec![file("platform", "p")], Some(&base)).unwrap();
        let mut config = image_of(&layer.diff_id);
        let image_id = app.store().put_config(&config).unwrap();
        let image: ImageRef = "alice/x".parse().unwrap();
        let reference = RefRow { reference: image.clone(), image_id, created: 1 };
        let row = SessionRow {
            id: "s".into(),
            user: "alice".parse().unwrap(),
            image: image.clone(),
            image_id,
            platform: platform.diff_id,
            slot: 0,
            opened: 1,
            used: 1,
            committing: None,
        };
        let by = By::new("alice", "");
        app.db().with(|c| reference.put(c, &by).and_then(|()| row.insert(c))).unwrap();
        let view = super::super::shell::view_of(&app, &row).unwrap();
        let layer_dir = dir_of(app.sessions(), "s").join("layer");
        std::fs::create_dir_all(dir_of(app.sessions(), "s")).unwrap();
        let upper = app.store().prepare_upper(&layer_dir, &view).unwrap();
        std::fs::write(upper.join("new"), "new").unwrap();
        let prepared = app.store().prepare_commit(&layer_dir, &view, &SaveRules::standard()).unwrap();
        let Prepared::Layer { info, .. } = prepared else { panic!("{prepared:?}") };
        config.push_layer(&info.diff_id, History::default());
        let commit = Committing {
            diff_id: info.diff_id,
            image_id: app.store().put_config_before(&config, &info.diff_id).unwrap(),
            target: image,
            expected: Some(image_id),
            created: 2,
        };
        app.db().with(|c| SessionRow::set_committing(c, "s", Some(&commit))).unwrap();
        (Arc::new(app), commit)
    }

    async fn is_ended(app: &Arc<App>, commit: &Committing) {
        recover(app).await.unwrap();
        let now = app.db().with(|c| RefRow::get(c, &commit.target)).unwrap().unwrap();
        assert_eq!(now.image_id, commit.image_id);
        assert!(app.store().has_layer(&commit.diff_id));
        assert!(app.db().with(SessionRow::all).unwrap().is_empty());
        assert!(!dir_of(app.sessions(), "s").exists());
        let layers = app.store().config(&now.image_id).unwrap().layers().unwrap();
        let view = app.store().view(&layers, None).unwrap();
        assert!(view.resolve(b"new").is_some() && view.resolve(b"old").is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_recorded_commit_is_ended_by_the_next_server() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (app, commit) = killed_server(dir.path());
        is_ended(&app, &commit).await;
        // Killed once more, after all of it: nothing is left to do.
        recover(&app).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn also_when_the_layer_was_renamed_already() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (app, commit) = killed_server(dir.path());
        app.store().adopt_layer(&dir_of(app.sessions(), "s").join("layer"), &commit.diff_id).unwrap();
        is_ended(&app, &commit).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_without_record_is_kept_while_it_has_files() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (app, _) = killed_server(dir.path());
        app.db().with(|c| SessionRow::set_committing(c, "s", None)).unwrap();
        recover(&app).await.unwrap();
        assert_eq!(app.db().with(SessionRow::all).unwrap().len(), 1);
        std::fs::remove_dir_all(dir_of(app.sessions(), "s")).unwrap();
        recover(&app).await.unwrap();
        assert!(app.db().with(SessionRow::all).unwrap().is_empty());
    }
}
