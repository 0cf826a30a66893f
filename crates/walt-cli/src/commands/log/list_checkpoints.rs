//! `walt log list-checkpoints`

use crate::{
    context::Context,
    error::Failure,
    ui::{self, table::table},
};
use clap::Args;

/// `walt log list-checkpoints`
#[derive(Debug, Args)]
pub struct ListCheckpoints {
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl ListCheckpoints {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let list = context.ui.watch(context.client.checkpoints()).await?;
        if self.json {
            return ui::out_json(&list);
        }
        if list.is_empty() {
            ui::note("You own no checkpoints.");
            return Ok(());
        }
        let rows: Vec<Vec<String>> = list.into_iter().map(|c| vec![c.date, c.name]).collect();
        Ok(ui::out_text(&table(&["timestamp", "name"], &rows))?)
    }
}
