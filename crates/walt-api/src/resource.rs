//! Nodes and images as resources: bodies of requests, and answers. They do what [`NodeAction`](crate::NodeAction) and
//! [`ImageAction`](crate::ImageAction) do, and are for programs that are not `walt`.
//!
//! * A body is a JSON object, or nothing where all its fields are optional. A field that does not exist is refused.
//! * `Accept: application/json`, the default: the server answers at the end, with a [`Performed`] and a status that
//!   says how it ended: 200, 201 if something was made, [`NOT_ALL`] if part of it was not done.
//! * `Accept: application/x-ndjson`: a stream of [`Event`](crate::Event)s, as for actions.
//! * An error is a [`Problem`]. With 409, the request is repeated with the token in
//!   [`HEADER_CONFIRM`](crate::HEADER_CONFIRM); the query `confirm=any` says yes to whatever is asked.

use crate::{ApiError, Confirmation, ErrorCode, Hold, RegistryCredentials};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use walt_types::{ClientTag, Span};

/// The status if part of the request was not carried out, by a node that did not do what it was told, say.
pub const NOT_ALL: u16 = 502;

/// Body of `POST` to [`route::NODES`](crate::route::NODES): creates a virtual node and starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateNode {
    /// Its name.
    pub name: String,
    /// Full name of its image, or name of an image of the caller; by default the caller's clone of the default image.
    #[serde(default)]
    pub image: Option<String>,
    /// Create it even if all nodes together need more memory than the server has.
    #[serde(default)]
    pub force: bool,
}

/// Body of `POST` to [`route::NODE_BOOT`](crate::route::NODE_BOOT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BootNode {
    /// An image of the caller, or `default`.
    pub image: String,
}

/// Body of `POST` to [`route::NODE_REBOOT`](crate::route::NODE_REBOOT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RebootNode {
    /// Power-cycle instead of asking the running system.
    #[serde(default)]
    pub hard: bool,
}

/// Body of `POST` to [`route::NODE_WAIT`](crate::route::NODE_WAIT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WaitNode {
    /// Most seconds to wait; no limit if absent.
    #[serde(default)]
    pub timeout: Option<u64>,
}

/// Body of `POST` to [`route::NODE_ACQUIRE`](crate::route::NODE_ACQUIRE).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AcquireNode {
    /// How long the caller wants it, such as `2h`; by default without an end.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub lease: Option<Span>,
    /// Keep it by heartbeat: see [`Hold`].
    #[serde(default)]
    pub hold: Option<Hold>,
    /// If others have it, wait in the queue under this name.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub queue: Option<ClientTag>,
}

/// A body without fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Body of `POST` to [`route::NODE_RENAME`](crate::route::NODE_RENAME), [`route::IMAGE_RENAME`](crate::route::IMAGE_RENAME)
/// and [`route::IMAGE_DUPLICATE`](crate::route::IMAGE_DUPLICATE).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewName {
    /// The new name; it must be free.
    pub new_name: String,
}

/// Answer of `GET` to [`route::NODE_CONFIG`](crate::route::NODE_CONFIG). The body of `PATCH` is an object like `config`, of
/// the settings to change: a string, a number, a boolean, null for `none`, or an empty string for the default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeConfig {
    /// Name of the node.
    pub name: String,
    /// Its settings by key, defaults included.
    pub config: BTreeMap<String, serde_json::Value>,
    /// Settings that it does not have in effect before it reboots.
    pub reboot_needed: Vec<String>,
}

/// Body of `POST` to [`route::IMAGES`](crate::route::IMAGES): copies an image to the caller's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CloneImage {
    /// `<location>:<user>/<name>[:<tag>]`; the location is `walt`, `docker`, or the label of a registry.
    pub link: String,
    /// Name of the copy; by default the remote one.
    #[serde(default)]
    pub name: Option<String>,
    /// Overwrite an image of the caller that has that name.
    #[serde(default)]
    pub force: bool,
    /// For the registry.
    #[serde(default)]
    pub credentials: Option<RegistryCredentials>,
}

/// Body of `POST` to [`route::IMAGE_ROLLBACK`](crate::route::IMAGE_ROLLBACK).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RollBackImage {
    /// A version of its history; by default the newest one that is another image.
    #[serde(default)]
    pub version: Option<u32>,
}

/// Body of `POST` to [`route::IMAGE_PUBLISH`](crate::route::IMAGE_PUBLISH).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PublishImage {
    /// Label of the registry; not needed if there is only one.
    #[serde(default)]
    pub registry: Option<String>,
    /// For the registry.
    #[serde(default)]
    pub credentials: Option<RegistryCredentials>,
}

/// What became of a request that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Performed {
    /// Whether all of it was done.
    pub ok: bool,
    /// What became of each node or image.
    pub results: Vec<ItemResult>,
    /// Lines that `walt` prints as results.
    #[serde(default)]
    pub output: Vec<String>,
    /// Notes, tips and cautions.
    pub notes: Vec<String>,
}

/// What became of one node or image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemResult {
    /// Name of the node, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Full name of the image, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether it was done.
    pub ok: bool,
    /// Stable word for programs.
    pub code: ItemCode,
    /// One sentence for people.
    pub message: String,
}

/// What became of one node or image, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ItemCode {
    /// All was done.
    Done,
    /// It was not done, or not all of it.
    Failed,
}

impl ItemResult {
    /// What became of a node.
    pub fn of_node(name: impl Into<String>, result: Result<String, String>) -> Self {
        Self { node: Some(name.into()), ..Self::of(result) }
    }

    /// What became of an image.
    pub fn of_image(fullname: impl Into<String>, result: Result<String, String>) -> Self {
        Self { image: Some(fullname.into()), ..Self::of(result) }
    }

    fn of(result: Result<String, String>) -> Self {
        let (code, ok) = if result.is_ok() { (ItemCode::Done, true) } else { (ItemCode::Failed, false) };
        let (Ok(message) | Err(message)) = result;
        Self { node: None, image: None, ok, code, message }
    }
}

/// An error as `application/problem+json` (RFC 9457), with the fields of an [`ApiError`] besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Always `about:blank`: `code` says which problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The words of the status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// One sentence for people, with the hint.
    pub detail: String,
    /// Stable word for programs.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Present with [`ErrorCode::Confirm`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    /// Identifies the request in the server's log, which has the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What became of each node or image before it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ItemResult>,
    /// What was noted before it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Problem {
    /// The problem that an error is; `title` is the words of its status.
    pub fn new(error: ApiError, title: &str) -> Self {
        let ApiError { code, message, hint, confirmation, request_id } = error;
        let detail = match &hint {
            Some(hint) => format!("{message} {hint}"),
            None => message.clone(),
        };
        Self {
            kind: "about:blank".into(),
            title: title.into(),
            status: code.http_status(),
            detail,
            code,
            message,
            hint,
            confirmation,
            request_id,
            results: Vec::new(),
            notes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_strict_and_mostly_optional() {
        assert_eq!(serde_json::from_str::<RebootNode>("{}").unwrap(), RebootNode { hard: false });
        assert_eq!(serde_json::from_str::<WaitNode>("{}").unwrap(), WaitNode { timeout: None });
        assert!(serde_json::from_str::<RebootNode>(r#"{"hart": true}"#).is_err());
        assert!(serde_json::from_str::<Nothing>(r#"{"hard": true}"#).is_err());
        assert!(serde_json::from_str::<BootNode>("{}").is_err());
    }

    #[test]
    fn results_of_nodes_and_images() {
        let done = ItemResult::of_node("vn1", Ok("rebooted ok".into()));
        let wanted = json!({"node": "vn1", "ok": true, "code": "done", "message": "rebooted ok"});
        assert_eq!(serde_json::to_value(done).unwrap(), wanted);
        let failed = ItemResult::of_image("ann/x:latest", Err("it is in use".into()));
        let wanted =
            json!({"image": "ann/x:latest", "ok": false, "code": "failed", "message": "it is in use"});
        assert_eq!(serde_json::to_value(failed).unwrap(), wanted);
    }

    #[test]
    fn a_problem_has_the_fields_of_the_error() {
        let error = ApiError::new(ErrorCode::NotFound, "No such image 'x'.").hint("(tip)");
        let wanted = json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "No such image 'x'. (tip)",
            "code": "not-found", "message": "No such image 'x'.", "hint": "(tip)",
        });
        assert_eq!(serde_json::to_value(Problem::new(error, "Not Found")).unwrap(), wanted);
        let plain = Problem::new(ApiError::new(ErrorCode::Internal, "It failed."), "x");
        assert_eq!((plain.detail.as_str(), plain.status), ("It failed.", 500));
    }
}
