use super::*;
use crate::base::db::KeptRow;
use std::net::Ipv4Addr;
use walt_types::Mac;

struct Room {
    dir: tempfile::TempDir,
    db: Db,
}

const NODE: &str = "INSERT INTO nodes (mac, name, ip, model, image, virtual, uuid) VALUES \
    ('02:00:00:00:00:01', 'vn1', '10.0.0.2', 'pc-x86-64', 'ann/pc:latest', 1, 'u')";

fn room() -> Room {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    db.meta("token-key", || b"secret".to_vec()).unwrap();
    db.with(|c| Ok(c.execute(NODE, [])?)).unwrap();
    db.with(|c| KeptRow::put(c, "settings", r#"{"key":"snmp.community","value":"private"}"#)).unwrap();
    db.with(|c| KeptRow::put(c, "switchports", r#"{"mac":"02:00","port":"5","name":"up"}"#)).unwrap();
    Room { dir, db }
}

impl Room {
    fn read_as(&self, sql: &str, is_root: bool) -> Result<SqlResult, String> {
        let facts = Facts {
            server_name: "walt-server",
            server_mac: Mac([2; 6]),
            server_ip: Ipv4Addr::new(10, 0, 0, 1),
            streams: vec![(3, "02:00:00:00:00:01".into(), "console".into(), "chunk")],
        };
        read(&self.dir.path().join("walt.sqlite"), sql, &facts, is_root).map_err(|e| e.to_string())
    }

    /// The rows of a result as a user sees them, as JSON.
    fn rows(&self, sql: &str) -> String {
        serde_json::to_string(&self.read_as(sql, false).unwrap().rows).unwrap()
    }
}

#[test]
fn names_and_columns_of_walt10() {
    let room = room();
    let change = |sql: &str| change(&room.db, sql).unwrap().unwrap().changed;
    assert_eq!(
        change(
            "INSERT INTO settings VALUES ('02:00:00:00:00:01', 'ram', '1G'), ('02:00:00:00:00:01', 'boot.retries', '3')"
        ),
        Some(2)
    );
    assert_eq!(
        room.rows("SELECT * FROM devices"),
        r#"[["02:02:02:02:02:02","10.0.0.1","walt-server","server",0,"{}"],["02:00:00:00:00:01","10.0.0.2","vn1","node",1,"{\"boot.retries\":3,\"ram\":\"1G\"}"]]"#
    );
    assert_eq!(room.rows("SELECT * FROM nodes"), r#"[["02:00:00:00:00:01","ann/pc:latest","pc-x86-64"]]"#);
    assert_eq!(room.rows("SELECT * FROM logstreams"), r#"[[3,"02:00:00:00:00:01","console","chunk"]]"#);
    assert_eq!(room.rows("SELECT * FROM switchports"), r#"[["02:00",5,"up"]]"#);
    assert_eq!(
        room.rows("SELECT name FROM pragma_table_info('topology')"),
        r#"[["mac1"],["port1"],["mac2"],["port2"],["confirmed"],["last_seen"]]"#
    );
    for (table, _) in TABLES {
        let sql = format!("SELECT * FROM {table}");
        assert!(room.read_as(&sql, false).is_ok(), "{sql}: {:?}", room.read_as(&sql, false));
    }
}

#[test]
fn secrets_are_hidden_whatever_a_statement_calls_them() {
    let room = room();
    for sql in [
        "SELECT * FROM meta",
        "SELECT count(*) FROM main.meta",
        "WITH devices AS (SELECT value FROM meta) SELECT * FROM devices",
        "SELECT (SELECT value FROM meta) FROM nodes",
        "SELECT * FROM nodes NATURAL JOIN meta",
        "SELECT * FROM walt10",
        "SELECT * FROM build_bases",
        "SELECT id FROM sessions",
        "SELECT * FROM node_waits",
        "SELECT load_extension('x')",
        "ATTACH 'x' AS y",
        "PRAGMA query_only = 0",
        "PRAGMA user_version",
        "VACUUM INTO '/tmp/x'",
    ] {
        let told = room.read_as(sql, false).unwrap_err();
        let is_refused = ["prohibited", "not authorized", "only root"].iter().any(|word| told.contains(word));
        assert!(is_refused, "{sql}: {told}");
    }
    assert!(room.read_as("SELECT * FROM walt10", true).is_ok());
    assert!(room.read_as("SELECT * FROM meta", true).is_err(), "not even to root");
}

#[test]
fn users_change_nothing() {
    let room = room();
    for sql in [
        "DELETE FROM main.nodes",
        "UPDATE main.nodes SET name = 'x'",
        "INSERT INTO main.nodes SELECT * FROM main.nodes",
        "DROP TABLE main.nodes",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "DELETE FROM tables",
        "BEGIN",
    ] {
        assert!(room.read_as(sql, false).is_err(), "{sql}");
        assert!(room.read_as(sql, true).is_err(), "{sql}");
    }
    assert_eq!(room.rows("SELECT count(*) FROM nodes"), "[[1]]");
}

#[test]
fn root_changes_rows_and_nothing_else() {
    let room = room();
    let changed = change(&room.db, "UPDATE nodes SET name = 'vn2' RETURNING name").unwrap().unwrap();
    assert_eq!((changed.changed, changed.rows), (Some(1), vec![vec!["vn2".into()]]));
    for sql in
        ["DROP TABLE nodes", "DELETE FROM meta", "PRAGMA user_version = 99", "ATTACH 'x' AS y", "COMMIT"]
    {
        assert!(
            matches!(change(&room.db, sql), Err(SqlError::Forbidden(_))),
            "{sql}: {:?}",
            change(&room.db, sql)
        );
    }
    assert!(change(&room.db, "VACUUM").is_err());
    // A change that fails in its middle has changed nothing.
    let half = "INSERT INTO settings SELECT '02:00:00:00:00:01', value, '' FROM json_each('[1,2,null]')";
    assert!(change(&room.db, half).is_err());
    assert_eq!(room.rows("SELECT count(*) FROM settings"), "[[0]]");
    assert!(change(&room.db, "SELECT 1").unwrap().is_none());
    assert!(change(&room.db, "SELECT conf FROM devices").unwrap().is_none(), "a column of a view");
    // The connection is as it was before.
    room.db.with(|c| Ok(c.execute("DELETE FROM meta", [])?)).unwrap();
}

#[test]
fn limits() {
    let room = room();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i FROM n";
    let found = room.read_as(many, false).unwrap();
    assert!(found.truncated && found.rows.len() == ROWS_MAX);
    let large = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT hex(zeroblob(500000)) FROM n";
    let found = room.read_as(large, false).unwrap();
    assert!(found.truncated && found.rows.len() == 4, "{}", found.rows.len());
    assert!(room.read_as("SELECT length(zeroblob(9000000))", false).unwrap_err().contains("too big"));
    for (sql, why) in [
        ("", "no statement"),
        (" -- nothing\n;", "no statement"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM logs", "no such table: logs"),
    ] {
        let told = room.read_as(sql, false).unwrap_err();
        assert!(told.contains(why), "{sql}: {told}");
    }
    assert_eq!(room.rows("SELECT 1, 0.5, 'é', x'00ff', NULL; -- end"), r#"[[1,0.5,"é","\\x00ff",null]]"#);
    assert!(room.read_as(&";".repeat(60_000), false).unwrap_err().contains("no statement"));
}
