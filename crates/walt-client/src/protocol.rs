//! Which version of the API both sides speak: a header of each request and of each answer.

use crate::{Error, Result};
use hyper::header::{HeaderMap, HeaderValue};
use walt_api::{HEADER_PROTOCOL, HEADER_VERSION, PROTOCOL};

/// Says in a request which version this client speaks.
pub(crate) fn announce(headers: &mut HeaderMap) {
    headers.insert(HEADER_PROTOCOL, HeaderValue::from(PROTOCOL));
}

/// Looks in an answer at the version that the server speaks. One that does not say it is older than that header; its
/// `info` has the version.
///
/// # Errors
/// [`Error::Version`].
pub(crate) fn check(headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(server) = text(HEADER_PROTOCOL).and_then(|text| text.parse().ok()) else { return Ok(()) };
    if server == PROTOCOL {
        return Ok(());
    }
    let server_version = text(HEADER_VERSION).unwrap_or("of an unknown version").to_owned();
    Err(Error::Version { server, client: PROTOCOL, server_version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_other_versions() {
        let answer = |protocol: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER_PROTOCOL, HeaderValue::from_static(protocol));
            headers.insert(HEADER_VERSION, HeaderValue::from_static("7.1"));
            check(&headers)
        };
        assert!(answer("1").is_ok() && answer("x").is_ok() && check(&HeaderMap::new()).is_ok());
        let Err(Error::Version { server: 2, client: PROTOCOL, server_version }) = answer("2") else {
            panic!("another version")
        };
        assert_eq!(server_version, "7.1");
        let mut request = HeaderMap::new();
        announce(&mut request);
        assert_eq!(request[HEADER_PROTOCOL], "1");
    }
}
