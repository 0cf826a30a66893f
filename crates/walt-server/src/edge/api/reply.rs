//! Answers of the socket: JSON, errors, and the stream of events of an action.

use crate::{
    base::failure::{Failure, Outcome},
    edge::api::answer::into_api,
};
use axum::{
    Json,
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::{sync::mpsc, task::JoinHandle};
use walt_api::Event;

/// An id that identifies a request in the log.
pub(super) fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn answer_error(failure: Failure) -> Response {
    let error = into_api(failure, &request_id());
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(error)).into_response()
}

pub(super) fn answer<T: serde::Serialize>(outcome: Outcome<T>) -> Response {
    outcome.map_or_else(answer_error, |value| Json(value).into_response())
}

/// The answer of an action under way.
pub(super) async fn stream(work: JoinHandle<Outcome<bool>>, receiver: mpsc::Receiver<Event>) -> Response {
    stream_with(AbortOnDrop(work), receiver, answer_error).await
}

/// As [`stream`]; `refuse` makes the answer to a failure before the first event.
pub(super) async fn stream_with(
    mut task: AbortOnDrop,
    mut receiver: mpsc::Receiver<Event>,
    refuse: impl FnOnce(Failure) -> Response,
) -> Response {
    let first = receiver.recv().await;
    if first.is_none() {
        // All senders are gone: the action has ended without events.
        return match join(&mut task).await {
            Ok(ok) => stream_of(vec![Event::Done { ok }]),
            Err(failure) => refuse(failure),
        };
    }
    let body = Body::from_stream(futures_util::stream::unfold(
        Streaming { next: first, receiver, task: Some(task) },
        Streaming::step,
    ));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Aborts an action when its answer is dropped, since the client has disconnected.
pub(super) struct AbortOnDrop(pub JoinHandle<Outcome<bool>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn join(task: &mut AbortOnDrop) -> Outcome<bool> {
    match (&mut task.0).await {
        Ok(outcome) => outcome,
        Err(e) => Err(Failure::of_task("the action")(e)),
    }
}

struct Streaming {
    next: Option<Event>,
    receiver: mpsc::Receiver<Event>,
    task: Option<AbortOnDrop>,
}

impl Streaming {
    async fn step(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        let event = match self.next.take() {
            Some(event) => event,
            None => match self.receiver.recv().await {
                Some(event) => event,
                None => match join(&mut self.task.take()?).await {
                    Ok(ok) => Event::Done { ok },
                    Err(failure) => Event::Error { error: into_api(failure, &request_id()) },
                },
            },
        };
        Some((Ok(line(&event)), self))
    }
}

fn line(event: &Event) -> Bytes {
    // Invariant: events are plain structs of strings, which JSON can always express.
    let mut text = serde_json::to_vec(event).expect("an event is JSON");
    text.push(b'\n');
    text.into()
}

fn stream_of(events: Vec<Event>) -> Response {
    let body: Vec<u8> = events.iter().flat_map(|e| line(e).to_vec()).collect();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
