//! Reboots nodes, on request or because their image changed, and waits for boots.

use crate::{
    actions::app::App,
    base::{
        db::NodeRow,
        events::Events,
        failure::{Failure, Outcome, not_found, refused_hint},
        time,
    },
    services::nodes::{
        boot_timeout,
        hub::{update_life, update_life_for},
        reboot_command,
    },
};
use futures_util::{StreamExt, stream};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use walt_api::resource::ItemResult;
use walt_core::{boots::Cause, life::Phase, sentences};
use walt_types::{Mac, NodeName};

/// Nodes that are rebooted at the same time; the others wait.
const REBOOTS_AT_ONCE: usize = 32;
/// Cause of the reboot of nodes whose image has changed.
const IMAGE_CAUSE: &str = "image change";
/// How long an operation waits for a node before it shows that it waits: most nodes are booted.
const SILENT_WAIT: Duration = Duration::from_millis(20);

/// Announces that an image has changed and reboots the nodes that use it; false if one of them failed. This runs in a
/// task of its own: the client may disconnect at any moment, and nodes must not stay on an outdated image.
pub async fn announce_and_reboot(
    app: &Arc<App>,
    users: Vec<NodeRow>,
    announcement: impl Into<String>,
    events: &Events,
) -> Outcome<bool> {
    reboot(app, users, Some(announcement.into()), events).await
}

/// As [`announce_and_reboot`], without an announcement.
pub async fn reboot_users(app: &Arc<App>, users: &[NodeRow], events: &Events) -> Outcome<bool> {
    reboot(app, users.to_vec(), None, events).await
}

async fn reboot(
    app: &Arc<App>,
    users: Vec<NodeRow>,
    announcement: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let (app, events) = (app.clone(), events.clone());
    // There is no await before this point: once the image has changed, the task exists.
    let task = tokio::spawn(async move {
        if let Some(announcement) = announcement {
            events.out(announcement).await;
        }
        let Some(first) = users.first() else { return Ok(true) };
        // Nobody else changes an image.
        let cause = Cause::user(first.facts.owner(), IMAGE_CAUSE);
        let names: Vec<&str> = users.iter().map(|n| n.facts.name.as_str()).collect();
        events
            .out(format!("Trying to reboot {} using this image...", sentences::items("node", &names)))
            .await;
        reboot_nodes(&app, users, false, &cause, &events).await
    });
    task.await.map_err(Failure::of_task("the reboot of nodes"))?
}

/// Reboots nodes in parallel and reports the results; true if all were rebooted. When this returns, each of them
/// counts as not booted until it reports its new boot.
pub async fn reboot_nodes(
    app: &Arc<App>,
    nodes: Vec<NodeRow>,
    hard: bool,
    cause: &Cause,
    events: &Events,
) -> Outcome<bool> {
    events.busy("Rebooting").await;
    let results: Vec<(String, Result<(), String>)> = stream::iter(nodes)
        .map(|node| async move {
            let result = reboot_one(app, &node, hard, cause).await;
            (node.facts.name.to_string(), result)
        })
        .buffer_unordered(REBOOTS_AT_ONCE)
        .collect()
        .await;
    let mut by_outcome: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for (name, result) in results {
        let item = result.clone().map(|()| "rebooted ok".to_owned());
        let item = item.map_err(|reason| format!("failed to reboot ({reason})"));
        events.item(ItemResult::of_node(&name, item)).await;
        by_outcome.entry(result.err()).or_default().push(name);
    }
    for (error, names) in &by_outcome {
        let names = sentences::items("node", names);
        match error {
            None => events.out(format!("{names}: rebooted ok.")).await,
            Some(reason) => events.note(format!("{names}: failed to reboot ({reason})")).await,
        }
    }
    Ok(by_outcome.keys().all(Option::is_none))
}

async fn reboot_one(app: &Arc<App>, node: &NodeRow, hard: bool, cause: &Cause) -> Result<(), String> {
    update_life(app.nodes(), node.mac, |life| {
        life.restore(time::now());
        true
    })
    .map_err(|e| format!("{e:#}"))?;
    if node.facts.is_virtual {
        return app.nodes().restart_vnode(node.mac, hard, cause.clone()).await.map_err(|e| format!("{e:#}"));
    }
    if hard {
        return Err("this version cannot power-cycle physical nodes".into());
    }
    let command = reboot_command(app.nodes(), node.mac).map_err(|e| format!("{e:#}"))?;
    app.nodes().hub().command(node.mac, None, command).await?;
    update_life_for(app.nodes(), node.mac, cause, |life| {
        life.start(time::now());
        true
    })
    .map(drop)
    .map_err(|e| format!("{e:#}"))
}

/// Waits until all these nodes are booted; their names and boot times in seconds, by name. If a node is removed
/// meanwhile, or needs a look, this fails.
pub async fn wait_booted(app: &App, macs: &[Mac], events: Option<&Events>) -> Outcome<Vec<(NodeName, f64)>> {
    let mut changed = app.nodes().hub().watch();
    let mut label = String::new();
    loop {
        changed.mark_unchanged();
        let (mut booted, mut waiting) = (Vec::new(), Vec::new());
        let stored = app.db().with(NodeRow::all_settings)?;
        for mac in macs {
            let row = app
                .db()
                .with(|c| NodeRow::by_mac(c, *mac))?
                .ok_or_else(|| not_found("a node was removed while waiting for it to boot"))?;
            if let Some(reason) = &row.life.needs_look {
                return Err(needs_look(&row.facts.name, reason));
            }
            let timeout = stored.get(mac).map_or_else(|| boot_timeout(&BTreeMap::new()), boot_timeout);
            match row.life.phase(time::now(), timeout) {
                Phase::Booted(seconds) => booted.push((row.facts.name, seconds)),
                _ => waiting.push(row.facts.name.to_string()),
            }
        }
        if waiting.is_empty() {
            booted.sort_by(|a, b| a.0.cmp(&b.0));
            return Ok(booted);
        }
        let now = format!("Waiting for bootup of {}", sentences::items("node", &waiting));
        if let (Some(events), true) = (events, now != label) {
            events.busy(now.clone()).await;
            label = now;
        }
        // Invariant: the sender lives in the App that we borrow.
        changed.changed().await.expect("the hub outlives its watchers");
    }
}

fn needs_look(name: &NodeName, reason: &str) -> Failure {
    refused_hint(
        format!("node {name} needs a look: {reason}"),
        format!("see 'walt node boots {name}'; 'walt node reboot {name}' tries again"),
    )
}

/// The client of an operation that first waits for a node to boot.
pub trait WaitingClient {
    /// Shows what is waited for.
    fn busy(&mut self, label: &str) -> impl Future<Output = ()> + Send;
    /// The next message: whether the client wants to proceed without waiting; none once it has gone.
    fn proceeds(&mut self) -> impl Future<Output = Option<bool>> + Send;
}

/// Waits until a node is booted, or until the client asks to proceed without; false if the client has gone.
pub async fn wait_booted_or_skip(app: &App, mac: Mac, client: &mut impl WaitingClient) -> Outcome<bool> {
    let macs = [mac];
    let mut waiting = std::pin::pin!(wait_booted(app, &macs, None));
    if let Ok(done) = tokio::time::timeout(SILENT_WAIT, &mut waiting).await {
        return done.map(|_| true);
    }
    client.busy("Node bootup notification pending").await;
    loop {
        tokio::select! {
            done = &mut waiting => return done.map(|_| true),
            proceeds = client.proceeds() => match proceeds {
                None => return Ok(false),
                Some(true) => return Ok(true),
                Some(false) => {}
            },
        }
    }
}
