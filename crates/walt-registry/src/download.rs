//! Downloads one file from a web server by its URL, for `ADD` of a Dockerfile.

use crate::{
    Endpoint, Error, Limits, Protocol,
    http::{Http, RequestHead},
};
use base64::Engine;
use hyper::{
    Method, StatusCode, Uri,
    body::Body,
    header::{AUTHORIZATION, HeaderValue, LAST_MODIFIED},
};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::{fs::File, io::Write, time::SystemTime};

/// A downloaded file.
#[derive(Debug)]
pub struct Downloaded {
    /// Digest of the bytes.
    pub sha256: [u8; 32],
    /// Last modification, if the server sends it (RFC 9110, 8.8.2).
    pub modified: Option<SystemTime>,
}

/// Rewords an error of the registry client for a server that is not a registry.
fn reason(e: Error) -> String {
    match e {
        Error::Unreachable { why, .. } => format!("cannot reach the server: {why}"),
        Error::Invalid { why, .. } => format!("invalid answer of the server: {why}"),
        other => other.to_string(),
    }
}

/// Downloads the file at a URL, at most `max` bytes. Redirections and times are limited by [`Limits`].
///
/// # Errors
/// The end of a sentence that names the URL: what is wrong with it, with its server, or with the disk.
pub async fn download(url: &str, to: &mut File, max: u64) -> Result<Downloaded, String> {
    let (http, request) = request(url)?;
    let mut answer = http.get(request).await.map_err(reason)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the server answered {}", answer.status()));
    }
    let large = || format!("it has more than {max} bytes");
    if answer.body().size_hint().lower() > max {
        return Err(large());
    }
    let modified =
        answer.headers().get(LAST_MODIFIED).and_then(|t| httpdate::parse_http_date(t.to_str().ok()?).ok());
    let (mut hash, mut size) = (Sha256::new(), 0);
    while let Some(piece) = http.piece(answer.body_mut()).await.map_err(reason)? {
        size += piece.len() as u64;
        if size > max {
            return Err(large());
        }
        hash.update(&piece);
        to.write_all(&piece).map_err(|e| format!("cannot store it: {e}"))?;
    }
    Ok(Downloaded { sha256: hash.finalize().into(), modified })
}

/// A client and the request for a URL. Credentials before `@` become a header.
fn request(url: &str) -> Result<(Http, RequestHead), String> {
    let (scheme, rest) = url.split_once("://").ok_or("it is not a URL")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, authority) = authority.rsplit_once('@').map_or((None, authority), |(u, a)| (Some(u), a));
    let url = format!("{}://{authority}{path}", scheme.to_ascii_lowercase());
    let uri: Uri = url
        .parse()
        .map_err(|_| "it is not a URL: write a blank as %20, and other special characters likewise")?;
    let host = uri.host().ok_or("it does not name a server")?.to_owned();
    let http = |protocol| {
        let port = uri.port_u16().unwrap_or(if protocol == Protocol::Http { 80 } else { 443 });
        Http::new(Endpoint { host: host.clone(), port, protocol, ca: None }, Limits::default())
            .map_err(reason)
    };
    // It may be redirected from http to https, which needs the trusted authorities.
    let http = match http(Protocol::Https) {
        Err(_) if scheme.eq_ignore_ascii_case("http") => http(Protocol::Http)?,
        other => other?,
    };
    let mut request = RequestHead::new(Method::GET, url);
    if let Some(user) = user {
        let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
        let user: Vec<u8> = percent_decode_str(&user).collect();
        let text = base64::engine::general_purpose::STANDARD.encode(user);
        let value = HeaderValue::from_str(&format!("Basic {text}"));
        let mut value = value.map_err(|_| "it has a password that cannot be sent")?;
        value.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, value);
    }
    Ok((http, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_not_part_of_the_url() {
        let (_, got) = request("http://ann:a%3Ab@h:81/x?y").unwrap();
        assert_eq!(got.url, "http://h:81/x?y");
        assert_eq!(got.headers[AUTHORIZATION], "Basic YW5uOmE6Yg==");
        assert!(request("http://h/a b").is_err_and(|why| why.contains("%20")));
        let (_, request) = request("http://h").unwrap();
        assert_eq!((request.url.as_str(), request.headers.len()), ("http://h", 0));
    }
}
