//! Requests by DHCP: `walt-netboot` decides about addresses; here, leases and devices are kept, and machines become
//! nodes.
//!
//! ```text
//! request ─▶ plan ─▶ reply                                     a node, or nothing that changes who has which address
//!              └──▶ register? ─▶ settle ─▶ lease and device on disk ─▶ reply
//!                       └─ no image of its model here: looked for in the background, the device gets its address
//! ```
//! Requests are handled one after the other, so that two never get one address. What changes who has which
//! address is decided with a [`Decision`], since `walt node create` gives addresses away too.

use crate::{
    actions::{
        app::App,
        image_search,
        register_node::{Registered, register_node},
    },
    base::{
        db::{
            self, ClaimRow, DEVICES_MAX, DeviceRow, LeaseRow, NodeRow, Settings, Told, blocking, names_taken,
        },
        failure::{Outcome as Answer, bad_request, refused},
        journal::DEVICES,
        state::Decision,
        time::now,
    },
    services::network,
};
use anyhow::{Result, bail};
use rusqlite::Connection;
use std::{collections::HashSet, net::Ipv4Addr, sync::Arc};
use walt_core::registration::{automatic_name, told, type_of};
use walt_core::settings;
use walt_netboot::dhcp::{Class, Lease, Node, Outcome, Plan, Reply, Request, Saved, boot};
use walt_types::{DeviceType, Mac, Model, NetSetup, NodeName};

/// What is known of a station in addition to its request.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// The name that it is to have if it is new.
    pub name: Option<&'a NodeName>,
}

/// Decides about a request, and keeps on disk what changes; the reply may be sent then.
///
/// # Errors
/// The database or the kernel fails.
pub async fn handle(app: &Arc<App>, request: &Request, known: &Known<'_>) -> Result<Option<Reply>> {
    let mut server = app.devices().dhcp().await?;
    server.route(routed(app)?);
    if boot::needs_loader(request, &server.config().loaders) {
        let text = "a machine that boots by PXE needs a loader: install the Debian package ipxe and restart walt-server";
        app.devices().report_once(text.to_owned());
    }
    let nodes = nodes(app)?;
    match server.plan(request, now() as u64, &nodes) {
        Plan::Reply(outcome) => {
            let reply = carry_out(app, request, known, outcome, None)?;
            if reply.is_some() {
                check_model(app, request)?;
            }
            Ok(reply)
        }
        Plan::NeedsLock => {
            let decision = app.base().decide().await;
            // What holds now that nobody else gives addresses away.
            let mut nodes = self::nodes(app)?;
            let mut without_image = None;
            if let Some(registration) = server.registration(request, now() as u64, &nodes) {
                match register_node(app, &registration, known.name, &decision) {
                    Ok(Registered::Node) => nodes = self::nodes(app)?,
                    Ok(Registered::WithoutImage) => without_image = Some(registration.model),
                    Err(e) => app.devices().report_once(format!("{} is not made a node: {e:#}", request.mac)),
                }
            }
            let outcome = server.settle(request, now() as u64, &nodes);
            let reply = carry_out(app, request, known, outcome, Some(&decision))?;
            if let Some(model) = without_image {
                image_search::begin(app, request.mac, &model)?;
            }
            Ok(reply)
        }
    }
}

/// Registers a device as if it had just got this address by DHCP; for `walt-dhcp-event`.
///
/// # Errors
/// It cannot have the address.
pub async fn commit(app: &Arc<App>, request: &Request, known: &Known<'_>) -> Answer<bool> {
    let Some(ip) = request.requested else { return Err(bad_request("an address is missing")) };
    if app.db().with(|c| NodeRow::by_mac(c, request.mac))?.is_some() {
        // Nodes keep the address that they have.
        check_model(app, request)?;
        return Ok(true);
    }
    let reply = handle(app, request, known).await?;
    let is_given = reply.is_some_and(|reply| reply.gives(ip));
    if is_given { Ok(true) } else { Err(refused(format!("{} cannot have the address {ip}", request.mac))) }
}

/// Stations that reach the world outside.
fn routed(app: &App) -> Result<HashSet<Mac>> {
    let (nodes, others) = app.db().with(|c| Ok((NodeRow::all_settings(c)?, db::of_devices(c)?)))?;
    let is_nat = |stored: &Settings| settings::net_setup(stored) == NetSetup::Nat;
    Ok(nodes.into_iter().chain(others).filter(|(_, stored)| is_nat(stored)).map(|(mac, _)| mac).collect())
}

fn nodes(app: &App) -> Result<Vec<Node>> {
    let (rows, stored) = app.db().with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
    let node = |row: NodeRow| Node {
        mac: row.mac,
        ip: row.ip,
        name: row.facts.name.to_string(),
        secure: stored.get(&row.mac).is_some_and(settings::is_secure),
    };
    Ok(rows.into_iter().map(node).collect())
}

/// Keeps what changes on the disk; the reply may be sent then. A new lease needs the decision.
fn carry_out(
    app: &App,
    request: &Request,
    known: &Known<'_>,
    outcome: Outcome,
    decision: Option<&Decision<'_>>,
) -> Result<Option<Reply>> {
    let (save, reply) = match outcome {
        Outcome::Ignore(why) => {
            tracing::debug!(mac = %request.mac, kind = ?request.kind, "DHCP: ignored: {why}");
            return Ok(None);
        }
        Outcome::Answer { save, reply } => (save, reply),
    };
    match (save, decision) {
        (None, _) => {}
        (Some(Saved::Remove(mac)), _) => app.db().with(|c| LeaseRow::delete(c, mac))?,
        (Some(Saved::Put(lease)), Some(_)) => {
            let new = app.db().transaction(|tx| -> Result<Option<DeviceRow>> {
                LeaseRow::put(tx, &lease)?;
                // Without a reply, a station gives its address back.
                if reply.is_some() { record(app, tx, request, known, &lease) } else { Ok(None) }
            })?;
            if let Some(device) = new {
                announce(app, &device, lease.ip);
            }
            blocking(|| network::lease_neighbour(app.config(), &lease))?;
            // Its address, or that of the device that had it before, may be in the packet filter.
            blocking(|| app.outside().follow(Vec::new()))?;
        }
        (Some(Saved::Put(lease)), None) => bail!("a lease of {} without the lock", lease.ip),
    }
    Ok(reply)
}

/// The model of which a station says that it is a node.
fn model_of(request: &Request) -> Option<Model> {
    match boot::class(request) {
        Class::Node(model) => Some(model),
        Class::Board(board) => board.model,
        // Firmware that many models have says nothing about one that is registered.
        _ => None,
    }
}

/// Records the station that gets a lease; the device, if it is new.
fn record(
    app: &App,
    c: &Connection,
    request: &Request,
    known: &Known<'_>,
    lease: &Lease,
) -> Result<Option<DeviceRow>> {
    let time = now() as i64;
    let model = boot::model(request);
    let host_name = request.host_name.as_deref().unwrap_or_default();
    let latest = Told {
        vendor_class: told(&request.vendor_class),
        user_class: told(&request.user_class),
        host_name: told(host_name),
    };
    if let Some(mut device) = DeviceRow::by_mac(c, lease.mac)? {
        // A system that says nothing, after a firmware that said something, takes nothing back.
        let keep = |new: String, old: &mut String| {
            if !new.is_empty() {
                *old = new;
            }
        };
        keep(latest.vendor_class, &mut device.told.vendor_class);
        keep(latest.user_class, &mut device.told.user_class);
        keep(latest.host_name, &mut device.told.host_name);
        device.model = model.or(device.model);
        device.ip = Some(lease.ip);
        device.last_seen = time;
        device.put(c)?;
        return Ok(None);
    }
    if !DeviceRow::make_room(c, DEVICES_MAX, time)? {
        let text = format!(
            "there are {DEVICES_MAX} devices that were named by users or are switches: more are not recorded, though they \
             get addresses ('walt device forget' makes room)"
        );
        app.devices().report_once(text);
        return Ok(None);
    }
    let device_type = type_of(lease.mac);
    let taken = names_taken(c)?;
    let is_taken = |name: &NodeName| taken.contains(&name.as_str().to_ascii_lowercase());
    let name = match known.name {
        Some(name) if !is_taken(name) => name.clone(),
        _ => automatic_name(device_type, request.host_name.as_deref(), lease.mac, is_taken),
    };
    let device = DeviceRow {
        mac: lease.mac,
        name,
        ip: Some(lease.ip),
        device_type,
        is_named: false,
        told: latest,
        model,
        first_seen: time,
        last_seen: time,
    };
    device.put(c)?;
    Ok(Some(device))
}

fn announce(app: &App, device: &DeviceRow, ip: Ipv4Addr) {
    let DeviceRow { name, mac, device_type, .. } = device;
    let kind = if *device_type == DeviceType::Switch { "switch" } else { "device" };
    say(app, &format!("new {kind} name={name} type={device_type} mac={mac} ip={ip}"));
}

/// Says something about a device, on the server's log and on that of the platform.
pub(super) fn say(app: &App, text: &str) {
    tracing::info!("{text}");
    app.base().journal().say(DEVICES, text);
}

/// Records whether a node says that it is of another model than the one it was registered with. The model is not
/// changed: the image of the node may not be made for the other one.
fn check_model(app: &App, request: &Request) -> Result<()> {
    let Some(claimed) = model_of(request) else { return Ok(()) };
    let Some(node) = app.db().with(|c| NodeRow::by_mac(c, request.mac))? else { return Ok(()) };
    let other = Some(&claimed).filter(|claimed| **claimed != node.facts.model);
    let is_new = app.db().with(|c| ClaimRow::set(c, node.mac, other, now() as i64))?;
    match other {
        Some(claimed) if is_new => {
            let text = other_model(&node, claimed);
            tracing::warn!("{text}");
            app.base().journal().say(DEVICES, &text);
        }
        None if is_new => {
            say(app, &format!("node {} says again that its model is {}", node.facts.name, node.facts.model));
        }
        _ => {}
    }
    Ok(())
}

fn other_model(node: &NodeRow, claimed: &Model) -> String {
    let name = &node.facts.name;
    format!(
        "node {name} is registered as model '{}', but says that it is '{claimed}': it keeps its model; if the board was \
         swapped, 'walt node forget {name}' makes room for the new one",
        node.facts.model
    )
}

/// The name under which a station is on record.
pub(super) fn name_of(app: &App, mac: Mac) -> Result<Option<NodeName>> {
    Ok(app.db().with(|c| DeviceRow::by_mac(c, mac))?.map(|device| device.name))
}
