//! What will be done: made from facts, shown, and then carried out in this order.

use crate::{
    actions::setup::{
        report,
        service::{Service, UNIT},
    },
    services::{
        images::default_image::{self, DefaultState},
        nodes::vnode,
    },
};
use anyhow::Result;
use std::path::{Path, PathBuf};
use walt_types::ImageRef;

/// A change of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The file.
    pub path: PathBuf,
    /// What it has now; none if it does not exist.
    pub old: Option<String>,
    /// What it will have.
    pub new: String,
    /// Whether comments and order of the old text are kept.
    pub kept: bool,
}

/// A default image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageStep {
    /// Its recipe.
    pub recipe: String,
    /// Whether the recipe is run.
    pub build: bool,
    /// Whether the references of its models must be set to it.
    pub make_default: bool,
}

/// All changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The group to make.
    pub group: Option<String>,
    /// Whether the account of qemu is made.
    pub account: bool,
    /// The file to write.
    pub file: Option<FileChange>,
    /// Words for systemctl.
    pub service: Vec<&'static str>,
    /// Images to build.
    pub images: Vec<ImageStep>,
}

/// What systemctl must do, so that the server runs with the configuration.
pub fn service_steps(service: Service, file_changes: bool) -> Vec<&'static str> {
    let Service::Unit { enabled, active } = service else { return Vec::new() };
    let enable = (!enabled).then_some("enable");
    let start = match (active, file_changes) {
        (false, _) => Some("start"),
        (true, true) => Some("restart"),
        (true, false) => None,
    };
    enable.into_iter().chain(start).collect()
}

/// What must be done for an image; none if it is there, made by this program's recipe, and is the default one.
///
/// # Errors
/// There is no such recipe, or the state cannot be read.
pub fn image_step(state_dir: &Path, recipe: &str) -> Result<Option<ImageStep>> {
    let made_by_it = |reference: &ImageRef| match default_image::state_of(state_dir, reference)? {
        DefaultState::Recipe(made_by) if made_by.recipe == recipe => Ok(Some(made_by.digest)),
        _ => Ok::<_, anyhow::Error>(None),
    };
    let own = made_by_it(&ImageRef::platform(recipe.parse()?))?;
    let build = own.is_none_or(|digest| digest != default_image::recipe_digest(recipe));
    let mut make_default = false;
    for reference in default_image::default_references(recipe)? {
        make_default |= made_by_it(&reference)?.is_none();
    }
    let step = ImageStep { recipe: recipe.to_owned(), build, make_default };
    Ok(Some(step).filter(|s| s.build || s.make_default))
}

impl Plan {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.group.is_none()
            && !self.account
            && self.file.is_none()
            && self.service.is_empty()
            && self.images.is_empty()
    }

    /// The plan for people, an item to a paragraph.
    pub fn text(&self, width: usize) -> String {
        let mut out = String::new();
        let mut item = |text: &str| {
            out.push_str(&report::wrap(&format!("  * {text}"), width, 4));
            out.push('\n');
        };
        if let Some(group) = &self.group {
            item(&format!("make the group {group}; add its members with 'adduser NAME {group}'"));
        }
        if self.account {
            item(&format!("make the account {}, under which virtual nodes run", vnode::ACCOUNT));
        }
        if let Some(file) = &self.file {
            let path = file.path.display();
            item(&match (&file.old, file.kept) {
                (None, _) => format!("write {path}:"),
                (Some(_), true) => format!("change {path}; the file as it is now is kept as {path}.old:"),
                (Some(_), false) => format!(
                    "write {path} again, without its comments, since it is in a style that cannot be edited by line; the file as it is now is kept as {path}.old:"
                ),
            });
            let diff = report::diff(file.old.as_deref().unwrap_or(""), &file.new);
            diff.lines().for_each(|line| out.push_str(&format!("      {line}\n")));
        }
        let mut item = |text: &str| {
            out.push_str(&report::wrap(&format!("  * {text}"), width, 4));
            out.push('\n');
        };
        if !self.service.is_empty() {
            let note = if self.service.contains(&"restart") { "; nodes and open shells go on" } else { "" };
            item(&format!("{} the service {UNIT}{note}", self.service.join(" and ")));
        }
        for image in &self.images {
            let name = &image.recipe;
            let time = if name.ends_with("-mini") { "about a minute" } else { "some minutes" };
            match (image.build, image.make_default) {
                (true, true) => {
                    item(&format!("build {name} from packages ({time}), and make it the default image"))
                }
                (true, false) => item(&format!("build {name} again, since its recipe has changed ({time})")),
                _ => item(&format!("make {name} the default image")),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_must_do() {
        let unit = |enabled, active| Service::Unit { enabled, active };
        for (service, changes, steps) in [
            (unit(false, false), true, &["enable", "start"][..]),
            (unit(true, false), false, &["start"]),
            (unit(true, true), true, &["restart"]),
            (unit(true, true), false, &[]),
            (Service::NoUnit, true, &[]),
            (Service::NoSystemd, true, &[]),
            (Service::OtherFile, true, &[]),
        ] {
            assert_eq!(service_steps(service, changes), steps, "{service:?} {changes}");
        }
    }

    #[test]
    fn a_plan_for_people() {
        let plan = Plan {
            group: Some("lab".into()),
            account: true,
            file: Some(FileChange {
                path: "/etc/walt/server.conf".into(),
                old: Some("a: 1\n".into()),
                new: "a: 2\n".into(),
                kept: true,
            }),
            service: vec!["restart"],
            images: vec![ImageStep { recipe: "pc-x86-64-mini".into(), build: true, make_default: true }],
        };
        assert_eq!(
            plan.text(100),
            "  * make the group lab; add its members with 'adduser NAME lab'\n  \
             * make the account walt-qemu, under which virtual nodes run\n  \
             * change /etc/walt/server.conf; the file as it is now is kept as /etc/walt/server.conf.old:\n      \
             - a: 1\n      + a: 2\n  * restart the service walt-server.service; nodes and open shells go on\n  \
             * build pc-x86-64-mini from packages (about a minute), and make it the default image\n"
        );
        assert!(!plan.is_empty());
        let none = Plan { group: None, account: false, file: None, service: vec![], images: vec![] };
        assert!(none.is_empty() && none.text(80).is_empty());
    }

    #[test]
    fn an_image_of_a_new_server() {
        let dir = tempfile::tempdir().unwrap();
        let step = image_step(dir.path(), "pc-x86-64-mini").unwrap().unwrap();
        assert!(step.build && step.make_default);
        assert!(image_step(dir.path(), "nope").is_err());
    }
}
