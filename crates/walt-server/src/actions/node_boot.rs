//! `walt node boot|acquire|release`: which image nodes boot.

use crate::{
    actions::{
        node_actions::{Request, names_of},
        node_leases::{self, Terms},
        publish_ref::incompatible,
        reboot::reboot_nodes,
    },
    base::{
        db::{NodeLeaseRow, NodeRow, TakingRow},
        fail_points,
        failure::{Outcome, bad_request, refused},
        state::Decision,
        time::now,
    },
    services::nodes::queue::Place,
};
use std::collections::{BTreeMap, BTreeSet};
use walt_core::{boots::Cause, ownership::Demand, sentences};
use walt_types::{ImageName, ImageRef, Model};

impl Request<'_> {
    /// Refuses an image that is not made for all of these models.
    pub(super) fn compatible(&self, image: &ImageRef, models: &[Model]) -> Outcome<()> {
        let supported = self.app.images().models(image)?;
        let others: BTreeSet<&str> =
            models.iter().filter(|m| !supported.contains(m)).map(Model::as_str).collect();
        if others.is_empty() { Ok(()) } else { Err(refused(format!("{}.", incompatible(others)))) }
    }

    pub(super) async fn boot(&self, set: &str, image: &str) -> Outcome<bool> {
        if image == "default" {
            let decision = self.app.base().decide().await;
            let nodes = self.nodes(set, Demand::Takes, &format!("boot {set} {image}"), &decision)?;
            return self.boot_default(decision, nodes, "boot").await;
        }
        let name: ImageName = image.parse().map_err(|e| bad_request(format!("{e}.")))?;
        let decision = self.app.base().decide().await;
        for note in self.app.images().first_images(self.caller, &decision)? {
            self.events.note(note).await;
        }
        let reference = ImageRef::of(self.caller, name);
        self.app.images().find(&reference)?;
        let nodes = self.nodes(set, Demand::Takes, &format!("boot {set} {image}"), &decision)?;
        let models: Vec<Model> = nodes.iter().map(|n| n.facts.model.clone()).collect();
        self.compatible(&reference, &models)?;
        let (same, changed): (Vec<&NodeRow>, Vec<&NodeRow>) =
            nodes.iter().partition(|n| n.facts.image == reference);
        let names = |rows: &[&NodeRow]| sentences::items("node", &names_of(rows));
        if !same.is_empty() {
            self.events.note(format!("{}: ignored, already using this image", names(&same))).await;
        }
        if !changed.is_empty() {
            self.events.out(format!("{} will now boot {}.", names(&changed), reference.image())).await;
        }
        self.associate(decision, nodes, "boot", |_| reference.clone(), Change::default()).await
    }

    async fn boot_default(&self, decision: Decision<'_>, nodes: Vec<NodeRow>, why: &str) -> Outcome<bool> {
        for node in &nodes {
            self.app.images().find(&walt_core::default_image_of(&node.facts.model))?;
        }
        let names: Vec<&str> = nodes.iter().map(|n| n.facts.name.as_str()).collect();
        self.events
            .out(format!(
                "{} will now boot {} default image (other users will see {} 'free').",
                sentences::items("node", &names),
                sentences::verb(names.len(), "its", "their"),
                sentences::verb(names.len(), "it is", "they are"),
            ))
            .await;
        let image = |n: &NodeRow| walt_core::default_image_of(&n.facts.model);
        self.associate(decision, nodes, why, image, Change::default()).await
    }

    pub(super) async fn acquire(&self, set: &str, terms: &Terms) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::FreeOrNotOwned, &format!("acquire {set}"), &decision)?;
        self.acquire_nodes(decision, nodes, terms, None).await
    }

    /// Gives nodes to the caller, whatever they were. `place` is the one in the queue that ends thereby.
    pub(super) async fn acquire_nodes(
        &self,
        decision: Decision<'_>,
        nodes: Vec<NodeRow>,
        terms: &Terms,
        place: Option<Place>,
    ) -> Outcome<bool> {
        for note in self.app.images().first_images(self.caller, &decision)? {
            self.events.note(note).await;
        }
        let mut own: BTreeMap<Model, ImageRef> = BTreeMap::new();
        for node in &nodes {
            let model = &node.facts.model;
            if !own.contains_key(model) {
                own.insert(model.clone(), self.app.images().own_default(self.caller, model, &decision)?);
            }
        }
        for node in &nodes {
            let image = own[&node.facts.model].image().to_string();
            self.events.out(format!("Node {} will now boot {image}.", node.facts.name)).await;
        }
        let change = Change { terms: Some(terms), place };
        self.associate(decision, nodes, "acquire", |n| own[&n.facts.model].clone(), change).await
    }

    pub(super) async fn release(&self, set: &str) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::Owned, &format!("release {set}"), &decision)?;
        self.boot_default(decision, nodes, "release").await
    }

    /// Changes the image of nodes in one transaction, and with their owner their lease; then reboots them. `why` is for
    /// the records of their boots.
    async fn associate(
        &self,
        decision: Decision<'_>,
        nodes: Vec<NodeRow>,
        why: &str,
        image: impl Fn(&NodeRow) -> ImageRef,
        change: Change<'_>,
    ) -> Outcome<bool> {
        let now = now();
        let mut notes = Vec::new();
        self.app.db().transaction(|tx| -> anyhow::Result<()> {
            for node in &nodes {
                let image = image(node);
                NodeRow::set_image(tx, node.mac, &image)?;
                let changes_owner = image.user() != node.facts.owner();
                if changes_owner || change.terms.is_some() {
                    NodeLeaseRow::delete(tx, node.mac)?;
                }
                if let Some(lease) = change.terms.and_then(|terms| terms.lease(self.caller, now)) {
                    NodeLeaseRow::put(tx, node.mac, &lease)?;
                }
                if changes_owner {
                    TakingRow::delete_of(tx, node.mac, image.user())?;
                    notes.extend(node_leases::take(tx, node, self.caller, now)?);
                }
            }
            change.place.as_ref().map_or(Ok(()), |place| place.grant(tx))
        })?;
        if change.place.is_some() {
            fail_points::point("node-granted");
        }
        drop((decision, change.place));
        self.app.nodes().queue().signal();
        for note in notes {
            self.events.note(note).await;
        }
        reboot_nodes(self.app, nodes, false, &Cause::user(self.caller.as_str(), why), self.events).await
    }
}

/// What changes with the owner of nodes.
#[derive(Default)]
struct Change<'a> {
    /// For how long the caller wants them; absent if a lease that the caller has stays as it is.
    terms: Option<&'a Terms>,
    /// The place in the queue that ends.
    place: Option<Place>,
}
