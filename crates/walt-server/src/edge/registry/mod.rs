//! The store as a registry: `/v2/` of the API (OCI distribution specification 1.1). This file has "pull", [`push`]
//! has "push".
//!
//! Pushed images and indexes are served byte for byte. Other images have a manifest that is a function of the image,
//! and layers as plain tars, generated while they are sent, whose digests are their diff-ids. So every published
//! digest can be pulled as long as a reference of its repository points or has pointed to the image. A token
//! ([`crate::services::registries::token`]) identifies the user, not the peer of the socket: `walt registry serve`
//! forwards connections from a TCP port.
//!
//! Limits: [`STREAMS`] layers at once.

mod push;

use crate::{
    actions::app::App,
    base::{
        db::{Document, IndexRow, ManifestRow, RefRow},
        time,
    },
    services::registries::{
        manifests::{TAR, by_tag, images_of, indexes, manifest_in, repository},
        token,
    },
};
use anyhow::Result;
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use push::Push;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Write},
    sync::{Arc, LazyLock},
};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, mpsc},
};
use walt_registry::manifest;
use walt_types::{DiffId, Hash256, ImageName, UserName};

/// Layers that are sent at once.
const STREAMS: usize = 8;
/// Chunks of a layer that may wait for a slow client, and their size in bytes.
const QUEUE: usize = 8;
const PIECE: usize = 256 << 10;

static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(STREAMS)));

/// Answers requests below `/v2/`.
pub async fn serve(
    State(app): State<Arc<App>>,
    path: Option<Path<String>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(user) = authenticate(&app, &parts.headers) else {
        let mut answer = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "run 'walt registry login'");
        let challenge = header::HeaderValue::from_static("Basic realm=\"WalT\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return answer;
    };
    let path = path.map(|Path(p)| p).unwrap_or_default();
    let method = parts.method;
    let writes = !matches!(method, Method::GET | Method::HEAD) || path.contains("/blobs/uploads/");
    let answered = if writes {
        push(&app, user, &method, &path, query, parts.headers, body).await
    } else {
        answer(&app, &user, &method, &path).await
    };
    answered.unwrap_or_else(|e| {
        tracing::error!("registry, {path}: {e:#}");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the server failed; its log has the details")
    })
}

/// The user, if the token is valid.
fn authenticate(app: &App, headers: &HeaderMap) -> Option<UserName> {
    let basic = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(basic.trim()).ok()?).ok()?;
    let (user, given) = text.split_once(':')?;
    let user: UserName = user.parse().ok()?;
    token::is_valid(app.base().token_key(), &user, given, time::now() as u64).then_some(user)
}

/// A request that writes, which is limited to the caller's own repositories.
async fn push(
    app: &Arc<App>,
    user: UserName,
    method: &Method,
    path: &str,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let parts: Vec<&str> = path.split('/').collect();
    let [owner, name, rest @ ..] = &parts[..] else { return Ok(not_found("NAME_UNKNOWN")) };
    if *owner != user.as_str() {
        let why = format!("you are '{user}': push to {user}/<name>");
        return Ok(refuse(StatusCode::FORBIDDEN, "DENIED", &why));
    }
    if let Err(why) = name.parse::<ImageName>() {
        return Ok(refuse(StatusCode::BAD_REQUEST, "NAME_INVALID", &why.to_string()));
    }
    let push = Push { app, user, name, query, headers };
    match rest {
        ["blobs", "uploads", ""] | ["blobs", "uploads"] => push.upload(method, "", body).await,
        ["blobs", "uploads", id] => push.upload(method, id, body).await,
        ["manifests", tag] if method == Method::PUT => push.manifest(tag, body).await,
        _ => {
            let why = "not supported; use 'walt image remove' to remove an image";
            Ok(refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why))
        }
    }
}

pub(super) fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "errors": [{ "code": code, "message": message }] }))).into_response()
}

fn not_found(code: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, code, "not found")
}

async fn answer(app: &Arc<App>, caller: &UserName, method: &Method, path: &str) -> Result<Response> {
    if path.is_empty() {
        return Ok(Json(json!({})).into_response());
    }
    if path == "_catalog" {
        let refs = app.db().with(RefRow::all)?;
        let names: BTreeSet<String> =
            refs.iter().map(|r| format!("{}/{}", r.reference.user(), r.reference.image().name())).collect();
        return Ok(Json(json!({ "repositories": names })).into_response());
    }
    let parts: Vec<&str> = path.split('/').collect();
    let [user, name, kind, what] = parts[..] else { return Ok(not_found("NAME_UNKNOWN")) };
    // In the caller's own repositories, incomplete pushes can be read too; the repository may be new.
    if user == caller.as_str()
        && let Some(Ok(digest)) = what.strip_prefix("sha256:").map(str::parse)
        && let Some(answer) = pending(app, method, caller, (name, kind), &digest)?
    {
        return Ok(answer);
    }
    let names = repository(app.images(), user, name)?;
    if names.is_empty() {
        return Ok(not_found("NAME_UNKNOWN"));
    }
    match (kind, what) {
        ("tags", "list") => {
            let tags: Vec<&str> = names.iter().map(|r| r.reference.image().tag()).collect();
            Ok(Json(json!({ "name": format!("{user}/{name}"), "tags": tags })).into_response())
        }
        ("manifests", what) => manifest_of(app, method, &names, what),
        ("blobs", digest) => match digest.strip_prefix("sha256:").map(str::parse) {
            Some(Ok(digest)) => blob(app, method, &names, digest).await,
            _ => Ok(refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "a digest is sha256:<64 digits>")),
        },
        _ => Ok(not_found("NAME_UNKNOWN")),
    }
}

/// A blob or manifest of the user that waits for a manifest or an index.
fn pending(
    app: &App,
    method: &Method,
    user: &UserName,
    (name, kind): (&str, &str),
    digest: &Hash256,
) -> Result<Option<Response>> {
    match kind {
        "blobs" => {
            let Some(blob) = app.registries().uploads().complete(user, digest) else { return Ok(None) };
            let body = if method == Method::HEAD { Body::empty() } else { file_body(blob.open()?) };
            Ok(Some(sized(method, "application/octet-stream", digest, blob.size(), body)))
        }
        "manifests" => Ok(app
            .registries()
            .uploads()
            .child(user, name, digest)
            .map(|child| document(method, child.document.clone()))),
        _ => Ok(None),
    }
}

fn manifest_of(app: &App, method: &Method, names: &[RefRow], what: &str) -> Result<Response> {
    let found = match what.strip_prefix("sha256:").map(str::parse::<Hash256>) {
        Some(Ok(digest)) => {
            let indexes = indexes(app.images(), names)?;
            match indexes.contains(&digest) {
                true => app.db().with(|c| IndexRow::get(c, &digest))?,
                false => manifest_in(app.images(), names, &indexes, &digest)?.map(|stored| stored.document),
            }
        }
        Some(Err(_)) => None,
        None => {
            let row = names.iter().find(|r| r.reference.image().tag() == what);
            row.map(|row| by_tag(app.images(), row)).transpose()?
        }
    };
    Ok(found.map_or_else(|| not_found("MANIFEST_UNKNOWN"), |found| document(method, found)))
}

/// The answer with a document.
fn document(method: &Method, document: Document) -> Response {
    let size = document.bytes.len() as u64;
    sized(method, &document.media_type, &document.digest, size, Body::from(document.bytes))
}

/// An answer of known size; without the body for HEAD.
fn sized(method: &Method, kind: &str, digest: &Hash256, size: u64, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::HeaderName::from_static("docker-content-digest"), format!("sha256:{digest}")),
    ];
    let body = if method == Method::HEAD { Body::empty() } else { body };
    (headers, body).into_response()
}

async fn blob(app: &Arc<App>, method: &Method, names: &[RefRow], digest: Hash256) -> Result<Response> {
    let layer = DiffId(digest);
    let indexes = indexes(app.images(), names)?;
    for index in &indexes {
        if app.db().with(|c| IndexRow::has_blob(c, index, &digest))? {
            return kept_blob(app, method, &digest);
        }
    }
    for image in images_of(app.images(), names, &indexes)? {
        if image.0 == digest {
            let bytes = app.store().config_bytes(&image)?;
            return Ok(sized(method, manifest::OCI_CONFIG, &digest, bytes.len() as u64, Body::from(bytes)));
        }
        if app.db().with(|c| ManifestRow::has_blob(c, &image, &digest))? {
            return kept_blob(app, method, &digest);
        }
        if app.store().config(&image)?.layers()?.contains(&layer) {
            let mut pinned = app.images().pins().begin();
            {
                let _writing = app.images().writing().await;
                if !app.store().has_layer(&layer) {
                    break;
                }
                pinned.layer(layer);
            }
            let size = app.store().layer_info(&layer)?.size;
            let body = if method == Method::HEAD { Body::empty() } else { stream(app, layer, pinned).await };
            return Ok(sized(method, TAR, &digest, size, body));
        }
    }
    Ok(not_found("BLOB_UNKNOWN"))
}

/// A blob of the store. The open file stays readable even if the blob is removed.
fn kept_blob(app: &App, method: &Method, digest: &Hash256) -> Result<Response> {
    let (file, size) = app.store().open_blob(digest)?;
    let body = if method == Method::HEAD { Body::empty() } else { file_body(file) };
    Ok(sized(method, "application/octet-stream", digest, size, body))
}

/// The tar of a layer, generated while it is sent.
async fn stream(app: &Arc<App>, layer: DiffId, pinned: crate::services::images::pins::Pinned) -> Body {
    // Invariant: nobody closes this semaphore.
    let slot = SLOTS.clone().acquire_owned().await.expect("the semaphore is open");
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let _held = (slot, pinned);
        let mut out = io::BufWriter::with_capacity(PIECE, ChannelWriter(sender.clone()));
        let done =
            app.store().export_layer(&layer, &mut out).map_err(io::Error::other).and_then(|_| out.flush());
        if let Err(e) = done {
            // The answer is cut, and shorter than its announced length.
            let _gone = sender.blocking_send(Err(e));
        }
    });
    Body::from_stream(futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// The content of a file as a body.
fn file_body(file: std::fs::File) -> Body {
    let file = tokio::fs::File::from_std(file);
    Body::from_stream(futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let n = file.read(&mut piece).await?;
        piece.truncate(n);
        Ok::<_, io::Error>((n > 0).then(|| (Bytes::from(piece), file)))
    }))
}

/// Writes into a channel; fails once the client has disconnected.
struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
