//! Log lines on the API's socket.

use super::{Caller, answer, answer_error};
use crate::{
    actions::{
        app::App,
        check_logs, log_checkpoints,
        log_lines::{self, Lines},
    },
    base::failure::{Failure, Outcome, bad_request},
};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::{convert::Infallible, sync::Arc};
use walt_api::logs::LogQuery;

fn query(body: &[u8]) -> Outcome<LogQuery> {
    serde_json::from_slice(body).map_err(|e| bad_request(format!("cannot understand the request: {e}")))
}

pub(super) async fn lines(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let opened = query(&body).and_then(|query| {
        let lines = log_lines::open(&app, &caller.user, &query)?;
        Ok((lines, query))
    });
    let (lines, query) = match opened {
        Ok(opened) => opened,
        Err(failure) => return answer_error(failure),
    };
    let kind = if query.format.is_some() { "text/plain; charset=utf-8" } else { "application/x-ndjson" };
    let body = futures_util::stream::unfold(lines, async |mut lines: Lines| {
        lines.next().await.map(|page| (Ok::<_, Infallible>(Bytes::from(page)), lines))
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response()
}

pub(super) async fn count(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    answer(query(&body).and_then(|query| log_lines::count(&app, &caller.user, &query)))
}

pub(super) async fn check(State(app): State<Arc<App>>) -> Response {
    let checked = tokio::task::spawn_blocking(move || check_logs::inspect(app.logs().store())).await;
    answer(checked.map_err(Failure::of_task("the check of log lines")).and_then(|report| Ok(report?)))
}

pub(super) async fn checkpoints(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(log_checkpoints::list(&app, &caller.user))
}
