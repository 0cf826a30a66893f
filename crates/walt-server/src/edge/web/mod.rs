//! HTTP on port 80 of walt-net, and at `web: {listen: …}`: what everybody may read, without an account.
//!
//! ```text
//!  walt-net:80 ─┐                 ┌─ /boot/…, /node/…   netboot::http   walt-net only: by the address of the machine
//!               ├─ connection ────┼─ /api/v1/…          lists, logs
//!  web.listen ──┘  (Limits)       ├─ /metrics           api::metrics
//!                                 └─ /, /api, /doc/…    pages
//! ```
//! `GET` and `HEAD` only: nothing changes anything, and no header allows pages of other origins to read answers. Errors are
//! HTML by default ([`error`]).
//!
//! Limits: [`LIMITS`], [`HEAD_MAX`], [`ANSWERS_AT_ONCE`], [`WAIT`], [`STREAMS_AT_ONCE`]. A connection is closed if the next request does not
//! arrive in time, or if the client acknowledges no data for too long (`TCP_USER_TIMEOUT`, tcp(7)). Bodies of requests are
//! not read.

mod error;
mod filter;
mod listen;
mod lists;
mod log_lines;
mod logs;
mod pages;

pub use listen::Sockets;

use crate::{
    actions::app::App,
    edge::{
        api::metrics,
        netboot::{copies, http},
        peers::LimitedListener,
        prefer::Style,
    },
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::{any, get},
};
use error::Refusal;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
};
use tower::ServiceExt;
use walt_api::route;

/// The port that is built into images.
pub const PORT: u16 = 80;
/// Largest head of a request, in bytes.
pub const HEAD_MAX: usize = 16 * 1024;
/// Answers of a door that are made at the same time, boot files aside: many clients that ask for lists do not keep the
/// database from nodes and users.
pub const ANSWERS_AT_ONCE: usize = 4;
/// How long a request waits for its turn to be answered.
pub const WAIT: Duration = Duration::from_secs(10);

/// Streams of log lines of a door at the same time: each has a thread.
pub const STREAMS_AT_ONCE: usize = 8;

/// Limits of a door.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections served at once; more wait in the kernel's queue. Below the number of tokio's blocking threads
    /// (512), so that slow disks do not block other work.
    pub connections: usize,
    /// Connections of one machine at once; more are closed.
    pub connections_of_one: usize,
    /// Timeout of the head of a request, from the end of the last response.
    pub request: Duration,
    /// How long a machine may acknowledge no data.
    pub stall: Duration,
}

/// The limits in production, of each door.
pub const LIMITS: Limits = Limits {
    connections: 256,
    connections_of_one: 16,
    request: Duration::from_secs(30),
    stall: Duration::from_secs(60),
};

/// Where a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Port 80 of walt-net, where machines boot.
    WaltNet,
    /// The address of `web.listen`.
    Listen,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::WaltNet => "HTTP boot",
            Self::Listen => "the web server",
        }
    }
}

/// A machine on walt-net, known by its address.
#[derive(Debug, Clone, Copy)]
struct Machine(Ipv4Addr);

/// What the handlers of a door share.
#[derive(Clone)]
struct Shared {
    app: Arc<App>,
    turns: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Shared {
    /// Waits until this request may be answered.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match tokio::time::timeout(WAIT, self.turns.acquire()).await {
            // Invariant: the semaphore is never closed.
            Ok(permit) => Ok(permit.expect("an open semaphore")),
            Err(_) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "The server has too many requests: try again later.",
            )),
        }
    }
}

impl Shared {
    /// A place among the streams.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let message = format!("The server sends {STREAMS_AT_ONCE} streams already: try again later.");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }
}

/// Serves a door for ever.
pub async fn serve(app: Arc<App>, listener: TcpListener, door: Door, limits: Limits) {
    let connections =
        LimitedListener::new(listener, door.name(), limits.connections, limits.connections_of_one);
    let router = router(app, door);
    connections.serve(|(stream, _), peer| connection(router.clone(), stream, peer, limits)).await;
}

fn router(app: Arc<App>, door: Door) -> Router {
    let (turns, streams) = (Semaphore::new(ANSWERS_AT_ONCE), Semaphore::new(STREAMS_AT_ONCE));
    let counted = axum::middleware::from_fn_with_state(app.clone(), metrics::count);
    let shared = Shared { app, turns: Arc::new(turns), streams: Arc::new(streams) };
    let machines = Router::new().route("/boot/{*path}", any(boot)).route("/node/{*path}", any(boot));
    let pages = Router::new()
        .route("/", get(pages::index))
        .route("/doc", get(pages::doc_without_slash))
        .route("/doc/", get(pages::topics))
        .route("/doc/{page}", get(pages::topic))
        .route("/api", get(pages::api))
        .route("/api/", get(pages::api))
        .route(route::OPENAPI, get(pages::openapi))
        .route(route::NODES, get(lists::nodes))
        .route(route::IMAGES, get(lists::images))
        .route(route::LOGS, get(log_lines::logs))
        .route(route::METRICS, get(figures))
        .fallback(missing);
    let all = if door == Door::WaltNet { pages.merge(machines) } else { pages };
    // By the templates of the routes; paths that are not among them count as 'unknown'.
    all.layer(counted).with_state(shared)
}

async fn connection(router: Router, stream: TcpStream, peer: IpAddr, limits: Limits) -> anyhow::Result<()> {
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(limits.stall))?;
    let machine = match peer {
        IpAddr::V4(peer) => Machine(peer),
        // The bridge has no IPv6: this address is not that of a machine.
        IpAddr::V6(_) => Machine(Ipv4Addr::UNSPECIFIED),
    };
    let service = service_fn(move |request| answer(router.clone(), machine, request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer(
    router: Router,
    machine: Machine,
    mut request: hyper::Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.");
        let mut response = refusal.answer(Style::of(request.headers()));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    request.extensions_mut().insert(machine);
    router.oneshot(request).await
}

/// Boot files, and copies of images.
async fn boot(
    State(shared): State<Shared>,
    Extension(Machine(peer)): Extension<Machine>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    http::answer(&shared.app, peer, &parts).await.map(Body::new)
}

/// `GET /metrics`.
async fn figures(State(shared): State<Shared>, style: Style) -> Response {
    match shared.turn().await {
        Ok(_turn) => metrics::answer(&shared.app),
        Err(refusal) => refusal.answer(style),
    }
}

async fn missing(style: Style, request: Request) -> Response {
    let path = request.uri().path();
    let is_of_machines = path.starts_with(http::ROOT) || path.starts_with(copies::ROOT);
    // Firmware shows what it gets.
    let (message, style) = match (is_of_machines, style) {
        (true, Style::Default) => ("No such file.".to_owned(), Style::TextOnly),
        (true, style) => ("No such file.".to_owned(), style),
        (false, style) => (format!("There is nothing at {path}."), style),
    };
    Refusal::new(StatusCode::NOT_FOUND, message).answer(style)
}
