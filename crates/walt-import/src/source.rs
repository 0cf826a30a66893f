//! The tables of a server of WalT 10, as far as a dump has them.

use crate::dump::{self, DumpError, RawRow};
use std::{collections::BTreeMap, io::BufRead};

/// Most rows of a table that is read; the platforms have hundreds.
pub const ROWS_MAX: usize = 200_000;
/// Most tables of a dump.
pub const TABLES_MAX: usize = 1000;
/// Most rows of a table that cannot be read and are told one by one.
const FAULTS_MAX: usize = 20;

/// A table of the existing server.
struct Known {
    name: &'static str,
    /// Its columns, in the order in which version 10 makes them.
    columns: &'static [&'static str],
    /// Whether its rows are read; those of logs are counted.
    is_read: bool,
}

const fn known(name: &'static str, columns: &'static [&'static str]) -> Known {
    Known { name, columns, is_read: true }
}

/// All of them.
const TABLES: [Known; 12] = [
    known("devices", &["mac", "ip", "name", "type", "virtual", "conf"]),
    known("nodes", &["mac", "image", "model"]),
    known("images", &["fullname"]),
    known("checkpoints", &["username", "timestamp", "name"]),
    known("switches", &["mac", "model"]),
    known("switchports", &["mac", "port", "name"]),
    known("topology", &["mac1", "port1", "mac2", "port2", "confirmed", "last_seen"]),
    known("poeoff", &["mac", "port", "reason"]),
    known("vpnnodes", &["mac", "vpnmac"]),
    known("vpnauth", &["vpnmac", "pubkeycert", "certid", "device_label", "revoked"]),
    Known { name: "logstreams", columns: &["id", "issuer_mac", "name", "mode"], is_read: false },
    Known { name: "logs", columns: &["stream_id", "timestamp", "line"], is_read: false },
];

/// The columns of a table of version 10; none if it has no such table.
pub fn columns_of(table: &str) -> Option<&'static [&'static str]> {
    TABLES.iter().find(|known| known.name == table).map(|known| known.columns)
}

/// A row: values by column. Null is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row(BTreeMap<String, String>);

impl Row {
    /// A row of these values by column.
    pub fn of<'a>(values: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self(values.into_iter().map(|(column, value)| (column.to_owned(), value)).collect())
    }

    /// A value; none if it is null, or the table has no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(String::as_str)
    }

    /// A value; the empty text if it is null.
    pub fn text(&self, column: &str) -> &str {
        self.get(column).unwrap_or_default()
    }

    /// A truth value, as PostgreSQL writes it: `t`, or `true` in inserts.
    pub fn is_true(&self, column: &str) -> bool {
        matches!(self.get(column), Some("t" | "true"))
    }

    /// All values that are not null, by column.
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its line in the dump.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A table of a dump.
#[derive(Debug, Default)]
pub struct Table {
    /// Its rows, in the order of the dump, without repeated ones. Empty if the table is only counted.
    pub rows: Vec<Row>,
    /// How many rows the dump has.
    pub count: u64,
    /// Rows that cannot be read: the first ones.
    pub faults: Vec<Fault>,
    /// How many there are.
    pub fault_count: u64,
    /// Columns that version 10 does not have, with the number of rows that have a value there.
    pub odd_columns: BTreeMap<String, u64>,
}

/// What one or more dumps of the same server have.
#[derive(Debug, Default)]
pub struct Source {
    tables: BTreeMap<String, Table>,
    /// Whether a dump lacks the line that says that it is complete.
    pub may_be_cut: bool,
}

impl Source {
    /// Adds what a dump has. Rows that are there already count once.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add(&mut self, dump: impl BufRead) -> Result<(), DumpError> {
        let is_read = |table: &str| TABLES.iter().any(|known| known.name == table && known.is_read);
        let end = dump::read(dump, is_read, |row| self.put(row))?;
        self.may_be_cut |= !end.has_trailer;
        for table in self.tables.values_mut() {
            let mut seen = std::collections::BTreeSet::new();
            table.rows.retain(|row| seen.insert(row.0.clone()));
        }
        Ok(())
    }

    fn put(&mut self, raw: RawRow<'_>) {
        if !self.tables.contains_key(raw.table) {
            if self.tables.len() >= TABLES_MAX {
                return;
            }
            self.tables.insert(raw.table.to_owned(), Table::default());
        }
        // Invariant: it was just inserted.
        let Some(table) = self.tables.get_mut(raw.table) else { return };
        table.count += 1;
        let Some(known) = TABLES.iter().find(|known| known.name == raw.table && known.is_read) else {
            if let Err(why) = raw.values {
                table.fault(raw.line, why.to_owned());
            }
            return;
        };
        match named(known, &raw) {
            Err(why) => table.fault(raw.line, why),
            Ok(_) if table.rows.len() >= ROWS_MAX => {
                table.fault(raw.line, format!("the table has more than {ROWS_MAX} rows"));
            }
            Ok(row) => {
                for column in row.0.keys().filter(|c| !known.columns.contains(&c.as_str())) {
                    *table.odd_columns.entry(column.clone()).or_default() += 1;
                }
                table.rows.push(row);
            }
        }
    }

    /// The rows of a table; none if the dump does not have it.
    pub fn rows(&self, table: &str) -> &[Row] {
        self.tables.get(table).map_or(&[], |table| &table.rows)
    }

    /// All tables of the dump, by name.
    pub fn tables(&self) -> &BTreeMap<String, Table> {
        &self.tables
    }
}

impl Table {
    fn fault(&mut self, line: u64, why: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { line, why });
        }
    }
}

/// The values of a row by the names of their columns.
fn named(known: &Known, raw: &RawRow<'_>) -> Result<Row, String> {
    let values = raw.values.as_ref().map_err(|why| (*why).to_owned())?;
    let columns: Vec<&str> = match raw.columns {
        Some(columns) => columns.iter().map(String::as_str).collect(),
        None => known.columns.to_vec(),
    };
    if values.len() != columns.len() {
        let hint = match raw.columns {
            Some(_) => "",
            None => " (make the dump without --inserts, or with --column-inserts)",
        };
        return Err(format!("it has {} values for {} columns{hint}", values.len(), columns.len()));
    }
    let mut row = BTreeMap::new();
    for (column, value) in columns.into_iter().zip(values) {
        let Some(value) = value else { continue };
        let text = std::str::from_utf8(value)
            .map_err(|_| format!("its {column} is not UTF-8: make the dump with --encoding=UTF8"))?;
        row.insert(column.to_owned(), text.to_owned());
    }
    Ok(Row(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(dump: &str) -> Source {
        let mut source = Source::default();
        source.add(dump.as_bytes()).unwrap();
        source
    }

    #[test]
    fn rows_have_names() {
        let source = source(
            "COPY devices (name, mac, virtual, ip, netsetup) FROM stdin;\na\tm1\tt\t\\N\t1\na\tm1\tt\t\\N\t1\nb\tm2\n\\.\n\
             INSERT INTO devices VALUES ('m3', NULL, 'c', 'node', false, '{}');\nINSERT INTO devices VALUES ('m4');\n",
        );
        let [a, c] = source.rows("devices") else { panic!("{:?}", source.rows("devices")) };
        assert_eq!((a.text("name"), a.get("ip"), a.is_true("virtual")), ("a", None, true));
        assert_eq!((c.text("mac"), c.text("conf"), c.is_true("virtual")), ("m3", "{}", false));
        assert_eq!(source.rows("nodes"), []);
        let table = &source.tables()["devices"];
        assert_eq!((table.count, table.fault_count), (5, 2));
        assert_eq!(table.odd_columns["netsetup"], 2);
        let why: Vec<String> = table.faults.iter().map(|f| format!("{}: {}", f.line, f.why)).collect();
        assert_eq!(
            why,
            [
                "4: it has 2 values for 5 columns",
                "7: it has 1 values for 6 columns (make the dump without --inserts, or with --column-inserts)"
            ]
        );
        assert!(source.may_be_cut);
    }

    #[test]
    fn lines_of_logs_are_counted() {
        let source = source(
            "COPY logs (stream_id, line) FROM stdin;\n1\t\\x\n2\ty\n\\.\nCOPY odd (a) FROM stdin;\nx\n\\.\n",
        );
        assert_eq!((source.rows("logs").len(), source.tables()["logs"].count), (0, 2));
        assert_eq!((source.rows("odd").len(), source.tables()["odd"].count), (0, 1));
        assert!(columns_of("odd").is_none() && columns_of("logs").is_some());
    }

    #[test]
    fn text_is_utf8() {
        let mut source = Source::default();
        source.add(&b"COPY switches (mac, model) FROM stdin;\na\t\\377\n\\.\n"[..]).unwrap();
        assert!(source.tables()["switches"].faults[0].why.contains("--encoding=UTF8"));
    }
}
