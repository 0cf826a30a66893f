//! The events that the server sends while it carries out a request, and the errors with which it refuses one.

use crate::{FoundImage, resource::ItemResult};
use serde::{Deserialize, Serialize};

/// One line of an action's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A result: one line for standard output.
    Out {
        /// The line.
        text: String,
    },
    /// A note, tip or caution: one line for standard error.
    Note {
        /// The line.
        text: String,
    },
    /// What the server is busy with, for the busy indicator.
    Busy {
        /// Label without dots.
        label: String,
    },
    /// The progress of what the server is busy with.
    Progress {
        /// Label without dots.
        label: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all; 0 if unknown.
        total: u64,
    },
    /// A result of [`ImageAction::Search`](crate::ImageAction::Search).
    Found {
        /// The image.
        image: FoundImage,
    },
    /// What became of one node or image of the request. [`Event::Out`] or [`Event::Note`] says it to people.
    Item {
        /// Which, and what.
        item: ItemResult,
    },
    /// The action failed after it had begun. Part of it may be done; the message describes it.
    Error {
        /// What failed.
        error: ApiError,
    },
    /// The action ended.
    Done {
        /// False if part of the request was not carried out (earlier events describe it).
        ok: bool,
    },
}

/// A refusal or a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiError {
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
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error without hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, confirmation: None, request_id: None }
    }
    /// The same error with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The effects of an operation on others, and the token that confirms it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Confirmation {
    /// Warnings to show, one sentence each.
    pub warnings: Vec<String>,
    /// Token for [`HEADER_CONFIRM`](crate::HEADER_CONFIRM).
    pub token: String,
}

/// Kinds of errors; each maps to one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request itself is wrong: 400.
    BadRequest,
    /// A registry rejects the credentials of the request: 401.
    Credentials,
    /// The caller may not do this: 403.
    Forbidden,
    /// Something named does not exist: 404.
    NotFound,
    /// The current state does not allow it: 412.
    Refused,
    /// It would disturb other users: ask, then repeat with the token: 409.
    Confirm,
    /// The server failed: 500.
    Internal,
}

impl ErrorCode {
    /// HTTP status of an answer with this code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Credentials => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Confirm => 409,
            Self::Refused => 412,
            Self::Internal => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_a_word_and_a_status() {
        let codes = [
            (ErrorCode::BadRequest, "bad-request", 400),
            (ErrorCode::Credentials, "credentials", 401),
            (ErrorCode::Forbidden, "forbidden", 403),
            (ErrorCode::NotFound, "not-found", 404),
            (ErrorCode::Confirm, "confirm", 409),
            (ErrorCode::Refused, "refused", 412),
            (ErrorCode::Internal, "internal", 500),
        ];
        for (code, word, status) in codes {
            assert_eq!(serde_json::to_value(code).expect("a word"), word);
            assert_eq!(code.http_status(), status, "{word}");
        }
    }

    #[test]
    fn an_error_reads_as_its_sentence() {
        let error = ApiError::new(ErrorCode::NotFound, "No such image 'x'.").hint("(tip: walt image show)");
        assert_eq!(error.to_string(), "No such image 'x'.");
    }
}
