//! Where a backup goes: a directory, or a tar on standard output.
//!
//! ```text
//! DIR/manifest.json                      put there last, by a rename: what it does not name does not count
//! DIR/state-<time>/walt.sqlite           the database; then keys/, logs/, server.conf, persist/<part>
//! DIR/images/configs/<id>.json           images: never change, and stay for the next backup into the same directory
//! DIR/images/layers/<diff-id>.tar
//! DIR/images/blobs/<digest>
//! ```
//! The tar has the same files, the manifest at its end.

use super::manifest::{FileEntry, MANIFEST_MAX, Manifest, NAME};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use walt_tar::{BLOCK, Header, write_header};

/// How the names of directories of files that are not images begin.
const PLACE: &str = "state-";
/// The directory of images.
const IMAGES: &str = "images";
/// Ending of a file while it is written.
const PART: &str = ".part";
/// Bytes that are written at once.
const BUFFER: usize = 1 << 18;

/// Where a backup goes.
pub struct Sink {
    to: To,
    files: Vec<FileEntry>,
    /// What the earlier backup in the directory has.
    before: BTreeMap<String, FileEntry>,
    /// Bytes that did not have to be written again.
    pub kept: u64,
}

enum To {
    Dir(PathBuf),
    Tar(Box<dyn Write>),
}

/// Counts and digests what is written.
struct Counted<'a> {
    to: &'a mut dyn Write,
    hash: blake3::Hasher,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Sink {
    /// A directory, which is made if it does not exist. An earlier backup in it stays whole until the new one is.
    ///
    /// # Errors
    /// It has something else in it, or cannot be written.
    pub fn dir(dir: &Path) -> Result<Self> {
        let failed = || format!("cannot use the directory {}", dir.display());
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).with_context(failed),
            _ => {}
        }
        for entry in fs::read_dir(dir).with_context(failed)? {
            let name = entry.with_context(failed)?.file_name();
            let name = name.to_string_lossy();
            let ours =
                name == NAME || name == format!("{NAME}{PART}") || name == IMAGES || name.starts_with(PLACE);
            if !ours && name != "lost+found" {
                bail!(
                    "{} is not empty, and '{name}' in it is not of a backup: choose another directory",
                    dir.display()
                );
            }
        }
        let before = match read_manifest(dir) {
            Ok(Some(manifest)) => manifest.files,
            Ok(None) => Vec::new(),
            Err(e) => {
                eprintln!("Note: {e:#}; everything is copied again.");
                Vec::new()
            }
        };
        let before = before.into_iter().map(|file| (file.path.clone(), file)).collect();
        Ok(Self { to: To::Dir(dir.to_owned()), files: Vec::new(), before, kept: 0 })
    }

    /// A tar.
    pub fn tar(out: impl Write + 'static) -> Self {
        Self { to: To::Tar(Box::new(out)), files: Vec::new(), before: BTreeMap::new(), kept: 0 }
    }

    /// A directory for files that are not images, which no earlier backup has.
    pub fn place(&self, time: &str) -> String {
        let taken = |name: &String| match &self.to {
            To::Dir(dir) => dir.join(name).exists(),
            To::Tar(_) => false,
        };
        let first = format!("{PLACE}{time}");
        // Invariant: a directory has finitely many entries.
        (1..)
            .map(|n| if n == 1 { first.clone() } else { format!("{first}-{n}") })
            .find(|name| !taken(name))
            .unwrap_or(first)
    }

    /// Whether the earlier backup in the directory has this file, which never changes; then it is in the new one, too.
    pub fn has(&mut self, path: &str) -> bool {
        let To::Dir(dir) = &self.to else { return false };
        let Some(file) = self.before.get(path) else { return false };
        if fs::metadata(dir.join(path)).ok().is_none_or(|m| m.len() != file.size) {
            return false;
        }
        self.kept += file.size;
        self.files.push(file.clone());
        true
    }

    /// Writes a file of exactly `size` bytes.
    ///
    /// # Errors
    /// `fill` fails or writes another number of bytes, or the disk or the reader of the tar fails.
    pub fn write(
        &mut self,
        path: &str,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let failed = || format!("cannot write {path} of the backup");
        let counted = |to: &mut dyn Write| -> Result<FileEntry> {
            let mut counted = Counted { to, hash: blake3::Hasher::new(), size: 0 };
            fill(&mut counted)?;
            counted.flush()?;
            if counted.size != size {
                bail!("it has {} bytes instead of {size}", counted.size);
            }
            Ok(FileEntry {
                path: path.to_owned(),
                size,
                blake3: counted.hash.finalize().to_hex().to_string(),
            })
        };
        let entry = match &mut self.to {
            To::Dir(dir) => {
                let target = dir.join(path);
                if let Some(parent) = target.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(parent).with_context(failed)?;
                }
                let part = dir.join(format!("{path}{PART}"));
                let mut options = OpenOptions::new();
                let file = options.create(true).write(true).truncate(true).mode(0o600).open(&part);
                let mut file = BufWriter::with_capacity(BUFFER, file.with_context(failed)?);
                let entry = counted(&mut file).with_context(failed)?;
                fs::rename(&part, &target).with_context(failed)?;
                entry
            }
            To::Tar(out) => {
                put_header(out, path, size).with_context(failed)?;
                let entry = counted(out).with_context(failed)?;
                let padding = size.next_multiple_of(BLOCK as u64) - size;
                out.write_all(&vec![0; padding as usize]).with_context(failed)?;
                entry
            }
        };
        self.files.push(entry);
        Ok(())
    }

    /// Copies a file as long as it is when it is opened; false if it does not exist any more.
    ///
    /// # Errors
    /// It cannot be read, or as in [`Sink::write`].
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<bool> {
        let file = match File::open(from) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.with_context(|| format!("cannot read {}", from.display()))?,
        };
        let size = file.metadata().with_context(|| format!("cannot read {}", from.display()))?.len();
        self.write(path, size, |to| Ok(io::copy(&mut file.take(size), &mut { to }).map(drop)?))?;
        Ok(true)
    }

    /// Writes the manifest: from then on, the backup counts. Removes what only an earlier one in the directory needed.
    ///
    /// # Errors
    /// The disk or the reader of the tar fails; an earlier backup in the directory is still whole.
    pub fn finish(mut self, mut manifest: Manifest) -> Result<Manifest> {
        manifest.files = std::mem::take(&mut self.files);
        let bytes = serde_json::to_vec_pretty(&manifest)?;
        let failed = || format!("cannot write {NAME} of the backup");
        match &mut self.to {
            To::Dir(dir) => {
                let part = dir.join(format!("{NAME}{PART}"));
                let mut options = OpenOptions::new();
                let file = options.create(true).write(true).truncate(true).mode(0o600).open(&part);
                let mut file = file.with_context(failed)?;
                file.write_all(&bytes).with_context(failed)?;
                // All files, and then the name of the manifest.
                let all = File::open(&*dir).with_context(failed)?;
                rustix::fs::syncfs(&all).with_context(failed)?;
                fs::rename(&part, dir.join(NAME)).with_context(failed)?;
                all.sync_all().with_context(failed)?;
                sweep(dir, &manifest)?;
            }
            To::Tar(out) => {
                put_header(out, NAME, bytes.len() as u64).with_context(failed)?;
                out.write_all(&bytes).with_context(failed)?;
                let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
                out.write_all(&vec![0; padding]).with_context(failed)?;
                out.write_all(&walt_tar::END).with_context(failed)?;
                out.flush().with_context(failed)?;
            }
        }
        Ok(manifest)
    }
}

fn put_header(out: &mut dyn Write, path: &str, size: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    write_header(&mut bytes, &Header { path: path.as_bytes().to_vec(), mode: 0o600, ..Header::file(size) });
    out.write_all(&bytes)
}

/// Reads the manifest in a directory; none if there is none.
///
/// # Errors
/// It is damaged, or a newer program made it.
pub fn read_manifest(dir: &Path) -> Result<Option<Manifest>> {
    let path = dir.join(NAME);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut bytes = Vec::new();
    file.take(MANIFEST_MAX)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Manifest::parse(&bytes, &dir.display().to_string()).map(Some)
}

/// Removes files of earlier backups that this one does not have, and of interrupted ones.
fn sweep(dir: &Path, manifest: &Manifest) -> Result<()> {
    let failed = || format!("cannot remove files of an earlier backup from {}", dir.display());
    for entry in fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PLACE) && *name != *manifest.place {
            fs::remove_dir_all(entry.path()).with_context(failed)?;
        }
    }
    let needed: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    for kind in ["configs", "layers", "blobs"] {
        let below = dir.join(IMAGES).join(kind);
        let list = match fs::read_dir(&below) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            list => list.with_context(failed)?,
        };
        for entry in list {
            let entry = entry.with_context(failed)?;
            let name = format!("{IMAGES}/{kind}/{}", entry.file_name().to_string_lossy());
            if !needed.contains(name.as_str()) {
                fs::remove_file(entry.path()).with_context(failed)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actions::backup::manifest::{FORMAT, Images},
        base::formats::Formats,
    };

    fn manifest(place: &str) -> Manifest {
        Manifest {
            format: FORMAT,
            state: Formats::ours(),
            made: String::new(),
            host: String::new(),
            network: String::new(),
            images: Images::Included,
            persist: false,
            logs: false,
            place: place.into(),
            references: Vec::new(),
            left_out: Vec::new(),
            files: Vec::new(),
        }
    }

    fn put(sink: &mut Sink, path: &str, text: &str) {
        sink.write(path, text.len() as u64, |to| Ok(to.write_all(text.as_bytes())?)).unwrap();
    }

    #[test]
    fn a_second_backup_keeps_what_never_changes_and_the_first_one_until_it_is_whole() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("b");
        let mut sink = Sink::dir(&dir).unwrap();
        assert!(!sink.has("images/layers/a.tar"));
        put(&mut sink, "images/layers/a.tar", "a");
        put(&mut sink, "images/layers/old.tar", "old");
        put(&mut sink, "state-1/walt.sqlite", "one");
        sink.finish(manifest("state-1")).unwrap();

        let mut broken = Sink::dir(&dir).unwrap();
        put(&mut broken, "state-2/walt.sqlite", "two");
        drop(broken);
        let whole = read_manifest(&dir).unwrap().unwrap();
        assert_eq!((whole.place.as_str(), whole.files.len()), ("state-1", 3));
        assert_eq!(fs::read_to_string(dir.join("state-1/walt.sqlite")).unwrap(), "one");

        let mut sink = Sink::dir(&dir).unwrap();
        assert!(sink.has("images/layers/a.tar") && sink.kept == 1);
        assert_eq!((sink.place("1"), sink.place("9")), ("state-1-2".into(), "state-9".into()));
        fs::write(dir.join("images/layers/old.tar"), "cut").unwrap();
        fs::write(dir.join("images/layers/old.tar"), "c").unwrap();
        assert!(!sink.has("images/layers/old.tar"), "it has another size");
        put(&mut sink, "state-3/walt.sqlite", "three");
        let done = sink.finish(manifest("state-3")).unwrap();
        assert_eq!(done.files.len(), 2);
        let mut left: Vec<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["images", "manifest.json", "state-3"]);
        assert!(!dir.join("images/layers/old.tar").exists());

        fs::write(dir.join("mine.txt"), "").unwrap();
        assert!(Sink::dir(&dir).err().unwrap().to_string().contains("'mine.txt'"));
    }

    #[test]
    fn a_file_of_another_size_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        let mut sink = Sink::dir(&top.path().join("b")).unwrap();
        let failed = sink.write("state-1/x", 5, |to| Ok(to.write_all(b"four")?)).unwrap_err();
        assert!(format!("{failed:#}").contains("it has 4 bytes instead of 5"), "{failed:#}");
        assert!(!top.path().join("b/state-1/x").exists());
    }
}
