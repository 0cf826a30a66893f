//! `walt node create`: virtual nodes.

use crate::{
    actions::node_actions::Request,
    base::{
        db::{LeaseRow, NodeRow},
        failure::{Outcome, bad_request, refused, refused_hint},
        random::random_uuid,
        time,
    },
    services::{images, nodes::vnode},
};
use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
};
use walt_core::{NodeFacts, settings};
use walt_types::{ImageRef, Mac, Model, NodeName};

/// Model of virtual nodes.
const VIRTUAL_MODEL: &str = "pc-x86-64";
/// First three bytes of the boot addresses of virtual nodes (QEMU's).
const VIRTUAL_OUI: [u8; 3] = [0x52, 0x54, 0x00];
/// Attempts to find a free boot address.
const MAC_ATTEMPTS: usize = 64;
/// Memory in MiB that qemu needs in addition to the guest's, under emulation.
const QEMU_OVERHEAD_MIB: u64 = 200;

impl Request<'_> {
    pub(super) async fn create(&self, name: &str, image: Option<&str>, force: bool) -> Outcome<bool> {
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
        self.events.note(format!("Tip: 'walt node boot {name} <image>' boots it with another image.")).await;
        Ok(true)
    }

    fn memory_suffices(&self) -> Outcome<()> {
        let (rows, stored) = self.app.db().with(|c| Ok((NodeRow::all(c)?, NodeRow::all_settings(c)?)))?;
        let need = |settings: Option<&BTreeMap<String, String>>| {
            let effective = settings::effective(settings.unwrap_or(&BTreeMap::new()), true);
            effective.get("ram").and_then(|v| settings::ram_mib(v)).unwrap_or(0) + QEMU_OVERHEAD_MIB
        };
        // Running nodes have already taken their memory from what is available.
        let starting: u64 = rows
            .iter()
            .filter(|r| r.facts.is_virtual && r.life.started.is_none())
            .map(|r| need(stored.get(&r.mac)))
            .sum();
        let (wanted, available) = (starting + need(None), available_mib()?);
        if wanted > available {
            return Err(refused_hint(
                format!("not enough memory on the server: {wanted} MiB needed, {available} MiB available"),
                "remove a virtual node ('walt node remove'), or lower the setting 'ram' of other nodes",
            ));
        }
        Ok(())
    }

    fn new_row(&self, name: NodeName, model: Model, image: ImageRef) -> Outcome<NodeRow> {
        let (rows, leases) = self.app.db().with(|c| Ok((NodeRow::all(c)?, LeaseRow::all(c)?)))?;
        let net = self.app.config().network.walt_net.ip;
        let now = time::now() as u64;
        let leased: HashSet<Ipv4Addr> = leases.iter().filter(|l| l.ends > now).map(|l| l.ip).collect();
        let ip = net
            .stations()
            .find(|ip| rows.iter().all(|r| r.ip != *ip) && !leased.contains(ip))
            .ok_or_else(|| refused(format!("no free address in {}", net.network_text())))?;
        let [a, b, c] = VIRTUAL_OUI;
        for _ in 0..MAC_ATTEMPTS {
            let [d, e, f] = crate::base::random::random::<3>();
            let mac = Mac([a, b, c, d, e, f]);
            if rows.iter().all(|r| r.mac != mac) {
                let facts = NodeFacts { name, model, image, is_virtual: true };
                let life = walt_core::life::Life::default();
                return Ok(NodeRow { mac, facts, ip, uuid: random_uuid(), life, lease: None });
            }
        }
        Err(refused("found no free Ethernet address; try again"))
    }
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
