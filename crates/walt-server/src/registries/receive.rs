//! Images that are pushed to us: `/v2/` of the API (OCI distribution specification 1.1, "push").
//!
//! ```text
//! POST, PATCH, PUT …/blobs/uploads/   bytes into a file of the store's tmp ─▶ a blob that waits for its manifest
//! PUT …/manifests/<tag>               checked: labels, blobs, digests; layers unpacked; blobs kept; the caller's name
//!                                     means the image; nodes that use it reboot
//! ```
//! What was pushed comes back byte for byte, so compressed layers are kept as they came, as long as the image.
//!
//! Limits: of one user, [`MAX_UPLOADS`] uploads and blobs that wait, and [`MAX_WAITING`] bytes of them, each of at most
//! [`MAX_BLOB`](manifest::MAX_BLOB) bytes; what nobody has touched for [`KEEP`] is dropped; [`STALL`] between two pieces.

use super::{get, serve::refuse};
use crate::{
    App,
    db::{By, ManifestRow, blocking},
    events::Events,
    failure::Failure,
    images::{
        actions::reboot_users,
        housekeeping::{After, writing},
        labels,
        land::Target,
    },
};
use anyhow::{Context, Result};
use axum::{
    body::Body,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Limited};
use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use walt_images::{
    ImageConfig, NewBlob,
    registry::{
        LayerBlob,
        manifest::{self, Document},
    },
};
use walt_types::{DiffId, Hash256, ImageId, UserName};

/// Uploads and waiting blobs of one user.
const MAX_UPLOADS: usize = 512;
/// Bytes of these from which on no new upload begins.
const MAX_WAITING: u64 = 64 << 30;
/// How long they are kept without having been touched.
const KEEP: Duration = Duration::from_secs(3600);
/// Longest time between two pieces of an upload.
const STALL: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Waiting<T> {
    blob: T,
    user: UserName,
    touched: Instant,
}

/// What is being pushed. It lives in memory, and its files in the store's `tmp`: a server that ends forgets it.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By id. One that is being written to is taken out meanwhile.
    open: HashMap<String, Waiting<NewBlob>>,
    /// By user and digest.
    whole: HashMap<(UserName, Hash256), Waiting<Arc<NewBlob>>>,
}

impl Uploads {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.retain(|_, w| w.touched.elapsed() < KEEP);
        state.whole.retain(|_, w| w.touched.elapsed() < KEEP);
        state
    }

    /// Whether a user may begin another upload.
    fn has_room(&self, user: &UserName) -> bool {
        let state = self.state();
        let open = state.open.values().filter(|w| w.user == *user).map(|w| w.blob.size());
        let whole = state.whole.values().filter(|w| w.user == *user).map(|w| w.blob.size());
        let (count, bytes) = open.chain(whole).fold((0, 0), |(n, sum), size| (n + 1, sum + size));
        count < MAX_UPLOADS && bytes < MAX_WAITING
    }

    fn whole(&self, user: &UserName, digest: &Hash256) -> Option<Arc<NewBlob>> {
        let mut state = self.state();
        let waiting = state.whole.get_mut(&(user.clone(), *digest))?;
        waiting.touched = Instant::now();
        Some(waiting.blob.clone())
    }

    fn forget(&self, user: &UserName, digest: &Hash256) {
        self.state().whole.remove(&(user.clone(), *digest));
    }

    /// Whether a user's blob waits for its manifest; its size.
    pub fn size(&self, user: &UserName, digest: &Hash256) -> Option<u64> {
        self.whole(user, digest).map(|b| b.size())
    }
}

/// A request that writes to the caller's own repository `name`.
pub struct Push<'a> {
    /// The server.
    pub app: &'a Arc<App>,
    /// Who pushes.
    pub user: UserName,
    /// The image's name, without tag.
    pub name: &'a str,
    /// Query of the request.
    pub query: HashMap<String, String>,
    /// Headers of the request.
    pub headers: HeaderMap,
}

fn digest_in(text: Option<&String>) -> Option<Hash256> {
    text?.strip_prefix("sha256:")?.parse().ok()
}

impl Push<'_> {
    fn location(&self, rest: &str) -> String {
        format!("/v2/{}/{}/{rest}", self.user, self.name)
    }

    /// Anything below `blobs/uploads/`.
    pub async fn upload(&self, method: &Method, id: &str, body: Body) -> Result<Response> {
        if id.is_empty() {
            return if method == Method::POST { self.begin(body).await } else { Ok(unsupported()) };
        }
        let taken = {
            let mut state = self.app.uploads.state();
            match state.open.get(id) {
                Some(waiting) if waiting.user == self.user => state.open.remove(id),
                _ => None,
            }
        };
        let Some(waiting) = taken else {
            let why = "this upload is not known, or is being written to";
            return Ok(refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", why));
        };
        match *method {
            Method::DELETE => Ok(StatusCode::NO_CONTENT.into_response()),
            Method::GET => Ok(self.goes_on(id, waiting.blob, StatusCode::NO_CONTENT)),
            Method::PATCH => {
                let mut blob = waiting.blob;
                let range = self.headers.get(header::CONTENT_RANGE).and_then(|r| r.to_str().ok());
                let start =
                    range.and_then(|r| r.trim_start_matches("bytes ").split('-').next()?.parse::<u64>().ok());
                if range.is_some() && start != Some(blob.size()) {
                    return Ok(self.goes_on(id, blob, StatusCode::RANGE_NOT_SATISFIABLE));
                }
                match append(&mut blob, body).await? {
                    Some(refused) => Ok(refused),
                    None => Ok(self.goes_on(id, blob, StatusCode::ACCEPTED)),
                }
            }
            Method::PUT => self.finish(waiting.blob, body).await,
            _ => Ok(unsupported()),
        }
    }

    /// Keeps an upload, and says how far it is.
    fn goes_on(&self, id: &str, blob: NewBlob, status: StatusCode) -> Response {
        let headers = [
            (header::LOCATION, self.location(&format!("blobs/uploads/{id}"))),
            (header::RANGE, format!("0-{}", blob.size().saturating_sub(1))),
            (header::HeaderName::from_static("docker-upload-uuid"), id.to_owned()),
        ];
        let waiting = Waiting { blob, user: self.user.clone(), touched: Instant::now() };
        self.app.uploads.state().open.insert(id.to_owned(), waiting);
        (status, headers).into_response()
    }

    async fn begin(&self, body: Body) -> Result<Response> {
        if let Some(digest) = digest_in(self.query.get("mount"))
            && self.has(&digest)
        {
            return Ok(self.created(&format!("blobs/sha256:{digest}"), &digest));
        }
        if !self.app.uploads.has_room(&self.user) {
            let why = "too many uploads that wait for a manifest";
            return Ok(refuse(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", why));
        }
        let blob = self.app.store.new_blob()?;
        if self.query.contains_key("digest") {
            return self.finish(blob, body).await;
        }
        Ok(self.goes_on(&crate::random_uuid(), blob, StatusCode::ACCEPTED))
    }

    /// Whether a blob of that digest need not be sent.
    fn has(&self, digest: &Hash256) -> bool {
        let (app, layer) = (self.app, walt_types::DiffId(*digest));
        app.uploads.whole(&self.user, digest).is_some()
            || app.store.has_blob(digest)
            || app.store.has_layer(&layer)
    }

    async fn finish(&self, mut blob: NewBlob, body: Body) -> Result<Response> {
        if let Some(refused) = append(&mut blob, body).await? {
            return Ok(refused);
        }
        let digest = blob.digest();
        if digest_in(self.query.get("digest")) != Some(digest) {
            let why = format!("the bytes have the digest sha256:{digest}");
            return Ok(refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", &why));
        }
        let waiting = Waiting { blob: Arc::new(blob), user: self.user.clone(), touched: Instant::now() };
        self.app.uploads.state().whole.insert((self.user.clone(), digest), waiting);
        Ok(self.created(&format!("blobs/sha256:{digest}"), &digest))
    }

    fn created(&self, rest: &str, digest: &Hash256) -> Response {
        let headers = [
            (header::LOCATION, self.location(rest)),
            (header::HeaderName::from_static("docker-content-digest"), format!("sha256:{digest}")),
        ];
        (StatusCode::CREATED, headers).into_response()
    }

    /// `PUT …/manifests/<tag>`.
    pub async fn manifest(&self, tag: &str, body: Body) -> Result<Response> {
        let bytes = match timeout(STALL, Limited::new(body, manifest::MAX_DOCUMENT as usize).collect()).await
        {
            Ok(Ok(bytes)) => bytes.to_bytes().to_vec(),
            _ => return Ok(invalid("the manifest is too large, or did not come")),
        };
        let image = match manifest::parse(&bytes) {
            Ok(Document::Image(image)) => image,
            Ok(Document::Index(_)) => {
                return Ok(invalid("an index is not taken: push the image for one CPU"));
            }
            Err(why) => return Ok(invalid(&why)),
        };
        let missing = |digest: &Hash256| {
            refuse(
                StatusCode::BAD_REQUEST,
                "MANIFEST_BLOB_UNKNOWN",
                &format!("the blob sha256:{digest} is not here"),
            )
        };
        let config_bytes = match self.app.uploads.whole(&self.user, &image.config.digest) {
            Some(blob) => {
                let mut bytes = Vec::new();
                blob.open()?
                    .take(manifest::MAX_DOCUMENT)
                    .read_to_end(&mut bytes)
                    .context("cannot read a blob")?;
                bytes
            }
            None => match self.app.store.config_bytes(&ImageId(image.config.digest)) {
                Ok(bytes) => bytes,
                Err(_) => return Ok(missing(&image.config.digest)),
            },
        };
        let config: ImageConfig = match serde_json::from_slice(&config_bytes) {
            Ok(config) => config,
            Err(e) => return Ok(invalid(&format!("the image's configuration is not valid: {e}"))),
        };
        let layers = match config
            .layers()
            .map_err(|e| e.to_string())
            .and_then(|d| manifest::pair(&image.layers, &d))
        {
            Ok(layers) => layers,
            Err(why) => return Ok(invalid(&why)),
        };
        if let Err(why) = labels::check(&config) {
            return failed(why);
        }
        let planned = {
            let _decision = self.app.decisions.lock().await;
            Target::plan(self.app, &self.user, &format!("{}:{tag}", self.name))
        };
        let target = match planned {
            Ok(target) => target,
            Err(why) => return failed(why),
        };
        let _tidy = After(self.app);
        let mut pinned = self.app.pins.begin();
        let mut kept = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            if let Some(blob) = self.app.uploads.whole(&self.user, &layer.digest) {
                if let Err(why) = self.unpack(&layers, number, &blob, &mut pinned).await? {
                    return Ok(invalid(&why));
                }
                kept.push(blob);
                continue;
            }
            let _writing = writing(self.app).await;
            let plain = layer.digest == layer.diff_id.0;
            if !self.app.store.has_layer(&layer.diff_id) || !(plain || self.app.store.has_blob(&layer.digest))
            {
                return Ok(missing(&layer.digest));
            }
            pinned.layer(layer.diff_id);
        }
        let media_type = self.headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok());
        let row = ManifestRow {
            digest: manifest::digest_of(&bytes),
            media_type: media_type.unwrap_or(manifest::OCI_MANIFEST).to_owned(),
            bytes,
            image_id: ImageId(image.config.digest),
        };
        {
            let _writing = writing(self.app).await;
            let image_id = blocking(|| self.app.store.put_config_bytes(&config_bytes))?;
            pinned.image(image_id);
            let mut blobs = Vec::new();
            for layer in layers.iter().filter(|l| l.digest != l.diff_id.0) {
                match kept.iter().find(|b| b.digest() == layer.digest) {
                    Some(blob) => {
                        blocking(|| self.app.store.keep_blob(blob))?;
                        // Its file is the store's now.
                        self.app.uploads.forget(&self.user, &layer.digest);
                    }
                    // It may have gone with its image since.
                    None if !self.app.store.has_blob(&layer.digest) => return Ok(missing(&layer.digest)),
                    None => {}
                }
                blobs.push(layer.digest);
            }
            self.app.db.transaction(|tx| row.put(tx, &blobs))?;
            self.app.uploads.forget(&self.user, &image.config.digest);
        }
        let created = get::created(&config).unwrap_or_else(|| crate::now() as i64);
        let by = By::new(&self.user, format!("push {}/{}:{tag}", self.user, self.name));
        let users = match target.land(self.app, row.image_id, created, &by).await {
            Ok(users) => users,
            Err(why) => return failed(why),
        };
        if !users.is_empty() {
            let app = self.app.clone();
            // Who pushes has no terminal for what it says; failures are in the log.
            tokio::spawn(async move {
                let (events, _nobody) = Events::channel();
                drop(_nobody);
                if !matches!(reboot_users(&app, &users, &events).await, Ok(true)) {
                    tracing::warn!("not all nodes that use an image that was pushed did reboot");
                }
            });
        }
        Ok(self.created(&format!("manifests/sha256:{}", row.digest), &row.digest))
    }

    /// Unpacks a blob as a layer, and sees that it is that; what is wrong with it otherwise.
    async fn unpack(
        &self,
        layers: &[LayerBlob],
        number: usize,
        blob: &NewBlob,
        pinned: &mut crate::images::pins::Pinned,
    ) -> Result<Result<(), String>> {
        let (file, app) = (blob.open()?, self.app.clone());
        let order: Vec<DiffId> = layers[..=number].iter().map(|l| l.diff_id).collect();
        let diff_id = layers[number].diff_id;
        let work = tokio::task::spawn_blocking(move || app.store.unpack_layer(file, &diff_id));
        let unpacked = match work.await? {
            Ok(unpacked) => unpacked,
            Err(e @ walt_images::Error::Io { .. }) => return Err(e.into()),
            Err(e) => return Ok(Err(e.to_string())),
        };
        let _writing = writing(self.app).await;
        blocking(|| self.app.store.keep_layers(vec![unpacked], &order))?;
        pinned.layer(diff_id);
        Ok(Ok(()))
    }
}

fn unsupported() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this cannot be done here")
}

fn invalid(why: &str) -> Response {
    refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why)
}

/// A refusal of ours in the registry's words.
fn failed(failure: Failure) -> Result<Response> {
    match failure {
        Failure::Api(error) => Ok(invalid(&error.message)),
        Failure::Internal(error) => Err(error),
    }
}

/// Adds a body to a blob; an answer if it cannot be.
async fn append(blob: &mut NewBlob, mut body: Body) -> Result<Option<Response>> {
    loop {
        let frame = match timeout(STALL, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) | Err(_) => {
                let why = "the upload broke off, or nothing came for too long";
                return Ok(Some(refuse(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", why)));
            }
        };
        if let Ok(bytes) = frame.into_data() {
            if blob.size() + bytes.len() as u64 > manifest::MAX_BLOB {
                let why = format!("a blob has at most {} bytes", manifest::MAX_BLOB);
                return Ok(Some(refuse(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", &why)));
            }
            blocking(|| blob.write(&bytes))?;
        }
    }
}
