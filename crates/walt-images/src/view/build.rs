//! Merging layers into one tree, and numbering it.

use super::{DIR_SIZE, Index, Record};
use crate::{
    error::{Context, Error, Result},
    layer::{
        disk::Root,
        implied::read_implied,
        scan::{Attributes, Kind, Node, scan},
    },
    store::Store,
};
use std::collections::{BTreeMap, HashMap};
use walt_types::DiffId;

/// A node of the tree being merged.
struct Merged {
    node: Node,
    layer: u32,
    /// Whether this is an implied directory, whose metadata comes from below.
    parent: usize,
    children: BTreeMap<Vec<u8>, usize>,
    number: Option<u32>,
    visible: bool,
}

/// Merges `layers` and `platform` and numbers what they show.
pub(super) fn build(store: &Store, layers: &[DiffId], platform: Option<&DiffId>) -> Result<Index> {
    let mut tree: Vec<Merged> = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        apply(store, &mut tree, layer, i as u32)?;
    }
    let mut order = Vec::new();
    number(&mut tree, &mut order)?;
    if let Some(platform) = platform {
        apply(store, &mut tree, platform, layers.len() as u32)?;
        number(&mut tree, &mut order)?;
    }
    if tree.is_empty() {
        return Err(Error::Layer("an image needs at least one layer".into()));
    }
    let layers = layers.iter().chain(platform).copied().collect();
    index(tree, &order, layers, platform.is_some())
}

/// Puts one layer over the tree.
fn apply(store: &Store, tree: &mut Vec<Merged>, layer: &DiffId, position: u32) -> Result<()> {
    if !store.has_layer(layer) {
        return Err(Error::Missing { kind: "layer", id: layer.to_string() });
    }
    let fs_dir = store.layer_fs(layer);
    let root = Root::open(&fs_dir).on("open", &fs_dir)?;
    let implied = read_implied(&store.layer_dir(layer))?;
    // Position in the merged tree of each node of this layer.
    let mut places = Vec::new();
    for node in scan(&root, Attributes::Opaque)? {
        if node.path.is_empty() {
            match tree.first_mut() {
                None => tree.push(Merged::new(node, position, 0)),
                Some(top) if !implied.contains(b"".as_slice()) => (top.node, top.layer) = (node, position),
                Some(_) => {}
            }
            places.push(0);
            continue;
        }
        let parent = places[node.parent];
        let existing = tree[parent].children.get(node.name()).copied();
        match (node.kind, existing) {
            (Kind::Whiteout, _) => {
                tree[parent].children.remove(node.name());
                places.push(parent);
            }
            (Kind::Socket, _) => places.push(parent),
            (Kind::Dir, Some(old)) if tree[old].node.kind == Kind::Dir => {
                if node.opaque {
                    tree[old].children.clear();
                }
                if !implied.contains(&node.path) {
                    tree[old].node = node;
                    tree[old].layer = position;
                }
                places.push(old);
            }
            _ => {
                let name = node.name().to_vec();
                let new = tree.len();
                tree.push(Merged::new(node, position, parent));
                tree[parent].children.insert(name, new);
                places.push(new);
            }
        }
    }
    Ok(())
}

impl Merged {
    fn new(node: Node, layer: u32, parent: usize) -> Self {
        Self { node, layer, parent, children: BTreeMap::new(), number: None, visible: false }
    }
}

/// Marks visible nodes, and numbers those without a number in the order of a walk.
fn number(tree: &mut [Merged], order: &mut Vec<usize>) -> Result<()> {
    for node in tree.iter_mut() {
        node.visible = false;
    }
    let mut pending = if tree.is_empty() { Vec::new() } else { vec![0] };
    while let Some(at) = pending.pop() {
        tree[at].visible = true;
        if tree[at].number.is_none() {
            let number = u32::try_from(order.len()).ok().filter(|n| *n < u32::MAX);
            tree[at].number =
                Some(number.ok_or_else(|| Error::Layer("the image has too many files".into()))?);
            order.push(at);
        }
        pending.extend(tree[at].children.values().rev());
    }
    Ok(())
}

fn index(tree: Vec<Merged>, order: &[usize], layers: Vec<DiffId>, platform: bool) -> Result<Index> {
    let too_long = || Error::Layer("the image's file names are longer than 4 GiB together".into());
    let mut text = Vec::new();
    let mut add = |bytes: &[u8]| -> Result<(u32, u32)> {
        let start = u32::try_from(text.len()).map_err(|_| too_long())?;
        text.extend_from_slice(bytes);
        u32::try_from(text.len()).map_err(|_| too_long())?;
        Ok((start, bytes.len() as u32))
    };
    // Objects by layer and inode: first number, names, and names that are visible. The link count on disk is only a
    // hint, since other layers may have names of the same file (see `squash`).
    let mut groups: HashMap<(u32, u64), (u32, u32, u32)> = HashMap::new();
    for (number, at) in order.iter().enumerate() {
        let merged = &tree[*at];
        if merged.node.kind != Kind::Dir && merged.node.nlink > 1 {
            let group = groups.entry((merged.layer, merged.node.ino)).or_insert((number as u32, 0, 0));
            group.1 += 1;
            group.2 += u32::from(merged.visible);
        }
    }
    // Every node in `order` has its number, and so have the visible children of visible nodes.
    let number_of = |at: usize| tree[at].number.unwrap_or_default();
    let mut records = Vec::with_capacity(order.len());
    let mut children = Vec::new();
    for (number, at) in order.iter().enumerate() {
        let merged = &tree[*at];
        let node = &merged.node;
        let start = children.len() as u32;
        let mut subdirs = 0;
        if merged.visible && node.kind == Kind::Dir {
            for child in merged.children.values() {
                subdirs += u32::from(tree[*child].node.kind == Kind::Dir);
                children.push(number_of(*child));
            }
        }
        let (fileid, nlink) = match groups.get(&(merged.layer, node.ino)) {
            _ if node.kind == Kind::Dir => (number as u32, 2 + subdirs),
            Some((first, names, visible)) if *names > 1 => (*first, *visible),
            _ => (number as u32, 1),
        };
        let size = match node.kind {
            Kind::Dir => DIR_SIZE,
            Kind::Symlink => node.target.len() as u64,
            _ => node.size,
        };
        records.push(Record {
            kind: node.kind,
            visible: merged.visible,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size,
            mtime: node.mtime,
            rdev: if matches!(node.kind, Kind::Char | Kind::Block) { node.rdev } else { (0, 0) },
            nlink,
            fileid,
            parent: number_of(merged.parent),
            layer: merged.layer,
            name: add(node.name())?,
            target: add(&node.target)?,
            children: (start, children.len() as u32 - start),
        });
    }
    Ok(Index { layers, platform, records, children, text })
}
