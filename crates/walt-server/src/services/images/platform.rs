//! The platform layer: the files that the server adds to an image for nodes and shells.
//!
//! Node scripts, keys, hosts, resolv.conf, rendered templates. It is an ordinary layer, made from the image and from
//! the server's own inputs; the same inputs give the same layer. Symbolic links in paths of the image (`/bin` →
//! `usr/bin`) are followed; a dangling link is replaced by a directory.

use crate::{
    base::{db, fail_points},
    services::images::{Images, writers::Writing},
};
use anyhow::{Context, Result};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
};
use walt_images::{Attributed, Kind, NewEntry, NewKind, Omission, View};
use walt_types::{DiffId, ImageId};

/// The files for nodes: `node/` of the source tree.
static NODE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../node");

/// Incremented when the same inputs give another layer.
const RECIPE_VERSION: u32 = 2;
/// Largest file of an image that can be edited, in bytes.
const READ_MAX: u64 = 1 << 20;
/// Ports for templates; published images use these names.
const TEMPLATE_PORTS: [(&str, u16); 4] = [
    ("walt_server_rpc_port", 12345),
    ("walt_server_logs_port", 12347),
    ("walt_server_notify_bootup_port", 12347),
    ("walt_node_net_service_port", 12346),
];

/// Files for `walt-init`: a file system with the files of the image whose attributes NFS does not carry; a mark that
/// user attributes are among them; and lines for the console about files that had to be left out.
const ATTRIBUTED: &str = "/bin/_walt_internal_/attributed/files.ext4";
const OF_USERS: &str = "/bin/_walt_internal_/attributed/of-users";
const LEFT_BEHIND: &str = "/bin/_walt_internal_/attributed/left-behind";
/// Files named in such a line; the others are counted.
const LEFT_BEHIND_NAMES: usize = 5;

/// An image with its platform layer.
pub struct Platform {
    /// The layer.
    pub diff_id: DiffId,
    /// The merged tree.
    pub view: Arc<View>,
}

/// Path in the platform layer of a view of the file system with files that have attributes, if there is one.
pub fn attributed(view: &View) -> Option<Vec<u8>> {
    let number = view.resolve(ATTRIBUTED.trim_start_matches('/').as_bytes())?;
    view.from_platform(number).then(|| view.path(number))
}

/// The platform layer and view of an image, made if missing or if the server's inputs have changed.
pub async fn of(images: &Images, image: &ImageId) -> Result<Platform> {
    let writing = images.writing_now().await;
    db::blocking(|| make(images, image, &writing))
}

/// As [`of`], in a thread that may block.
///
/// # Errors
/// The image, the store or the database cannot be read or written.
pub fn make(images: &Images, image: &ImageId, _writing: &Writing<'_>) -> Result<Platform> {
    let inputs = inputs_digest(images);
    let layers = images.store().config(image)?.layers()?;
    if let Some((diff_id, view)) = images.db().with(|c| db::platform(c, image, &inputs))?
        && let Ok(view) = images.store().view_by_id(&view)
    {
        return Ok(Platform { diff_id, view });
    }
    let _housekeeping = images.housekeeping_on_drop();
    let base = images.store().view(&layers, None)?;
    let layer = images.store().build_layer(entries(images, image, &base)?, Some(&base))?;
    fail_points::point("platform-layer");
    let view = images.store().view(&layers, Some(&layer.diff_id))?;
    fail_points::point("platform-view");
    images.db().with(|c| db::put_platform(c, image, &inputs, &layer.diff_id, view.id()))?;
    Ok(Platform { diff_id: layer.diff_id, view })
}

fn server_mac(images: &Images) -> String {
    crate::services::network::bridge_mac(images.config()).to_string()
}

/// Digest of all inputs except the image.
fn inputs_digest(images: &Images) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&RECIPE_VERSION.to_le_bytes());
    for file in NODE.files() {
        part(file.path().as_os_str().as_encoded_bytes());
        part(file.contents());
    }
    for (cpu, program) in walt_log_tools::PROGRAMS {
        part(cpu.as_bytes());
        part(program);
    }
    part(&images.keys().host_private);
    part(images.keys().client_public.as_bytes());
    part(images.config().server_ip().to_string().as_bytes());
    part(server_mac(images).as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Template variables of `image.spec`.
fn variables(images: &Images, image: &ImageId) -> BTreeMap<&'static str, String> {
    let mut all = BTreeMap::from([
        ("server_ip", images.config().server_ip().to_string()),
        ("server_mac", server_mac(images)),
        ("walt_image_id", image.to_string()),
        // Only the disk cache of hybrid boot uses it, and gets the true size elsewhere.
        ("walt_image_size_kib", "0".into()),
    ]);
    all.extend(TEMPLATE_PORTS.map(|(name, port)| (name, port.to_string())));
    all
}

/// Replaces `%(name)s` for known names, and `%%` by `%`.
fn render(text: &str, variables: &BTreeMap<&'static str, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = rest
            .strip_prefix("%(")
            .and_then(|r| r.split_once(")s"))
            .and_then(|(name, after)| variables.get(name).map(|value| (value, after)));
        if let Some((value, after)) = known {
            out.push_str(value);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("%%") {
            out.push('%');
            rest = after;
        } else {
            out.push('%');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ImageSpec {
    templates: Vec<String>,
}

/// Collects the entries of the layer: files at their real paths, and the directories above them.
struct Builder<'a> {
    base: &'a View,
    entries: BTreeMap<Vec<u8>, NewEntry>,
}

impl Builder<'_> {
    /// The real directory of a path in the image, with links followed, and its last name.
    fn real(&mut self, path: &str) -> (Vec<u8>, Vec<u8>) {
        let mut dir: Vec<u8> = Vec::new();
        let mut names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        let last = names.pop().unwrap_or_default();
        for name in names {
            let mut next = dir.clone();
            if !next.is_empty() {
                next.push(b'/');
            }
            next.extend(name.as_bytes());
            match self.base.resolve(&next) {
                Some(n) if self.kind(n) == Some(Kind::Dir) => dir = self.base.path(n),
                // A missing entry, a file or a dangling link is replaced by a directory.
                _ => dir = next,
            }
            self.directory(&dir);
        }
        (dir, last.as_bytes().to_vec())
    }

    fn kind(&self, number: u32) -> Option<Kind> {
        self.base.entry(number).map(|e| e.kind)
    }

    /// Adds a directory with its metadata from the image.
    fn directory(&mut self, path: &[u8]) {
        if path.is_empty() || self.entries.contains_key(path) {
            return;
        }
        let found = self.base.find(path).and_then(|n| self.base.entry(n));
        let (mode, uid, gid) = match found {
            Some(e) if e.kind == Kind::Dir => (e.mode & 0o7777, e.uid, e.gid),
            _ => (0o755, 0, 0),
        };
        self.entries
            .insert(path.to_vec(), NewEntry { path: path.to_vec(), mode, uid, gid, kind: NewKind::Dir });
    }

    fn add(&mut self, path: &str, mode: u32, kind: NewKind) {
        let (mut at, name) = self.real(path);
        if !at.is_empty() {
            at.push(b'/');
        }
        at.extend(name);
        self.entries.insert(at.clone(), NewEntry { path: at, mode, uid: 0, gid: 0, kind });
    }

    fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.add(path, mode, NewKind::File(content.into()));
    }

    /// A regular file of the image, with links followed; none if it is missing, too large or not text.
    fn read(&self, path: &str) -> Option<(u32, String)> {
        let n = self.base.resolve(path.trim_start_matches('/').as_bytes())?;
        let entry = self.base.entry(n)?;
        if entry.kind != Kind::File || entry.size > READ_MAX {
            return None;
        }
        let mut text = String::new();
        self.base.open(n).ok()?.take(READ_MAX).read_to_string(&mut text).ok()?;
        Some((entry.mode & 0o7777, text))
    }
}

fn entries(images: &Images, image: &ImageId, base: &Arc<View>) -> Result<Vec<NewEntry>> {
    let mut layer = Builder { base, entries: BTreeMap::new() };
    for (source, target, mode) in manifest()? {
        let content =
            NODE.get_file(source).with_context(|| format!("node/{source} is not embedded"))?.contents();
        layer.file(target, mode, content);
    }
    // The scripts above do without it, with less, on nodes with another CPU.
    if let Some(program) = walt_log_tools::program(&images.store().config(image)?.architecture) {
        layer.file(walt_log_tools::PATH, 0o755, program);
    }
    let ip = images.config().server_ip();
    let variables = variables(images, image);
    layer.file("/etc/hosts", 0o644, HOSTS);
    layer.file("/etc/resolv.conf", 0o644, format!("domain walt\nsearch walt.\nnameserver {ip}\n"));
    layer.file("/etc/ssh/ssh_host_ecdsa_key", 0o600, images.keys().host_private.clone());
    layer.file("/etc/ssh/ssh_host_ecdsa_key.pub", 0o644, images.keys().host_public.clone());
    layer.file("/etc/dropbear/dropbear_ecdsa_host_key", 0o600, images.keys().host_dropbear.clone());
    let mut authorized = layer.read("/root/.ssh/authorized_keys").map(|(_, text)| text).unwrap_or_default();
    if !authorized.is_empty() && !authorized.ends_with('\n') {
        authorized.push('\n');
    }
    authorized.push_str(&images.keys().client_public);
    layer.file("/root/.ssh/authorized_keys", 0o600, authorized);
    if let Some(entry) = layer.entries.get_mut(b"root/.ssh".as_slice()) {
        // sshd refuses keys in a directory that is writable for others.
        entry.mode &= 0o755;
    }
    // The host name comes from the kernel's ip= argument; this file is a leftover of the image's build.
    if base.find(b"etc/hostname").is_some_and(|n| base.entry(n).is_some_and(|e| e.kind == Kind::File)) {
        layer.add("/etc/hostname", 0, NewKind::Whiteout);
    }
    let mut env = String::from("# Read by the scripts of WalT on this node; may be sourced by yours.\n");
    env.push_str(&format!("walt_server_ip={ip}\n"));
    for (name, port) in &TEMPLATE_PORTS[..3] {
        env.push_str(&format!("{name}={port}\n"));
    }
    env.push_str(&format!("walt_image_id={image}\nwalt_image_size_kib=0\n"));
    env.push_str("export walt_server_ip walt_server_rpc_port walt_server_logs_port\n");
    env.push_str("export walt_server_notify_bootup_port walt_image_id walt_image_size_kib\n");
    layer.file("/bin/walt-env", 0o755, env);
    if let Some((_, text)) = layer.read("/etc/walt/image.spec") {
        templates(&mut layer, &text, &variables);
    }
    // Last, since it depends on what the other entries replace.
    let attributed = Attributed::of(base, &layer.entries)?;
    let left_behind = left_behind(attributed.omitted());
    if !left_behind.is_empty() {
        tracing::warn!(%image, "{}", left_behind.trim_end());
        layer.file(LEFT_BEHIND, 0o644, left_behind);
    }
    if !attributed.is_empty() {
        if attributed.of_users() {
            layer.file(OF_USERS, 0o644, "");
        }
        // It may have files that not everybody may read.
        layer.add(ATTRIBUTED, 0o600, NewKind::Attributed(Arc::new(attributed)));
    }
    Ok(layer.entries.into_values().collect())
}

/// One line per reason.
fn left_behind(files: &[(Omission, Vec<u8>)]) -> String {
    let mut lines = String::new();
    for of_a_reason in files.chunk_by(|a, b| a.0 == b.0) {
        let names: Vec<String> = of_a_reason
            .iter()
            .take(LEFT_BEHIND_NAMES)
            .map(|(_, path)| format!("/{}", path.escape_ascii()))
            .collect();
        let (names, more) = (names.join(" "), of_a_reason.len().saturating_sub(LEFT_BEHIND_NAMES));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push_str(&format!("without their attributes: {names}{more} ({})\n", of_a_reason[0].0.why()));
    }
    lines
}

fn templates(layer: &mut Builder<'_>, spec: &str, variables: &BTreeMap<&'static str, String>) {
    // JSON with # comments is YAML, so one parser reads both.
    let spec: ImageSpec = match serde_norway::from_str(spec) {
        Ok(spec) => spec,
        Err(e) => {
            tracing::warn!("ignoring /etc/walt/image.spec: {e}");
            return;
        }
    };
    let unique: BTreeSet<String> = spec.templates.into_iter().collect();
    for path in unique {
        // A template may be reached through links: the file is replaced at its real path.
        let real = layer.base.resolve(path.trim_start_matches('/').as_bytes()).map(|n| layer.base.path(n));
        let found = layer.read(&path);
        match (real.map(String::from_utf8), found) {
            (Some(Ok(real)), Some((mode, text))) => layer.file(&real, mode, render(&text, variables)),
            _ => tracing::warn!("template {path} of image.spec is missing or not a text file"),
        }
    }
}

const HOSTS: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// Lines of `node/manifest`: source, target, mode.
fn manifest() -> Result<Vec<(&'static str, &'static str, u32)>> {
    let text =
        NODE.get_file("manifest").and_then(|f| f.contents_utf8()).context("node/manifest is not embedded")?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [source, target, mode] = words[..] else {
                anyhow::bail!("node/manifest: '{line}' is not <source> <target> <mode>")
            };
            Ok((source, target, u32::from_str_radix(mode, 8)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering_touches_known_names_only() {
        let vars = BTreeMap::from([("server_ip", "10.0.0.1".to_owned())]);
        let text = "a %(server_ip)s %(nope)s 100%% %d %";
        assert_eq!(render(text, &vars), "a 10.0.0.1 %(nope)s 100% %d %");
    }

    #[test]
    fn what_is_left_behind_is_a_line_for_a_reason() {
        let files = |n: u8| (0..n).map(|i| (Omission::Size, vec![b'f', b'0' + i]));
        let odd = [(Omission::Attributes, b"a\nb\xff".to_vec())];
        let text = left_behind(&files(7).chain(odd).collect::<Vec<_>>());
        let [size, attributes] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(
            size.starts_with("without their attributes: /f0 /f1 /f2 /f3 /f4 and 2 more (an image"),
            "{size}"
        );
        assert!(
            attributes.starts_with("without their attributes: /a\\nb\\xff (the attributes are"),
            "{attributes}"
        );
        assert_eq!(left_behind(&[]), "");
    }

    #[test]
    fn the_manifest_names_embedded_files() {
        for (source, target, _) in manifest().unwrap() {
            assert!(NODE.get_file(source).is_some(), "{source}");
            assert!(target.starts_with('/'), "{target}");
        }
    }
}
