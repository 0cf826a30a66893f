//! Where the server's own log goes: the journal, with fields, if its standard error is the journal; else standard error.
//!
//! systemd names the device and inode of the stream that it has connected in `JOURNAL_STREAM` (systemd.exec(5)). Lines of
//! that stream would have neither a priority nor fields. Fields of the log have the prefix `WALT_`: `WALT_NODE`, `WALT_MAC`,
//! `WALT_IMAGE`, `WALT_REQUEST_ID` and so on (`journalctl WALT_NODE=vn1`).

use crate::base::{journal, recent_log};
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt, util::SubscriberInitExt};

/// Environment variable with the levels to log, in the grammar of `EnvFilter`.
const LEVELS: &str = "WALT_LOG";
/// Prefix of the fields of our own, without the underscore.
const PREFIX: &str = "WALT";

/// Begins to log.
pub fn start() {
    let filter = || EnvFilter::try_from_env(LEVELS).unwrap_or_else(|_| EnvFilter::new("info"));
    let native = journal_layer();
    let plain = native.is_none().then(|| {
        let colours = std::io::stderr().is_terminal();
        tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr).with_filter(filter())
    });
    tracing_subscriber::registry()
        .with(native.map(|layer| layer.with_filter(filter())))
        .with(plain)
        .with(recent_log::Layer.with_filter(LevelFilter::WARN))
        .with(journal::Layer.with_filter(LevelFilter::INFO))
        .init();
}

/// The journal, if standard error is connected to it and it takes messages with fields.
fn journal_layer() -> Option<tracing_journald::Layer> {
    let stat = rustix::fs::fstat(std::io::stderr()).ok()?;
    if !is_stream(&std::env::var("JOURNAL_STREAM").ok()?, stat.st_dev, stat.st_ino) {
        return None;
    }
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(Some(PREFIX.into())).with_priority_mappings(priorities))
}

/// Whether `JOURNAL_STREAM` names this device and inode.
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    let Some((dev, ino)) = variable.split_once(':') else { return false };
    (dev.parse(), ino.parse()) == (Ok(device), Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_compared_by_both_numbers() {
        assert!(is_stream("8:1234", 8, 1234));
        for other in ["8:12345", "9:1234", "8", "", "8:x"] {
            assert!(!is_stream(other, 8, 1234), "{other}");
        }
    }
}
