//! Leases of nodes: their terms, `walt node lease`, heartbeats of holders, and the end of leases.

use crate::{
    actions::{app::App, node_actions::Request},
    base::{
        db::{NodeLeaseRow, NodeRow, TakingRow},
        failure::{Outcome, bad_request, refused, refused_hint},
        state::Decision,
        time::{local_time, now},
    },
};
use anyhow::Result;
use rusqlite::Connection;
use std::{sync::Arc, time::Duration};
use walt_api::HOLD_SILENCE_MAX;
use walt_core::{
    node_leases::{self, Hold, LEASE_MAX, NodeLease},
    ownership::Demand,
    sentences,
};
use walt_types::{ClientTag, LeaseChange, Span, UserName};

/// Longest time between two looks at leases and at the queue.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// For how long a user wants nodes.
pub struct Terms {
    lease: Option<Span>,
    hold: Option<walt_api::Hold>,
}

impl Terms {
    /// Checks what a client asks for.
    ///
    /// # Errors
    /// A span is too long or too short.
    pub fn new(lease: Option<Span>, hold: Option<walt_api::Hold>) -> Outcome<Self> {
        if let Some(span) = lease
            && !(Span(1)..=LEASE_MAX).contains(&span)
        {
            return Err(bad_request(format!("nodes can be leased for 1s to {LEASE_MAX}, not for {span}.")));
        }
        if let Some(hold) = &hold
            && !(Span(1)..=HOLD_SILENCE_MAX).contains(&hold.silence)
        {
            let silence = hold.silence;
            return Err(bad_request(format!(
                "a holder of nodes may be silent for 1s to {HOLD_SILENCE_MAX}, not for {silence}."
            )));
        }
        Ok(Self { lease, hold })
    }

    /// The lease of a node that begins now; none if it is to have no end.
    pub fn lease(&self, user: &UserName, now: f64) -> Option<NodeLease> {
        let hold = self.hold.as_ref().map(|hold| hold_of(hold, now));
        let ends = self.lease.map(|span| now + span.0 as f64);
        (ends.is_some() || hold.is_some()).then(|| NodeLease { user: user.clone(), ends, hold })
    }
}

fn hold_of(hold: &walt_api::Hold, now: f64) -> Hold {
    Hold { tag: hold.name.clone(), silence: hold.silence.0 as f64, heard: now }
}

/// Records that a node is taken from its owner by another user, if it is: for the log, for that owner, and as a note for
/// the one who takes it, which is the result.
///
/// # Errors
/// The database failed.
pub fn take(c: &Connection, node: &NodeRow, by: &UserName, now: f64) -> Result<Option<String>> {
    let (name, owner) = (&node.facts.name, node.facts.owner());
    if node.facts.is_free() || owner == by.as_str() {
        return Ok(None);
    }
    let over = node.lease.as_ref().filter(|lease| lease.is_over(now));
    let taking = TakingRow { mac: node.mac, owner: owner.to_owned(), user: by.to_string(), at: now as i64 };
    taking.put(c)?;
    tracing::info!(node = %name, from = owner, %by, lease_was_over = over.is_some(), "node taken from its owner");
    let ended = over.and_then(NodeLease::end);
    let ended =
        ended.map_or_else(String::new, |end| format!("; the lease ended at {}", local_time(end as i64)));
    Ok(Some(format!("Node {name} belonged to {owner}{ended}.")))
}

/// Whose a node is, and for how long: the end of a sentence that begins with its name.
pub(super) fn tenure(node: &NodeRow, now: f64) -> String {
    let owner = node.facts.owner();
    if node.facts.is_free() {
        return "is free.".to_owned();
    }
    let Some(lease) = &node.lease else { return format!("belongs to {owner}, without an end.") };
    let at = |end: f64| local_time(end as i64);
    if lease.is_over(now) {
        let end = lease.end().map_or_else(String::new, |end| format!(" at {}", at(end)));
        return format!("belongs to {owner}; the lease ended{end}, and anybody may acquire it.");
    }
    match (lease.ends, &lease.hold) {
        (Some(end), None) => format!("belongs to {owner} until {}.", at(end)),
        (Some(end), Some(_)) => {
            format!("belongs to {owner} as long as a program holds it, at most until {}.", at(end))
        }
        (None, _) => format!("belongs to {owner} as long as a program holds it."),
    }
}

impl Request<'_> {
    /// `walt node lease`.
    pub(super) async fn lease(
        &self,
        set: &str,
        change: Option<LeaseChange>,
        hold: Option<walt_api::Hold>,
    ) -> Outcome<bool> {
        if change.is_none() && hold.is_none() {
            return self.show_leases(set).await;
        }
        let Terms { hold, .. } = Terms::new(None, hold)?;
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::Owned, &format!("lease {set}"), &decision)?;
        let now = now();
        let mut changed = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            node.lease = self.changed_lease(&node, change, hold.as_ref(), now)?;
            changed.push(node);
        }
        self.app.db().transaction(|tx| -> Result<()> {
            changed.iter().try_for_each(|node| match &node.lease {
                Some(lease) => NodeLeaseRow::put(tx, node.mac, lease),
                None => NodeLeaseRow::delete(tx, node.mac),
            })
        })?;
        drop(decision);
        self.app.nodes().queue().signal();
        for node in &changed {
            self.events.out(format!("Node {} {}", node.facts.name, tenure(node, now))).await;
        }
        Ok(true)
    }

    fn changed_lease(
        &self,
        node: &NodeRow,
        change: Option<LeaseChange>,
        hold: Option<&walt_api::Hold>,
        now: f64,
    ) -> Outcome<Option<NodeLease>> {
        let name = &node.facts.name;
        let present = node.lease.as_ref();
        let active = present.filter(|lease| !lease.is_over(now));
        let ends = match change {
            Some(change) => node_leases::changed(present, change, now).map_err(|e| {
                refused_hint(
                    format!("Node {name} {e}."),
                    format!("'walt node lease {name} 2h' gives it an end"),
                )
            })?,
            // A hold does not revive the end that has passed.
            None => active.and_then(|lease| lease.ends),
        };
        let holder = active.and_then(|lease| lease.hold.as_ref());
        if let (Some(new), Some(other)) = (hold, holder)
            && new.name != other.tag
        {
            return Err(refused(format!(
                "Node {name} is held by another program of yours already, '{}'.",
                other.tag
            )));
        }
        let hold = hold.map(|hold| hold_of(hold, now)).or_else(|| holder.cloned());
        Ok((ends.is_some() || hold.is_some()).then(|| NodeLease { user: self.caller.clone(), ends, hold }))
    }

    async fn show_leases(&self, set: &str) -> Outcome<bool> {
        let (now, waits) = (now(), self.app.nodes().queue().waits());
        for node in self.members(set)? {
            self.events.out(format!("Node {} {}", node.facts.name, tenure(&node, now))).await;
            let waiting = walt_core::node_queue::waiting_for(&waits, node.mac);
            for (number, wait) in waiting.enumerate() {
                let since = local_time(wait.since);
                self.events.out(format!("  {}. {} waits for it since {since}.", number + 1, wait.user)).await;
            }
        }
        Ok(true)
    }

    /// The nodes that are held under this name.
    fn held(
        &self,
        tag: &ClientTag,
        now: f64,
        _decision: &Decision<'_>,
    ) -> Outcome<Vec<(NodeRow, NodeLease)>> {
        let rows = self.app.db().with(NodeRow::all)?;
        let with_lease = rows.into_iter().filter_map(|row| row.lease.clone().map(|lease| (row, lease)));
        let is_held = |(_, lease): &(NodeRow, NodeLease)| {
            lease.user == *self.caller
                && lease.hold.as_ref().is_some_and(|hold| hold.tag == *tag)
                && !lease.is_over(now)
        };
        Ok(with_lease.filter(is_held).collect())
    }

    /// The heartbeat of a holder.
    pub(super) async fn beat(&self, tag: &ClientTag) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let now = now();
        let held = self.held(tag, now, &decision)?;
        if held.is_empty() {
            return Err(refused_hint(
                format!("no node is held by '{tag}' any more."),
                "'walt node show' says whose the nodes are",
            ));
        }
        self.app.db().transaction(|tx| -> Result<()> {
            held.iter().try_for_each(|(node, lease)| {
                let hold = lease.hold.clone().map(|hold| Hold { heard: now, ..hold });
                NodeLeaseRow::put(tx, node.mac, &NodeLease { hold, ..lease.clone() })
            })
        })?;
        drop(decision);
        for (node, _) in &held {
            self.events.out(node.facts.name.as_str()).await;
        }
        Ok(true)
    }

    /// A holder ends: its leases end at once.
    pub(super) async fn end_hold(&self, tag: &ClientTag) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let now = now();
        let held = self.held(tag, now, &decision)?;
        self.app.db().transaction(|tx| -> Result<()> {
            held.iter()
                .try_for_each(|(node, lease)| NodeLeaseRow::put(tx, node.mac, &lease.without_hold(now)))
        })?;
        drop(decision);
        self.app.nodes().queue().signal();
        let names: Vec<&str> = held.iter().map(|(node, _)| node.facts.name.as_str()).collect();
        if !names.is_empty() {
            let items = sentences::items("node", &names);
            let (is, it) =
                (sentences::verb(names.len(), "is", "are"), sentences::verb(names.len(), "it", "them"));
            let text =
                format!("{items} {is} not held any more: others may acquire {it} without being asked.");
            self.events.out(text).await;
        }
        Ok(true)
    }
}

/// Ends leases at their time, for ever: the log says so, those who wait are woken, and the hold of a holder that was not
/// heard any more ends on disk, so that a restart does not revive it. Drops clients from the queue that did not come back.
pub async fn watch(app: Arc<App>) {
    let mut changed = app.nodes().queue().watch();
    let mut seen = now();
    loop {
        changed.mark_unchanged();
        let pause = match end_leases(&app, &mut seen).await {
            Ok(next) => next.map_or(WATCH_INTERVAL, |end| until(end, WATCH_INTERVAL)),
            Err(e) => {
                tracing::warn!("cannot look after leases of nodes: {e:#}");
                WATCH_INTERVAL
            }
        };
        let pause = app.nodes().queue().return_limit().map_or(pause, |limit| pause.min(limit));
        // Invariant: the sender lives in the App that we own.
        let _ = tokio::time::timeout(pause, changed.changed()).await;
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// How long it is until a time, at most `most`.
pub(super) fn until(time: f64, most: Duration) -> Duration {
    Duration::try_from_secs_f64(time - now()).unwrap_or_default().min(most)
}

/// Ends those that ended after `seen`; when the next one ends.
async fn end_leases(app: &App, seen: &mut f64) -> Result<Option<f64>> {
    let decision = app.base().decide().await;
    let now = now();
    let rows = app.db().with(NodeRow::all)?;
    let leases =
        || rows.iter().filter_map(|row| Some((row, row.lease.as_ref()?, row.lease.as_ref()?.end()?)));
    let (mut is_new, mut next) = (false, None);
    for (row, lease, end) in leases() {
        if end > now {
            next = Some(next.map_or(end, |next: f64| next.min(end)));
            continue;
        }
        if let Some(hold) = &lease.hold {
            app.db().with(|c| NodeLeaseRow::put(c, row.mac, &lease.without_hold(now)))?;
            tracing::info!(node = %row.facts.name, user = %lease.user, hold = %hold.tag, "the holder has gone");
        }
        if end > *seen || lease.hold.is_some() {
            is_new = true;
            tracing::info!(node = %row.facts.name, user = %lease.user, "the lease of a node has ended");
        }
    }
    *seen = now;
    app.nodes().queue().tidy(app.db(), &decision)?;
    drop(decision);
    if is_new {
        app.nodes().queue().signal();
    }
    Ok(next)
}
