//! Machines that say by DHCP that they are nodes become nodes.

use crate::{
    actions::app::App,
    base::{db::NodeRow, random::random_uuid, state::Decision},
};
use anyhow::{Context, Result, anyhow};
use walt_core::{NodeFacts, life::Life, registration};
use walt_netboot::dhcp::Registration;
use walt_types::{ImageRef, Model, NodeName};

/// Makes a machine a node, with the default image of its model.
///
/// # Errors
/// There is no image for its model, or the node cannot be made.
pub fn register_node(app: &App, registration: &Registration, decision: &Decision<'_>) -> Result<()> {
    let Registration { mac, ip, model, host_name } = registration;
    let image = default_image(app, model)?;
    let rows = app.db().with(NodeRow::all)?;
    let is_taken =
        |name: &NodeName| rows.iter().any(|r| r.facts.name.as_str().eq_ignore_ascii_case(name.as_str()));
    let name = registration::automatic_name(host_name.as_deref(), *mac, is_taken);
    let node = NodeRow {
        mac: *mac,
        facts: NodeFacts { name, model: model.clone(), image, is_virtual: false },
        ip: *ip,
        uuid: random_uuid(),
        life: Life::default(),
    };
    app.nodes().add(&node, decision)?;
    tracing::info!(name = %node.facts.name, %model, %mac, %ip, "new node");
    Ok(())
}

fn default_image(app: &App, model: &Model) -> Result<ImageRef> {
    let image = walt_core::default_image_of(model);
    app.images().find(&image).map_err(|_| {
        anyhow!(
            "there is no image {image}: make it with 'walt-server default-image build {model}-default', then restart the machine"
        )
    })?;
    let models = app.images().models(&image)?;
    models
        .contains(model)
        .then_some(image.clone())
        .with_context(|| format!("the image {image} is not for it"))
}
