//! A server with canned answers, on a socket of its own.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use walt_api::term::INPUT_WINDOW;

/// What arrived, in order.
pub type Log = Arc<Mutex<Vec<String>>>;

/// The server; it ends with the test's process.
pub struct Server {
    /// Its socket is in here.
    pub dir: tempfile::TempDir,
    /// What arrived.
    pub log: Log,
}

impl Server {
    /// Starts it.
    pub fn start() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let log = Log::default();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("walt.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let router = router(log.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { dir, log }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("walt.sock")
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn router(log: Log) -> Router {
    Router::new()
        .route("/api/v1/info", get(|| async { Json(json!({"version": "1", "protocol": 1, "user": "ann"})) }))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/events", get(events))
        .route("/api/v1/actions/{kind}", post(action))
        .route("/api/v1/terminals/{kind}", any(terminal))
        .with_state(log)
}

async fn nodes() -> Json<Value> {
    let node = |n: usize, owner: &str| {
        json!({"name": format!("vn{n:03}"), "model": "pc-x86-64", "virtual": true, "image": format!("{owner}/x:latest"),
            "booted": true, "ip": "192.168.183.2", "mac": "52:54:00:00:00:01", "config": {"netsetup": "LAN"},
            "owner": owner, "state": "booted", "booted_text": "yes", "boot_seconds": 1.5, "last_console_line": null})
    };
    let nodes: Vec<Value> = (0..200).map(|n| node(n, if n < 2 { "ann" } else { "bob" })).collect();
    Json(json!({"num_nodes": nodes.len(), "nodes": nodes}))
}

/// A node that boots, and the end of the connection, unless it is `slow`; a booted one for those who come again.
async fn events(State(log): State<Log>, uri: axum::http::Uri) -> Response {
    let mut log = log.lock().unwrap();
    log.push(format!("events {}", uri.query().unwrap_or_default()));
    let times = log.iter().filter(|line| line.starts_with("events ")).count();
    let state = if times == 1 { "booting" } else { "booted" };
    let node = json!({"name": "vn1", "model": "m", "virtual": true, "image": "ann/x:latest", "booted": times > 1,
        "ip": "192.168.183.2", "mac": "52:54:00:00:00:01", "config": {}, "owner": "ann", "state": state,
        "booted_text": state, "boot_seconds": 1.5, "last_console_line": null});
    let snapshot =
        json!({"event": "snapshot", "server": times.to_string(), "seq": 1, "time": 1.0, "nodes": [node]});
    let line = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(format!("{snapshot}\n"))]);
    match uri.query().is_some_and(|query| query.ends_with("=slow")) {
        true => Body::from_stream(line.chain(futures_util::stream::pending())).into_response(),
        false => Body::from_stream(line).into_response(),
    }
}

/// `boot` confirms twice (the first token is stale); everything else is done at once.
async fn action(State(log): State<Log>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let token = headers.get("walt-confirm").map(|t| t.to_str().unwrap().to_owned());
    let user = headers.get("walt-user").map_or("", |u| u.to_str().unwrap());
    log.lock().unwrap().push(format!("{body} {token:?} {user}"));
    let asks = body["action"] == "boot" || (body["action"] == "save" && body["yes"] == false);
    if asks && token.as_deref() != Some("t2") {
        let next = if token.is_none() { "t1" } else { "t2" };
        let error = json!({"code": "confirm", "message": "confirmation needed",
            "confirmation": {"warnings": ["This would reboot 1 node."], "token": next}});
        return (StatusCode::CONFLICT, Json(error)).into_response();
    }
    if body["name"] == "bad name" {
        let error =
            json!({"code": "bad-request", "message": "invalid name", "hint": "Names are lower-case."});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    let ok = body["action"] != "wait";
    let lines = [
        json!({"event": "busy", "label": "Rebooting"}),
        json!({"event": "note", "text": "a note"}),
        json!({"event": "out", "text": format!("{} ok.", body["action"].as_str().unwrap())}),
        json!({"event": "done", "ok": ok}),
    ];
    lines.iter().map(|l| format!("{l}\n")).collect::<String>().into_response()
}

async fn terminal(State(log): State<Log>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| serve_terminal(log, socket))
}

/// Collects input to its end and answers with it: on stdout what came, on stderr its length. The exit
/// status is the number behind the word `exit` in the input or in the command. `lost` breaks the line;
/// a terminal ends at the first carriage return, and reports its first size.
async fn serve_terminal(log: Log, mut socket: WebSocket) {
    let Some(Ok(Message::Text(open))) = socket.next().await else { return };
    let open: Value = serde_json::from_str(open.as_str()).unwrap();
    log.lock().unwrap().push(open.to_string());
    let text = |value: Value| Message::Text(value.to_string().into());
    if open["node"] == "other" && open["confirm"].is_null() {
        let error = json!({"code": "confirm", "message": "m",
            "confirmation": {"warnings": ["Warning: other seems to be used by another user."], "token": "t1"}});
        socket.send(text(json!({"message": "error", "error": error}))).await.unwrap();
        return;
    }
    if open["node"] == "gone" {
        let error = json!({"code": "refused", "message": "gone does not answer"});
        socket.send(text(json!({"message": "error", "error": error}))).await.unwrap();
        return;
    }
    if open["nodes"].is_string() {
        return serve_run(&log, socket, &open).await;
    }
    let session = open["image"].as_str().map(|_| "s1");
    socket.send(text(json!({"message": "busy", "label": "Starting"}))).await.unwrap();
    socket
        .send(text(json!({"message": "started", "session": session, "os": open["image"] == "os"})))
        .await
        .unwrap();
    let mut input = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => {
                assert_eq!(bytes[0], 0);
                input.extend_from_slice(&bytes[1..]);
                if !open["tty"].is_null() && input.contains(&b'\r') {
                    break;
                }
            }
            Message::Text(message) if message.as_str().contains("eof") => break,
            Message::Text(message) => log.lock().unwrap().push(message.to_string()),
            _ => {}
        }
    }
    let all =
        format!("{} {}", String::from_utf8_lossy(&input), open["what"]["command"].as_str().unwrap_or(""));
    if all.contains("lost") {
        return;
    }
    let mut status = 0;
    if let Some((_, rest)) = all.split_once("exit ") {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        status = digits.parse().unwrap_or(0);
    }
    let length = input.len();
    for part in input.chunks(32 << 10) {
        let _ = socket.send(Message::Binary([&[1], part].concat().into())).await;
    }
    let mut err = vec![2];
    err.extend(format!("{length} bytes\n").into_bytes());
    let _ = socket.send(Message::Binary(err.into())).await;
    let _ = socket.send(text(json!({"message": "exited", "status": status}))).await;
}

/// A command on as many nodes as the set has items. The first one answers with the input; the others say their number, cut
/// in the middle of a line. Their statuses are 0, 1, … plus the number behind `exit ` in the command; `gone` in the set is
/// a node that cannot be reached. With `wait` in the command, the first node says `waiting` when the client has sent all
/// that it may send before it is consumed, and the end is that of ctrl-C.
async fn serve_run(log: &Log, mut socket: WebSocket, open: &Value) {
    let text = |value: Value| Message::Text(value.to_string().into());
    let names: Vec<&str> = open["nodes"].as_str().unwrap().split(',').collect();
    if names.contains(&"other") && open["confirm"].is_null() {
        let error = json!({"code": "confirm", "message": "m",
            "confirmation": {"warnings": ["Warning: other seems to be used by another user."], "token": "t1"}});
        socket.send(text(json!({"message": "error", "error": error}))).await.unwrap();
        return;
    }
    if names.contains(&"nope") {
        let error = json!({"code": "not-found", "message": "No device with name 'nope' found."});
        socket.send(text(json!({"message": "error", "error": error}))).await.unwrap();
        return;
    }
    socket.send(text(json!({"message": "nodes", "names": names}))).await.unwrap();
    let command = open["command"].as_str().unwrap();
    let frame = |channel: u8, node: usize, bytes: &[u8]| {
        let number = u32::try_from(node).unwrap().to_be_bytes();
        Message::Binary([&[channel], &number[..], bytes].concat().into())
    };
    for node in 1..names.len() {
        let half = format!("out {node}\nhalf");
        let _ = socket.send(frame(3, node, half.as_bytes())).await;
    }
    let (mut input, mut echo, mut waiting) = (0, Vec::new(), command.contains("wait"));
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => {
                assert_eq!(bytes[0], 0);
                input += bytes.len() - 1;
                if waiting && input >= INPUT_WINDOW {
                    waiting = false;
                    let _ = socket.send(frame(3, 0, b"waiting\n")).await;
                }
                if !command.contains("wait") {
                    // At the end: the test writes all of it before it reads.
                    echo.extend_from_slice(&bytes[1..]);
                    let consumed = json!({"message": "consumed", "bytes": bytes.len() - 1});
                    let _ = socket.send(text(consumed)).await;
                }
            }
            Message::Text(message) if message.as_str().contains("eof") && !command.contains("wait") => break,
            Message::Text(message) if message.as_str().contains("interrupt") => {
                log.lock().unwrap().push(format!("interrupt after {input}"));
                break;
            }
            Message::Text(message) => log.lock().unwrap().push(message.to_string()),
            _ => {}
        }
    }
    for part in echo.chunks(32 << 10) {
        let _ = socket.send(frame(3, 0, part)).await;
    }
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let base: i32 = command.split_once("exit ").map_or(0, |(_, rest)| digits(rest).parse().unwrap());
    let mut worst = 0;
    for (node, name) in names.iter().enumerate() {
        let status = if *name == "gone" { 255 } else { base + i32::try_from(node).unwrap() };
        worst = worst.max(status);
        let _ = socket.send(frame(4, node, format!("err {node}\n").as_bytes())).await;
        let end = match *name {
            "gone" => {
                json!({"message": "node-failed", "node": node, "status": 255, "reason": "it does not answer."})
            }
            _ => json!({"message": "node-exited", "node": node, "status": status}),
        };
        let _ = socket.send(text(end)).await;
    }
    let _ = socket.send(text(json!({"message": "exited", "status": worst}))).await;
}
