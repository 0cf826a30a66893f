//! Prepares the mounts of a command.

use super::{HOSTNAME, MountSource, SCRIPT, Secrets, StepSpec, make_dir, mount_points::MountPoints, overlay};
use rustix::fs::FileType;
use serde_json::{Value, json};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};
use walt_container::{Error, Result, bundle, setup::open_in};
use walt_sys::{mount, userns::Namespaces};

fn bind(source: &Path, target: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    bundle::bind(source, target, &["rbind", "nosuid", "nodev", "rprivate", access])
}

/// Where mounts are prepared, and for whom.
pub(super) struct Workspace<'a> {
    /// The step's directory.
    pub dir: &'a Path,
    /// Its memory.
    pub memory: &'a Path,
    /// The user namespace of the command, if it has one.
    pub namespaces: Option<&'a Namespaces>,
}

impl Workspace<'_> {
    /// The number of the container's root on the server.
    pub fn container_root(&self) -> u32 {
        self.namespaces.map_or(0, |n| n.first)
    }

    /// Writes a file that only memory has, with an owner of the container.
    fn file(&self, name: &str, bytes: &[u8], mode: u32, (uid, gid): (u32, u32)) -> Result<PathBuf> {
        let path = self.memory.join(name);
        let put = || -> io::Result<()> {
            let number = |id: u32| id.saturating_add(self.container_root());
            std::fs::write(&path, bytes)?;
            std::os::unix::fs::chown(&path, Some(number(uid)), Some(number(gid)))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
        };
        put().map_err(|e| Error::io("write", &path, e))?;
        Ok(path)
    }

    /// Mounts a cache with the numbers of the user namespace, if there is one.
    fn cache(&self, dir: &Path, number: usize) -> Result<PathBuf> {
        let Some(namespaces) = self.namespaces else { return Ok(dir.to_owned()) };
        let at = make_dir(&self.dir.join(format!("cache-{number}")))?;
        mount::bind_mapped(dir, &at, namespaces)?;
        Ok(at)
    }
}

/// Prepares the mounts of the command, and makes their mount points.
pub(super) fn mounts(
    workspace: &Workspace<'_>,
    spec: &StepSpec,
    secrets: &Secrets,
    mount_points: &mut MountPoints,
) -> Result<Vec<Value>> {
    let mut list = Vec::new();
    for point in bundle::MOUNT_POINTS.iter().filter(|p| **p != "run") {
        mount_points.make(&format!("/{point}"), true)?;
    }
    let own = |name: &str, text: &str, mode: u32| workspace.file(name, text.as_bytes(), mode, (0, 0));
    if let Some(network) = &spec.network {
        let text = format!("nameserver {}\n", network.gateway);
        list.push(bind(&own("resolv.conf", &text, 0o644)?, "/etc/resolv.conf", false));
        mount_points.make("/etc/resolv.conf", false)?;
    }
    let hosts = format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    list.push(bind(&own("hosts", &hosts, 0o644)?, "/etc/hosts", false));
    mount_points.make("/etc/hosts", false)?;
    if let Some(script) = &spec.script {
        list.push(bind(&own("script", script, 0o755)?, SCRIPT, true));
    }
    for (number, mount) in spec.mounts.iter().enumerate() {
        let target = mount.target.as_str();
        match &mount.what {
            MountSource::Tmpfs(size) => {
                mount_points.make(target, true)?;
                let mut options = vec!["nosuid".to_owned(), "nodev".into(), "mode=1777".into()];
                options.extend(size.map(|bytes| format!("size={bytes}")));
                list.push(
                    json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}),
                );
            }
            MountSource::Cache { dir, .. } => {
                mount_points.make(target, true)?;
                list.push(bind(&workspace.cache(dir, number)?, target, mount.read_only));
            }
            MountSource::Ours(path) => {
                mount_points.make(target, path.is_dir())?;
                list.push(bind(path, target, mount.read_only));
            }
            MountSource::Secret { id, mode, uid, gid } => {
                let Some(bytes) = secrets.files.get(id) else { continue };
                let path = workspace.file(&format!("secret-{number}"), bytes, *mode, (*uid, *gid))?;
                mount_points.make(target, false)?;
                list.push(bind(&path, target, true));
            }
            MountSource::Tree { lowers, source } => {
                let base = workspace.dir.join(format!("tree-{number}"));
                let root = overlay(&base, lowers, None, workspace.namespaces)?;
                let found = open_in(&root, source)
                    .map_err(|e| Error::io("find the source of the mount", Path::new(source), e.into()))?;
                let meta = rustix::fs::fstat(&found)
                    .map_err(|e| Error::io("read the metadata of", Path::new(source), e.into()))?;
                let is_dir = FileType::from_raw_mode(meta.st_mode).is_dir();
                // Bound to a path of our own: the path in the tree could change before the runtime follows it.
                let at = base.join("at");
                match is_dir {
                    true => drop(make_dir(&at)?),
                    false => drop(File::create(&at).map_err(|e| Error::io("make", &at, e))?),
                }
                mount::bind(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())), &at)?;
                mount_points.make(target, is_dir)?;
                list.push(bind(&at, target, mount.read_only));
            }
        }
    }
    Ok(list)
}
