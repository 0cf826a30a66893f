//! `walt log show` and `walt log wait`: past lines, lines as they come, or both, without a gap or a double.
//!
//! The server prints them, so that a client copies bytes, and a million lines stream at once. Nothing is gathered: a client
//! that reads slowly, or no more, costs one page.

use crate::{
    actions::{app::App, device_list, ownership::set_error},
    base::{
        db::{CheckpointRow, blocking},
        failure::{Outcome, bad_request},
        time,
    },
    services::logs::{Logs, SERVER, SERVER_NAME},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use walt_api::logs::{DEFAULT_ISSUERS, LogCount, LogLine, LogQuery, LogWait};
use walt_logs::{
    Error, Mode, Pattern, Query, Record, Records, StreamId, StreamInfo, Tail,
    format::{Fields, Template},
    history::{History, HistoryError},
    show,
};
use walt_types::{CheckpointName, UserName, node_set};

/// Most lines that are printed at once.
const PAGE: usize = 1024;
/// Bytes of printed lines above which a page is ended.
const PAGE_BYTES: usize = 256 << 10;

/// Lines that are wanted, one page after the other.
pub struct Lines {
    app: Arc<App>,
    source: Source,
    printer: Printer,
    /// Issuers that have not said what is waited for.
    waiting: Option<Waiting>,
    is_over: bool,
}

enum Source {
    /// Past lines.
    Past(Box<Records>),
    /// Lines as they come, behind those of the past.
    Live(Box<Tail>, Arc<Notify>),
}

enum Waiting {
    Any,
    /// The keys of those that are waited for.
    All(HashSet<String>),
}

/// What a query means for the store.
struct Meaning {
    query: Query,
    /// Names of issuers by their keys.
    issuers: BTreeMap<String, String>,
    has_history: bool,
}

fn meaning(app: &App, caller: &UserName, wanted: &LogQuery) -> Outcome<Meaning> {
    let issuers = issuers(app, caller, wanted.issuers.as_deref().unwrap_or(DEFAULT_ISSUERS))?;
    let streams = wanted.streams.as_deref().map(|text| pattern("--streams", text)).transpose()?;
    let keys: HashSet<String> = issuers.keys().cloned().collect();
    let selector = move |info: &StreamInfo| {
        keys.contains(&*info.issuer)
            && match &streams {
                Some(streams) => streams.matches(info.name.as_bytes()),
                None => info.mode == Mode::Line,
            }
    };
    let mut query = Query::new(Arc::new(selector));
    query.pattern =
        wanted.pattern.as_deref().map(|text| pattern("the regular expression", text)).transpose()?;
    let history = history(app, caller, wanted.history.as_deref().unwrap_or("none"))?;
    let has_history = history.is_some();
    (query.after, query.before) = history.unwrap_or_default();
    Ok(Meaning { query, issuers, has_history })
}

fn pattern(what: &str, text: &str) -> Outcome<Pattern> {
    Pattern::new(text).map_err(|e| bad_request(format!("{what} '{text}' cannot be used: {e}.")))
}

/// The members of a set: their keys in the store, and their names.
fn issuers(app: &App, caller: &UserName, set: &str) -> Outcome<BTreeMap<String, String>> {
    let devices = device_list::all(app)?;
    let members = node_set::resolve_devices(set, &devices, caller).map_err(|e| set_error(&e))?;
    Ok(members.into_iter().map(|i| key_and_name(&devices[i])).collect())
}

fn key_and_name(device: &device_list::AnyDevice) -> (String, String) {
    use node_set::Candidate;
    match device.mac() {
        None => (SERVER.to_owned(), SERVER_NAME.to_owned()),
        Some(mac) => (mac.to_string(), device.name().to_owned()),
    }
}

/// The bounds of a history range of a user; none if no past lines are wanted.
fn history(app: &App, caller: &UserName, text: &str) -> Outcome<Option<walt_logs::history::Between>> {
    let invalid = |e: HistoryError| {
        let hint = "see 'walt help show log-history'";
        bad_request(format!("Invalid HISTORY_RANGE: {e}.")).hint(hint)
    };
    let range: History = text.parse().map_err(invalid)?;
    let known = app.db().with(|c| CheckpointRow::of(c, caller))?;
    let at = |name: &CheckpointName| known.iter().find(|row| row.name == *name).map(|row| row.at);
    range.resolve(time::now_micros(), at).map_err(invalid)
}

/// About how many past lines a query has, whatever their text is.
///
/// # Errors
/// The query cannot be understood.
pub fn count(app: &App, caller: &UserName, wanted: &LogQuery) -> Outcome<LogCount> {
    let Meaning { query, has_history, .. } = meaning(app, caller, wanted)?;
    let lines = if has_history { blocking(|| app.logs().store().estimate(&query))? } else { 0 };
    Ok(LogCount { lines })
}

/// Begins to look for the lines of a query.
///
/// # Errors
/// The query cannot be understood, or nothing is wanted.
pub fn open(app: &Arc<App>, caller: &UserName, wanted: &LogQuery) -> Outcome<Lines> {
    let is_live = wanted.realtime || wanted.wait.is_some();
    let history = wanted.history.as_deref().unwrap_or("none");
    if !is_live && history.eq_ignore_ascii_case("none") {
        let text = "You must specify at least one of the options --realtime and --history.";
        return Err(
            bad_request(text).hint("see 'walt help show log-realtime' and 'walt help show log-history'")
        );
    }
    let Meaning { query, issuers, has_history } = meaning(app, caller, wanted)?;
    let template = wanted.format.as_deref().map(str::parse::<Template>).transpose();
    let template = template.map_err(|e| {
        let text = "Could not display the log record. Verify your format string.";
        bad_request(text).hint(format!("{e}; see 'walt help show log-format'"))
    })?;
    let waiting = wanted.wait.map(|wait| match wait {
        LogWait::Any => Waiting::Any,
        LogWait::All => Waiting::All(issuers.keys().cloned().collect()),
    });
    let logs: &Logs = app.logs();
    let source = match is_live {
        true => Source::Live(Box::new(logs.store().tail(&query, has_history)), logs.news().clone()),
        false => Source::Past(Box::new(logs.store().query(&query))),
    };
    let printer = Printer { template, issuers, streams: HashMap::new(), zone: jiff::tz::TimeZone::system() };
    Ok(Lines { app: app.clone(), source, printer, waiting, is_over: false })
}

impl Lines {
    /// The next lines, as they are printed; none at the end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        while !self.is_over {
            // Before the store is asked: what comes meanwhile must wake us.
            let notify = match &self.source {
                Source::Live(_, news) => Some(news.clone()),
                Source::Past(_) => None,
            };
            let news = notify.as_deref().map(Notify::notified);
            tokio::pin!(news);
            if let Some(news) = news.as_mut().as_pin_mut() {
                news.enable();
            }
            let (page, is_waiting) = blocking(|| self.page());
            if !page.is_empty() {
                return Some(page);
            }
            if let Some(news) = news.as_pin_mut().filter(|_| is_waiting && !self.is_over) {
                news.await;
            }
        }
        None
    }

    /// The next page, and whether all there is has been printed.
    fn page(&mut self) -> (Vec<u8>, bool) {
        let mut text = Vec::new();
        let records = match &mut self.source {
            Source::Live(tail, _) => match tail.next(Duration::ZERO) {
                Ok(records) => records,
                Err(Error::Closed) => {
                    self.is_over = true;
                    return (text, true);
                }
                Err(e) => {
                    self.printer.damage(&e, &mut text);
                    return (text, false);
                }
            },
            Source::Past(records) => {
                for record in records.by_ref().take(PAGE) {
                    match record {
                        Ok(record) => self.printer.print(&self.app, &record, &mut text),
                        Err(e) => self.printer.damage(&e, &mut text),
                    }
                    if text.len() >= PAGE_BYTES {
                        break;
                    }
                }
                self.is_over = text.is_empty();
                return (text, false);
            }
        };
        let is_waiting = records.is_empty();
        for record in records {
            self.printer.print(&self.app, &record, &mut text);
            if self.is_last(&record) {
                self.is_over = true;
                break;
            }
        }
        (text, is_waiting)
    }

    /// Whether nothing is waited for any more after this line.
    fn is_last(&mut self, record: &Record) -> bool {
        match &mut self.waiting {
            None => false,
            Some(Waiting::Any) => true,
            Some(Waiting::All(issuers)) => {
                if let Some((key, ..)) = self.printer.streams.get(&record.stream) {
                    issuers.remove(key);
                }
                issuers.is_empty()
            }
        }
    }
}

struct Printer {
    template: Option<Template>,
    issuers: BTreeMap<String, String>,
    /// By stream: key and name of its issuer, and its own name.
    streams: HashMap<StreamId, (String, String, Arc<str>)>,
    zone: jiff::tz::TimeZone,
}

impl Printer {
    fn print(&mut self, app: &App, record: &Record, out: &mut Vec<u8>) {
        if !self.streams.contains_key(&record.stream) {
            // Its issuer may have been forgotten meanwhile.
            let Some(info) = app.logs().store().stream_info(record.stream) else { return };
            let name = self.issuers.get(&*info.issuer).cloned().unwrap_or_default();
            self.streams.insert(record.stream, (info.issuer.to_string(), name, info.name));
        }
        let (_, issuer, stream) = &self.streams[&record.stream];
        self.put(record.timestamp, issuer, stream, &record.line, out);
    }

    fn put(&self, timestamp: i64, issuer: &str, stream: &str, line: &[u8], out: &mut Vec<u8>) {
        match &self.template {
            Some(template) => {
                let line = show::escaped(line);
                let mut text = String::new();
                template.print(&Fields { timestamp, issuer, stream, line: &line }, &self.zone, &mut text);
                out.extend_from_slice(text.as_bytes());
            }
            None => {
                let text = std::str::from_utf8(line);
                let line = LogLine {
                    timestamp: timestamp as f64 / 1e6,
                    line: text.map_or_else(|_| show::escaped(line).into_owned(), str::to_owned),
                    issuer: issuer.to_owned(),
                    stream: stream.to_owned(),
                    line_base64: text.is_err().then(|| STANDARD.encode(line)),
                };
                // Invariant: a plain struct of strings and a number can always be written.
                serde_json::to_writer(&mut *out, &line).expect("a log line is JSON");
            }
        }
        out.push(b'\n');
    }

    /// Says in the place of lines that some cannot be read.
    fn damage(&self, error: &Error, out: &mut Vec<u8>) {
        tracing::warn!("log lines cannot be read: {error}");
        let text = format!("<some log lines cannot be read: {error}>");
        self.put(time::now_micros(), SERVER_NAME, "daemon.error", text.as_bytes(), out);
    }
}
