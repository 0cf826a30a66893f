//! Images as users see them: references, first images, and what `walt image …` does to references.

pub mod build_cache;
pub mod default_image;
pub mod emulation;
pub mod housekeeping;
pub mod labels;
pub mod pins;
pub mod platform;
pub mod recipe;

pub use crate::services::images::labels::{LABEL_MODELS, LABEL_PREFERRED_NAME};

use crate::{
    App,
    base::{
        db::{By, NodeRow, RefRow, SessionRow},
        failure::{Outcome, bad_request, not_found, refused, refused_hint},
    },
    services::sessions,
};
use std::collections::{BTreeMap, BTreeSet};
use walt_api::{ErrorCode, Image, ImageList, SessionInfo};
use walt_core::default_image_of;
use walt_images::MAX_LAYERS;
use walt_types::{ImageId, ImageName, ImageRef, Model, UserName};

/// The model whose default image every new user gets, whatever nodes there are.
pub const MODEL_ALWAYS: &str = "pc-x86-64";

/// What the history says of a clone that the server made by itself.
const FIRST_CLONE: &str = "(first use of the default image)";

/// The caller's image of that name.
pub fn own_reference(caller: &UserName, name: &str) -> Outcome<ImageRef> {
    let name: ImageName = name.parse().map_err(|e| bad_request(format!("{e}.")))?;
    Ok(ImageRef::of(caller, name))
}

/// What a reference means, or a sentence for the user.
pub fn find(app: &App, reference: &ImageRef) -> Outcome<RefRow> {
    if let Some(row) = app.db.with(|c| RefRow::get(c, reference))? {
        return Ok(row);
    }
    if reference.is_platform() {
        let recipe = default_image::recipe_of(reference.image());
        let error = walt_api::ApiError::new(
            ErrorCode::NotFound,
            format!("the default image '{reference}' is missing on this server."),
        );
        let hint = match recipe {
            Some(name) => format!("run 'walt-server default-image build {name}' on the server, as root"),
            None => {
                "there is no recipe for it: 'walt-server default-image list' tells which there are".into()
            }
        };
        return Err(error.hint(hint).into());
    }
    Err(not_found(format!("No such image '{}'. (tip: walt image show)", reference.image())))
}

/// Refuses a name that is taken.
pub fn must_be_free(app: &App, reference: &ImageRef) -> Outcome<()> {
    match app.db.with(|c| RefRow::get(c, reference))? {
        None => Ok(()),
        Some(_) => Err(refused(format!("Image '{}' already exists.", reference.image()))),
    }
}

fn label(app: &App, image: &ImageId, key: &str) -> Outcome<Option<String>> {
    let config = app.store.config(image).map_err(anyhow::Error::new)?;
    Ok(config.label(key).map(str::to_owned))
}

/// Models that an image is made for, from its label.
pub fn models(app: &App, reference: &ImageRef) -> Outcome<Vec<Model>> {
    let row = find(app, reference)?;
    models_of(app, &row.image_id)
}

/// As [`models`], by image id.
pub fn models_of(app: &App, image: &ImageId) -> Outcome<Vec<Model>> {
    Ok(labels::models_of(&app.store.config(image).map_err(anyhow::Error::new)?))
}

/// The name of a user's clone of a default image.
fn preferred_name(app: &App, default: &RefRow) -> Outcome<ImageName> {
    let preferred = label(app, &default.image_id, LABEL_PREFERRED_NAME)?;
    Ok(preferred.and_then(|name| name.parse().ok()).unwrap_or_else(|| default.reference.image().clone()))
}

/// Gives a user who has no image a tag of each default image for the models of all nodes; one sentence
/// for each that was made. Default images that are missing are left out: what needs one says so.
pub fn first_images(app: &App, user: &UserName) -> Outcome<Vec<String>> {
    let (refs, nodes) = app.db.with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?)))?;
    if refs.iter().any(|r| r.reference.user() == user.as_str()) {
        return Ok(Vec::new());
    }
    let mut wanted: BTreeSet<Model> = nodes.into_iter().map(|n| n.facts.model).collect();
    // Invariant: the constant is a valid model name.
    wanted.insert(MODEL_ALWAYS.parse().expect("a valid model"));
    let mut made: BTreeMap<ImageName, Vec<Model>> = BTreeMap::new();
    for model in wanted {
        let Some(default) = app.db.with(|c| RefRow::get(c, &default_image_of(&model)))? else { continue };
        let name = preferred_name(app, &default)?;
        let reference = ImageRef::of(user, name.clone());
        let row = RefRow { reference, ..default };
        app.db.transaction(|tx| row.put(tx, &By::new(user, FIRST_CLONE)))?;
        made.entry(name).or_default().push(model);
    }
    Ok(made
        .into_iter()
        .map(|(name, models)| {
            let models: Vec<&str> = models.iter().map(Model::as_str).collect();
            format!("Cloned {name}, a default image for {}.", models.join(", "))
        })
        .collect())
}

/// The caller's clone of the default image of a model; made if it is missing.
pub fn own_default(app: &App, caller: &UserName, model: &Model) -> Outcome<ImageRef> {
    let default = find(app, &default_image_of(model))?;
    let own = ImageRef::of(caller, preferred_name(app, &default)?);
    if app.db.with(|c| RefRow::get(c, &own))?.is_none() {
        let row = RefRow { reference: own.clone(), ..default };
        app.db.transaction(|tx| row.put(tx, &By::new(caller, FIRST_CLONE)))?;
    }
    Ok(own)
}

/// All images of all users; a caller who has none gets the first ones before.
pub async fn list(app: &App, first_for: Option<&UserName>) -> Outcome<ImageList> {
    let notes = match first_for {
        Some(user) => {
            let _decision = app.decisions.lock().await;
            first_images(app, user)?
        }
        None => Vec::new(),
    };
    let (refs, nodes, open) =
        app.db.with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?, SessionRow::all(c)?)))?;
    let used: BTreeSet<String> = nodes.iter().map(|n| n.facts.image.full()).collect();
    let mut images = Vec::with_capacity(refs.len());
    for row in refs {
        let fullname = row.reference.full();
        let session = open.iter().find(|s| s.image == row.reference).map(|s| SessionInfo {
            id: s.id.clone(),
            since: crate::base::time::local_time(s.opened),
            state: sessions::state_text(&app.store, s).to_owned(),
        });
        images.push(Image {
            user: row.reference.user().to_owned(),
            id: row.image_id.oci(),
            in_use: used.contains(&fullname),
            created: crate::base::time::local_time(row.created),
            compatibility: models_of(app, &row.image_id)?.iter().map(ToString::to_string).collect(),
            session,
            fullname,
        });
    }
    Ok(ImageList { num_images: images.len(), images, notes })
}

/// Said when a change had no room for its layer before the layers below were squashed.
pub fn squashed_note() -> String {
    format!(
        "Note: the image had {MAX_LAYERS} layers already, and more are not possible: those below the change were \
         squashed into one."
    )
}

/// Refuses what an open session forbids.
pub fn no_session(app: &App, reference: &ImageRef) -> Outcome<()> {
    match app.db.with(|c| SessionRow::of_image(c, reference))? {
        None => Ok(()),
        Some(_) => {
            let name = reference.image();
            Err(refused_hint(
                format!("Image '{name}' has an open shell session."),
                format!(
                    "'walt image shell --resume {name}' goes on with it, \
                     'walt image shell --discard {name}' ends it and drops its changes"
                ),
            ))
        }
    }
}
