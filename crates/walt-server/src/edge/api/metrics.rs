//! `GET /metrics`, and the times of all requests.

use crate::{
    actions::{self, app::App},
    base::{db::blocking, metrics},
    edge::api::reply::answer_error,
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Instant};

/// The route.
pub async fn serve(State(app): State<Arc<App>>) -> Response {
    answer(&app)
}

/// The answer, by whatever door the request came.
pub fn answer(app: &App) -> Response {
    match blocking(|| actions::metrics::text(app)) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(e) => answer_error(e.into()),
    }
}

/// Counts a request by its route, which is a template: there are not more of them than the server has routes.
pub async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    app.base().metrics().request(&route, method.as_str(), response.status().as_u16(), start.elapsed());
    response
}
