//! Versions of the API: a client that speaks another one is refused before anything is done.

use crate::{
    base::failure::{Failure, Kind},
    edge::api::reply::answer_error,
};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue},
    middleware::Next,
    response::Response,
};
use walt_api::{HEADER_PROTOCOL, HEADER_VERSION, PROTOCOL, route};

/// Refuses requests of clients of another version, and says in every answer what this server speaks.
pub async fn check(request: Request, next: Next) -> Response {
    // Whoever is refused can ask who refuses.
    let is_question = request.uri().path() == route::INFO;
    let mut response = match other(request.headers()) {
        Some(client) if !is_question => answer_error(refusal(&client)),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(HEADER_PROTOCOL, HeaderValue::from(PROTOCOL));
    headers.insert(HEADER_VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}

/// The version of a client, if it is not that of this server.
fn other(headers: &HeaderMap) -> Option<String> {
    let version = headers.get(HEADER_PROTOCOL)?;
    let text = version.to_str().unwrap_or("?");
    (text != PROTOCOL.to_string()).then(|| text.to_owned())
}

fn refusal(client: &str) -> Failure {
    let message = format!(
        "walt-server {} speaks version {PROTOCOL} of the API, and the client version {client}; nothing was done.",
        env!("CARGO_PKG_VERSION")
    );
    let hint = match client.parse::<u32>() {
        Ok(client) if client > PROTOCOL => "Upgrade the package 'walt-server' on the server.",
        _ => "Upgrade the package 'walt' on the machine of the client.",
    };
    Failure::refusal(Kind::BadRequest, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused() {
        let of = |value: &'static str| {
            other(&HeaderMap::from_iter([(
                axum::http::HeaderName::from_static(HEADER_PROTOCOL),
                HeaderValue::from_static(value),
            )]))
        };
        assert_eq!((of("1"), other(&HeaderMap::new())), (None, None));
        assert_eq!((of("2").as_deref(), of("x").as_deref()), (Some("2"), Some("x")));
    }
}
