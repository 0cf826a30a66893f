//! `walt-server import-walt10`: what a server of WalT 10 has in its database, its images, and `/persist` of its nodes.
//!
//! ```text
//! dumps, archives, directories ──read──▶ plan ──report──▶ (dry run: the end)
//!                                          │ asked, under the lock of the state: no server runs
//!                                          ▼
//!     images into the store ──▶ /persist, a directory at a time ──▶ one transaction: references, nodes, …
//! ```
//! A run that is killed has recorded nothing: layers that are in the store and directories that are complete are not
//! copied again by the next one. What is here already is never changed.

mod images;
mod persist;
mod record;
mod report;

use crate::{
    actions::{admin::runtime, app::App, log_checkpoints::CHECKPOINTS_MAX},
    base::{
        config::Config,
        db::{self, CheckpointRow, DEVICES_MAX, Db, DeviceRow, KeptRow, LeaseRow, NodeRow, RefRow},
        state_lock::StateLock,
        time,
    },
};
use anyhow::{Context, Result, bail};
use report::Report;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};
use walt_images::compression::decompress;
use walt_import::{
    Existing, Plan, Source,
    plan::{self, KnownDevice, KnownNode, Wishes},
};
use walt_types::{ImageId, ImageRef};

/// The name of a dump that is standard input.
const STDIN: &str = "-";
/// This command, in the histories of images.
const COMMAND: &str = "walt-server import-walt10";

/// What is wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Dumps; `-` is standard input.
    pub dumps: Vec<PathBuf>,
    /// Archives of images, or directories of them.
    pub images: Vec<PathBuf>,
    /// The directory with what nodes had as `/persist`.
    pub persist: Option<PathBuf>,
    /// Users with another name here, `OLD=NEW` each.
    pub users: Vec<String>,
    /// Only print what would be done.
    pub dry_run: bool,
    /// Do not ask.
    pub yes: bool,
    /// Print JSON.
    pub json: bool,
}

/// Imports, or prints what an import would do; false if the user declined.
///
/// # Errors
/// Something cannot be read or stored, or a server runs; then nothing was recorded.
pub fn run(config: Config, wanted: &Wanted) -> Result<bool> {
    let wishes = Wishes { users: users(&wanted.users)?, zone: jiff::tz::TimeZone::system() };
    let source = read_dumps(&wanted.dumps)?;
    let archives = images::open(&wanted.images)?;
    let directories = match &wanted.persist {
        Some(dir) => persist::list(dir)?,
        None => Vec::new(),
    };
    if wanted.dry_run {
        let (existing, refs) = look(&config)?;
        let mut plan = plan::make(&source, &existing, &wishes);
        images::choose(&mut plan, archives, &refs, &wishes)?;
        persist::choose(&mut plan, directories, &existing, &wishes, &config);
        Report::new(&source, &plan, true).print(wanted.json)?;
        return Ok(true);
    }
    let lock = StateLock::take(&config.state_dir).context(
        "an import needs the server to be stopped ('systemctl stop walt-server': nodes and shells go on meanwhile)",
    )?;
    let app = App::open(config, &lock)?;
    let (existing, refs) = app.db().with(|c| read_existing(c, app.config()))?;
    let mut plan = plan::make(&source, &existing, &wishes);
    let chosen = images::choose(&mut plan, archives, &refs, &wishes)?;
    let copies = persist::choose(&mut plan, directories, &existing, &wishes, app.config());
    let report = Report::new(&source, &plan, false);
    if !wanted.json {
        report.print(false)?;
    }
    if report.is_nothing_new() {
        if wanted.json {
            report.print(true)?;
        } else {
            println!("Nothing new comes: nothing was changed.");
        }
        return Ok(true);
    }
    if !wanted.yes && !is_agreed()? {
        return Ok(false);
    }
    carry_out(&app, &plan, &chosen, &copies)?;
    if wanted.json {
        report.print(true)?;
    } else {
        println!("Imported. Start the server: systemctl start walt-server.");
    }
    Ok(true)
}

fn carry_out(app: &App, plan: &Plan, images: &[images::Chosen], copies: &[persist::ToCopy]) -> Result<()> {
    runtime()?.block_on(async {
        let stored = images::store(app, images).await?;
        copies.iter().try_for_each(|copy| persist::carry_out(app, copy))?;
        let decision = app.base().decide().await;
        record::all(app, plan, &stored, &decision)
    })
}

/// `OLD=NEW` of each option `--user`.
fn users(options: &[String]) -> Result<BTreeMap<String, walt_types::UserName>> {
    let one = |text: &String| {
        let (old, new) =
            text.split_once('=').with_context(|| format!("--user '{text}' is not of the form OLD=NEW"))?;
        Ok((old.to_owned(), new.parse().with_context(|| format!("--user '{text}'"))?))
    };
    options.iter().map(one).collect()
}

fn read_dumps(dumps: &[PathBuf]) -> Result<Source> {
    let mut source = Source::default();
    for path in dumps {
        let file: Box<dyn Read> = match path.as_os_str() == STDIN {
            true => Box::new(std::io::stdin()),
            false => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
        };
        let text = decompress(file).with_context(|| format!("cannot read {}", path.display()))?;
        source.add(BufReader::new(text)).with_context(|| format!("the dump {}", path.display()))?;
    }
    Ok(source)
}

/// What is here, without the lock: a server may run.
fn look(config: &Config) -> Result<(Existing, BTreeMap<ImageRef, ImageId>)> {
    if !config.state_dir.join("walt.sqlite").exists() {
        let net = config.network.walt_net.ip;
        return Ok((Existing::empty(net.addr, net.prefix), BTreeMap::new()));
    }
    Db::open_to_read(&config.state_dir)?.with(|c| read_existing(c, config))
}

fn read_existing(
    c: &rusqlite::Connection,
    config: &Config,
) -> Result<(Existing, BTreeMap<ImageRef, ImageId>)> {
    let net = config.network.walt_net.ip;
    let (of_nodes, of_devices) = (NodeRow::all_settings(c)?, db::of_devices(c)?);
    let node = |row: NodeRow| {
        let settings = of_nodes.get(&row.mac).cloned().unwrap_or_default();
        (row.mac, KnownNode { facts: row.facts, ip: row.ip, settings })
    };
    let device = |row: DeviceRow| {
        let settings = of_devices.get(&row.mac).cloned().unwrap_or_default();
        let is_named = row.is_named || !settings.is_empty();
        let known =
            KnownDevice { name: row.name, ip: row.ip, device_type: row.device_type, is_named, settings };
        (row.mac, known)
    };
    let now = time::now() as u64;
    let leases = LeaseRow::all(c)?.into_iter().filter(|lease| lease.ends > now);
    let refs: BTreeMap<ImageRef, ImageId> =
        RefRow::all(c)?.into_iter().map(|row| (row.reference, row.image_id)).collect();
    let checkpoints = CheckpointRow::all(c)?.into_iter().map(|(user, row)| ((user, row.name), row.at));
    let existing = Existing {
        server_ip: net.addr,
        prefix: net.prefix,
        nodes: NodeRow::all(c)?.into_iter().map(node).collect(),
        devices: DeviceRow::all(c)?.into_iter().map(device).collect(),
        devices_max: DEVICES_MAX,
        leases: leases.map(|lease| (lease.ip, lease.mac)).collect(),
        images: refs.keys().cloned().collect(),
        checkpoints: checkpoints.collect(),
        checkpoints_max: CHECKPOINTS_MAX,
        kept: KeptRow::all(c)?,
    };
    Ok((existing, refs))
}

/// Asks the user.
fn is_agreed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "nobody can be asked, since standard input is not a terminal: add --yes, or --dry-run to change nothing"
        );
    }
    loop {
        eprint!("Import this? (y/n): ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        let length = std::io::stdin().lock().read_line(&mut line)?;
        match line.trim_end() {
            "y" => return Ok(true),
            "n" => break,
            _ if length == 0 => break,
            _ => eprintln!("Invalid response."),
        }
    }
    eprintln!("Aborted.");
    Ok(false)
}

/// The files of a list of files and directories, sorted within each directory.
fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        files.extend(entries_of(path)?.into_iter().filter(|entry| entry.is_file()));
    }
    Ok(files)
}

/// The entries of a directory, sorted.
fn entries_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(dir).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut entries = list.with_context(|| format!("cannot list {}", dir.display()))?;
    entries.sort();
    Ok(entries)
}
