//! Candidates that the server knows.

use super::{
    fixed::is_remote,
    kinds::{Kind, Members, Nodes},
    paths::entry_of,
    place::Place,
    reply::Candidate,
    server::Server,
};
use crate::ui::table::own_name;
use std::collections::{BTreeMap, BTreeSet};
use walt_api::{
    DeviceList, ImageList, Info, LinkState, NodeList, RegistryList,
    boots::BootList,
    logs::Checkpoint,
    names::{FileNames, SettingInfo, typed},
    route, transfer,
    versions::ImageHistory,
};
use walt_client::query;
use walt_types::{
    DeviceType, PLATFORM_USER,
    node_set::{self, Candidate as SetCandidate},
};

/// Whether the server is asked for a place.
pub fn needs_server(place: &Place) -> bool {
    match place.kind {
        Kind::Free | Kind::Words(_) | Kind::Topic | Kind::LinkChange | Kind::Directory => false,
        // A path of this machine.
        Kind::ImageCopy | Kind::NodeCopy => {
            !place.partial.starts_with(b"/") && !place.partial.starts_with(b".")
        }
        _ => true,
    }
}

/// What may stand at a place; `None` if the server does not answer.
pub async fn candidates(place: &Place, mut server: Server) -> Option<Vec<Candidate>> {
    let server = &mut server;
    match place.kind {
        Kind::Node(which) => nodes(server, which).await,
        Kind::Set(Members::Nodes) => Some(place.items(named(&nodes(server, Nodes::All).await?))),
        Kind::Set(_) => Some(place.items(named(&devices(server, |_| true).await?))),
        Kind::Device => devices(server, |_| true).await,
        Kind::OtherDevice => devices(server, |t| t != DeviceType::Node).await,
        Kind::Forgotten => {
            let list: DeviceList = server.ask(route::DEVICES).await?;
            Some(
                list.trash
                    .iter()
                    .map(|n| Candidate::word(n.name.as_str(), format!("forgotten {}", n.forgotten)))
                    .collect(),
            )
        }
        Kind::Image | Kind::ImageOrDefault => images(server).await,
        Kind::ImageVersion => image_versions(place, server).await,
        Kind::CloneLink => clone_links(place, server).await,
        Kind::Registry => {
            let list: RegistryList = server.ask(route::REGISTRIES).await?;
            Some(list.registries.into_iter().map(|r| Candidate::word(r.label, r.description)).collect())
        }
        Kind::ImageOwner => {
            let (user, list) = own_and_all(server).await?;
            let owners: BTreeSet<String> = list.images.into_iter().map(|i| i.user).collect();
            Some(
                owners
                    .into_iter()
                    .filter(|o| *o != user && o != PLATFORM_USER)
                    .map(|o| Candidate::word(o, ""))
                    .collect(),
            )
        }
        Kind::EarlierVersion => {
            let history = history(server, place.before.first()?).await?;
            let earlier = history.versions.iter().filter(|v| !v.current);
            Some(earlier.map(|v| Candidate::word(v.version.to_string(), made(v))).collect())
        }
        Kind::Boot => {
            let path = format!("{}?node={}", route::NODE_BOOTS, query(place.before.first()?));
            let list: BootList = server.ask(&path).await?;
            let boots = list.boots.iter().rev();
            Some(
                boots
                    .map(|b| Candidate::word(b.number.to_string(), format!("{}, {}", b.started, b.outcome)))
                    .collect(),
            )
        }
        Kind::Checkpoint => {
            let list: Vec<Checkpoint> = server.ask(route::CHECKPOINTS).await?;
            Some(list.into_iter().map(|c| Candidate::word(c.name, c.date)).collect())
        }
        Kind::History => ranges(place, server).await,
        Kind::Setting => settings(place, server).await,
        Kind::Network => {
            let path = format!("{}?nodes={}", route::LINKS, query(place.before.first()?));
            let links: Vec<LinkState> = server.ask(&path).await?;
            Some(
                links
                    .into_iter()
                    .map(|l| Candidate::word(l.network, l.applied.unwrap_or_default()))
                    .collect(),
            )
        }
        Kind::ImageCopy | Kind::NodeCopy => copy(place, server).await,
        Kind::Free | Kind::Words(_) | Kind::Topic | Kind::LinkChange | Kind::Directory => None,
    }
}

/// Names and descriptions of candidates, as items of a set.
fn named(candidates: &[Candidate]) -> Vec<(&str, String)> {
    // Invariant: names of devices are ASCII.
    candidates.iter().map(|c| (std::str::from_utf8(&c.value).unwrap_or_default(), c.help.clone())).collect()
}

async fn nodes(server: &mut Server, which: Nodes) -> Option<Vec<Candidate>> {
    let list: NodeList = server.ask(route::NODES).await?;
    let wanted = |is_virtual: bool| match which {
        Nodes::All => true,
        Nodes::Virtual => is_virtual,
        Nodes::Physical => !is_virtual,
    };
    let nodes = list.nodes.into_iter().filter(|n| wanted(n.is_virtual));
    Some(nodes.map(|n| Candidate::word(n.name, format!("{}, booted: {}", n.image, n.booted_text))).collect())
}

async fn devices(server: &mut Server, wanted: impl Fn(DeviceType) -> bool) -> Option<Vec<Candidate>> {
    let list: DeviceList = server.ask(route::DEVICES).await?;
    let devices = list.devices.into_iter().filter(|d| wanted(d.device_type));
    Some(
        devices
            .map(|d| Candidate::word(d.name, format!("{} {}", d.device_type, d.ip.unwrap_or_default())))
            .collect(),
    )
}

/// The user's name, and the images of all users.
async fn own_and_all(server: &mut Server) -> Option<(String, ImageList)> {
    let info: Info = server.ask(route::INFO).await?;
    Some((info.user.to_string(), server.ask(route::IMAGES).await?))
}

async fn images(server: &mut Server) -> Option<Vec<Candidate>> {
    let (user, list) = own_and_all(server).await?;
    let own = list.images.iter().filter(|i| i.user == user);
    Some(own.map(|i| Candidate::word(own_name(&i.fullname), i.compatibility.join(","))).collect())
}

async fn history(server: &mut Server, image: &str) -> Option<ImageHistory> {
    server.ask(&format!("{}?image={}", route::IMAGE_HISTORY, query(image))).await
}

fn made(version: &walt_api::versions::ImageVersion) -> String {
    format!("{} {}", version.since, version.command)
}

async fn image_versions(place: &Place, server: &mut Server) -> Option<Vec<Candidate>> {
    let text = std::str::from_utf8(&place.partial).ok()?;
    if let Some((name, _)) = text.rsplit_once('@') {
        let history = history(server, name).await?;
        let version =
            |v: &walt_api::versions::ImageVersion| Candidate::word(format!("{name}@{}", v.version), made(v));
        return Some(history.versions.iter().map(version).collect());
    }
    let (user, list) = own_and_all(server).await?;
    let of_others = text.contains('/');
    let name = |i: &walt_api::Image| match i.user == user && !of_others {
        true => Some(own_name(&i.fullname).to_owned()),
        false => (of_others || i.user != user).then(|| i.fullname.clone()),
    };
    Some(list.images.iter().filter_map(name).map(|name| Candidate::word(name, "")).collect())
}

async fn clone_links(place: &Place, server: &mut Server) -> Option<Vec<Candidate>> {
    if !place.partial.starts_with(b"walt:") {
        let list: RegistryList = server.ask(route::REGISTRIES).await?;
        return Some(
            list.registries
                .into_iter()
                .map(|r| Candidate::open(format!("{}:", r.label), r.description))
                .collect(),
        );
    }
    let (user, list) = own_and_all(server).await?;
    let others = list.images.iter().filter(|i| i.user != user);
    let link = |i: &walt_api::Image| format!("walt:{}/{}", i.user, own_name(&i.fullname));
    Some(others.map(|i| Candidate::word(link(i), i.compatibility.join(","))).collect())
}

/// Ranges of history from and to checkpoints.
async fn ranges(place: &Place, server: &mut Server) -> Option<Vec<Candidate>> {
    let list: Vec<Checkpoint> = server.ask(route::CHECKPOINTS).await?;
    let start = place.partial.iter().position(|b| *b == b':').map(|at| &place.partial[..=at]);
    let of = |c: Checkpoint| match start {
        Some(start) => Candidate::word(c.name, c.date).behind(start),
        None => Candidate::open(format!("{}:", c.name), c.date),
    };
    Some(list.into_iter().map(of).collect())
}

/// A member of the set whose settings are changed.
struct Member {
    name: String,
    owner: String,
    device_type: DeviceType,
    config: BTreeMap<String, serde_json::Value>,
}

impl node_set::Candidate for Member {
    fn name(&self) -> &str {
        &self.name
    }
    fn owner(&self) -> &str {
        &self.owner
    }
}

impl node_set::Device for Member {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }
    fn is_explorable(&self) -> bool {
        self.config.get("lldp.explore") == Some(&serde_json::Value::Bool(true))
    }
}

/// `key=` of the settings that all members of the set have, and values of a key.
async fn settings(place: &Place, server: &mut Server) -> Option<Vec<Candidate>> {
    if let Some(key) = place.key() {
        if key == "type" {
            return Some(vec![Candidate { hidden: 5, ..Candidate::word("type=switch", "") }]);
        }
        let table: Vec<SettingInfo> = server.ask(route::SETTINGS).await?;
        let setting = table.iter().find(|s| s.key == key)?;
        let value = |v: &String| Candidate {
            hidden: key.len() + 1,
            ..Candidate::word(format!("{key}={v}"), if *v == setting.default { "the default" } else { "" })
        };
        return Some(setting.values.iter().map(value).collect());
    }
    let (set, earlier) = place.before.split_first()?;
    let members = members(server, set).await?;
    let (first, rest) = members.split_first()?;
    let mut keys: Vec<(String, String)> = first
        .config
        .iter()
        .filter(|(key, _)| rest.iter().all(|member| member.config.contains_key(*key)))
        .map(|(key, value)| {
            (key.clone(), shown(value, rest.iter().all(|m| m.config.get(key) == Some(value))))
        })
        .collect();
    if members.iter().all(|member| member.device_type == DeviceType::Unknown) {
        keys.push(("type".into(), "what the device is".into()));
    }
    keys.retain(|(key, _)| !earlier.iter().any(|word| word.split('=').next() == Some(key)));
    Some(keys.into_iter().map(|(key, help)| Candidate::open(format!("{key}="), help)).collect())
}

fn shown(value: &serde_json::Value, is_same: bool) -> String {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "none".to_owned(),
        other => other.to_string(),
    };
    if is_same { format!("now {text}") } else { "now different values".to_owned() }
}

async fn members(server: &mut Server, set: &str) -> Option<Vec<Member>> {
    let info: Info = server.ask(route::INFO).await?;
    let nodes: NodeList = server.ask(route::NODES).await?;
    let mut owners: BTreeMap<String, String> = nodes.nodes.into_iter().map(|n| (n.name, n.owner)).collect();
    let list: DeviceList = server.ask(route::DEVICES).await?;
    let devices = list.devices.into_iter().map(|d| Member {
        owner: owners.remove(&d.name).unwrap_or_default(),
        name: d.name,
        device_type: d.device_type,
        config: d.config,
    });
    let mut devices: Vec<Option<Member>> = devices.map(Some).collect();
    let borrowed: Vec<&Member> = devices.iter().flatten().collect();
    let members = node_set::resolve_devices(set, &borrowed, &info.user).ok()?;
    Some(members.into_iter().filter_map(|i| devices[i].take()).collect())
}

impl node_set::Candidate for &Member {
    fn name(&self) -> &str {
        SetCandidate::name(*self)
    }
    fn owner(&self) -> &str {
        SetCandidate::owner(*self)
    }
}

impl node_set::Device for &Member {
    fn device_type(&self) -> DeviceType {
        node_set::Device::device_type(*self)
    }
    fn is_explorable(&self) -> bool {
        node_set::Device::is_explorable(*self)
    }
}

/// A side of a copy: `<entity>:`, then paths there.
async fn copy(place: &Place, server: &mut Server) -> Option<Vec<Candidate>> {
    // One side is remote only.
    if place.before.first().is_some_and(|source| is_remote(source)) {
        return None;
    }
    let is_node = place.kind == Kind::NodeCopy;
    let colon = place.partial.iter().rposition(|b| *b == b':');
    let mut found = Vec::new();
    if colon.is_none() || !is_node {
        let entities = if is_node { nodes(server, Nodes::All).await? } else { images(server).await? };
        found.extend(entities.into_iter().map(|mut entity| {
            entity.value.push(b':');
            Candidate { open: true, ..entity }
        }));
    }
    let Some(colon) = colon else { return Some(found) };
    let (start, path) = place.partial.split_at(colon + 1);
    let entity = std::str::from_utf8(&start[..colon]).ok()?;
    let text = transfer::Path(path.to_vec()).text();
    let question = match is_node {
        true => format!("{}?node={}&path={}", route::NODE_FILES, query(entity), query(&text)),
        false => format!("{}?image={}&path={}", route::IMAGE_FILES, query(entity), query(&text)),
    };
    if let Some(files) = server.ask::<FileNames>(&question).await {
        let (directory, beginning) = typed(path);
        let hides = |name: &[u8]| name.starts_with(b".") && !beginning.starts_with(b".");
        let files = files.names.iter().filter(|f| !hides(&f.name.0));
        found.extend(files.map(|f| entry_of(directory, &f.name.0, f.directory).behind(start)));
    }
    Some(found)
}
