//! Machines that say by DHCP that they are nodes become nodes.

use crate::{
    actions::{app::App, dhcp::say},
    base::{
        db::{DeviceRow, NodeRow, RefRow, names_taken},
        random::random_uuid,
        state::Decision,
    },
};
use anyhow::{Result, bail};
use walt_core::{
    NodeFacts, default_image_of,
    life::Life,
    registration::{automatic_name, clear_name},
};
use walt_netboot::dhcp::Registration;
use walt_types::{DeviceType, NodeName};

/// What came of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The machine is a node.
    Node,
    /// There is no default image of its model here.
    WithoutImage,
}

/// Makes a machine a node, with the default image of its model. `name` is for one that is new.
///
/// # Errors
/// The image is not for its model, it is recorded as a switch, or the node cannot be made.
pub fn register_node(
    app: &App,
    registration: &Registration,
    name: Option<&NodeName>,
    decision: &Decision<'_>,
) -> Result<Registered> {
    let Registration { mac, ip, model, host_name } = registration;
    let image = default_image_of(model);
    let (device, taken, found) =
        app.db().with(|c| Ok((DeviceRow::by_mac(c, *mac)?, names_taken(c)?, RefRow::get(c, &image)?)))?;
    if let Some(switch) = device.as_ref().filter(|d| d.device_type == DeviceType::Switch) {
        bail!(
            "it says that it is a node of model '{model}', but {} is recorded as a switch: 'walt device forget {}' \
             makes room for the node",
            switch.name,
            switch.name
        );
    }
    if found.is_none() {
        return Ok(Registered::WithoutImage);
    }
    if !app.images().models(&image)?.contains(model) {
        bail!("the image {image} is not made for its model '{model}'");
    }
    let is_taken = |name: &NodeName| taken.contains(&name.as_str().to_ascii_lowercase());
    let host_name = host_name.as_deref();
    let chosen = match (&device, name) {
        (Some(device), _) => clear_name(&device.name, DeviceType::Node, host_name, *mac, is_taken)
            .unwrap_or_else(|| device.name.clone()),
        (None, Some(name)) if !is_taken(name) => name.clone(),
        (None, _) => automatic_name(DeviceType::Node, host_name, *mac, is_taken),
    };
    let node = NodeRow {
        mac: *mac,
        facts: NodeFacts { name: chosen, model: model.clone(), image, is_virtual: false },
        ip: *ip,
        uuid: random_uuid(),
        life: Life::default(),
        lease: None,
    };
    app.nodes().add(&node, decision)?;
    let name = &node.facts.name;
    let known = if device.is_some() { " (device type previously unknown)" } else { "" };
    if let Some(device) = device.filter(|device| device.name != *name) {
        say(app, &format!("device {} was renamed to {name} for clarity", device.name));
    }
    say(app, &format!("new node{known} name={name} model={model} mac={mac} ip={ip}"));
    Ok(Registered::Node)
}
