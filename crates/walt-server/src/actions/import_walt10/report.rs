//! What an import does, for people and as JSON.

use anyhow::Result;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write};
use walt_import::{Fate, Item, Plan, Source};

/// Counts of one table.
#[derive(Debug, Default, Serialize)]
struct Counts {
    /// Rows of the dump.
    rows: u64,
    comes: u64,
    here: u64,
    kept: u64,
    conflict: u64,
    cannot: u64,
}

impl Counts {
    fn of(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Comes => &mut self.comes,
            Fate::Here => &mut self.here,
            Fate::Kept => &mut self.kept,
            Fate::Conflict => &mut self.conflict,
            Fate::Cannot => &mut self.cannot,
        }
    }
}

/// A report.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    dry_run: bool,
    tables: BTreeMap<&'a str, Counts>,
    advice: Vec<String>,
    items: &'a [Item],
}

impl<'a> Report<'a> {
    /// The report of a plan.
    pub fn new(source: &'a Source, plan: &'a Plan, dry_run: bool) -> Self {
        let mut tables: BTreeMap<&str, Counts> = BTreeMap::new();
        for (name, table) in source.tables() {
            tables.entry(name).or_default().rows = table.count;
        }
        for item in &plan.items {
            *tables.entry(&item.table).or_default().of(item.fate) += item.count;
        }
        let mut advice = plan.advice.clone();
        if source.may_be_cut {
            advice.push(
                "A dump lacks the line 'PostgreSQL database dump complete' at its end: make sure that it is whole.".into(),
            );
        }
        Self { dry_run, tables, advice, items: &plan.items }
    }

    /// Whether nothing would change.
    pub fn is_nothing_new(&self) -> bool {
        self.items.iter().all(|item| !matches!(item.fate, Fate::Comes | Fate::Kept))
    }

    /// Prints it to standard output.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn print(&self, json: bool) -> Result<()> {
        match json {
            true => println!("{}", serde_json::to_string_pretty(self)?),
            false => print!("{}", self.text()),
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = table_of(&self.tables);
        for table in self.tables.keys() {
            let of_table = || self.items.iter().filter(|item| item.table == **table);
            for fate in Fate::ALL {
                let items: Vec<&Item> = of_table().filter(|item| item.fate == fate).collect();
                if !items.is_empty() {
                    list(&mut text, table, fate, &items);
                }
            }
        }
        for sentence in &self.advice {
            let _ = write!(text, "\nNote: {sentence}\n");
        }
        if self.dry_run {
            text.push_str("\nThis was a dry run: nothing was changed.\n");
        }
        text
    }
}

fn list(text: &mut String, table: &str, fate: Fate, items: &[&Item]) {
    let heading = match fate {
        Fate::Comes => "come",
        Fate::Here => "are here already",
        Fate::Kept => "are kept for a later version",
        Fate::Conflict => "conflict with what is here, which stays",
        Fate::Cannot => "cannot come",
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{table}: these {heading}\n");
    for item in items {
        let name = if item.item.is_empty() { format!("{} rows", item.count) } else { item.item.clone() };
        let note = item.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
        let _ = writeln!(text, "  {name}{note}");
    }
}

fn table_of(tables: &BTreeMap<&str, Counts>) -> String {
    let width = tables.keys().map(|name| name.len()).max().unwrap_or(0).max("table".len());
    let mut text = format!(
        "{:width$}  {:>7}  {:>5}  {:>5}  {:>5}  {:>8}  {:>6}\n",
        "table", "in dump", "come", "here", "kept", "conflict", "cannot"
    );
    for (name, c) in tables {
        let _ = writeln!(
            text,
            "{name:width$}  {:>7}  {:>5}  {:>5}  {:>5}  {:>8}  {:>6}",
            c.rows, c.comes, c.here, c.kept, c.conflict, c.cannot
        );
    }
    text
}
