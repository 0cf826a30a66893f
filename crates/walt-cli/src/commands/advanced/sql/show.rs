//! Results as psql prints them, and as JSON.

use serde_json::{Map, Value};
use std::fmt::Write;
use walt_api::sql::SqlResult;

/// The result as a table: centred names, a line, aligned cells, the number of rows.
pub fn table(result: &SqlResult) -> String {
    if result.columns.is_empty() {
        return format!("({})\n", rows(result.changed.unwrap_or(0), "changed "));
    }
    let cells: Vec<Vec<String>> = result.rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let mut widths: Vec<usize> = result.columns.iter().map(|name| width(name)).collect();
    for row in &cells {
        for (cell, have) in row.iter().zip(&mut widths) {
            *have = width(cell).max(*have);
        }
    }
    let mut out = String::new();
    let names: Vec<String> = result.columns.iter().zip(&widths).map(|(name, w)| centred(name, *w)).collect();
    line(&mut out, &names);
    let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
    out += &dashes.join("+");
    out.push('\n');
    for (row, values) in cells.iter().zip(&result.rows) {
        let padded: Vec<String> = row
            .iter()
            .zip(values)
            .zip(&widths)
            .map(|((cell, value), w)| {
                let space = " ".repeat(w - width(cell));
                if value.is_number() { space + cell } else { cell.clone() + &space }
            })
            .collect();
        line(&mut out, &padded);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(out, "({})\n", rows(result.rows.len() as u64, ""));
    if let Some(changed) = result.changed {
        let _ = writeln!(out, "({})", rows(changed, "changed "));
    }
    out
}

/// The result as objects.
pub fn objects(result: &SqlResult) -> Value {
    if let (true, Some(changed)) = (result.columns.is_empty(), result.changed) {
        return serde_json::json!({ "changed": changed });
    }
    let object = |row: &Vec<Value>| {
        result.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<String, Value>>()
    };
    result.rows.iter().map(object).collect()
}

fn rows(count: u64, what: &str) -> String {
    format!("{count} {what}row{}", if count == 1 { "" } else { "s" })
}

fn line(out: &mut String, cells: &[String]) {
    let text = format!(" {} ", cells.join(" | "));
    out.push_str(text.trim_end());
    out.push('\n');
}

fn centred(name: &str, wide: usize) -> String {
    let space = wide - width(name);
    format!("{}{name}{}", " ".repeat(space / 2), " ".repeat(space - space / 2))
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A value as one line, without what a terminal would act on.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => {
            let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            text.chars().map(shown).collect()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(columns: &[&str], rows: Value, changed: Option<u64>) -> SqlResult {
        let rows = serde_json::from_value(rows).unwrap();
        SqlResult {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows,
            truncated: false,
            changed,
        }
    }

    #[test]
    fn tables() {
        let found =
            result(&["name", "n"], json!([["vn1", 7], ["é", 12], [null, null], ["a\n\u{1b}[m", 0.5]]), None);
        assert_eq!(
            table(&found),
            "    name    |  n\n\
             ------------+-----\n \
             vn1        |   7\n \
             é          |  12\n            |\n \
             a\\n\\u{1b}[m | 0.5\n(4 rows)\n\n"
        );
        assert_eq!(table(&result(&["a"], json!([]), None)), " a\n---\n(0 rows)\n\n");
        assert_eq!(table(&result(&[], json!([]), Some(1))), "(1 changed row)\n");
    }

    #[test]
    fn json_objects() {
        let found = result(&["name", "n"], json!([["vn1", 7]]), None);
        assert_eq!(objects(&found), json!([{"name": "vn1", "n": 7}]));
        assert_eq!(objects(&result(&[], json!([]), Some(2))), json!({"changed": 2}));
    }
}
