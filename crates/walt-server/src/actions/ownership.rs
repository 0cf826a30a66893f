//! Which nodes a caller named, and whether the caller may use them.

use crate::{
    actions::{app::App, device_list},
    base::{
        db::NodeRow,
        failure::{Failure, Outcome, bad_request, not_found, refused_hint},
        time::{local_time, now},
    },
};
use walt_core::{
    NodeFacts,
    ownership::{self, Demand, Standing, Verdict},
};
use walt_types::{
    UserName,
    node_set::{self, Candidate, Device, SetError},
};

/// One node that the caller may use for `operation`. A token confirms one operation only.
pub fn owned_node(
    app: &App,
    caller: &UserName,
    node: &str,
    demand: Demand,
    operation: &str,
    confirm: Option<&str>,
) -> Outcome<NodeRow> {
    let rows = app.db().with(NodeRow::all)?;
    let facts = facts_of(&rows);
    let index = node_set::resolve_one(node, &facts, caller).map_err(|e| set_error(app, e))?;
    check_ownership(app, caller, demand, &[&rows[index]], operation, confirm)?;
    // Invariant: `index` comes from a set over these rows.
    Ok(rows.into_iter().nth(index).expect("resolved index"))
}

pub(super) fn facts_of(rows: &[NodeRow]) -> Vec<NodeFacts> {
    rows.iter().map(|r| r.facts.clone()).collect()
}

/// The failure for a set of nodes that cannot be resolved.
pub(super) fn set_error(app: &App, error: SetError) -> Failure {
    if let SetError::Unknown(name) = &error {
        match device_list::find(app, name) {
            Ok(Some(device)) => {
                let what = device.device_type().with_article();
                return bad_request(format!("{} is not a node, it is {what}.", device.name()))
                    .hint("see 'walt device show'");
            }
            Ok(None) => {}
            Err(e) => return e.into(),
        }
    }
    match error {
        SetError::Unknown(_) | SetError::Empty => match error.hint() {
            Some(hint) => not_found(&error).hint(hint),
            None => not_found(&error),
        },
        SetError::NotOne | SetError::TooLong => bad_request(error),
    }
}

/// The warning before nodes of another user are used, if there is one.
pub(super) fn ownership_warning(
    demand: Demand,
    nodes: &[&NodeRow],
    caller: &UserName,
) -> Outcome<Option<String>> {
    warning(demand, nodes, caller, |_| Vec::new())
}

/// A node, and what else counts for those who want to use it.
pub(super) fn standing(row: &NodeRow, waiting: Vec<UserName>, now: f64) -> Standing<'_> {
    let is_over = row.lease.as_ref().is_some_and(|lease| lease.is_over(now));
    Standing { is_over, waiting, ..Standing::plain(&row.facts) }
}

fn warning(
    demand: Demand,
    nodes: &[&NodeRow],
    caller: &UserName,
    waiting: impl Fn(&NodeRow) -> Vec<UserName>,
) -> Outcome<Option<String>> {
    let now = now();
    let standings: Vec<Standing<'_>> = nodes.iter().map(|row| standing(row, waiting(row), now)).collect();
    match ownership::check(demand, &standings, caller) {
        Verdict::Allowed => Ok(None),
        Verdict::Refused { message, hint } => Err(refused_hint(message, hint)),
        Verdict::Ask(mut warning) => {
            for row in nodes.iter().filter(|row| row.facts.owner() != caller.as_str()) {
                warning.extend(leased(row, now).map(|text| format!("\n{text}")));
            }
            Ok(Some(warning))
        }
    }
}

/// Until when a node is leased, if it is.
fn leased(row: &NodeRow, now: f64) -> Option<String> {
    let lease = row.lease.as_ref().filter(|lease| !lease.is_over(now))?;
    let until = match lease.ends {
        Some(ends) => format!("until {}", local_time(ends as i64)),
        None => "as long as a program of this user runs".to_owned(),
    };
    Some(format!("Node {} is leased to {} {until}.", row.facts.name, lease.user))
}

pub(super) fn check_ownership(
    app: &App,
    caller: &UserName,
    demand: Demand,
    nodes: &[&NodeRow],
    operation: &str,
    confirm: Option<&str>,
) -> Outcome<()> {
    let waiting = |row: &NodeRow| app.nodes().queue().waiting_for(row.mac);
    let warnings: Vec<String> = warning(demand, nodes, caller, waiting)?.into_iter().collect();
    let state: Vec<String> = nodes.iter().map(|r| format!("{}={}", r.mac, r.facts.image.full())).collect();
    app.confirmed(caller, operation, &state.join(" "), confirm, warnings)
}
