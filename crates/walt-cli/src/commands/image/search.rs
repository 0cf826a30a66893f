//! `walt image search`

use crate::{
    context::Context,
    error::Failure,
    events, registries,
    ui::{
        self,
        table::{compact_models, table},
    },
};
use clap::Args;
use walt_api::{FoundImage, ImageAction};

/// `walt image search`
#[derive(Debug, Args)]
pub struct Search {
    keyword: Option<String>,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Search {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let credentials = registries::all_credentials(context).await?;
        let events = context.start(ImageAction::Search { keyword: self.keyword, credentials }).await?;
        let mut images = Vec::new();
        let mut found = |ui: &mut ui::Ui, image| {
            images.push(image);
            ui.busy.label(&format!("Searching: {} matches", images.len()));
        };
        events::follow_search(&mut context.ui, events, &mut found).await?;
        images.sort();
        images.dedup();
        if self.json {
            return ui::out_json(&serde_json::json!({ "num_images": images.len(), "images": images }));
        }
        if images.is_empty() {
            ui::note("Sorry, no image could match your request.");
            return Ok(());
        }
        Ok(ui::out_text(&text(&images))?)
    }
}

fn text(images: &[FoundImage]) -> String {
    let row = |image: &FoundImage| {
        let link = match image.needs_server_version {
            Some(version) => format!("[Need server upgrade, version>={version}]"),
            None => image.clonable_link.clone(),
        };
        let models = compact_models(&image.compatibility);
        vec![image.user.clone(), image.name.clone(), image.location.clone(), models, link]
    };
    let rows: Vec<Vec<String>> = images.iter().map(row).collect();
    table(&["User", "Image name", "Location", "Compatibility", "Clonable link"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results() {
        let image = |needs| FoundImage {
            user: "bob".into(),
            name: "x:v1".into(),
            location: "custom registry".into(),
            compatibility: vec!["pc-x86-64".into()],
            clonable_link: "lab:bob/x:v1".into(),
            needs_server_version: needs,
        };
        let text = text(&[image(None), image(Some(11))]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "User  Image name  Location         Compatibility  Clonable link");
        assert_eq!(lines[2], "bob   x:v1        custom registry  pc-x86-64      lab:bob/x:v1");
        assert_eq!(
            lines[3],
            "bob   x:v1        custom registry  pc-x86-64      [Need server upgrade, version>=11]"
        );
    }
}
