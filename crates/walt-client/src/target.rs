//! The server to talk to: `WALT_SERVER`.

use crate::{Error, Result};
use std::fmt;
use std::path::PathBuf;

/// Socket of a server with the default configuration.
pub const DEFAULT_SOCKET: &str = "/run/walt/walt.sock";
/// Environment variable that selects a server.
pub const ENV_SERVER: &str = "WALT_SERVER";
/// Environment variable that names the user root acts for.
pub const ENV_USERNAME: &str = "WALT_USERNAME";

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A socket on this machine.
    Unix(PathBuf),
    /// A socket on another machine, through `ssh <destination> walt proxy`.
    Ssh {
        /// `host` or `user@host`, as ssh takes it.
        destination: String,
        /// Port of ssh, if not its default.
        port: Option<u16>,
        /// Socket there, if not its default.
        socket: Option<String>,
    },
}

impl Target {
    /// Parses `WALT_SERVER`; if absent or empty, it is [`DEFAULT_SOCKET`].
    ///
    /// # Errors
    /// [`Error::BadTarget`] if the value is neither `unix:` nor `ssh://`.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os(ENV_SERVER) {
            None => Ok(Self::default()),
            Some(value) => match value.to_str() {
                Some(text) => Self::parse(text),
                None => Err(Error::BadTarget(value.to_string_lossy().into_owned())),
            },
        }
    }

    /// Parses a value of `WALT_SERVER`.
    ///
    /// # Errors
    /// [`Error::BadTarget`], as [`Target::from_env`].
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::BadTarget(text.to_owned());
        if text.is_empty() {
            return Ok(Self::default());
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let rest = text.strip_prefix("ssh://").ok_or_else(bad)?;
        let (authority, socket) = match rest.find('/') {
            Some(at) if at + 1 < rest.len() => (&rest[..at], Some(rest[at..].to_owned())),
            Some(at) => (&rest[..at], None),
            None => (rest, None),
        };
        let (destination, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| bad())?)),
            None => (authority, None),
        };
        // The destination becomes an argument of ssh, and the socket a word for the remote shell: ssh would take a
        // leading dash as an option, and the shell would interpret spaces and quotes.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
        if destination.is_empty() || destination.starts_with('-') || !destination.chars().all(plain) {
            return Err(bad());
        }
        if socket.as_ref().is_some_and(|s| !s.chars().all(plain)) {
            return Err(bad());
        }
        Ok(Self::Ssh { destination: destination.to_owned(), port, socket })
    }

    /// Arguments of `ssh` for this target; `None` for a local socket.
    pub fn ssh_arguments(&self) -> Option<Vec<String>> {
        let Self::Ssh { destination, port, socket } = self else { return None };
        let mut arguments = vec!["-T".to_owned()];
        if let Some(port) = port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.push("--".to_owned());
        arguments.push(destination.clone());
        if let Some(socket) = socket {
            arguments.extend(["env".to_owned(), format!("{ENV_SERVER}=unix:{socket}")]);
        }
        arguments.extend(["walt".to_owned(), "proxy".to_owned()]);
        Some(arguments)
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::Unix(DEFAULT_SOCKET.into())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Ssh { destination, port, socket } => {
                write!(f, "ssh://{destination}")?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or(""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let ssh = |destination: &str, port, socket: Option<&str>| Target::Ssh {
            destination: destination.into(),
            port,
            socket: socket.map(str::to_owned),
        };
        for (text, want) in [
            ("", Target::Unix(DEFAULT_SOCKET.into())),
            ("unix:/tmp/a b/walt.sock", Target::Unix("/tmp/a b/walt.sock".into())),
            ("ssh://lab", ssh("lab", None, None)),
            ("ssh://lab/", ssh("lab", None, None)),
            ("ssh://ann@lab:2222", ssh("ann@lab", Some(2222), None)),
            ("ssh://lab/run/w/walt.sock", ssh("lab", None, Some("/run/w/walt.sock"))),
        ] {
            let got = Target::parse(text).unwrap();
            assert_eq!(got, want, "{text}");
            if !text.is_empty() && !text.ends_with('/') && text.starts_with("ssh") {
                assert_eq!(got.to_string(), text);
            }
        }
        for text in [
            "localhost",
            "unix:",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a b",
            "ssh://a:x",
            "ssh://a/b;c",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ssh_command_line() {
        let target = Target::parse("ssh://ann@lab:22/run/w.sock").unwrap();
        assert_eq!(
            target.ssh_arguments().unwrap().join(" "),
            "-T -p 22 -- ann@lab env WALT_SERVER=unix:/run/w.sock walt proxy"
        );
        assert!(Target::default().ssh_arguments().is_none());
    }
}
