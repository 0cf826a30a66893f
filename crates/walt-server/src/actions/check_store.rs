//! `walt-server check-store`: is every reference, layer and digest right, and is nothing left over?
//!
//! ```text
//!  look    references → configurations → layers; views; sessions; what else lies there     nobody writes: by the
//!          server under its own locks, or here under the lock of the state                 server or here
//!  verify  each layer hashed from its files, each index built again                        here, beside the server
//!  look    again, if something was wrong: what was removed meanwhile is no finding
//! ```
//! Beside a server, an orphan is a finding only once housekeeping had [`PATIENCE`] to remove it. Without one,
//! all that a killed server has left is a finding; the next start removes it. Nothing is written.

use crate::{
    actions::admin::runtime,
    actions::app::App,
    base::{
        config::Config,
        db::{Db, NodeRow, RefRow, SessionRow},
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

/// How long housekeeping has to remove what nothing needs. It runs seconds after each change, and later
/// only while images are imported or saved.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a server may take to start to answer, or to leave, when its state is in use and it does not answer.
const BETWEEN: Duration = Duration::from_secs(60);

/// Looks at the store while nobody writes to it.
pub async fn look_beside_writers(app: &App) -> Outcome<StoreLook> {
    let _alone = app.images().exclusive().await;
    Ok(crate::base::db::blocking(|| look(app.store(), app.db(), app.images().pins()))?)
}

/// Looks at the store. The caller sees to it that nobody writes to it.
fn look(store: &Store, db: &Db, pins: &Pins) -> Result<StoreLook> {
    let live = crate::services::images::live::live(db, pins)?;
    let (refs, nodes, sessions) =
        db.with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?, SessionRow::all(c)?)))?;
    let found = store.audit(&live)?;
    let mut names: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    for row in &refs {
        names.entry(row.image_id).or_default().push(row.reference.full());
    }
    let known: BTreeSet<String> = refs.iter().map(|r| r.reference.full()).collect();
    let mut findings: Vec<StoreFinding> = found.findings.iter().map(|f| express(f, &names)).collect();
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

/// What there is to read.
fn needed(look: &StoreLook) -> Audit {
    let (images, layers, views) = (look.images.clone(), look.layers.clone(), look.views.clone());
    Audit { images, layers, views, findings: Vec::new() }
}

fn express(finding: &Finding, names: &BTreeMap<ImageId, Vec<String>>) -> StoreFinding {
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

/// Asks the server for a look; none if no server runs. Without one, looks under the lock of its state.
fn any_look(config: &Config) -> Result<(StoreLook, bool)> {
    let start = Instant::now();
    loop {
        if std::os::unix::net::UnixStream::connect(config.socket()).is_ok() {
            let asked = runtime()?
                .block_on(async { Client::new(Target::Unix(config.socket()), None)?.store().await });
            match asked {
                Ok(look) => return Ok((look, true)),
                // It was killed, or left: what it was asked is answered by the next turn.
                Err(walt_client::Error::Broken(_) | walt_client::Error::Connect { .. })
                    if start.elapsed() < BETWEEN => {}
                Err(e) => return Err(e).context("the server does not say what its store holds"),
            }
        }
        match StateLock::take(&config.state_dir) {
            // Until the look is done: a server may start while files are read.
            Ok(_lock) => {
                let db = Db::open_to_read(&config.state_dir)?;
                return Ok((look(&Store::open_to_read(&config.state_dir), &db, &Pins::default())?, false));
            }
            Err(e) if start.elapsed() > BETWEEN => return Err(e),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Refuses a configuration under which no server ever ran, and accounts that may not read its state.
pub(crate) fn must_have_state(config: &Config) -> Result<()> {
    let dir = config.state_dir.display();
    match std::fs::metadata(config.state_dir.join("walt.sqlite")) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no state of a server in {dir}: is it the right configuration?")
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {dir}: run this as root")),
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
    let (mut look, mut server) = any_look(config)?;
    // In use, a store always has something that is about to be removed, and sessions that have for a moment
    // a record or a directory only: what counts is what stays.
    let mut stays = std::mem::take(&mut look.findings);
    while server && !stays.is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(PAUSE);
        (look, server) = any_look(config)?;
        let now = std::mem::take(&mut look.findings);
        stays.retain(|finding| now.contains(finding));
    }
    let store = Store::open_to_read(&config.state_dir);
    let mut bytes = 0;
    let mut wrong = store.verify(&needed(&look), &mut |object| {
        if let Object::Layer(id) = object {
            bytes += store.layer_info(id).map_or(0, |info| info.size);
        }
    });
    if !wrong.is_empty() {
        let now = needed(&any_look(config)?.0);
        wrong.retain(|f| now.needs(&f.object));
    }
    let mut findings = stays;
    findings.extend(wrong.iter().map(|f| express(f, &BTreeMap::new())));
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
        0 => "everything is right".to_owned(),
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
        eprintln!("Tip: no server runs; the next 'walt-server run' removes what a killed one has left over.");
    }
}
