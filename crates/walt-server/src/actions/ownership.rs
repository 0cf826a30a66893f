//! Which nodes a caller named, and whether the caller may use them.

use crate::{
    actions::{
        app::App,
        device_list::{self, AnyDevice},
    },
    base::{
        db::NodeRow,
        failure::{Failure, Outcome, bad_request, not_found, refused_hint},
        time::{local_time, now},
    },
};
use walt_core::ownership::{self, Demand, Standing, Verdict};
use walt_types::{
    UserName,
    node_set::{self, SetError},
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
    let row = one_node(app, caller, node)?;
    check_ownership(app, caller, demand, &[&row], operation, confirm)?;
    Ok(row)
}

/// The node of a set that must have exactly one, for operations that everybody may do.
pub fn one_node(app: &App, caller: &UserName, set: &str) -> Outcome<NodeRow> {
    let devices = device_list::all(app)?;
    let index = node_set::resolve_one(set, &devices, caller).map_err(|e| set_error(&e))?;
    // Invariant: the members of a set of nodes are nodes.
    Ok(node(&devices[index]).expect("a node"))
}

/// The nodes of a set, by name, for operations that everybody may do.
pub fn nodes_of(app: &App, caller: &UserName, set: &str) -> Outcome<Vec<NodeRow>> {
    let devices = device_list::all(app)?;
    let members = node_set::resolve(set, &devices, caller).map_err(|e| set_error(&e))?;
    Ok(members.into_iter().filter_map(|i| node(&devices[i])).collect())
}

fn node(device: &AnyDevice) -> Option<NodeRow> {
    match device {
        AnyDevice::Node(row) => Some((**row).clone()),
        AnyDevice::Server(_) | AnyDevice::Other(_) => None,
    }
}

/// The failure for a set of nodes that cannot be resolved.
pub(super) fn set_error(error: &SetError) -> Failure {
    let failure = match error {
        SetError::Unknown(_) | SetError::Empty => not_found(error),
        SetError::NotANode { .. } | SetError::NotOne | SetError::TooLong => bad_request(error),
    };
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
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

/// Checks that the caller may use these nodes for `operation`.
pub fn check_ownership(
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
