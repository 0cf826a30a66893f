//! Boot files of machines, by the database and the address of the machine.
//!
//! | path | what | for whom |
//! |---|---|---|
//! | `bootstrap.ipxe` | [`bootstrap`] | every machine on walt-net |
//! | `pxe/undionly.kpxe`, … | [`LOADERS`]: iPXE for firmware that has none | every machine on walt-net |
//! | `secure/shimx64.efi`, `secure/grubx64.efi` | the loaders for Secure Boot ([`secure`]) | every machine on walt-net |
//! | `grub/grub.cfg`, `grub/boot/<manufacturer>/<product>` | what GRUB does ([`grub`]) | a node with `boot.secure` |
//! | any other path | that file below `/boot/<model>/` of the image of the node that asks | the node |
//! | the same | that file of a default image for Raspberry Pis | a Raspberry Pi that was offered an address and is not a node |
//! | `<serial>/<path>`, `<MAC with dashes>/<path>` | the same file, unless the image has that directory | both |
//! | `/var/lib/walt/nodes/<mac, ip or name>/tftp/<path>` | the same | the node that it names |
//!
//! TFTP and HTTP both open boot files here. Symbolic links are followed inside the image's tree; `..` in a request is
//! refused.
//!
//! Limits: [`PATH_MAX`] bytes of path. Everything here may block on the disk.

use crate::{
    actions::app::App,
    base::{
        db::{NodeRow, RefRow},
        time,
    },
    edge::netboot::{boot_file::BootFile, bootstrap},
    services::nodes::{boot_tree::BootTree, hub::update_life, secure},
};
use std::{fs::File, io, net::Ipv4Addr, path::Path, sync::Arc};
use walt_core::{default_image_of, settings};
use walt_netboot::{grub, rpi};
use walt_types::Model;

/// Longest path of a request, in bytes.
pub const PATH_MAX: usize = 1024;
/// Where the loaders are: Debian package `ipxe`.
const LOADER_DIR: &str = "/usr/lib/ipxe";
/// Loaders for firmware without iPXE: path, and file below [`LOADER_DIR`]. The second path is that of existing
/// installations.
pub const LOADERS: [(&str, &str); 4] = [
    (BIOS_LOADER, "undionly.kpxe"),
    ("pxe/walt-x86-undionly.kpxe", "undionly.kpxe"),
    (UEFI_LOADER, "ipxe.efi"),
    ("pxe/snponly.efi", "snponly.efi"),
];
/// Loader for PXE ROMs under a BIOS.
pub const BIOS_LOADER: &str = "pxe/undionly.kpxe";
/// Loader for UEFI firmware of x86-64 machines.
pub const UEFI_LOADER: &str = "pxe/ipxe.efi";
/// The directory of nodes in paths that are built into images, by components.
const NODES: [&[u8]; 4] = [b"var", b"lib", b"walt", b"nodes"];
/// The subdirectory with boot files of a node.
const NODE_TFTP: &[u8] = b"tftp";
/// First scripts that old loaders request: prefix and suffix of their names, and the current name.
const OLD_NAMES: [(&[u8], &[u8], &[u8]); 2] =
    [(b"boot/rpi-", b".uboot", b"start.uboot"), (b"boot/pc-x86-64", b".ipxe", b"start.ipxe")];

/// What machines load first: iPXE, U-Boot, UEFI, the firmware of Raspberry Pis.
const FIRST_FILES: [&[u8]; 8] = [
    b"start.ipxe",
    b"start.uboot",
    b"fit-start.uboot",
    b"start.efi",
    b"bootcode.bin",
    b"start.elf",
    b"start4.elf",
    b"config.txt",
];

/// Why a boot file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not exist, or is not for this machine: the answer is the same, so that it reveals nothing.
    #[error("No such file.")]
    NotFound,
    /// The server failed. The reason is for its log.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for FileError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The meaning of a path.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Bootstrap,
    Loader(&'static str),
    Signed(&'static secure::Loader),
    /// A boot file of the requesting node. A node named in the path must be this node.
    Node {
        name: Option<Vec<u8>>,
        file: Vec<u8>,
    },
}

/// Parses a path; `None` if it is invalid.
fn wanted(path: &[u8]) -> Option<Wanted> {
    if path.len() > PATH_MAX || path.contains(&0) {
        return None;
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.is_empty() || parts.contains(&&b".."[..]) {
        return None;
    }
    if let Some([name, tftp, file @ ..]) = parts.strip_prefix(&NODES[..])
        && *tftp == NODE_TFTP
    {
        let file = file.join(&b'/');
        return (!file.is_empty()).then(|| Wanted::Node { name: Some(name.to_vec()), file });
    }
    let path = parts.join(&b'/');
    if path == bootstrap::NAME.as_bytes() {
        return Some(Wanted::Bootstrap);
    }
    if let Some((_, loader)) = LOADERS.iter().find(|(name, _)| path == name.as_bytes()) {
        return Some(Wanted::Loader(loader));
    }
    if let Some(loader) = secure::LOADERS.iter().find(|loader| path == loader.path.as_bytes()) {
        return Some(Wanted::Signed(loader));
    }
    if path.starts_with(secure::DIRECTORY) {
        // shim looks for certificates there too: an image has no say in what shim trusts.
        return None;
    }
    let old = OLD_NAMES.iter().find(|(start, end, _)| path.starts_with(start) && path.ends_with(end));
    Some(Wanted::Node { name: None, file: old.map_or(path, |(_, _, now)| now.to_vec()) })
}

/// The file below `/boot/<model>/` of the requesting node that a path stands for; `None` for all other paths.
/// [`open`] uses it; public for tests and fuzzing.
pub fn file_of_node(path: &[u8]) -> Option<Vec<u8>> {
    match wanted(path)? {
        Wanted::Node { file, .. } => Some(file),
        Wanted::Bootstrap | Wanted::Loader(_) | Wanted::Signed(_) => None,
    }
}

/// Opens the boot file of this path for the machine at this address.
///
/// Blocks on the disk and on the lock of the store.
///
/// # Errors
/// See [`FileError`].
pub fn open(app: &Arc<App>, peer: Ipv4Addr, path: &[u8]) -> Result<BootFile, FileError> {
    match wanted(path).ok_or(FileError::NotFound)? {
        Wanted::Bootstrap => {
            if let Some(node) = app.db().with(|c| NodeRow::by_ip(c, peer))? {
                record_boot_start(app, &node)?;
            }
            let text = bootstrap::script(app.config().server_ip());
            Ok(BootFile::memory(text.into_bytes()))
        }
        Wanted::Loader(name) => loader(&format!("{LOADER_DIR}/{name}"), "ipxe"),
        Wanted::Signed(signed) => loader(signed.file, signed.package),
        Wanted::Node { name, file } => match app.db().with(|c| NodeRow::by_ip(c, peer))? {
            Some(node) => file_for_node(app, &node, path, name.as_deref(), &file),
            None if name.is_none() => file_for_board(app, peer, rpi::without_prefix(&file)),
            None => Err(FileError::NotFound),
        },
    }
}

/// A file of the node's image; `name` is what the path calls the node, if it does.
fn file_for_node(
    app: &Arc<App>,
    node: &NodeRow,
    path: &[u8],
    name: Option<&[u8]>,
    file: &[u8],
) -> Result<BootFile, FileError> {
    let calls_it = |name| std::str::from_utf8(name).is_ok_and(|name| node.is_called(name));
    if !name.is_none_or(calls_it) {
        return Err(FileError::NotFound);
    }
    let short = rpi::without_prefix(file);
    if FIRST_FILES.contains(&short) {
        record_boot_start(app, node)?;
    }
    if name.is_none()
        && let Some(file) = configuration(app, node, path, || tree_of(app, node))?
    {
        return Ok(file);
    }
    let tree = tree_of(app, node)?;
    match open_in(&tree, file) {
        Err(FileError::NotFound) if short != file => open_in(&tree, short),
        opened => opened,
    }
}

/// A file for a Raspberry Pi that is not a node: of the default image of its model or, as long as that is not known, of
/// any that has it.
fn file_for_board(app: &Arc<App>, peer: Ipv4Addr, file: &[u8]) -> Result<BootFile, FileError> {
    for model in app.nodes().boards().models(peer, file) {
        match default_tree(app, &model)?.map_or(Err(FileError::NotFound), |tree| open_in(&tree, file)) {
            Err(FileError::NotFound) => {}
            opened => return opened,
        }
    }
    Err(FileError::NotFound)
}

/// The boot files of a model's default image, if there is one.
fn default_tree(app: &Arc<App>, model: &Model) -> Result<Option<BootTree>, FileError> {
    let image = default_image_of(model);
    if app.db().with(|c| RefRow::get(c, &image))?.is_none() {
        return Ok(None);
    }
    let writing = app.images().writing_now_blocking();
    let view = app.images().view_of(&image, &writing).map_err(anyhow::Error::from)?;
    Ok(Some(BootTree::new(view, model)))
}

fn open_in(tree: &BootTree, file: &[u8]) -> Result<BootFile, FileError> {
    match tree.open(file).and_then(BootFile::disk) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FileError::NotFound),
        other => Ok(other.map_err(anyhow::Error::new)?),
    }
}

/// Records that a node has started to boot, unless it is recorded already.
fn record_boot_start(app: &App, node: &NodeRow) -> anyhow::Result<()> {
    if node.life.clone().loads(time::now()) {
        update_life(app.nodes(), node.mac, |life| life.loads(time::now()))?;
    }
    Ok(())
}

/// The current boot files of a node.
fn tree_of(app: &App, node: &NodeRow) -> Result<BootTree, FileError> {
    let writing = app.images().writing_now_blocking();
    let view = app.images().view_for(node, &writing).map_err(anyhow::Error::from)?;
    Ok(BootTree::new(view, &node.facts.model))
}

/// Whether the loader with this path, one of [`LOADERS`], is installed.
pub fn has_loader(path: &str) -> bool {
    LOADERS.iter().any(|(name, file)| *name == path && Path::new(LOADER_DIR).join(file).is_file())
}

fn loader(path: &str, package: &str) -> Result<BootFile, FileError> {
    let opened = File::open(path).and_then(BootFile::disk);
    Ok(opened.map_err(|e| {
        anyhow::Error::new(e).context(format!("cannot read the loader {path} (Debian package {package})"))
    })?)
}

/// What GRUB is to do, if this path asks for it and the node boots by Secure Boot. The image's own files have no say.
fn configuration(
    app: &App,
    node: &NodeRow,
    path: &[u8],
    tree: impl FnOnce() -> Result<BootTree, FileError>,
) -> Result<Option<BootFile>, FileError> {
    let path = String::from_utf8_lossy(path);
    let path = path.trim_start_matches('/');
    let make = grub::machine(path);
    if make.is_none() && path != grub::CONFIG {
        return Ok(None);
    }
    if !settings::is_secure(&app.db().with(|c| NodeRow::settings(c, node.mac))?) {
        return Ok(None);
    }
    let text = match make {
        None => {
            record_boot_start(app, node)?;
            grub::first()
        }
        Some((manufacturer, product)) => {
            secure::configuration(app.nodes(), node, &tree()?, manufacturer, product)
        }
    };
    Ok(Some(BootFile::memory(text.into_bytes())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::config::Config;
    use walt_core::{NodeFacts, life::Life};
    use walt_images::{History, ImageConfig, NewEntry, NewKind};

    // Addresses of the loopback network, so that a test can come from them.
    pub const NODE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    pub const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

    /// What the file `large` has: more than the buffers of a connection hold.
    pub fn large() -> String {
        (0..3_000_000).map(|n| format!("{n:07}\n")).collect()
    }

    fn entry(path: &str, kind: NewKind) -> NewEntry {
        NewEntry { path: path.into(), mode: 0o755, uid: 0, gid: 0, kind }
    }

    /// A server with a node `vn1` at [`NODE`] whose image has boot files, and a node at [`OTHER`] without image.
    pub fn server(dir: &std::path::Path) -> Arc<App> {
        let config = Config { state_dir: dir.join("state"), run_dir: dir.join("run"), ..Config::default() };
        let app = crate::actions::app::tests::open(config).unwrap();
        let link = |to: &str| NewKind::Symlink(to.into());
        let file = |text: &str| NewKind::File(text.into());
        let entries = vec![
            entry("boot", NewKind::Dir),
            entry("boot/pc-x86-64", NewKind::Dir),
            entry("boot/pc-x86-64/abcdef01", NewKind::Dir),
            entry("boot/pc-x86-64/abcdef01/kernel", file("another kernel")),
            entry("boot/pc-x86-64/initrd", link("/boot/initrd.img-1")),
            entry("boot/pc-x86-64/kernel", link("../vmlinuz-1")),
            entry("boot/pc-x86-64/large", file(&large())),
            entry("boot/pc-x86-64/loop", link("loop")),
            entry("boot/pc-x86-64/out", link("../../../../../../../../etc/shadow")),
            entry("boot/pc-x86-64/start.ipxe", file("#!ipxe\n")),
            entry("boot/vmlinuz-1", file("kernel")),
            entry("etc", NewKind::Dir),
            entry("etc/shadow", file("the image's own")),
        ];
        let layer = app.store().build_layer(entries, None).unwrap();
        let mut image =
            ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        image.push_layer(&layer.diff_id, History::default());
        let image_id = app.store().put_config(&image).unwrap();
        let reference = RefRow { reference: "alice/x".parse().unwrap(), image_id, created: 1 };
        let node = |mac: &str, name: &str, ip, image: &str| NodeRow {
            mac: mac.parse().unwrap(),
            facts: NodeFacts {
                name: name.parse().unwrap(),
                model: "pc-x86-64".parse().unwrap(),
                image: image.parse().unwrap(),
                is_virtual: true,
            },
            ip,
            uuid: String::new(),
            life: Life::default(),
            lease: None,
        };
        app.db()
            .with(|c| {
                reference.put(c, &crate::base::db::By::new("alice", ""))?;
                node("52:54:00:00:00:02", "vn1", NODE, "alice/x").insert(c)?;
                node("52:54:00:00:00:03", "vn2", OTHER, "alice/gone").insert(c)
            })
            .unwrap();
        Arc::new(app)
    }

    fn text(file: &BootFile) -> String {
        let mut bytes = vec![0; file.len() as usize + 10];
        let count = file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(count as u64, file.len());
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_node_gets_the_files_of_its_image_and_nobody_elses() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let app = server(dir.path());
        let get = |peer, path: &str| open(&app, peer, path.as_bytes()).map(|f| text(&f));
        for path in [
            "start.ipxe",
            "/start.ipxe",
            "//./start.ipxe",
            "boot/pc-x86-64.ipxe",
            "/var/lib/walt/nodes/52:54:00:00:00:02/tftp/start.ipxe",
            "/var/lib/walt/nodes/52-54-00-00-00-02/tftp/start.ipxe",
            "/var/lib/walt/nodes/127.0.0.2/tftp/start.ipxe",
            "/var/lib/walt/nodes/vn1/tftp/start.ipxe",
        ] {
            assert_eq!(get(NODE, path).unwrap(), "#!ipxe\n", "{path}");
        }
        assert_eq!(get(NODE, "kernel").unwrap(), "kernel");
        // Links lead through the image, never through the server.
        assert_eq!(get(NODE, "out").unwrap(), "the image's own");
        for path in [
            "",
            "/",
            ".",
            "initrd",
            "loop",
            "none",
            "../vmlinuz-1",
            "start.ipxe/../kernel",
            "start.ipxe/x",
            "kernel\0",
            "/var/lib/walt/nodes/vn2/tftp/start.ipxe",
            "/var/lib/walt/nodes/52:54:00:00:00:03/tftp/start.ipxe",
            "/var/lib/walt/nodes/vn1/tftp",
            "/var/lib/walt/nodes/vn1/fs/etc/shadow",
            "/etc/shadow",
            &"a".repeat(PATH_MAX + 1),
        ] {
            assert!(matches!(get(NODE, path), Err(FileError::NotFound)), "{path}");
        }
        let stranger = Ipv4Addr::new(127, 0, 0, 9);
        for path in ["start.ipxe", "/var/lib/walt/nodes/vn1/tftp/start.ipxe"] {
            assert!(matches!(get(stranger, path), Err(FileError::NotFound)), "{path}");
        }
        let Err(FileError::Failed(reason)) = get(OTHER, "start.ipxe") else { panic!("there is no image") };
        assert!(reason.to_string().contains("No such image"), "{reason}");
        assert!(get(stranger, "/bootstrap.ipxe").unwrap().starts_with("#!ipxe\n"));
    }

    /// A default image for two boards: each file tells where it lies.
    fn add_default_images(app: &App) {
        let mut entries = vec![entry("boot", NewKind::Dir)];
        for (model, files) in [
            ("rpi-3-b-plus", &["bootcode.bin", "config.txt", "start.elf"][..]),
            ("rpi-4-b", &["config.txt", "start.uboot", "start4.elf", "start.elf"]),
        ] {
            entries.push(entry(&format!("boot/{model}"), NewKind::Dir));
            let file = |name: &&str| {
                entry(&format!("boot/{model}/{name}"), NewKind::File(format!("{model} {name}").into()))
            };
            entries.extend(files.iter().map(file));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let layer = app.store().build_layer(entries, None).unwrap();
        let mut image =
            ImageConfig { architecture: "arm64".into(), os: "linux".into(), ..ImageConfig::default() };
        image.push_layer(&layer.diff_id, History::default());
        let image_id = app.store().put_config(&image).unwrap();
        for model in ["rpi-3-b-plus", "rpi-4-b"] {
            let reference = default_image_of(&model.parse().unwrap());
            let row = RefRow { reference, image_id, created: 1 };
            app.db().with(|c| row.put(c, &crate::base::db::By::new("walt", ""))).unwrap();
        }
    }

    /// Boards that are not nodes: 3 B+ and 4 B by what they ask for or say, and nobody else.
    #[test]
    fn boards_get_the_files_of_default_images() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let app = server(dir.path());
        let board = Ipv4Addr::new(127, 0, 0, 7);
        let get = |path: &str| open(&app, board, path.as_bytes()).map(|f| text(&f)).ok();
        app.nodes().boards().offered(board, None);
        assert_eq!(get("bootcode.bin"), None, "there is no default image yet");
        add_default_images(&app);
        app.nodes().boards().offered(board, None);
        // As a 3 B+ does: its ROM, then what it has loaded.
        for (path, expected) in [
            ("bootcode.bin", Some("rpi-3-b-plus bootcode.bin")),
            ("bootsig.bin", None),
            ("5564247d/start.elf", Some("rpi-3-b-plus start.elf")),
            ("5564247d/autoboot.txt", None),
            ("5564247d/config.txt", Some("rpi-3-b-plus config.txt")),
        ] {
            assert_eq!(get(path).as_deref(), expected, "{path}");
        }
        // A 4 B whose EEPROM does not tell the model; with a prefix that is its address.
        app.nodes().boards().offered(board, None);
        assert_eq!(get("dc-a6-32-01-36-c2/start4.elf").as_deref(), Some("rpi-4-b start4.elf"));
        assert_eq!(get("dc-a6-32-01-36-c2/config.txt").as_deref(), Some("rpi-4-b config.txt"));
        // One that tells a model which has no image here, and one that gives no hint at all.
        app.nodes().boards().offered(board, Some("rpi-5-b".parse().unwrap()));
        assert_eq!(get("config.txt"), None);
        app.nodes().boards().offered(board, None);
        assert_eq!(get("start.elf").as_deref(), Some("rpi-3-b-plus start.elf"), "any that has it");
        for path in ["../rpi-4-b/config.txt", "/var/lib/walt/nodes/127.0.0.7/tftp/start.elf", "start.ipxe"] {
            assert_eq!(get(path), None, "{path}");
        }
        // Nobody else gets them: neither strangers, nor nodes, which have images of their own.
        for other in [Ipv4Addr::new(127, 0, 0, 9), NODE] {
            assert!(matches!(open(&app, other, b"start.elf"), Err(FileError::NotFound)), "{other}");
        }
    }

    /// Firmware puts a directory in front; the image's own directory of that name comes first.
    #[test]
    fn prefixes_of_boards_that_are_nodes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let app = server(dir.path());
        let get = |path: &str| open(&app, NODE, path.as_bytes()).map(|f| text(&f)).ok();
        for path in ["5564247d/kernel", "/5564247d/kernel", "52-54-00-00-00-02/kernel", "kernel"] {
            assert_eq!(get(path).as_deref(), Some("kernel"), "{path}");
        }
        for path in ["5564247/kernel", "5564247d/none", "5564247d/5564247d/kernel", "5564247d"] {
            assert_eq!(get(path), None, "{path}");
        }
        assert_eq!(get("abcdef01/kernel").as_deref(), Some("another kernel"));
    }

    #[test]
    fn grub_gets_what_the_boot_scripts_decide() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let app = server(dir.path());
        let get = |peer, path: &str| open(&app, peer, path.as_bytes()).map(|f| text(&f));
        let set_secure = |value: &str| {
            let mac = "52:54:00:00:00:02".parse().unwrap();
            app.db().with(|c| NodeRow::set_setting(c, mac, settings::BOOT_SECURE, value)).unwrap();
        };
        let second = "/grub/boot/QEMU/Standard PC (Q35 + ICH9, 2009)";
        for value in ["false", "true"] {
            set_secure(value);
            for path in ["/grub/grub.cfg", second] {
                let found = get(NODE, path);
                assert_eq!(found.is_ok(), value == "true", "{path}: {found:?}");
                assert!(get(OTHER, path).is_err(), "{path}");
                assert!(matches!(get(Ipv4Addr::new(127, 0, 0, 9), path), Err(FileError::NotFound)));
            }
        }
        assert!(get(NODE, "/grub/grub.cfg").unwrap().contains("/boot/$manufacturer/$product"));
        // The image's only script ends without a boot.
        let refused = get(NODE, second).unwrap();
        assert!(
            refused.contains("\necho 'WalT: the boot scripts of alice/x") && !refused.contains("linux"),
            "{refused}"
        );
        // No image has a say in what shim trusts.
        assert!(matches!(get(NODE, "/secure/shim_certificate_0.efi"), Err(FileError::NotFound)));
        assert_eq!(wanted(b"secure/grubx64.efi"), Some(Wanted::Signed(&secure::LOADERS[1])));
    }

    #[test]
    fn the_first_file_begins_a_boot() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let app = server(dir.path());
        let life = || app.db().with(|c| NodeRow::by_ip(c, NODE)).unwrap().unwrap().life;
        open(&app, NODE, b"kernel").unwrap();
        assert_eq!(life(), Life::default());
        // By whatever road; here the file is missing.
        for file in FIRST_FILES.iter().filter(|file| **file != b"start.ipxe") {
            assert!(open(&app, NODE, file).is_err());
            assert!(life().started.is_some(), "{}", String::from_utf8_lossy(file));
            update_life(app.nodes(), "52:54:00:00:00:02".parse().unwrap(), |life| {
                *life = Life::default();
                true
            })
            .unwrap();
        }
        open(&app, NODE, b"bootstrap.ipxe").unwrap();
        let begun = life();
        assert!(begun.started.is_some());
        open(&app, NODE, b"start.ipxe").unwrap();
        assert_eq!(life(), begun);
    }

    #[test]
    fn what_paths_mean() {
        assert_eq!(wanted(b"pxe/walt-x86-undionly.kpxe"), Some(Wanted::Loader("undionly.kpxe")));
        assert_eq!(wanted(b"/pxe/ipxe.efi"), Some(Wanted::Loader("ipxe.efi")));
        assert_eq!(wanted(b"bootstrap.ipxe"), Some(Wanted::Bootstrap));
        let uboot = Wanted::Node { name: None, file: b"start.uboot".to_vec() };
        assert_eq!(wanted(b"boot/rpi-3-b.uboot"), Some(uboot));
    }
}
