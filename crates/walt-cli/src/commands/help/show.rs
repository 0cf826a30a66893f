//! `walt help show`

use crate::{
    error::Failure,
    pager,
    terminal::window_size,
    topics::{self, render},
    ui,
};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::process::{Command as Program, Stdio};

/// Exit status of a shell that does not find a program (POSIX, 2.8.2).
const NOT_FOUND: i32 = 127;

/// `walt help show`
#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal, tab selects a link, enter opens it, backspace goes back, / searches, q quits.
A pager that PAGER names is used instead. Without a terminal, the page is printed as Markdown."
)]
pub struct Show {
    #[arg(default_value = "help-intro")]
    topic: String,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Runs it.
    pub async fn run(self) -> Result<(), Failure> {
        let Some(topic) = topics::find(&self.topic) else {
            return Err(Failure::with_hint("no such help topic", "(tip: use \"walt help list\")"));
        };
        if self.json {
            return ui::out_json(&topic);
        }
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return Ok(ui::out_text(topic.markdown)?);
        }
        let rendered = || render::page(topic.markdown, window_size().1.into()).ansi();
        if let Some(line) = std::env::var("PAGER").ok().filter(|line| !line.trim().is_empty()) {
            let text = rendered();
            return if page(&line, &text) { Ok(()) } else { Ok(ui::out_text(&text)?) };
        }
        // A terminal that cannot place the cursor gets the page as it is.
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            let plain =
                |line: &topics::text::Text| line.iter().map(|(c, _)| *c).chain(['\n']).collect::<String>();
            let page = render::page(topic.markdown, window_size().1.into());
            return Ok(ui::out_text(&page.lines.iter().map(plain).collect::<String>())?);
        }
        pager::run(topic.topic).await
    }
}

/// Shows text in a pager, a command line by convention; false if it does not exist. `less` shows styles with the option `-R`,
/// which it gets if the user has not set options.
fn page(line: &str, text: &str) -> bool {
    let mut program = Program::new("sh");
    program.args(["-c", line]).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        program.env("LESS", "-R");
    }
    let Ok(mut child) = program.spawn() else { return false };
    if let Some(mut pipe) = child.stdin.take() {
        // The reader may quit before it has seen everything.
        let _ = pipe.write_all(text.as_bytes());
    }
    child.wait().is_ok_and(|status| status.code() != Some(NOT_FOUND))
}
