//! The manifest of a backup: what is in it. It is written last, so a backup without one is not whole.

use crate::base::formats::{Formats, RELEASE};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path};

/// Name of the manifest in a backup.
pub const NAME: &str = "manifest.json";
/// Version of the layout of backups. It is increased when an older program would misunderstand one.
pub const FORMAT: u32 = 1;
/// Largest manifest, in bytes: some million files.
pub const MANIFEST_MAX: u64 = 1 << 30;

/// How the images are in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Images {
    /// All their layers.
    Included,
    /// Their names, digests and configurations.
    Digests,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the backup.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The BLAKE3 digest of its bytes, in hexadecimal.
    pub blake3: String,
}

/// What a name pointed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// `<user>/<name>:<tag>`.
    pub name: String,
    /// The digest of the image's configuration, in hexadecimal.
    pub image_id: String,
    /// The digests of its layers, lowest first.
    pub layers: Vec<String>,
    /// The command that made the name point to it.
    pub made_by: Option<String>,
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Versions of what is in it.
    pub state: Formats,
    /// When it was made (RFC 3339).
    pub made: String,
    /// The name of the machine that it was made on.
    pub host: String,
    /// The server's address on walt-net, and prefix length.
    pub network: String,
    /// How the images are in it.
    pub images: Images,
    /// Whether `/persist` of the nodes is in it.
    pub persist: bool,
    /// Whether log lines are in it.
    pub logs: bool,
    /// The directory of the files that are not images.
    pub place: String,
    /// All names of images.
    pub references: Vec<Reference>,
    /// What was left out: sentences.
    pub left_out: Vec<String>,
    /// All files but this one.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// Reads a manifest; `what` names the backup in errors.
    ///
    /// # Errors
    /// It is damaged, or a newer program made it.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            #[serde(default)]
            state: Release,
        }
        #[derive(Default, Deserialize)]
        struct Release {
            #[serde(default)]
            release: String,
        }
        let damaged = || format!("the manifest of the backup {what} is damaged");
        let version: Version = serde_json::from_slice(bytes).with_context(damaged)?;
        if version.format > FORMAT {
            bail!(
                "the backup {what} was made by walt-server {}: it has format {}, and this walt-server {RELEASE} knows format \
                 {FORMAT} only; nothing was changed: restore it with the newer walt-server",
                version.state.release,
                version.format
            );
        }
        let manifest: Self = serde_json::from_slice(bytes).with_context(damaged)?;
        if let Some((thing, theirs, ours)) = manifest.state.newer() {
            bail!(
                "the backup {what} was made by walt-server {}: {thing} has version {theirs}, and this walt-server {RELEASE} \
                 knows version {ours} only; nothing was changed: restore it with the newer walt-server",
                manifest.state.release
            );
        }
        if let Some(file) = manifest.files.iter().find(|file| !is_inside(&file.path)) {
            bail!("{}: the path '{}' leads outside of it", damaged(), file.path.escape_debug());
        }
        if !is_inside(&manifest.place) {
            bail!("{}: the path '{}' leads outside of it", damaged(), manifest.place.escape_debug());
        }
        Ok(manifest)
    }

    /// Files below a directory of the backup, with their paths below it.
    pub fn below<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = (&'a str, &'a FileEntry)> {
        self.files.iter().filter_map(move |file| {
            let rest = file.path.strip_prefix(dir)?.strip_prefix('/')?;
            Some((rest, file))
        })
    }
}

/// Whether a path is one below the directory that it is joined to.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            state: Formats::ours(),
            made: "2026-03-01T00:00:00Z".into(),
            host: "h".into(),
            network: "10.0.0.1/24".into(),
            images: Images::Digests,
            persist: false,
            logs: true,
            place: "state-x".into(),
            references: Vec::new(),
            left_out: Vec::new(),
            files: vec![FileEntry { path: "state-x/keys/id".into(), size: 1, blake3: "00".into() }],
        }
    }

    fn parse(manifest: &Manifest) -> Result<Manifest> {
        Manifest::parse(&serde_json::to_vec(manifest).unwrap(), "/b")
    }

    #[test]
    fn newer_ones_and_bad_paths_are_refused() {
        let good = manifest();
        assert_eq!(parse(&good).unwrap(), good);
        assert_eq!(good.below("state-x/keys").map(|(name, _)| name).collect::<Vec<_>>(), ["id"]);
        let mut newer = manifest();
        newer.state.release = "9.0".into();
        newer.state.logs += 1;
        let said = parse(&newer).unwrap_err().to_string();
        let versions = format!(
            "version {}, and this walt-server {RELEASE} knows version {}",
            newer.state.logs,
            newer.state.logs - 1
        );
        assert!(said.contains("made by walt-server 9.0") && said.contains(&versions), "{said}");
        let said = Manifest::parse(br#"{"format": 2, "state": {"release": "9.0"}}"#, "/b").unwrap_err();
        assert!(said.to_string().contains("walt-server 9.0: it has format 2"), "{said}");
        assert!(Manifest::parse(b"{", "/b").is_err());
        for path in ["../x", "/etc/passwd", "a/../../x", ""] {
            let mut bad = manifest();
            bad.files[0].path = path.into();
            assert!(parse(&bad).is_err(), "{path}");
        }
    }
}
