//! The service of systemd that runs the server, where there is one.

use crate::base::programs::find_program;
use anyhow::{Context, Result, bail};
use std::{path::Path, process::Command};

/// The unit that the package brings.
pub const UNIT: &str = "walt-server.service";
/// A directory that exists while systemd runs as the init of the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Lines of the log that are shown when the service does not start.
const LOG_LINES: &str = "15";

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// systemd, by our unit.
    Unit {
        /// Whether it is started with the machine.
        enabled: bool,
        /// Whether it runs.
        active: bool,
    },
    /// systemd runs, and does not know the unit.
    NoUnit,
    /// Another init.
    NoSystemd,
    /// The configuration is not the one that the unit uses.
    OtherFile,
}

fn systemctl(words: &[&str]) -> Result<std::process::Output> {
    Command::new("systemctl").args(words).output().context("cannot run systemctl")
}

fn succeeds(words: &[&str]) -> bool {
    systemctl(words).is_ok_and(|o| o.status.success())
}

/// Finds out who runs the server of the default configuration, or of another one.
pub fn find(is_default_file: bool) -> Service {
    if !is_default_file {
        return Service::OtherFile;
    }
    if !Path::new(BOOTED).is_dir() || find_program("systemctl").is_none() {
        return Service::NoSystemd;
    }
    if !succeeds(&["cat", UNIT]) {
        return Service::NoUnit;
    }
    Service::Unit { enabled: succeeds(&["is-enabled", UNIT]), active: succeeds(&["is-active", UNIT]) }
}

/// Carries out `systemctl WORD` on the unit.
///
/// # Errors
/// It failed; the error has the last lines of the service's log.
pub fn act(word: &str) -> Result<()> {
    let output = systemctl(&[word, UNIT])?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    bail!("'systemctl {word} {UNIT}' failed: {said}{}", log());
}

/// The last lines of the log of the service, as the end of a message.
pub fn log() -> String {
    let output =
        Command::new("journalctl").args(["-u", UNIT, "-n", LOG_LINES, "--no-pager", "-o", "cat"]).output();
    match output {
        Ok(o) if o.status.success() && !o.stdout.is_empty() => {
            format!(
                "\nThe end of its log (journalctl -u {UNIT}):\n{}",
                String::from_utf8_lossy(&o.stdout).trim()
            )
        }
        _ => format!("\nIts log: journalctl -u {UNIT}"),
    }
}
