//! `walt-server check-store`: checks that references, layers and digests are right and that nothing is left over.
//!
//! ```text
//!  inspect   references → configurations → layers; views; sessions; leftovers     nobody writes: by the server under
//!                                                                                 its locks, or under the state's lock
//!  verify    hash each layer's files, build each index again                      while the server runs
//!  inspect   again, if there are findings: objects removed meanwhile do not count
//! ```
//! While a server runs, an orphan is reported only if housekeeping has not removed it within [`PATIENCE`]. Otherwise,
//! everything that a killed server left is reported; the next start removes it. Nothing is written.

use crate::{
    actions::{admin::runtime, app::App},
    base::{
        config::Config,
        db::{Db, NodeRow, RefRow, SessionRow, blocking},
        failure::Outcome,
        state_lock::StateLock,
    },
    services::images::pins::Pins,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use walt_api::{StoreFault, StoreFinding, StoreLook};
use walt_client::{Client, Target};
use walt_images::{Audit, Fault, Finding, Object, Store};
use walt_types::ImageId;

/// How long housekeeping may take to remove unused objects. It runs seconds after each change, later only while
/// images are imported or saved.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two inspections.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// How long a server may take to start or to end: its state is in use then, but it does not answer.
pub(super) const TRANSITION: Duration = Duration::from_secs(60);

/// Inspects the store of this server while nobody writes to it.
pub async fn inspect_running(app: &App) -> Outcome<StoreLook> {
    let _exclusive = app.images().exclusive().await;
    Ok(blocking(|| inspect(app.store(), app.db(), app.images().pins()))?)
}

/// Inspects the store. Nobody may write to it meanwhile.
fn inspect(store: &Store, db: &Db, pins: &Pins) -> Result<StoreLook> {
    let live = crate::services::images::live::live(db, pins)?;
    let (refs, nodes, sessions) =
        db.with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?, SessionRow::all(c)?)))?;
    let found = store.audit(&live)?;
    let mut names: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    for row in &refs {
        names.entry(row.image_id).or_default().push(row.reference.full());
    }
    let known: BTreeSet<String> = refs.iter().map(|r| r.reference.full()).collect();
    let mut findings: Vec<StoreFinding> = found.findings.iter().map(|f| to_finding(f, &names)).collect();
    for node in nodes.iter().filter(|n| !known.contains(&n.facts.image.full())) {
        findings.push(StoreFinding {
            object: format!("reference {}", node.facts.image.full()),
            fault: StoreFault::Missing,
            message: format!(
                "reference {} is missing: node {} boots it",
                node.facts.image.full(),
                node.facts.name
            ),
        });
    }
    Ok(StoreLook {
        references: refs.len(),
        sessions: sessions.len(),
        images: found.images,
        layers: found.layers,
        views: found.views,
        findings,
    })
}

/// The objects to read and verify.
fn needed(look: &StoreLook) -> Audit {
    let (images, layers, views) = (look.images.clone(), look.layers.clone(), look.views.clone());
    Audit { images, layers, views, findings: Vec::new() }
}

fn to_finding(finding: &Finding, names: &BTreeMap<ImageId, Vec<String>>) -> StoreFinding {
    let object = finding.object.to_string();
    let who = match &finding.object {
        Object::Image(id) => names.get(id).map(|list| format!(" ({})", list.join(", "))).unwrap_or_default(),
        _ => String::new(),
    };
    let (fault, is) = match finding.fault {
        Fault::Missing => (StoreFault::Missing, "is missing"),
        Fault::Damaged => (StoreFault::Damaged, "is damaged"),
        Fault::Orphan => (StoreFault::Orphan, "is left over"),
    };
    StoreFinding { message: format!("{object}{who} {is}: {}", finding.why), object, fault }
}

/// Asks a running server to inspect its store; otherwise inspects it under the lock of the state. The second value
/// tells whether a server runs.
fn inspect_any(config: &Config) -> Result<(StoreLook, bool)> {
    let start = Instant::now();
    loop {
        if std::os::unix::net::UnixStream::connect(config.socket()).is_ok() {
            let asked = runtime()?
                .block_on(async { Client::new(Target::Unix(config.socket()), None)?.store().await });
            match asked {
                Ok(look) => return Ok((look, true)),
                // It was killed or has ended: the next turn answers.
                Err(walt_client::Error::Broken(_) | walt_client::Error::Connect { .. })
                    if start.elapsed() < TRANSITION => {}
                Err(e) => return Err(e).context("cannot get the contents of the store from the server"),
            }
        }
        match StateLock::take(&config.state_dir) {
            // Only during the inspection: a server may start while files are verified.
            Ok(_lock) => {
                let db = Db::open_to_read(&config.state_dir)?;
                return Ok((inspect(&Store::open_to_read(&config.state_dir), &db, &Pins::default())?, false));
            }
            Err(e) if start.elapsed() > TRANSITION => return Err(e),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Refuses a configuration with which no server has run, and accounts that may not read its state.
pub(crate) fn must_have_state(config: &Config) -> Result<()> {
    let dir = config.state_dir.display();
    match std::fs::metadata(config.state_dir.join("walt.sqlite")) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!("{dir} has no state of a server; is this the right configuration?")
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {dir}; run this command as root")),
    }
}

/// What the command prints with `--json`.
#[derive(serde::Serialize)]
struct Report {
    /// Whether a server runs on this store.
    server: bool,
    /// Whether nothing is wrong.
    clean: bool,
    references: usize,
    images: usize,
    layers: usize,
    /// Size of the layers' tars in bytes.
    bytes: u64,
    views: usize,
    sessions: usize,
    findings: Vec<StoreFinding>,
}

/// The command; false if something is wrong.
///
/// # Errors
/// The store could not be checked.
pub fn run(config: &Config, json: bool) -> Result<bool> {
    must_have_state(config)?;
    let start = Instant::now();
    let (mut look, mut server) = inspect_any(config)?;
    // A store in use always has objects that are about to be removed, and sessions that for a moment have only a
    // record or only a directory. Only findings that persist count.
    let mut lasting = std::mem::take(&mut look.findings);
    while server && !lasting.is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(PAUSE);
        (look, server) = inspect_any(config)?;
        let now = std::mem::take(&mut look.findings);
        lasting.retain(|finding| now.contains(finding));
    }
    let store = Store::open_to_read(&config.state_dir);
    let mut bytes = 0;
    let mut wrong = store.verify(&needed(&look), &mut |object| {
        if let Object::Layer(id) = object {
            bytes += store.layer_info(id).map_or(0, |info| info.size);
        }
    });
    if !wrong.is_empty() {
        let now = needed(&inspect_any(config)?.0);
        wrong.retain(|f| now.needs(&f.object));
    }
    let mut findings = lasting;
    findings.extend(wrong.iter().map(|f| to_finding(f, &BTreeMap::new())));
    findings.sort();
    let report = Report {
        server,
        clean: findings.is_empty(),
        references: look.references,
        images: look.images.len(),
        layers: look.layers.len(),
        bytes,
        views: look.views.len(),
        sessions: look.sessions,
        findings,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(report.clean)
}

fn print(report: &Report) {
    for finding in &report.findings {
        println!("{}", finding.message);
    }
    let verdict = match report.findings.len() {
        0 => "no problems found".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    println!(
        "Checked {} references, {} images, {} layers of {:.1} MB, {} views, {} sessions: {verdict}.",
        report.references,
        report.images,
        report.layers,
        report.bytes as f64 / 1e6,
        report.views,
        report.sessions,
    );
    if !report.server && report.findings.iter().any(|f| f.fault == StoreFault::Orphan) {
        eprintln!("Tip: no server is running; the next 'walt-server run' removes what a killed server left.");
    }
}
