//! `GET /api/v1/events`: the state and its changes, as lines of JSON or as messages of a WebSocket
//! ([`walt_api::live`]).

use crate::{
    actions::{
        app::App,
        live::{self, Query},
    },
    edge::api::{identity::Caller, reply::answer_error},
    services::live::Subscription,
};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{
        Query as Parameters, State,
        ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt};
use std::{convert::Infallible, sync::Arc};
use walt_types::UserName;

/// Messages that wait are sent together, up to this many bytes.
const CHUNK: usize = 64 << 10;
/// Largest message of a client on a WebSocket, in bytes: it has nothing to say.
const CLIENT_MESSAGE_MAX: usize = 4 << 10;

/// The route.
pub async fn serve(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Parameters(query): Parameters<Query>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => Some(upgrade),
        Err(rejection) if headers.contains_key(header::UPGRADE) => return rejection.into_response(),
        Err(_) => None,
    };
    answer(&app, &caller.user, &query, upgrade)
}

/// The answer to a request, by whatever door it came.
pub fn answer(app: &App, caller: &UserName, query: &Query, upgrade: Option<WebSocketUpgrade>) -> Response {
    let subscription = match live::subscribe(app, caller, query) {
        Ok(subscription) => subscription,
        Err(failure) => return answer_error(failure),
    };
    match upgrade {
        Some(upgrade) => upgrade
            .max_message_size(CLIENT_MESSAGE_MAX)
            .on_upgrade(move |socket| messages(socket, subscription)),
        None => lines(subscription),
    }
}

fn lines(subscription: Subscription) -> Response {
    let body = Body::from_stream(futures_util::stream::unfold(subscription, async |mut subscription| {
        let first = subscription.next().await;
        Some((Ok::<_, Infallible>(chunk(first, &mut subscription)), subscription))
    }));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

/// A line, and those that wait already.
fn chunk(first: Bytes, subscription: &mut Subscription) -> Bytes {
    if first.len() >= CHUNK {
        return first;
    }
    let Some(second) = subscription.ready() else { return first };
    let mut chunk = [first, second].concat();
    while chunk.len() < CHUNK {
        let Some(next) = subscription.ready() else { break };
        chunk.extend_from_slice(&next);
    }
    chunk.into()
}

async fn messages(socket: WebSocket, mut subscription: Subscription) {
    let (mut sink, mut stream) = socket.split();
    loop {
        let line = tokio::select! {
            line = subscription.next() => line,
            said = stream.next() => match said {
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Binary(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        };
        // Invariant: a line is JSON that was written as text, and its end.
        let text = Utf8Bytes::try_from(line.slice(..line.len() - 1)).expect("text");
        if sink.send(Message::Text(text)).await.is_err() {
            return;
        }
    }
}
