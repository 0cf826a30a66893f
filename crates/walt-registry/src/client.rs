//! One registry, as one user.

use super::{
    Credentials, Endpoint, Error, Limits, Result,
    auth::{Challenge, parse_token, token_query},
    http::{self, Body, Http, RequestHead},
    manifest::{Descriptor, MAX_DOCUMENT, digest_of},
};
use hyper::{
    Method, Response, StatusCode,
    body::Incoming,
    header::{
        ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK, RANGE,
        WWW_AUTHENTICATE,
    },
};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::atomic::AtomicU64};
use walt_types::Hash256;

/// Most pages of a list that are requested.
pub const MAX_PAGES: usize = 100;
/// Entries per page that are requested.
const PAGE: usize = 500;
/// Largest page of a list, and largest answer of a token service, in bytes.
const MAX_LIST: u64 = 4 << 20;

/// Known answers to the registry's challenges.
#[derive(Default)]
struct Session {
    basic: bool,
    /// Tokens by what they are for.
    tokens: BTreeMap<String, String>,
}

/// Repeats a request once if the registry had a temporary failure. An unreachable registry is not tried again.
macro_rules! patiently {
    ($registry:expr, $work:expr) => {
        match $work.await {
            Err(e @ Error::Refused { .. }) if e.is_transient() => {
                tokio::time::sleep($registry.http.limits.pause).await;
                $work.await
            }
            other => other,
        }
    };
}

/// A registry.
pub struct Registry {
    http: Http,
    credentials: Option<Credentials>,
    session: Mutex<Session>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("endpoint", &self.http.endpoint).finish_non_exhaustive()
    }
}

fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

impl Registry {
    /// A client for a registry. It does not connect yet.
    ///
    /// # Errors
    /// TLS cannot be used on this machine.
    pub fn new(endpoint: Endpoint, credentials: Option<Credentials>, limits: Limits) -> Result<Self> {
        Ok(Self { http: Http::new(endpoint, limits)?, credentials, session: Mutex::default() })
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.http.endpoint
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    fn given(&self) -> bool {
        self.credentials.is_some()
    }

    /// Sends a request with the known credentials or token. A challenge is answered once.
    pub(super) async fn send(
        &self,
        mut request: RequestHead,
        scopes: &[String],
        body: &[u8],
    ) -> Result<Response<Incoming>> {
        for first in [true, false] {
            self.authorize(&mut request, scopes)?;
            let answer = if body.is_empty() && matches!(request.method, Method::GET | Method::HEAD) {
                self.http.get(request.clone()).await?
            } else {
                self.http.send(&request, http::full(body.to_vec()), None).await?
            };
            if answer.status() != StatusCode::UNAUTHORIZED || !first {
                return Ok(answer);
            }
            let values = answer.headers().get_all(WWW_AUTHENTICATE);
            let challenge = Challenge::parse(values.iter().filter_map(|v| v.to_str().ok()));
            if !self.answer_challenge(challenge, scopes).await? {
                return Ok(answer);
            }
        }
        Err(self.http.invalid("it keeps asking for authentication"))
    }

    /// Adds the `Authorization` header to a request.
    pub(super) fn authorize(&self, request: &mut RequestHead, scopes: &[String]) -> Result<()> {
        // An upload may have been redirected to a host whose URL contains the authorization.
        if !self.http.same_origin(&request.url, &self.http.endpoint.url("/")) {
            return Ok(());
        }
        let session = self.session.lock();
        let value = match (session.tokens.get(&scopes.join(" ")), &self.credentials) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, Some(credentials)) if session.basic => credentials.basic(),
            _ => return Ok(()),
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Error::Credentials { registry: self.http.endpoint.to_string(), given: true })?;
        value.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// Answers a challenge; false if it cannot be answered, or the same answer was rejected before.
    async fn answer_challenge(&self, challenge: Option<Challenge>, scopes: &[String]) -> Result<bool> {
        match challenge {
            Some(Challenge::Basic) => {
                let mut session = self.session.lock();
                Ok(self.credentials.is_some() && !std::mem::replace(&mut session.basic, true))
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let wanted = match (scopes, scope) {
                    ([], Some(scope)) => vec![scope],
                    _ => scopes.to_vec(),
                };
                let token = self.token(&realm, service.as_deref(), &wanted).await?;
                let mut session = self.session.lock();
                session.tokens.insert(scopes.join(" "), token);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn token(&self, realm: &str, service: Option<&str>, scopes: &[String]) -> Result<String> {
        // A password is only sent to a place that is at least as safe as the registry.
        let safe = realm.starts_with("https://") || !self.http.endpoint.url("/").starts_with("https://");
        if !safe {
            return Err(self.http.invalid("its token service does not use https"));
        }
        let user = self.credentials.as_ref().map(|c| c.username.as_str());
        let query = token_query(service, scopes, user);
        let sign = if realm.contains('?') { '&' } else { '?' };
        let mut request = RequestHead::new(Method::GET, format!("{realm}{sign}{query}"));
        if let Some(credentials) = &self.credentials {
            let value = HeaderValue::from_str(&credentials.basic());
            request.headers.insert(AUTHORIZATION, value.map_err(|_| self.http.invalid("credentials"))?);
        }
        let answer = self.http.get(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.http.refusal(answer, "a request for a token", self.given()).await);
        }
        let bytes = self.http.document(answer, MAX_LIST).await?;
        parse_token(&bytes).map_err(|why| self.http.invalid(why))
    }

    /// Checks that it is a registry and accepts the user.
    ///
    /// # Errors
    /// [`Error::Credentials`] among others.
    pub async fn ping(&self) -> Result<()> {
        let answer =
            self.send(RequestHead::new(Method::GET, self.http.endpoint.url("/v2/")), &[], b"").await?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => Err(self.http.invalid("it is not a registry (no /v2/)")),
            _ => Err(self.http.refusal(answer, "a request for /v2/", self.given()).await),
        }
    }

    /// The bytes of a manifest or index, by tag or digest, and their digest.
    ///
    /// # Errors
    /// [`Error::NotFound`] among others; bytes with another digest than requested are invalid.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<(Vec<u8>, Hash256)> {
        let bytes = patiently!(self, self.manifest_once(repository, reference))?;
        let digest = digest_of(&bytes);
        if let Some(wanted) = reference.strip_prefix("sha256:")
            && wanted != digest.to_string()
        {
            return Err(self
                .http
                .invalid(format!("the manifest {reference} has the digest sha256:{digest}")));
        }
        Ok((bytes, digest))
    }

    async fn manifest_once(&self, repository: &str, reference: &str) -> Result<Vec<u8>> {
        let url = self.http.endpoint.url(&format!("/v2/{repository}/manifests/{reference}"));
        let mut request = RequestHead::new(Method::GET, url);
        request.headers.insert(ACCEPT_HEADER, HeaderValue::from_static(ACCEPT_ALL));
        let answer = self.send(request, &[pull_scope(repository)], b"").await?;
        match answer.status() {
            StatusCode::OK => self.http.document(answer, MAX_DOCUMENT).await,
            _ => Err(self.http.refusal(answer, &format!("{repository}:{reference}"), self.given()).await),
        }
    }

    /// A small blob: a configuration.
    ///
    /// # Errors
    /// Bytes that do not match the descriptor are invalid.
    pub async fn document(&self, repository: &str, blob: &Descriptor) -> Result<Vec<u8>> {
        let bytes = patiently!(self, self.document_once(repository, blob))?;
        if bytes.len() as u64 != blob.size || digest_of(&bytes) != blob.digest {
            return Err(self
                .http
                .invalid(format!("the blob sha256:{} has the wrong size or digest", blob.digest)));
        }
        Ok(bytes)
    }

    async fn document_once(&self, repository: &str, blob: &Descriptor) -> Result<Vec<u8>> {
        let answer = self.blob_from(repository, &blob.digest, 0).await?;
        self.http.document(answer, blob.size).await
    }

    /// Requests the bytes of a blob from `offset` on: the answer has these (206), or all of them (200).
    pub(super) async fn blob_from(
        &self,
        repository: &str,
        digest: &Hash256,
        offset: u64,
    ) -> Result<Response<Incoming>> {
        let url = self.http.endpoint.url(&format!("/v2/{repository}/blobs/sha256:{digest}"));
        let mut request = RequestHead::new(Method::GET, url);
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            // Invariant: digits and ASCII signs.
            request.headers.insert(RANGE, range.expect("a range is a header value"));
        }
        let answer = self.send(request, &[pull_scope(repository)], b"").await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            _ => Err(self.http.refusal(answer, &format!("blob sha256:{digest}"), self.given()).await),
        }
    }

    /// Whether a repository already has a blob.
    ///
    /// # Errors
    /// The registry refuses, or fails.
    pub async fn has_blob(&self, repository: &str, digest: &Hash256) -> Result<bool> {
        let url = self.http.endpoint.url(&format!("/v2/{repository}/blobs/sha256:{digest}"));
        let answer = self.send(RequestHead::new(Method::HEAD, url), &[push_scope(repository)], b"").await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.http.refusal(answer, &format!("blob sha256:{digest}"), self.given()).await),
        }
    }

    /// Starts an upload and returns its URL. With `mount`, the registry is asked to mount a blob of another
    /// repository instead: `None` if it did.
    pub(super) async fn begin_upload(
        &self,
        repository: &str,
        mount: Option<(&Hash256, &str)>,
    ) -> Result<Option<String>> {
        let mut path = format!("/v2/{repository}/blobs/uploads/");
        let mut scopes = vec![push_scope(repository)];
        if let Some((digest, from)) = mount {
            let digest = Http::parameter("mount", &format!("sha256:{digest}"));
            path += &format!("?{digest}&{}", Http::parameter("from", from));
            scopes.push(pull_scope(from));
        }
        let mut request = RequestHead::new(Method::POST, self.http.endpoint.url(&path));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let answer = self.send(request.clone(), &scopes, b"").await?;
        match answer.status() {
            StatusCode::CREATED if mount.is_some() => Ok(None),
            StatusCode::ACCEPTED => Ok(Some(self.http.location(&request.url, answer.headers())?)),
            _ => Err(self.http.refusal(answer, "an upload", self.given()).await),
        }
    }

    /// Finishes an upload with all bytes of the blob.
    pub(super) async fn finish_upload(
        &self,
        repository: &str,
        url: &str,
        digest: &Hash256,
        size: u64,
        body: Body,
        sent: &AtomicU64,
    ) -> Result<()> {
        let sign = if url.contains('?') { '&' } else { '?' };
        let digest_parameter = Http::parameter("digest", &format!("sha256:{digest}"));
        let mut request = RequestHead::new(Method::PUT, format!("{url}{sign}{digest_parameter}"));
        self.authorize(&mut request, &[push_scope(repository)])?;
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let answer = self.http.send(&request, body, Some(sent)).await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => Ok(()),
            _ => {
                Err(self.http.refusal(answer, &format!("the upload of sha256:{digest}"), self.given()).await)
            }
        }
    }

    /// Uploads a manifest under a tag.
    ///
    /// # Errors
    /// The registry refuses, or fails.
    pub async fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Hash256> {
        let url = self.http.endpoint.url(&format!("/v2/{repository}/manifests/{tag}"));
        let mut request = RequestHead::new(Method::PUT, url);
        let kind = HeaderValue::from_str(media_type).map_err(|_| self.http.invalid("media type"))?;
        request.headers.insert(CONTENT_TYPE, kind);
        let answer = self.send(request, &[push_scope(repository)], bytes).await?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(digest_of(bytes)),
            _ => Err(self
                .http
                .refusal(answer, &format!("the manifest of {repository}:{tag}"), self.given())
                .await),
        }
    }

    /// All tags of a repository.
    ///
    /// # Errors
    /// [`Error::NotFound`] among others.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            // A repository whose tags were all deleted has null.
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let what = format!("tags of {repository}");
        let path = format!("/v2/{repository}/tags/list");
        self.list(&path, &pull_scope(repository), &what, |page: Tags| page.tags.unwrap_or_default()).await
    }

    /// All repositories.
    ///
    /// # Errors
    /// Registries may refuse this.
    pub async fn catalog(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Catalog {
            #[serde(default)]
            repositories: Option<Vec<String>>,
        }
        let scope = "registry:catalog:*";
        self.list("/v2/_catalog", scope, "list of repositories", |page: Catalog| {
            page.repositories.unwrap_or_default()
        })
        .await
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        scope: &str,
        what: &str,
        items: impl Fn(T) -> Vec<String>,
    ) -> Result<Vec<String>> {
        let mut url = self.http.endpoint.url(&format!("{path}?n={PAGE}"));
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next) = patiently!(self, self.page(&url, scope, what))?;
            all.extend(items(page));
            match next {
                Some(path) => url = self.http.endpoint.url(&path),
                None => return Ok(all),
            }
        }
        Err(self.http.invalid(format!("the {what} has more than {MAX_PAGES} pages")))
    }

    async fn page<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        scope: &str,
        what: &str,
    ) -> Result<(T, Option<String>)> {
        let answer =
            self.send(RequestHead::new(Method::GET, url.to_owned()), &[scope.to_owned()], b"").await?;
        if answer.status() != StatusCode::OK {
            return Err(self.http.refusal(answer, what, self.given()).await);
        }
        let next = answer.headers().get(LINK).and_then(|l| next_page(l.to_str().ok()?));
        let bytes = self.http.document(answer, MAX_LIST).await?;
        let page = serde_json::from_slice(&bytes);
        Ok((page.map_err(|_| self.http.invalid(format!("the {what} cannot be read")))?, next))
    }

    /// A JSON document outside of the distribution protocol, such as the hub's search.
    ///
    /// # Errors
    /// As for the others.
    pub async fn get_json<T: serde::de::DeserializeOwned>(&self, path: &str, what: &str) -> Result<T> {
        let answer = self.http.get(RequestHead::new(Method::GET, self.http.endpoint.url(path))).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.http.refusal(answer, what, false).await);
        }
        let bytes = self.http.document(answer, MAX_LIST).await?;
        serde_json::from_slice(&bytes).map_err(|_| self.http.invalid(format!("the {what} cannot be read")))
    }
}

/// The media types of all documents that [`crate::manifest::parse`] reads.
const ACCEPT_ALL: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// The path in `Link: <path?…>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    parameters.replace('"', "").contains("rel=next").then(|| path_of(target))?
}

/// The path and query of a reference to the next page of a list. The host of a URL is dropped: the rest of a list
/// comes from the same host.
pub fn path_of(target: &str) -> Option<String> {
    let path = match target.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => target,
    };
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

    #[test]
    fn pages() {
        assert_eq!(
            next_page(r#"</v2/_catalog?last=b&n=2>; rel="next""#),
            Some("/v2/_catalog?last=b&n=2".into())
        );
        assert_eq!(next_page("<https://elsewhere/v2/x?n=2>; rel=next"), Some("/v2/x?n=2".into()));
        for none in ["", "<", "<>", "</v2/x>; rel=prev", "<x>; rel=next", "<https://h>; rel=next"] {
            assert_eq!(next_page(none), None, "{none}");
        }
        let all = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
        assert_eq!(ACCEPT_ALL.split(", ").map(str::trim).collect::<Vec<_>>(), all);
    }
}
