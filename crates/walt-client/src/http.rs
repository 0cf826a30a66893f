//! Requests, answers, and streams of events.

use crate::{
    Connection, ENV_USERNAME, Error, LiveStream, Result, Target, TransferInput, TransferOutput, answer,
    terminal, transfer,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use walt_api::boots::BootList;
use walt_api::build::OpenImageBuild;
use walt_api::logs::{Checkpoint, LogAction, LogCount, LogQuery, LogStoreReport};
use walt_api::term::{OpenImageShell, OpenNodeRun, OpenNodeTerminal};
use walt_api::transfer::Open;
use walt_api::versions::{ImageDiff, ImageHistory};
use walt_api::{
    AdminAction, Confirmation, DeviceAction, DeviceList, ErrorCode, Event, HEADER_CONFIRM, HEADER_USER,
    ImageAction, ImageList, Info, LinkState, NodeAction, NodeList, PROTOCOL, RegistryList, RegistryToken,
    SessionAction, Status, StoreLook, route,
};

/// Largest event, in bytes.
pub const MAX_EVENT: usize = 1 << 20;

/// The answer to an action.
#[derive(Debug)]
pub enum Reply {
    /// Nothing was done: ask the user, then repeat with the token.
    Confirm(Confirmation),
    /// The action runs.
    Events(EventStream),
}

/// A client of one server, acting as one user.
#[derive(Debug)]
pub struct Client {
    target: Target,
    user: Option<HeaderValue>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// The client for `WALT_SERVER` and `WALT_USERNAME`. It connects at the first request.
    ///
    /// # Errors
    /// [`Error::BadTarget`], [`Error::BadUser`].
    pub fn from_env() -> Result<Self> {
        let user = match std::env::var(ENV_USERNAME) {
            Ok(name) if !name.is_empty() => Some(name),
            _ => None,
        };
        Self::new(Target::from_env()?, user.as_deref())
    }

    /// A client of `target`, which acts for `user` if one is given (only root may).
    ///
    /// # Errors
    /// [`Error::BadUser`] if the name cannot be a header value.
    pub fn new(target: Target, user: Option<&str>) -> Result<Self> {
        let user = match user {
            Some(name) => Some(
                HeaderValue::from_str(name).map_err(|_| Error::BadUser(name.escape_debug().to_string()))?,
            ),
            None => None,
        };
        Ok(Self { target, user, sender: None })
    }

    /// The server this client talks to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The server's version, and the caller's user name there.
    ///
    /// # Errors
    /// All of [`Error`]; [`Error::Version`] if client and server speak different versions.
    pub async fn info(&mut self) -> Result<Info> {
        let info: Info = self.get(route::INFO).await?;
        if info.protocol != PROTOCOL {
            return Err(Error::Version { server: info.protocol, client: PROTOCOL });
        }
        Ok(info)
    }

    /// All nodes, sorted by name.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn nodes(&mut self) -> Result<NodeList> {
        self.get(route::NODES).await
    }

    /// The links of a set of nodes, of all virtual ones without it.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn links(&mut self, nodes: Option<&str>) -> Result<Vec<LinkState>> {
        match nodes {
            Some(nodes) => self.get(&format!("{}?nodes={}", route::LINKS, query(nodes))).await,
            None => self.get(route::LINKS).await,
        }
    }

    /// The boots of a node that are kept.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn node_boots(&mut self, node: &str) -> Result<BootList> {
        self.get(&format!("{}?node={}", route::NODE_BOOTS, query(node))).await
    }

    /// All devices, sorted by type and name, and the trash.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn devices(&mut self) -> Result<DeviceList> {
        self.get(route::DEVICES).await
    }

    /// All images of all users. `mine` makes the first images of a new user who has none.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn images(&mut self, mine: bool) -> Result<ImageList> {
        if mine {
            self.get(&format!("{}?mine=1", route::IMAGES)).await
        } else {
            self.get(route::IMAGES).await
        }
    }

    /// The versions of an image of the caller.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn image_history(&mut self, name: &str) -> Result<ImageHistory> {
        self.get(&format!("{}?image={}", route::IMAGE_HISTORY, query(name))).await
    }

    /// How two images differ.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn image_diff(&mut self, from: &str, to: &str) -> Result<ImageDiff> {
        self.get(&format!("{}?from={}&to={}", route::IMAGE_DIFF, query(from), query(to))).await
    }

    /// The registries in the server's configuration.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn registries(&mut self) -> Result<RegistryList> {
        self.get(route::REGISTRIES).await
    }

    /// A token for the server's own registry.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn registry_token(&mut self) -> Result<RegistryToken> {
        let answer = self.send(Method::POST, route::REGISTRY_TOKEN, Bytes::new(), None).await?;
        answer::json(answer).await
    }

    /// The state of the server (root only).
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn status(&mut self) -> Result<Status> {
        self.get(route::STATUS).await
    }

    /// The contents of the image store (root only).
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn store(&mut self) -> Result<StoreLook> {
        self.get(route::STORE).await
    }

    /// Checks the store of log lines (root only).
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn log_store(&mut self) -> Result<LogStoreReport> {
        self.get(route::LOG_STORE).await
    }

    /// The state of the platform as it changes: these kinds (with commas between them) and this set of nodes only.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn live(&mut self, kinds: &str, nodes: Option<&str>) -> Result<LiveStream> {
        let nodes = nodes.map_or_else(String::new, |set| format!("&nodes={}", query(set)));
        let path = format!("{}?kinds={}{nodes}", route::EVENTS, query(kinds));
        let answer = self.send(Method::GET, &path, Bytes::new(), None).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(answer::refusal(status, &answer::body(answer).await?).into());
        }
        // The stream owns the connection, so that dropping it closes it.
        match self.sender.take() {
            Some(sender) => Ok(LiveStream::new(answer.into_body(), sender)),
            None => Err(Error::Broken("the connection is closed".to_owned())),
        }
    }

    /// Carries out an action on nodes. `token` comes from an earlier [`Reply::Confirm`].
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn node_action(&mut self, action: &NodeAction, token: Option<&str>) -> Result<Reply> {
        self.action(route::NODE_ACTIONS, action, token).await
    }

    /// Carries out an action on devices; see [`Client::node_action`].
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn device_action(&mut self, action: &DeviceAction, token: Option<&str>) -> Result<Reply> {
        self.action(route::DEVICE_ACTIONS, action, token).await
    }

    /// Carries out an action on images; see [`Client::node_action`].
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn image_action(&mut self, action: &ImageAction, token: Option<&str>) -> Result<Reply> {
        self.action(route::IMAGE_ACTIONS, action, token).await
    }

    /// Saves or drops an image shell's session; see [`Client::node_action`].
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn session_action(&mut self, action: &SessionAction, token: Option<&str>) -> Result<Reply> {
        self.action(route::SESSION_ACTIONS, action, token).await
    }

    /// Administers the server (root only); see [`Client::node_action`].
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn admin_action(&mut self, action: &AdminAction, token: Option<&str>) -> Result<Reply> {
        self.action(route::ADMIN_ACTIONS, action, token).await
    }

    /// Opens `walt image shell` on a connection of its own.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn image_shell(&self, open: &OpenImageShell) -> Result<terminal::Pair> {
        terminal::open(&self.target, self.user.as_ref(), route::IMAGE_SHELL, open).await
    }

    /// Opens `walt image build` on a connection of its own.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn image_build(&self, open: &OpenImageBuild) -> Result<terminal::Pair> {
        terminal::open(&self.target, self.user.as_ref(), route::IMAGE_BUILD, open).await
    }

    /// Opens a terminal on, or about, a node on a connection of its own.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn node_terminal(&self, open: &OpenNodeTerminal) -> Result<terminal::Pair> {
        terminal::open(&self.target, self.user.as_ref(), route::NODE_TERMINAL, open).await
    }

    /// Opens a command on a set of nodes, on a connection of its own.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn node_run(&self, open: &OpenNodeRun) -> Result<terminal::Pair> {
        terminal::open(&self.target, self.user.as_ref(), route::NODE_RUN, open).await
    }

    /// Opens a transfer of files on a connection of its own.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn transfer(&self, open: &Open) -> Result<(TransferInput, TransferOutput)> {
        transfer::open(&self.target, self.user.as_ref(), route::TRANSFER, open).await
    }

    /// Lines of logs, as they come.
    ///
    /// # Errors
    /// [`Error::Refused`] if the query cannot be understood; others as for any request.
    pub async fn log_lines(&mut self, query: &LogQuery) -> Result<LogLines> {
        let answer = self.post(route::LOG_LINES, query).await?;
        let Some(sender) = self.sender.take() else {
            return Err(Error::Broken("the connection is closed".to_owned()));
        };
        Ok(LogLines { body: answer.into_body(), _sender: sender })
    }

    /// About how many past lines a query has.
    ///
    /// # Errors
    /// As for [`Client::log_lines`].
    pub async fn log_count(&mut self, query: &LogQuery) -> Result<LogCount> {
        let answer = self.post(route::LOG_COUNT, query).await?;
        answer::json(answer).await
    }

    /// The caller's checkpoints.
    ///
    /// # Errors
    /// As for any request.
    pub async fn checkpoints(&mut self) -> Result<Vec<Checkpoint>> {
        self.get(route::CHECKPOINTS).await
    }

    /// Changes checkpoints.
    ///
    /// # Errors
    /// As for any action.
    pub async fn log_action(&mut self, action: &LogAction, token: Option<&str>) -> Result<Reply> {
        self.action(route::LOG_ACTIONS, action, token).await
    }

    /// A request that is refused, or answered.
    async fn post(&mut self, path: &str, body: &impl Serialize) -> Result<Response<Incoming>> {
        let body = serde_json::to_vec(body).map_err(|e| Error::broken("the request cannot be written", e))?;
        let answer = self.send(Method::POST, path, body.into(), None).await?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        Err(answer::refusal(status, &answer::body(answer).await?).into())
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        let answer = self.send(Method::GET, path, Bytes::new(), None).await?;
        answer::json(answer).await
    }

    async fn action(&mut self, path: &str, action: &impl Serialize, token: Option<&str>) -> Result<Reply> {
        let body =
            serde_json::to_vec(action).map_err(|e| Error::broken("the request cannot be written", e))?;
        let answer = self.send(Method::POST, path, body.into(), token).await?;
        let status = answer.status();
        if status == StatusCode::OK {
            // The stream owns the connection, so that dropping it closes it.
            let Some(sender) = self.sender.take() else {
                return Err(Error::Broken("the connection is closed".to_owned()));
            };
            return Ok(Reply::Events(EventStream {
                body: answer.into_body(),
                buffer: Vec::new(),
                _sender: sender,
            }));
        }
        let error = answer::refusal(status, &answer::body(answer).await?);
        match (error.code, error.confirmation.clone()) {
            (ErrorCode::Confirm, Some(confirmation)) => Ok(Reply::Confirm(confirmation)),
            _ => Err(error.into()),
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        token: Option<&str>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        let bad = |e: &dyn std::fmt::Display| Error::broken("the request cannot be written", e);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|e: hyper::http::uri::InvalidUri| bad(&e))?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("walt"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(user) = &self.user {
            headers.insert(HEADER_USER, user.clone());
        }
        if let Some(token) = token {
            headers.insert(HEADER_CONFIRM, HeaderValue::from_str(token).map_err(|e| bad(&e))?);
        }
        let mut sender = reuse_or_connect(&mut self.sender, &self.target).await?;
        let answer =
            sender.send_request(request).await.map_err(|e| Error::broken("the connection broke", e))?;
        self.sender = Some(sender);
        Ok(answer)
    }
}

/// The kept connection, or a new one if there is none or the server has closed it.
pub(crate) async fn reuse_or_connect<B>(
    kept: &mut Option<SendRequest<B>>,
    target: &Target,
) -> Result<SendRequest<B>>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data: Send> + Send + 'static,
{
    if let Some(mut sender) = kept.take()
        && sender.ready().await.is_ok()
    {
        return Ok(sender);
    }
    let stream = Connection::open(target).await?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| Error::broken("no HTTP server there", e))?;
    // Ends when the sender and the answer's body are dropped; its error shows in both.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// A value for the query of a URI (RFC 3986, section 2.1).
fn query(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Lines of logs, as they come. Dropping this ends the request.
#[derive(Debug)]
pub struct LogLines {
    body: Incoming,
    _sender: SendRequest<Full<Bytes>>,
}

impl LogLines {
    /// The next bytes of the answer; `None` at its end. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|e| Error::broken("the connection to the server is lost", e))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// The events of a running action. Dropping this cancels the action.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
    _sender: SendRequest<Full<Bytes>>,
}

impl EventStream {
    /// The next event; `None` at the end of the stream. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Error::Broken`] if the connection breaks or an event cannot be read.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.len() == 1 {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| Error::broken("the server's answer cannot be read", e));
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(Error::Broken(format!("an event is larger than {MAX_EVENT} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Error::broken("the connection broke", error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::Broken("the connection broke during the answer".to_owned())),
            }
        }
    }
}
