//! Devices that show up by DHCP: who has which address, and searches for missing default images.

use crate::base::{
    db::{Db, DeviceRow, LeaseRow},
    state::{Base, Decision},
};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};
use tokio::sync::MutexGuard;
use walt_core::image_search::Searches;
use walt_netboot::dhcp::Server;
use walt_types::Mac;

/// Texts that are reported once only; more are reported each time.
const REPORTED_MAX: usize = 64;

/// The devices at run time.
pub struct Devices {
    base: Arc<Base>,
    dhcp: OnceLock<tokio::sync::Mutex<Server>>,
    searches: Mutex<Searches>,
    reported: Mutex<HashSet<String>>,
}

/// The DHCP server, while one request is handled or one device is forgotten. Taken before a [`Decision`].
pub type Dhcp<'a> = MutexGuard<'a, Server>;

impl Devices {
    /// The devices of a server; it gives no addresses yet.
    pub fn new(base: Arc<Base>) -> Self {
        Self { base, dhcp: OnceLock::new(), searches: Mutex::default(), reported: Mutex::default() }
    }

    /// Database.
    pub fn db(&self) -> &Db {
        self.base.db()
    }

    /// Sets the DHCP server; called once, at the start.
    pub fn set_dhcp(&self, server: Server) {
        let _set_once = self.dhcp.set(tokio::sync::Mutex::new(server));
    }

    /// Waits for the DHCP server.
    ///
    /// # Errors
    /// There is none, since its leases could not be read at the start.
    pub async fn dhcp(&self) -> Result<Dhcp<'_>> {
        Ok(self.dhcp.get().context("the server gives no addresses: see its log for the reason")?.lock().await)
    }

    /// Searches for missing default images.
    pub fn searches(&self) -> &Mutex<Searches> {
        &self.searches
    }

    /// Removes a device that is not a node from the record, and its lease with it.
    ///
    /// # Errors
    /// The database fails.
    pub fn forget(&self, mac: Mac, dhcp: &mut Dhcp<'_>, _decision: &Decision<'_>) -> Result<()> {
        self.db().transaction(|tx| {
            DeviceRow::delete(tx, mac)?;
            LeaseRow::delete(tx, mac)
        })?;
        dhcp.forget(mac);
        Ok(())
    }

    /// Logs a warning, unless it was logged before.
    pub fn report_once(&self, text: String) {
        let mut reported = self.reported.lock();
        if reported.contains(&text) {
            return;
        }
        tracing::warn!("{text}");
        if reported.len() < REPORTED_MAX {
            reported.insert(text);
        }
    }
}
