//! `walt-server backup` and `walt-server restore`.
//!
//! ```text
//! backup    lock against the removal of layers → copy of the database, as at one moment → keys, log lines, configuration,
//!           images that the copy refers to, /persist → manifest
//! restore   empty state, marked → everything but the database, each file compared with its digest → addresses that fit the
//!           configuration → database → no mark any more
//! ```
//! A backup is made by a process of its own, beside a server that runs or not. Layers never change and are not removed while
//! it holds the lock; log files only grow; the database is copied by SQLite. Files in `/persist` are copied one by one while
//! nodes may write to them.
//!
//! A backup without a manifest is not whole, and a marked state is refused by everything but another restore.

mod addresses;
mod contents;
mod ground;
pub mod manifest;
mod parts;
pub mod restore;
mod sink;

pub use restore::Restore;

use crate::{
    actions::check_store::must_have_state,
    base::{
        config::{Config, DEFAULT_PATH},
        formats::{self, Formats},
        store_lock::StoreLock,
        time,
    },
};
use anyhow::{Context, Result, bail};
use clap::Args;
use manifest::{FORMAT, Images, Manifest};
use sink::Sink;
use std::{
    ffi::OsStr,
    io::{self, BufWriter, IsTerminal},
    path::{Path, PathBuf},
};
use walt_images::Store;

/// Bytes that are written to standard output at once.
const BUFFER: usize = 1 << 18;

/// `walt-server backup`
#[derive(Debug, Args)]
pub struct Backup {
    /// A directory (an earlier backup in it is brought up to date), or - for a tar on standard output
    #[arg(value_name = "DIR|-")]
    to: PathBuf,
    /// Copy the layers of images, or only name the images by their digests
    #[arg(long, value_enum, default_value = "included")]
    images: Images,
    /// Also copy what nodes have in /persist
    #[arg(long)]
    persist: bool,
    /// Leave the log lines out
    #[arg(long)]
    no_logs: bool,
}

impl Backup {
    /// Makes the backup. `file` is the configuration file that was named.
    ///
    /// # Errors
    /// There is no state, or something of it cannot be read or written. Then there is no manifest, or an earlier backup in the
    /// directory is still whole.
    pub fn run(self, config: &Config, file: Option<&Path>) -> Result<()> {
        must_have_state(config)?;
        formats::check(&config.state_dir)?;
        let lock = StoreLock::take(&config.state_dir)?;
        let mut sink = self.sink(config)?;
        let place = sink.place(&time::rfc3339(time::now() as i64).replace([':', '-'], ""));
        let store = Store::open_to_read(&config.state_dir);
        let copy = contents::Copy::make(&config.state_dir, &lock)?;
        let db = copy.open()?;
        copy.put(&mut sink, &place)?;
        contents::small_files(&mut sink, &place, config, Some(file.unwrap_or(Path::new(DEFAULT_PATH))))?;
        if !self.no_logs {
            contents::logs(&mut sink, &place, config)?;
        }
        let mut left_out = copy.left_out.clone();
        left_out.extend(contents::images(&mut sink, &db, &store, self.images, &lock)?);
        if self.persist {
            left_out.extend(contents::persist(&mut sink, &place, &config.state_dir)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            state: Formats::ours(),
            made: time::rfc3339(time::now() as i64),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            network: format!("{}/{}", config.network.walt_net.ip.addr, config.network.walt_net.ip.prefix),
            images: self.images,
            persist: self.persist,
            logs: !self.no_logs,
            place,
            references: contents::references(&db, &store)?,
            left_out,
            files: Vec::new(),
        };
        let kept = sink.kept;
        self.report(&sink.finish(manifest)?, kept);
        Ok(())
    }

    fn sink(&self, config: &Config) -> Result<Sink> {
        if self.to.as_os_str() == OsStr::new("-") {
            if io::stdout().is_terminal() {
                bail!("a backup is not for a terminal: direct the output to a file or a program");
            }
            return Ok(Sink::tar(BufWriter::with_capacity(BUFFER, io::stdout())));
        }
        // The directory itself may not exist yet.
        let absolute = std::path::absolute(&self.to).unwrap_or_else(|_| self.to.clone());
        let existing = absolute.ancestors().find_map(|dir| dir.canonicalize().ok());
        let state = config.state_dir.canonicalize().with_context(reading(&config.state_dir))?;
        if existing.is_some_and(|dir| dir.starts_with(&state)) {
            bail!("{} is inside of the state directory: choose another directory", self.to.display());
        }
        Sink::dir(&self.to)
    }

    /// Says what was done; standard output may be the backup.
    fn report(&self, manifest: &Manifest, kept: u64) {
        let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
        let images = match manifest.images {
            Images::Included => format!("{} names of images with their layers", manifest.references.len()),
            Images::Digests => format!("{} names of images by digest only", manifest.references.len()),
        };
        eprintln!(
            "Backup of {} files, {:.1} MB ({:.1} MB were there already): {images}{}{}.",
            manifest.files.len(),
            bytes as f64 / 1e6,
            kept as f64 / 1e6,
            if manifest.logs { ", log lines" } else { "" },
            if manifest.persist { ", /persist" } else { "" },
        );
        manifest.left_out.iter().for_each(|what| eprintln!("Left out: {what}."));
        if !manifest.persist {
            eprintln!("Left out: /persist of the nodes (--persist copies it).");
        }
        eprintln!("It contains private keys: keep it as safe as the server.");
    }
}

/// Opens a file of the backup for an error that names it.
fn reading(path: &Path) -> impl FnOnce() -> String + '_ {
    move || format!("cannot read {}", path.display())
}

/// Opens a file.
fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).with_context(reading(path))
}
