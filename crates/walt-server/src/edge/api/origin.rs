//! Refuses requests of web pages.
//!
//! A user may forward the socket to a TCP port of his machine (`ssh -L`), and then every page that his browser shows could
//! send requests there, in his name: the socket knows the account at its other end, not the page. Browsers name the page in
//! `Origin` (RFC 6454) or say where a request comes from in `Sec-Fetch-Site` (Fetch Metadata); no other client sends
//! these headers, and a page cannot leave them out.

use crate::{
    base::failure::{Failure, Kind},
    edge::api::reply::answer_error,
};
use axum::{
    extract::Request,
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};

/// Where a request of a page comes from (Fetch Metadata Request Headers, W3C).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses a request that a web page has made.
pub async fn refuse_pages(request: Request, next: Next) -> Response {
    if is_of_a_page(request.headers()) {
        let refusal = Failure::refusal(
            Kind::Forbidden,
            "The server's socket is not for web pages: this request was made by a page in a browser.",
        );
        return answer_error(refusal.hint("programs leave out the headers Origin and Sec-Fetch-Site"));
    }
    next.run(request).await
}

fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_add() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            is_of_a_page(&headers)
        };
        // An address that was typed is a navigation of a browser, too.
        assert!(with("origin", "null") && with("origin", "http://x") && with("sec-fetch-site", "none"));
        assert!(!with("referer", "http://x") && !is_of_a_page(&HeaderMap::new()));
    }
}
