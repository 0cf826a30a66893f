//! Nodes and images as resources: other routes to the actions, for programs that are not `walt`.
//!
//! A handler makes an action of its path and its body, and [`Call::perform`] carries it out: as a stream of events, or to
//! the end, in one object ([`performed`]). What is refused, and how questions are asked, is decided by the actions.

mod images;
mod nodes;
mod performed;

pub(super) use nodes::answer_node as node;

use crate::{
    actions::{app::App, image_actions, node_actions, ownership::nodes_of},
    base::{
        events::Events,
        failure::{Failure, Kind, Outcome, bad_request},
    },
    edge::{
        api::{identity::Caller, reply::AbortOnDrop},
        prefer::{Style, wants_stream},
    },
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use performed::problem;
use serde::{Deserialize, de::DeserializeOwned};
use std::sync::Arc;
use walt_api::{HEADER_CONFIRM, ImageAction, MAX_BODY, NodeAction, words::Words};
use walt_types::{ImageRef, UserName};

/// Questions of one request that `confirm=any` answers: the state may change between a question and its answer.
const ANSWERS_MAX: u32 = 4;

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    nodes::routes().merge(images::routes())
}

/// A request, and how its answer is to be.
struct Call {
    app: Arc<App>,
    user: UserName,
    body: Bytes,
    style: Style,
    streams: bool,
    confirm: Option<String>,
    confirm_any: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    confirm: Option<Confirm>,
}

/// Values of the parameter `confirm`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Confirm {
    /// Yes to whatever is asked.
    Any,
}

impl FromRequest<Arc<App>> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let style = Style::of(&parts.headers);
        let refuse = |message: String| problem(bad_request(message), style);
        let caller = Extension::<Caller>::from_request_parts(&mut parts, app).await;
        // Invariant: `identity::identify` has added the caller, or refused the request.
        let Extension(Caller { user, .. }) = caller.expect("an identified caller");
        let Query(Parameters { confirm }) = Query::try_from_uri(&parts.uri)
            .map_err(|e| refuse(format!("cannot understand the parameters: {e}")))?;
        let body = axum::body::to_bytes(body, MAX_BODY)
            .await
            .map_err(|e| refuse(format!("cannot read the body (at most {MAX_BODY} bytes): {e}")))?;
        let text = |name: &str| text_of(&parts.headers, name);
        Ok(Self {
            app: app.clone(),
            user,
            body,
            style,
            streams: wants_stream(&parts.headers),
            confirm: text(HEADER_CONFIRM),
            confirm_any: matches!(confirm, Some(Confirm::Any)),
        })
    }
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// What is done.
#[derive(Clone)]
enum Action {
    Node(NodeAction),
    Image(ImageAction),
}

impl Words for Action {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::Node(action) => action.parts(),
            Self::Image(action) => action.parts(),
        }
    }
}

/// To what it is done.
enum Subject {
    /// A set of nodes.
    Nodes(String),
    /// A node that does not exist before, or not after.
    Node(String),
    /// An image, by its full name.
    Image(String),
}

impl Call {
    /// The body; an empty one is an object without fields.
    fn read<T: DeserializeOwned>(&self) -> Outcome<T> {
        let body = if self.body.is_empty() { &b"{}"[..] } else { &self.body[..] };
        serde_json::from_slice(body).map_err(|e| bad_request(format!("cannot understand the body: {e}")))
    }

    /// Carries out an action on nodes, which `make` makes of the body.
    async fn on_nodes<T: DeserializeOwned>(
        self,
        set: String,
        make: impl FnOnce(String, T) -> Outcome<NodeAction>,
    ) -> Response {
        match self.read().and_then(|body| make(set.clone(), body)) {
            Ok(action) => self.perform(Subject::Nodes(set), Action::Node(action), StatusCode::OK).await,
            Err(failure) => problem(failure, self.style),
        }
    }

    /// Carries out an action on an image of the caller, which `make` makes of its name and the body.
    async fn on_image<T: DeserializeOwned>(
        self,
        (user, name): (String, String),
        done: StatusCode,
        make: impl FnOnce(String, T) -> ImageAction,
    ) -> Response {
        let action = self.own_image(&user, &name).and_then(|full| Ok((full, make(name, self.read()?))));
        match action {
            Ok((full, action)) => self.perform(Subject::Image(full), Action::Image(action), done).await,
            Err(failure) => problem(failure, self.style),
        }
    }

    /// The full name of an image that must be the caller's.
    fn own_image(&self, user: &str, name: &str) -> Outcome<String> {
        if user != self.user.as_str() {
            let message = format!("{user}/{name} is not your image: only its owner may change it.");
            return Err(Failure::refusal(Kind::Forbidden, message).hint("clone it first"));
        }
        full_name(user, name)
    }

    /// Carries out an action. If it succeeds, the status is `done`.
    async fn perform(self, subject: Subject, action: Action, done: StatusCode) -> Response {
        let names = match &subject {
            Subject::Nodes(set) => match nodes_of(&self.app, &self.user, set) {
                Ok(nodes) => nodes.into_iter().map(|node| node.facts.name.to_string()).collect(),
                Err(failure) => return problem(failure, self.style),
            },
            Subject::Node(name) => vec![name.clone()],
            Subject::Image(_) => Vec::new(),
        };
        let (style, streams) = (self.style, self.streams);
        let (events, receiver) = Events::channel();
        let events = events.of(self.app.base().operations().begin(self.user.as_str(), action.words()));
        let work = AbortOnDrop(tokio::spawn(self.carry_out(action, events)));
        if streams {
            return performed::stream(work, receiver, style).await;
        }
        let image = match subject {
            Subject::Image(full) => Some(full),
            Subject::Nodes(_) | Subject::Node(_) => None,
        };
        performed::whole(work, receiver, performed::Expected { names, image, done }, style).await
    }

    async fn carry_out(self, action: Action, events: Events) -> Outcome<bool> {
        let (mut confirm, mut answers) = (self.confirm, 0);
        loop {
            let outcome = match action.clone() {
                Action::Node(action) => {
                    node_actions::act(&self.app, &self.user, action, confirm, &events).await
                }
                Action::Image(action) => {
                    image_actions::act(&self.app, &self.user, action, confirm, &events).await
                }
            };
            match outcome {
                Err(Failure::Question { token, .. }) if self.confirm_any && answers < ANSWERS_MAX => {
                    confirm = Some(token);
                    answers += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

/// The full name of an image, with its tag.
fn full_name(user: &str, name: &str) -> Outcome<String> {
    let reference: ImageRef = format!("{user}/{name}").parse().map_err(|e| bad_request(format!("{e}.")))?;
    Ok(reference.full())
}

/// An answer with a JSON body.
fn json(status: StatusCode, kind: &'static str, value: &impl serde::Serialize) -> Response {
    // Invariant: answers are plain structs, which JSON can always express.
    let body = serde_json::to_vec(value).expect("an answer is JSON");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
