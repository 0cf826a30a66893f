//! The part `web` of the configuration.

use anyhow::{Result, bail};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port of HTTP.
const HTTP_PORT: u16 = 80;

/// The read-only web API and the help pages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Web {
    /// Where they are besides port 80 of walt-net: `ADDRESS[:PORT]`, with port 80 by default.
    #[serde(deserialize_with = "listen_address")]
    pub listen: Option<SocketAddr>,
}

fn listen_address<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    let alone = text.parse::<IpAddr>().map(|addr| SocketAddr::new(addr, HTTP_PORT));
    match alone.or_else(|_| text.parse()) {
        Ok(at) if at.port() != 0 => Ok(Some(at)),
        _ => Err(serde::de::Error::custom(format!(
            "'{text}' must be an address of this machine, and a port if it is not 80, such as 192.0.2.1 or 192.0.2.1:8080"
        ))),
    }
}

impl Web {
    /// Checks that it leaves port 80 of walt-net, where the server has this address, alone.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, walt_net: Ipv4Addr) -> Result<()> {
        let Some(at) = self.listen.filter(|at| at.port() == HTTP_PORT) else { return Ok(()) };
        if at.ip() == walt_net {
            bail!("web.listen: {at} is served already, since it is walt-net's: name another address");
        }
        if at.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            bail!(
                "web.listen: {at} has walt-net's port 80 in it: name one address of this machine, or another port"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::base::config::Config;

    #[test]
    fn where_the_web_server_listens() {
        let listen =
            |text: &str| Config::parse(&format!("web: {text}")).unwrap().web.listen.map(|at| at.to_string());
        assert_eq!(listen("{}"), None);
        assert_eq!(listen("{listen: null}"), None);
        for (text, at) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("192.168.183.1:8080", "192.168.183.1:8080"),
            ("2001:db8::1", "[2001:db8::1]:80"),
            ("'[2001:db8::1]:8080'", "[2001:db8::1]:8080"),
        ] {
            assert_eq!(listen(&format!("{{listen: {text}}}")).as_deref(), Some(at));
        }
    }
}
