//! Checkpoints, tables that are kept for a later version, images, and what is only reported.

use super::{Fate, Item, NewCheckpoint, Work};
use crate::source::{Row, columns_of};
use jiff::civil::DateTime;
use std::collections::BTreeMap;
use walt_types::CheckpointName;

/// Tables for which this version has no place yet: name, columns that identify a row to people, and why.
const KEPT: [(&str, &[&str], &str); 6] = [
    ("switches", &["mac"], SWITCHES),
    ("switchports", &["mac", "port"], SWITCHES),
    ("topology", &["mac1", "mac2"], "this version does not know the topology of the network yet"),
    ("poeoff", &["mac", "port"], "the port stays without power until it is switched on at the switch"),
    ("vpnnodes", &["mac"], VPN),
    ("vpnauth", &["certid"], VPN),
];
const SWITCHES: &str = "this version does not manage switches yet";
const VPN: &str = "this version has no VPN yet";

impl Work<'_> {
    pub(super) fn checkpoints(&mut self) {
        let mut counts: BTreeMap<walt_types::UserName, usize> = BTreeMap::new();
        for (user, _) in self.existing.checkpoints.keys() {
            *counts.entry(user.clone()).or_default() += 1;
        }
        for row in self.source.rows("checkpoints") {
            let label = format!("{} of {}", row.text("name"), row.text("username"));
            let (fate, note) = match self.checkpoint(row) {
                Err(why) => (Fate::Cannot, Some(why)),
                Ok(new) => {
                    let known = self.existing.checkpoints.get(&(new.user.clone(), new.name.clone()));
                    let twice =
                        self.plan.checkpoints.iter().any(|c| c.user == new.user && c.name == new.name);
                    let count = counts.entry(new.user.clone()).or_default();
                    match known {
                        Some(at) if *at == new.at => (Fate::Here, None),
                        Some(_) => {
                            (Fate::Conflict, Some("it is another moment here, and is left as it is".into()))
                        }
                        None if twice => (Fate::Cannot, Some("the dump has another one of this name".into())),
                        None if *count >= self.existing.checkpoints_max => (
                            Fate::Cannot,
                            Some(format!(
                                "its user has {count} checkpoints already, the most that there may be"
                            )),
                        ),
                        None => {
                            *count += 1;
                            self.plan.checkpoints.push(new);
                            (Fate::Comes, None)
                        }
                    }
                }
            };
            self.item("checkpoints", label, fate, note);
        }
    }

    fn checkpoint(&self, row: &Row) -> Result<NewCheckpoint, String> {
        let user = self.wishes.user(row.text("username"))?;
        let name: CheckpointName = row.text("name").parse().map_err(|e| format!("{e}"))?;
        let text = row.text("timestamp");
        let moment = text
            .parse::<DateTime>()
            .and_then(|civil| civil.to_zoned(self.wishes.zone.clone()))
            .map_err(|_| format!("its timestamp '{text}' is not a time"))?;
        Ok(NewCheckpoint { user, name, at: moment.timestamp().as_microsecond() })
    }

    pub(super) fn kept_tables(&mut self) {
        for (table, columns, why) in KEPT {
            for row in self.source.rows(table) {
                let label: Vec<&str> = columns.iter().map(|column| row.text(column)).collect();
                let fate = self.keep(table, row);
                self.item(table, label.join(" "), fate, Some(why.to_owned()));
            }
        }
    }

    /// The images that the dump names. Which of them can come is not in the dump.
    pub(super) fn images(&mut self) {
        let listed = self.source.rows("images").iter().map(|row| row.text("fullname"));
        let used = self.source.rows("nodes").iter().map(|row| row.text("image"));
        let names: std::collections::BTreeSet<&str> = listed.chain(used).collect();
        for name in names {
            match self.wishes.image(name) {
                Ok(image) => drop(self.plan.images.insert(image)),
                Err(why) => self.item("images", name, Fate::Cannot, Some(why)),
            }
        }
    }

    /// Lines of logs, tables and columns that version 10 does not have, and rows that cannot be read.
    pub(super) fn rest(&mut self) {
        for (name, table) in self.source.tables() {
            let whole = |why: &str, count: u64| Item {
                table: name.clone(),
                item: String::new(),
                fate: Fate::Cannot,
                note: Some(why.to_owned()),
                count,
            };
            let readable = table.count - table.fault_count;
            if matches!(name.as_str(), "logs" | "logstreams") {
                let why = "lines of logs stay in the dump: the log store only takes lines as they come";
                self.plan.items.push(whole(why, table.count));
                continue;
            }
            if columns_of(name).is_none() {
                self.plan.items.push(whole("WalT 10 has no such table", readable));
            }
            for (column, count) in &table.odd_columns {
                let why = format!("WalT 10 has no column '{column}' in this table; its values are not read");
                self.plan.items.push(Item { count: 0, ..whole(&format!("{why} ({count} rows)"), 0) });
            }
            for fault in &table.faults {
                let line = format!("line {}", fault.line);
                self.plan.items.push(Item::new(name, line, Fate::Cannot, Some(fault.why.clone())));
            }
            let more = table.fault_count - table.faults.len() as u64;
            if more > 0 {
                self.plan.items.push(whole("more rows that cannot be read", more));
            }
        }
    }
}
