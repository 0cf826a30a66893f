//! `walt node link`: what happens to the frames between virtual nodes and their networks.

use crate::{
    actions::{node_actions::Request, ownership::ownership_warning},
    base::{
        db::{LinkRow, NodeRow, blocking},
        failure::{Failure, Outcome, bad_request, refused, refused_hint},
        time,
    },
    services::nodes::links,
};
use walt_api::LinkState;
use walt_core::{ownership::Demand, settings};
use walt_types::{Networks, Shape, Span, UserName};

/// Longest time for which a link may have another shape, in seconds: 30 days.
const PASSING_MAX: u64 = 30 * 24 * 3600;

impl Request<'_> {
    /// Changes the shape of links, for good or for some seconds.
    pub(super) async fn link(
        &self,
        set: &str,
        network: &str,
        changes: &[String],
        seconds: Option<u64>,
    ) -> Outcome<bool> {
        if let Some(seconds) = seconds
            && !(1..=PASSING_MAX).contains(&seconds)
        {
            return Err(bad_request(format!("'--for' must be from 1s to {}", Span(PASSING_MAX))));
        }
        let decision = self.app.base().decide().await;
        let nodes = self.members(set)?;
        let mut planned = Vec::new();
        for node in &nodes {
            let (networks, shape) = self.shape_after(node, network, changes, seconds)?;
            planned.push((node, networks, shape));
        }
        let rows: Vec<&NodeRow> = nodes.iter().collect();
        let warnings = ownership_warning(Demand::OwnedOrFree, &rows, self.caller)?.into_iter().collect();
        let facts: Vec<String> =
            nodes.iter().map(|n| format!("{}={}", n.mac, n.facts.image.full())).collect();
        let operation = format!("link {set} {network} {} {seconds:?}", changes.join(" "));
        self.app.confirmed(self.caller, &operation, &facts.join(" "), self.confirm, warnings)?;
        self.app.db().transaction(|tx| -> anyhow::Result<()> {
            for (node, networks, shape) in &planned {
                LinkRow::delete(tx, node.mac, network)?;
                match seconds {
                    Some(seconds) => {
                        let until = time::now() + seconds as f64;
                        let network = network.parse()?;
                        LinkRow { mac: node.mac, network, shape: *shape, until }.put(tx)?;
                    }
                    None => {
                        let value = networks.clone().with_shape(network, *shape).to_string();
                        NodeRow::put_setting(tx, node.mac, settings::NETWORKS, Some(&value))?;
                    }
                }
            }
            Ok(())
        })?;
        drop(decision);
        for (node, ..) in &planned {
            blocking(|| links::apply(self.app.nodes().links(), node.mac))?;
        }
        self.app.nodes().hub().signal();
        let back = seconds.map(|s| format!(" In {}, each link gets its configured shape back.", Span(s)));
        self.events.out(format!("Done.{}", back.unwrap_or_default())).await;
        Ok(true)
    }

    /// The networks of a node, and the shape of one of its links after the changes.
    fn shape_after(
        &self,
        node: &NodeRow,
        network: &str,
        changes: &[String],
        seconds: Option<u64>,
    ) -> Outcome<(Networks, Shape)> {
        let name = &node.facts.name;
        if !node.facts.is_virtual {
            return Err(refused(format!("node {name} is a physical one: the server cannot shape its link")));
        }
        let networks = links::configured(self.app.nodes().links(), node.mac)?;
        let Some(shape) = networks.shape(network) else {
            let has: Vec<&str> = networks.iter().map(|(name, _)| name.as_str()).collect();
            let why = format!("node {name} has no network '{network}'; it has: {}", has.join(", "));
            let hint = format!("'walt node config {name} networks={networks},<network>' adds one");
            return Err(refused_hint(why, hint));
        };
        let has_card = |name: &walt_types::NetworkName| name.as_str() == network;
        if seconds.is_some()
            && !links::cards_of_running(self.app.nodes().links(), node.mac)?.iter().any(has_card)
        {
            let why = format!("node {name} is not on network '{network}' yet");
            return Err(refused_hint(why, format!("reboot it: 'walt node reboot {name}'")));
        }
        // For a while: on top of what is applied now.
        let rows = self.app.db().with(LinkRow::all)?;
        let passing = rows
            .iter()
            .find(|row| row.mac == node.mac && row.network.as_str() == network && row.until > time::now());
        let base = match (seconds, passing) {
            (Some(_), Some(row)) => row.shape,
            _ => *shape,
        };
        changed(base, changes).map(|shape| (networks, shape)).map_err(bad_request)
    }
}

/// The shape after the changes of a command: parameters, or one of three words.
fn changed(base: Shape, changes: &[String]) -> Result<Shape, walt_types::ParseError> {
    match changes {
        [word] if word == "reset" => Ok(Shape::default()),
        [word] if word == "down" => base.changed(["link=down"]),
        [word] if word == "up" => base.changed(["link=up"]),
        words => base.changed(words.iter().flat_map(|word| word.split(','))),
    }
}

/// The links of a set of nodes, of all of them without one.
///
/// # Errors
/// The set names an unknown node, or the kernel fails.
pub fn states(
    app: &crate::actions::app::App,
    caller: &UserName,
    set: Option<&str>,
) -> Result<Vec<LinkState>, Failure> {
    let rows = match set {
        None => app.db().with(NodeRow::all)?,
        Some(set) => super::ownership::nodes_of(app, caller, set)?,
    };
    Ok(blocking(|| links::states(app.nodes().links(), &rows))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_parameters() {
        let base: Shape = "lat=10ms,loss=1%".parse().unwrap();
        let after = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            changed(base, &words).map_or_else(|e| e.to_string(), |shape| shape.to_string())
        };
        assert_eq!(after(&["down"]), "lat=10ms,loss=1%,link=down");
        assert_eq!(after(&["up"]), "lat=10ms,loss=1%");
        assert_eq!(after(&["reset"]), "");
        assert_eq!(after(&["lat=30ms", "loss="]), "lat=30ms");
        assert_eq!(after(&["lat=30ms,loss=2%", "bw=1Mbps"]), "lat=30ms,loss=2%,bw=1Mbps");
        assert!(after(&["lat=30ms", "down"]).contains("'down' is not of the form"));
    }
}
