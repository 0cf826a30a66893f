//! What completion needs: settings, names of files.

use super::reply::answer;
use crate::{
    actions::{app::App, file_names},
    edge::api::identity::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use std::sync::Arc;
use walt_api::{route, transfer::Path};

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(route::SETTINGS, get(settings))
        .route(route::IMAGE_FILES, get(in_image))
        .route(route::NODE_FILES, get(on_node))
}

async fn settings() -> Response {
    Json(file_names::settings()).into_response()
}

#[derive(Deserialize)]
struct InImage {
    image: String,
    path: Path,
}

async fn in_image(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<InImage>,
) -> Response {
    answer(file_names::in_image(&app, &caller.user, &query.image, &query.path).await)
}

#[derive(Deserialize)]
struct OnNode {
    node: String,
    path: Path,
}

async fn on_node(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<OnNode>,
) -> Response {
    answer(file_names::on_node(&app, &caller.user, &query.node, &query.path).await)
}
