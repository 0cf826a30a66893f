//! The tables that a statement sees: those of WalT 10's database by its names and columns, and a list of all.

use rusqlite::Connection;
use std::net::Ipv4Addr;
use walt_types::Mac;

/// A stream of log lines: its number, the key of its issuer, its name, and whether it has lines or pieces.
pub type Stream = (u32, String, String, &'static str);

/// What is not in the database.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The name of the server as a device.
    pub server_name: &'static str,
    /// Its Ethernet address.
    pub server_mac: Mac,
    /// Its address on walt-net.
    pub server_ip: Ipv4Addr,
    /// Streams of log lines.
    pub streams: Vec<Stream>,
}

/// Tables and what is in them, for `\dt`.
pub const TABLES: [(&str, &str); 18] = [
    ("boots", "the last boots of nodes, as JSON"),
    ("checkpoints", "checkpoints of all users, in local time"),
    ("devices", "the server, nodes, switches and other devices, with their settings"),
    ("history", "what names of images have pointed to"),
    ("images", "names of images"),
    ("leases", "addresses by DHCP of devices that are not nodes"),
    ("logstreams", "streams of log lines ('walt log show' prints the lines)"),
    ("node_leases", "until when owners want their nodes"),
    ("nodes", "image and model of nodes"),
    ("poeoff", "ports without power, from an import of WalT 10"),
    ("settings", "settings of nodes and devices, as far as they were changed"),
    ("switches", "switches"),
    ("switchports", "names of ports of switches, from an import of WalT 10"),
    ("tables", "this list"),
    ("topology", "links between devices, from an import of WalT 10"),
    ("trash", "forgotten nodes that can be restored"),
    ("vpnauth", "keys of nodes for the VPN, from an import of WalT 10"),
    ("vpnnodes", "nodes of the VPN, from an import of WalT 10"),
];

/// Makes views, and tables of what was kept of WalT 10. `{server}` is the row of the server.
const MAKE: &str = "
    CREATE TEMP VIEW settings AS
        SELECT mac, key, value FROM main.settings UNION ALL SELECT mac, key, value FROM main.device_settings;
    CREATE TEMP VIEW devices AS
        SELECT d.mac AS mac, d.ip AS ip, d.name AS name, d.type AS type, d.virtual AS virtual,
            (SELECT json_group_object(s.key, CASE
                    WHEN s.value IN ('true', 'false') THEN json(s.value)
                    WHEN s.value NOT GLOB '*[^0-9]*' AND length(s.value) BETWEEN 1 AND 9 THEN CAST(s.value AS INTEGER)
                    ELSE s.value END)
                FROM temp.settings s WHERE s.mac = d.mac) AS conf
        FROM (
            SELECT {server} UNION ALL
            SELECT mac, ip, name, 'node', virtual FROM main.nodes UNION ALL
            SELECT mac, ip, name, type, 0 FROM main.devices
        ) d;
    CREATE TEMP VIEW nodes AS SELECT mac, image, model FROM main.nodes;
    CREATE TEMP VIEW images AS SELECT fullname, image_id AS id, datetime(created, 'unixepoch', 'localtime') AS created FROM main.refs;
    CREATE TEMP VIEW checkpoints AS
        SELECT user AS username,
            datetime(at / 1000000, 'unixepoch', 'localtime') || printf('.%06d', at % 1000000) AS timestamp, name
        FROM main.checkpoints;
    CREATE TEMP TABLE switchmodels AS
        SELECT lower(row ->> '$.mac') AS mac, row ->> '$.model' AS model FROM main.walt10 WHERE source = 'switches';
    CREATE TEMP VIEW switches AS
        SELECT mac, (SELECT model FROM temp.switchmodels m WHERE m.mac = d.mac) AS model FROM main.devices d
        WHERE type = 'switch';
    CREATE TEMP TABLE switchports AS
        SELECT row ->> '$.mac' AS mac, CAST(row ->> '$.port' AS INTEGER) AS port, row ->> '$.name' AS name
        FROM main.walt10 WHERE source = 'switchports';
    CREATE TEMP TABLE topology AS
        SELECT row ->> '$.mac1' AS mac1, CAST(row ->> '$.port1' AS INTEGER) AS port1, row ->> '$.mac2' AS mac2,
            CAST(row ->> '$.port2' AS INTEGER) AS port2, row ->> '$.confirmed' IN ('t', 'true') AS confirmed,
            row ->> '$.last_seen' AS last_seen
        FROM main.walt10 WHERE source = 'topology';
    CREATE TEMP TABLE poeoff AS
        SELECT row ->> '$.mac' AS mac, CAST(row ->> '$.port' AS INTEGER) AS port, row ->> '$.reason' AS reason
        FROM main.walt10 WHERE source = 'poeoff';
    CREATE TEMP TABLE vpnnodes AS
        SELECT row ->> '$.mac' AS mac, row ->> '$.vpnmac' AS vpnmac FROM main.walt10 WHERE source = 'vpnnodes';
    CREATE TEMP TABLE vpnauth AS
        SELECT row ->> '$.vpnmac' AS vpnmac, row ->> '$.pubkeycert' AS pubkeycert, row ->> '$.certid' AS certid,
            row ->> '$.device_label' AS device_label, row ->> '$.revoked' IN ('t', 'true') AS revoked
        FROM main.walt10 WHERE source = 'vpnauth';
    CREATE TEMP TABLE logstreams (id INTEGER PRIMARY KEY, issuer_mac TEXT, name TEXT, mode TEXT);
    CREATE TEMP TABLE tables (name TEXT PRIMARY KEY, description TEXT);
";

/// Makes what a statement sees.
///
/// # Errors
/// The database fails.
pub fn make(connection: &Connection, facts: &Facts) -> rusqlite::Result<()> {
    // Both addresses consist of digits, letters, dots and colons.
    let server = format!(
        "'{}' AS mac, '{}' AS ip, '{}' AS name, 'server' AS type, 0 AS virtual",
        facts.server_mac, facts.server_ip, facts.server_name
    );
    connection.execute_batch(&MAKE.replace("{server}", &server))?;
    let mut add = connection.prepare("INSERT INTO temp.logstreams VALUES (?1, ?2, ?3, ?4)")?;
    facts
        .streams
        .iter()
        .try_for_each(|(id, issuer, name, mode)| add.execute((id, issuer, name, mode)).map(drop))?;
    let mut add = connection.prepare("INSERT INTO temp.tables VALUES (?1, ?2)")?;
    TABLES.iter().try_for_each(|row| add.execute(*row).map(drop))
}
