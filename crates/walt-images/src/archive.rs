//! Images as docker and podman save them, one or several in a tar:
//!
//! * `docker save`, `podman save`: `manifest.json`, and for each image its names, a configuration, and a tar per layer
//!   (docker image specification 1.2, "combined image JSON and filesystem changeset");
//! * `podman save --format oci-archive`: `index.json` and blobs by digest (OCI image layout specification 1.0). Their
//!   layers may be compressed.

use crate::{
    ImageConfig, Store,
    error::{Context, Error, Result},
    store::Temporary,
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use walt_tar::paths::split;
use walt_tar::{BLOCK, Type, read_header};

/// Largest document of an archive, in bytes.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Most entries of an archive.
const MAX_ENTRIES: usize = 100_000;
/// Links followed from one name: older archives store a layer that occurs twice as a link to its first copy.
const MAX_ALIASES: usize = 4;
/// Most images of an archive.
const MAX_IMAGES: usize = 1000;
/// Most indexes on the way from `index.json` to a manifest.
const MAX_NESTED: usize = 2;
/// The annotation with the name of an image of an OCI layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An archive while it is received.
#[derive(Debug)]
pub struct Spool {
    file: Temporary,
    out: File,
    bytes: u64,
}

impl Spool {
    /// Starts a new archive in the store's temporary directory.
    pub fn create(store: &Store) -> Result<Self> {
        let file = store.temporary_name();
        let out = File::options().read(true).write(true).create_new(true).open(file.path());
        Ok(Self { out: out.on("create", file.path())?, file, bytes: 0 })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).on("write", self.file.path())?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Number of bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[derive(Debug)]
enum Member {
    File { at: u64, size: u64 },
    Link(Vec<u8>),
}

/// An image by `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// A document of an OCI layout: an index, or a manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OciDocument {
    manifests: Vec<OciDescriptor>,
    config: Option<OciDescriptor>,
    layers: Vec<OciDescriptor>,
}

#[derive(Debug, Deserialize)]
struct OciDescriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl OciDescriptor {
    /// The name of its member. The digest of layers is checked by their diff-ids, that of a configuration is the image's id.
    fn member(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }
}

/// The tar, and where its members are.
#[derive(Debug)]
struct Tar {
    file: File,
    path: PathBuf,
    members: BTreeMap<Vec<u8>, Member>,
    /// Removes the file once nobody reads it.
    _temporary: Option<Temporary>,
}

/// An image of an archive.
#[derive(Debug)]
pub struct Archive {
    tar: Arc<Tar>,
    entry: Entry,
    config: Vec<u8>,
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::Layer(format!("the archive is not in the format of 'docker save' or 'podman save': {why}"))
}

impl Archive {
    /// Reads an archive with exactly one image.
    pub fn open(spool: Spool) -> Result<Self> {
        let Spool { file, out, .. } = spool;
        let path = file.path().to_owned();
        let mut images = read(out, path, Some(file))?;
        match (images.pop(), images.is_empty()) {
            (Some(image), true) => Ok(image),
            _ => Err(wrong("it must contain exactly one image")),
        }
    }

    /// Reads an archive that lies on this machine: all its images.
    pub fn all(path: &Path) -> Result<Vec<Self>> {
        let file = File::open(path).on("open", path)?;
        read(file, path.to_owned(), None)
    }

    /// The names that the archive gives it, such as `docker.io/ann/pc:latest`.
    pub fn names(&self) -> &[String] {
        self.entry.repo_tags.as_deref().unwrap_or_default()
    }

    /// The image's configuration.
    pub fn config(&self) -> Result<ImageConfig> {
        ImageConfig::parse(&self.config)
    }

    /// The bytes of the configuration.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config
    }

    /// The tar of the layer with this number, counted from the lowest one; of an OCI layout, it may be compressed.
    pub fn layer(&self, number: usize) -> Result<impl Read + Send + '_> {
        let name = self.entry.layers.get(number).ok_or_else(|| wrong("a layer is missing"))?;
        let (at, size) = self.tar.find(name.as_bytes())?;
        Ok(Section { file: &self.tar.file, at, left: size })
    }
}

/// Reads the index of an archive, and its images. An image with several names is one of them.
fn read(file: File, path: PathBuf, temporary: Option<Temporary>) -> Result<Vec<Archive>> {
    let size = file.metadata().on("read", &path)?.len();
    let mut start = &file;
    start.seek(SeekFrom::Start(0)).on("read", &path)?;
    let members = index(BufReader::new(&file), size)?;
    let tar = Arc::new(Tar { file, path, members, _temporary: temporary });
    let entries = match tar.members.contains_key(b"manifest.json".as_slice()) {
        true => parse_manifest(&tar.document(b"manifest.json")?)?,
        false => oci_entries(&tar)?,
    };
    entries.into_iter().map(|entry| image(&tar, entry)).collect()
}

fn image(tar: &Arc<Tar>, entry: Entry) -> Result<Archive> {
    let config = tar.document(entry.config.as_bytes())?;
    let archive = Archive { tar: tar.clone(), entry, config };
    let layers = archive.config()?.layers()?.len();
    if layers != archive.entry.layers.len() {
        return Err(wrong(format!(
            "an image of it has {} layers and its configuration {layers}",
            archive.entry.layers.len()
        )));
    }
    Ok(archive)
}

impl Tar {
    fn find(&self, name: &[u8]) -> Result<(u64, u64)> {
        let absent = || wrong(format!("'{}' is missing", String::from_utf8_lossy(name)));
        let mut name = name.to_vec();
        for _ in 0..MAX_ALIASES {
            match self.members.get(&name).ok_or_else(absent)? {
                Member::File { at, size } => return Ok((*at, *size)),
                Member::Link(target) => name = resolve_link(&name, target),
            }
        }
        Err(absent())
    }

    fn document(&self, name: &[u8]) -> Result<Vec<u8>> {
        let (at, size) = self.find(name)?;
        if size > MAX_DOCUMENT {
            return Err(wrong(format!("'{}' is too large", String::from_utf8_lossy(name))));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, at).on("read", &self.path)?;
        Ok(bytes)
    }

    fn oci(&self, name: &str) -> Result<OciDocument> {
        serde_json::from_slice(&self.document(name.as_bytes())?).map_err(wrong)
    }
}

/// The images of an OCI layout.
fn oci_entries(tar: &Tar) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut open: Vec<(OciDescriptor, Option<String>, usize)> = Vec::new();
    let push = |open: &mut Vec<_>, document: OciDocument, name: Option<&String>, depth: usize| {
        for descriptor in document.manifests.into_iter().rev() {
            let own = descriptor.annotations.get(REF_NAME).or(name).cloned();
            open.push((descriptor, own, depth));
        }
    };
    push(&mut open, tar.oci("index.json")?, None, 0);
    while let Some((descriptor, name, depth)) = open.pop() {
        if entries.len() + open.len() > MAX_IMAGES {
            return Err(wrong(format!("more than {MAX_IMAGES} images")));
        }
        let document = tar.oci(&descriptor.member())?;
        match &document.config {
            Some(config) => entries.push(Entry {
                config: config.member(),
                layers: document.layers.iter().map(OciDescriptor::member).collect(),
                repo_tags: Some(name.into_iter().collect()),
            }),
            None if depth < MAX_NESTED => push(&mut open, document, name.as_ref(), depth + 1),
            None => return Err(wrong("its indexes are nested too deeply")),
        }
    }
    if entries.is_empty() {
        return Err(wrong("it has no image"));
    }
    Ok(entries)
}

/// Section of a file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Finds the position of each member of a tar of this size; what is in them is skipped.
fn index<R: Read + Seek>(mut input: BufReader<R>, whole: u64) -> Result<BTreeMap<Vec<u8>, Member>> {
    let (mut members, mut raw, mut at) = (BTreeMap::new(), Vec::new(), 0u64);
    while let Some(header) = read_header(&mut input, &mut raw)? {
        at += raw.len() as u64;
        raw.clear();
        if members.len() >= MAX_ENTRIES {
            return Err(wrong(format!("more than {MAX_ENTRIES} entries")));
        }
        match header.kind {
            Type::File => {
                members.insert(header.path, Member::File { at, size: header.size });
            }
            Type::Symlink => {
                members.insert(header.path, Member::Link(header.link));
            }
            Type::HardLink => {
                // Its target is relative to the archive's root, not to the link's directory.
                let up = b"../".repeat(header.path.iter().filter(|b| **b == b'/').count());
                members.insert(header.path, Member::Link([up, header.link].concat()));
            }
            Type::Char | Type::Block | Type::Dir | Type::Fifo => {}
        }
        let end =
            header.size.checked_next_multiple_of(BLOCK as u64).and_then(|padded| at.checked_add(padded));
        let skipped = end.filter(|end| *end <= whole).ok_or_else(|| wrong("it is truncated"))? - at;
        // Invariant: no file is longer than i64::MAX.
        input.seek_relative(i64::try_from(skipped).unwrap_or(i64::MAX)).map_err(wrong)?;
        at += skipped;
    }
    Ok(members)
}

/// Resolves the target of a link; it cannot leave the archive.
fn resolve_link(name: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = split(name).0.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join(&b'/')
}

fn parse_manifest(bytes: &[u8]) -> Result<Vec<Entry>> {
    let entries: Vec<Entry> = serde_json::from_slice(bytes).map_err(wrong)?;
    match entries.len() {
        0 => Err(wrong("it has no image")),
        n if n > MAX_IMAGES => Err(wrong(format!("more than {MAX_IMAGES} images"))),
        _ => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn members_and_links() {
        assert_eq!(resolve_link(b"a/layer.tar", b"../b/layer.tar"), b"b/layer.tar");
        assert_eq!(resolve_link(b"a/layer.tar", b"../../../etc/passwd"), b"etc/passwd");
        assert_eq!(resolve_link(b"layer.tar", b"./x"), b"x");
        assert!(parse_manifest(br#"[{"Config":"c.json","Layers":["l"],"RepoTags":null}]"#).is_ok());
        for bad in ["[]", "{}", r#"[{"Config":"c"}]"#] {
            assert!(parse_manifest(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(index(BufReader::new(Cursor::new(b"no tar")), 6).is_err());
    }

    const CONFIG: &str = r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#;

    /// The names of the images of an archive with these members.
    fn names(members: &[(&str, &str)]) -> std::result::Result<Vec<Vec<String>>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in members {
            let path = dir.path().join("in").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tar = dir.path().join("a.tar");
        let made = std::process::Command::new("tar")
            .arg("-C")
            .arg(dir.path().join("in"))
            .arg("-cf")
            .arg(&tar)
            .args(members.iter().map(|(name, _)| name))
            .status();
        assert!(made.unwrap().success());
        let images = Archive::all(&tar).map_err(|e| e.to_string())?;
        Ok(images.iter().map(|image| image.names().to_vec()).collect())
    }

    #[test]
    fn several_images_of_docker() {
        let manifest = r#"[{"Config":"c.json","Layers":[],"RepoTags":["docker.io/ann/a:1","docker.io/ann/a:2"]},
            {"Config":"c.json","Layers":[],"RepoTags":null}]"#;
        let found = names(&[("c.json", CONFIG), ("manifest.json", manifest)]).unwrap();
        assert_eq!(found, [vec!["docker.io/ann/a:1".to_owned(), "docker.io/ann/a:2".to_owned()], vec![]]);
        let missing = names(&[("manifest.json", manifest)]).unwrap_err();
        assert!(missing.contains("'c.json' is missing"), "{missing}");
    }

    #[test]
    fn an_oci_layout() {
        let image = |digest: &str, name: &str| {
            format!(r#"{{"digest":"sha256:{digest}","annotations":{{"{REF_NAME}":"{name}"}}}}"#)
        };
        let index = format!(
            r#"{{"manifests":[{},{}]}}"#,
            image("aa", "docker.io/ann/a:1"),
            image("bb", "docker.io/bob/b:1")
        );
        let inner = r#"{"manifests":[{"digest":"sha256:aa"}]}"#;
        let manifest = r#"{"config":{"digest":"sha256:cc"},"layers":[]}"#;
        let members = [
            ("index.json", index.as_str()),
            ("blobs/sha256/aa", manifest),
            ("blobs/sha256/bb", inner),
            ("blobs/sha256/cc", CONFIG),
        ];
        assert_eq!(
            names(&members).unwrap(),
            [["docker.io/ann/a:1".to_owned()], ["docker.io/bob/b:1".to_owned()]]
        );
        let circle = [
            members[0],
            members[1],
            ("blobs/sha256/bb", r#"{"manifests":[{"digest":"sha256:bb"}]}"#),
            members[3],
        ];
        assert!(names(&circle).unwrap_err().contains("nested too deeply"));
        assert!(names(&[("index.json", "{}")]).unwrap_err().contains("it has no image"));
    }
}
