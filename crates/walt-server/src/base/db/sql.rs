//! Statements of users: on a connection that can only read, with views that have the names and columns of WalT 10's
//! database; of root also changes, on the server's own connection.
//!
//! What may be read is a table here ([`READABLE`]), checked by SQLite while it prepares a statement
//! (`sqlite3_set_authorizer`). The names of views and of `WITH` tables play no part in that, since a statement can choose
//! them. Nothing else is permitted: no `ATTACH`, no extension, no `PRAGMA` that changes something.
//!
//! Limits: [`TIME_MAX`] for a statement, [`VALUE_MAX`] for a value, and those of [`walt_api::sql`].

mod views;

use crate::base::db::Db;
use anyhow::Result;
use rusqlite::{
    Batch, Connection, ErrorCode, OpenFlags, Statement,
    fallible_iterator::FallibleIterator,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::ValueRef,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use walt_api::sql::{BYTES_MAX, ROWS_MAX, SqlResult};

pub use views::{Facts, TABLES};

/// How long a statement may run.
pub const TIME_MAX: Duration = Duration::from_secs(10);
/// Largest value in a statement, in bytes.
const VALUE_MAX: i32 = 8 << 20;
/// Instructions of SQLite's machine between two looks at the clock.
const LOOK: i32 = 10_000;
/// How long a reader waits for a writer of the database.
const BUSY: Duration = Duration::from_secs(5);

/// Tables that every user may read. Others have keys, tokens of clients, or content of registries that may be private.
const READABLE: [&str; 19] = [
    "booted_with",
    "boots",
    "checkpoints",
    "device_settings",
    "devices",
    "grants",
    "history",
    "leases",
    "model_claims",
    "node_leases",
    "node_takings",
    "nodes",
    "passing_shapes",
    "persists",
    "platforms",
    "refs",
    "settings",
    "trash",
    "json_each",
];
/// Tables that nobody may change or read here, root included: keys of the server.
const SECRET: [&str; 1] = ["meta"];
/// What `PRAGMA` may ask, also as tables (`pragma_table_info`).
const PRAGMAS: [&str; 3] = ["table_info", "table_xinfo", "table_list"];

/// Why a statement was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// SQLite does not understand it, or it cannot be carried out.
    #[error("{0}")]
    Wrong(String),
    /// It reads or does what is not permitted.
    #[error("{0}")]
    Forbidden(String),
    /// It is empty.
    #[error("there is no statement")]
    Empty,
    /// There are several.
    #[error("there are several statements: send them one after the other")]
    Several,
    /// It runs for too long.
    #[error("the statement ran for {} s and was stopped", TIME_MAX.as_secs())]
    TooLong,
}

impl From<rusqlite::Error> for SqlError {
    fn from(e: rusqlite::Error) -> Self {
        let said = match &e {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        let code = match &e {
            rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
            other => other.sqlite_error_code(),
        };
        match code {
            Some(ErrorCode::OperationInterrupted) => Self::TooLong,
            Some(ErrorCode::AuthorizationForStatementDenied) => Self::Forbidden(said),
            Some(ErrorCode::ReadOnly) => Self::Forbidden("only root may change the database".to_owned()),
            _ => Self::Wrong(said),
        }
    }
}

/// Carries out a statement that only reads.
///
/// # Errors
/// It does more than that, or is wrong.
pub fn read(path: &Path, sql: &str, facts: &Facts, is_root: bool) -> Result<SqlResult, SqlError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    views::make(&connection, facts)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.authorizer(Some(move |asked: AuthContext<'_>| may_read(&asked, is_root)))?;
    watch_time(&connection)?;
    let mut statement = only(&connection, sql)?;
    if !statement.readonly() {
        return Err(SqlError::Forbidden("only root may change the database".to_owned()));
    }
    rows(&mut statement)
}

/// Carries out a statement of root that changes something, in one transaction; none if it only reads, or is not
/// understood: then [`read`] says more.
///
/// # Errors
/// The change is not permitted or wrong; then nothing has changed.
pub fn change(db: &Db, sql: &str) -> Result<Option<SqlResult>, SqlError> {
    let outcome = db.transaction(|tx| -> Result<Option<SqlResult>> {
        tx.authorizer(Some(|asked: AuthContext<'_>| may_change(&asked)))?;
        let outcome = watch_time(tx).map_err(SqlError::from).and_then(|()| change_in(tx, sql));
        tx.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
        tx.progress_handler(0, None::<fn() -> bool>)?;
        // An error rolls the transaction back.
        outcome.map_err(anyhow::Error::new)
    });
    outcome.map_err(|e| e.downcast().unwrap_or_else(|other| SqlError::Wrong(format!("{other:#}"))))
}

fn change_in(connection: &Connection, sql: &str) -> Result<Option<SqlResult>, SqlError> {
    let mut statement = match only(connection, sql) {
        Ok(statement) if statement.readonly() => return Ok(None),
        Ok(statement) => statement,
        Err(SqlError::Wrong(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let before = connection.total_changes();
    // RETURNING gives rows.
    let result = rows(&mut statement)?;
    let changed = connection.total_changes().saturating_sub(before);
    Ok(Some(SqlResult { changed: Some(changed), ..result }))
}

/// The only statement of a text.
fn only<'c>(connection: &'c Connection, sql: &str) -> Result<Statement<'c>, SqlError> {
    let mut statements = Batch::new(connection, sql);
    let first = statements.next()?.ok_or(SqlError::Empty)?;
    match statements.next() {
        Ok(None) => Ok(first),
        _ => Err(SqlError::Several),
    }
}

fn watch_time(connection: &Connection) -> rusqlite::Result<()> {
    let start = Instant::now();
    connection.progress_handler(LOOK, Some(move || start.elapsed() > TIME_MAX))
}

fn rows(statement: &mut Statement<'_>) -> Result<SqlResult, SqlError> {
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let (width, mut bytes) = (columns.len(), 0);
    let mut result = SqlResult { columns, ..SqlResult::default() };
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(width);
        for column in 0..width {
            let value = value(row.get_ref(column)?);
            bytes += value.as_str().map_or(8, str::len);
            values.push(value);
        }
        if result.rows.len() >= ROWS_MAX || bytes > BYTES_MAX {
            result.truncated = true;
            break;
        }
        result.rows.push(values);
    }
    Ok(result)
}

/// A value as JSON. Bytes are text as PostgreSQL prints them.
fn value(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(x) => x.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => {
            let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("\\x{digits}").into()
        }
    }
}

fn verdict(is_permitted: bool) -> Authorization {
    if is_permitted { Authorization::Allow } else { Authorization::Deny }
}

fn is_function(name: &str) -> bool {
    !name.eq_ignore_ascii_case("load_extension")
}

/// The tables about tables.
fn is_about_tables(table: &str) -> bool {
    table.starts_with("sqlite_") || table.strip_prefix("pragma_").is_some_and(|name| PRAGMAS.contains(&name))
}

fn may_read(asked: &AuthContext<'_>, is_root: bool) -> Authorization {
    verdict(match asked.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => is_function(function_name),
        AuthAction::Read { table_name, .. } => {
            asked.database_name == Some("temp")
                || READABLE.contains(&table_name)
                || is_about_tables(table_name)
                || is_root && !SECRET.contains(&table_name)
        }
        AuthAction::Pragma { pragma_name, .. } => PRAGMAS.contains(&pragma_name),
        _ => false,
    })
}

fn may_change(asked: &AuthContext<'_>) -> Authorization {
    let is_table = |name: &str| !SECRET.contains(&name) && !name.starts_with("sqlite_");
    verdict(match asked.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => is_function(function_name),
        AuthAction::Read { table_name, .. } => is_table(table_name) || is_about_tables(table_name),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => is_table(table_name),
        AuthAction::Pragma { pragma_name, .. } => PRAGMAS.contains(&pragma_name),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
