//! `walt help show`

use crate::{error::Failure, topics, ui};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::process::{Command as Program, Stdio};

/// `walt help show`
#[derive(Debug, Args)]
pub struct Show {
    #[arg(default_value = "help-intro")]
    topic: String,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        let Some(topic) = topics::find(&self.topic) else {
            return Err(Failure::with_hint("no such help topic", "(tip: use \"walt help list\")"));
        };
        if self.json {
            return ui::out_json(&topic);
        }
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let text = topics::styled(topic.markdown);
            return if page(&text) { Ok(()) } else { Ok(ui::out_text(&text)?) };
        }
        Ok(ui::out_text(topic.markdown)?)
    }
}

/// Shows text in the pager; false if no pager is installed.
fn page(text: &str) -> bool {
    let pager = std::env::var("PAGER").ok().filter(|p| !p.trim().is_empty());
    let mut program = match &pager {
        // PAGER is a command line, by convention.
        Some(line) => {
            let mut program = Program::new("sh");
            program.args(["-c", line]);
            program
        }
        None => {
            let mut program = Program::new("less");
            program.arg("-FRX");
            program
        }
    };
    let Ok(mut child) = program.stdin(Stdio::piped()).spawn() else { return false };
    if let Some(mut pipe) = child.stdin.take() {
        // The reader may quit before it has seen everything.
        let _ = pipe.write_all(text.as_bytes());
    }
    child.wait().is_ok_and(|status| status.code() != Some(127))
}
