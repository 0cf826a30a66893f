//! Typed client of the WalT server's API (crate `walt-api`).
//!
//! ```text
//! Target ──connect──▶ Connection (walt.sock, or the pipes of `ssh HOST walt proxy`)
//!   Client            one HTTP/1.1 connection, opened at the first request and reused
//!     info, nodes, images, …         one answer each
//!     action(..) ─▶ Reply::Confirm   nothing was done: ask the user, repeat with the token
//!                   Reply::Events    a stream that ends with `Done` or `Error`
//!     live      ─▶ LiveStream        messages that keep a State up to date
//!     terminals ─▶ (TerminalInput, TerminalOutput)   a WebSocket on a connection of its own
//!     transfers ─▶ (TransferInput, TransferOutput)   the same, for files
//!     forward   ─▶ connections to a local port       a terminal for each
//! ```
//!
//! Everything runs on the caller's (single-threaded) runtime. No task outlives the [`Client`]. Dropping a stream closes its
//! connection, which cancels the action on the server.
//!
//! Limits: [`MAX_ANSWER`] for answers, [`MAX_EVENT`] for one event, [`CONNECT_TIMEOUT`] to connect.

mod answer;
mod connection;
pub mod credentials;
pub mod forward;
mod http;
mod live;
mod target;
mod terminal;
mod transfer;
pub mod tunnel;
mod websocket;

pub use answer::MAX_ANSWER;
pub use connection::{CONNECT_TIMEOUT, Connection};
pub use http::{Client, EventStream, LogLines, MAX_EVENT, Reply};
pub use live::{LiveStream, News, SILENCE_MAX, State};
pub use target::{DEFAULT_SOCKET, ENV_SERVER, ENV_USERNAME, Target};
pub use terminal::{Output, TerminalInput, TerminalOutput};
pub use transfer::{TransferInput, TransferOutput, Transferred};

use walt_api::ApiError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `WALT_SERVER` cannot be parsed.
    #[error(
        "WALT_SERVER is '{0}', which does not name a server; use unix:<path of walt.sock> or ssh://[user@]host[:port]"
    )]
    BadTarget(String),
    /// `WALT_USERNAME` cannot be sent in a header.
    #[error("WALT_USERNAME is '{0}', which is not a valid user name")]
    BadUser(String),
    /// No server answers at the target.
    #[error("cannot reach the WalT server at {target}: {reason}")]
    Connect {
        /// What was tried.
        target: String,
        /// What the system says.
        reason: String,
    },
    /// The connection broke, or the peer does not speak this API.
    #[error("{0}")]
    Broken(String),
    /// The server speaks another version of the API.
    #[error("the server speaks version {server} of the API, this client version {client}")]
    Version {
        /// Version of the server.
        server: u32,
        /// Version of this client.
        client: u32,
    },
    /// The server refused or failed.
    #[error("{0}")]
    Api(Box<ApiError>),
}

impl Error {
    /// The server closed the connection before it reported how the work ended.
    pub fn ended_early() -> Self {
        Self::Broken("the server closed the connection before the end".to_owned())
    }

    pub(crate) fn broken(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{what}: {why}"))
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, Error>;
