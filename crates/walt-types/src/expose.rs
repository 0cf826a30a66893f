//! Ports that the server exposes: the value of the setting `expose`.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// Most exposed ports of a device.
pub const EXPOSES_MAX: usize = 64;

/// One port of a device, reached by a port of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expose {
    /// The port of the device.
    pub device_port: u16,
    /// The port of the server.
    pub server_port: u16,
}

impl FromStr for Expose {
    type Err = ParseError;
    /// `80:8080`.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || {
            ParseError(format!(
                "'{s}' is not a pair of ports; write the port of the device, ':' and the port of the server, such as 80:8080"
            ))
        };
        let (device, server) = s.split_once(':').ok_or_else(bad)?;
        let port = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if !plain {
                return Err(bad());
            }
            text.parse().ok().filter(|port: &u16| *port != 0).ok_or_else(|| {
                ParseError(format!("'{text}' is not a TCP port; ports are numbers from 1 to 65535"))
            })
        };
        Ok(Self { device_port: port(device)?, server_port: port(server)? })
    }
}

impl fmt::Display for Expose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device_port, self.server_port)
    }
}

/// The exposed ports of a device: no port is in it twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exposes(Vec<Expose>);

impl Exposes {
    /// One after the other, as they were written.
    pub fn iter(&self) -> impl Iterator<Item = Expose> {
        self.0.iter().copied()
    }

    /// Whether no port is exposed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Exposes {
    type Err = ParseError;
    /// `none`, or pairs of ports separated by commas.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        if s == "none" {
            return Ok(Self::default());
        }
        let mut all: Vec<Expose> = Vec::new();
        for part in s.split(',') {
            let new: Expose = part.parse()?;
            let twice = |what: &str, port: u16| ParseError(format!("port {port} of {what} is in it twice"));
            if all.iter().any(|old| old.server_port == new.server_port) {
                return Err(twice("the server", new.server_port));
            }
            if all.iter().any(|old| old.device_port == new.device_port) {
                return Err(twice("the device", new.device_port));
            }
            if all.len() == EXPOSES_MAX {
                return Err(ParseError(format!("a device has at most {EXPOSES_MAX} exposed ports")));
            }
            all.push(new);
        }
        Ok(Self(all))
    }
}

impl fmt::Display for Exposes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_pairs() {
        for text in ["none", "80:8080", "80:8080,22:2222", "1:65535,65535:1"] {
            let exposes: Exposes = text.parse().expect(text);
            assert_eq!(exposes.to_string(), text);
            assert_eq!(exposes.is_empty(), text == "none");
        }
        let exposes: Exposes = "80:8080,22:2222".parse().expect("a list");
        assert_eq!(exposes.iter().nth(1), Some(Expose { device_port: 22, server_port: 2222 }));
        let most: Vec<String> = (1..=EXPOSES_MAX).map(|n| format!("{n}:{n}")).collect();
        assert_eq!(most.join(",").parse::<Exposes>().map(|e| e.iter().count()), Ok(EXPOSES_MAX));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let why = |text: &str| text.parse::<Exposes>().expect_err(text).to_string();
        for bad in ["", "80", "80:", ":80", "a:80", "80:+80", "80:8080,", "80:8080:1", "None"] {
            assert!(why(bad).contains("is not a pair of ports"), "{bad}: {}", why(bad));
        }
        for bad in ["0:80", "80:0", "80:65536", "99999999999999999999:80"] {
            assert!(why(bad).contains("ports are numbers from 1 to 65535"), "{bad}: {}", why(bad));
        }
        assert_eq!(why("80:8080,22:8080"), "port 8080 of the server is in it twice");
        assert_eq!(why("80:8080,80:8081"), "port 80 of the device is in it twice");
        let many: Vec<String> = (1..=EXPOSES_MAX + 1).map(|n| format!("{n}:{n}")).collect();
        assert_eq!(why(&many.join(",")), "a device has at most 64 exposed ports");
    }
}
