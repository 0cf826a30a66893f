//! The server to talk to.
//!
//! ```text
//! WALT_SERVER ─▶ walt.server in ~/.walt/config ─▶ the socket on this machine ─▶ unknown: ask the user
//! ```
//! The first one that there is counts.

use crate::{Error, Result, config::Config};
use std::fmt;
use std::path::{Path, PathBuf};

/// Socket of a server with the default configuration.
pub const DEFAULT_SOCKET: &str = "/run/walt/walt.sock";
/// Environment variable that selects a server.
pub const ENV_SERVER: &str = "WALT_SERVER";
/// Names of this machine, as `walt.server` in the configuration of the existing system has them.
const LOCAL: [&str; 4] = ["localhost", "127.0.0.1", "::1", "localhost.localdomain"];
/// Seconds that ssh may take to connect, before it asks anything.
const SSH_CONNECT_S: u32 = 10;

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
    /// The server of `WALT_SERVER`, else of the configuration, else of this machine if its socket exists. `None` if nothing
    /// says which one.
    ///
    /// # Errors
    /// [`Error::BadTarget`], [`Error::BadServer`].
    pub fn chosen(config: &Config) -> Result<Option<Self>> {
        if std::env::var_os(ENV_SERVER).is_some_and(|value| !value.is_empty()) {
            return Self::from_env().map(Some);
        }
        if let Some(server) = config.server() {
            return Self::configured(server).map(Some);
        }
        Ok(Path::new(DEFAULT_SOCKET).exists().then(Self::default))
    }

    /// A server as users write it in their configuration: what `WALT_SERVER` may be, or a host. The host `localhost` is the
    /// socket on this machine, any other one is reached by ssh: no port of a server trusts a name.
    ///
    /// # Errors
    /// [`Error::BadServer`].
    pub fn configured(text: &str) -> Result<Self> {
        let bad = || Error::BadServer(text.to_owned());
        let text = text.trim();
        if LOCAL.iter().any(|name| text.eq_ignore_ascii_case(name)) {
            return Ok(Self::default());
        }
        if text.is_empty() {
            return Err(bad());
        }
        let url = match text.starts_with("unix:") || text.starts_with("ssh://") {
            true => text.to_owned(),
            // An IPv6 address.
            false if text.matches(':').count() > 1 && !text.contains('[') => format!("ssh://[{text}]"),
            false => format!("ssh://{text}"),
        };
        Self::parse(&url).map_err(|_| bad())
    }

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
            // A colon in brackets is part of an address.
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().map_err(|_| bad())?)),
            _ => (authority, None),
        };
        // ssh takes addresses without brackets.
        let destination = unbracketed(destination).ok_or_else(bad)?;
        // The destination becomes an argument of ssh, and the socket a word for the remote shell: ssh would take a
        // leading dash as an option, and the shell would interpret spaces and quotes.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
        let plain_host = |c: char| plain(c) || c == ':' || c == '%';
        if destination.is_empty() || destination.starts_with('-') || !destination.chars().all(plain_host) {
            return Err(bad());
        }
        if socket.as_ref().is_some_and(|s| !s.chars().all(plain)) {
            return Err(bad());
        }
        Ok(Self::Ssh { destination, port, socket })
    }

    /// Arguments of `ssh` for this target; `None` for a local socket.
    pub fn ssh_arguments(&self) -> Option<Vec<String>> {
        let Self::Ssh { destination, port, socket } = self else { return None };
        let mut arguments = vec!["-T".to_owned(), "-o".to_owned(), format!("ConnectTimeout={SSH_CONNECT_S}")];
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

/// A destination whose host may be an IPv6 address in brackets: without them. `None` if brackets are not in pairs, or an
/// address has none, since what follows its last colon would be a port.
fn unbracketed(destination: &str) -> Option<String> {
    let (user, host) = match destination.rsplit_once('@') {
        Some((user, host)) => (format!("{user}@"), host),
        None => (String::new(), destination),
    };
    if user.contains([':', '%']) {
        return None;
    }
    let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner?,
        None if host.contains([':', '%']) => return None,
        None => host,
    };
    (!host.is_empty()).then(|| format!("{user}{host}"))
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
                match destination.rsplit_once('@') {
                    Some((user, host)) if host.contains(':') => write!(f, "ssh://{user}@[{host}]")?,
                    None if destination.contains(':') => write!(f, "ssh://[{destination}]")?,
                    _ => write!(f, "ssh://{destination}")?,
                }
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
            ("ssh://[fd00::1]", ssh("fd00::1", None, None)),
            ("ssh://ann@[fe80::1%eth0]:22", ssh("ann@fe80::1%eth0", Some(22), None)),
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
            "ssh://[a",
            "ssh://a]",
            "ssh://fd00::1",
            "ssh://u:p@host",
            "ssh://ann@",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_in_the_configuration() {
        for (text, want) in [
            ("localhost", DEFAULT_SOCKET),
            ("LOCALHOST", DEFAULT_SOCKET),
            ("127.0.0.1", DEFAULT_SOCKET),
            ("::1", DEFAULT_SOCKET),
            ("lab.example.org ", "ssh://lab.example.org"),
            ("ann@lab", "ssh://ann@lab"),
            ("lab:2222", "ssh://lab:2222"),
            ("192.168.1.5", "ssh://192.168.1.5"),
            ("fd00::5", "ssh://[fd00::5]"),
            ("ssh://lab", "ssh://lab"),
            ("unix:/tmp/x.sock", "/tmp/x.sock"),
        ] {
            assert_eq!(Target::configured(text).map(|t| t.to_string()).ok().as_deref(), Some(want), "{text}");
        }
        for text in ["", " ", "-oProxyCommand=x", "a b", "http://lab", "unix:"] {
            assert!(matches!(Target::configured(text), Err(Error::BadServer(_))), "{text}");
        }
    }

    #[test]
    fn ssh_command_line() {
        let target = Target::parse("ssh://ann@lab:22/run/w.sock").unwrap();
        assert_eq!(
            target.ssh_arguments().unwrap().join(" "),
            "-T -o ConnectTimeout=10 -p 22 -- ann@lab env WALT_SERVER=unix:/run/w.sock walt proxy"
        );
        assert!(Target::default().ssh_arguments().is_none());
    }
}
