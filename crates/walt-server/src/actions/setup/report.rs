//! Findings and changes as text: wrapped for narrow terminals.

use crate::actions::setup::findings::{Finding, Level};

/// Widths between which lines are wrapped: lines of 200 columns are hard to read.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=100;
/// Width of the first column of findings.
const LABEL: usize = 9;
/// Longest file whose difference is looked for line by line; longer ones are shown as a whole.
const DIFF_MAX: usize = 2000;

/// The width of the terminal, or 80.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let columns = size.ok().map(|s| usize::from(s.ws_col)).filter(|c| *c > 0).unwrap_or(80);
    columns.clamp(*WIDTHS.start(), *WIDTHS.end())
}

/// The text in lines of at most `width` characters; those after the first begin with `indent` spaces. A longer word has a
/// line of its own.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let body = paragraph.trim_start_matches(' ');
        let mut line = " ".repeat(paragraph.len() - body.len());
        let mut is_first = true;
        for word in body.split(' ') {
            if !is_first && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            } else if !is_first {
                line.push(' ');
            }
            line.push_str(word);
            is_first = false;
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Findings for people: those that are as they should be take one line each.
pub fn findings(all: &[Finding], width: usize) -> String {
    let mut out = String::new();
    for f in all {
        let line = format!("{:<LABEL$}{}", f.level.word(), f.message);
        out.push_str(&wrap(&line, width, LABEL));
        out.push('\n');
        if let Some(remedy) = &f.remedy {
            out.push_str(&wrap(&format!("{:LABEL$}> {remedy}", ""), width, LABEL + 2));
            out.push('\n');
        }
    }
    out
}

/// The line after the findings.
pub fn summary(all: &[Finding]) -> String {
    let count = |level| all.iter().filter(|f| f.level == level).count();
    let plural = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
    match (count(Level::Problem), count(Level::Warning)) {
        (0, 0) => "Nothing prevents serving.".into(),
        (0, w) => format!("Nothing prevents serving; {}.", plural(w, "warning")),
        (p, w) => {
            format!("{} and {}: a server cannot serve here yet.", plural(p, "problem"), plural(w, "warning"))
        }
    }
}

/// Lines that go (`-`) and come (`+`), with those next to them.
pub fn diff(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if a.len().max(b.len()) > DIFF_MAX {
        return b.iter().map(|l| format!("+ {l}\n")).collect();
    }
    // Length of the longest common sequence of the ends from i and j.
    let mut common = vec![vec![0_u16; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = match a[i] == b[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push((' ', a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', a[i]));
            i += 1;
        } else {
            lines.push(('+', b[j]));
            j += 1;
        }
    }
    let changes: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].0 != ' ').collect();
    let near = |n: usize| changes.iter().any(|c| c.abs_diff(n) <= 1);
    let shown = lines.iter().enumerate().filter(|(n, _)| near(*n));
    shown.map(|(_, (sign, line))| format!("{sign} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("a\nb c", 3, 1), "a\nb c");
        assert_eq!(wrap("extraordinary word", 5, 0), "extraordinary\nword");
        assert_eq!(wrap("  > one two", 8, 4), "  > one\n    two");
    }

    #[test]
    fn findings_for_people() {
        let of = |level, remedy: Option<&str>| Finding {
            check: "x",
            level,
            message: "Something is here.".into(),
            remedy: remedy.map(str::to_owned),
        };
        let all = [of(Level::Ok, None), of(Level::Warning, Some("Remove it.")), of(Level::Problem, None)];
        assert_eq!(
            findings(&all, 24),
            "ok       Something is\n         here.\nwarning  Something is\n         here.\n         > Remove it.\n\
             problem  Something is\n         here.\n"
        );
        assert_eq!(summary(&all), "1 problem and 1 warning: a server cannot serve here yet.");
        assert_eq!(summary(&all[..2]), "Nothing prevents serving; 1 warning.");
        assert_eq!(summary(&all[..1]), "Nothing prevents serving.");
    }

    #[test]
    fn differences() {
        assert_eq!(diff("", "a\nb\n"), "+ a\n+ b\n");
        assert_eq!(diff("a\nb\nc\nd\n", "a\nb\nx\nd\n"), "  b\n- c\n+ x\n  d\n");
        assert_eq!(diff("1\n2\n3\n4\n5\n", "1\n2\n3\n4\n5\n"), "");
        assert_eq!(diff("a\nb\n", "b\n"), "- a\n  b\n");
    }
}
