//! The HTTP API on `walt.sock`: routes, identity of the caller, answers.
//!
//! Handlers only read parameters and write answers; the work is done in `actions`.

pub mod answer;
pub mod events;
mod identity;
mod listener;
mod logs;
pub mod metrics;
mod origin;
mod reply;
mod resources;
pub mod terminals;
pub mod transfers;
mod websocket;

use crate::{
    actions::{self, app::App, check_store, image_versions, status},
    base::{
        db::blocking,
        events::Events,
        failure::{Failure, Outcome, bad_request, not_found},
    },
    edge::{api::identity::Caller, prefer::Style, registry},
    services::nodes,
};
use anyhow::{Context, Result};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use reply::{answer, answer_error, stream};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    future::Future,
    os::unix::fs::PermissionsExt,
    sync::{Arc, LazyLock},
};
use tokio::net::UnixListener;
use walt_api::{
    AdminAction, DeviceAction, FEATURES, HEADER_CONFIRM, ImageAction, Info, MAX_BODY, NodeAction, PROTOCOL,
    SessionAction, logs::LogAction, route, words::Words,
};
use walt_types::UserName;

/// Serves the API until `stop` resolves.
///
/// # Errors
/// The socket cannot be created.
pub async fn serve(app: Arc<App>, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let path = app.config().socket();
    // This process holds the lock of the state, so the server that created this socket has ended.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove the old socket {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let mode = if let Some(group) = &app.config().api.group {
        let found = nix::unistd::Group::from_name(group)?
            .with_context(|| format!("api.group: unknown group '{group}'"))?;
        nix::unistd::chown(&path, None, Some(found.gid))?;
        0o660
    } else {
        0o666
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    let for_root = Router::new()
        .route(route::ADMIN_ACTIONS, admin_actions())
        .route(route::STORE, get(store))
        .route(route::LOG_STORE, get(logs::check))
        .route(route::STATUS, get(status_of))
        .route_layer(axum::middleware::from_fn(identity::require_root));
    let router = Router::new()
        .route(route::INFO, get(info))
        .merge(resources::routes())
        .route(route::OPENAPI, get(openapi))
        .route(route::NODES, get(list_nodes))
        .route(route::IMAGES, get(list_images))
        .route(route::EVENTS, get(events::serve))
        .route(route::METRICS, get(metrics::serve))
        .route(route::NODE_BOOTS, get(node_boots))
        .route(route::DEVICES, get(list_devices))
        .route(route::LINKS, get(list_links))
        .route(route::IMAGE_HISTORY, get(image_history))
        .route(route::IMAGE_DIFF, get(image_diff))
        .route(route::REGISTRIES, get(list_registries))
        .route(route::REGISTRY_TOKEN, post(registry_token))
        .route("/v2", any(registry::serve))
        .route("/v2/", any(registry::serve))
        .route("/v2/{*path}", any(registry::serve))
        .route(route::LOG_LINES, post(logs::lines))
        .route(route::LOG_COUNT, post(logs::count))
        .route(route::CHECKPOINTS, get(logs::checkpoints))
        .route(route::LOG_ACTIONS, log_actions())
        .route(route::NODE_ACTIONS, node_actions())
        .route(route::DEVICE_ACTIONS, device_actions())
        .route(route::IMAGE_ACTIONS, image_actions())
        .route(route::SESSION_ACTIONS, session_actions())
        .merge(for_root)
        .route(route::IMAGE_SHELL, get(terminals::image_shell))
        .route(route::TRANSFER, get(transfers::transfer))
        .route(route::NODE_TERMINAL, get(terminals::node_terminal))
        .route(route::NODE_RUN, get(terminals::node_run))
        .route(route::IMAGE_BUILD, get(terminals::image_build))
        .fallback(async || answer_error(unknown_route()))
        .layer(axum::middleware::from_fn(identity::identify))
        .layer(axum::middleware::from_fn(origin::refuse_pages))
        .layer(axum::middleware::from_fn_with_state(app.clone(), metrics::count))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app);
    let service = router.into_make_service_with_connect_info::<identity::Peer>();
    axum::serve(listener::ApiListener::new(listener), service)
        .with_graceful_shutdown(stop)
        .await
        .context("the API's socket failed")
}

fn unknown_route() -> Failure {
    not_found("unknown route").hint("client and server may have different versions")
}

async fn info(Extension(caller): Extension<Caller>) -> Response {
    let features = FEATURES.iter().map(|word| (*word).to_owned()).collect();
    Json(Info { version: env!("CARGO_PKG_VERSION").into(), protocol: PROTOCOL, user: caller.user, features })
        .into_response()
}

/// The description of this API.
async fn openapi() -> Response {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| walt_api::openapi::text(&walt_api::openapi::socket()));
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

async fn list_nodes(State(app): State<Arc<App>>) -> Response {
    answer(nodes::list(app.nodes()).map_err(Into::into))
}

#[derive(Deserialize)]
struct BootsOf {
    node: Option<String>,
}

async fn node_boots(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BootsOf>,
    style: Style,
) -> Response {
    match query.node {
        Some(node) => answer(actions::node_boots::list(&app, &caller.user, &node)),
        // The route of a node with this name, which this one hides.
        None => resources::node(&app, &caller.user, "boots", style),
    }
}

async fn list_devices(State(app): State<Arc<App>>) -> Response {
    answer(actions::device_list::list(&app).map_err(Into::into))
}

#[derive(Deserialize)]
struct ListLinks {
    nodes: Option<String>,
}

async fn list_links(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListLinks>,
) -> Response {
    answer(actions::node_link::states(&app, &caller.user, query.nodes.as_deref()))
}

async fn registry_token(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Response {
    Json(crate::services::registries::token_for(app.registries(), &caller.user)).into_response()
}

async fn list_registries(State(app): State<Arc<App>>) -> Response {
    Json(crate::services::registries::list(app.registries())).into_response()
}

#[derive(Deserialize)]
struct ListImages {
    #[serde(default)]
    mine: u8,
}

async fn list_images(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListImages>,
) -> Response {
    answer(actions::image_list::list(&app, (query.mine != 0).then_some(&caller.user)).await)
}

#[derive(Deserialize)]
struct HistoryOf {
    image: String,
}

async fn image_history(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<HistoryOf>,
) -> Response {
    answer(image_versions::history(&app, &caller.user, &query.image))
}

#[derive(Deserialize)]
struct Diff {
    from: String,
    to: String,
}

async fn image_diff(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Diff>,
) -> Response {
    answer(image_versions::diff(&app, &caller.user, &query.from, &query.to).await)
}

/// The parameters of an action.
struct Request<A> {
    app: Arc<App>,
    user: UserName,
    action: A,
    confirm: Option<String>,
    events: Events,
}

/// The route of one kind of actions. A failure before the first event determines the status of the answer; otherwise
/// the answer is a stream of events. The action is cancelled when the client disconnects.
fn route_of<A, F>(run: impl Fn(Request<A>) -> F + Clone + Send + Sync + 'static) -> MethodRouter<Arc<App>>
where
    A: DeserializeOwned + Words + Send + 'static,
    F: Future<Output = Outcome<bool>> + Send + 'static,
{
    let handler = async move |State(app): State<Arc<App>>,
                              Extension(caller): Extension<Caller>,
                              headers: HeaderMap,
                              body: Bytes| {
        let action: A = match serde_json::from_slice(&body) {
            Ok(action) => action,
            Err(e) => return answer_error(bad_request(format!("cannot understand the request: {e}"))),
        };
        let confirm = headers.get(HEADER_CONFIRM).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (events, receiver) = Events::channel();
        let events = events.of(app.base().operations().begin(caller.user.as_str(), action.words()));
        let work = run(Request { app, user: caller.user, action, confirm, events });
        stream(tokio::spawn(work), receiver).await
    };
    post(handler)
}

fn node_actions() -> MethodRouter<Arc<App>> {
    route_of(async |r: Request<NodeAction>| {
        actions::node_actions::act(&r.app, &r.user, r.action, r.confirm, &r.events).await
    })
}

fn device_actions() -> MethodRouter<Arc<App>> {
    route_of(async |r: Request<DeviceAction>| {
        actions::device_actions::act(&r.app, &r.user, r.action, r.confirm, &r.events).await
    })
}

fn image_actions() -> MethodRouter<Arc<App>> {
    route_of(async |r: Request<ImageAction>| {
        actions::image_actions::act(&r.app, &r.user, r.action, r.confirm, &r.events).await
    })
}

fn session_actions() -> MethodRouter<Arc<App>> {
    route_of(async |r: Request<SessionAction>| {
        actions::session_save::act(&r.app, &r.user, r.action, r.confirm, &r.events).await
    })
}

fn log_actions() -> MethodRouter<Arc<App>> {
    route_of(async |r: Request<LogAction>| {
        actions::log_checkpoints::act(&r.app, &r.user, r.action, &r.events).await
    })
}

fn admin_actions() -> MethodRouter<Arc<App>> {
    route_of(async |r: Request<AdminAction>| actions::admin::act(&r.app, r.action, &r.events).await)
}

async fn store(State(app): State<Arc<App>>) -> Response {
    answer(check_store::inspect_running(&app).await)
}

async fn status_of(State(app): State<Arc<App>>) -> Response {
    answer(blocking(|| status::of(&app)).map_err(Into::into))
}
