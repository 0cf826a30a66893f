//! Terminals over WebSocket: the messages of both shells, `node run`, `node console` and `node ping`.
//!
//! The client sends one text message that opens the terminal. Then binary messages carry bytes, the
//! first byte naming the channel ([`STDIN`], [`STDOUT`], [`STDERR`]), and text messages carry a
//! [`ClientMessage`] or a [`ServerMessage`] as JSON. The server ends with [`ServerMessage::Exited`]
//! or [`ServerMessage::Error`]. A client that goes away without a word leaves an image shell running.

use crate::{ApiError, RegistryCredentials};
use serde::{Deserialize, Serialize};

/// Channel byte: client to server, input of the program.
pub const STDIN: u8 = 0;
/// Channel byte: server to client, output of the program (or of its terminal).
pub const STDOUT: u8 = 1;
/// Channel byte: server to client, error output of a program without terminal.
pub const STDERR: u8 = 2;
/// Largest message in bytes; longer input is cut into several.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Largest script on standard input of an image shell, in bytes (it is read whole before it starts).
pub const MAX_SCRIPT: usize = 64 << 20;

/// The caller's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tty {
    /// Value of `TERM`.
    pub term: String,
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Opens an image shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenImageShell {
    /// Own image.
    pub image: String,
    /// The caller's terminal; without it, standard input is a script: all of it is sent, then
    /// [`ClientMessage::Eof`], and only then the shell starts.
    pub tty: Option<Tty>,
    /// Attach to the open session of the image instead of opening one.
    #[serde(default)]
    pub resume: bool,
}

/// Opens a terminal on, or about, one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenNodeTerminal {
    /// One node (a set that must have one member; `run` too: the client goes through the set).
    pub node: String,
    /// What runs.
    pub what: NodeTerminal,
    /// The caller's terminal, if the program gets one.
    pub tty: Option<Tty>,
    /// Token of the confirmation if the node is another user's.
    #[serde(default)]
    pub confirm: Option<String>,
}

/// Programs that run on or about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NodeTerminal {
    /// A login shell of root by ssh; waits for the end of the boot first.
    Shell,
    /// A command by ssh; waits for the end of the boot first.
    Run {
        /// Passed to the remote shell as one string.
        command: String,
    },
    /// The console of a virtual node.
    Console,
    /// `ping` from the server.
    Ping,
}

/// Text messages of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The window has another size.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// End of standard input.
    Eof,
    /// Do not wait for the node's boot any longer: try now.
    Proceed,
    /// Answer to [`ServerMessage::Credentials`].
    Credentials {
        /// The registry's label.
        registry: String,
        /// What the user has for it, if anything.
        credentials: Option<RegistryCredentials>,
    },
}

/// Text messages of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ServerMessage {
    /// What is waited for, for the busy indicator.
    Busy {
        /// Label without dots.
        label: String,
    },
    /// A line for standard error.
    Note {
        /// The line.
        text: String,
    },
    /// The program runs: bytes flow from now on.
    Started {
        /// The session, for an image shell.
        session: Option<String>,
        /// Whether the image's operating system was started (image shells).
        #[serde(default)]
        os: bool,
    },
    /// The program ended.
    Exited {
        /// Its exit status; 128 + n if signal n ended it.
        status: i32,
    },
    /// What has the user for a registry? Asked only of clients that said they answer.
    Credentials {
        /// The registry's label.
        registry: String,
        /// What he had was not enough: he should be asked, if he is there.
        needed: bool,
    },
    /// Nothing (more) runs, because of this.
    Error {
        /// What failed.
        error: ApiError,
    },
}
