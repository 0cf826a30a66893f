//! Names of files in images and on nodes, for shells that complete a path: see `walt_api::names`.

use crate::{
    actions::{app::App, image_copy::from_root, node_program::output_of, ownership::owned_node},
    base::{
        db::{NodeRow, blocking},
        failure::{Failure, Outcome, refused},
    },
    services::images::own_reference,
};
use std::sync::Arc;
use walt_api::{
    names::{FileName, FileNames, SettingInfo, typed},
    transfer::Path,
};
use walt_core::{ownership::Demand, settings::SETTINGS};
use walt_images::{Kind, View};
use walt_types::{UserName, shell::quote};

/// Most entries of a directory of a node that are listed.
const ENTRIES_MAX: usize = 20_000;

/// All settings of nodes and devices.
pub fn settings() -> Vec<SettingInfo> {
    let info = |s: &walt_core::settings::Setting| SettingInfo {
        key: s.key.to_owned(),
        default: s.default.to_owned(),
        grammar: s.grammar.to_owned(),
        values: s.values().iter().map(|v| (*v).to_owned()).collect(),
    };
    SETTINGS.iter().map(info).collect()
}

/// The entries of a directory of an image of the caller whose paths begin like `path`.
///
/// # Errors
/// There is no such image. A directory that does not exist has no entries.
pub async fn in_image(app: &Arc<App>, caller: &UserName, image: &str, path: &Path) -> Outcome<FileNames> {
    let row = app.images().find(&own_reference(caller, image)?)?;
    // Pinned, since the name may be changed meanwhile.
    let mut pinned = app.images().pins().begin();
    let view = {
        let _writing = app.images().writing().await;
        pinned.image(row.image_id);
        blocking(|| app.images().own_view(&row.image_id))?
    };
    let (directory, beginning) = typed(&path.0);
    Ok(entries(&view, directory, beginning))
}

fn entries(view: &View, directory: &[u8], beginning: &[u8]) -> FileNames {
    let directory = from_root(&Path(directory.to_vec()));
    let Some(number) = view.resolve(&directory) else { return FileNames::default() };
    let begin = |child: &&u32| view.name(**child).starts_with(beginning);
    let entry = |child: &u32| {
        let name = view.name(*child);
        let directory = match view.entry(*child).map(|e| e.kind) {
            Some(Kind::Dir) => true,
            // A link is looked up by the path that leads to it.
            Some(Kind::Symlink) => view
                .resolve(&[&directory[..], b"/", name].concat())
                .and_then(|at| view.entry(at))
                .is_some_and(|e| e.kind == Kind::Dir),
            _ => false,
        };
        FileName { name: Path(name.to_vec()), directory }
    };
    FileNames::first_of(view.children(number).iter().filter(begin).map(entry).collect())
}

/// The same on a node that has booted, and that no other user owns.
///
/// # Errors
/// There is no such node, or it may not be looked at, or does not answer.
pub async fn on_node(app: &Arc<App>, caller: &UserName, node: &str, path: &Path) -> Outcome<FileNames> {
    let row = owned_node(app, caller, node, Demand::OwnedOrFree, "cp", None)?;
    if row.life.booted.is_none() {
        return Err(refused(format!("{} has not booted", row.facts.name)));
    }
    let (directory, beginning) = typed(&path.0);
    let (directory, beginning) =
        ([&b"/"[..], &from_root(&Path(directory.to_vec()))].concat(), beginning.to_vec());
    // A task of its own: it goes on when the client has gone.
    let task = tokio::spawn({
        let app = app.clone();
        async move {
            let listings = app.nodes().listings();
            listings.of(row.mac, &directory, list(&app, &row, &directory)).await
        }
    });
    let all = task.await.map_err(|e| Failure::Internal(e.into()))??;
    let begin = |entry: &&FileName| entry.name.0.starts_with(&beginning);
    Ok(FileNames::first_of(all.iter().filter(begin).cloned().collect()))
}

/// Lists a directory on a node: by its shell alone, since a process for each file would take long.
async fn list(app: &App, node: &NodeRow, directory: &[u8]) -> Outcome<Vec<FileName>> {
    let script = [
        b"cd ",
        &*quote(directory),
        b" 2>/dev/null || exit 0; for f in .[!.]* ..?* *; do \
          if [ -d \"$f\" ]; then printf '%s/\\0' \"$f\"; \
          elif [ -e \"$f\" ] || [ -L \"$f\" ]; then printf '%s\\0' \"$f\"; fi; done",
    ]
    .concat();
    let answer = output_of(app, node, &script).await?;
    let names = answer.split(|b| *b == 0).filter(|name| !name.is_empty()).take(ENTRIES_MAX);
    Ok(names
        .map(|name| match name.strip_suffix(b"/") {
            Some(name) => FileName { name: Path(name.to_vec()), directory: true },
            None => FileName { name: Path(name.to_vec()), directory: false },
        })
        .collect())
}
