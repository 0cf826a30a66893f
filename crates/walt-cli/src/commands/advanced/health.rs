//! `walt advanced health`

use crate::{
    context::Context,
    error::Failure,
    ui::{self, bytes, time_left},
};
use clap::Args;
use std::fmt::Write as _;
use walt_api::health::{Health, Level};

/// Width of the first column, in characters.
const LABEL_WIDTH: usize = 13;

/// `walt advanced health`
#[derive(Debug, Args)]
#[command(
    after_help = "The exit status is 1 if something does not work, and 0 otherwise, also with warnings."
)]
pub struct ShowHealth {
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl ShowHealth {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let health = context.ui.watch(context.client.health()).await?;
        match self.json {
            true => ui::out_json(&health)?,
            false => ui::out_text(&text(&health))?,
        }
        if health.healthy { Ok(()) } else { Err(Failure::reported()) }
    }
}

/// One screen.
fn text(health: &Health) -> String {
    let state = match (health.healthy, health.findings.len()) {
        (true, 0) => "The server is fine",
        (true, _) => "The server works, with warnings",
        (false, _) => "Something does not work",
    };
    let mut text = format!("{state}: walt-server {}, up {}.\n\n", health.version, time_left(health.uptime));
    // Writing to a string cannot fail.
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<LABEL_WIDTH$}{value}");
    };
    let n = &health.nodes;
    let states = [
        (n.booted, "booted"),
        (n.booting, "booting"),
        (n.down, "down"),
        (n.off, "off"),
        (n.needs_look, "to be looked at"),
    ];
    let states: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let states = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
    line("Your nodes:", format!("{} of {}{states}", n.total, health.all_nodes));
    let i = &health.images;
    line(
        "Your images:",
        format!("{}, {} in use by nodes, {} with an open shell", i.total, i.in_use, i.shells),
    );
    let room = &health.room;
    let percent = room.free.saturating_mul(100).checked_div(room.size).unwrap_or(0);
    line("Disk:", format!("{} free of {} ({percent} %)", bytes(room.free), bytes(room.size)));
    for (at, finding) in health.findings.iter().enumerate() {
        let level = match finding.level {
            Level::Error => "Error:",
            Level::Warning => "Warning:",
        };
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}{level:<LABEL_WIDTH$}{}", finding.what);
        let _ = writeln!(text, "{:LABEL_WIDTH$}{}", "", finding.advice);
    }
    if !health.errors.is_empty() {
        let _ = writeln!(text, "\nLast messages of the server ('walt log show --server' shows all of them):");
    }
    for entry in &health.errors {
        let times = if entry.times > 1 { format!(" ({} times)", entry.times) } else { String::new() };
        let message = entry.message.lines().next().unwrap_or_default();
        let _ = writeln!(text, "{}  {:<7}  {message}{times}", entry.time, entry.level);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_api::{
        LogEntry, NodeCounts,
        health::{Finding, OwnImages, Room},
    };

    #[test]
    fn one_screen() {
        let mut health = Health {
            healthy: true,
            version: "1.2.3".into(),
            since: "2026-01-02 03:04:05".into(),
            uptime: 7265,
            user: "ann".into(),
            nodes: NodeCounts::default(),
            all_nodes: 3,
            images: OwnImages { total: 2, in_use: 1, shells: 0 },
            room: Room { size: 40_000_000_000, free: 10_000_000_000 },
            findings: Vec::new(),
            errors: Vec::new(),
        };
        let expected = "\
The server is fine: walt-server 1.2.3, up 2h 1m.

Your nodes:  0 of 3
Your images: 2, 1 in use by nodes, 0 with an open shell
Disk:        10.0 GB free of 40.0 GB (25 %)
";
        assert_eq!(text(&health), expected);
        health.healthy = false;
        health.nodes = NodeCounts { total: 2, booted: 1, down: 1, needs_look: 1, ..NodeCounts::default() };
        let finding = |level, what: &str| Finding { level, what: what.into(), advice: "Look.".into() };
        health.findings = vec![finding(Level::Error, "Down."), finding(Level::Warning, "Full.")];
        health.errors = vec![LogEntry {
            time: "2026-01-02 03:04:06".into(),
            level: "warning".into(),
            message: "one\ntwo".into(),
            times: 2,
        }];
        let expected = "\
Something does not work: walt-server 1.2.3, up 2h 1m.

Your nodes:  2 of 3: 1 booted, 1 down, 1 to be looked at
Your images: 2, 1 in use by nodes, 0 with an open shell
Disk:        10.0 GB free of 40.0 GB (25 %)

Error:       Down.
             Look.
Warning:     Full.
             Look.

Last messages of the server ('walt log show --server' shows all of them):
2026-01-02 03:04:06  warning  one (2 times)
";
        assert_eq!(text(&health), expected);
    }
}
