//! `walt node show`

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
use walt_api::{Node, NodeList, NodeState};
use walt_types::PLATFORM_USER;

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
}

impl Show {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let user = context.ui.watch(context.client.info()).await?.user;
        let mut list = context.ui.watch(context.client.nodes()).await?;
        list.nodes.sort_by(|a, b| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
        let total = list.nodes.len();
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
        for line in footnotes(&list.nodes, total, user.as_str(), self.all) {
            ui::note(&line);
        }
        Ok(())
    }
}

fn text(nodes: &[Node], user: &str) -> String {
    let rows = |of: &dyn Fn(&Node) -> bool, cells: &dyn Fn(&Node) -> Vec<String>| {
        nodes.iter().filter(|n| of(n)).map(cells).collect::<Vec<_>>()
    };
    let mut text = section(
        "Nodes you own:",
        &["name", "type", "model", "image", "ip", "netsetup", "boot_mode", "booted"],
        &rows(&|n| n.owner == user, &|n| cells(n, Some(vec![own_name(&n.image).to_owned()]))),
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
        ],
        &rows(&|n| n.owner != PLATFORM_USER && n.owner != user, &|n| {
            cells(n, Some(vec![n.owner.clone(), format!("walt:{}", n.image.trim_end_matches(":latest"))]))
        }),
    );
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
    cells.extend([node.ip.clone(), netsetup.to_owned(), mode, node.booted_text.clone()]);
    cells
}

/// Nodes that claim to be of another model than they were registered with.
fn swapped(nodes: &[Node]) -> Vec<String> {
    let note = |node: &Node| Some(other_model(&node.name, &node.model, node.claimed_model.as_ref()?));
    nodes.iter().filter_map(note).collect()
}

fn footnotes(shown: &[Node], total: usize, user: &str, all: bool) -> Vec<String> {
    let mut notes = swapped(shown);
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
            owner: image.split('/').next().unwrap().into(),
            state: NodeState::Booted,
            booted_text: "yes".into(),
            boot_mode: Some("network".into()),
            copied_percent: None,
            boot_seconds: Some(3.5),
            needs_look: None,
            last_console_line: None,
            claimed_model: None,
        }
    }

    #[test]
    fn sections() {
        let mut failed = node("vn3", "bob/x:v2");
        failed.state = NodeState::Down;
        failed.booted_text = "NO".into();
        failed.last_console_line = Some("Kernel panic\u{1b}".into());
        failed.boot_mode = None;
        failed.needs_look = Some("boot timeout reached, last stage: root (tried 10 times)".into());
        let mut copies = node("vn1", "ann/pc-x86-64:latest");
        (copies.boot_mode, copies.copied_percent) = (Some("hybrid-volatile".into()), Some(40));
        let nodes = [copies, node("vn22", "waltplatform/pc-x86-64-default:latest"), failed];
        assert_eq!(
            text(&nodes, "ann"),
            "Nodes you own:
name  type     model      image      ip             netsetup  boot-mode                     booted
----  -------  ---------  ---------  -------------  --------  ----------------------------  ------
vn1   virtual  pc-x86-64  pc-x86-64  192.168.183.2  LAN       hybrid-volatile (copied 40%)  yes   

Free nodes:
name  type     model      ip             netsetup  boot-mode  booted
----  -------  ---------  -------------  --------  ---------  ------
vn22  virtual  pc-x86-64  192.168.183.2  LAN       network    yes   

Nodes of other users:
name  type     model      image-owner  clonable-image-link  ip             netsetup  boot-mode  booted
----  -------  ---------  -----------  -------------------  -------------  --------  ---------  ------
vn3   virtual  pc-x86-64  bob          walt:bob/x:v2        192.168.183.2  LAN       -          NO    

Node vn3 needs a look: boot timeout reached, last stage: root (tried 10 times)
Last console line of vn3: Kernel panic
"
        );
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
