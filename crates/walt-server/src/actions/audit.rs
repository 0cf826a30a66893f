//! Says on the log of the platform who did what to which node or image.

use crate::{
    actions::{app::App, ownership::nodes_of},
    base::{
        failure::Outcome,
        journal::{DEVICES, IMAGES, NODES},
    },
};
use walt_api::{DeviceAction, ImageAction, NodeAction};
use walt_types::UserName;

/// What will be said once an action is done.
pub struct Deed {
    stream: &'static str,
    text: String,
}

/// Carries out an action, and says it if it was done, or a part of it.
pub async fn said(
    app: &App,
    deed: Option<Deed>,
    action: impl Future<Output = Outcome<bool>>,
) -> Outcome<bool> {
    let outcome = action.await;
    if let (Some(deed), Ok(done)) = (deed, &outcome) {
        let rest = if *done { "" } else { " (not all of it succeeded)" };
        app.base().journal().say(deed.stream, &format!("{}{rest}", deed.text));
    }
    outcome
}

/// The names of a set, as it is before the action.
fn names(app: &App, caller: &UserName, set: &str) -> String {
    let members = nodes_of(app, caller, set).unwrap_or_default();
    let names: Vec<&str> = members.iter().map(|node| node.facts.name.as_str()).collect();
    if names.is_empty() { set.to_owned() } else { names.join(", ") }
}

/// An action on nodes; none if it changes nothing that others see.
pub fn of_node(app: &App, caller: &UserName, action: &NodeAction) -> Option<Deed> {
    let of = |set: &str| names(app, caller, set);
    let text = match action {
        NodeAction::Create { name, image, .. } => match image {
            Some(image) => format!("created {name} with image {image}"),
            None => format!("created {name}"),
        },
        NodeAction::Remove { name } => format!("removed {name}"),
        NodeAction::Forget { name } => format!("forgot {name}"),
        NodeAction::Rename { name, new_name } => format!("renamed {name} to {new_name}"),
        NodeAction::Boot { nodes, image } => format!("booted {} with image {image}", of(nodes)),
        NodeAction::Acquire { nodes, .. } => format!("acquired {}", of(nodes)),
        NodeAction::Lease { nodes, .. } => format!("changed the lease of {}", of(nodes)),
        NodeAction::Release { nodes } => format!("released {}", of(nodes)),
        NodeAction::Reboot { nodes, hard } => {
            format!("rebooted {} ({})", of(nodes), if *hard { "hard" } else { "soft" })
        }
        NodeAction::Save { node, image, dry_run: false } => format!("saved {node} as image {image}"),
        NodeAction::Link { nodes, network, changes, .. } => {
            format!("changed the link of {} to {network}: {}", of(nodes), changes.join(" "))
        }
        NodeAction::Config { nodes, settings, .. } if !settings.is_empty() => {
            format!("configured {}: {}", of(nodes), settings.join(" "))
        }
        NodeAction::Beat { .. }
        | NodeAction::EndHold { .. }
        | NodeAction::Wait { .. }
        | NodeAction::Blink { .. }
        | NodeAction::Save { .. }
        | NodeAction::Config { .. } => return None,
    };
    Some(Deed { stream: NODES, text: format!("{caller} {text}") })
}

/// An action on devices.
pub fn of_device(caller: &UserName, action: &DeviceAction) -> Option<Deed> {
    let text = match action {
        DeviceAction::Rename { name, new_name } => format!("renamed {name} to {new_name}"),
        DeviceAction::Forget { name, .. } => format!("forgot {name}"),
        DeviceAction::Restore { name } => format!("restored {name}"),
        DeviceAction::Config { devices, settings, .. } if !settings.is_empty() => {
            format!("configured {devices}: {}", settings.join(" "))
        }
        DeviceAction::Config { .. } => return None,
    };
    Some(Deed { stream: DEVICES, text: format!("{caller} {text}") })
}

/// An action on images.
pub fn of_image(caller: &UserName, action: &ImageAction) -> Option<Deed> {
    let text = match action {
        ImageAction::Remove { name } => format!("removed image {name}"),
        ImageAction::Rename { name, new_name } => format!("renamed image {name} to {new_name}"),
        ImageAction::Duplicate { name, new_name } => format!("duplicated image {name} as {new_name}"),
        ImageAction::Clone { link, name, .. } => match name {
            Some(name) => format!("cloned image {link} as {name}"),
            None => format!("cloned image {link}"),
        },
        ImageAction::Rollback { name, version } => match version {
            Some(version) => format!("rolled image {name} back to version {version}"),
            None => format!("rolled image {name} back"),
        },
        ImageAction::Prune { name: Some(name) } => format!("pruned the history of image {name}"),
        ImageAction::Prune { name: None } => "pruned the histories of all own images".to_owned(),
        ImageAction::Squash { name } => format!("squashed image {name}"),
        ImageAction::FixOwner { user, sure: true } => format!("took over the images of {user}"),
        ImageAction::Publish { name, registry, .. } => match registry {
            Some(registry) => format!("published image {name} on {registry}"),
            None => format!("published image {name}"),
        },
        ImageAction::UpdateDefaultImages { .. } => "updated the default images".to_owned(),
        ImageAction::FixOwner { .. }
        | ImageAction::Search { .. }
        | ImageAction::RegistryLogin { .. }
        | ImageAction::UpdateHubMeta { .. } => return None,
    };
    Some(Deed { stream: IMAGES, text: format!("{caller} {text}") })
}
