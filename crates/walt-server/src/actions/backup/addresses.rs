//! Addresses of a restored database that fit the configuration of this server.

use crate::base::config::Cidr;
use anyhow::{Context, Result};
use rusqlite::{Connection, Transaction};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// Gives nodes and other devices whose addresses are not in the network other ones, with the same last part if it is free.
/// Sentences about what was changed.
///
/// # Errors
/// The network has too few addresses, or the database fails.
pub fn fit(connection: &mut Connection, network: Cidr) -> Result<Vec<String>> {
    let tx = connection.transaction()?;
    let nodes = all(&tx, "SELECT mac, name, ip FROM nodes ORDER BY name")?;
    let devices = all(&tx, "SELECT mac, name, ip FROM devices WHERE ip IS NOT NULL ORDER BY name")?;
    let fits = |ip: Ipv4Addr| {
        network.contains(ip)
            && ip != network.addr
            && ip != network.network()
            && ip.to_bits() != network.network().to_bits() | !network.mask().to_bits()
    };
    let mut taken: BTreeSet<Ipv4Addr> =
        nodes.iter().chain(&devices).map(|(_, _, ip)| *ip).filter(|ip| fits(*ip)).collect();
    let mut said = Vec::new();
    for (mac, name, ip) in nodes.iter().filter(|(_, _, ip)| !fits(*ip)) {
        let same =
            Ipv4Addr::from_bits(network.network().to_bits() | (ip.to_bits() & !network.mask().to_bits()));
        let new = Some(same)
            .filter(|ip| fits(*ip) && !taken.contains(ip))
            .or_else(|| network.stations().find(|ip| fits(*ip) && !taken.contains(ip)))
            .with_context(|| {
                format!("the network {} has no address left for node {name}", network.network_text())
            })?;
        taken.insert(new);
        tx.execute("UPDATE nodes SET ip = ?2 WHERE mac = ?1", (mac, new.to_string()))?;
        said.push(format!(
            "node {name} has the address {new} instead of {ip}, which is not in {}",
            network.network_text()
        ));
    }
    for (mac, name, ip) in devices.iter().filter(|(_, _, ip)| !fits(*ip)) {
        tx.execute("UPDATE devices SET ip = NULL WHERE mac = ?1", [mac])?;
        said.push(format!(
            "device {name} has no address until it asks for one; {ip} is not in {}",
            network.network_text()
        ));
    }
    let leases = all(&tx, "SELECT mac, mac, ip FROM leases")?;
    for (mac, _, _) in leases.iter().filter(|(_, _, ip)| !fits(*ip) || taken.contains(ip)) {
        tx.execute("DELETE FROM leases WHERE mac = ?1", [mac])?;
    }
    tx.commit()?;
    Ok(said)
}

/// Ethernet addresses, names and IP addresses.
fn all(tx: &Transaction<'_>, query: &str) -> Result<Vec<(String, String, Ipv4Addr)>> {
    let mut query = tx.prepare(query)?;
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, String>(2)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (mac, name, ip) = row?;
        let ip = ip.parse().with_context(|| format!("the address of {name} in the database is damaged"))?;
        found.push((mac, name, ip));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::db::schema;

    #[test]
    fn addresses_keep_their_last_part_if_they_can() {
        let mut c = Connection::open_in_memory().unwrap();
        schema::migrate(&mut c).unwrap();
        for (n, ip) in [(1, "10.0.0.5"), (2, "10.9.0.7"), (3, "10.0.0.7"), (4, "10.0.0.1"), (5, "10.0.0.0")] {
            c.execute(
                "INSERT INTO nodes (mac, name, ip, model, image, virtual, uuid) VALUES (?1, ?1, ?2, 'm', 'i', 1, 'u')",
                (format!("n{n}"), ip),
            )
            .unwrap();
        }
        for (mac, ip) in [("d1", "10.0.0.9"), ("d2", "10.9.0.9")] {
            c.execute(
                "INSERT INTO devices (mac, name, ip, type, named, vendor_class, user_class, host_name, first_seen, last_seen)
                 VALUES (?1, ?1, ?2, 'unknown', 0, '', '', '', 0, 0)",
                (mac, ip),
            )
            .unwrap();
            c.execute("INSERT INTO leases (mac, ip, ends) VALUES (?1, ?2, 0)", (mac, ip)).unwrap();
        }
        let net: Cidr = "10.9.0.1/24".parse().unwrap();
        let said = fit(&mut c, net).unwrap();
        let ip = |c: &Connection, n: &str| -> String {
            c.query_row("SELECT ip FROM nodes WHERE mac = ?1", [n], |r| r.get(0)).unwrap()
        };
        assert_eq!(ip(&c, "n1"), "10.9.0.5");
        assert_eq!(ip(&c, "n2"), "10.9.0.7", "it fits");
        assert_eq!(ip(&c, "n3"), "10.9.0.2", "its last part is taken");
        assert_eq!(ip(&c, "n4"), "10.9.0.3", "that is the server's");
        assert_eq!(ip(&c, "n5"), "10.9.0.4", "that is the network's");
        assert_eq!(said.len(), 5, "{said:?}");
        assert_eq!(
            said[0],
            "node n1 has the address 10.9.0.5 instead of 10.0.0.5, which is not in 10.9.0.0/24"
        );
        let devices: Vec<Option<String>> = c
            .prepare("SELECT ip FROM devices ORDER BY mac")
            .unwrap()
            .query_map([], |r| r.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(devices, [None, Some("10.9.0.9".to_owned())]);
        assert!(fit(&mut c, net).unwrap().is_empty(), "a second time, everything fits");
        let small: Cidr = "10.8.0.1/30".parse().unwrap();
        let error = fit(&mut c, small).unwrap_err().to_string();
        assert!(error.contains("no address left for node"), "{error}");
        assert_eq!(ip(&c, "n1"), "10.9.0.5", "nothing was changed");
    }
}
