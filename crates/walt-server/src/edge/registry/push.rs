//! Pushes to this server's registry: `/v2/` of the API (OCI distribution specification 1.1, "push").
//!
//! ```text
//! POST, PATCH, PUT …/blobs/uploads/   bytes into a file of the store's tmp ─▶ a blob that waits for its manifest
//! PUT …/manifests/<digest>            checked: labels, blobs, digests; layers unpacked ─▶ waits for its index
//! PUT …/manifests/<tag>               the same, or an index of stored manifests; blobs kept; the reference points to the
//!                                     image; nodes that use it reboot
//! ```
//! Pushed content is served byte for byte, so compressed layers are kept as they are, as long as the image.
//! Incomplete pushes are in [`crate::services::registries::uploads`], manifests are in [`manifest`], indexes in
//! [`index`].

mod index;
mod manifest;

use crate::{
    actions::app::App,
    base::{db::blocking, failure::Failure, random::random_uuid},
    edge::registry::refuse,
    services::images,
};
use anyhow::Result;
use axum::{
    body::Body,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::timeout;
use walt_images::NewBlob;
use walt_registry::manifest::MAX_BLOB;
use walt_types::{Hash256, UserName};

/// Longest pause within an upload.
const STALL: Duration = Duration::from_secs(60);

/// A request that writes to the caller's own repository `name`.
pub struct Push<'a> {
    /// The server.
    pub app: &'a Arc<App>,
    /// The user.
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

    /// Requests below `blobs/uploads/`.
    pub async fn upload(&self, method: &Method, id: &str, body: Body) -> Result<Response> {
        if id.is_empty() {
            return if method == Method::POST { self.begin(body).await } else { Ok(unsupported()) };
        }
        let Some(mut blob) = self.app.registries().uploads().take(&self.user, id) else {
            let why = "this upload is unknown, or another request is writing to it";
            return Ok(refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", why));
        };
        match *method {
            Method::DELETE => Ok(StatusCode::NO_CONTENT.into_response()),
            Method::GET => Ok(self.upload_status(id, blob, StatusCode::NO_CONTENT)),
            Method::PATCH => {
                let range = self.headers.get(header::CONTENT_RANGE).and_then(|r| r.to_str().ok());
                let start =
                    range.and_then(|r| r.trim_start_matches("bytes ").split('-').next()?.parse::<u64>().ok());
                if range.is_some() && start != Some(blob.size()) {
                    return Ok(self.upload_status(id, blob, StatusCode::RANGE_NOT_SATISFIABLE));
                }
                match append(&mut blob, body).await? {
                    Some(refused) => Ok(refused),
                    None => Ok(self.upload_status(id, blob, StatusCode::ACCEPTED)),
                }
            }
            Method::PUT => self.finish(blob, body).await,
            _ => Ok(unsupported()),
        }
    }

    /// Keeps an unfinished upload; the answer has its progress.
    fn upload_status(&self, id: &str, blob: NewBlob, status: StatusCode) -> Response {
        let headers = [
            (header::LOCATION, self.location(&format!("blobs/uploads/{id}"))),
            (header::RANGE, format!("0-{}", blob.size().saturating_sub(1))),
            (header::HeaderName::from_static("docker-upload-uuid"), id.to_owned()),
        ];
        self.app.registries().uploads().put_back(&self.user, id, blob);
        (status, headers).into_response()
    }

    async fn begin(&self, body: Body) -> Result<Response> {
        if let Some(digest) = digest_in(self.query.get("mount"))
            && self.has(&digest)
        {
            return Ok(self.created(&format!("blobs/sha256:{digest}"), &digest));
        }
        if !self.app.registries().uploads().has_room(&self.user) {
            let why = "too many uploads are waiting for a manifest";
            return Ok(refuse(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", why));
        }
        let blob = self.app.store().new_blob()?;
        if self.query.contains_key("digest") {
            return self.finish(blob, body).await;
        }
        Ok(self.upload_status(&random_uuid(), blob, StatusCode::ACCEPTED))
    }

    /// Whether a blob with this digest exists, so that it need not be sent.
    fn has(&self, digest: &Hash256) -> bool {
        let (app, layer) = (self.app, walt_types::DiffId(*digest));
        app.registries().uploads().complete(&self.user, digest).is_some()
            || app.store().has_blob(digest)
            || app.store().has_layer(&layer)
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
        self.app.registries().uploads().add(&self.user, blob);
        Ok(self.created(&format!("blobs/sha256:{digest}"), &digest))
    }

    fn created(&self, rest: &str, digest: &Hash256) -> Response {
        let headers = [
            (header::LOCATION, self.location(rest)),
            (header::HeaderName::from_static("docker-content-digest"), format!("sha256:{digest}")),
        ];
        (StatusCode::CREATED, headers).into_response()
    }
}

fn unsupported() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "not supported")
}

/// Why a manifest is not accepted.
enum PushError {
    /// For the client: status, code of the specification, message.
    Refused(StatusCode, &'static str, String),
    /// A failure of the server.
    Failed(anyhow::Error),
}

/// Result of operations on manifests.
type PushResult<T> = std::result::Result<T, PushError>;

impl PushError {
    fn invalid(why: impl Into<String>) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why.into())
    }

    /// It refers to a missing blob or manifest.
    fn unknown(why: String) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", why)
    }

    fn missing(blob: &Hash256) -> Self {
        Self::unknown(format!("the blob sha256:{blob} is missing"))
    }

    fn too_many(why: &str) -> Self {
        Self::Refused(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", why.into())
    }
}

/// Failures of the server. Not of everything that is an error: that of a service may be a refusal.
macro_rules! failed {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for PushError {
            fn from(error: $error) -> Self {
                Self::Failed(error.into())
            }
        })*
    };
}

failed!(anyhow::Error, std::io::Error, tokio::task::JoinError, walt_images::Error);

impl From<images::error::Error> for PushError {
    fn from(error: images::error::Error) -> Self {
        Failure::from(error).into()
    }
}

/// A refusal as an error of the registry.
impl From<Failure> for PushError {
    fn from(failure: Failure) -> Self {
        match failure {
            failure @ (Failure::Refusal(_) | Failure::Question { .. }) => Self::invalid(failure.to_string()),
            Failure::Internal(error) => Self::Failed(error),
        }
    }
}

/// Appends a body to a blob; the answer if that fails.
async fn append(blob: &mut NewBlob, mut body: Body) -> Result<Option<Response>> {
    loop {
        let frame = match timeout(STALL, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) | Err(_) => {
                let why = "the upload was interrupted, or sent nothing for too long";
                return Ok(Some(refuse(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", why)));
            }
        };
        if let Ok(bytes) = frame.into_data() {
            if blob.size() + bytes.len() as u64 > MAX_BLOB {
                let why = format!("a blob has at most {} bytes", MAX_BLOB);
                return Ok(Some(refuse(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", &why)));
            }
            blocking(|| blob.write(&bytes))?;
        }
    }
}
