//! DHCP leases of stations that are not nodes.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::Connection;
use walt_netboot::dhcp::Lease;
use walt_types::Mac;

/// The table of leases.
pub struct LeaseRow;

impl LeaseRow {
    /// All leases, including expired ones: a station that returns gets the same address.
    pub fn all(c: &Connection) -> Result<Vec<Lease>> {
        let mut query = c.prepare_cached("SELECT mac, ip, ends FROM leases")?;
        let rows = query.query_map([], |r| {
            let ends = r.get::<_, i64>(2)?.try_into().unwrap_or(0);
            Ok(Lease { mac: parsed(r.get(0)?, 0)?, ip: parsed(r.get(1)?, 1)?, ends })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Records a lease; replaces earlier leases of its station and its address.
    pub fn put(c: &Connection, lease: &Lease) -> Result<()> {
        let (mac, ip) = (lease.mac.to_string(), lease.ip.to_string());
        c.execute("DELETE FROM leases WHERE mac = ?1 OR ip = ?2", (&mac, &ip))?;
        let ends = i64::try_from(lease.ends)?;
        c.execute("INSERT INTO leases (mac, ip, ends) VALUES (?1, ?2, ?3)", (&mac, &ip, ends))?;
        Ok(())
    }

    /// Removes the lease of a station.
    pub fn delete(c: &Connection, mac: Mac) -> Result<()> {
        c.execute("DELETE FROM leases WHERE mac = ?1", [mac.to_string()])?;
        Ok(())
    }
}
