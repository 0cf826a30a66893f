//! `walt help list`

use crate::{error::Failure, topics, ui};
use clap::Args;

/// `walt help list`
#[derive(Debug, Args)]
pub struct List {
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    /// Runs it.
    pub fn run(self) -> Result<(), Failure> {
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
