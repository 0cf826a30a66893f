//! The routes of images.

use super::{
    Action, Call, Subject, full_name,
    performed::{found, problem},
};
use crate::{
    actions::{app::App, image_list, image_versions},
    base::failure::{Failure, Kind, Outcome, not_found},
    edge::{api::identity::Caller, prefer::Style},
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use std::sync::Arc;
use walt_api::{
    Image, ImageAction,
    resource::{CloneImage, NewName, Nothing, PublishImage, RollBackImage},
    route,
};

/// Owner and name in the path.
type Named = Path<(String, String)>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(route::IMAGES, post(clone))
        .route(route::IMAGE, get(one).delete(remove))
        .route(route::HISTORY_OF_IMAGE, get(history))
        .route(route::IMAGE_RENAME, post(rename))
        .route(route::IMAGE_DUPLICATE, post(duplicate))
        .route(route::IMAGE_ROLLBACK, post(roll_back))
        .route(route::IMAGE_PRUNE, post(prune))
        .route(route::IMAGE_SQUASH, post(squash))
        .route(route::IMAGE_PUBLISH, post(publish))
}

async fn clone(call: Call) -> Response {
    match call.read::<CloneImage>() {
        Ok(CloneImage { link, name, force, credentials }) => {
            // What the copy is called without a name is decided by the action: its output says it.
            let copy = name.as_deref().or_else(|| link.rsplit('/').next()).unwrap_or_default();
            let full = full_name(call.user.as_str(), copy);
            let subject = Subject::Image(full.unwrap_or_else(|_| link.clone()));
            let action = ImageAction::Clone { link, name, force, credentials };
            call.perform(subject, Action::Image(action), StatusCode::CREATED).await
        }
        Err(failure) => problem(failure, call.style),
    }
}

async fn remove(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::OK, |name, Nothing {}| ImageAction::Remove { name }).await
}

async fn rename(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::OK, |name, NewName { new_name }| ImageAction::Rename { name, new_name })
        .await
}

async fn duplicate(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::CREATED, |name, NewName { new_name }| ImageAction::Duplicate {
        name,
        new_name,
    })
    .await
}

async fn roll_back(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::OK, |name, RollBackImage { version }| ImageAction::Rollback {
        name,
        version,
    })
    .await
}

async fn prune(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::OK, |name, Nothing {}| ImageAction::Prune { name: Some(name) }).await
}

async fn squash(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::OK, |name, Nothing {}| ImageAction::Squash { name }).await
}

async fn publish(Path(image): Named, call: Call) -> Response {
    call.on_image(image, StatusCode::OK, |name, PublishImage { registry, credentials }| {
        ImageAction::Publish { name, registry, credentials }
    })
    .await
}

async fn one(State(app): State<Arc<App>>, Path((user, name)): Named, style: Style) -> Response {
    found(image(&app, &user, &name).await, style)
}

async fn image(app: &App, user: &str, name: &str) -> Outcome<Image> {
    let full = full_name(user, name)?;
    let list = image_list::list(app, None).await?;
    let image = list.images.into_iter().find(|image| image.fullname == full);
    image.ok_or_else(|| not_found(format!("No such image '{full}'.")))
}

async fn history(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((user, name)): Named,
    style: Style,
) -> Response {
    if user != caller.user.as_str() {
        let message = format!("{user}/{name} is not your image: its history is for its owner.");
        let refusal = Failure::refusal(Kind::Forbidden, message);
        return problem(refusal, style);
    }
    found(image_versions::history(&app, &caller.user, &name), style)
}
