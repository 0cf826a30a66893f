//! `walt node wait`

use crate::{
    context::Context,
    error::Failure,
    live::{Follower, Turn, Wanted},
    ui,
};
use clap::Args;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use walt_api::{Node, NodeState};
use walt_client::State;

/// Most names in the label of the busy indicator; beyond it, nodes are only counted.
const NAMES_MAX: usize = 5;

/// `walt node wait`
#[derive(Debug, Args)]
#[command(
    after_help = "It goes on over a restart of the server. It fails if a node needs a look: 'walt help show node-reboot'."
)]
pub struct Wait {
    node_set: String,
    /// stop if still waiting after this number of seconds; -1, the default, means no limit
    #[arg(long, value_name = "SECONDS:int", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    timeout: i64,
}

impl Wait {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let limit = u64::try_from(self.timeout).ok().map(Duration::from_secs);
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let wanted = Wanted { kinds: "node", nodes: Some(self.node_set) };
        let mut follower = Follower::open(context, wanted).await?;
        let macs: BTreeSet<String> = follower.state.nodes.keys().cloned().collect();
        loop {
            match of(&follower.state, &macs)? {
                Situation::Booted(lines) => {
                    context.ui.busy.clear();
                    return Ok(lines.iter().try_for_each(|line| ui::out(line))?);
                }
                Situation::Waiting(label) => context.ui.busy.label(&label),
            }
            if follower.turn(context, deadline).await? == Turn::Over {
                context.ui.busy.clear();
                ui::note("Timeout was reached.");
                return Err(Failure::reported());
            }
        }
    }
}

/// Where the nodes are.
#[derive(Debug, PartialEq, Eq)]
enum Situation {
    /// All are booted: a line for each.
    Booted(Vec<String>),
    /// What is waited for.
    Waiting(String),
}

fn of(state: &State, macs: &BTreeSet<String>) -> Result<Situation, Failure> {
    let mut nodes: Vec<&Node> = macs.iter().filter_map(|mac| state.nodes.get(mac)).collect();
    if nodes.len() < macs.len() {
        return Err(Failure::new("a node was removed while waiting for it to boot"));
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    for node in &nodes {
        if let Some(reason) = &node.needs_look {
            let name = &node.name;
            return Err(Failure::with_hint(
                format!("node {name} needs a look: {reason}"),
                format!("see 'walt node boots {name}'; 'walt node reboot {name}' tries again"),
            ));
        }
    }
    let waiting: Vec<&str> =
        nodes.iter().filter(|n| n.state != NodeState::Booted).map(|n| n.name.as_str()).collect();
    Ok(match waiting.as_slice() {
        [] => {
            let line = |n: &&Node| {
                format!("Node {}: booted in {:.1} s.", n.name, n.boot_seconds.unwrap_or_default())
            };
            Situation::Booted(nodes.iter().map(line).collect())
        }
        [one] => Situation::Waiting(format!("Waiting for bootup of Node {one}")),
        [start @ .., last] if waiting.len() <= NAMES_MAX => {
            Situation::Waiting(format!("Waiting for bootup of Nodes {} and {last}", start.join(", ")))
        }
        many => Situation::Waiting(format!("Waiting for bootup of {} nodes", many.len())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(nodes: &[(&str, &str, Option<&str>)]) -> State {
        let node = |(n, (name, state, look)): (usize, &(&str, &str, Option<&str>))| {
            json!({"name": name, "model": "m", "virtual": true, "image": "ann/x:latest", "booted": *state == "booted",
                "ip": "10.0.0.2", "mac": format!("02:00:00:00:00:{n:02}"), "config": {}, "owner": "ann", "state": state,
                "booted_text": "", "boot_seconds": 2.04, "needs_look": look, "last_console_line": null})
        };
        let nodes: Vec<_> = nodes.iter().enumerate().map(node).collect();
        let snapshot = json!({"event": "snapshot", "server": "s", "seq": 1, "time": 1.0, "nodes": nodes});
        let mut state = State::default();
        state.apply(serde_json::from_value(snapshot).unwrap()).unwrap();
        state
    }

    #[test]
    fn what_is_waited_for() {
        let all = |state: &State| state.nodes.keys().cloned().collect::<BTreeSet<_>>();
        let mut nodes = vec![("b", "booted", None), ("a", "booting", None)];
        let present = state(&nodes);
        let wait = |text: &str| Situation::Waiting(format!("Waiting for bootup of {text}"));
        assert_eq!(of(&present, &all(&present)).unwrap(), wait("Node a"));
        nodes.push(("c", "off", None));
        nodes.push(("d", "down", None));
        let present = state(&nodes);
        assert_eq!(of(&present, &all(&present)).unwrap(), wait("Nodes a, c and d"));
        let present = state(&[("n", "booting", None); NAMES_MAX + 1]);
        assert_eq!(of(&present, &all(&present)).unwrap(), wait("6 nodes"));
        let present = state(&[("b", "booted", None), ("a", "booted", None)]);
        let lines = ["a", "b"].map(|name| format!("Node {name}: booted in 2.0 s.")).to_vec();
        assert_eq!(of(&present, &all(&present)).unwrap(), Situation::Booted(lines));
        let gone = of(&present, &BTreeSet::from(["02:00:00:00:00:77".to_owned()])).unwrap_err();
        assert_eq!(gone.text(), "Error: a node was removed while waiting for it to boot");
        let present = state(&[("b", "booted", None), ("a", "down", Some("panic: x"))]);
        let failed = of(&present, &all(&present)).unwrap_err().text();
        assert!(
            failed.starts_with("Error: node a needs a look: panic: x\nsee 'walt node boots a'"),
            "{failed}"
        );
    }
}
