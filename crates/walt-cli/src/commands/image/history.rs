//! `walt image history`

use crate::{
    context::Context,
    error::Failure,
    ui::{self, bytes, table::table},
};
use clap::Args;
use walt_api::versions::ImageHistory;

/// `walt image history`
#[derive(Debug, Args)]
pub struct History {
    image_name: String,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl History {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let history = context.ui.watch(context.client.image_history(&self.image_name)).await?;
        if self.json {
            return ui::out_json(&history);
        }
        ui::out_text(&versions(&history))?;
        if history.versions.len() > 1 {
            ui::note(
                "The name points to the first version. 'walt image rollback' restores an older one, \
                 'walt image diff' lists what changed.",
            );
        }
        Ok(())
    }
}

fn versions(history: &ImageHistory) -> String {
    let rows: Vec<Vec<String>> = history
        .versions
        .iter()
        .map(|v| {
            vec![v.version.to_string(), v.since.clone(), v.user.clone(), bytes(v.size), v.command.clone()]
        })
        .collect();
    table(&["version", "since", "user", "size", "command"], &rows)
}
