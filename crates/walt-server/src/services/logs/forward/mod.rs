//! Forwards every line to another system: syslog, or Loki.
//!
//! ```text
//! store ──since(position)──▶ batch ──▶ target: sent and acknowledged ──▶ position, in <state>/logs-forward/<target>
//!                                        └ failed ──▶ the same batch again, later
//! ```
//! The store is the spool: nothing is kept twice, and it has its limits already (`logs: {keep, max-size}`). Lines that
//! expire before the target took them are counted on the server's log. Each line is forwarded at least once: after a
//! crash of the server, or a connection that broke, the last batch is sent again.
//!
//! A target that is new gets the lines from then on.

mod loki;
mod syslog;

use crate::{
    base::{
        config::Forward,
        db::{DeviceRow, NodeRow, blocking},
        files::make_dir,
    },
    services::logs::{Logs, SERVER, SERVER_NAME},
};
use anyhow::{Context, Result};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use walt_logs::{Record, StreamId};

/// Most lines of a batch.
const BATCH: u64 = 4096;
/// Most bytes of lines of a batch; one line may be longer.
const BATCH_BYTES: usize = 1 << 20;
/// How often the store is asked for new lines.
const INTERVAL: Duration = Duration::from_millis(250);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long names of issuers are remembered.
const NAMES_AGE: Duration = Duration::from_secs(5);
/// How long a target is silent about its failures on the server's log.
const SILENCE: Duration = Duration::from_secs(300);

/// A line on its way.
pub(super) struct Line {
    /// Microseconds since 1970.
    pub at: i64,
    /// Name of its issuer.
    pub issuer: Arc<str>,
    /// Name of its stream.
    pub stream: Arc<str>,
    /// Its bytes.
    pub text: Vec<u8>,
}

enum Target {
    Syslog(syslog::Syslog),
    Loki(Box<loki::Loki>),
}

impl Target {
    /// Sends lines; when this returns, they need not be sent again.
    async fn send(&mut self, lines: &[Line]) -> Result<()> {
        match self {
            Self::Syslog(target) => target.send(lines).await,
            Self::Loki(target) => target.send(lines).await,
        }
    }
}

/// The tasks that forward, one for each target of the configuration.
///
/// # Errors
/// A target cannot be used.
pub fn start(logs: &Arc<Logs>) -> Result<Vec<impl Future<Output = ()> + Send + 'static>> {
    let Forward { syslog, loki } = &logs.base.config().logs.forward;
    let mut targets = Vec::new();
    if let Some(address) = syslog {
        targets.push(("syslog", Target::Syslog(syslog::Syslog::new(address))));
    }
    if let Some(url) = loki {
        targets.push(("loki", Target::Loki(Box::new(loki::Loki::new(url)?))));
    }
    let dir = logs.base.config().state_dir.join("logs-forward");
    make_dir(&dir, 0o700)?;
    Ok(targets
        .into_iter()
        .map(|(name, target)| forward(logs.clone(), name, target, dir.join(name)))
        .collect())
}

/// The position that a target has reached.
fn position(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn set_position(path: &Path, position: u64) -> Result<()> {
    let text = format!("{position}\n");
    walt_sys::file::replace(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

async fn forward(logs: Arc<Logs>, name: &'static str, mut target: Target, path: PathBuf) {
    let (_, end) = logs.store.numbers();
    // A store that is younger than the position was made anew.
    let mut at = position(&path).filter(|at| *at <= end).unwrap_or(end);
    if let Err(e) = set_position(&path, at) {
        tracing::warn!("{name}: {e:#}");
    }
    let mut names = Names::default();
    let (mut pause, mut said) = (PAUSE.0, None::<Instant>);
    loop {
        let (first, _) = logs.store.numbers();
        if at < first {
            tracing::warn!("{name}: {} log lines expired before they were forwarded", first - at);
            at = first;
        }
        let (records, next) = blocking(|| logs.store.since(at, BATCH));
        if next == at {
            tokio::time::sleep(INTERVAL).await;
            continue;
        }
        let lines = names.lines(&logs, records);
        let mut rest = &lines[..];
        while !rest.is_empty() {
            let part = within(rest);
            match target.send(&rest[..part]).await {
                Ok(()) => {
                    if said.take().is_some() {
                        tracing::info!("{name}: log lines are forwarded again");
                    }
                    (rest, pause) = (&rest[part..], PAUSE.0);
                }
                Err(e) => {
                    if said.is_none_or(|at| at.elapsed() >= SILENCE) {
                        tracing::warn!("{name}: log lines are not forwarded: {e:#}; this is tried again");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
        at = next;
        if let Err(e) = blocking(|| set_position(&path, at)) {
            tracing::warn!("{name}: {e:#}: log lines may be forwarded twice");
        }
    }
}

/// How many of these lines are sent at once.
fn within(lines: &[Line]) -> usize {
    let mut bytes = 0;
    let more = lines.iter().take_while(|line| {
        bytes += line.text.len();
        bytes <= BATCH_BYTES
    });
    more.count().max(1)
}

/// Names by stream.
#[derive(Default)]
struct Names {
    issuers: HashMap<String, Arc<str>>,
    streams: HashMap<StreamId, (Arc<str>, Arc<str>)>,
    read: Option<Instant>,
}

impl Names {
    fn lines(&mut self, logs: &Logs, records: Vec<Record>) -> Vec<Line> {
        if self.read.is_none_or(|at| at.elapsed() >= NAMES_AGE) {
            self.read_again(logs);
        }
        let mut lines = Vec::with_capacity(records.len());
        for record in records {
            if !self.streams.contains_key(&record.stream) {
                let Some(info) = logs.store.stream_info(record.stream) else { continue };
                if !self.issuers.contains_key(&*info.issuer) {
                    self.read_again(logs);
                }
                // The key of a device that was removed stands for it.
                let issuer = self.issuers.get(&*info.issuer).unwrap_or(&info.issuer).clone();
                self.streams.insert(record.stream, (issuer, info.name));
            }
            let (issuer, stream) = self.streams[&record.stream].clone();
            lines.push(Line { at: record.timestamp, issuer, stream, text: record.line });
        }
        lines
    }

    fn read_again(&mut self, logs: &Logs) {
        self.read = Some(Instant::now());
        let known = blocking(|| logs.base.db().with(|c| Ok((NodeRow::all(c)?, DeviceRow::all(c)?))));
        let Ok((nodes, others)) = known else { return };
        let nodes = nodes.into_iter().map(|n| (n.mac.to_string(), n.facts.name.as_str().into()));
        let others = others.into_iter().map(|d| (d.mac.to_string(), d.name.as_str().into()));
        self.issuers = nodes.chain(others).collect();
        self.issuers.insert(SERVER.to_owned(), SERVER_NAME.into());
        self.streams.clear();
    }
}
