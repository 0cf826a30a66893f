//! `walt advanced health`: what is wrong, for one user, in words, and what to do about it.

use crate::{
    actions::{app::App, image_list, status},
    base::{db::blocking, failure::Outcome},
    services::{cable, nodes},
};
use walt_api::{
    Disk, Image, NodeCounts, NodeState, Status,
    health::{Finding, Health, Level, OwnImages, Room},
};
use walt_types::UserName;

/// Messages of the server's log in an answer.
const MESSAGES: usize = 5;
/// Parts of the disk that must be free, in thousandths: less is worth a warning; too little for a save or a clone.
const ROOM_LOW: u64 = 50;
const ROOM_OUT: u64 = 10;
/// What must be free in any case, in bytes: an image of a few hundred megabytes must fit.
const BYTES_LOW: u64 = 2 << 30;
const BYTES_OUT: u64 = 256 << 20;
/// What users can do about the server itself.
const ASK: &str = "Ask the administrator of the server: 'walt-server status' shows the details.";

/// The health of the server as `user` sees it.
///
/// # Errors
/// The state cannot be read.
pub async fn of(app: &App, user: &UserName) -> Outcome<Health> {
    let status = blocking(|| status::of(app))?;
    let all = nodes::list(app.nodes())?.nodes;
    let images = image_list::list(app, None).await?.images;
    let own_nodes: Vec<_> = all.iter().filter(|node| node.owner == user.as_str()).collect();
    let own_images: Vec<_> = images.iter().filter(|image| image.user == user.as_str()).collect();
    let mut counts = NodeCounts { total: own_nodes.len(), ..NodeCounts::default() };
    for node in &own_nodes {
        counts.needs_look += usize::from(node.needs_look.is_some());
        *match node.state {
            NodeState::Off => &mut counts.off,
            NodeState::Booting => &mut counts.booting,
            NodeState::Booted => &mut counts.booted,
            NodeState::Down => &mut counts.down,
        } += 1;
    }
    let mut findings = of_server(&status);
    findings.extend(own_nodes.iter().filter_map(|node| of_node(node)));
    findings.extend(own_images.iter().filter_map(|image| of_shell(image)));
    findings.sort_by_key(|finding| finding.level);
    let mut errors = status.errors;
    errors.drain(..errors.len().saturating_sub(MESSAGES));
    Ok(Health {
        healthy: findings.iter().all(|finding| finding.level != Level::Error),
        version: env!("CARGO_PKG_VERSION").into(),
        since: status.since.unwrap_or_default(),
        uptime: status.uptime.unwrap_or_default(),
        user: user.to_string(),
        nodes: counts,
        all_nodes: all.len(),
        images: OwnImages {
            total: own_images.len(),
            in_use: own_images.iter().filter(|image| image.in_use).count(),
            shells: own_images.iter().filter(|image| image.session.is_some()).count(),
        },
        room: Room { size: status.disk.size, free: status.disk.free },
        findings,
        errors,
    })
}

fn finding(level: Level, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { level, what: what.into(), advice: advice.into() }
}

/// What is wrong with the server.
fn of_server(status: &Status) -> Vec<Finding> {
    let mut findings: Vec<Finding> = of_disk(&status.disk).into_iter().collect();
    for port in &status.ports_missing {
        let held = port.holder.as_ref().map_or_else(String::new, |name| format!(": {name} has it"));
        let (service, effect) = (&port.service, &port.effect);
        let protocol = port.protocol.to_uppercase();
        let what =
            format!("The server does not have {protocol} port {} of {service}{held}; {effect}.", port.port);
        findings.push(finding(Level::Warning, what, ASK));
    }
    for rule in status.foreign_rules.iter().filter(|rule| !rule.accepted) {
        let what = format!("Another firewall is in the way of nodes: {}.", rule.message);
        findings.push(finding(Level::Warning, what, ASK));
    }
    if let Some(cable) = status.cable.as_ref().filter(|cable| !cable.attached || !cable.carrier) {
        let what = format!("Physical nodes cannot reach the server: {}.", cable::text(cable));
        findings.push(finding(Level::Error, what, format!("Check the cable and the switch. {ASK}")));
    }
    for other in &status.dhcp_servers {
        let what = format!(
            "Another DHCP server is on the network of the nodes, at {} ({}): nodes may boot from it.",
            other.ip, other.mac
        );
        findings.push(finding(Level::Warning, what, "Switch it off, or move it to another network."));
    }
    findings
}

fn of_disk(disk: &Disk) -> Option<Finding> {
    let below = |thousandths: u64, bytes: u64| disk.free < (disk.size / 1000 * thousandths).max(bytes);
    let (level, state) = match () {
        () if below(ROOM_OUT, BYTES_OUT.min(disk.size / 10)) => (Level::Error, "full"),
        () if below(ROOM_LOW, BYTES_LOW.min(disk.size / 5)) => (Level::Warning, "nearly full"),
        () => return None,
    };
    let what = format!(
        "The disk of the server is {state}: {} free of {}.",
        status::size(disk.free),
        status::size(disk.size)
    );
    let advice = "Remove what you do not need: 'walt image show', 'walt image remove', 'walt image prune'. The administrator can make room or lower 'limits.history-keep' and 'logs.max-size'.";
    Some(finding(level, what, advice))
}

/// What is wrong with a node of the user.
fn of_node(node: &walt_api::Node) -> Option<Finding> {
    let name = &node.name;
    let console = node.last_console_line.as_ref().map_or_else(String::new, |line| {
        format!(" The last line of its console: {}", line.chars().take(200).collect::<String>())
    });
    match (&node.needs_look, node.state) {
        (Some(why), _) => Some(finding(
            Level::Error,
            format!("Node {name} needs a look: {}.{console}", why.trim_end_matches('.')),
            format!("See 'walt node boots {name}' and 'walt log show'; then 'walt node reboot {name}'."),
        )),
        (None, NodeState::Down) => Some(finding(
            Level::Error,
            format!("Node {name} does not answer.{console}"),
            format!("See 'walt node console {name}'; 'walt node reboot {name}' starts it again."),
        )),
        _ => None,
    }
}

/// A shell that has exited and waits for a decision.
fn of_shell(image: &Image) -> Option<Finding> {
    let session = image.session.as_ref().filter(|session| session.state == "exited")?;
    let own = image.fullname.split_once('/').map_or(image.fullname.as_str(), |(_, own)| own);
    let own = own.strip_suffix(":latest").unwrap_or(own);
    Some(finding(
        Level::Warning,
        format!(
            "The shell on image {own} of {} has exited; its changes are neither saved nor dropped.",
            session.since
        ),
        format!(
            "'walt image shell --resume {own}' goes on with them, 'walt image shell --discard {own}' drops them."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_on_disks_of_all_sizes() {
        let level = |free: u64, size: u64| {
            of_disk(&Disk { path: "/".into(), size, free }).map(|f| (f.level, f.what.contains("nearly")))
        };
        let gib = 1 << 30;
        assert_eq!(level(400 * gib, 4000 * gib), None);
        assert_eq!(level(100 * gib, 4000 * gib), Some((Level::Warning, true)));
        assert_eq!(level(10 * gib, 4000 * gib), Some((Level::Error, false)));
        assert_eq!(level(3 * gib, 40 * gib), None);
        assert_eq!(level(gib, 40 * gib), Some((Level::Warning, true)));
        assert_eq!(level(gib / 10, 40 * gib), Some((Level::Error, false)));
        // A small disk is not always full.
        assert_eq!(level(gib / 2, gib), None);
        assert_eq!(level(0, 0), None);
    }
}
