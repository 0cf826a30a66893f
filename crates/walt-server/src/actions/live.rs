//! The state for `GET /api/v1/events`: who looks at it, when, and what is seen.
//!
//! One task looks at the present state after something has been marked as changed, and [`Live`](crate::services::live)
//! publishes what differs. What is marked is read as a whole, so that no kind of change has to be described here. Looks
//! are [`LOOK_PAUSE`] apart, which bounds the messages about one node, and more if they take long ([`LOOK_SHARE`]).

use crate::{
    actions::{app::App, ownership::nodes_of},
    base::{
        changes::Parts,
        db::{NodeLeaseRow, RefRow, SessionRow, blocking},
        failure::{Outcome, bad_request, refused},
        time::local_time,
    },
    services::{
        live::{CLIENTS_MAX, Look, Subscription, Wanted},
        nodes, sessions,
    },
};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use walt_api::{
    Image, Node, NodeState, SessionInfo,
    live::{Kind, Lease, Operation, Session, UPDATES_PER_SECOND},
};
use walt_types::UserName;

/// Least time between the beginnings of two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(1000 / UPDATES_PER_SECOND as u64);
/// How long changes that come together are gathered.
const GATHER: Duration = Duration::from_millis(10);
/// The pause after a look is at least this many times as long as it took.
const LOOK_SHARE: u32 = 9;
/// Longest time between two looks at all that changes without a mark: by the clock, or in files.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What of the present state is costly to read, and changes rarely.
#[derive(Debug, Default)]
struct Known {
    /// Images without what depends on nodes and sessions.
    images: Vec<Image>,
    sessions: Vec<Session>,
    in_use: BTreeSet<String>,
}

/// Looks at changes for ever, while somebody listens.
pub async fn run(app: Arc<App>) {
    let mut known = Known::default();
    loop {
        app.live().pause();
        app.live().has_clients().await;
        follow(&app, &mut known).await;
    }
}

/// Follows changes until nobody listens.
async fn follow(app: &App, known: &mut Known) {
    let live = app.live();
    // Who waits for nodes is in memory: the database does not mark all of it.
    let mut queue = app.nodes().queue().watch();
    let mut looked = Instant::now();
    let mut parts = Parts::ALL;
    while live.clients() > 0 {
        live.look_begins();
        if !live.is_followed() || looked.elapsed() >= LOOK_INTERVAL {
            parts = Parts::ALL;
        }
        if parts == Parts::ALL {
            looked = Instant::now();
        }
        if queue.has_changed().unwrap_or_default() {
            queue.mark_unchanged();
            parts = parts.and(Parts::NODES);
        }
        parts = parts.and(app.db().changes().take());
        let start = Instant::now();
        match blocking(|| look(app, parts, known)) {
            Ok(seen) => live.publish(seen),
            Err(e) => {
                tracing::warn!("cannot follow the state for its listeners: {e:#}");
                live.look_failed();
            }
        }
        tokio::time::sleep((start.elapsed() * LOOK_SHARE).max(LOOK_PAUSE.saturating_sub(start.elapsed())))
            .await;
        parts = tokio::select! {
            () = app.db().changes().marked() => Parts::NONE,
            () = live.look_wanted() => Parts::NONE,
            // Invariant: the sender lives in the App that we borrow.
            _ = queue.changed() => Parts::NODES,
            () = tokio::time::sleep(LOOK_INTERVAL.saturating_sub(looked.elapsed())) => Parts::ALL,
        };
        tokio::time::sleep(GATHER).await;
    }
}

/// The present state of these parts, and of those that depend on them.
fn look(app: &App, parts: Parts, known: &mut Known) -> Result<Look> {
    let mut look = Look::default();
    if parts.has(Parts::OPERATIONS) {
        look.operations = Some(operations(app));
    }
    if parts.has(Parts::SESSIONS) {
        known.sessions = sessions(app)?;
        let by_id = known.sessions.iter().map(|session| (session.id.clone(), session.clone()));
        look.sessions = Some(by_id.collect());
    }
    let mut images = parts.has(Parts::SESSIONS);
    if parts.has(Parts::IMAGES) {
        (known.images, images) = (references(app)?, true);
    }
    if parts.has(Parts::NODES) {
        let mut list = nodes::list(app.nodes())?.nodes;
        list.iter_mut().for_each(without_clock);
        look.leases = Some(leases(app, &list)?);
        let in_use: BTreeSet<String> = list.iter().map(|node| node.image.clone()).collect();
        images |= in_use != known.in_use;
        known.in_use = in_use;
        look.nodes = Some(list.into_iter().map(|node| (node.mac.to_string(), node)).collect());
    }
    if images {
        look.images =
            Some(known.images.iter().map(|image| (image.fullname.clone(), of(image, known))).collect());
    }
    Ok(look)
}

/// Leaves out what changes by the clock alone.
fn without_clock(node: &mut Node) {
    if node.state == NodeState::Booting {
        node.booted_text = "booting".to_owned();
    }
    if let Some(lease) = &mut node.lease {
        lease.seconds_left = None;
    }
}

fn leases(app: &App, nodes: &[Node]) -> Result<BTreeMap<String, Lease>> {
    let users = app.db().with(NodeLeaseRow::users)?;
    let lease = |node: &Node| {
        let (lease, mac) = (node.lease.as_ref()?, node.mac.to_string());
        let lease = Lease {
            mac: mac.clone(),
            node: node.name.clone(),
            user: users.get(&node.mac)?.clone(),
            ends: lease.ends.clone(),
            expired: lease.expired,
            held: lease.held,
        };
        Some((mac, lease))
    };
    Ok(nodes.iter().filter_map(lease).collect())
}

fn references(app: &App) -> Result<Vec<Image>> {
    let image = |row: RefRow| {
        Ok(Image {
            user: row.reference.user().to_owned(),
            id: row.image_id.oci(),
            in_use: false,
            created: local_time(row.created),
            compatibility: app.images().models_of(&row.image_id)?.iter().map(ToString::to_string).collect(),
            session: None,
            fullname: row.reference.full(),
        })
    };
    app.db().with(RefRow::all)?.into_iter().map(image).collect()
}

/// An image with what depends on nodes and sessions.
fn of(image: &Image, known: &Known) -> Image {
    let session = known.sessions.iter().find(|session| session.image == image.fullname);
    let session = session.map(|session| SessionInfo {
        id: session.id.clone(),
        since: session.since.clone(),
        state: session.state.clone(),
    });
    Image { in_use: known.in_use.contains(&image.fullname), session, ..image.clone() }
}

fn sessions(app: &App) -> Result<Vec<Session>> {
    let session = |row: SessionRow| Session {
        user: row.user.to_string(),
        image: row.image.full(),
        since: local_time(row.opened),
        state: sessions::state_text(app.store(), &row).to_owned(),
        id: row.id,
    };
    Ok(app.db().with(SessionRow::all)?.into_iter().map(session).collect())
}

fn operations(app: &App) -> BTreeMap<String, Operation> {
    let operation = |listed: crate::base::operations::Listed| {
        let operation = Operation {
            id: listed.id.to_string(),
            user: listed.user,
            what: listed.what,
            since: listed.since,
            label: listed.label,
            done: listed.progress.map(|(done, _)| done),
            total: listed.progress.map(|(_, total)| total).filter(|total| *total > 0),
        };
        (operation.id.clone(), operation)
    };
    app.base().operations().list().into_iter().map(operation).collect()
}

/// What a client of the events asks for, as it stands in the query.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Query {
    /// Kinds, with commas between them.
    pub kinds: Option<String>,
    /// A set of nodes.
    pub nodes: Option<String>,
}

/// One more client.
///
/// # Errors
/// A kind or a node does not exist, or there are too many clients.
pub fn subscribe(app: &App, caller: &UserName, query: &Query) -> Outcome<Subscription> {
    let mut wanted = Wanted::default();
    for word in query.kinds.iter().flat_map(|text| text.split(',')).filter(|word| !word.is_empty()) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        wanted.kinds.insert(kind.ok_or_else(|| {
            let known = Kind::ALL.map(Kind::name).join(", ");
            bad_request(format!("unknown kind '{word}' of events")).hint(format!("known: {known}"))
        })?);
    }
    if let Some(set) = query.nodes.as_deref() {
        let nodes = nodes_of(app, caller, set)?;
        wanted.nodes = Some(nodes.iter().map(|node| node.mac.to_string()).collect());
    }
    let full = || refused(format!("{CLIENTS_MAX} clients listen to events already")).hint("try again later");
    app.live().subscribe(wanted).ok_or_else(full)
}
