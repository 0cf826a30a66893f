//! `walt log add-checkpoint`, `list-checkpoints` and `remove-checkpoint`.

use crate::{
    actions::app::App,
    base::{
        db::CheckpointRow,
        events::Events,
        failure::{Outcome, bad_request, not_found, refused},
        time,
    },
};
use walt_api::logs::{Checkpoint, CheckpointDate, LogAction};
use walt_types::{CheckpointName, UserName};

/// Checkpoints of one user.
const CHECKPOINTS_MAX: usize = 10_000;

/// Carries out an action.
pub async fn act(app: &App, caller: &UserName, action: LogAction, events: &Events) -> Outcome<bool> {
    match action {
        LogAction::AddCheckpoint { name, date } => add(app, caller, &name, date, events).await,
        LogAction::RemoveCheckpoint { name } => {
            let removed = match name.parse::<CheckpointName>() {
                Ok(name) => app.db().with(|c| CheckpointRow::delete(c, caller, &name))?,
                Err(_) => false,
            };
            if !removed {
                return Err(
                    not_found("no checkpoint with this name.").hint("see 'walt log list-checkpoints'")
                );
            }
            events.out("Done.").await;
            Ok(true)
        }
    }
}

async fn add(
    app: &App,
    caller: &UserName,
    name: &str,
    date: Option<CheckpointDate>,
    events: &Events,
) -> Outcome<bool> {
    let name: CheckpointName = name.parse().map_err(|e| bad_request(format!("{e}.")))?;
    let now = time::now_micros();
    let at = match date {
        None => now,
        Some(CheckpointDate::Ago(micros)) => now.saturating_sub(micros),
        Some(CheckpointDate::At(micros)) => micros,
    };
    let row = CheckpointRow { name, at };
    let is_new = app.db().transaction(|tx| -> anyhow::Result<_> {
        let known = CheckpointRow::of(tx, caller)?;
        if known.iter().any(|other| other.name == row.name) {
            return Ok(Err(refused("a checkpoint with this name already exists.")
                .hint("'walt log remove-checkpoint' removes it")));
        }
        if known.len() >= CHECKPOINTS_MAX {
            return Ok(Err(refused(format!("you have {CHECKPOINTS_MAX} checkpoints: remove some first."))));
        }
        row.put(tx, caller)?;
        Ok(Ok(()))
    })?;
    is_new?;
    events
        .out(format!("New checkpoint {} recorded at server time: {}.", row.name, time::local_micros(at)))
        .await;
    Ok(true)
}

/// The checkpoints of a user, by time.
///
/// # Errors
/// The database failed.
pub fn list(app: &App, caller: &UserName) -> Outcome<Vec<Checkpoint>> {
    let rows = app.db().with(|c| CheckpointRow::of(c, caller))?;
    let checkpoint = |row: CheckpointRow| Checkpoint {
        name: row.name.to_string(),
        timestamp: row.at as f64 / 1e6,
        date: time::local_micros(row.at),
    };
    Ok(rows.into_iter().map(checkpoint).collect())
}
