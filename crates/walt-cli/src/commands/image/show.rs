//! `walt image show`

use crate::{
    context::Context,
    error::Failure,
    ui::{
        self,
        table::{compact_models, own_name, section, truth},
    },
};
use clap::Args;
use walt_api::{Image, ImageList};
use walt_types::PLATFORM_USER;

/// `walt image show`
#[derive(Debug, Args)]
pub struct Show {
    /// also show the images of other users and of the platform
    #[arg(long)]
    all: bool,
    /// print the names of your own images, one per line; excludes --all
    #[arg(long, conflicts_with = "json")]
    names_only: bool,
    /// accepted for old scripts; the list is always up to date
    #[arg(long)]
    refresh: bool,
    /// print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.all && self.names_only {
            // Not a conflict of the grammar: scripts rely on exit status 1 here.
            return Err(Failure::new(
                "--names-only cannot be used with --all: it prints only the names of your own images.",
            ));
        }
        let user = context.ui.watch(context.client.info()).await?.user;
        let mut list = context.ui.watch(context.client.images(true)).await?;
        for line in &list.notes {
            ui::note(line);
        }
        list.images.sort_by(|a, b| a.fullname.cmp(&b.fullname));
        let total = list.images.len();
        if !self.all {
            list.images.retain(|image| image.user == user.as_str());
        }
        if self.json {
            let notes = list.notes;
            return ui::out_json(&ImageList { num_images: list.images.len(), images: list.images, notes });
        }
        if self.names_only {
            let names: String =
                list.images.iter().map(|image| own_name(&image.fullname).to_owned() + "\n").collect();
            return Ok(ui::out_text(&names)?);
        }
        ui::out_text(&text(&list.images, user.as_str()))?;
        for line in footnotes(&list.images, total, user.as_str(), self.all) {
            ui::note(&line);
        }
        Ok(())
    }
}

fn text(images: &[Image], user: &str) -> String {
    let rows = |of: &dyn Fn(&Image) -> bool, cells: &dyn Fn(&Image) -> Vec<String>| {
        images.iter().filter(|i| of(i)).map(cells).collect::<Vec<_>>()
    };
    let mut text = section(
        "Your images:",
        &["name", "in_use", "created", "compatibility"],
        &rows(&|i| i.user == user, &|i| {
            vec![
                own_name(&i.fullname).into(),
                truth(i.in_use),
                i.created.clone(),
                compact_models(&i.compatibility),
            ]
        }),
    );
    text += &section(
        "Images of other users:",
        &["user", "name", "created", "clonable_link"],
        &rows(&|i| i.user != user && i.user != PLATFORM_USER, &|i| {
            vec![i.user.clone(), own_name(&i.fullname).into(), i.created.clone(), link(i)]
        }),
    );
    text += &section(
        "Images of the platform:",
        &["name", "created", "clonable_link"],
        &rows(&|i| i.user == PLATFORM_USER && user != PLATFORM_USER, &|i| {
            vec![own_name(&i.fullname).into(), i.created.clone(), link(i)]
        }),
    );
    let sessions = images
        .iter()
        .filter(|i| i.user == user)
        .filter_map(|i| {
            let session = i.session.as_ref()?;
            Some(vec![own_name(&i.fullname).into(), session.since.clone(), session.state.clone()])
        })
        .collect::<Vec<_>>();
    text += &section("Open sessions of 'walt image shell':", &["image", "since", "state"], &sessions);
    text
}

fn link(image: &Image) -> String {
    format!("walt:{}/{}", image.user, own_name(&image.fullname))
}

fn footnotes(shown: &[Image], total: usize, user: &str, all: bool) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    if shown.iter().any(|image| image.user == user && image.session.is_some()) {
        notes
            .push("Tip: 'walt image shell --resume <image>' resumes a session, '--discard' drops it.".into());
    }
    if total == 0 {
        notes.push("No OS images were found on this platform.".into());
    } else if !shown.iter().any(|image| image.user == user) {
        notes.push("Your working set is empty.".into());
    }
    if all && total > 0 {
        notes.push("Tip: 'walt image clone <clonable-link>' copies an image to your images.".into());
    } else if total > shown.len() {
        notes.push("Re-run with --all to see the images of other users and of the platform.".into());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_api::SessionInfo;

    fn image(full: &str) -> Image {
        Image {
            fullname: full.into(),
            user: full.split('/').next().unwrap().into(),
            id: "sha256:00".into(),
            in_use: false,
            created: "2026-01-02 03:04:05".into(),
            compatibility: vec!["pc-x86-64".into()],
            session: None,
        }
    }

    #[test]
    fn sections() {
        let mut open = image("ann/x:v1");
        open.session =
            Some(SessionInfo { id: "s".into(), since: "2026-01-02 04:00:00".into(), state: "exited".into() });
        let images =
            [image("ann/pc:latest"), open, image("bob/y:latest"), image("waltplatform/pc-default:latest")];
        assert_eq!(
            text(&images, "ann"),
            "Your images:
name  in-use  created              compatibility
----  ------  -------------------  -------------
pc    False   2026-01-02 03:04:05  pc-x86-64    
x:v1  False   2026-01-02 03:04:05  pc-x86-64    

Images of other users:
user  name  created              clonable-link
----  ----  -------------------  -------------
bob   y     2026-01-02 03:04:05  walt:bob/y   

Images of the platform:
name        created              clonable-link               
----------  -------------------  ----------------------------
pc-default  2026-01-02 03:04:05  walt:waltplatform/pc-default

Open sessions of 'walt image shell':
image  since                state 
-----  -------------------  ------
x:v1   2026-01-02 04:00:00  exited

"
        );
        assert_eq!(footnotes(&images[..2], 4, "ann", false).len(), 2);
        assert_eq!(footnotes(&[], 4, "eve", false)[0], "Your working set is empty.");
    }
}
