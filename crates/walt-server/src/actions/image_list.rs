//! `walt image show`.

use crate::{
    actions::app::App,
    base::{
        db::{NodeRow, RefRow, SessionRow},
        failure::Outcome,
        time::local_time,
    },
    services::sessions,
};
use std::collections::BTreeSet;
use walt_api::{Image, ImageList, SessionInfo};
use walt_types::UserName;

/// All images of all users. If `first_for` has no images, that user first gets clones of the default images.
pub async fn list(app: &App, first_for: Option<&UserName>) -> Outcome<ImageList> {
    let notes = match first_for {
        Some(user) => {
            let decision = app.base().decide().await;
            app.images().first_images(user, &decision)?
        }
        None => Vec::new(),
    };
    let (refs, nodes, open) =
        app.db().with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?, SessionRow::all(c)?)))?;
    let used: BTreeSet<String> = nodes.iter().map(|n| n.facts.image.full()).collect();
    let mut images = Vec::with_capacity(refs.len());
    for row in refs {
        let fullname = row.reference.full();
        let session = open.iter().find(|s| s.image == row.reference).map(|s| SessionInfo {
            id: s.id.clone(),
            since: local_time(s.opened),
            state: sessions::state_text(app.store(), s).to_owned(),
        });
        images.push(Image {
            user: row.reference.user().to_owned(),
            id: row.image_id.oci(),
            in_use: used.contains(&fullname),
            created: local_time(row.created),
            compatibility: app.images().models_of(&row.image_id)?.iter().map(ToString::to_string).collect(),
            session,
            fullname,
        });
    }
    Ok(ImageList { num_images: images.len(), images, notes })
}
