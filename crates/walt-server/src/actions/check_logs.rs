//! `walt-server check-logs`: reads all log lines and compares them with what the store says of them.
//!
//! A running server checks its own store; otherwise the store is opened under the lock of the state, as a server that starts
//! would open it: what a crash left half-written is cut off.

use crate::{
    actions::{
        admin::runtime,
        check_store::{PAUSE, TRANSITION, must_have_state},
    },
    base::{config::Config, state_lock::StateLock},
    services::logs,
};
use anyhow::{Context, Result};
use std::time::Instant;
use walt_api::logs::LogStoreReport;
use walt_client::{Client, Target};
use walt_logs::{Retention, Store};

/// Checks an open store.
///
/// # Errors
/// A file of it cannot be read at all.
pub fn inspect(store: &Store) -> Result<LogStoreReport, walt_logs::Error> {
    let walt_logs::Report { segments, blocks, lines, findings } = store.check()?;
    Ok(LogStoreReport { segments, blocks, lines, findings })
}

fn inspect_any(config: &Config) -> Result<LogStoreReport> {
    let start = Instant::now();
    loop {
        if std::os::unix::net::UnixStream::connect(config.socket()).is_ok() {
            let asked = runtime()?
                .block_on(async { Client::new(Target::Unix(config.socket()), None)?.log_store().await });
            match asked {
                Ok(report) => return Ok(report),
                // It was killed or has ended: the next turn answers.
                Err(walt_client::Error::Broken(_) | walt_client::Error::Connect { .. })
                    if start.elapsed() < TRANSITION => {}
                Err(e) => return Err(e).context("the server cannot check its log lines"),
            }
        }
        match StateLock::take(&config.state_dir) {
            Ok(_lock) => {
                let dir = logs::dir(config);
                if !dir.exists() {
                    return Ok(LogStoreReport::default());
                }
                return Ok(inspect(&logs::open_store(&dir, Retention::default())?)?);
            }
            Err(e) if start.elapsed() > TRANSITION => return Err(e),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The command; false if something is wrong.
///
/// # Errors
/// The store could not be checked.
pub fn run(config: &Config, json: bool) -> Result<bool> {
    must_have_state(config)?;
    let report = inspect_any(config)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(report.findings.is_empty());
    }
    report.findings.iter().for_each(|finding| println!("{finding}"));
    let verdict = match report.findings.len() {
        0 => "no problems found".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    println!("Checked {} lines in {} segments: {verdict}.", report.lines, report.segments);
    Ok(report.findings.is_empty())
}
