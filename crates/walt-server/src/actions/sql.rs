//! `walt advanced sql`: statements on the database.

use crate::{
    actions::app::App,
    base::{
        db::sql::{self, Facts, SqlError, TIME_MAX},
        failure::{Failure, Kind, Outcome, bad_request, refused},
    },
    services::{logs::SERVER_NAME, network},
};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;
use walt_api::sql::{STATEMENT_MAX, SqlResult};
use walt_logs::{Mode, StreamInfo};
use walt_types::UserName;

/// Statements that run at once; others wait.
const AT_ONCE: usize = 2;

static SLOTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(AT_ONCE));

/// Carries out one statement; a change only for root, in a decision.
///
/// # Errors
/// It is wrong, not permitted, or runs for too long.
pub async fn run(app: &Arc<App>, caller: &UserName, is_root: bool, sql: String) -> Outcome<SqlResult> {
    if sql.len() > STATEMENT_MAX {
        return Err(bad_request(format!("the statement is longer than {} KiB.", STATEMENT_MAX >> 10)));
    }
    let _slot = SLOTS.acquire().await.map_err(|e| Failure::Internal(e.into()))?;
    if is_root {
        let _decision = app.base().decide().await;
        let (own, text) = (app.clone(), sql.clone());
        let work = tokio::task::spawn_blocking(move || sql::change(own.db(), &text));
        if let Some(result) = work.await.map_err(Failure::of_task("the statement"))?.map_err(failure)? {
            tracing::info!(%caller, rows = result.changed, "the database was changed by walt advanced sql");
            return Ok(result);
        }
    }
    let facts = facts(app);
    let own = app.clone();
    let work = tokio::task::spawn_blocking(move || sql::read(own.db().path(), &sql, &facts, is_root));
    work.await.map_err(Failure::of_task("the statement"))?.map_err(failure)
}

fn facts(app: &App) -> Facts {
    let stream = |info: StreamInfo| {
        let mode = if info.mode == Mode::Chunk { "chunk" } else { "line" };
        (info.id.0, info.issuer.to_string(), info.name.to_string(), mode)
    };
    let all = app.logs().store().streams(&(Arc::new(|_: &StreamInfo| true) as walt_logs::Selector));
    Facts {
        server_name: SERVER_NAME,
        server_mac: network::bridge_mac(app.config()),
        server_ip: app.config().server_ip(),
        streams: all.into_iter().map(stream).collect(),
    }
}

fn failure(error: SqlError) -> Failure {
    let message = format!("{error}.");
    match error {
        SqlError::Forbidden(_) => Failure::refusal(Kind::Forbidden, message),
        SqlError::TooLong => {
            refused(message).hint(format!("a statement may take {} s: ask for less", TIME_MAX.as_secs()))
        }
        SqlError::Wrong(why) if why.starts_with("no such table: logs") => {
            bad_request(message).hint("log lines are not in the database: 'walt log show' prints them")
        }
        SqlError::Wrong(why) if why.starts_with("no such table") => {
            bad_request(message).hint("\\dt lists the tables")
        }
        SqlError::Wrong(_) | SqlError::Empty | SqlError::Several => bad_request(message),
    }
}
