//! Answers of the server: JSON, or a refusal.

use crate::{Error, Result};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Response, StatusCode};
use serde::de::DeserializeOwned;
use walt_api::{ApiError, ErrorCode};

/// Largest answer of a list, in bytes: 10,000 nodes with their settings stay far below.
pub const MAX_ANSWER: usize = 64 << 20;
/// Most characters that the error about an unexpected answer quotes.
const MAX_QUOTED: usize = 200;

/// The value in an answer.
pub(crate) async fn json<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T> {
    let status = answer.status();
    let body = body(answer).await?;
    if status != StatusCode::OK {
        return Err(refusal(status, &body).into());
    }
    serde_json::from_slice(&body).map_err(|e| Error::broken("the server's answer cannot be read", e))
}

/// The body of an answer, [`MAX_ANSWER`] at most.
pub(crate) async fn body(answer: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|e| Error::broken("the connection broke during the answer", e))?.to_bytes())
}

/// The error in an answer; one is made for an answer of something else, such as an unknown route.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_QUOTED).collect();
        ApiError::new(
            ErrorCode::Internal,
            format!("unexpected answer of the server: {status} {text}").trim_end().to_owned(),
        )
        .hint("Client and server may have different versions.")
    })
}
