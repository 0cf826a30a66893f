//! Nodes: what users ask of them ([`act`]), what they report ([`link`]), and how virtual ones run ([`vnode`]).

pub mod boot;
pub mod boot_tree;
pub mod grants;
pub mod hub;
pub mod ssh;
pub mod sweep;
pub mod vnode;

use crate::{
    App,
    base::{db::NodeRow, failure::Outcome},
};
use std::collections::BTreeMap;
use walt_api::{Node, NodeList, NodeState};
use walt_core::{life::Phase, settings};

/// Seconds after which a boot counts as failed, from the setting `boot.timeout`.
pub fn boot_timeout(stored: &BTreeMap<String, String>) -> Option<f64> {
    settings::effective(stored, true).get("boot.timeout").and_then(|v| v.parse().ok())
}

/// All nodes, for `GET /api/v1/nodes`.
pub fn list(app: &App) -> Outcome<NodeList> {
    let (rows, settings) = app.db.with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
    let none = BTreeMap::new();
    let nodes: Vec<Node> =
        rows.iter().map(|row| describe(app, row, settings.get(&row.mac).unwrap_or(&none))).collect();
    Ok(NodeList { num_nodes: nodes.len(), nodes })
}

fn describe(app: &App, row: &NodeRow, stored: &BTreeMap<String, String>) -> Node {
    let phase = row.life.phase(crate::base::time::now(), boot_timeout(stored));
    let (state, boot_seconds) = match phase {
        Phase::Off => (NodeState::Off, None),
        Phase::Booting(_) => (NodeState::Booting, None),
        Phase::Booted(seconds) => (NodeState::Booted, Some(seconds)),
        Phase::Down => (NodeState::Down, None),
    };
    let failed = matches!(state, NodeState::Down | NodeState::Off) && row.facts.is_virtual;
    Node {
        name: row.facts.name.to_string(),
        model: row.facts.model.to_string(),
        is_virtual: row.facts.is_virtual,
        image: row.facts.image.full(),
        booted: state == NodeState::Booted,
        ip: row.ip.to_string(),
        mac: row.mac,
        config: settings::effective(stored, row.facts.is_virtual)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), typed(&value)))
            .collect(),
        owner: row.facts.owner().to_owned(),
        state,
        booted_text: phase.text(),
        boot_seconds,
        last_console_line: failed.then(|| vnode::last_console_line(app, row)).flatten(),
    }
}

/// A setting's value as JSON: numbers and booleans typed, the rest as text.
fn typed(value: &str) -> serde_json::Value {
    match value {
        "none" => serde_json::Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        other => other.parse::<u64>().map_or_else(|_| other.into(), Into::into),
    }
}
