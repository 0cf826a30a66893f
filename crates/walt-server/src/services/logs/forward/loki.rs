//! Loki's push API (`POST /loki/api/v1/push`, JSON; Grafana Loki HTTP API).
//!
//! Labels are the issuer and the stream. A line that Loki refuses for good (400: it is too old, or out of order beyond
//! Loki's limits) is not sent again; the server's log says so. Everything else is tried again.

use super::Line;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use walt_logs::show;
use walt_registry::{Credentials, Endpoint, Limits, Poster, Protocol};

/// The path of the push API.
const PATH: &str = "/loki/api/v1/push";

/// A Loki server.
pub(super) struct Loki {
    poster: Poster,
    path: String,
    name: String,
}

impl Loki {
    /// The server at a URL: `http://host:3100`, or `https://user:password@host/prefix`.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn new(url: &str) -> Result<Self> {
        let Parsed { endpoint, credentials, prefix } = parse(url)
            .with_context(|| format!("logs.forward.loki: '{url}' is not a URL such as http://host:3100"))?;
        let name = endpoint.to_string();
        let poster = Poster::new(endpoint, credentials, Limits::default())?;
        Ok(Self { poster, path: format!("{prefix}{PATH}"), name })
    }

    /// Sends a batch.
    pub async fn send(&mut self, lines: &[Line]) -> Result<()> {
        let (status, text) = self.poster.json(&self.path, body(lines)).await?;
        match status {
            200..300 => Ok(()),
            400 => {
                tracing::warn!("Loki at {} refuses {} log lines: {text}", self.name, lines.len());
                Ok(())
            }
            _ => bail!("Loki at {} answers with status {status}: {text}", self.name),
        }
    }
}

struct Parsed {
    endpoint: Endpoint,
    credentials: Option<Credentials>,
    prefix: String,
}

fn parse(url: &str) -> Option<Parsed> {
    let (scheme, rest) = url.split_once("://")?;
    let (protocol, usual) = match scheme {
        "http" => (Protocol::Http, 80),
        "https" => (Protocol::Https, 443),
        _ => return None,
    };
    let (authority, prefix) = match rest.find('/') {
        Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
        None => (rest, ""),
    };
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user.split_once(':')?), place),
        None => (None, authority),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return None;
    }
    let port = port.map_or(Some(usual), |port| port.parse().ok())?;
    let credentials = user.map(|(username, password)| Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
    });
    let endpoint = Endpoint { host: host.to_owned(), port, protocol, ca: None };
    Some(Parsed { endpoint, credentials, prefix: prefix.to_owned() })
}

fn body(lines: &[Line]) -> Vec<u8> {
    let mut streams: BTreeMap<(&str, &str), Vec<[String; 2]>> = BTreeMap::new();
    for line in lines {
        // Nanoseconds since 1970.
        let at = format!("{}000", line.at.max(0));
        // Loki takes text only.
        let text = std::str::from_utf8(&line.text)
            .map_or_else(|_| show::escaped(&line.text).into_owned(), str::to_owned);
        streams.entry((&line.issuer, &line.stream)).or_default().push([at, text]);
    }
    let streams: Vec<serde_json::Value> = streams
        .into_iter()
        .map(|((issuer, stream), values)| {
            serde_json::json!({"stream": {"job": "walt", "issuer": issuer, "stream": stream}, "values": values})
        })
        .collect();
    serde_json::json!({ "streams": streams }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let of = |url: &str| parse(url).map(|p| (p.endpoint.to_string(), p.prefix, p.credentials.is_some()));
        assert_eq!(of("http://loki:3100"), Some(("loki:3100".into(), String::new(), false)));
        assert_eq!(of("https://u:p@loki/a/b/"), Some(("loki".into(), "/a/b".into(), true)));
        assert_eq!(of("http://[::1]:3100/"), Some(("[::1]:3100".into(), String::new(), false)));
        for bad in ["loki:3100", "ftp://loki", "http://", "http://loki:x", "http://u@loki", "http://[::1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn lines_by_stream() {
        let line = |issuer: &str, at, text: &[u8]| Line {
            at,
            issuer: issuer.into(),
            stream: "app".into(),
            text: text.to_vec(),
        };
        let body = body(&[line("vn2", 5, b"one"), line("vn1", 6, b"\xfftwo"), line("vn2", 7, b"")]);
        let expected = serde_json::json!({"streams": [
            {"stream": {"job": "walt", "issuer": "vn1", "stream": "app"}, "values": [["6000", "\\xfftwo"]]},
            {"stream": {"job": "walt", "issuer": "vn2", "stream": "app"}, "values": [["5000", "one"], ["7000", ""]]},
        ]});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
    }
}
