//! Terminals over WebSocket: the messages of all shells, `node run`, `node console`, `node ping` and `node expose`.
//!
//! The client sends one text message that opens the terminal. Then binary messages carry bytes, the
//! first byte naming the channel ([`STDIN`], [`STDOUT`], [`STDERR`]), and text messages carry a
//! [`ClientMessage`] or a [`ServerMessage`] as JSON. The server ends with [`ServerMessage::Exited`]
//! or [`ServerMessage::Error`]. If a client disconnects without a message, an image shell keeps running.

use crate::{ApiError, RegistryCredentials};
use serde::{Deserialize, Serialize};

/// Channel byte: client to server, input of the program.
pub const STDIN: u8 = 0;
/// Channel byte: server to client, output of the program (or of its terminal).
pub const STDOUT: u8 = 1;
/// Channel byte: server to client, error output of a program without terminal.
pub const STDERR: u8 = 2;
/// Channel byte of [`OpenNodeRun`]: output of the program on one node; the node's number follows, in [`NODE_NUMBER`] bytes.
pub const NODE_STDOUT: u8 = 3;
/// Channel byte of [`OpenNodeRun`]: error output of the program on one node; its number follows.
pub const NODE_STDERR: u8 = 4;
/// Bytes of a node's number, the most significant one first.
pub const NODE_NUMBER: usize = 4;
/// Bytes of input that a client of [`OpenNodeRun`] may send before [`ServerMessage::Consumed`] says that the program has
/// read some of them: the server goes on reading messages of a client whose input nobody reads.
pub const INPUT_WINDOW: usize = 1 << 20;
/// Largest message, in bytes; longer input is split into several.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Largest script on standard input of an image shell, in bytes (it is read completely before it starts).
pub const MAX_SCRIPT: usize = 64 << 20;

/// The caller's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenImageShell {
    /// Image of the caller.
    pub image: String,
    /// The caller's terminal. Without one, standard input is a script: the client sends all of it, then
    /// [`ClientMessage::Eof`], and only then does the shell start.
    pub tty: Option<Tty>,
    /// Attach to the open session of the image instead of opening one.
    #[serde(default)]
    pub resume: bool,
}

/// Opens a terminal on, or about, one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenNodeTerminal {
    /// A set of exactly one node.
    pub node: String,
    /// The program to run.
    pub what: NodeTerminal,
    /// The caller's terminal, if the program gets one.
    pub tty: Option<Tty>,
    /// Token of the confirmation if the node is another user's.
    #[serde(default)]
    pub confirm: Option<String>,
}

/// Programs that run on or about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NodeTerminal {
    /// A login shell of root by ssh; waits for the end of the boot first.
    Shell,
    /// The console of a virtual node.
    Console,
    /// `ping` from the server.
    Ping,
    /// The same, of a device of any type.
    PingDevice,
    /// A session by ssh on a device that is not a node.
    DeviceShell {
        /// The account there.
        user: String,
    },
    /// Nothing runs: waits for the end of the boot.
    Reach,
    /// The same, for a device of any type; another user's node needs a confirmation.
    ReachDevice,
    /// A TCP connection to a node or another device. `Started` means that it is open; both directions end by themselves
    /// ([`ClientMessage::Eof`], [`ServerMessage::Eof`]).
    Connect {
        /// The port.
        port: u16,
    },
}

/// Runs a command by ssh on a set of nodes, on many of them at once. Nodes that boot are waited for.
///
/// The server first sends [`ServerMessage::Nodes`]. If there is one node and a terminal, all goes on as for
/// [`OpenNodeTerminal`]. Otherwise output comes on the channels [`NODE_STDOUT`] and [`NODE_STDERR`], each node ends with
/// [`ServerMessage::NodeExited`] or [`ServerMessage::NodeFailed`], and the last message is [`ServerMessage::Exited`] with
/// the highest status. Input goes to the first node. If the client disconnects, the command is ended on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenNodeRun {
    /// Set of nodes.
    pub nodes: String,
    /// A command line for the shell of root on the nodes.
    pub command: String,
    /// The caller's terminal, if the command is to have one on each node.
    pub tty: Option<Tty>,
    /// Token of the confirmation if nodes are another user's.
    #[serde(default)]
    pub confirm: Option<String>,
}

/// Text messages of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The size of the window has changed.
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
    /// ctrl-C, of [`OpenNodeRun`]: ends the command on all nodes.
    Interrupt,
    /// Answer to [`ServerMessage::Credentials`].
    Credentials {
        /// The registry's label.
        registry: String,
        /// The user's credentials for it, if he has any.
        credentials: Option<RegistryCredentials>,
    },
}

/// Text messages of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum ServerMessage {
    /// What the server is waiting for, for the busy indicator.
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
    /// The nodes of [`OpenNodeRun`], in order: their numbers are the positions.
    Nodes {
        /// Their names.
        names: Vec<String>,
    },
    /// The command ended on one of them.
    NodeExited {
        /// The node's number.
        node: usize,
        /// Its exit status; 128 + n if signal n ended it.
        status: i32,
    },
    /// The command did not run on one of them, or nobody knows how it ended.
    NodeFailed {
        /// The node's number.
        node: usize,
        /// What counts as its exit status.
        status: i32,
        /// Why: a sentence.
        reason: String,
    },
    /// So much input was read by the program, in addition.
    Consumed {
        /// Bytes.
        bytes: usize,
    },
    /// The other side of a connection sends nothing any more.
    Eof,
    /// The program ended.
    Exited {
        /// Its exit status; 128 + n if signal n ended it.
        status: i32,
    },
    /// Asks for the user's credentials for a registry. Sent only to clients that announced that they answer.
    Credentials {
        /// The registry's label.
        registry: String,
        /// The registry rejected the stored ones: ask the user, if there is one at a terminal.
        needed: bool,
    },
    /// The program could not be started, or was ended by an error.
    Error {
        /// What failed.
        error: ApiError,
    },
}
