//! `walt node link`

use crate::{
    commands::options::Confirmed,
    context::Context,
    error::Failure,
    ui::{self, table::table},
};
use clap::Args;
use walt_api::{LinkCounters, LinkState, NodeAction};
use walt_types::Span;

/// `walt node link`
#[derive(Debug, Args)]
pub struct Link {
    /// nodes whose links are shown or changed; all virtual nodes by default
    node_set: Option<String>,
    /// one of their networks
    network: Option<String>,
    /// parameters such as lat=30ms or loss.up=1%; or one of the words down, up and reset
    changes: Vec<String>,
    /// go back to the configured shape after this time, such as 20s, 5m or 2h
    #[arg(long = "for", value_name = "SPAN")]
    duration: Option<Span>,
    /// print JSON
    #[arg(long, conflicts_with = "duration")]
    json: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Link {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if let (Some(nodes), Some(network), false) = (&self.node_set, &self.network, self.changes.is_empty())
        {
            let action = NodeAction::Link {
                nodes: nodes.clone(),
                network: network.clone(),
                changes: self.changes,
                seconds: self.duration.map(|span| span.0),
            };
            return context.action(action, self.confirmed.yes).await;
        }
        if self.duration.is_some() {
            return Err(Failure::Usage {
                reason: "--for needs a node, a network and a change, such as 'vn1 lab loss=1% --for 20s'"
                    .into(),
                help: None,
                status: crate::error::STATUS_USAGE,
            });
        }
        let mut links = context.ui.watch(context.client.links(self.node_set.as_deref())).await?;
        if let Some(network) = &self.network {
            links.retain(|link| link.network == *network);
        }
        if self.json {
            return ui::out_json(&links);
        }
        Ok(ui::out_text(&text(&links))?)
    }
}

fn text(links: &[LinkState]) -> String {
    if links.is_empty() {
        return "There are no links: no virtual node has this network.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = links.iter().map(cells).collect();
    table(&["node", "network", "applied", "for", "passed", "dropped", "queued"], &rows)
}

fn cells(link: &LinkState) -> Vec<String> {
    let applied = match &link.applied {
        None => "(not connected)".to_owned(),
        Some(shape) if shape.is_empty() => "plain cable".to_owned(),
        Some(shape) => shape.clone(),
    };
    let left = link.seconds_left.map_or("-".to_owned(), |s| format!("{:.0} s", s.ceil()));
    let pair = |of: &dyn Fn(&LinkCounters) -> String| match (&link.towards_node, &link.from_node) {
        (Some(down), Some(up)) => format!("{} / {}", of(down), of(up)),
        _ => "-".to_owned(),
    };
    vec![
        link.node.clone(),
        link.network.clone(),
        applied,
        left,
        pair(&|c| c.passed.to_string()),
        pair(&|c| dropped(c)),
        pair(&|c| c.queued.to_string()),
    ]
}

/// `0`, or the numbers with their causes.
fn dropped(counters: &LinkCounters) -> String {
    if counters.dropped.is_empty() {
        return "0".to_owned();
    }
    let causes: Vec<String> = counters.dropped.iter().map(|(cause, n)| format!("{n} {cause}")).collect();
    causes.join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let counters = |passed, dropped: &[(&str, u64)]| LinkCounters {
            passed,
            dropped: dropped.iter().map(|(cause, n)| ((*cause).to_owned(), *n)).collect(),
            ..LinkCounters::default()
        };
        let plain = LinkState {
            node: "vn1".into(),
            network: "walt-net".into(),
            applied: Some(String::new()),
            configured: Some(String::new()),
            seconds_left: None,
            towards_node: None,
            from_node: None,
        };
        let shaped = LinkState {
            network: "lab".into(),
            applied: Some("lat=10ms".into()),
            seconds_left: Some(18.2),
            towards_node: Some(counters(12, &[("loss", 3), ("queue", 1)])),
            from_node: Some(LinkCounters { queued: 2, ..counters(7, &[]) }),
            ..plain.clone()
        };
        let off = LinkState { node: "vn2".into(), applied: None, ..plain.clone() };
        assert_eq!(
            text(&[plain, shaped, off]),
            "node  network   applied          for   passed  dropped               queued
----  --------  ---------------  ----  ------  --------------------  ------
vn1   walt-net  plain cable      -     -       -                     -     
vn1   lab       lat=10ms         19 s  12 / 7  3 loss + 1 queue / 0  0 / 2 
vn2   walt-net  (not connected)  -     -       -                     -     
"
        );
    }
}
