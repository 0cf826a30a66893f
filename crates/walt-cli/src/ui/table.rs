//! Tables: a header row, a row of dashes, left-aligned cells, two spaces between columns.

/// Renders a table; `_` in column names is shown as `-`.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = columns.iter().map(|c| width(c)).collect();
    for row in rows {
        for (cell, have) in row.iter().zip(&mut widths) {
            *have = width(cell).max(*have);
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &w)| format!("{cell}{}", " ".repeat(w - width(cell))))
            .collect();
        padded.join("  ") + "\n"
    };
    let header: Vec<String> = columns.iter().map(|c| c.replace('_', "-")).collect();
    let dashes: Vec<String> = widths.iter().map(|&w| "-".repeat(w)).collect();
    let mut text = line(&header) + &line(&dashes);
    for row in rows {
        text += &line(row);
    }
    text
}

/// A table with a title and a blank line after it; nothing if there are no rows.
pub fn section(title: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("{}{}\n", super::title(title), table(columns, rows))
}

/// An image's full name without its owner and `:latest`.
pub fn own_name(full: &str) -> &str {
    let own = full.split_once('/').map_or(full, |(_, own)| own);
    own.strip_suffix(":latest").unwrap_or(own)
}

/// `True` or `False`, as tables show it.
pub fn truth(value: bool) -> String {
    if value { "True" } else { "False" }.to_owned()
}

/// Model names with their common prefix written once: `rpi-[2-b|b|b-plus]`.
pub fn compact_models(models: &[String]) -> String {
    let mut models: Vec<&str> = models.iter().map(String::as_str).collect();
    models.sort_unstable();
    models.dedup();
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for model in models {
        let (family, rest) = model.split_once('-').unwrap_or((model, ""));
        match groups.last_mut() {
            Some((last, members)) if *last == family && !rest.is_empty() => members.push(rest),
            _ => groups.push((family, vec![rest])),
        }
    }
    let words: Vec<String> = groups
        .iter()
        .map(|(family, members)| match members.as_slice() {
            [""] => (*family).to_owned(),
            [one] => format!("{family}-{one}"),
            // If the family is itself a model ("" among the members), brackets cannot express it.
            many if many.contains(&"") => many
                .iter()
                .map(|m| format!("{family}-{m}").trim_end_matches('-').to_owned())
                .collect::<Vec<_>>()
                .join(","),
            many => format!("{family}-[{}]", many.join("|")),
        })
        .collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_padded_and_names_are_followed_by_a_space() {
        let text = table(
            &["name", "in_use"],
            &[vec!["pc-x86-64".into(), truth(true)], vec!["é".into(), truth(false)]],
        );
        assert_eq!(text, "name       in-use\n---------  ------\npc-x86-64  True  \né          False \n");
    }

    #[test]
    fn models() {
        let compact = |list: &[&str]| compact_models(&list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
        assert_eq!(compact(&["rpi-b-plus", "rpi-b", "rpi-2-b"]), "rpi-[2-b|b|b-plus]");
        assert_eq!(compact(&["pc-x86-64"]), "pc-x86-64");
        assert_eq!(compact(&["rpi-b", "pc-x86-64", "pc-x86-32"]), "pc-[x86-32|x86-64],rpi-b");
        assert_eq!(compact(&["qemu", "qemu-arm"]), "qemu,qemu-arm");
        assert_eq!(compact(&[]), "");
    }
}
