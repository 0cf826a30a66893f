//! Connections to a registry: TLS, redirections, and limits of time and size for everything that it sends.

use super::{Error, Result, auth::encode};
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Body as _, Bytes, Frame, Incoming},
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncReadExt, time::timeout};

/// Most redirections of one request: registries redirect requests for blobs.
pub const MAX_REDIRECTS: usize = 5;
/// Most bytes of an error's text that are read.
const MAX_ERROR_TEXT: u64 = 16 << 10;
/// Bytes of a file that are sent at once.
const CHUNK: usize = 256 << 10;

/// Protocol of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TLS, with a certificate that this machine trusts.
    Https,
    /// TLS with any certificate: anybody on the path can read and change everything.
    HttpsNoVerify,
    /// No TLS: as above.
    Http,
}

/// Where a registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// A file with certificates of authorities that are trusted besides those of this machine (PEM).
    pub ca: Option<PathBuf>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

impl Endpoint {
    /// Host and port as in a URL; the default port is left out.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.usual_port() { host } else { format!("{host}:{}", self.port) }
    }

    fn usual_port(&self) -> u16 {
        if self.protocol == Protocol::Http { 80 } else { 443 }
    }

    fn scheme(&self) -> &'static str {
        if self.protocol == Protocol::Http { "http" } else { "https" }
    }

    /// URL of a path that begins with `/`.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme(), self.authority())
    }
}

/// How long a registry may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// To take a connection.
    pub connect: Duration,
    /// To begin its answer once it has the request.
    pub answer: Duration,
    /// Between two pieces of a blob, in either direction.
    pub stall: Duration,
    /// For a whole document: a manifest, a list, a token.
    pub document: Duration,
    /// Before the first repetition; doubled each time.
    pub pause: Duration,
    /// Repetitions in a row without a byte of progress.
    pub repetitions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            document: Duration::from_secs(60),
            pause: Duration::from_millis(250),
            repetitions: 4,
        }
    }
}

/// Bytes of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// No bytes.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
pub(super) fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// The bytes of a file; `sent` counts those that were taken.
pub(super) async fn file(path: &Path, sent: Arc<AtomicU64>) -> io::Result<Body> {
    let file = tokio::fs::File::open(path).await?;
    let pieces = stream::try_unfold(file, move |mut file| {
        let sent = sent.clone();
        async move {
            let mut piece = vec![0; CHUNK];
            let n = file.read(&mut piece).await?;
            piece.truncate(n);
            sent.fetch_add(n as u64, Ordering::Relaxed);
            Ok::<_, io::Error>((n > 0).then(|| (Frame::data(Bytes::from(piece)), file)))
        }
    });
    Ok(StreamBody::new(pieces).boxed_unsync())
}

/// An HTTP client for one registry.
#[derive(Debug)]
pub(crate) struct Http {
    pub endpoint: Endpoint,
    pub limits: Limits,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// A request without its body.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
}

impl RequestHead {
    pub fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: HeaderMap::new() }
    }
}

impl Http {
    pub fn new(endpoint: Endpoint, limits: Limits) -> Result<Self> {
        let unusable = |why: String| Error::Unreachable { registry: endpoint.to_string(), why };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(format!("TLS cannot be used: {e}")))?;
        let tls = match endpoint.protocol {
            Protocol::Https => {
                let roots = authorities(endpoint.ca.as_deref()).map_err(unusable)?;
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Protocol::HttpsNoVerify => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
            Protocol::Http => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.connect));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new()).build(connector.wrap_connector(tcp));
        Ok(Self { endpoint, limits, client })
    }

    pub fn unreachable(&self, why: impl Into<String>) -> Error {
        Error::Unreachable { registry: self.endpoint.to_string(), why: why.into() }
    }

    pub fn invalid(&self, why: impl Into<String>) -> Error {
        // Errors of parsers quote their input.
        let why = super::manifest::sanitized(&why.into());
        Error::Invalid { registry: self.endpoint.to_string(), why }
    }

    fn parse(&self, url: &str) -> Result<Uri> {
        url.parse().map_err(|_| self.invalid(format!("'{}' is not a URL", super::manifest::sanitized(url))))
    }

    /// The URL in the `Location` header of an answer to `from`. A redirection from https to http is refused.
    pub fn location(&self, from: &str, headers: &HeaderMap) -> Result<String> {
        let location = headers.get(LOCATION).and_then(|l| l.to_str().ok());
        let location = location.ok_or_else(|| self.invalid("a redirection without a target"))?;
        let base = self.parse(from)?;
        let (scheme, authority) = (base.scheme_str().unwrap_or("https"), base.authority());
        let url = if location.starts_with('/') && !location.starts_with("//") {
            format!("{scheme}://{}{location}", authority.map_or("", |a| a.as_str()))
        } else {
            location.to_owned()
        };
        let target = self.parse(&url)?;
        match target.scheme_str() {
            Some("https") => Ok(url),
            Some("http") if scheme == "http" => Ok(url),
            Some("http") => Err(self.invalid("it redirects from https to http")),
            _ => Err(self.invalid(format!("'{}' is not a URL", super::manifest::sanitized(&url)))),
        }
    }

    /// Whether two URLs have the same scheme, host and port: otherwise credentials are not sent.
    pub fn same_origin(&self, one: &str, two: &str) -> bool {
        let origin = |url: &str| {
            let uri: Uri = url.parse().ok()?;
            let scheme = uri.scheme_str()?.to_owned();
            let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
            Some((scheme, uri.host()?.to_ascii_lowercase(), port))
        };
        origin(one).is_some_and(|o| origin(two) == Some(o))
    }

    /// Sends one request and waits for the head of its answer; `sent` counts the bytes of the body that were taken.
    pub async fn send(
        &self,
        head: &RequestHead,
        body: Body,
        sent: Option<&AtomicU64>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = self.parse(&head.url)?;
        *request.headers_mut() = head.headers.clone();
        let agent = HeaderValue::from_static(concat!("walt/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let mut answer = std::pin::pin!(self.client.request(request));
        let mut before = 0;
        loop {
            // While a body goes out, its progress counts.
            let (limit, now) = match sent {
                Some(sent) => (self.limits.answer, sent.load(Ordering::Relaxed)),
                None => (self.limits.answer, 0),
            };
            match timeout(limit, &mut answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => return Err(self.unreachable(chain(&e))),
                Err(_) if sent.is_some_and(|s| s.load(Ordering::Relaxed) > now.max(before)) => before = now,
                Err(_) => {
                    return Err(
                        self.unreachable(format!("no answer in {} s", self.limits.answer.as_secs_f32()))
                    );
                }
            }
        }
    }

    /// [`Http::send`] without a body, following redirections. Credentials are not sent to another host.
    pub async fn get(&self, mut request: RequestHead) -> Result<Response<Incoming>> {
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(&request, empty(), None).await?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = self.location(&request.url, answer.headers())?;
            if !self.same_origin(&request.url, &next) {
                request.headers.remove(AUTHORIZATION);
            }
            request.url = next;
        }
        Err(self.invalid(format!("more than {MAX_REDIRECTS} redirections")))
    }

    /// The next piece of a body; none at its end.
    pub async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            match timeout(self.limits.stall, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(e))) => return Err(self.unreachable(chain(&e))),
                Ok(None) => return Ok(None),
                Err(_) => {
                    return Err(
                        self.unreachable(format!("no data for {} s", self.limits.stall.as_secs_f32()))
                    );
                }
            }
        }
    }

    /// A whole body of at most `max` bytes.
    pub async fn document(&self, mut answer: Response<Incoming>, max: u64) -> Result<Vec<u8>> {
        let read = async {
            let mut bytes = Vec::new();
            if answer.body().size_hint().lower() > max {
                return Err(self.invalid(format!("a document of more than {max} bytes")));
            }
            while let Some(piece) = self.piece(answer.body_mut()).await? {
                if bytes.len() as u64 + piece.len() as u64 > max {
                    return Err(self.invalid(format!("a document of more than {max} bytes")));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        let late = format!("a document took more than {} s", self.limits.document.as_secs_f32());
        timeout(self.limits.document, read).await.unwrap_or_else(|_| Err(self.unreachable(late)))
    }

    /// The error that an answer means.
    pub async fn refusal(&self, answer: Response<Incoming>, what: &str, given: bool) -> Error {
        let registry = self.endpoint.to_string();
        let status = answer.status();
        match status {
            StatusCode::UNAUTHORIZED => return Error::Credentials { registry, given },
            StatusCode::FORBIDDEN if !given => return Error::Credentials { registry, given },
            StatusCode::NOT_FOUND => return Error::NotFound { registry, what: what.to_owned() },
            _ => {}
        }
        // An unreadable text must not hide the error.
        let text = self.document(answer, MAX_ERROR_TEXT).await.unwrap_or_default();
        Error::Refused { registry, what: what.to_owned(), status: status.as_u16(), message: message(&text) }
    }

    /// A query parameter.
    pub fn parameter(name: &str, value: &str) -> String {
        format!("{name}={}", encode(value))
    }
}

/// The sentences in an error of a registry (distribution specification, "error codes").
pub(super) fn message(text: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(text) else { return String::new() };
    let sentences: Vec<String> = errors
        .into_iter()
        .take(3)
        .map(|e| if e.message.is_empty() { e.code } else { e.message })
        .map(|m| super::manifest::sanitized(&m))
        .collect();
    sentences.join(", ")
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(text) = tls_failure(error).and_then(tls_text) {
        return text;
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

/// The trusted authorities: those of this machine (or of `SSL_CERT_FILE` and `SSL_CERT_DIR`), and those in a file.
fn authorities(ca: Option<&Path>) -> std::result::Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Unreadable parts of the machine's store are ignored.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let unreadable =
            |e: &dyn fmt::Display| format!("cannot read certificates in {}: {e}", path.display());
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
            roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"the file contains none"));
        }
    }
    if roots.is_empty() {
        return Err("this machine has no trusted certificates: install the package ca-certificates".into());
    }
    Ok(roots)
}

/// The failure of TLS among the causes of an error.
fn tls_failure<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // Such an error does not list its origin among its causes.
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inside.and_then(|e| tls_failure(e)).or_else(|| tls_failure(error.source()?))
}

/// Explains TLS errors that a user can do something about.
fn tls_text(error: &rustls::Error) -> Option<String> {
    use rustls::Error::{InvalidCertificate, InvalidMessage, NoCertificatesPresented};
    Some(match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is not signed by an authority that this server trusts (add one with the setting 'ca')"
                .into()
        }
        InvalidCertificate(
            why @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => format!("its certificate is for another host ({why})"),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".into()
        }
        // webpki's own error, which has no name here.
        InvalidCertificate(CertificateError::Other(why)) if format!("{why:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority, not of a server: create one for the server, signed by it".into()
        }
        InvalidCertificate(why) => format!("its certificate is not valid ({why})"),
        NoCertificatesPresented => "it has no certificate".into(),
        InvalidMessage(_) => "it does not speak TLS (does it need 'protocol: http'?)".into(),
        _ => return None,
    })
}

/// Accepts every certificate, and only checks that the server has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
