//! `walt advanced sql`: one statement, and its result.

use serde::{Deserialize, Serialize};

/// Longest statement, in bytes.
pub const STATEMENT_MAX: usize = 64 << 10;
/// Most rows of a result.
pub const ROWS_MAX: usize = 10_000;
/// Most bytes of the values of a result.
pub const BYTES_MAX: usize = 4 << 20;

/// Body of [`crate::route::SQL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SqlQuery {
    /// One statement of SQLite's SQL. The table `tables` lists the tables. Only root may change something.
    pub sql: String,
}

/// Answer of [`crate::route::SQL`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SqlResult {
    /// Names of the columns; none for a statement that only changes something.
    pub columns: Vec<String>,
    /// Rows of values: null, numbers and text. Bytes are text like `\x00ff`.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Whether there are more rows than [`ROWS_MAX`], or more bytes than [`BYTES_MAX`]: the others are left out.
    #[serde(default)]
    pub truncated: bool,
    /// How many rows a change has changed.
    #[serde(default)]
    pub changed: Option<u64>,
}
