//! Log lines: which ones are wanted, how they are written, and checkpoints.

use serde::{Deserialize, Serialize};

/// How lines are printed when nothing else is said.
pub const DEFAULT_FORMAT: &str = "{timestamp:%H:%M:%S.%f} {issuer}.{stream} -> {line}";
/// Which issuers are meant when nothing else is said.
pub const DEFAULT_ISSUERS: &str = "my-nodes";

/// Which lines [`crate::route::LOG_LINES`] answers with: one line of text each, or one JSON object ([`LogLine`]) each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LogQuery {
    /// A set of devices; [`DEFAULT_ISSUERS`] if absent.
    pub issuers: Option<String>,
    /// A regular expression that the name of a stream contains a match of. Streams of pieces, such as consoles, are among
    /// them only if this is given.
    pub streams: Option<String>,
    /// A regular expression that a line contains a match of.
    pub pattern: Option<String>,
    /// Past lines: `none`, `full`, or two bounds; `none` if absent.
    pub history: Option<String>,
    /// Then lines as they come, until the client closes the connection.
    pub realtime: bool,
    /// Ends the answer when what is waited for has come.
    pub wait: Option<LogWait>,
    /// How lines are printed, as text; without it, they are JSON.
    pub format: Option<String>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogWait {
    /// One line.
    Any,
    /// One line of each issuer.
    All,
}

/// A line as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// Seconds since 1970.
    pub timestamp: f64,
    /// Its text; bytes that are not UTF-8 are shown as `\xff`.
    pub line: String,
    /// Who logged it.
    pub issuer: String,
    /// Its stream.
    pub stream: String,
    /// Its exact bytes (RFC 4648 §4), if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_base64: Option<String>,
}

/// Answer of [`crate::route::LOG_COUNT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogCount {
    /// About how many past lines there are, whatever their text is.
    pub lines: u64,
}

/// Answer of [`crate::route::LOG_STORE`]: what a check of the store of log lines has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStoreReport {
    /// Files.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Lines in them.
    pub lines: u64,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// A moment to which a user has given a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// Seconds since 1970.
    pub timestamp: f64,
    /// The same, `YYYY-MM-DD HH:MM:SS.ffffff` in the server's local time.
    pub date: String,
}

/// The moment of a new checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointDate {
    /// So many microseconds ago.
    Ago(i64),
    /// Microseconds since 1970.
    At(i64),
}

/// Body of [`crate::route::LOG_ACTIONS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LogAction {
    /// `walt log add-checkpoint`
    AddCheckpoint {
        /// Its name.
        name: String,
        /// Its moment; now if absent.
        date: Option<CheckpointDate>,
    },
    /// `walt log remove-checkpoint`
    RemoveCheckpoint {
        /// Its name.
        name: String,
    },
}
