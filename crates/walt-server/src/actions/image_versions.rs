//! `walt image history|rollback|prune|diff`: the versions of an image.

use crate::{
    actions::{
        app::App,
        publish_ref::{Consent, Target, reboot_warning},
    },
    base::{
        db::{By, HistoryRow, RefRow, blocking},
        events::Events,
        failure::{Outcome, bad_request, not_found, refused, refused_hint},
        time,
    },
    services::images::{self, own_reference},
};
use std::{collections::BTreeSet, sync::Arc};
use walt_api::versions::{
    FileChange, FileDifference, ImageDiff, ImageHistory, ImageVersion, MAX_DIFFERENCES, show_path,
};
use walt_images::{Change, Difference, Kind};
use walt_types::{DiffId, ImageId, ImageRef, UserName};

/// The images that a name of the caller points to and has pointed to.
pub fn history(app: &App, caller: &UserName, name: &str) -> Outcome<ImageHistory> {
    let row = app.images().find(&own_reference(caller, name)?)?;
    let rows = app.db().with(|c| HistoryRow::of(c, &row.reference))?;
    let mut below: BTreeSet<DiffId> = BTreeSet::new();
    let mut versions = Vec::with_capacity(rows.len());
    for row in rows.iter().rev() {
        let layers = layers(app, &row.image_id)?;
        let size = layers
            .iter()
            .filter(|l| !below.contains(l))
            .map(|l| app.store().layer_info(l).map_or(0, |info| info.size))
            .sum();
        versions.push(ImageVersion {
            version: row.version,
            current: row.version == rows[0].version,
            since: time::local_time(row.since),
            user: row.by.user.clone(),
            command: row.by.command.clone(),
            id: row.image_id.oci(),
            layers: layers.len(),
            size,
        });
        below = layers.into_iter().collect();
    }
    versions.reverse();
    Ok(ImageHistory { fullname: row.reference.full(), versions })
}

fn layers(app: &App, image: &ImageId) -> Outcome<Vec<DiffId>> {
    let config = app.store().config(image)?;
    Ok(config.layers()?)
}

/// Makes a name point to an earlier version again; false if a node could not be rebooted.
pub async fn roll_back(
    app: &Arc<App>,
    caller: &UserName,
    name: &str,
    version: Option<u32>,
    confirm: Option<&str>,
    events: &Events,
) -> Outcome<bool> {
    let (target, chosen, created) = {
        let decision = app.base().decide().await;
        let reference = own_reference(caller, name)?;
        let present = app.images().find(&reference)?;
        let target = Target::of(app, reference)?;
        let rows = app.db().with(|c| HistoryRow::of(c, &target.reference))?;
        let image = target.reference.image();
        let list = format!("'walt image history {image}' lists the versions.");
        let chosen = match version {
            Some(number) => rows.into_iter().find(|r| r.version == number).ok_or_else(|| {
                refused_hint(format!("image {image} has no version {number}."), list.clone())
            })?,
            None => rows.into_iter().find(|r| r.image_id != present.image_id).ok_or_else(|| {
                refused_hint(format!("image {image} has no earlier version."), list.clone())
            })?,
        };
        if chosen.image_id == present.image_id {
            return Err(refused(format!(
                "image {image} already points to the same image as version {}.",
                chosen.version
            )));
        }
        if !target.users.is_empty() {
            let operation = format!("rollback {}", chosen.version);
            let warning = reboot_warning(target.users.len());
            target.check_consent_with(
                app,
                caller,
                Consent { operation: &operation, confirm, yes: false, warning },
                &decision,
            )?;
        }
        let created = images::created(&app.store().config(&chosen.image_id)?).unwrap_or(chosen.since);
        (target, chosen, created)
    };
    let command = format!("walt image rollback {} {}", target.reference.image(), chosen.version);
    target.publish_and_reboot(app, chosen.image_id, created, &By::new(caller, command), events).await
}

/// Forgets the earlier versions of one image of the caller, or of all.
///
/// # Errors
/// There is no such image; or the question to the user, which the token in `confirm` answers.
pub async fn prune(
    app: &App,
    caller: &UserName,
    name: Option<&str>,
    confirm: Option<&str>,
    events: &Events,
) -> Outcome<bool> {
    // Held to the end: the consent does not cover versions that came after the question.
    let _decision = app.base().decide().await;
    let references: Vec<ImageRef> = match name {
        Some(name) => vec![app.images().find(&own_reference(caller, name)?)?.reference],
        None => {
            let rows = app.db().with(RefRow::all)?;
            rows.into_iter().map(|r| r.reference).filter(|r| r.user() == caller.as_str()).collect()
        }
    };
    let mut affected = Vec::new();
    for reference in references {
        let rows = app.db().with(|c| HistoryRow::of(c, &reference))?;
        if rows.len() > 1 {
            affected.push((reference, rows.len() - 1));
        }
    }
    if affected.is_empty() {
        events.out("There are no earlier versions: nothing to do.").await;
        return Ok(true);
    }
    let warnings: Vec<String> = affected
        .iter()
        .map(|(r, n)| format!("Image {}: {n} earlier version(s) would be deleted for good.", r.image()))
        .collect();
    // The token is for exactly these versions.
    let facts = warnings.join(" ");
    app.confirmed(caller, "prune", &facts, confirm, warnings)?;
    app.db().transaction(|tx| -> anyhow::Result<()> {
        affected.iter().try_for_each(|(r, _)| HistoryRow::prune(tx, r).map(drop))
    })?;
    app.images().request_housekeeping();
    for (reference, count) in affected {
        events.out(format!("Image {}: {count} earlier version(s) removed.", reference.image())).await;
    }
    Ok(true)
}

/// The differences of two images, given by names of the caller or full names, with or without `@VERSION`.
pub async fn diff(app: &Arc<App>, caller: &UserName, from: &str, to: &str) -> Outcome<ImageDiff> {
    // Pinned, so that nothing removes what is being read.
    let mut pinned = app.images().pins().begin();
    let (from, to) = {
        let _decision = app.base().decide().await;
        let (from, to) = (version_of(app, caller, from)?, version_of(app, caller, to)?);
        pinned.image(from.1);
        pinned.image(to.1);
        (from, to)
    };
    let (differences, truncated) = blocking(|| -> anyhow::Result<_> {
        let (old, new) = (app.images().own_view(&from.1)?, app.images().own_view(&to.1)?);
        let (mut list, mut truncated) = (Vec::new(), false);
        walt_images::diff(&old, &new, &mut |difference| {
            truncated = list.len() == MAX_DIFFERENCES;
            if !truncated {
                list.push(to_file_difference(&difference));
            }
            !truncated
        })?;
        Ok((list, truncated))
    })?;
    Ok(ImageDiff { from: from.0, to: to.0, differences, truncated })
}

fn version_of(app: &App, caller: &UserName, text: &str) -> Outcome<(String, ImageId)> {
    let (name, version) = match text.rsplit_once('@') {
        None => (text, None),
        Some((name, number)) => {
            let number: u32 = number
                .parse()
                .map_err(|_| bad_request(format!("'{text}': expected a version number after '@'.")))?;
            (name, Some(number))
        }
    };
    let reference = match name.contains('/') {
        true => name.parse().map_err(|e| bad_request(format!("{e}.")))?,
        false => own_reference(caller, name)?,
    };
    let row = app.images().find(&reference)?;
    let Some(number) = version else { return Ok((row.reference.full(), row.image_id)) };
    let rows = app.db().with(|c| HistoryRow::of(c, &reference))?;
    let row = rows.iter().find(|r| r.version == number).ok_or_else(|| {
        not_found(format!("image {} has no version {number}. (tip: walt image history)", reference.image()))
    })?;
    Ok((format!("{}@{number}", reference.full()), row.image_id))
}

fn to_file_difference(difference: &Difference) -> FileDifference {
    let (change, what) = match &difference.change {
        Change::Added => (FileChange::Added, Vec::new()),
        Change::Deleted => (FileChange::Deleted, Vec::new()),
        Change::Changed(what) => (FileChange::Changed, what.iter().map(|w| (*w).to_owned()).collect()),
    };
    let kind = match difference.kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Char | Kind::Block => "device",
        // The last two do not occur in views.
        Kind::Fifo | Kind::Socket | Kind::Whiteout => "fifo",
    };
    FileDifference {
        path: show_path(&difference.path),
        change,
        kind: kind.to_owned(),
        size: difference.size,
        what,
    }
}
