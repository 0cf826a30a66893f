//! `walt registry serve`: a loopback port on this machine, forwarded to the server's registry.
//!
//! Only paths below `/v2/` are forwarded: the rest of the API trusts the account that opened the connection, but every
//! account of this machine can connect to a loopback port. The registry asks for a token.

use crate::{Target, http::reuse_or_connect};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

/// Connections that are forwarded at the same time; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send its request header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the kernel refused to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

type Body = BoxBody<Bytes, hyper::Error>;

/// Accepts connections and forwards their requests, without end.
///
/// # Errors
/// None today: a failure only ends its own connection.
pub async fn serve(listener: TcpListener, target: Target) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let target = Arc::new(target);
    loop {
        // Invariant: nobody closes this semaphore.
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is open");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let target = target.clone();
        tokio::spawn(async move {
            let _slot = slot;
            proxy(stream, target).await;
        });
    }
}

async fn proxy(stream: TcpStream, target: Arc<Target>) {
    let upstream: Arc<Mutex<Option<SendRequest<Incoming>>>> = Arc::default();
    let service = service_fn(move |request| {
        let (upstream, target) = (upstream.clone(), target.clone());
        async move { Ok::<_, Infallible>(answer(request, &upstream, &target).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // A client that closes early needs no answer.
    let _ = server
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    let text = serde_json::json!({ "errors": [{ "code": "UNKNOWN", "message": why }] }).to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

/// Whether a path belongs to the registry.
fn is_registry(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

async fn answer(
    mut request: Request<Incoming>,
    upstream: &Mutex<Option<SendRequest<Incoming>>>,
    target: &Target,
) -> Response<Body> {
    if !is_registry(request.uri().path()) {
        return refuse(StatusCode::NOT_FOUND, "only the registry is available here, below /v2/");
    }
    let headers = request.headers_mut();
    // Do not forward on whose behalf a client wants to act.
    headers.remove(walt_api::HEADER_USER);
    headers.remove(UPGRADE);
    headers.remove(CONNECTION);
    headers.insert(HOST, HeaderValue::from_static("walt"));
    let path = request.uri().path_and_query().map(|p| p.as_str().to_owned());
    match path.unwrap_or_default().parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "this is not a valid path"),
    }
    let mut upstream = upstream.lock().await;
    match send(request, &mut upstream, target).await {
        Ok(answer) => answer.map(|body| body.boxed()),
        Err(why) => refuse(StatusCode::BAD_GATEWAY, &why),
    }
}

async fn send(
    request: Request<Incoming>,
    upstream: &mut Option<SendRequest<Incoming>>,
    target: &Target,
) -> Result<Response<Incoming>, String> {
    let mut sender = reuse_or_connect(upstream, target).await.map_err(|e| e.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|e| format!("the WalT server closed the connection: {e}"))?;
    *upstream = Some(sender);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::is_registry;

    #[test]
    fn only_the_registry_passes() {
        for yes in ["/v2", "/v2/", "/v2/ann/x/manifests/latest"] {
            assert!(is_registry(yes), "{yes}");
        }
        for no in ["/", "/v2x", "//v2/", "/api/v1/info", "/api/v1/actions/image", ""] {
            assert!(!is_registry(no), "{no}");
        }
    }
}
