//! `walt node boots`

use crate::{
    context::Context,
    error::Failure,
    ui::{
        self, bytes,
        table::{own_name, table},
    },
};
use clap::Args;
use walt_api::boots::{Boot, BootList};

/// Width of the longest bar of a table, in characters.
const BAR: usize = 30;
/// Longest outcome in a table, in characters.
const OUTCOME_MAX: usize = 60;
/// A letter for each stage, in bars.
const LETTERS: [(&str, char); 9] = [
    ("start", 's'),
    ("firmware", 'f'),
    ("dhcp", 'd'),
    ("script", 'b'),
    ("kernel", 'k'),
    ("initrd", 'i'),
    ("root", 'r'),
    ("init", 'n'),
    ("ssh", 'h'),
];

/// `walt node boots`
#[derive(Debug, Args)]
pub struct Boots {
    node_name: String,
    /// show one boot in detail, by its number
    #[arg(value_name = "NUMBER")]
    number: Option<u64>,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Boots {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let list = context.ui.watch(context.client.node_boots(&self.node_name)).await?;
        let Some(number) = self.number else {
            if self.json {
                return ui::out_json(&list);
            }
            return show(&list);
        };
        let Some(boot) = list.boots.iter().find(|boot| boot.number == number) else {
            return Err(Failure::with_hint(
                format!("no boot of {} has the number {number}.", list.node),
                format!("'walt node boots {}' lists those that are kept", list.node),
            ));
        };
        if self.json { ui::out_json(boot) } else { Ok(ui::out_text(&detail(&list.node, boot))?) }
    }
}

fn show(list: &BootList) -> Result<(), Failure> {
    if list.boots.is_empty() {
        ui::note(&format!("No boot of {} is on record yet.", list.node));
        return Ok(());
    }
    ui::out_text(&text(list))?;
    ui::note(&format!("Tip: 'walt node boots {} NUMBER' shows one boot in detail.", list.node));
    Ok(())
}

fn letter(stage: &str) -> char {
    LETTERS.iter().find(|(name, _)| *name == stage).map_or('?', |(_, letter)| *letter)
}

/// Seconds that the known part of a boot took.
fn length(boot: &Boot) -> f64 {
    boot.seconds.or_else(|| boot.stages.last().map(|stage| stage.at)).unwrap_or(0.0)
}

/// A letter for each part of the time; every stage ends where its moment is on the scale.
fn bar(boot: &Boot, longest: f64) -> String {
    let mut bar = String::new();
    for stage in &boot.stages {
        let end = (stage.at / longest.max(f64::MIN_POSITIVE) * BAR as f64).round() as usize;
        let wanted = end.min(BAR).saturating_sub(bar.len());
        bar.extend(std::iter::repeat_n(letter(&stage.stage), wanted));
    }
    bar
}

/// Cuts a text, so that a line of the table stays readable.
fn cut(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    match clean.chars().count() > OUTCOME_MAX {
        true => clean.chars().take(OUTCOME_MAX - 1).chain(['…']).collect(),
        false => clean,
    }
}

/// The part of a line about a boot that was slow.
fn slow(boot: &Boot) -> Option<String> {
    let slow = boot.slow.as_ref()?;
    Some(format!("slow: {:.1} x the median, {} +{:.1} s", slow.factor, slow.stage, slow.grew))
}

fn text(list: &BootList) -> String {
    let longest = list.boots.iter().map(length).fold(0.0, f64::max);
    let rows: Vec<Vec<String>> = list
        .boots
        .iter()
        .map(|boot| {
            let mut end = cut(&boot.outcome);
            if let Some(slow) = slow(boot) {
                end += &format!("  ! {slow}");
            }
            vec![
                boot.number.to_string(),
                boot.started.clone(),
                own_name(&boot.image).to_owned(),
                boot.mode.clone().unwrap_or_else(|| "-".into()),
                boot.seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.1} s")),
                bar(boot, longest),
                boot.nfs_calls.to_string(),
                bytes(boot.nfs_bytes),
                end,
            ]
        })
        .collect();
    let columns = ["no", "started", "image", "mode", "total", "stages", "nfs_calls", "nfs_bytes", "result"];
    let used =
        |stage: &&str| list.boots.iter().flat_map(|boot| &boot.stages).any(|known| known.stage == **stage);
    let legend: Vec<String> = LETTERS
        .iter()
        .filter(|(stage, _)| used(stage))
        .map(|(stage, letter)| format!("{letter} {stage}"))
        .collect();
    let mut out = ui::title(&format!("Boots of {}:", list.node)) + &table(&columns, &rows);
    if !legend.is_empty() {
        out += &format!("Stages: {}\n", legend.join(", "));
    }
    out
}

fn detail(node: &str, boot: &Boot) -> String {
    let mut out = format!("Boot {} of {node}, {}\n", boot.number, boot.started);
    let mut line = |label: &str, value: &str| {
        let clean: String = value.chars().filter(|c| !c.is_control()).collect();
        out += &format!("{label:<13}{clean}\n");
    };
    line("Wanted by:", &boot.cause);
    line("Result:", &boot.outcome);
    if let Some(seconds) = boot.seconds {
        line("Total:", &format!("{seconds:.1} s"));
    }
    if let Some(known) = &boot.slow {
        let text = slow(boot).unwrap_or_default();
        line("Note:", &format!("{text} (median {:.1} s)", known.median));
    }
    line("Image:", &boot.image);
    for (label, value) in [
        ("Digest:", &boot.image_id),
        ("View:", &boot.view),
        ("Mode:", &boot.mode),
        ("Kernel line:", &boot.kernel_line),
        ("Panic:", &boot.panic),
    ] {
        if let Some(value) = value {
            line(label, value);
        }
    }
    line("NFS:", &format!("{} calls, {}", boot.nfs_calls, bytes(boot.nfs_bytes)));
    for (label, count) in [("Attempts:", boot.attempts.saturating_sub(1)), ("Restarts:", boot.restarts)] {
        if count > 0 {
            line(label, &format!("{count} more"));
        }
    }
    if let (Some(end), Some(ended)) = (&boot.end, &boot.ended) {
        line("Ended:", &format!("{ended}, {end}"));
    }
    if boot.stages.is_empty() {
        return out;
    }
    let rows: Vec<Vec<String>> = boot
        .stages
        .iter()
        .map(|stage| {
            vec![
                stage.stage.clone(),
                format!("{:.2}", stage.seconds),
                format!("{:.2}", stage.at),
                stage.bytes.map_or_else(|| "-".into(), bytes),
            ]
        })
        .collect();
    out + "\n" + &table(&["stage", "seconds", "until", "loaded"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_api::boots::{BootStage, SlowBoot};

    fn boot(number: u64, stages: &[(&str, f64, Option<u64>)]) -> Boot {
        let mut before = 0.0;
        let stages: Vec<BootStage> = stages
            .iter()
            .map(|&(stage, at, bytes)| BootStage {
                stage: stage.into(),
                at,
                seconds: at - std::mem::replace(&mut before, at),
                bytes,
            })
            .collect();
        let seconds = stages.last().filter(|stage| stage.stage == "ssh").map(|stage| stage.at);
        Boot {
            number,
            started: "2026-11-30 10:00:00".into(),
            started_at: 0.0,
            cause: "ann (reboot requested)".into(),
            image: "ann/x:latest".into(),
            image_id: Some("sha256:12".into()),
            view: None,
            kernel_line: Some("root=/dev/nfs".into()),
            mode: seconds.map(|_| "network".into()),
            seconds,
            stages,
            attempts: 1,
            restarts: 0,
            nfs_calls: 1200,
            nfs_bytes: 4_500_000,
            outcome: if seconds.is_some() { "booted" } else { "timeout" }.into(),
            panic: None,
            end: None,
            ended: None,
            slow: None,
        }
    }

    fn list() -> BootList {
        let quick = boot(7, &[("start", 0.5, None), ("kernel", 2.0, Some(9_000_000)), ("ssh", 10.0, None)]);
        let mut late =
            boot(8, &[("start", 0.5, None), ("kernel", 2.0, Some(9_000_000)), ("ssh", 20.0, None)]);
        late.slow = Some(SlowBoot { factor: 2.0, median: 10.0, stage: "ssh".into(), grew: 10.0 });
        let mut failed = boot(9, &[("start", 10.0, None)]);
        failed.panic = Some("Kernel panic\u{1b}".into());
        failed.outcome = format!("panic: {}", "x".repeat(80));
        (failed.end, failed.ended) = (Some("panic: x".into()), Some("2026-11-30 10:00:12".into()));
        failed.attempts = 3;
        BootList { node: "vn1".into(), boots: vec![quick, late, failed] }
    }

    #[test]
    fn tables() {
        let shown = text(&list());
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert!(lines[0].contains("Boots of vn1:"), "{shown}");
        assert!(lines[1].starts_with("no  started "), "{shown}");
        let ends: Vec<&str> =
            lines[3..6].iter().map(|line| line.split("  ").last().unwrap().trim()).collect();
        assert_eq!(ends[0], "booted");
        assert_eq!(ends[1], "! slow: 2.0 x the median, ssh +10.0 s");
        assert_eq!(ends[2].chars().count(), OUTCOME_MAX);
        assert!(lines[3].contains("  10.0 s  skkhhhhhhhhhhhh  "), "{shown}");
        assert!(lines[4].contains("  20.0 s  skkhhhhhhhhhhhhhhhhhhhhhhhhhhh  1200 "), "{shown}");
        assert!(lines[5].contains("  -        -       sssssssssssssss  "), "{shown}");
        assert_eq!(lines[6], "Stages: s start, k kernel, h ssh");
    }

    #[test]
    fn details() {
        let list = list();
        let shown = detail("vn1", &list.boots[1]);
        assert!(
            shown.starts_with("Boot 8 of vn1, 2026-11-30 10:00:00\nWanted by:   ann (reboot requested)\n")
        );
        assert!(
            shown.contains("Note:        slow: 2.0 x the median, ssh +10.0 s (median 10.0 s)\n"),
            "{shown}"
        );
        assert!(shown.contains("\nkernel  1.50     2.00   9.0 MB\n"), "{shown}");
        let shown = detail("vn1", &list.boots[2]);
        assert!(shown.contains("Panic:       Kernel panic\nNFS:         1200 calls, "), "{shown}");
        assert!(
            shown.contains("Attempts:    2 more\nEnded:       2026-11-30 10:00:12, panic: x\n"),
            "{shown}"
        );
        assert!(!shown.contains("Total:"), "{shown}");
    }
}
