//! `walt help …`: works without server.

use crate::error::Failure;
use crate::topics;
use crate::ui;
use clap::{Args, Subcommand};
use std::io::{IsTerminal, Write};
use std::process::{Command as Program, Stdio};

/// Commands of the category.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// list the help topics
    List(List),
    /// show the page of a help topic
    Show(Show),
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
        }
    }
}

/// `walt help list`
#[derive(Debug, Args)]
pub struct List {
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let topics = topics::all();
        if self.json {
            let list: Vec<_> =
                topics.iter().map(|t| serde_json::json!({"topic": t.topic, "title": t.title})).collect();
            return ui::out_json(&list);
        }
        let width = topics.iter().map(|t| t.topic.len()).max().unwrap_or(0);
        let mut text = "The following help topics are available:\n".to_owned();
        for topic in topics {
            text += &format!("{:width$} -- {}\n", topic.topic, topic.title);
        }
        Ok(ui::out_text(&text)?)
    }
}

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
    fn run(self) -> Result<(), Failure> {
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

/// Shows text in the pager; false if there is none.
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
