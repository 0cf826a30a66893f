//! Tables: columns side by side if they fit, else one row below the other.

use super::text::{Cell, Style, Text, longest_word, plain, wrap};

/// Spaces between two columns.
const GAP: usize = 2;
/// A column is not made narrower than this for words that could be broken, such as long paths.
const LONGEST_WORD: usize = 24;
/// Indentation of the cells behind the first one, if a table is shown row by row.
const ROW_INDENT: usize = 4;

/// The lines of a table.
pub fn lines(head: &[Text], rows: &[Vec<Text>], width: usize) -> Vec<Text> {
    match columns(head, rows, width) {
        Some(widths) => side_by_side(head, rows, &widths),
        None => row_by_row(head, rows, width),
    }
}

/// Widths of the columns; none if they do not fit.
fn columns(head: &[Text], rows: &[Vec<Text>], width: usize) -> Option<Vec<usize>> {
    let all = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let of_column = |at: usize, measure: fn(&[Cell]) -> usize| {
        all().filter_map(|row| row.get(at)).map(|cell| measure(cell)).max().unwrap_or(0)
    };
    let natural: Vec<usize> = (0..head.len()).map(|at| of_column(at, <[Cell]>::len)).collect();
    let least: Vec<usize> = (0..head.len()).map(|at| of_column(at, longest_word).min(LONGEST_WORD)).collect();
    let room = width.checked_sub(GAP * head.len().saturating_sub(1))?;
    if least.iter().sum::<usize>() > room {
        return None;
    }
    let mut widths: Vec<Option<usize>> = vec![None; head.len()];
    loop {
        let taken: usize = widths.iter().flatten().sum();
        let open: Vec<usize> = (0..widths.len()).filter(|&at| widths[at].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let share = (room - taken) / open.len();
        // Those that need less than their share first, then those that need more than it at the least.
        let small = open.iter().find(|&&at| natural[at] <= share).map(|&at| (at, natural[at]));
        let wide = || open.iter().find(|&&at| least[at] > share).map(|&at| (at, least[at]));
        match small.or_else(wide) {
            // What the others leave must be enough for the rest at the least.
            Some((at, wanted)) => {
                let rest: usize = open.iter().filter(|&&other| other != at).map(|&other| least[other]).sum();
                widths[at] = Some(wanted.min(room - taken - rest));
            }
            None => open.iter().for_each(|&at| widths[at] = Some(share)),
        }
    }
    Some(widths.into_iter().flatten().collect())
}

fn side_by_side(head: &[Text], rows: &[Vec<Text>], widths: &[usize]) -> Vec<Text> {
    let mut lines = Vec::new();
    if head.iter().any(|cell| !cell.is_empty()) {
        let bold: Vec<Text> = head.iter().map(|cell| bold(cell)).collect();
        lines.extend(row(&bold, widths));
    }
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    lines.push(plain(&rule.join(&" ".repeat(GAP))));
    let folded: Vec<Vec<Text>> = rows.iter().map(|cells| row(cells, widths)).collect();
    // Rows that are folded in more than one column run into each other without a line between them.
    let wraps = |at: usize| rows.iter().filter_map(|row| row.get(at)).any(|cell| cell.len() > widths[at]);
    let apart = (0..widths.len()).filter(|&at| wraps(at)).count() > 1;
    for (at, row) in folded.into_iter().enumerate() {
        if apart && at > 0 {
            lines.push(Text::new());
        }
        lines.extend(row);
    }
    lines
}

fn row(cells: &[Text], widths: &[usize]) -> Vec<Text> {
    let folded: Vec<Vec<Text>> = cells.iter().zip(widths).map(|(cell, width)| wrap(cell, *width)).collect();
    let height = folded.iter().map(Vec::len).max().unwrap_or(0);
    (0..height)
        .map(|at| {
            let mut line = Text::new();
            let mut end = 0;
            for (cell, width) in folded.iter().zip(widths) {
                if let Some(part) = cell.get(at).filter(|part| !part.is_empty()) {
                    line.resize(end, (' ', Style::default()));
                    line.extend_from_slice(part);
                }
                end += width + GAP;
            }
            line
        })
        .collect()
}

fn row_by_row(head: &[Text], rows: &[Vec<Text>], width: usize) -> Vec<Text> {
    let mut lines = Vec::new();
    for (at, cells) in rows.iter().enumerate() {
        if at > 0 {
            lines.push(Text::new());
        }
        for (column, cell) in cells.iter().enumerate() {
            if column == 0 {
                lines.extend(wrap(&bold(cell), width));
            } else if !cell.is_empty() {
                let mut text = head.get(column).cloned().unwrap_or_default();
                if !text.is_empty() {
                    text.extend(plain(": "));
                }
                text.extend_from_slice(cell);
                for mut line in wrap(&text, width.saturating_sub(ROW_INDENT)) {
                    line.splice(0..0, plain(&" ".repeat(ROW_INDENT)));
                    lines.push(line);
                }
            }
        }
    }
    lines
}

fn bold(text: &[Cell]) -> Text {
    text.iter().map(|(character, style)| (*character, Style { bold: true, ..*style })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: usize) -> String {
        let head = [plain("key"), plain("what it does")];
        let rows = [vec![plain("a"), plain("one two three four")], vec![plain("much-longer"), plain("five")]];
        let lines = lines(&head, &rows, width);
        lines.iter().map(|line| line.iter().map(|(c, _)| *c).chain(['\n']).collect::<String>()).collect()
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        assert_eq!(
            table(80),
            "key          what it does\n───────────  ──────────────────\n\
             a            one two three four\nmuch-longer  five\n"
        );
        assert_eq!(
            table(24),
            "key          what it\n             does\n───────────  ───────────\n\
             a            one two\n             three four\nmuch-longer  five\n"
        );
        assert_eq!(
            table(15),
            "a\n    what it\n    does: one\n    two three\n    four\n\nmuch-longer\n    what it\n    does: five\n"
        );
    }
}
