//! What users ask of nodes: create, remove, rename, boot, acquire, release, reboot, wait, config.
//!
//! Every change is decided and made with a [`Decision`] and in one transaction, so that what a user confirmed is what
//! happens.

use crate::actions::reboot::{reboot_nodes, wait_booted};
use crate::base::state::Decision;
use crate::{
    actions::app::App,
    actions::publish_ref::Target,
    base::{
        db::{LeaseRow, NodeRow},
        events::Events,
        failure::{Failure, Outcome, bad_request, not_found, refused, refused_hint},
    },
    services::images,
};
use crate::{
    actions::node_save::{self, Save},
    services::nodes::vnode,
};
use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};
use walt_api::NodeAction;
use walt_core::{
    NodeFacts,
    ownership::{self, Demand, Verdict},
    sentences, settings,
};
use walt_types::node_set::{self, SetError};
use walt_types::{ImageName, ImageRef, Mac, Model, NodeName, UserName};

/// Model of virtual nodes.
const VIRTUAL_MODEL: &str = "pc-x86-64";
/// First three bytes of the boot addresses of virtual nodes (QEMU's).
const VIRTUAL_OUI: [u8; 3] = [0x52, 0x54, 0x00];
/// Attempts to find a boot address that is not taken.
const MAC_ATTEMPTS: usize = 64;
/// Memory in MiB that qemu needs besides the guest's own, under emulation.
const QEMU_OVERHEAD_MIB: u64 = 200;

/// Carries out an action; false if not all of it was done (events have said why).
pub async fn act(
    app: &Arc<App>,
    caller: &UserName,
    action: NodeAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let request = Request { app, caller, confirm: confirm.as_deref(), events };
    match action {
        NodeAction::Create { name, image, force } => request.create(&name, image.as_deref(), force).await,
        NodeAction::Remove { name } => request.remove(&name).await,
        NodeAction::Rename { name, new_name } => request.rename(&name, &new_name).await,
        NodeAction::Boot { nodes, image } => request.boot(&nodes, &image).await,
        NodeAction::Acquire { nodes } => request.acquire(&nodes).await,
        NodeAction::Release { nodes } => request.release(&nodes).await,
        NodeAction::Reboot { nodes, hard } => request.reboot(&nodes, hard).await,
        NodeAction::Wait { nodes, timeout } => request.wait(&nodes, timeout).await,
        NodeAction::Save { node, image, dry_run } => request.save(&node, &image, dry_run).await,
        NodeAction::Config { nodes, settings } => request.config(&nodes, &settings).await,
    }
}

/// One node, after the question whether the caller may do `operation` with it; a token agrees to one
/// operation only.
pub fn ownership_of_one(
    app: &App,
    caller: &UserName,
    node: &str,
    demand: Demand,
    operation: &str,
    confirm: Option<&str>,
) -> Outcome<NodeRow> {
    let rows = app.db().with(NodeRow::all)?;
    let facts = facts_of(&rows);
    let index = node_set::resolve_one(node, &facts, caller).map_err(set_error)?;
    check_ownership(app, caller, demand, &[&rows[index]], operation, confirm)?;
    // Invariant: `index` comes from a set over these rows.
    Ok(rows.into_iter().nth(index).expect("resolved index"))
}

fn facts_of(rows: &[NodeRow]) -> Vec<NodeFacts> {
    rows.iter().map(|r| r.facts.clone()).collect()
}

fn set_error(error: SetError) -> Failure {
    match error {
        SetError::Unknown(_) | SetError::Empty => match error.hint() {
            Some(hint) => not_found(&error).hint(hint),
            None => not_found(&error),
        },
        SetError::NotOne | SetError::TooLong => bad_request(error),
    }
}

/// The question about nodes of somebody else, if one is to be asked.
fn ownership_warning(demand: Demand, nodes: &[&NodeRow], caller: &UserName) -> Outcome<Option<String>> {
    let facts: Vec<&NodeFacts> = nodes.iter().map(|r| &r.facts).collect();
    match ownership::check(demand, &facts, caller) {
        Verdict::Allowed => Ok(None),
        Verdict::Refused { message, hint } => Err(refused_hint(message, hint)),
        Verdict::Ask(warning) => Ok(Some(warning)),
    }
}

fn check_ownership(
    app: &App,
    caller: &UserName,
    demand: Demand,
    nodes: &[&NodeRow],
    operation: &str,
    confirm: Option<&str>,
) -> Outcome<()> {
    let warnings: Vec<String> = ownership_warning(demand, nodes, caller)?.into_iter().collect();
    let state: Vec<String> = nodes.iter().map(|r| format!("{}={}", r.mac, r.facts.image.full())).collect();
    app.confirmed(caller, operation, &state.join(" "), confirm, warnings)
}

struct Request<'a> {
    app: &'a Arc<App>,
    caller: &'a UserName,
    confirm: Option<&'a str>,
    events: &'a Events,
}

impl Request<'_> {
    /// Resolves a set and applies the ownership rule.
    fn nodes(
        &self,
        set: &str,
        demand: Demand,
        operation: &str,
        _decision: &Decision<'_>,
    ) -> Outcome<Vec<NodeRow>> {
        let chosen = self.members(set)?;
        let nodes: Vec<&NodeRow> = chosen.iter().collect();
        check_ownership(self.app, self.caller, demand, &nodes, operation, self.confirm)?;
        Ok(chosen)
    }

    /// Resolves a set, for what may be done with every node.
    fn members(&self, set: &str) -> Outcome<Vec<NodeRow>> {
        let rows = self.app.db().with(NodeRow::all)?;
        let members = node_set::resolve(set, &facts_of(&rows), self.caller).map_err(set_error)?;
        Ok(members.into_iter().map(|i| rows[i].clone()).collect())
    }

    async fn create(&self, name: &str, image: Option<&str>, force: bool) -> Outcome<bool> {
        let name: NodeName = name.parse().map_err(|e| bad_request(format!("{e}.")))?;
        let model: Model = VIRTUAL_MODEL.parse().map_err(bad_request)?;
        vnode::check_programs()?;
        let decision = self.app.base().decide().await;
        self.name_is_free(&name, &decision)?;
        let image = match image {
            Some(image) => {
                let reference = images::own_reference(self.caller, image)?;
                self.compatible(&reference, std::slice::from_ref(&model))?;
                reference
            }
            None => {
                for note in self.app.images().first_images(self.caller, &decision)? {
                    self.events.note(note).await;
                }
                self.app.images().own_default(self.caller, &model, &decision)?
            }
        };
        if !force {
            self.memory_suffices()?;
        }
        let node = self.new_row(name.clone(), model, image.clone())?;
        self.app.nodes().add(&node, &decision)?;
        self.events.out(format!("Node {name} is now booting your image \"{}\".", image.image())).await;
        self.events.note(format!("Tip: 'walt node boot {name} <image>' makes it boot another image.")).await;
        Ok(true)
    }

    fn name_is_free(&self, name: &NodeName, _decision: &Decision<'_>) -> Outcome<()> {
        match self.app.db().with(|c| NodeRow::by_name(c, name.as_str()))? {
            None => Ok(()),
            Some(_) => Err(refused(format!("Failed: a device with name '{name}' already exists."))),
        }
    }

    fn memory_suffices(&self) -> Outcome<()> {
        let (rows, stored) = self.app.db().with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
        let need = |settings: Option<&BTreeMap<String, String>>| {
            let effective = settings::effective(settings.unwrap_or(&BTreeMap::new()), true);
            effective.get("ram").and_then(|v| settings::ram_mib(v)).unwrap_or(0) + QEMU_OVERHEAD_MIB
        };
        // Those that run have taken their part of what is available already.
        let starting: u64 = rows
            .iter()
            .filter(|r| r.facts.is_virtual && r.life.started.is_none())
            .map(|r| need(stored.get(&r.mac)))
            .sum();
        let (wanted, available) = (starting + need(None), available_mib()?);
        if wanted > available {
            return Err(refused_hint(
                format!("the server has {available} MiB of memory left, and the new node needs {wanted} MiB"),
                "remove a virtual node ('walt node remove'), or lower the setting 'ram' of others",
            ));
        }
        Ok(())
    }

    fn new_row(&self, name: NodeName, model: Model, image: ImageRef) -> Outcome<NodeRow> {
        let (rows, leases) = self.app.db().with(|c| Ok((NodeRow::all(c)?, LeaseRow::all(c)?)))?;
        let net = self.app.config().network.walt_net.ip;
        let now = crate::base::time::now() as u64;
        let leased: HashSet<Ipv4Addr> = leases.iter().filter(|l| l.ends > now).map(|l| l.ip).collect();
        let ip = net
            .stations()
            .find(|ip| rows.iter().all(|r| r.ip != *ip) && !leased.contains(ip))
            .ok_or_else(|| refused(format!("no address is left in {}", net.network_text())))?;
        let [a, b, c] = VIRTUAL_OUI;
        for _ in 0..MAC_ATTEMPTS {
            let [d, e, f] = crate::base::random::random::<3>();
            let mac = Mac([a, b, c, d, e, f]);
            if rows.iter().all(|r| r.mac != mac) {
                let facts = NodeFacts { name, model, image, is_virtual: true };
                let life = walt_core::life::Life::default();
                return Ok(NodeRow { mac, facts, ip, uuid: crate::base::random::random_uuid(), life });
            }
        }
        Err(refused("no free Ethernet address was found: try again"))
    }

    async fn remove(&self, name: &str) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let operation = format!("remove {name}");
        let node =
            ownership_of_one(self.app, self.caller, name, Demand::OwnedOrFree, &operation, self.confirm)?;
        if !node.facts.is_virtual {
            return Err(refused(format!("FAILED: {} is a real node (not virtual).", node.facts.name)));
        }
        self.app.nodes().forget(&node, &decision).await?;
        Ok(true)
    }

    async fn rename(&self, name: &str, new_name: &str) -> Outcome<bool> {
        let new_name: NodeName = new_name.parse().map_err(|e| bad_request(format!("{e}.")))?;
        let decision = self.app.base().decide().await;
        let operation = format!("rename {name} {new_name}");
        let node =
            ownership_of_one(self.app, self.caller, name, Demand::OwnedOrFree, &operation, self.confirm)?;
        let only_case = node.facts.name.as_str().eq_ignore_ascii_case(new_name.as_str());
        if !only_case {
            self.name_is_free(&new_name, &decision)?;
        }
        self.app.db().with(|c| NodeRow::set_name(c, node.mac, &new_name))?;
        self.app.nodes().hub().signal();
        Ok(true)
    }

    fn compatible(&self, image: &ImageRef, models: &[Model]) -> Outcome<()> {
        let supported = self.app.images().models(image)?;
        let missing: Vec<&str> =
            models.iter().filter(|m| !supported.contains(m)).map(Model::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut missing = missing;
        missing.sort_unstable();
        missing.dedup();
        Err(refused(format!(
            "Sorry, this image is not compatible with node model(s) {}.",
            missing.join(", ")
        )))
    }

    async fn boot(&self, set: &str, image: &str) -> Outcome<bool> {
        if image == "default" {
            let decision = self.app.base().decide().await;
            let nodes = self.nodes(set, Demand::OwnedOrFree, &format!("boot {set} {image}"), &decision)?;
            return self.boot_default(decision, nodes).await;
        }
        let name: ImageName = image.parse().map_err(|e| bad_request(format!("{e}.")))?;
        let decision = self.app.base().decide().await;
        for note in self.app.images().first_images(self.caller, &decision)? {
            self.events.note(note).await;
        }
        let reference = ImageRef::of(self.caller, name);
        self.app.images().find(&reference)?;
        let nodes = self.nodes(set, Demand::OwnedOrFree, &format!("boot {set} {image}"), &decision)?;
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
        self.associate(decision, nodes, |_| reference.clone()).await
    }

    async fn boot_default(&self, decision: Decision<'_>, nodes: Vec<NodeRow>) -> Outcome<bool> {
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
        self.associate(decision, nodes, |n| walt_core::default_image_of(&n.facts.model)).await
    }

    async fn acquire(&self, set: &str) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::FreeOrNotOwned, &format!("acquire {set}"), &decision)?;
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
        self.associate(decision, nodes, |n| own[&n.facts.model].clone()).await
    }

    async fn release(&self, set: &str) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::Owned, &format!("release {set}"), &decision)?;
        self.boot_default(decision, nodes).await
    }

    /// Changes the image of nodes in one transaction, then reboots them.
    async fn associate(
        &self,
        decision: Decision<'_>,
        nodes: Vec<NodeRow>,
        image: impl Fn(&NodeRow) -> ImageRef,
    ) -> Outcome<bool> {
        self.app.db().transaction(|tx| -> anyhow::Result<()> {
            for node in &nodes {
                NodeRow::set_image(tx, node.mac, &image(node))?;
            }
            Ok(())
        })?;
        drop(decision);
        reboot_nodes(self.app, nodes, false, self.events).await
    }

    async fn reboot(&self, set: &str, hard: bool) -> Outcome<bool> {
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(set, Demand::OwnedOrFree, &format!("reboot {set}"), &decision)?;
        drop(decision);
        reboot_nodes(self.app, nodes, hard, self.events).await
    }

    async fn wait(&self, set: &str, timeout: Option<u64>) -> Outcome<bool> {
        let nodes = self.members(set)?;
        let macs: Vec<Mac> = nodes.iter().map(|n| n.mac).collect();
        let waiting = wait_booted(self.app, &macs, Some(self.events));
        let times = match timeout {
            None => waiting.await?,
            Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), waiting).await {
                Ok(times) => times?,
                Err(_) => {
                    self.events.note("Timeout was reached.").await;
                    return Ok(false);
                }
            },
        };
        for (name, seconds) in times {
            self.events.out(format!("Node {name}: booted in {seconds:.1} s.")).await;
        }
        Ok(true)
    }

    async fn save(&self, node: &str, image: &str, dry_run: bool) -> Outcome<bool> {
        let save = {
            let decision = self.app.base().decide().await;
            let rows = self.app.db().with(NodeRow::all)?;
            let index = node_set::resolve_one(node, &facts_of(&rows), self.caller).map_err(set_error)?;
            let row = rows[index].clone();
            let target = Target::plan(self.app, self.caller, image, &decision)?;
            // One question for both: the node of somebody else, and the image that is overwritten.
            let ownership = ownership_warning(Demand::OwnedOrFree, &[&row], self.caller)?;
            let mut warnings: Vec<String> = ownership.into_iter().collect();
            if target.present.is_some() && !dry_run {
                warnings.push(crate::actions::publish_ref::overwrite_warning(target.users.len()));
            }
            let present = target.present.as_ref().map(|p| p.image_id.to_string()).unwrap_or_default();
            let facts = format!("{} {} {present}", row.mac, row.facts.image.full());
            let operation = format!("save {node} {image}");
            self.app.confirmed(self.caller, &operation, &facts, self.confirm, warnings)?;
            Save { node: row, target, dry_run }
        };
        node_save::save(self.app, self.caller, save, self.events).await
    }

    async fn config(&self, set: &str, assignments: &[String]) -> Outcome<bool> {
        if assignments.is_empty() {
            return self.show_config(set).await;
        }
        let decision = self.app.base().decide().await;
        let nodes = self.nodes(
            set,
            Demand::OwnedOrFree,
            &format!("config {set} {}", assignments.join(" ")),
            &decision,
        )?;
        let mut changes = Vec::new();
        for text in assignments {
            let (setting, value) = settings::parse(text).map_err(bad_request)?;
            if let Some(node) = nodes.iter().find(|n| !setting.physical && !n.facts.is_virtual) {
                let (key, node) = (setting.key.to_owned(), node.facts.name.to_string());
                return Err(bad_request(settings::SettingError::NotApplicable { key, node }));
            }
            changes.push((setting.key, value));
        }
        self.app.db().transaction(|tx| -> anyhow::Result<()> {
            for node in &nodes {
                for (key, value) in &changes {
                    NodeRow::set_setting(tx, node.mac, key, value)?;
                }
            }
            Ok(())
        })?;
        self.app.nodes().hub().signal();
        let at_once = changes.iter().all(|(key, _)| *key == "boot.timeout");
        let rest = if at_once { "" } else { " Reboot node(s) to see new settings in effect." };
        self.events.out(format!("Done.{rest}")).await;
        Ok(true)
    }

    async fn show_config(&self, set: &str) -> Outcome<bool> {
        let nodes = self.members(set)?;
        let stored = self.app.db().with(NodeRow::all_settings)?;
        let mut groups: BTreeMap<Vec<(&str, String)>, Vec<&str>> = BTreeMap::new();
        let none = BTreeMap::new();
        for node in &nodes {
            let settings = stored.get(&node.mac).unwrap_or(&none);
            let effective = settings::effective(settings, node.facts.is_virtual).into_iter().collect();
            groups.entry(effective).or_default().push(node.facts.name.as_str());
        }
        for (number, (config, names)) in groups.iter().enumerate() {
            if number > 0 {
                self.events.out("").await;
            }
            let have = sentences::verb(names.len(), "has", "have");
            self.events
                .out(format!("{} {have} the following config applied:", sentences::items("node", names)))
                .await;
            for (key, value) in config {
                self.events.out(format!("{key}={value}")).await;
            }
        }
        Ok(true)
    }
}

fn names_of<'a>(rows: &[&'a NodeRow]) -> Vec<&'a str> {
    rows.iter().map(|r| r.facts.name.as_str()).collect()
}

fn available_mib() -> anyhow::Result<u64> {
    use anyhow::Context;
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib: u64 = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|n| n.parse().ok())
        .context("/proc/meminfo has no MemAvailable")?;
    Ok(kib / 1024)
}
