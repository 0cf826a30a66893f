//! `walt advanced fix-image-owner`: the images of an account that is not used any more.

use crate::{
    actions::{app::App, image_actions::not_in_use},
    base::{
        db::RefRow,
        events::Events,
        failure::{Outcome, not_found, refused, refused_hint},
    },
};
use walt_types::{ImageRef, PLATFORM_USER, UserName};

/// Makes the caller the owner of all images of another user.
pub async fn fix_owner(
    app: &App,
    caller: &UserName,
    user: &str,
    sure: bool,
    events: &Events,
) -> Outcome<bool> {
    if user == caller.as_str() {
        return Err(refused(format!("you already own the images of {user}.")));
    }
    let decision = app.base().decide().await;
    let rows: Vec<RefRow> =
        app.db().with(RefRow::all)?.into_iter().filter(|r| r.reference.user() == user).collect();
    if rows.is_empty() || user == PLATFORM_USER {
        return Err(not_found(format!("no user '{user}' has images.")));
    }
    let mut moves = Vec::with_capacity(rows.len());
    for row in &rows {
        let target = ImageRef::of(caller, row.reference.image().clone());
        if app.db().with(|c| RefRow::get(c, &target))?.is_some() {
            return Err(refused_hint(
                format!("you also have an image '{}'.", target.image()),
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
                 any more. Use this for images of an account that is not used any more.",
                names.join(", ")
            ))
            .await;
        events
            .note(format!(
                "If you are sure, run: walt advanced fix-image-owner --yes-i-know-do-it-please {user}"
            ))
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
