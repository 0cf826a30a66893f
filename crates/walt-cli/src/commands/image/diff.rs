//! `walt image diff`

use crate::{context::Context, error::Failure, ui};
use clap::Args;
use walt_api::versions::{FileChange, FileDifference, ImageDiff};

/// `walt image diff`
#[derive(Debug, Args)]
pub struct Diff {
    image_a: String,
    image_b: String,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Diff {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let diff = context.ui.watch(context.client.image_diff(&self.image_a, &self.image_b)).await?;
        if self.json {
            return ui::out_json(&diff);
        }
        ui::out_text(&lines(&diff.differences))?;
        ui::note(&summary(&diff));
        Ok(())
    }
}

/// One line per path: a sign, the size in bytes, the path, and what changed.
fn lines(differences: &[FileDifference]) -> String {
    let width = differences.iter().map(|d| d.size.to_string().len()).max().unwrap_or(0);
    differences
        .iter()
        .map(|d| {
            let sign = match d.change {
                FileChange::Added => '+',
                FileChange::Changed => '~',
                FileChange::Deleted => '-',
            };
            let end = if d.kind == "directory" && d.path != "/" { "/" } else { "" };
            let what = if d.what.is_empty() { String::new() } else { format!("  ({})", d.what.join(", ")) };
            format!("{sign} {:>width$}  {}{end}{what}\n", d.size, d.path)
        })
        .collect()
}

fn summary(diff: &ImageDiff) -> String {
    let count = |change| diff.differences.iter().filter(|d| d.change == change).count();
    let (added, changed, deleted) =
        (count(FileChange::Added), count(FileChange::Changed), count(FileChange::Deleted));
    if diff.truncated {
        return format!("Only the first {} differences are listed; there are more.", diff.differences.len());
    }
    match diff.differences.len() {
        0 => format!("{} and {} contain the same files.", diff.from, diff.to),
        _ => format!("{added} added, {changed} changed, {deleted} deleted."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_diff() {
        let one = |path: &str, change, kind: &str, size, what: &[&str]| FileDifference {
            path: path.into(),
            change,
            kind: kind.into(),
            size,
            what: what.iter().map(|w| (*w).to_owned()).collect(),
        };
        let diff = ImageDiff {
            from: "ann/a:latest".into(),
            to: "ann/b:latest".into(),
            differences: vec![
                one("/etc", FileChange::Changed, "directory", 0, &["mode"]),
                one("/etc/new", FileChange::Added, "file", 1234, &[]),
                one("/etc/old", FileChange::Deleted, "symlink", 5, &[]),
            ],
            truncated: false,
        };
        assert_eq!(lines(&diff.differences), "~    0  /etc/  (mode)\n+ 1234  /etc/new\n-    5  /etc/old\n");
        assert_eq!(summary(&diff), "1 added, 1 changed, 1 deleted.");
        let none = ImageDiff { differences: Vec::new(), ..diff };
        assert_eq!(summary(&none), "ann/a:latest and ann/b:latest contain the same files.");
    }
}
