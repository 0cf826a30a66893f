//! Records what comes, in one transaction.

use crate::{
    actions::{
        app::App,
        import_walt10::{COMMAND, images::StoredImage},
    },
    base::{
        db::{self, By, CheckpointRow, DeviceRow, KeptRow, LeaseRow, NodeRow, RefRow, Told},
        fail_points,
        random::random_uuid,
        state::Decision,
        time,
    },
    services::nodes::{self, trash},
};
use anyhow::{Context, Result};
use rusqlite::Connection;
use walt_core::life::Life;
use walt_import::{
    Plan,
    plan::{NewDevice, NewNode},
};
use walt_netboot::dhcp::Lease;

/// Records a plan, and names for images that are in the store.
///
/// # Errors
/// The database fails; then nothing was recorded.
pub fn all(app: &App, plan: &Plan, images: &[StoredImage], decision: &Decision<'_>) -> Result<()> {
    for node in &plan.nodes {
        // Its /persist must not be taken for that of a forgotten node.
        trash::finish_of(app.nodes(), node.mac, decision)?;
    }
    fail_points::point("import-walt10");
    app.db().transaction(|tx| {
        for StoredImage { reference, image } in images {
            let by = By::new(reference.user(), COMMAND);
            RefRow { reference: reference.clone(), image_id: image.image, created: image.created }
                .put(tx, &by)?;
        }
        let now = time::now() as i64;
        plan.devices.iter().try_for_each(|new| {
            device(tx, new, now).with_context(|| format!("cannot record the device {}", new.name))
        })?;
        plan.nodes.iter().try_for_each(|new| {
            node(tx, new).with_context(|| format!("cannot record the node {}", new.facts.name))
        })?;
        for new in &plan.settings {
            match plan.nodes.iter().any(|node| node.mac == new.mac) {
                true => NodeRow::set_setting(tx, new.mac, new.key, &new.value)?,
                false => db::set_of_device(tx, new.mac, new.key, Some(&new.value))?,
            }
        }
        for new in &plan.checkpoints {
            CheckpointRow { name: new.name.clone(), at: new.at }.put(tx, &new.user)?;
        }
        plan.kept.iter().try_for_each(|(table, row)| KeptRow::put(tx, table, row))
    })
}

fn node(c: &Connection, new: &NewNode) -> Result<()> {
    let row = NodeRow {
        mac: new.mac,
        facts: new.facts.clone(),
        ip: new.ip,
        uuid: random_uuid(),
        life: Life::default(),
        lease: None,
    };
    nodes::insert(c, &row)
}

fn device(c: &Connection, new: &NewDevice, now: i64) -> Result<()> {
    if let Some(ip) = new.ip {
        // It is over, but a station that comes back gets the address that it had.
        LeaseRow::put(c, &Lease { mac: new.mac, ip, ends: u64::try_from(now)? })?;
    }
    let row = DeviceRow {
        mac: new.mac,
        name: new.name.clone(),
        ip: new.ip,
        device_type: new.device_type,
        is_named: new.is_named,
        told: Told::default(),
        model: None,
        first_seen: now,
        last_seen: now,
    };
    row.put(c)
}
