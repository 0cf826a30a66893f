//! Raw HTTP on `walt.sock`: what a test can say that the client would not.

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest answer time of one request.
const LIMIT: Duration = Duration::from_secs(120);

/// One caller; every request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Api {
    /// `walt.sock`.
    pub socket: PathBuf,
    /// Value of the header `walt-user`, which root may send.
    pub user: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body, without transfer coding.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.body))
    }
    /// The events of an action's answer.
    pub fn events(&self) -> Vec<Value> {
        self.body
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("no JSON ({e}): {l}")))
            .collect()
    }
    /// The token of a 409.
    pub fn token(&self) -> String {
        assert_eq!(self.status, 409, "{self:?}");
        let json = self.json();
        json["confirmation"]["token"].as_str().unwrap_or_else(|| panic!("no token in {json}")).to_owned()
    }
}

impl Api {
    /// `GET`.
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, None, None)
    }

    /// `POST` of a JSON body, with the token of a confirmation if there is one.
    pub fn post(&self, path: &str, body: &Value, token: Option<&str>) -> Reply {
        self.request("POST", path, Some(&body.to_string()), token)
    }

    /// `POST` to the nodes' actions.
    pub fn node(&self, action: &Value, token: Option<&str>) -> Reply {
        self.post("/api/v1/actions/node", action, token)
    }

    fn request(&self, method: &str, path: &str, body: Option<&str>, token: Option<&str>) -> Reply {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: walt\r\nConnection: close\r\n");
        if let Some(user) = &self.user {
            text += &format!("walt-user: {user}\r\n");
        }
        if let Some(token) = token {
            text += &format!("walt-confirm: {token}\r\n");
        }
        if let Some(body) = body {
            text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body.unwrap_or("");
        parse(&self.exchange(text.as_bytes()))
    }

    /// Sends bytes and reads to the end of the connection.
    pub fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket)
            .unwrap_or_else(|e| panic!("cannot connect to {}: {e}", self.socket.display()));
        stream.set_read_timeout(Some(LIMIT)).expect("a socket has a timeout");
        stream.write_all(request).expect("the server reads requests");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers in time");
        answer
    }
}

fn parse(answer: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no HTTP status: {head}"));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Reply { status, body: if chunked { dechunk(body) } else { body.to_owned() } }
}

/// RFC 9112 section 7.1, without trailers.
fn dechunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size =
            usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("bad chunk size {size:?}"));
        if size == 0 {
            break;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let plain = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!((plain.status, plain.body.as_str()), (404, "{}"));
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n");
        assert_eq!(chunked.body, "abcd");
    }
}
