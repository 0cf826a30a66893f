//! Devices that are not nodes, and models that nodes claim.

use crate::base::db::parsed;
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, Row};
use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
};
use walt_types::{DeviceType, Mac, Model, NodeName};

/// Devices on record. When there are more, those go first that anybody with a cable can make up: of unknown type,
/// neither named nor configured by a user; of these, those whose lease has ended, the one first that was seen last the longest ago.
pub const DEVICES_MAX: usize = 1024;

/// One device that is not a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its Ethernet address; its identity.
    pub mac: Mac,
    /// Its name, unique among nodes and devices.
    pub name: NodeName,
    /// Its last address; none once another station has it.
    pub ip: Option<Ipv4Addr>,
    /// [`DeviceType::Unknown`] or [`DeviceType::Switch`].
    pub device_type: DeviceType,
    /// Whether a user gave it its name or its type.
    pub is_named: bool,
    /// What it said by DHCP.
    pub told: Told,
    /// The model of which it said that it is a node.
    pub model: Option<Model>,
    /// When it got its first address, in seconds since the epoch.
    pub first_seen: i64,
    /// When it got or renewed an address, in seconds since the epoch.
    pub last_seen: i64,
}

/// What a device said by DHCP; empty if it said nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Vendor class (option 60).
    pub vendor_class: String,
    /// User class (option 77).
    pub user_class: String,
    /// Host name (option 12).
    pub host_name: String,
}

const COLUMNS: &str =
    "mac, name, ip, type, named, vendor_class, user_class, host_name, model, first_seen, last_seen";

fn row(r: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    let ip: Option<String> = r.get(2)?;
    let model: Option<String> = r.get(8)?;
    Ok(DeviceRow {
        mac: parsed(r.get(0)?, 0)?,
        name: parsed(r.get(1)?, 1)?,
        ip: ip.map(|ip| parsed(ip, 2)).transpose()?,
        device_type: parsed(r.get(3)?, 3)?,
        is_named: r.get(4)?,
        told: Told { vendor_class: r.get(5)?, user_class: r.get(6)?, host_name: r.get(7)? },
        model: model.map(|model| parsed(model, 8)).transpose()?,
        first_seen: r.get(9)?,
        last_seen: r.get(10)?,
    })
}

impl DeviceRow {
    fn one(c: &Connection, column: &str, value: &str) -> Result<Option<Self>> {
        let mut query = c.prepare_cached(&format!("SELECT {COLUMNS} FROM devices WHERE {column} = ?1"))?;
        Ok(query.query_row([value], row).optional()?)
    }

    /// All devices by name.
    pub fn all(c: &Connection) -> Result<Vec<Self>> {
        let mut query = c.prepare_cached(&format!("SELECT {COLUMNS} FROM devices ORDER BY name"))?;
        Ok(query.query_map([], row)?.collect::<Result<_, _>>()?)
    }

    /// The device with this Ethernet address.
    pub fn by_mac(c: &Connection, mac: Mac) -> Result<Option<Self>> {
        Self::one(c, "mac", &mac.to_string())
    }

    /// The device with this IP address.
    pub fn by_ip(c: &Connection, ip: Ipv4Addr) -> Result<Option<Self>> {
        Self::one(c, "ip", &ip.to_string())
    }

    /// The device with this name, regardless of case.
    pub fn by_name(c: &Connection, name: &str) -> Result<Option<Self>> {
        Self::one(c, "name", name)
    }

    /// Records it as it is now; no other device has its address then.
    pub fn put(&self, c: &Connection) -> Result<()> {
        let (mac, ip) = (self.mac.to_string(), self.ip.map(|ip| ip.to_string()));
        c.execute("UPDATE devices SET ip = NULL WHERE ip = ?1 AND mac <> ?2", (&ip, &mac))?;
        c.execute(
            &format!(
                "INSERT INTO devices ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (mac) DO UPDATE SET name = excluded.name, ip = excluded.ip, type = excluded.type,
                 named = excluded.named, vendor_class = excluded.vendor_class, user_class = excluded.user_class,
                 host_name = excluded.host_name, model = excluded.model, last_seen = excluded.last_seen"
            ),
            (
                &mac,
                self.name.as_str(),
                &ip,
                self.device_type.as_str(),
                self.is_named,
                &self.told.vendor_class,
                &self.told.user_class,
                &self.told.host_name,
                self.model.as_ref().map(Model::as_str),
                self.first_seen,
                self.last_seen,
            ),
        )?;
        Ok(())
    }

    /// Removes it from the record.
    pub fn delete(c: &Connection, mac: Mac) -> Result<()> {
        c.execute("DELETE FROM devices WHERE mac = ?1", [mac.to_string()])?;
        Ok(())
    }

    /// Records that a node has this address.
    pub fn give_up(c: &Connection, ip: Ipv4Addr) -> Result<()> {
        c.execute("UPDATE devices SET ip = NULL WHERE ip = ?1", [ip.to_string()])?;
        Ok(())
    }

    /// Makes room for one more; false if all `max` are switches, or were named or configured by a user.
    pub fn make_room(c: &Connection, max: usize, now: i64) -> Result<bool> {
        let count: i64 = c.query_row("SELECT count(*) FROM devices", [], |r| r.get(0))?;
        let surplus = count.saturating_add(1).saturating_sub_unsigned(max as u64);
        if surplus <= 0 {
            return Ok(true);
        }
        let gone = c.execute(
            "DELETE FROM devices WHERE mac IN (
                SELECT d.mac FROM devices d LEFT JOIN leases l ON l.mac = d.mac
                WHERE d.type = 'unknown' AND d.named = 0 AND d.mac NOT IN (SELECT mac FROM device_settings)
                ORDER BY coalesce(l.ends, 0) > ?1, d.last_seen, d.mac LIMIT ?2)",
            (now, surplus),
        )?;
        Ok(gone as i64 >= surplus)
    }
}

/// Names of all nodes and devices, in lower case.
pub fn names_taken(c: &Connection) -> Result<HashSet<String>> {
    let mut query = c.prepare_cached("SELECT name FROM nodes UNION SELECT name FROM devices")?;
    let rows = query.query_map([], |r| Ok(r.get::<_, String>(0)?.to_ascii_lowercase()))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Models that nodes claim by DHCP and were not registered with.
pub struct ClaimRow;

impl ClaimRow {
    /// All claims, by the node's Ethernet address.
    pub fn all(c: &Connection) -> Result<BTreeMap<Mac, Model>> {
        let mut query = c.prepare_cached("SELECT mac, model FROM model_claims")?;
        let rows = query.query_map([], |r| Ok((parsed(r.get(0)?, 0)?, parsed(r.get(1)?, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Records what a node claims, or that it claims nothing else than its model; whether that is new.
    pub fn set(c: &Connection, mac: Mac, model: Option<&Model>, now: i64) -> Result<bool> {
        let mac = mac.to_string();
        let changed = match model {
            None => c.execute("DELETE FROM model_claims WHERE mac = ?1", [&mac])?,
            Some(model) => c.execute(
                "INSERT INTO model_claims (mac, model, since) VALUES (?1, ?2, ?3)
                 ON CONFLICT (mac) DO UPDATE SET model = excluded.model, since = excluded.since
                 WHERE model <> excluded.model",
                (&mac, model.as_str(), now),
            )?,
        };
        Ok(changed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::{Db, LeaseRow};
    use walt_netboot::dhcp::Lease;

    fn device(number: u8) -> DeviceRow {
        DeviceRow {
            mac: Mac([2, 0, 0, 0, 0, number]),
            name: format!("unknown-{number}").parse().unwrap(),
            ip: Some(Ipv4Addr::new(10, 0, 0, number)),
            device_type: DeviceType::Unknown,
            is_named: false,
            told: Told { vendor_class: "v".into(), user_class: "u".into(), host_name: "h".into() },
            model: Some("rpi-4-b".parse().unwrap()),
            first_seen: 100,
            last_seen: 100 + i64::from(number),
        }
    }

    fn names(c: &Connection) -> String {
        let names: Vec<String> = DeviceRow::all(c).unwrap().into_iter().map(|d| d.name.to_string()).collect();
        names.join(" ")
    }

    #[test]
    fn a_device_comes_back_as_it_was_and_an_address_is_one_devices() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        db.transaction(|tx| -> Result<()> {
            let first = device(1);
            first.put(tx)?;
            assert_eq!(DeviceRow::by_name(tx, "UNKNOWN-1")?, Some(first.clone()));
            let second = DeviceRow { ip: first.ip, ..device(2) };
            second.put(tx)?;
            assert_eq!(DeviceRow::by_ip(tx, first.ip.unwrap())?, Some(second));
            assert_eq!(DeviceRow::by_mac(tx, first.mac)?.unwrap().ip, None);
            let later = DeviceRow { first_seen: 900, last_seen: 900, ..first.clone() };
            later.put(tx)?;
            assert_eq!(
                DeviceRow::by_mac(tx, first.mac)?,
                Some(DeviceRow { last_seen: 900, ..first.clone() })
            );
            DeviceRow::give_up(tx, first.ip.unwrap())?;
            assert_eq!(DeviceRow::by_ip(tx, first.ip.unwrap())?, None);
            DeviceRow::delete(tx, first.mac)?;
            assert_eq!(names(tx), "unknown-2");
            assert!(names_taken(tx)?.contains("unknown-2"));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn room_is_made_of_what_strangers_can_make_up() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        db.transaction(|tx| -> Result<()> {
            (1..=5).try_for_each(|n| device(n).put(tx))?;
            DeviceRow { is_named: true, ..device(1) }.put(tx)?;
            DeviceRow { device_type: DeviceType::Switch, ..device(2) }.put(tx)?;
            // The lease of the third, which was seen before the others, has not ended; that of the fourth has.
            LeaseRow::put(tx, &Lease { mac: device(3).mac, ip: device(3).ip.unwrap(), ends: 1001 })?;
            LeaseRow::put(tx, &Lease { mac: device(4).mac, ip: device(4).ip.unwrap(), ends: 1000 })?;
            assert!(DeviceRow::make_room(tx, 6, 1000)?);
            assert_eq!(names(tx), "unknown-1 unknown-2 unknown-3 unknown-4 unknown-5");
            assert!(DeviceRow::make_room(tx, 5, 1000)?);
            assert_eq!(names(tx), "unknown-1 unknown-2 unknown-3 unknown-5");
            assert!(DeviceRow::make_room(tx, 4, 1000)? && DeviceRow::make_room(tx, 3, 1000)?);
            assert_eq!(names(tx), "unknown-1 unknown-2");
            assert!(!DeviceRow::make_room(tx, 2, 1000)?);
            assert_eq!(names(tx), "unknown-1 unknown-2");
            Ok(())
        })
        .unwrap();
    }
}
