//! The store as a registry that others read: `/v2/` of the API (OCI distribution specification 1.1, "pull").
//!
//! Layers are given as plain tars, whose digests are their diff-ids: the same bytes each time, made from the store
//! while they are sent. A manifest is a function of the image. So everything that was promised by digest comes back, as
//! long as a name of its repository means or has meant the image. Who asks is told by a token ([`super::token`]), whoever
//! the peer of the socket is: `walt registry serve` passes on what comes from a port.
//!
//! Limits: [`STREAMS`] layers at once; nothing is written.

use super::token;
use crate::{
    App,
    db::{HistoryRow, RefRow},
    images::housekeeping::writing,
};
use anyhow::Result;
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{Arc, LazyLock},
};
use tokio::sync::{Semaphore, mpsc};
use walt_images::registry::{LayerBlob, manifest};
use walt_types::{DiffId, Hash256, ImageId, UserName};

/// Layers that are sent at once.
const STREAMS: usize = 8;
/// Pieces of a layer that wait for a slow client, and their size in bytes.
const QUEUE: usize = 8;
const PIECE: usize = 256 << 10;
/// Media type of a layer as a plain tar.
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(STREAMS)));

/// Answers what is below `/v2/`.
pub async fn serve(
    State(app): State<Arc<App>>,
    method: Method,
    headers: HeaderMap,
    path: Option<Path<String>>,
) -> Response {
    if asks(&app, &headers).is_none() {
        let mut answer = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "run 'walt registry login'");
        let challenge = header::HeaderValue::from_static("Basic realm=\"WalT\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return answer;
    }
    let path = path.map(|Path(p)| p).unwrap_or_default();
    if !matches!(method, Method::GET | Method::HEAD) {
        let why = "images are read here, not written: push them to a registry, and use 'walt image clone'";
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why);
    }
    answer(&app, &method, &path).await.unwrap_or_else(|e| {
        tracing::error!("registry, {path}: {e:#}");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the server failed, its log has the details")
    })
}

/// Who asks, if he proves it.
fn asks(app: &App, headers: &HeaderMap) -> Option<UserName> {
    let basic = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(basic.trim()).ok()?).ok()?;
    let (user, given) = text.split_once(':')?;
    let user: UserName = user.parse().ok()?;
    token::is_valid(&app.token_key, &user, given, crate::now() as u64).then_some(user)
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "errors": [{ "code": code, "message": message }] }))).into_response()
}

fn absent(code: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, code, "there is no such thing")
}

async fn answer(app: &Arc<App>, method: &Method, path: &str) -> Result<Response> {
    if path.is_empty() {
        return Ok(Json(json!({})).into_response());
    }
    if path == "_catalog" {
        let refs = app.db.with(RefRow::all)?;
        let names: BTreeSet<String> =
            refs.iter().map(|r| format!("{}/{}", r.reference.user(), r.reference.image().name())).collect();
        return Ok(Json(json!({ "repositories": names })).into_response());
    }
    let parts: Vec<&str> = path.split('/').collect();
    let [user, name, kind, what] = parts[..] else { return Ok(absent("NAME_UNKNOWN")) };
    let names: Vec<RefRow> = app
        .db
        .with(RefRow::all)?
        .into_iter()
        .filter(|r| r.reference.user() == user && r.reference.image().name() == name)
        .collect();
    if names.is_empty() {
        return Ok(absent("NAME_UNKNOWN"));
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
        _ => Ok(absent("NAME_UNKNOWN")),
    }
}

/// The images that names mean or have meant.
fn images(app: &App, names: &[RefRow]) -> Result<BTreeSet<ImageId>> {
    app.db.with(|c| {
        let mut all = BTreeSet::new();
        for row in names {
            all.extend(HistoryRow::of(c, &row.reference)?.into_iter().map(|h| h.image_id));
        }
        Ok(all)
    })
}

fn manifest_bytes(app: &App, image: &ImageId) -> Result<Vec<u8>> {
    let size = app.store.config_bytes(image)?.len() as u64;
    let blob = |diff_id: &DiffId| -> Result<LayerBlob> {
        let size = app.store.layer_info(diff_id)?.size;
        Ok(LayerBlob { diff_id: *diff_id, digest: diff_id.0, size, media_type: TAR.to_owned() })
    };
    let layers: Vec<LayerBlob> =
        app.store.config(image)?.layers()?.iter().map(blob).collect::<Result<_>>()?;
    Ok(manifest::write(image, size, &layers))
}

fn manifest_of(app: &App, method: &Method, names: &[RefRow], what: &str) -> Result<Response> {
    let found = match what.strip_prefix("sha256:").map(str::parse::<Hash256>) {
        Some(Ok(digest)) => {
            let mut found = None;
            for image in images(app, names)? {
                let bytes = crate::db::blocking(|| manifest_bytes(app, &image))?;
                if manifest::digest_of(&bytes) == digest {
                    found = Some(bytes);
                    break;
                }
            }
            found
        }
        Some(Err(_)) => None,
        None => match names.iter().find(|r| r.reference.image().tag() == what) {
            Some(row) => Some(crate::db::blocking(|| manifest_bytes(app, &row.image_id))?),
            None => None,
        },
    };
    let Some(bytes) = found else { return Ok(absent("MANIFEST_UNKNOWN")) };
    let digest = manifest::digest_of(&bytes);
    Ok(sized(method, manifest::OCI_MANIFEST, &digest, bytes.len() as u64, Body::from(bytes)))
}

/// An answer of known size; without its bytes to a HEAD.
fn sized(method: &Method, kind: &'static str, digest: &Hash256, size: u64, body: Body) -> Response {
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
    for image in images(app, names)? {
        if image.0 == digest {
            let bytes = app.store.config_bytes(&image)?;
            return Ok(sized(method, manifest::OCI_CONFIG, &digest, bytes.len() as u64, Body::from(bytes)));
        }
        if app.store.config(&image)?.layers()?.contains(&layer) {
            let mut pinned = app.pins.begin();
            {
                let _writing = writing(app).await;
                if !app.store.has_layer(&layer) {
                    break;
                }
                pinned.layer(layer);
            }
            let size = app.store.layer_info(&layer)?.size;
            let body = if method == Method::HEAD { Body::empty() } else { stream(app, layer, pinned).await };
            return Ok(sized(method, TAR, &digest, size, body));
        }
    }
    Ok(absent("BLOB_UNKNOWN"))
}

/// The tar of a layer, made while it is sent.
async fn stream(app: &Arc<App>, layer: DiffId, pinned: crate::images::pins::Pinned) -> Body {
    // Invariant: nobody closes this semaphore.
    let slot = SLOTS.clone().acquire_owned().await.expect("the semaphore is open");
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let _held = (slot, pinned);
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let done =
            app.store.export_layer(&layer, &mut out).map_err(io::Error::other).and_then(|_| out.flush());
        if let Err(e) = done {
            // The answer breaks off: its receiver has not as many bytes as it was promised.
            let _gone = sender.blocking_send(Err(e));
        }
    });
    Body::from_stream(futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// Writes into a channel; a client that has gone is an error.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
