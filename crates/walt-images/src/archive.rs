//! Images as docker and podman save them: a tar with `manifest.json`, a configuration, and a tar per layer
//! (`docker save`; docker image specification 1.2, "combined image JSON and filesystem changeset").

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
};
use walt_tar::paths::split;
use walt_tar::{BLOCK, Type, read_header};

/// Largest document of an archive, in bytes.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Most entries of an archive.
const MAX_ENTRIES: usize = 100_000;
/// Links followed from one name: older archives store a layer that occurs twice as a link to its first copy.
const MAX_ALIASES: usize = 4;

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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    layers: Vec<String>,
}

/// A whole archive with one image.
#[derive(Debug)]
pub struct Archive {
    spool: Spool,
    members: BTreeMap<Vec<u8>, Member>,
    entry: Entry,
    config: Vec<u8>,
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::Layer(format!("the archive is not in the format of 'docker save': {why}"))
}

impl Archive {
    /// Reads the index of an archive, its manifest and its configuration.
    pub fn open(mut spool: Spool) -> Result<Self> {
        spool.out.seek(SeekFrom::Start(0)).on("read", spool.file.path())?;
        let members = index(BufReader::new(&spool.out))?;
        let mut archive =
            Self { spool, members, entry: Entry { config: String::new(), layers: vec![] }, config: vec![] };
        let manifest = archive.document(b"manifest.json")?;
        archive.entry = parse_manifest(&manifest)?;
        archive.config = archive.document(archive.entry.config.as_bytes())?;
        let layers = archive.config()?.layers()?.len();
        if layers != archive.entry.layers.len() {
            return Err(wrong(format!(
                "it has {} layers and its configuration {layers}",
                archive.entry.layers.len()
            )));
        }
        Ok(archive)
    }

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
        self.spool.out.read_exact_at(&mut bytes, at).on("read", self.spool.file.path())?;
        Ok(bytes)
    }

    /// The image's configuration.
    pub fn config(&self) -> Result<ImageConfig> {
        ImageConfig::parse(&self.config)
    }

    /// The bytes of the configuration.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config
    }

    /// The tar of the layer with this number, counted from the lowest one.
    pub fn layer(&self, number: usize) -> Result<impl Read + '_> {
        let name = self.entry.layers.get(number).ok_or_else(|| wrong("a layer is missing"))?;
        let (at, size) = self.find(name.as_bytes())?;
        Ok(Section { file: &self.spool.out, at, left: size })
    }
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

/// Finds the position of each member of a tar.
fn index(mut input: impl Read) -> Result<BTreeMap<Vec<u8>, Member>> {
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
        let padded = header.size.next_multiple_of(BLOCK as u64);
        let passed = io::copy(&mut (&mut input).take(padded), &mut io::sink()).map_err(wrong)?;
        if passed != padded {
            return Err(wrong("it is truncated"));
        }
        at += padded;
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

fn parse_manifest(bytes: &[u8]) -> Result<Entry> {
    let mut entries: Vec<Entry> = serde_json::from_slice(bytes).map_err(wrong)?;
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) => Ok(entry),
        _ => Err(wrong("it must contain exactly one image")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_links() {
        assert_eq!(resolve_link(b"a/layer.tar", b"../b/layer.tar"), b"b/layer.tar");
        assert_eq!(resolve_link(b"a/layer.tar", b"../../../etc/passwd"), b"etc/passwd");
        assert_eq!(resolve_link(b"layer.tar", b"./x"), b"x");
        assert!(parse_manifest(br#"[{"Config":"c.json","Layers":["l"],"RepoTags":null}]"#).is_ok());
        for bad in
            ["[]", "{}", r#"[{"Config":"c"}]"#, r#"[{"Config":"c","Layers":[]},{"Config":"c","Layers":[]}]"#]
        {
            assert!(parse_manifest(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(index(&b"no tar"[..]).is_err());
    }
}
