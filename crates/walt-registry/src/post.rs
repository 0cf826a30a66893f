//! Documents that are posted to a server which is not a registry, over the same connections.

use crate::{Credentials, Endpoint, Limits, Result, http};
use hyper::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};

/// Most bytes of an answer that are kept.
const ANSWER_MAX: u64 = 4096;

/// A client of one server.
#[derive(Debug)]
pub struct Poster {
    http: http::Http,
    credentials: Option<Credentials>,
}

impl Poster {
    /// A client of a server; it connects with the first document.
    ///
    /// # Errors
    /// TLS cannot be used.
    pub fn new(endpoint: Endpoint, credentials: Option<Credentials>, limits: Limits) -> Result<Self> {
        Ok(Self { http: http::Http::new(endpoint, limits)?, credentials })
    }

    /// Posts JSON; the status of the answer, and the beginning of its text.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer in time.
    pub async fn json(&self, path: &str, body: Vec<u8>) -> Result<(u16, String)> {
        let mut head = http::RequestHead::new(Method::POST, self.http.endpoint.url(path));
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(Ok(value)) = self.credentials.as_ref().map(|c| HeaderValue::from_str(&c.basic())) {
            head.headers.insert(AUTHORIZATION, value);
        }
        let answer = self.http.send(&head, http::full(body), None).await?;
        let status = answer.status().as_u16();
        let text = self.http.document(answer, ANSWER_MAX).await.unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&text).trim().to_owned()))
    }
}
