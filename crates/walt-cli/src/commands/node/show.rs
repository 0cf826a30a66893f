//! `walt node show`

use super::watch;
use crate::{
    commands::device::other_model,
    context::Context,
    error::Failure,
    ui::{
        self,
        table::{own_name, section},
    },
};
use clap::Args;
use walt_api::{Node, NodeLease, NodeList, NodeState};
use walt_types::PLATFORM_USER;

/// Seconds before the end of a lease from which on its owner is reminded.
const ENDS_SOON: u64 = 15 * 60;

/// `walt node show`
#[derive(Debug, Args)]
pub struct Show {
    /// also show free nodes and those of other users
    #[arg(long)]
    all: bool,
    /// print names only, one per line
    #[arg(long, conflicts_with = "json")]
    names_only: bool,
    /// print JSON
    #[arg(long)]
    json: bool,
    /// go on showing them as they change, until ctrl-C; without a terminal, print a line for each change
    #[arg(long, conflicts_with_all = ["json", "names_only"])]
    watch: bool,
}

impl Show {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let user = context.ui.watch(context.client.info()).await?.user;
        if self.watch {
            return watch::watch(context, user.as_str(), self.all).await;
        }
        let mut list = context.ui.watch(context.client.nodes()).await?;
        list.nodes.sort_by(|a, b| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
        let total = list.nodes.len();
        let taken = taken(&list.nodes, user.as_str());
        if !self.all {
            list.nodes.retain(|node| node.owner == user.as_str());
        }
        if self.json {
            return ui::out_json(&NodeList { num_nodes: list.nodes.len(), nodes: list.nodes });
        }
        if self.names_only {
            let names: String = list.nodes.iter().map(|node| node.name.clone() + "\n").collect();
            return Ok(ui::out_text(&names)?);
        }
        ui::out_text(&text(&list.nodes, user.as_str()))?;
        for line in taken.into_iter().chain(footnotes(&list.nodes, total, user.as_str(), self.all)) {
            ui::note(&line);
        }
        Ok(())
    }
}

/// The tables.
pub(super) fn text(nodes: &[Node], user: &str) -> String {
    let rows = |of: &dyn Fn(&Node) -> bool, cells: &dyn Fn(&Node) -> Vec<String>| {
        nodes.iter().filter(|n| of(n)).map(cells).collect::<Vec<_>>()
    };
    let mut text = section(
        "Nodes you own:",
        &["name", "type", "model", "image", "ip", "netsetup", "boot_mode", "booted", "lease"],
        &rows(&|n| n.owner == user, &|n| leased(n, cells(n, Some(vec![own_name(&n.image).to_owned()])))),
    );
    text += &section(
        "Free nodes:",
        &["name", "type", "model", "ip", "netsetup", "boot_mode", "booted"],
        &rows(&|n| n.owner == PLATFORM_USER && user != PLATFORM_USER, &|n| cells(n, None)),
    );
    text += &section(
        "Nodes of other users:",
        &[
            "name",
            "type",
            "model",
            "image_owner",
            "clonable_image_link",
            "ip",
            "netsetup",
            "boot_mode",
            "booted",
            "lease",
        ],
        &rows(&|n| n.owner != PLATFORM_USER && n.owner != user, &|n| {
            let link = format!("walt:{}", n.image.trim_end_matches(":latest"));
            leased(n, cells(n, Some(vec![n.owner.clone(), link])))
        }),
    );
    for node in nodes.iter().filter(|n| !n.reboot_needed.is_empty()) {
        text += &format!("{}: reboot needed for {}\n", node.name, node.reboot_needed.join(", "));
    }
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    for node in nodes.iter().filter(|n| n.state == NodeState::Down) {
        if let Some(reason) = &node.needs_look {
            text += &format!("Node {} needs a look: {}\n", node.name, clean(reason));
        }
        if let Some(line) = &node.last_console_line {
            let clean = clean(line);
            text += &format!("Last console line of {}: {clean}\n", node.name);
        }
    }
    text
}

/// What lines about a node's changes say: its cells with their columns, without those that never change.
pub(super) fn cells_of(node: &Node) -> Vec<(&'static str, String)> {
    // As in the tables, after name, type and model.
    let shared = ["ip", "netsetup", "boot-mode", "booted"].into_iter().zip(cells(node, None).split_off(3));
    let lease = match &node.lease {
        None => "-",
        Some(lease) if lease.expired => "expired",
        Some(lease) => lease.ends.as_deref().unwrap_or("held"),
    };
    let image = ("image", node.image.clone());
    std::iter::once(image).chain(shared).chain([("lease", lease.to_owned())]).collect()
}

fn cells(node: &Node, image: Option<Vec<String>>) -> Vec<String> {
    let kind = if node.is_virtual { "virtual" } else { "physical" };
    let mut cells = vec![node.name.clone(), kind.to_owned(), node.model.clone()];
    cells.extend(image.unwrap_or_default());
    let netsetup = node.config.get("netsetup").and_then(|v| v.as_str()).unwrap_or("LAN");
    let mode = match (&node.boot_mode, node.copied_percent) {
        (None, _) => "-".to_owned(),
        (Some(mode), None) => mode.clone(),
        (Some(mode), Some(percent)) => format!("{mode} (copied {percent}%)"),
    };
    let booted = if node.reboot_needed.is_empty() { "" } else { ", reboot needed" };
    cells.extend([node.ip.clone(), netsetup.to_owned(), mode, format!("{}{booted}", node.booted_text)]);
    cells
}

/// The cells of an owned node, with the one of its lease.
fn leased(node: &Node, mut cells: Vec<String>) -> Vec<String> {
    cells.push(match &node.lease {
        None => "-".to_owned(),
        Some(lease) if lease.expired => "expired".to_owned(),
        Some(NodeLease { seconds_left: Some(left), held, .. }) => {
            format!("{} left{}", ui::time_left(*left), if *held { ", held" } else { "" })
        }
        Some(_) => "held".to_owned(),
    });
    cells
}

/// Nodes that others have taken from the user.
fn taken(nodes: &[Node], user: &str) -> Vec<String> {
    let note = |node: &Node| {
        let taken = node.taken.as_ref().filter(|taken| taken.from == user && node.owner != user)?;
        Some(format!("Node {} was yours until {}, when {} took it.", node.name, taken.at, taken.by))
    };
    nodes.iter().filter_map(note).collect()
}

/// Leases of the user that end soon or have ended, and who waits.
fn leases(nodes: &[Node], user: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for node in nodes {
        let name = &node.name;
        match node.lease.as_ref().filter(|_| node.owner == user) {
            Some(lease) if lease.expired => notes.push(format!(
                "Your lease of node {name} has ended: others may acquire it without being asked. 'walt node lease {name} +1h' \
                 extends it."
            )),
            Some(NodeLease { seconds_left: Some(left), .. }) if *left <= ENDS_SOON => notes.push(format!(
                "Your lease of node {name} ends in {}. 'walt node lease {name} +1h' extends it.",
                ui::time_left(*left)
            )),
            _ => {}
        }
        if !node.waiting.is_empty() {
            let users: Vec<&str> = node.waiting.iter().map(|wait| wait.user.as_str()).collect();
            notes.push(format!("In the queue for node {name}: {}.", users.join(", ")));
        }
    }
    notes
}

/// Nodes that claim to be of another model than they were registered with.
fn swapped(nodes: &[Node]) -> Vec<String> {
    let note = |node: &Node| Some(other_model(&node.name, &node.model, node.claimed_model.as_ref()?));
    nodes.iter().filter_map(note).collect()
}

fn footnotes(shown: &[Node], total: usize, user: &str, all: bool) -> Vec<String> {
    let mut notes = swapped(shown);
    notes.extend(leases(shown, user));
    if total == 0 {
        notes.push("No nodes were detected on this platform.".to_owned());
        notes.push("Tip: 'walt node create <name>' creates a virtual node.".to_owned());
    } else if !shown.iter().any(|node| node.owner == user) {
        notes.push("You do not own any nodes.".to_owned());
    }
    if !all && total > shown.len() {
        notes.push("Re-run with --all to see free nodes and those of other users.".to_owned());
    }
    notes.push("Tip: 'walt help show node-ownership' explains node ownership.".to_owned());
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A booted virtual node with this image.
    fn node(name: &str, image: &str) -> Node {
        Node {
            name: name.into(),
            model: "pc-x86-64".into(),
            is_virtual: true,
            image: image.into(),
            booted: true,
            ip: "192.168.183.2".into(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            config: BTreeMap::from([("netsetup".into(), "LAN".into())]),
            reboot_needed: Vec::new(),
            owner: image.split('/').next().unwrap().into(),
            state: NodeState::Booted,
            booted_text: "yes".into(),
            boot_mode: Some("network".into()),
            copied_percent: None,
            boot_started: Some(1.0),
            boot_seconds: Some(3.5),
            needs_look: None,
            last_console_line: None,
            claimed_model: None,
            lease: None,
            waiting: Vec::new(),
            taken: None,
        }
    }

    fn lease(seconds_left: Option<u64>, expired: bool, held: bool) -> Option<NodeLease> {
        Some(NodeLease { ends: None, ends_at: None, seconds_left, expired, held })
    }

    #[test]
    fn sections() {
        let mut failed = node("vn3", "bob/x:v2");
        failed.state = NodeState::Down;
        failed.booted_text = "NO".into();
        failed.last_console_line = Some("Kernel panic\u{1b}".into());
        failed.boot_mode = None;
        failed.reboot_needed = vec!["netsetup".into(), "ram".into()];
        failed.needs_look = Some("boot timeout reached, last stage: root (tried 10 times)".into());
        let mut copies = node("vn1", "ann/pc-x86-64:latest");
        (copies.boot_mode, copies.copied_percent) = (Some("hybrid-volatile".into()), Some(40));
        copies.lease = lease(Some(7199), false, false);
        let nodes = [copies, node("vn22", "waltplatform/pc-x86-64-default:latest"), failed];
        assert_eq!(
            text(&nodes, "ann"),
            "Nodes you own:
name  type     model      image      ip             netsetup  boot-mode                     booted  lease      
----  -------  ---------  ---------  -------------  --------  ----------------------------  ------  -----------
vn1   virtual  pc-x86-64  pc-x86-64  192.168.183.2  LAN       hybrid-volatile (copied 40%)  yes     1h 59m left

Free nodes:
name  type     model      ip             netsetup  boot-mode  booted
----  -------  ---------  -------------  --------  ---------  ------
vn22  virtual  pc-x86-64  192.168.183.2  LAN       network    yes   

Nodes of other users:
name  type     model      image-owner  clonable-image-link  ip             netsetup  boot-mode  booted             lease
----  -------  ---------  -----------  -------------------  -------------  --------  ---------  -----------------  -----
vn3   virtual  pc-x86-64  bob          walt:bob/x:v2        192.168.183.2  LAN       -          NO, reboot needed  -    

vn3: reboot needed for netsetup, ram
Node vn3 needs a look: boot timeout reached, last stage: root (tried 10 times)
Last console line of vn3: Kernel panic
"
        );
    }

    #[test]
    fn leases_in_the_table_and_in_notes() {
        let mut node = node("vn1", "ann/x:latest");
        for (lease, cell, note) in [
            (None, "-", None),
            (lease(None, false, true), "held", None),
            (lease(Some(7200), false, true), "2h left, held", None),
            (lease(Some(901), false, false), "15m 1s left", None),
            (lease(Some(900), false, false), "15m left", Some("Your lease of node vn1 ends in 15m. ")),
            (lease(Some(0), true, false), "expired", Some("Your lease of node vn1 has ended: ")),
        ] {
            node.lease = lease;
            assert_eq!(leased(&node, Vec::new()), [cell]);
            let notes = leases(std::slice::from_ref(&node), "ann");
            assert_eq!(notes.len(), usize::from(note.is_some()));
            assert!(notes.iter().zip(note).all(|(text, start)| text.starts_with(start)), "{notes:?}");
            assert!(leases(std::slice::from_ref(&node), "bob").is_empty(), "not another user's");
        }
        node.lease = None;
        node.waiting = ["bob", "eve"]
            .map(|user| walt_api::NodeWaiter { user: user.into(), since: String::new() })
            .into();
        assert_eq!(leases(std::slice::from_ref(&node), "eve"), ["In the queue for node vn1: bob, eve."]);
        let at = "2026-11-30T10:00:00Z".to_owned();
        node.taken = Some(walt_api::NodeTaken { from: "bob".into(), by: "ann".into(), at });
        let text = "Node vn1 was yours until 2026-11-30T10:00:00Z, when ann took it.";
        assert_eq!(taken(std::slice::from_ref(&node), "bob"), [text]);
        assert!(taken(std::slice::from_ref(&node), "ann").is_empty());
    }

    #[test]
    fn notes() {
        let nodes = [node("vn1", "ann/x:latest")];
        assert_eq!(footnotes(&nodes, 1, "ann", false).len(), 1);
        assert!(footnotes(&nodes, 2, "ann", false)[0].contains("--all"));
        assert_eq!(footnotes(&[], 2, "ann", false)[0], "You do not own any nodes.");
        assert!(footnotes(&[], 0, "ann", true)[0].starts_with("No nodes"));
    }
}
