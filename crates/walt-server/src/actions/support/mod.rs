//! `walt-server support-bundle`: what somebody needs who looks for a fault from far away, in one archive, without secrets.
//!
//! ```text
//! part ──within its time──▶ text ──Scrub──▶ text without secrets ──cut──▶ file of the archive (tar, gzip, mode 0600)
//!    └── failed: why ─────────────────────────────────────────────────▶ report.txt
//! ```
//! It works with a server and without one, and also if the configuration is wrong: a part that cannot be had is named with
//! its reason, and the rest is there. The state is only read. Limits: [`PART_MAX`] and a time for each part, [`BUNDLE_MAX`] for
//! all.

mod collect;
mod parts;
mod scrub;

use crate::base::{config::Config, time};
use anyhow::{Context, Result, bail};
use clap::Args;
use flate2::{Compression, write::GzEncoder};
use parts::{Facts, Part};
use scrub::Scrub;
use std::{
    fs::{File, OpenOptions},
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use walt_tar::{BLOCK, Header, Time, write_header};

/// Largest part, in bytes.
pub const PART_MAX: usize = 4 << 20;
/// Largest bundle before it is compressed, in bytes; parts behind it are left out.
pub const BUNDLE_MAX: usize = 32 << 20;
/// Name that means standard output.
const STDOUT: &str = "-";

/// `walt-server support-bundle`
#[derive(Debug, Args)]
pub struct SupportBundle {
    /// File to write, which must not exist, or - for standard output (default: walt-support-TIME.tar.gz)
    file: Option<PathBuf>,
    /// How long the check of the image store may take, in seconds; 0 leaves it out
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    check_store: u64,
}

/// The command.
///
/// # Errors
/// The bundle cannot be written. Parts that failed are not an error.
pub fn run(config_path: Option<&Path>, arguments: &SupportBundle) -> Result<()> {
    let stamp = time::rfc3339(time::now() as i64).replace([':', '-'], "");
    let name = format!("walt-support-{stamp}");
    let path = arguments.file.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    let is_stdout = path.as_os_str() == STDOUT;
    let out: Box<dyn Write> = match is_stdout {
        true if std::io::stdout().is_terminal() => {
            bail!("the bundle is an archive and standard output is a terminal: name a file, or redirect it")
        }
        true => Box::new(std::io::stdout()),
        false => Box::new(create(&path)?),
    };
    let facts = Facts::find(config_path, Duration::from_secs(arguments.check_store));
    let written = write(out, &name, &facts);
    if written.is_err() && !is_stdout {
        let _ = std::fs::remove_file(&path);
    }
    let written = written.with_context(|| format!("cannot write {}", path.display()))?;
    for (part, why) in &written.failed {
        eprintln!("Left out: {part}: {why}");
    }
    let what = if is_stdout { "the bundle".to_owned() } else { path.display().to_string() };
    eprintln!(
        "Wrote {what}: {} parts, {} left out. Passwords and keys are removed; host names, addresses and names of users and images are not.",
        written.parts,
        written.failed.len()
    );
    Ok(())
}

/// A new file that only its owner may read.
fn create(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.with_context(|| format!("cannot create {} (an existing file is not replaced)", path.display()))
}

/// What became of the parts.
struct Written {
    parts: usize,
    failed: Vec<(String, String)>,
}

fn write(out: impl Write, name: &str, facts: &Arc<Facts>) -> std::io::Result<Written> {
    let mut archive = Archive { out: GzEncoder::new(out, Compression::default()), dir: name.to_owned() };
    let scrub = scrub_of(facts);
    let (mut report, mut total) = (String::new(), 0);
    let mut written = Written { parts: 0, failed: Vec::new() };
    for Part { file, limit, get } in parts::all(facts) {
        let start = Instant::now();
        let of_part = facts.clone();
        let got = match total < BUNDLE_MAX {
            true => collect::within(limit, move || get(&of_part)),
            false => Err(anyhow::anyhow!("the bundle is full ({} MiB)", BUNDLE_MAX >> 20)),
        };
        let took = start.elapsed().as_secs_f64();
        match got {
            Ok(text) => {
                let text = collect::cut(scrub.clean(&text), PART_MAX.min(BUNDLE_MAX - total));
                total += text.len();
                written.parts += 1;
                report += &format!("{file}: {} bytes, {took:.1} s\n", text.len());
                archive.add(file, text.as_bytes())?;
            }
            Err(e) => {
                let why = scrub.clean(&format!("{e:#}"));
                report += &format!("{file}: left out: {why}\n");
                written.failed.push((file.to_owned(), why));
            }
        }
    }
    archive.add("report.txt", report.as_bytes())?;
    archive.finish()?;
    Ok(written)
}

/// Knows the keys, and what in the database is secret.
fn scrub_of(facts: &Facts) -> Scrub {
    let mut scrub = Scrub::new(&facts.config.state_dir);
    for secret in parts::secrets(facts) {
        scrub.add(secret);
    }
    scrub
}

/// A compressed tar.
struct Archive<W: Write> {
    out: GzEncoder<W>,
    dir: String,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let header = Header {
            path: format!("{}/{name}", self.dir).into_bytes(),
            mode: 0o600,
            mtime: Time { sec: time::now() as i64, nsec: 0 },
            ..Header::file(bytes.len() as u64)
        };
        let mut block = Vec::new();
        write_header(&mut block, &header);
        self.out.write_all(&block)?;
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
        self.out.write_all(&[0; BLOCK][..padding])
    }

    fn finish(mut self) -> std::io::Result<()> {
        // Two empty blocks end a tar (POSIX pax, ustar).
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()?.flush()
    }
}

/// The configuration, or the default one with the reason.
fn config_of(path: Option<&Path>) -> (Config, Option<String>) {
    match Config::load(path) {
        Ok(config) => (config, None),
        Err(e) => (Config::default(), Some(format!("{e:#}"))),
    }
}
