//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the store did not do something. Cloned: one failed batch is reported to all who wrote lines of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An operation on a file failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: Arc<io::Error>,
    },
    /// A batch was not stored, and its lines are lost unless their sender has kept them. The store goes on.
    #[error("{} dropped ({bytes} bytes): cannot write to {path}: {source}{}", counted(*lines), hint(source))]
    Dropped {
        /// Lines of the batch.
        lines: u64,
        /// Their text.
        bytes: u64,
        /// The segment, or the catalogue.
        path: PathBuf,
        /// The system's reason; see [`Error::is_disk_full`].
        source: Arc<io::Error>,
    },
    /// A part of a file is not what was written. Queries go on without it.
    #[error("{path} is damaged at byte {offset}: {what}; the lines there cannot be read")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damaged block starts.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Another process has opened the store.
    #[error("the log store {0} is in use by another process: stop that one first")]
    InUse(PathBuf),
    /// The store was made by another version.
    #[error(
        "{0} was written by another version of WalT: use that version, or move the directory of the logs away"
    )]
    Version(PathBuf),
    /// Lines before these were dropped, or came by another connection: their sender goes on from its position.
    #[error("log lines before these were not stored, or others were: ask for the position again")]
    Gap,
    /// The store is closing.
    #[error("the log store is closing: the lines were not stored")]
    Closed,
    /// A line is longer than [`MAX_LINE`](crate::limits::MAX_LINE).
    #[error("a log line of {0} bytes is longer than {max}: cut it into several", max = crate::limits::MAX_LINE)]
    LineTooLong(usize),
    /// A chunk is full: append it and begin another one.
    #[error("a chunk of log lines is full: it takes {rows} lines and {bytes} bytes",
        rows = crate::limits::MAX_CHUNK_ROWS, bytes = crate::limits::MAX_CHUNK_BYTES)]
    ChunkFull,
    /// The name of an issuer or a stream is empty or too long.
    #[error("the name of a log {kind} has {length} bytes: use 1 to {max}")]
    BadName {
        /// "issuer" or "stream".
        kind: &'static str,
        /// Its length.
        length: usize,
        /// The longest one.
        max: usize,
    },
    /// An issuer or the store has too many streams.
    #[error("cannot add the log stream '{stream}' of {issuer}: there are already {max} streams{}; use fewer names of streams",
        if *whole_store { " in the store" } else { "" })]
    TooManyStreams {
        /// The issuer.
        issuer: String,
        /// The stream that would be new.
        stream: String,
        /// The limit.
        max: usize,
        /// Whether the limit is that of all issuers together.
        whole_store: bool,
    },
    /// A regular expression is not valid, or too large.
    #[error("invalid regular expression: {0}")]
    Pattern(String),
}

fn hint(source: &io::Error) -> &'static str {
    if is_full(source) { "; free space there, or lower the size that logs may take" } else { "" }
}

fn counted(lines: u64) -> String {
    if lines == 1 { "1 log line was".into() } else { format!("{lines} log lines were") }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl Error {
    /// Whether the cause is a disk (or a quota) without room.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { source, .. } | Error::Dropped { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// For `map_err` of operations on files.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source: Arc::new(source) }
    }
}
