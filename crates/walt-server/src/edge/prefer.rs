//! What a client wants to read: errors, by the request header `Prefer: errors=…` of the existing web API (`Prefer` is RFC
//! 7240); one object or a stream, by `Accept`.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use std::convert::Infallible;

/// Media type of a stream of objects.
pub const NDJSON: &str = "application/x-ndjson";
/// Media type of one object.
pub const JSON: &str = "application/json";
/// Name of the header.
const PREFER: &str = "prefer";

/// How errors are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// As the door does it by default: HTML on port 80, `application/problem+json` on the socket.
    #[default]
    Default,
    /// The message alone, as plain text.
    TextOnly,
    /// `{"error": …, "status_code": …}`.
    Json,
}

impl Style {
    /// The preference in these headers. What is not understood is ignored, as RFC 7240 wants it; of several preferences
    /// about errors, the first one counts.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).find_map(Self::of_preference).unwrap_or_default()
    }

    fn of_preference(preference: &str) -> Option<Self> {
        // Behind a semicolon are parameters, of which there are none here.
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("errors") {
            return None;
        }
        match value.trim().trim_matches('"') {
            "text-only" => Some(Self::TextOnly),
            "json" => Some(Self::Json),
            "html" => Some(Self::Default),
            _ => None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Style {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Whether a client wants a stream rather than one object.
pub fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(prefers_stream)
}

/// Whether a client that sends this `Accept` (RFC 9110 §12.5.1) wants a stream. Whoever wants neither
/// gets the object.
fn prefers_stream(accept: &str) -> bool {
    let weight_of = |wanted: &str| {
        accept.split(',').enumerate().find_map(|(place, range)| {
            let mut parts = range.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(wanted) {
                return None;
            }
            let weight = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse::<f64>().ok());
            // Of the same weight, the first one.
            Some((weight.unwrap_or(1.0), -(place as f64)))
        })
    };
    match (weight_of(NDJSON), weight_of(JSON)) {
        (Some(stream), _) if stream.0 <= 0.0 => false,
        (Some(stream), Some(object)) => stream > object,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences() {
        for (value, wanted) in [
            ("errors=text-only", Style::TextOnly),
            ("errors=json", Style::Json),
            ("Errors = \"json\"; x=1", Style::Json),
            ("respond-async, errors=text-only, errors=json", Style::TextOnly),
            ("errors=yaml, errors=json", Style::Json),
            ("errors=html", Style::Default),
            ("errors", Style::Default),
            ("error=json", Style::Default),
            ("", Style::Default),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, value.parse().unwrap());
            assert_eq!(Style::of(&headers), wanted, "{value}");
        }
        assert_eq!(Style::of(&HeaderMap::new()), Style::Default);
        let mut headers = HeaderMap::new();
        headers.append(PREFER, "wait=10".parse().unwrap());
        headers.append(PREFER, "errors=json".parse().unwrap());
        assert_eq!(Style::of(&headers), Style::Json);
    }

    #[test]
    fn who_wants_a_stream() {
        for accept in [
            "application/x-ndjson",
            "text/html, application/x-ndjson;q=0.5",
            "application/x-ndjson, application/json",
            "application/json;q=0.2, Application/X-NDJSON; q=0.3",
            "application/x-ndjson, */*",
        ] {
            assert!(prefers_stream(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/json, application/x-ndjson",
            "application/x-ndjson;q=0",
            "application/x-ndjson;q=0.1, application/json;q=0.2",
            "text/html",
        ] {
            assert!(!prefers_stream(accept), "{accept}");
        }
    }
}
