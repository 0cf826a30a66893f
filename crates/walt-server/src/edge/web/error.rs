//! Errors of port 80: HTML by default, text or JSON for clients that prefer it.

use crate::{base::failure::Failure, edge::prefer::Style};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use walt_api::web::WebError;

/// Why a request is refused, or has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// One sentence.
    pub message: String,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The server failed. The reason is for its log: who reads this has no account.
    pub fn failed(failure: &Failure) -> Self {
        match failure {
            Failure::Internal(error) => tracing::warn!("port 80: {error:#}"),
            other => tracing::warn!("port 80: {other}"),
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The server failed: see its log.")
    }

    /// The answer.
    pub fn answer(&self, style: Style) -> Response {
        let Self { status, message } = self;
        match style {
            Style::TextOnly => {
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                (*status, [(header::CONTENT_TYPE, text)], message.clone()).into_response()
            }
            Style::Json => {
                let error = WebError { error: message.clone(), status_code: status.as_u16() };
                (*status, Json(error)).into_response()
            }
            Style::Default => (*status, Html(html(*status, message))).into_response(),
        }
    }
}

fn html(status: StatusCode, message: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status}</title></head>\n\
         <body><h1>{status}</h1><p>{}</p></body></html>\n",
        escaped(message)
    )
}

/// Text as HTML shows it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn three_styles() {
        let refusal = Refusal::bad_request("unknown parameter '<b>'");
        for (style, kind, wanted) in [
            (Style::TextOnly, "text/plain; charset=utf-8", "unknown parameter '<b>'"),
            (Style::Json, "application/json", r#"{"error":"unknown parameter '<b>'","status_code":400}"#),
            (Style::Default, "text/html; charset=utf-8", "<p>unknown parameter &#39;&lt;b&gt;&#39;</p>"),
        ] {
            let response = refusal.answer(style);
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            assert_eq!(response.headers()[header::CONTENT_TYPE], kind);
            let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            match style {
                Style::Default => {
                    assert!(body.contains(wanted) && body.contains("<h1>400 Bad Request</h1>"), "{body}")
                }
                _ => assert_eq!(body, wanted),
            }
        }
    }

    #[test]
    fn nothing_of_a_message_is_markup() {
        assert_eq!(escaped(r#"a<b>&"c"'"#), "a&lt;b&gt;&amp;&quot;c&quot;&#39;");
    }
}
