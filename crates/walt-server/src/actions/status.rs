//! `walt-server status`: the status of the server, from the server, or from its state if none is running.

use crate::{
    actions::{admin::runtime, app::App, check_store::must_have_state},
    base::{
        config::Config,
        db::{Db, NodeRow, RefRow, SessionRow},
        recent_log, time,
    },
    services::{cable, network, nodes, sessions},
};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use walt_api::{Disk, ImageCounts, NodeCounts, SessionCounts, Status};
use walt_client::{Client, Target};
use walt_core::life::Phase;
use walt_images::Store;

/// Width of the first column of the text, in characters.
const LABEL_WIDTH: usize = 11;

/// The status of this server. Blocks for as long as `nft` runs.
///
/// # Errors
/// The state cannot be read.
pub fn of(app: &App) -> Result<Status> {
    let mut status = from_state(app.config(), app.db(), app.store())?;
    status.running = true;
    status.version = Some(env!("CARGO_PKG_VERSION").into());
    status.since = Some(time::local_time(app.process().started()));
    status.uptime = Some((time::now() - app.process().started() as f64).max(0.0) as u64);
    status.user_namespaces = app.sessions().user_namespaces().cloned();
    status.ports_missing = app.base().ports_missing().list();
    status.errors = recent_log::entries();
    let wire = app.base().wire();
    status.cable = cable::describe(app.config(), wire.problem())?;
    status.dhcp_servers = wire.servers();
    Ok(status)
}

/// The part of the status that is known without a server.
fn from_state(config: &Config, db: &Db, store: &Store) -> Result<Status> {
    let (refs, rows, settings, open) =
        db.with(|c| Ok((RefRow::all(c)?, NodeRow::all(c)?, NodeRow::all_settings(c)?, SessionRow::all(c)?)))?;
    let none = BTreeMap::new();
    let mut counts = NodeCounts { total: rows.len(), ..NodeCounts::default() };
    for row in &rows {
        counts.needs_look += usize::from(row.life.needs_look.is_some());
        let timeout = nodes::boot_timeout(settings.get(&row.mac).unwrap_or(&none));
        *match row.life.phase(time::now(), timeout) {
            Phase::Off => &mut counts.off,
            Phase::Booting(_) => &mut counts.booting,
            Phase::Booted(_) => &mut counts.booted,
            Phase::Down => &mut counts.down,
        } += 1;
    }
    let mut shells = SessionCounts { total: open.len(), ..SessionCounts::default() };
    for row in &open {
        *match sessions::state_text(store, row) {
            "starting" | "running" => &mut shells.running,
            "exited" => &mut shells.exited,
            _ => &mut shells.stopped,
        } += 1;
    }
    let totals = store.totals()?;
    let path = &config.state_dir;
    let disk = rustix::fs::statvfs(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Status {
        running: false,
        version: None,
        since: None,
        uptime: None,
        nodes: counts,
        sessions: shells,
        images: ImageCounts {
            references: refs.len(),
            images: totals.images,
            layers: totals.layers,
            bytes: totals.bytes,
        },
        disk: Disk {
            path: path.display().to_string(),
            size: disk.f_blocks * disk.f_frsize,
            free: disk.f_bavail * disk.f_frsize,
        },
        ports_missing: Vec::new(),
        user_namespaces: None,
        foreign_rules: network::foreign_rules(config)?,
        cable: cable::describe(config, None)?,
        dhcp_servers: Vec::new(),
        errors: Vec::new(),
    })
}

/// The command; false if no server runs.
///
/// # Errors
/// The status cannot be found out.
pub fn run(config: &Config, json: bool) -> Result<bool> {
    let asked =
        runtime()?.block_on(async { Client::new(Target::Unix(config.socket()), None)?.status().await });
    let status = match asked {
        Ok(status) => status,
        Err(walt_client::Error::Connect { .. }) => {
            must_have_state(config)?;
            let db = Db::open_to_read(&config.state_dir)?;
            from_state(config, &db, &Store::open_to_read(&config.state_dir))?
        }
        Err(e) => return Err(e).context("cannot get the status from the server"),
    };
    match json {
        true => println!("{}", serde_json::to_string_pretty(&status)?),
        false => print!("{}", text(&status)),
    }
    Ok(status.running)
}

/// Bytes in decimal units.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["MB", "GB", "TB", "PB"];
    let mut value = bytes as f64 / 1e6;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds in the two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// The status as text.
fn text(status: &Status) -> String {
    let mut out = match (&status.version, &status.since, status.uptime) {
        (Some(version), Some(since), Some(uptime)) => {
            format!("walt-server {version} runs since {since} ({}).\n", span(uptime))
        }
        _ => format!("No server is running. State in {}:\n", status.disk.path),
    };
    let mut part = |label: &str, lines: Vec<String>| {
        for (i, line) in lines.iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            out.push_str(&format!("{label:<LABEL_WIDTH$}{line}\n"));
        }
    };
    let n = &status.nodes;
    let states = format!("{} booted, {} booting, {} down, {} off", n.booted, n.booting, n.down, n.off);
    let mut nodes = vec![format!("{} ({states})", n.total)];
    match n.needs_look {
        0 => {}
        1 => nodes.push("1 needs a look: see 'walt node show --all'".into()),
        count => nodes.push(format!("{count} need a look: see 'walt node show --all'")),
    }
    part("Nodes:", nodes);
    let s = &status.sessions;
    let states = format!("{} running, {} exited, {} stopped", s.running, s.exited, s.stopped);
    part("Sessions:", vec![format!("{} ({states})", s.total)]);
    let i = &status.images;
    let store = format!(
        "{} references to {} images, {} layers of {}",
        i.references,
        i.images,
        i.layers,
        size(i.bytes)
    );
    part("Images:", vec![store]);
    let d = &status.disk;
    let percent = d.free.saturating_mul(100).checked_div(d.size).unwrap_or(0);
    part("Disk:", vec![format!("{} free of {} ({percent} %) in {}", size(d.free), size(d.size), d.path)]);
    let or = |lines: Vec<String>, nothing: &str| {
        if lines.is_empty() { vec![nothing.to_owned()] } else { lines }
    };
    let wire = status.cable.as_ref().map_or_else(
        || "none, so there are virtual nodes only (network.walt-net.raw-device)".into(),
        cable::text,
    );
    let others = status.dhcp_servers.iter().map(|s| {
        let (ip, mac) = (&s.ip, &s.mac);
        format!("another DHCP server is on the wire, at {ip} ({mac}): nodes may boot from it; remove it")
    });
    part("Cable:", std::iter::once(wire).chain(others).collect());
    if status.running {
        let ports = status.ports_missing.iter().map(|p| {
            let holder = match (&p.holder, p.pid) {
                (Some(name), Some(pid)) => format!("is held by {name}, process {pid}"),
                _ => "was not available when the server started".into(),
            };
            let (protocol, service) = (p.protocol.to_uppercase(), &p.service);
            format!("{protocol} {} of {service} {holder}: {}", p.port, p.effect)
        });
        part("Ports:", or(ports.collect(), "all available"));
    }
    if let Some(answer) = &status.user_namespaces {
        let why = answer.why.as_deref().unwrap_or_default();
        let line =
            if answer.used { "in user namespaces".into() } else { format!("without user namespaces: {why}") };
        part("Shells:", vec![line]);
    }
    let rules = status.foreign_rules.iter().map(|r| r.message.clone());
    part("Firewalls:", or(rules.collect(), "no foreign rules drop our traffic"));
    if status.running {
        let errors = status.errors.iter().map(|e| {
            let times = if e.times > 1 { format!(" ({} times)", e.times) } else { String::new() };
            format!("{}  {:<7}  {}{times}", e.time, e.level, e.message.trim_end())
        });
        part("Errors:", or(errors.collect(), "none since the start"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_api::{ForeignRule, LogEntry, MissingPort, UserNamespaces};

    #[test]
    fn people_read_aligned_lines() {
        let mut status = Status {
            running: true,
            version: Some("1.2.3".into()),
            since: Some("2026-01-02 03:04:05".into()),
            uptime: Some(7265),
            nodes: NodeCounts { total: 3, booted: 1, booting: 0, down: 1, off: 1, needs_look: 1 },
            sessions: SessionCounts { total: 1, running: 0, exited: 1, stopped: 0 },
            images: ImageCounts { references: 4, images: 2, layers: 5, bytes: 1_234_000_000 },
            disk: Disk { path: "/var/lib/walt".into(), size: 40_000_000_000, free: 10_000_000_000 },
            ports_missing: vec![MissingPort {
                port: 111,
                protocol: "udp".into(),
                service: "the port mapper".into(),
                holder: Some("rpcbind".into()),
                pid: Some(7),
                effect: "old images do not boot".into(),
            }],
            user_namespaces: Some(UserNamespaces { used: false, why: Some("no".into()) }),
            foreign_rules: vec![ForeignRule {
                chain: "ip filter FORWARD".into(),
                accepted: true,
                message: "ip filter FORWARD drops".into(),
            }],
            cable: None,
            dhcp_servers: vec![walt_api::DhcpServer {
                ip: "192.0.2.1".into(),
                mac: "02:00:00:00:00:01".into(),
            }],
            errors: ["one", "two"]
                .map(|message| LogEntry {
                    time: "2026-01-02 03:04:06".into(),
                    level: "warning".into(),
                    message: message.into(),
                    times: message.len() as u32 - 2,
                })
                .into(),
        };
        let expected = "\
walt-server 1.2.3 runs since 2026-01-02 03:04:05 (2 h 1 min).
Nodes:     3 (1 booted, 0 booting, 1 down, 1 off)
           1 needs a look: see 'walt node show --all'
Sessions:  1 (0 running, 1 exited, 0 stopped)
Images:    4 references to 2 images, 5 layers of 1.2 GB
Disk:      10.0 GB free of 40.0 GB (25 %) in /var/lib/walt
Cable:     none, so there are virtual nodes only (network.walt-net.raw-device)
           another DHCP server is on the wire, at 192.0.2.1 (02:00:00:00:00:01): nodes may boot from it; remove it
Ports:     UDP 111 of the port mapper is held by rpcbind, process 7: old images do not boot
Shells:    without user namespaces: no
Firewalls: ip filter FORWARD drops
Errors:    2026-01-02 03:04:06  warning  one
           2026-01-02 03:04:06  warning  two
";
        assert_eq!(text(&status), expected);
        status.running = false;
        (status.version, status.foreign_rules) = (None, Vec::new());
        (status.user_namespaces, status.dhcp_servers) = (None, Vec::new());
        let expected = "\
No server is running. State in /var/lib/walt:
Nodes:     3 (1 booted, 0 booting, 1 down, 1 off)
           1 needs a look: see 'walt node show --all'
Sessions:  1 (0 running, 1 exited, 0 stopped)
Images:    4 references to 2 images, 5 layers of 1.2 GB
Disk:      10.0 GB free of 40.0 GB (25 %) in /var/lib/walt
Cable:     none, so there are virtual nodes only (network.walt-net.raw-device)
Firewalls: no foreign rules drop our traffic
";
        assert_eq!(text(&status), expected);
    }
}
