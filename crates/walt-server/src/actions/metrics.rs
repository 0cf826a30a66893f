//! The figures for Prometheus: what is counted while the server runs, and what is read when they are asked for.

use crate::{
    actions::app::App,
    base::{db::SessionRow, metrics::Text},
    services::{nodes, sessions},
};
use anyhow::Result;
use std::sync::atomic::Ordering;
use walt_api::NodeState;
use walt_nfsd::operations::OPERATION_BOUNDS;

/// All figures as text. Blocks for as long as the state is read.
///
/// # Errors
/// The state cannot be read.
pub fn text(app: &App) -> Result<String> {
    let mut text = Text::default();
    text.family("walt_server_info", "gauge", "The server; its value is 1.");
    text.sample("walt_server_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let started = app.process().started() as f64;
    text.one("walt_server_start_time_seconds", "gauge", "When the server started, since the epoch.", started);
    of_nodes(app, &mut text)?;
    of_images(app, &mut text)?;
    let (lines, bytes) = app.logs().taken_in();
    text.one("walt_log_lines_total", "counter", "Log lines that were taken in.", lines as f64);
    text.one("walt_log_bytes_total", "counter", "Bytes of these lines.", bytes as f64);
    let kept = app.logs().store().status();
    text.one("walt_log_store_bytes", "gauge", "Size of the files with log lines.", kept.bytes as f64);
    text.one("walt_log_store_lines", "gauge", "Log lines in these files.", kept.lines as f64);
    let help = "Log lines that could not be written.";
    text.one("walt_log_dropped_lines_total", "counter", help, kept.dropped_lines as f64);
    let live = app.live();
    text.one("walt_events_clients", "gauge", "Clients that follow the state.", live.clients() as f64);
    let help = "Messages about the state to clients.";
    text.one("walt_events_messages_total", "counter", help, live.sent() as f64);
    let help = "Snapshots for clients that fell behind.";
    text.one("walt_events_resyncs_total", "counter", help, live.resyncs() as f64);
    let operations = app.base().operations().list().len();
    text.one("walt_operations_running", "gauge", "Actions of users under way.", operations as f64);
    app.base().metrics().write(&mut text);
    of_nfs(app, &mut text);
    Ok(text.into_string())
}

fn of_nodes(app: &App, text: &mut Text) -> Result<()> {
    let list = nodes::list(app.nodes())?.nodes;
    text.family("walt_nodes", "gauge", "Nodes by their state.");
    let states = [
        ("off", NodeState::Off),
        ("booting", NodeState::Booting),
        ("booted", NodeState::Booted),
        ("down", NodeState::Down),
    ];
    for (name, state) in states {
        let count = list.iter().filter(|node| node.state == state).count();
        text.sample("walt_nodes", &[("state", name)], count as f64);
    }
    let look = list.iter().filter(|node| node.needs_look.is_some()).count();
    text.one("walt_nodes_needing_look", "gauge", "Nodes whose boots the server has given up.", look as f64);
    let leased = list.iter().filter(|n| n.lease.as_ref().is_some_and(|lease| !lease.expired)).count();
    text.one("walt_nodes_leased", "gauge", "Nodes with a lease that is not over.", leased as f64);
    let waiting = app.nodes().queue().waits().len();
    text.one("walt_nodes_queue_length", "gauge", "Users who wait for nodes.", waiting as f64);
    Ok(())
}

fn of_images(app: &App, text: &mut Text) -> Result<()> {
    let totals = app.store().totals()?;
    text.one("walt_image_store_bytes", "gauge", "Size of the files of all layers.", totals.bytes as f64);
    text.one("walt_image_store_layers", "gauge", "Layers in the store.", totals.layers as f64);
    text.one("walt_image_store_images", "gauge", "Images in the store.", totals.images as f64);
    let disk = rustix::fs::statvfs(&app.config().state_dir)?;
    let free = (disk.f_bavail * disk.f_frsize) as f64;
    text.one("walt_state_disk_free_bytes", "gauge", "Free space on the disk of the state directory.", free);
    let size = (disk.f_blocks * disk.f_frsize) as f64;
    text.one("walt_state_disk_size_bytes", "gauge", "Size of the disk of the state directory.", size);
    let rows = app.db().with(SessionRow::all)?;
    let states: Vec<&str> = rows.iter().map(|row| sessions::state_text(app.store(), row)).collect();
    text.family("walt_sessions", "gauge", "Image shells by their state.");
    for name in ["starting", "running", "exited", "stopped"] {
        let count = states.iter().filter(|state| **state == name).count();
        text.sample("walt_sessions", &[("state", name)], count as f64);
    }
    Ok(())
}

fn of_nfs(app: &App, text: &mut Text) {
    let name = "walt_nfs_operation_duration_seconds";
    text.family(name, "histogram", "Time of NFS calls of nodes in the server, by procedure.");
    let Some(nfs) = app.nodes().nfs() else { return };
    for (operation, times) in nfs.operations().all() {
        let counts: Vec<u64> = times.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        if counts.iter().any(|count| *count > 0) {
            let sum = times.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
            text.buckets(name, &[("operation", operation)], &OPERATION_BOUNDS, &counts, sum);
        }
    }
    let name = "walt_nfs_reply_bytes_total";
    text.one(name, "counter", "Bytes of the answers to NFS calls.", nfs.operations().bytes() as f64);
}
