//! Transfers: WebSockets that copy trees of files between a client and the server. See [`walt_api::transfer`].

use crate::{
    actions::{app::App, image_change::GivenConsent, image_copy, node_copy},
    base::{
        failure::Outcome,
        transfer::{Channel, QUEUE},
    },
    edge::api::{
        answer::into_api,
        identity::Caller,
        reply::request_id,
        websocket::{opening, write_all},
    },
};
use axum::{
    Extension,
    extract::{State, ws::WebSocketUpgrade},
    response::Response,
};
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::sync::mpsc;
use walt_api::{
    Event,
    transfer::{MAX_FRAME, Open, What},
    words::Words,
};

/// The route.
pub async fn transfer(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.max_message_size(2 * MAX_FRAME).on_upgrade(async move |socket| {
        let (sink, mut stream) = socket.split();
        let (to, queue) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write_all(sink, queue));
        let opening = opening(&mut stream).await;
        let mut channel = Channel::new(to, stream);
        let outcome = match opening {
            Ok(open) => serve(&app, &caller, open, &mut channel).await,
            Err(failure) => Err(failure),
        };
        let last = match outcome {
            Ok(ok) => Event::Done { ok },
            Err(failure) => Event::Error { error: into_api(failure, &request_id()) },
        };
        channel.finish(last).await;
        let _ = writer.await;
    })
}

async fn serve(app: &Arc<App>, caller: &Caller, open: Open, channel: &mut Channel) -> Outcome<bool> {
    let _operation = app.base().operations().begin(caller.user.as_str(), open.what.words());
    let consent = GivenConsent { confirm: open.confirm, yes: open.yes };
    match open.what {
        What::ToImage { image, path, source } => {
            image_copy::to_image(app, &caller.user, &image, path, source, consent, channel).await
        }
        What::ToNode { node, path, source } => {
            node_copy::to_node(app, &caller.user, &node, &path, &source, &consent, channel).await
        }
        What::FromNode { node, path } => {
            node_copy::from_node(app, &caller.user, &node, &path, &consent, channel).await
        }
        What::NodeToImage { node, path } => {
            node_copy::to_booted_image(app, &caller.user, &node, path, &consent, channel).await
        }
        What::FromImage { image, path } => {
            image_copy::from_image(app, &caller.user, &image, &path, channel).await
        }
    }
}
