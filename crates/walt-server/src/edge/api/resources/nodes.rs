//! The routes of nodes.

use super::{
    Action, Call, Subject,
    performed::{found, problem},
};
use crate::{
    actions::{app::App, node_boots, ownership::one_node},
    base::{
        db::blocking,
        failure::{Outcome, bad_request, not_found},
    },
    edge::{api::identity::Caller, prefer::Style},
    services::nodes,
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{delete, get, post},
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use walt_api::{
    Node, NodeAction,
    resource::{AcquireNode, BootNode, CreateNode, NewName, NodeConfig, Nothing, RebootNode, WaitNode},
    route,
};
use walt_types::UserName;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(route::NODES, post(create))
        .route(route::NODE, get(one).delete(remove))
        // A node with this name, which that route hides.
        .route(route::NODE_BOOTS, delete(async |call: Call| remove(Path("boots".to_owned()), call).await))
        .route(route::BOOTS_OF_NODE, get(boots))
        .route(route::NODE_CONFIG, get(config).patch(change_config))
        .route(route::NODE_BOOT, post(boot))
        .route(route::NODE_REBOOT, post(reboot))
        .route(route::NODE_WAIT, post(wait))
        .route(route::NODE_ACQUIRE, post(acquire))
        .route(route::NODE_RELEASE, post(release))
        .route(route::NODE_RENAME, post(rename))
}

async fn create(call: Call) -> Response {
    match call.read::<CreateNode>() {
        Ok(CreateNode { name, image, force }) => {
            let action = NodeAction::Create { name: name.clone(), image, force };
            call.perform(Subject::Node(name), Action::Node(action), StatusCode::CREATED).await
        }
        Err(failure) => problem(failure, call.style),
    }
}

async fn remove(Path(name): Path<String>, call: Call) -> Response {
    match call.read::<Nothing>() {
        Ok(Nothing {}) => {
            let action = NodeAction::Remove { name: name.clone() };
            call.perform(Subject::Nodes(name), Action::Node(action), StatusCode::OK).await
        }
        Err(failure) => problem(failure, call.style),
    }
}

async fn boot(Path(nodes): Path<String>, call: Call) -> Response {
    call.on_nodes(nodes, |nodes, BootNode { image }| Ok(NodeAction::Boot { nodes, image })).await
}

async fn reboot(Path(nodes): Path<String>, call: Call) -> Response {
    call.on_nodes(nodes, |nodes, RebootNode { hard }| Ok(NodeAction::Reboot { nodes, hard })).await
}

async fn wait(Path(nodes): Path<String>, call: Call) -> Response {
    call.on_nodes(nodes, |nodes, WaitNode { timeout }| Ok(NodeAction::Wait { nodes, timeout })).await
}

async fn acquire(Path(nodes): Path<String>, call: Call) -> Response {
    call.on_nodes(nodes, |nodes, AcquireNode { lease, hold, queue }| {
        Ok(NodeAction::Acquire { nodes, lease, hold, queue })
    })
    .await
}

async fn release(Path(nodes): Path<String>, call: Call) -> Response {
    call.on_nodes(nodes, |nodes, Nothing {}| Ok(NodeAction::Release { nodes })).await
}

async fn rename(Path(name): Path<String>, call: Call) -> Response {
    call.on_nodes(name, |name, NewName { new_name }| Ok(NodeAction::Rename { name, new_name })).await
}

async fn change_config(Path(nodes): Path<String>, call: Call) -> Response {
    call.on_nodes(nodes, |nodes, changes: BTreeMap<String, Value>| {
        if changes.is_empty() {
            return Err(bad_request("the body has no setting"));
        }
        let settings = changes.iter().map(|(key, value)| assignment(key, value)).collect::<Outcome<_>>()?;
        Ok(NodeAction::Config { nodes, settings, json: false })
    })
    .await
}

/// A setting as the action wants it: `key=value`. Values are what `GET` gives; an empty string is the default.
fn assignment(key: &str, value: &Value) -> Outcome<String> {
    let value = match value {
        Value::Null => "none".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Array(_) | Value::Object(_) => {
            let message = format!("the value of '{key}' must be a string, a number, a boolean or null");
            return Err(bad_request(message));
        }
    };
    Ok(format!("{key}={value}"))
}

async fn one(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    style: Style,
) -> Response {
    answer_node(&app, &caller.user, &name, style)
}

/// `GET` of one node.
pub(in crate::edge::api) fn answer_node(app: &App, caller: &UserName, name: &str, style: Style) -> Response {
    found(node(app, caller, name), style)
}

async fn config(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    style: Style,
) -> Response {
    let config = node(&app, &caller.user, &name).map(|Node { name, config, reboot_needed, .. }| NodeConfig {
        name,
        config,
        reboot_needed,
    });
    found(config, style)
}

async fn boots(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    style: Style,
) -> Response {
    found(node_boots::list(&app, &caller.user, &name), style)
}

fn node(app: &App, caller: &UserName, name: &str) -> Outcome<Node> {
    let mac = one_node(app, caller, name)?.mac;
    let list = blocking(|| nodes::list(app.nodes()))?;
    list.nodes.into_iter().find(|node| node.mac == mac).ok_or_else(|| not_found("the node was removed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_written_as_they_are_read() {
        let of = |value: Value| assignment("k", &value).map_err(|e| e.to_string());
        assert_eq!(of(json!("1G")), Ok("k=1G".into()));
        assert_eq!(of(json!("")), Ok("k=".into()));
        assert_eq!(of(json!(4)), Ok("k=4".into()));
        assert_eq!(of(json!(false)), Ok("k=false".into()));
        assert_eq!(of(json!(null)), Ok("k=none".into()));
        assert!(of(json!(["a"])).unwrap_err().contains("'k' must be a string"));
    }
}
